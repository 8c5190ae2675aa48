//! Preference pairs from a model's own answers: of several answers to a prompt, the one with the highest reward is chosen and
//! the one with the lowest is rejected. With these pairs a preference objective can learn from the experiment's rewards without
//! rollouts.

use std::fmt::{self, Write};

use plugin_api::reward::Sample;
use serde::Serialize;
use serde_json::Map;

use super::draw::{Collect, Drawing, Prompt, Wanted, is_text, mean};
use super::rows_file::RowsFile;
use crate::{
    data::rows::integers,
    decimals::fixed,
    error::{Error, Result},
    runs::Interrupt,
    setup::Setup,
};

/// Separates this random stream from those of rollouts.
const PAIRS: u64 = 0x9A12;

/// Keys that a pair's row sets itself; a column of the prompt with such a name is dropped.
const OWN: [&str; 8] =
    ["prompt", "chosen", "rejected", "messages", "chosen_score", "rejected_score", "chosen_ended", "rejected_ended"];

/// The pairs that were built.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Pairs {
    /// Prompts answered.
    pub prompts: usize,
    /// Pairs written: one for each prompt whose best and worst answers have different scores.
    pub pairs: usize,
    /// Prompts without a pair because all answers have the same score.
    pub ties: usize,
    /// Answers skipped because they contain bytes that are not valid text: as text they would be different answers.
    pub no_text: usize,
    /// Mean score of all answers.
    pub mean: f64,
    /// Mean score of the chosen answers; NaN if there are none.
    pub chosen: f64,
    /// Mean score of the rejected answers; NaN if there are none.
    pub rejected: f64,
    /// Rows as JSON lines that are not written yet.
    #[serde(skip)]
    pub lines: String,
}

/// Answers to each prompt, if neither the user nor the experiment asks for several.
const USUAL: usize = 8;

/// Pairs a model's answers to the wanted prompts of an experiment with rollouts, and writes the pairs to `file`.
///
/// # Errors
/// A request error for an experiment without `[rollout]` or `[[reward]]`; errors of plugins and of the backend; an interruption.
pub fn pairs(setup: &Setup, wanted: Wanted, file: &mut RowsFile, interrupt: &Interrupt) -> Result<Pairs> {
    let drawing = Drawing::of(setup, wanted, USUAL, PAIRS)?;
    if !drawing.is_scored() {
        return Err(setup.loaded.refuse("reward", "missing: pairs need a reward with a weight other than 0"));
    }
    let mut collecting = Collecting::default();
    drawing.run(&mut collecting, file, interrupt)?;
    let Collecting { mut built, all } = collecting;
    built.mean = mean(all.iter().sum(), all.len());
    built.chosen = mean(built.chosen, built.pairs);
    built.rejected = mean(built.rejected, built.pairs);
    Ok(built)
}

#[derive(Default)]
struct Collecting {
    built: Pairs,
    all: Vec<f64>,
}

impl Collect for Collecting {
    fn add(&mut self, prompt: Prompt, answers: &[&Sample], scores: &[f64]) -> Result<()> {
        self.all.extend(scores);
        self.built.add(prompt, answers, scores)
    }

    fn take_lines(&mut self) -> String {
        std::mem::take(&mut self.built.lines)
    }
}

impl Pairs {
    /// Adds a pair of a prompt's best and worst answers (the first among equals). `chosen` and `rejected` are sums until
    /// `pairs` divides them.
    fn add(&mut self, prompt: Prompt, answers: &[&Sample], scores: &[f64]) -> Result<()> {
        self.prompts += 1;
        let texts: Vec<usize> = (0..scores.len()).filter(|index| is_text(answers[*index])).collect();
        self.no_text += scores.len() - texts.len();
        let pick = |better: fn(f64, f64) -> bool| {
            texts.iter().copied().reduce(|best, index| if better(scores[index], scores[best]) { index } else { best })
        };
        let (Some(best), Some(worst)) = (pick(|a, b| a > b), pick(|a, b| a < b)) else {
            self.ties += 1;
            return Ok(());
        };
        if scores[best] == scores[worst] {
            self.ties += 1;
            return Ok(());
        }
        let mut row = Map::new();
        let message = |answer: usize| prompt.answer(&answers[answer].completion);
        row.insert("prompt".into(), prompt.value(answers[best]));
        row.insert("chosen".into(), message(best));
        row.insert("rejected".into(), message(worst));
        // A truncated answer does not end there, so the model must not learn to stop there.
        row.insert("chosen_ended".into(), answers[best].ended.into());
        row.insert("rejected_ended".into(), answers[worst].ended.into());
        row.insert("chosen_score".into(), scores[best].into());
        row.insert("rejected_score".into(), scores[worst].into());
        row.extend(prompt.row.into_iter().filter(|(name, _)| !OWN.contains(&name.as_str())));
        let line = serde_json::to_string(&row).map_err(|e| Error::run("cannot write a row as JSON").with_cause(e))?;
        let line = integers::written(&line);
        // Writing to a string cannot fail.
        _ = writeln!(self.lines, "{line}");
        self.pairs += 1;
        self.chosen += scores[best];
        self.rejected += scores[worst];
        Ok(())
    }
}

