//! Answers to a file of prompts, generated in batches and written to a file that can be continued.

mod file;
mod prompts;
mod request;

use std::{collections::BTreeMap, time::Instant};

use serde_json::{Map, Value, json};

use crate::{
    capacity,
    data::rows::{ASSISTANT, integers, write::template},
    error::{Error, Result},
    generate::{Completion, Extent, Finish, GenerateOptions, Generation},
    inference::{saved_model::Opened, settings::of_model},
    runs::{
        Interrupt,
        progress::{Progress, Show},
    },
};
use file::AnswersFile;
use prompts::{Prompt, read};
use request::REFERENCE;
pub use request::{AnswerCounts, PromptsToAnswer};

/// Keys that are added to a row.
const OWN: [&str; 5] = ["completion", "completion_ended", "completion_tokens", "finish", "sample"];

impl Opened {
    /// Answers every prompt and writes a row for each answer, in the order of the prompts. If the file of answers exists, it is
    /// continued.
    ///
    /// # Errors
    /// Prompts that cannot be read; a file of answers of another model, other prompts or other options; too little memory; errors
    /// of the backend; an interruption.
    pub fn answer_prompts(
        &mut self,
        wanted: &PromptsToAnswer,
        settings: Map<String, Value>,
        interrupt: &Interrupt,
    ) -> Result<AnswerCounts> {
        let prompts::Read { prompts, sources, template } = read(self, wanted)?;
        check_answers(&prompts, wanted)?;
        check_names(&prompts)?;
        let mut settings = settings;
        settings.insert("model".into(), of_model(self)?);
        settings.insert("ends".into(), self.tokenizer.ends().into());
        settings.insert("prompts".into(), sources);
        settings
            .insert("chat_template_sha256".into(), template.map_or(Value::Null, |text| template::sha256(&text).into()));
        settings.insert("columns".into(), json!(wanted.columns));
        settings.insert("samples".into(), wanted.samples.into());
        let GenerateOptions { max_tokens, temperature, top_p, top_k, seed } = wanted.options;
        settings.insert("max_tokens".into(), max_tokens.into());
        settings.insert("temperature".into(), temperature.into());
        settings.insert("top_p".into(), top_p.into());
        settings.insert("top_k".into(), top_k.into());
        settings.insert("seed".into(), seed.into());
        let total = prompts.len().saturating_mul(wanted.samples);
        let mut file = AnswersFile::open(&wanted.out, settings, total)?;
        let earlier = file.rows();
        let mut counts = AnswerCounts { prompts: prompts.len(), earlier, ..AnswerCounts::default() };
        let start = Instant::now();
        let done = self.answer(&prompts, wanted, &mut file, interrupt, &mut counts);
        counts.seconds = start.elapsed().as_secs_f64();
        counts.tokens_per_s = counts.new_tokens as f64 / counts.seconds.max(1e-9);
        counts.answers = file.rows();
        done?;
        // A command that finds all answers keeps the counts and the speed of the one that wrote them.
        if earlier < total || !file.has_counts {
            file.finish(&counts)?;
        }
        Ok(counts)
    }

    fn answer(
        &self,
        prompts: &[Prompt],
        wanted: &PromptsToAnswer,
        file: &mut AnswersFile,
        interrupt: &Interrupt,
        counts: &mut AnswerCounts,
    ) -> Result<()> {
        let total = prompts.len().saturating_mul(wanted.samples);
        let prompt_of = |sample: usize| &prompts[sample / wanted.samples];
        let fits = |prompt: &Prompt| prompt.ids.len() < self.model.config().context as usize;
        counts.too_long = prompts.iter().filter(|prompt| !fits(prompt)).count();
        let ids: Vec<Vec<i32>> = (0..total).map(|sample| prompt_of(sample).ids.clone()).collect();
        let samples: Vec<usize> = (file.rows()..total).filter(|sample| fits(prompt_of(*sample))).collect();
        let extent = Extent { samples, slots: wanted.batch };
        self.check_room(&ids, wanted)?;
        let progress = Progress::new(0, 0, Show::Auto);
        let task = progress.task("answers", total as u64);
        let start = Instant::now();
        let mut ignore = |_| {};
        let mut generation = Generation::new(&self.model, &ids, &wanted.options, extent, &mut ignore)?;
        let mut finished: BTreeMap<usize, Completion> = BTreeMap::new();
        // Rows are in the order of the prompts, so that a file can be continued where it ends.
        while file.rows() < total {
            if interrupt.requested() {
                progress.finish();
                return Err(file.interrupted(total));
            }
            let (prompt, sample) = (prompt_of(file.rows()), file.rows() % wanted.samples);
            let completion = match finished.remove(&file.rows()) {
                Some(completion) => Some(completion),
                None if !fits(prompt) => None,
                None if generation.is_done() => return Err(Error::run("a prompt was never answered")),
                None => {
                    for (sample, completion) in generation.advance()? {
                        counts.new_tokens += completion.tokens.len();
                        counts.cut_off += usize::from(completion.finish != Finish::EndOfSequence);
                        finished.insert(sample, completion);
                    }
                    continue;
                }
            };
            file.append(&self.row(prompt, completion.as_ref(), (wanted.samples > 1).then_some(sample))?)?;
            let speed = counts.new_tokens as f64 / start.elapsed().as_secs_f64().max(1e-9);
            task.note(&format!("{speed:.0} tokens/s"));
            task.done(file.rows() as u64);
        }
        progress.finish();
        Ok(())
    }

