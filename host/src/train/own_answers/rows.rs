//! Rows of prompts with a model's own answers: sequence-level distillation trains another model on them.

use std::fmt::{self, Write};

use plugin_api::reward::Sample;
use serde::Serialize;
use serde_json::Map;

use super::draw::{Collect, Drawing, Prompt, Wanted, is_text, mean};
use super::rows_file::RowsFile;
use crate::{
    data::rows::{integers, kind::is_other_example},
    decimals::fixed,
    error::{Error, Result},
    runs::Interrupt,
    setup::Setup,
};

/// Separates this random stream from those of rollouts and pairs.
const ANSWERS: u64 = 0xA25E;

/// Keys that a row sets itself; a column of the prompt with such a name is dropped.
const OWN: [&str; 4] = ["prompt", "completion", "completion_ended", "score"];

/// The rows that were built.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Answers {
    /// Prompts answered.
    pub prompts: usize,
    /// Rows written, one for each answer.
    pub answers: usize,
    /// Answers skipped because they contain bytes that are not valid text: as text they would be different answers.
    pub no_text: usize,
    /// Answers that were cut off at the length limit.
    pub cut_off: usize,
    /// Mean score of the answers; absent without rewards.
    pub score: Option<f64>,
    /// Rows as JSON lines that are not written yet.
    #[serde(skip)]
    pub lines: String,
}

/// Writes a model's answers to the wanted prompts of an experiment with rollouts to `file`.
///
/// # Errors
/// A request error for an experiment without `[rollout]`; errors of plugins and of the backend; an interruption.
pub fn answers(setup: &Setup, wanted: Wanted, file: &mut RowsFile, interrupt: &Interrupt) -> Result<Answers> {
    let drawing = Drawing::of(setup, wanted, 1, ANSWERS)?;
    let mut collecting = Collecting { built: Answers::default(), is_scored: drawing.is_scored(), sum: 0.0 };
    drawing.run(&mut collecting, file, interrupt)?;
    let Collecting { mut built, is_scored, sum } = collecting;
    built.score = is_scored.then(|| mean(sum, built.answers + built.no_text));
    Ok(built)
}

struct Collecting {
    built: Answers,
    is_scored: bool,
    sum: f64,
}

impl Collect for Collecting {
    fn add(&mut self, prompt: Prompt, answers: &[&Sample], scores: &[f64]) -> Result<()> {
        self.sum += scores.iter().sum::<f64>();
        self.built.add(&prompt, answers, self.is_scored.then_some(scores))
    }

    fn take_lines(&mut self) -> String {
        std::mem::take(&mut self.built.lines)
    }
}

impl Answers {
    /// Adds the answers to a prompt.
    fn add(&mut self, prompt: &Prompt, answers: &[&Sample], scores: Option<&[f64]>) -> Result<()> {
        self.prompts += 1;
        for (index, answer) in answers.iter().enumerate() {
            if !is_text(answer) {
                self.no_text += 1;
                continue;
            }
            let mut row = Map::new();
            row.insert("prompt".into(), prompt.value(answer));
            row.insert("completion".into(), prompt.answer(&answer.completion));
            // An answer that was cut off does not end there, so that a model must not learn to stop there.
            row.insert("completion_ended".into(), answer.ended.into());
            if let Some(score) = scores.and_then(|scores| scores.get(index)) {
                row.insert("score".into(), (*score).into());
            }
            let is_kept = |name: &str| !OWN.contains(&name) && !is_other_example(name);
            row.extend(prompt.row.clone().into_iter().filter(|(name, _)| is_kept(name)));
            let line =
                serde_json::to_string(&row).map_err(|e| Error::run("cannot write a row as JSON").with_cause(e))?;
            // Writing to a string cannot fail.
            _ = writeln!(self.lines, "{}", integers::written(&line));
            self.answers += 1;
            self.cut_off += usize::from(!answer.ended);
        }
        Ok(())
    }
}

impl fmt::Display for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "prompts    {}", self.prompts)?;
        write!(f, "answers    {}, {} of them cut off at the length limit", self.answers, self.cut_off)?;
        if self.no_text > 0 {
            write!(f, "\nskipped {} answers that contain bytes that are not valid text", self.no_text)?;
        }
        self.score.map_or(Ok(()), |score| write!(f, "\nscore      {}", fixed(score, 4)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// Catches answers that are lost, a cut answer that looks complete, a column that overwrites an answer, and scores of others.
    #[test]
    fn every_answer_is_a_row_with_its_own_score() {
        let sample = |completion: &str, ended| Sample {
            prompt: "p".into(),
            completion: completion.into(),
            ended,
            columns: Vec::new(),
        };
        let row = json!({"prompt": "p", "qid": 9007199254740993_u64, "completion": "gold"});
        let prompt = Prompt { row: row.as_object().cloned().unwrap(), as_messages: false };
        let (a, b, c) = (sample("a", true), sample("b\u{FFFD}", true), sample("c", false));
        let mut built = Answers::default();
        built.add(&prompt, &[&a, &b, &c], Some(&[0.5, 1.0, 2.0])).unwrap();
        built.add(&prompt, &[&a], None).unwrap();
        assert_eq!((built.prompts, built.answers, built.no_text, built.cut_off), (2, 3, 1, 1));
        let rows: Vec<Value> = built.lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let id = 9007199254740993_u64;
        let row = |text: &str, ended: bool, score: f64| json!({"prompt": "p", "completion": text, "completion_ended": ended, "score": score, "qid": id});
        assert_eq!(rows[..2], [row("a", true, 0.5), row("c", false, 2.0)]);
        assert_eq!(rows[2], json!({"prompt": "p", "completion": "a", "completion_ended": true, "qid": id}));
    }
}