impl fmt::Display for Pairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "prompts    {}", self.prompts)?;
        writeln!(
            f,
            "pairs      {}; {} prompts have none: their answers all have the same score",
            self.pairs, self.ties
        )?;
        if self.no_text > 0 {
            writeln!(f, "skipped {} answers that contain bytes that are not valid text", self.no_text)?;
        }
        if self.pairs == 0 {
            return write!(f, "score      {} of all; no pair was written", fixed(self.mean, 4));
        }
        write!(
            f,
            "score      {} of all, {} of the chosen, {} of the rejected",
            fixed(self.mean, 4),
            fixed(self.chosen, 4),
            fixed(self.rejected, 4)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn sample(completion: &str) -> Sample {
        Sample { prompt: "p".into(), completion: completion.into(), ended: true, columns: Vec::new() }
    }

    fn prompt(row: Value) -> Prompt {
        Prompt { row: row.as_object().cloned().unwrap(), as_messages: false }
    }

    fn row() -> Prompt {
        prompt(json!({"prompt": "p", "qid": 9007199254740993_u64, "chosen": "own"}))
    }

    /// Catches sides exchanged, a pair of equal answers, a column that overwrites an answer, and a column that is lost.
    #[test]
    fn the_best_answer_is_chosen_and_the_worst_rejected() {
        let (a, b, c) = (sample("a"), sample("b"), sample("c"));
        let mut pairs = Pairs::default();
        pairs.add(row(), &[&a, &b, &c], &[0.5, -1.0, 2.0]).unwrap();
        pairs.add(row(), &[&a, &b], &[1.0, 1.0]).unwrap();
        pairs.add(row(), &[&a], &[1.0]).unwrap();
        pairs.add(row(), &[&a, &sample("b\u{FFFD}")], &[1.0, 2.0]).unwrap();
        assert_eq!((pairs.prompts, pairs.pairs, pairs.ties, pairs.no_text), (4, 1, 3, 1));
        let row: Value = serde_json::from_str(&pairs.lines).unwrap();
        let expected = serde_json::json!({
            "prompt": "p", "chosen": "c", "rejected": "b", "chosen_score": 2.0, "rejected_score": -1.0,
            "chosen_ended": true, "rejected_ended": true, "qid": 9007199254740993_u64
        });
        assert_eq!(row, expected);
    }

    /// Catches messages that are flattened to a text, answers as plain strings to prompts that are messages, and strings that a
    /// template turns into messages and that are written as plain text.
    #[test]
    fn answers_to_messages_are_messages() {
        let messages = json!([{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]);
        let as_messages = Prompt { as_messages: true, ..prompt(json!({"prompt": "q"})) };
        for (prompt, expected) in [
            (prompt(json!({"prompt": messages})), messages.clone()),
            (as_messages, json!([{"role": "user", "content": "q"}])),
        ] {
            let mut pairs = Pairs::default();
            pairs.add(prompt, &[&sample("a"), &sample("b")], &[1.0, 0.0]).unwrap();
            let row: Value = serde_json::from_str(&pairs.lines).unwrap();
            assert_eq!(row["prompt"], expected);
            assert_eq!(row["chosen"], json!([{"role": "assistant", "content": "a"}]));
            assert_eq!(row["rejected"], json!([{"role": "assistant", "content": "b"}]));
        }
    }
}