    /// Refuses a batch whose keys and values do not fit in memory.
    fn check_room(&self, prompts: &[Vec<i32>], wanted: &PromptsToAnswer) -> Result<()> {
        let config = self.model.config();
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0).saturating_add(wanted.options.max_tokens);
        let tokens = (longest as u64).min(config.context).saturating_mul(wanted.batch.min(prompts.len()) as u64);
        let bytes = tokens.saturating_mul(config.kv_width()).saturating_mul(2 * 4 * config.layers);
        capacity::check(bytes).map_err(|why| {
            Error::request(format!("the keys and values of {} answers at a time: {why}", wanted.batch))
                .with_hint("lower --batch or --max-tokens")
        })
    }

    /// Returns the row of an answer: the prompt's columns, the answer, whether it ended, and its number of tokens. `None`: the
    /// prompt has no room for an answer.
    fn row(&self, prompt: &Prompt, completion: Option<&Completion>, sample: Option<usize>) -> Result<String> {
        let mut row = Map::new();
        for (name, value) in &prompt.row {
            match name.as_str() {
                "completion" => _ = row.insert(REFERENCE.into(), value.clone()),
                name if OWN.contains(&name) => {}
                _ => _ = row.insert(name.clone(), value.clone()),
            }
        }
        if let Some(sample) = sample {
            row.insert("sample".into(), sample.into());
        }
        let (answer, ended, tokens, finish) = match completion {
            None => (Value::Null, false, 0, "prompt too long"),
            Some(completion) => {
                let ended = completion.finish == Finish::EndOfSequence;
                let words = &completion.tokens[..completion.tokens.len() - usize::from(ended)];
                let ids = |tokens: &[i32]| tokens.iter().map(|id| *id as u32).collect::<Vec<u32>>();
                let before = if prompt.is_templated { Vec::new() } else { ids(&prompt.ids) };
                let text = self.tokenizer.continuation(&before, &ids(words))?;
                let answer = match prompt.is_chat {
                    true => json!([{"role": ASSISTANT, "content": text}]),
                    false => text.into(),
                };
                (answer, ended, completion.tokens.len(), completion.finish.as_str())
            }
        };
        row.insert("completion".into(), answer);
        row.insert("completion_ended".into(), ended.into());
        row.insert("completion_tokens".into(), tokens.into());
        row.insert("finish".into(), finish.into());
        let line = serde_json::to_string(&row).map_err(|e| Error::run("cannot write a row as JSON").with_cause(e))?;
        Ok(integers::written(&line).into_owned() + "\n")
    }
}

/// Refuses rows with columns of their own that have the names of ours, unless they are answers of an earlier command.
fn check_names(prompts: &[Prompt]) -> Result<()> {
    for (number, prompt) in prompts.iter().enumerate() {
        let has = |name: &str| prompt.row.iter().any(|(own, _)| own == name);
        let is_answer = has("completion_ended") && has("completion_tokens");
        let lost = OWN[1..].iter().find(|name| has(name) && !is_answer);
        let twice = (has(REFERENCE) && has("completion")).then_some(&REFERENCE).filter(|_| !is_answer);
        if let Some(name) = lost.or(twice) {
            let what = format!("prompt {}: its column `{name}` would be replaced by one of the answer", number + 1);
            return Err(Error::request(what).with_hint("rename the column in the file of prompts"));
        }
    }
    Ok(())
}

/// Minimum bytes of an answer in addition to its prompt.
const ANSWER: u64 = 64;

/// Refuses more answers than fit in memory.
fn check_answers(prompts: &[Prompt], wanted: &PromptsToAnswer) -> Result<()> {
    let of_prompt = |prompt: &Prompt| (wanted.samples as u64).saturating_mul(4 * prompt.ids.len() as u64 + ANSWER);
    let bytes = prompts.iter().map(of_prompt).fold(0, u64::saturating_add);
    capacity::check(bytes).map_err(|why| {
        let answers = (prompts.len() as u64).saturating_mul(wanted.samples as u64);
        Error::request(format!("{answers} answers: {why}")).with_hint("lower --samples, or split the file of prompts")
    })
}
