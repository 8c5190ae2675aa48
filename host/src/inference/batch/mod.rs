//! Answers to a file of prompts, generated in batches and written to a file that can be continued.

mod file;
mod prompts;
mod request;

use std::{collections::BTreeMap, time::Instant};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    capacity,
    data::rows::{ASSISTANT, integers, kind::is_other_example, write::template},
    error::{Error, Result},
    generate::{Completion, Extent, Finish, GenerateOptions, Generation},
    inference::{saved_model::Opened, settings::of_model, tasks::answer_rows::PROMPT_TOO_LONG},
    runs::{
        Interrupt,
        progress::{Progress, Show},
    },
};
use file::{AnswersFile, DATE, recorded_date};
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
        // Rows that are continued on another day keep the date of the first ones.
        let date = recorded_date(&wanted.out).unwrap_or_else(|| chrono::Local::now().date_naive());
        let prompts::Read { prompts, sources, template, date } = read(self, wanted, date)?;
        check_answers(&prompts, wanted)?;
        check_names(&prompts)?;
        let mut settings = settings;
        settings.insert("model".into(), of_model(self)?);
        settings.insert("ends".into(), self.tokenizer.ends().into());
        settings.insert("prompts".into(), sources);
        settings
            .insert("chat_template_sha256".into(), template.map_or(Value::Null, |text| template::sha256(&text).into()));
        settings.extend(date.map(|date| (DATE.to_owned(), date.to_string().into())));
        settings.insert("columns".into(), json!(wanted.columns));
        settings.insert("samples".into(), wanted.samples.into());
        let GenerateOptions { max_tokens, temperature, top_p, top_k, seed } = wanted.options;
        settings.insert("max_tokens".into(), max_tokens.into());
        settings.insert("temperature".into(), temperature.into());
        settings.insert("top_p".into(), top_p.into());
        settings.insert("top_k".into(), top_k.into());
        settings.insert("seed".into(), seed.into());
        let total = prompts.len().saturating_mul(wanted.samples);
        let mut counts = AnswerCounts { prompts: prompts.len(), ..AnswerCounts::default() };
        let mut file = AnswersFile::open(&wanted.out, settings, total, &mut |row, line| {
            counts.add(&written(line, &prompts[row / wanted.samples], wanted.sample(row))?);
            Ok(())
        })?;
        let earlier = file.rows();
        counts.earlier = earlier;
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
        let progress = Progress::new(0, 0, &Show::Auto.into());
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
            let prompt = prompt_of(file.rows());
            let completion = match finished.remove(&file.rows()) {
                Some(completion) => Some(completion),
                None if !fits(prompt) => None,
                None if generation.is_done() => return Err(Error::run("a prompt was never answered")),
                None => {
                    for (sample, completion) in generation.advance()? {
                        counts.new_tokens += completion.tokens.len();
                        finished.insert(sample, completion);
                    }
                    continue;
                }
            };
            let answer = self.answer_of(prompt, completion.as_ref())?;
            file.append(&line(prompt, wanted.sample(file.rows()), &answer)?)?;
            counts.add(&answer);
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

    /// Returns a completion as its row has it. `None`: the prompt has no room for an answer.
    fn answer_of(&self, prompt: &Prompt, completion: Option<&Completion>) -> Result<Answer> {
        let Some(completion) = completion else {
            let finish = PROMPT_TOO_LONG.to_owned();
            return Ok(Answer { completion: Value::Null, completion_ended: false, completion_tokens: 0, finish });
        };
        let ended = completion.finish == Finish::EndOfSequence;
        let words = &completion.tokens[..completion.tokens.len() - usize::from(ended)];
        let ids = |tokens: &[i32]| tokens.iter().map(|id| *id as u32).collect::<Vec<u32>>();
        let before = if prompt.is_templated { Vec::new() } else { ids(&prompt.ids) };
        let text = self.tokenizer.continuation(&before, &ids(words))?;
        Ok(Answer {
            completion: match prompt.is_chat {
                true => json!([{"role": ASSISTANT, "content": text}]),
                false => text.into(),
            },
            completion_ended: ended,
            completion_tokens: completion.tokens.len(),
            finish: completion.finish.as_str().to_owned(),
        })
    }
}

/// The columns of an answer in its row.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    completion: Value,
    completion_ended: bool,
    completion_tokens: usize,
    finish: String,
}

impl AnswerCounts {
    /// Counts an answer that is in the file.
    fn add(&mut self, answer: &Answer) {
        self.tokens += answer.completion_tokens;
        self.cut_off += usize::from(!answer.completion_ended && !answer.completion.is_null());
    }
}

/// What stands before an answer in its row: all of the prompt's columns, and `sample`, its number among the answers to the prompt.
fn head(prompt: &Prompt, sample: Option<usize>) -> Result<String> {
    let mut row = Map::new();
    for (name, value) in &prompt.row {
        match name.as_str() {
            "completion" => _ = row.insert(REFERENCE.into(), value.clone()),
            name if OWN.contains(&name) => {}
            // The row has a prompt with its answer, and must not have a second example.
            name if is_other_example(name) => {}
            _ => _ = row.insert(name.clone(), value.clone()),
        }
    }
    if let Some(sample) = sample {
        row.insert("sample".into(), sample.into());
    }
    let text = json_text(&row)?;
    Ok(integers::written(text.strip_suffix('}').unwrap_or(&text)).into_owned())
}

