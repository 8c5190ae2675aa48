//! The policy's answers to prompts: what rollouts learn from and evaluations judge.

use plugin_api::{
    batch::{Scope, names},
    reward::Sample,
};

use super::{Figures, exact_match::Question};
use crate::{
    config::Experiment,
    data::{Examples, Sequence, Tokenizer, pack},
    error::Result,
    generate::{Finish, GenerateOptions, generate},
    model::{Keep, Model},
    objectives::Objectives,
    train::{
        roles::Roles,
        rollout::rewards::{Answer, Rewards},
        run::summary::SampleText,
        step::forward::Pass,
    },
};

/// The policy with what it needs to answer.
#[derive(Clone, Copy)]
pub struct Policy<'a> {
    /// The model.
    pub model: &'a Model,
    /// Its tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// Where the prompts come from.
    pub data: &'a dyn Examples,
}

impl Policy<'_> {
    /// Answers prompts, each a sequence without an answer.
    ///
    /// # Errors
    /// A prompt that leaves no room in the context; the backend's.
    pub fn answer(&self, prompts: &[Sequence], options: &GenerateOptions) -> Result<Vec<Answer>> {
        let ids: Vec<Vec<i32>> = prompts.iter().map(|p| p.ids.iter().map(|id| *id as i32).collect()).collect();
        let completions = generate(self.model, &ids, options, &mut |_| {})?;
        let mut answers = Vec::with_capacity(prompts.len());
        for (prompt, completion) in prompts.iter().zip(completions) {
            let mut tokens: Vec<u32> = completion.tokens.iter().map(|id| *id as u32).collect();
            // Every token is read when the answer is judged, so all of them must have a position.
            let room = (self.model.config().context as usize).saturating_sub(prompt.ids.len());
            let ended = completion.finish == Finish::EndOfSequence && tokens.len() <= room;
            tokens.truncate(room);
            answers.push(self.read(prompt, &tokens, ended)?);
        }
        Ok(answers)
    }

    fn read(&self, prompt: &Sequence, tokens: &[u32], ended: bool) -> Result<Answer> {
        let words = &tokens[..tokens.len() - usize::from(ended)];
        let (said, columns) = match self.data.row_text(prompt.row) {
            Some(row) => (row.prompt.clone(), row.columns.clone()),
            None => (self.tokenizer.decode(&prompt.ids, true)?, Vec::new()),
        };
        let completion = self.text(&prompt.ids, words)?;
        let mut numbers = prompt.numbers.clone();
        numbers.insert(names::ENDED.to_owned(), f64::from(u8::from(ended)));
        let supervised = prompt.ids.iter().map(|_| false).chain(tokens.iter().map(|_| true));
        Ok(Answer {
            sequence: Sequence {
                ids: prompt.ids.iter().chain(tokens).copied().collect(),
                supervised: supervised.collect(),
                columns: prompt.columns.clone(),
                row: prompt.row,
                numbers,
                reads_last: true,
                ..Default::default()
            },
            sample: Sample { prompt: said, completion, ended, columns },
        })
    }
}

/// An answer, to be read by people.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    /// Prompt, answer, its length and end.
    pub text: SampleText,
    /// What it is worth, as rollouts learn from it.
    pub reward: f64,
}

impl Said {
    /// An answer with its reward. Prompts leave room for the longest answer, so what did not end was cut off there.
    pub fn new(answer: &Answer, reward: f64) -> Said {
        let Answer { sequence, sample } = answer;
        let finish = if sample.ended { Finish::EndOfSequence } else { Finish::MaxTokens };
        let (prompt, text) = (sample.prompt.clone(), sample.completion.clone());
        let tokens = sequence.supervised.iter().filter(|supervised| **supervised).count();
        Said { text: SampleText { prompt, text, tokens, finish: finish.as_str() }, reward }
    }
}

/// A held-out answer with what the rewards gave it.
#[derive(Debug, Clone, PartialEq)]
pub struct RewardedAnswer {
    /// Prompt, answer, its length and end, and the weighted sum of the rewards.
    pub said: Said,
    /// The row's own answer, where it has one.
    pub expected: Option<String>,
    /// Each reward by its name.
    pub rewards: Vec<(String, f64)>,
}

impl Policy<'_> {
    /// The text of `words` behind `prompt`, without special tokens. The prompt passes the decoder too: at the beginning of a
    /// text some tokenizers leave out a word's space, and prompt and completion together would be another text then.
    fn text(&self, prompt: &[u32], words: &[u32]) -> Result<String> {
        let mut decoder = self.tokenizer.stream(false);
        for id in prompt {
            decoder.push(*id)?;
        }
        let mut text = String::new();
        for id in words.iter().filter(|id| !self.tokenizer.is_special(**id)) {
            text += &decoder.push(*id)?;
        }
        Ok(text + &decoder.finish()?)
    }
}

