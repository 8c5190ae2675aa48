//! Draws answers of an experiment's model to all of its prompts.

use plugin_api::reward::Sample;
use serde_json::{Map, Value, json};
use telos_random::Rng;

use crate::{
    config::experiment::Rollout,
    data::{Examples, Sequence, rows::ASSISTANT},
    error::{Error, Result},
    generate::GenerateOptions,
    model::{Model, Outputs},
    runs::Interrupt,
    setup::Setup,
    train::{
        eval::prompts::{EvalPrompt, eval_prompts},
        own_answers::rows_file::RowsFile,
        rollout::{Rollouts, rewards::Rewards, sampling::Policy},
    },
};

/// Which prompts are answered, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Answers to each prompt; `None`: `rollout.samples`.
    pub samples: Option<usize>,
    /// The held-out prompts instead of those to train on.
    pub held_out: bool,
}

/// What becomes of answers.
pub(super) trait Collect {
    /// Takes a prompt's answers and their scores; without rewards every score is 0.
    fn add(&mut self, prompt: Prompt, answers: &[&Sample], scores: &[f64]) -> Result<()>;

    /// Takes the lines that were made since.
    fn take_lines(&mut self) -> String;
}

/// The model of an experiment and how it answers.
pub(super) struct Drawing<'a> {
    setup: &'a Setup,
    rollout: &'a Rollout,
    model: Model,
    rewards: Rewards,
    samples: usize,
    held_out: bool,
    stream: u64,
}

impl<'a> Drawing<'a> {
    /// Opens the experiment's model and rewards. `usual` is the number of answers if neither the user nor the experiment asks
    /// for several. `stream` separates the random numbers from those of other uses.
    ///
    /// # Errors
    /// A request error for an experiment without `[rollout]`, and for answers that leave no room for a prompt; a model or
    /// rewards that cannot be opened.
    pub(super) fn of(setup: &'a Setup, wanted: Wanted, usual: usize, stream: u64) -> Result<Self> {
        let Some(rollout) = &setup.experiment().rollout else {
            return Err(setup.loaded.refuse("rollout", "missing: its settings decide how prompts are answered"));
        };
        if let Some(why) = Rollouts::no_room(setup, rollout) {
            return Err(setup.loaded.refuse("rollout.max_new_tokens", why));
        }
        let samples = wanted.samples.unwrap_or(if rollout.samples > 1 { rollout.samples } else { usual });
        let (device, _) = setup.device(false)?;
        let model = setup.model(&device, None, Outputs::TOKENS)?;
        let mut mistakes = setup.loaded.mistakes();
        let rewards = Rewards::open(setup, &device, &mut mistakes)?;
        mistakes.finish()?;
        let rewards = rewards.ok_or_else(|| Error::run("the rewards were not opened"))?;
        Ok(Self { setup, rollout, model, rewards, samples, held_out: wanted.held_out, stream })
    }

    /// Whether the answers get scores.
    pub(super) fn is_scored(&self) -> bool {
        self.rewards.any_weighted()
    }

    /// Answers every prompt of the wanted part of the data and writes what becomes of the answers, block by block.
    ///
    /// # Errors
    /// Errors of plugins, of the backend and of `collect`; an interruption. The message says what is kept.
    pub(super) fn run(&self, collect: &mut dyn Collect, file: &mut RowsFile, interrupt: &Interrupt) -> Result<()> {
        let data = self.setup.data(false)?;
        // If a chat template turns plain prompts into a user message, the written rows contain messages as well.
        let as_messages = self.setup.experiment().data.source().writing().chat_template.is_some();
        let (side, data): (u64, &dyn Examples) = if self.held_out { (1, &*data.held_out) } else { (0, &*data.train) };
        let eval_prompts = eval_prompts(data, &self.setup.tokenizer, u64::MAX)?;
        if eval_prompts.is_empty() {
            let part = if self.held_out { "held-out prompts" } else { "prompts to train on" };
            return Err(self.setup.loaded.refuse("data", format!("there are no {part} to answer")));
        }
        let mut done = 0;
        // In blocks of a rollout's size, so that this needs no more memory than a rollout.
        for (block, eval_prompts_now) in eval_prompts.chunks(self.rollout.prompts).enumerate() {
            if interrupt.requested() {
                return Err(file.interrupted(done, eval_prompts.len()));
            }
            let answered = self.answer_block(data, (side, block as u64), eval_prompts_now, as_messages, collect);
            answered.and_then(|()| file.append(&collect.take_lines())).map_err(|error| {
                let stopped = format!("stopped after {done} of {} prompts; {}", eval_prompts.len(), file.kept());
                error.context(stopped)
            })?;
            done += eval_prompts_now.len();
        }
        Ok(())
    }

    fn answer_block(
        &self,
        data: &dyn Examples,
        (side, block): (u64, u64),
        eval_prompts: &[EvalPrompt],
        as_messages: bool,
        collect: &mut dyn Collect,
    ) -> Result<()> {
        let policy = Policy { model: &self.model, tokenizer: &self.setup.tokenizer, data };
        let prompts: Vec<Sequence> =
            eval_prompts.iter().flat_map(|prompt| vec![prompt.prompt().clone(); self.samples]).collect();
        let seed = Rng::new(&[self.setup.experiment().seed, self.stream, side, block]).next_u64();
        let answers = policy.answer(&prompts, &options(self.rollout, seed))?;
        let scores = self.rewards.combined(&self.rewards.score(&answers)?, answers.len());
        let rounds = answers.chunks(self.samples).zip(scores.chunks(self.samples));
        for (prompt, (answers, scores)) in eval_prompts.iter().zip(rounds) {
            let answered: Vec<&Sample> = answers.iter().map(|answer| &answer.sample).collect();
            let row = data.row_text(prompt.prompt().row).map(|row| row.written).unwrap_or_default();
            collect.add(Prompt { row, as_messages }, &answered, scores)?;
        }
        Ok(())
    }
}

fn options(rollout: &Rollout, seed: u64) -> GenerateOptions {
    let Rollout { max_new_tokens, temperature, top_p, top_k, .. } = *rollout;
    GenerateOptions { max_tokens: max_new_tokens, temperature, top_p, top_k, seed }
}

/// Returns a mean; NaN without values.
pub(super) fn mean(sum: f64, count: usize) -> f64 {
    if count == 0 { f64::NAN } else { sum / count as f64 }
}

/// Whether an answer is a text: bytes that are not valid text would be written as a different answer.
pub(super) fn is_text(answer: &Sample) -> bool {
    !answer.completion.contains(char::REPLACEMENT_CHARACTER)
}

/// A prompt that was answered.
pub(super) struct Prompt {
    /// Its row as in the file: prompt and columns.
    pub(super) row: Map<String, Value>,
    /// Whether a chat template turns plain strings into messages.
    pub(super) as_messages: bool,
}

impl Prompt {
    /// Returns whether prompt and answers are messages.
    fn is_chat(&self) -> bool {
        self.as_messages || self.row.get("prompt").is_some_and(Value::is_array)
    }

    /// Returns the prompt in the form of its row.
    pub(super) fn value(&self, sample: &Sample) -> Value {
        match self.row.get("prompt") {
            Some(Value::Array(messages)) => messages.clone().into(),
            Some(text) if self.as_messages => json!([{"role": "user", "content": text}]),
            Some(text) => text.clone(),
            None => sample.prompt.clone().into(),
        }
    }

    /// Returns an answer in the form of the prompt.
    pub(super) fn answer(&self, completion: &str) -> Value {
        if self.is_chat() { json!([{"role": ASSISTANT, "content": completion}]) } else { completion.into() }
    }
}