/// Returns the line of an answer: the prompt's columns, the answer, whether it ended, and its number of tokens.
fn line(prompt: &Prompt, sample: Option<usize>, answer: &Answer) -> Result<String> {
    let Answer { completion, completion_ended, completion_tokens, finish } = answer;
    let [completion, finish] = [json_text(completion)?, json_text(finish)?];
    Ok(format!(
        "{},{ANSWER_BEGINS}{completion},\"completion_ended\":{completion_ended},\"completion_tokens\":{completion_tokens},\"finish\":{finish}}}\n",
        head(prompt, sample)?
    ))
}

/// Separates the columns of a prompt from an answer.
const ANSWER_BEGINS: &str = "\"completion\":";

/// Returns the answer in a line that an earlier command wrote.
///
/// # Errors
/// What is wrong with the line: it does not answer this prompt, or has no answer.
fn written(line: &str, prompt: &Prompt, sample: Option<usize>) -> Result<Answer, String> {
    let head = head(prompt, sample).map_err(|error| error.message().to_owned())?;
    let other = || "it does not answer the prompt at this place of --prompts, or its columns differ".to_owned();
    let answer = line.strip_prefix(&head).and_then(|rest| rest.strip_prefix(','));
    let answer = answer.filter(|rest| rest.starts_with(ANSWER_BEGINS)).ok_or_else(other)?;
    serde_json::from_str(&format!("{{{answer}")).map_err(|error| format!("it has no whole answer: {error}"))
}

fn json_text(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Error::run("cannot write a row as JSON").with_cause(e))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(row: Value) -> Prompt {
        let Value::Object(row) = row else { panic!("{row}") };
        Prompt { row, is_chat: false, is_templated: false, ids: vec![1] }
    }

    fn answer(text: &str) -> Answer {
        Answer {
            completion: text.into(),
            completion_ended: false,
            completion_tokens: 3,
            finish: "max tokens".to_owned(),
        }
    }

    /// Catches columns that are lost, an answer that replaces the row's own, and a row that ends with an object and loses its brace.
    #[test]
    fn a_line_has_the_columns_of_the_prompt_and_the_answer() {
        let row = json!({"prompt": "p", "completion": "gold", "finish": "old", "tags": {"a": {"b": 1}}});
        let line = line(&prompt(row), Some(2), &answer("x\n}")).unwrap();
        let expected = json!({"prompt": "p", "reference": "gold", "tags": {"a": {"b": 1}}, "sample": 2, "completion": "x\n}",
            "completion_ended": false, "completion_tokens": 3, "finish": "max tokens"});
        assert_eq!(line, expected.to_string() + "\n");
        // A row with two examples would be refused.
        let both = json!({"prompt": "p", "messages": [{"role": "user", "content": "p"}], "id": 7});
        let line = super::line(&prompt(both), None, &answer("x")).unwrap();
        assert!(line.starts_with(r#"{"prompt":"p","id":7,"completion":"x""#), "{line}");
    }

    /// Catches a file that is continued by its number of lines alone: one that was filtered, a row that is not an answer, and one
    /// that was written to by something else.
    #[test]
    fn a_line_belongs_to_the_prompt_and_sample_of_its_place() {
        let (first, second) = (prompt(json!({"prompt": "a", "o": {}})), prompt(json!({"prompt": "b", "o": {}})));
        let written_line = line(&first, Some(1), &answer("x")).unwrap();
        let text = written_line.trim_end();
        let found = written(text, &first, Some(1)).unwrap();
        assert_eq!((found.completion, found.completion_tokens), (json!("x"), 3));
        let wrong = |text: &str, prompt, sample| written(text, prompt, sample).unwrap_err();
        for error in [
            wrong(text, &second, Some(1)),
            wrong(text, &first, Some(0)),
            wrong(text, &first, None),
            wrong("{\"garbage\":1}", &first, Some(1)),
            wrong("", &first, Some(1)),
        ] {
            assert!(error.contains("does not answer the prompt at this place"), "{error}");
        }
        for cut in [&text[..text.len() - 1], &text.replace(",\"finish\":\"max tokens\"", ""), &text.replace("3", "-3")]
        {
            assert!(wrong(cut, &first, Some(1)).contains("no whole answer"), "{cut}");
        }
    }

    /// Catches counts that begin again where a file is continued, and a prompt without room that counts as cut off.
    #[test]
    fn counts_are_those_of_all_rows() {
        let mut counts = AnswerCounts::default();
        counts.add(&answer("x"));
        counts.add(&Answer { completion_ended: true, ..answer("y") });
        counts.add(&Answer { completion: Value::Null, completion_tokens: 0, ..answer("") });
        assert_eq!((counts.tokens, counts.cut_off), (6, 1));
        let resumed = AnswerCounts {
            prompts: 3,
            answers: 3,
            earlier: 1,
            new_tokens: 4,
            seconds: 2.0,
            tokens_per_s: 2.0,
            ..counts
        };
        let text = resumed.to_string();
        assert!(text.contains("answers    3 of 6 tokens, 1 of them by an earlier command; 1 was cut off"), "{text}");
        assert!(text.contains("4 new tokens by this command in 2.00 s"), "{text}");
        // Nothing was generated.
        assert!(!AnswerCounts { earlier: 3, ..resumed }.to_string().contains("speed"));
    }
}