/// How held-out prompts are answered for those who judge: at the length of rollouts, or else at twice that of the longest answer
/// that a row gives, or else at 64 tokens; always with the same draws.
pub fn options(experiment: &Experiment, questions: &[Question]) -> GenerateOptions {
    let longest = questions.iter().map(Question::answer_length).max().filter(|length| *length > 0);
    let (max_tokens, top_p, top_k) = match &experiment.rollout {
        Some(rollout) => (rollout.max_new_tokens, rollout.top_p, rollout.top_k),
        None => (longest.map_or(64, |length| 2 * length), 1.0, 0),
    };
    let temperature = experiment.eval.temperature.unwrap_or(1.0);
    GenerateOptions { max_tokens, temperature, top_p, top_k, seed: experiment.seed }
}

/// What is found of answers to held-out prompts.
pub struct Exam<'a> {
    /// Who answers.
    pub policy: Policy<'a>,
    /// Models beside it.
    pub roles: &'a Roles,
    /// Whose statistics tell how far the policy has moved.
    pub objectives: &'a Objectives,
    /// Who judges.
    pub rewards: &'a Rewards,
    /// How answers are drawn.
    pub options: GenerateOptions,
    /// Positions computed at a time.
    pub tokens: usize,
}

/// Names of the figures of an exam by these `rewards`.
pub fn names(objectives: &Objectives, rewards: &Rewards, roles: &Roles) -> Vec<String> {
    let reward = objectives.needs().rollouts.then(|| "reward".to_owned());
    let judges = rewards.names().map(|name| format!("reward/{name}"));
    let moved = has_reference(roles).then(|| KL.to_owned());
    reward.into_iter().chain(judges).chain([ENDED.to_owned(), LENGTH.to_owned()]).chain(moved).collect()
}

fn has_reference(roles: &Roles) -> bool {
    roles.reference.as_ref().is_some_and(|role| role.model.is_some() && !role.leaves)
}

const ENDED: &str = "answers/ended";
const LENGTH: &str = "answers/length";
const KL: &str = "answers/kl";

impl Exam<'_> {
    /// Answers every question and has the answers judged: `reward/NAME` for every judge, `reward` for what rollouts get,
    /// `answers/ended` and `answers/length` (tokens, the end-of-text token included), and, where a reference is there, `answers/kl`
    /// (objectives have metrics called `kl` that are of other answers): the sum over an
    /// answer's tokens of log-probability less that of the reference, in nats per answer. The answers come with their rewards.
    ///
    /// # Errors
    /// The plugins' and the backend's own.
    pub fn figures(&self, questions: &[Question]) -> Result<(Figures, Vec<RewardedAnswer>)> {
        let prompts: Vec<Sequence> = questions.iter().map(|question| question.prompt().clone()).collect();
        let answers = self.policy.answer(&prompts, &self.options)?;
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
        let scores = self.rewards.judge(&answers)?;
        let combined = self.rewards.combined(&scores, answers.len());
        let mut figures = Vec::new();
        if self.objectives.needs().rollouts {
            figures.push(("reward".to_owned(), mean(&combined)));
        }
        figures.extend(scores.iter().map(|judge| (format!("reward/{}", judge.name), mean(&judge.scores))));
        let ended: Vec<f64> = answers.iter().map(|answer| f64::from(u8::from(answer.sample.ended))).collect();
        let lengths: Vec<f64> = answers.iter().map(|answer| answer.sequence.supervised_targets() as f64).collect();
        figures.push((ENDED.to_owned(), mean(&ended)));
        figures.push((LENGTH.to_owned(), mean(&lengths)));
        if let Some(kl) = self.kl(&answers)? {
            figures.push((KL.to_owned(), kl));
        }
        let rewarded =
            answers.iter().zip(&combined).zip(questions).enumerate().map(|(index, ((answer, reward), question))| {
                let rewards = scores.iter().map(|judge| (judge.name.clone(), judge.scores[index])).collect();
                RewardedAnswer {
                    said: Said::new(answer, *reward),
                    expected: question.answer().map(str::to_owned),
                    rewards,
                }
            });
        Ok((figures, rewarded.collect()))
    }

    fn kl(&self, answers: &[Answer]) -> Result<Option<f64>> {
        if !has_reference(self.roles) {
            return Ok(None);
        }
        let pass = Pass { model: self.policy.model, roles: self.roles, objectives: self.objectives };
        let sequences: Vec<Sequence> = answers.iter().map(|answer| answer.sequence.clone()).collect();
        let mut sum = 0.0;
        for range in pack::micro_batches(&sequences, self.tokens) {
            let batch = pass.run(&pack::pack(&sequences[range])?, Keep::Nothing)?.batch;
            debug_assert!(batch.array("logp").is_ok_and(|logp| logp.scope == Scope::TOKEN));
            let (logp, reference) = (batch.get("logp")?, batch.get(names::REFERENCE_LOGP)?);
            sum += logp.iter().zip(reference).map(|(own, reference)| own - reference).sum::<f64>();
        }
        Ok(Some(sum / answers.len().max(1) as f64))
    }
}
