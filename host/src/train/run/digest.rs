//! The important numbers of a run in short: its training loss, and its first and last evaluation. Like the alerts, a function of the
//! lines of metrics.jsonl alone.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::decimals::fixed;

/// The metrics of evaluations that are reported in addition to the loss, in this order. A prefix up to a `/` is ignored:
/// `rewards/margin`, or `dpo/rewards/margin` where there are several objectives.
const REPORTED: [&str; 7] = ["exact_match", "gold", "accuracy", "reward", "margin", "answers/kl", "score/mean"];

/// What is kept of a run's lines of metrics.jsonl.
#[derive(Debug, Clone, Default)]
pub struct Digest {
    first: Option<Map<String, Value>>,
    last: Option<Map<String, Value>>,
    loss: Option<LossOfSteps>,
}

/// The loss of training steps that had a finite one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LossOfSteps {
    /// That of the first step.
    pub first: f64,
    /// That of the last step.
    pub last: f64,
    /// The smallest.
    pub least: f64,
    /// Its step.
    pub least_step: u64,
}

impl Digest {
    /// Adds a line of metrics.jsonl.
    pub fn observe(&mut self, line: &Map<String, Value>) {
        let step = line.get("step").and_then(Value::as_u64).unwrap_or(0);
        match line.get("kind").and_then(Value::as_str) {
            Some("eval") if self.first.is_none() => self.first = Some(line.clone()),
            Some("eval") => self.last = Some(line.clone()),
            Some("train") => {
                let Some(loss) = line.get("loss").and_then(Value::as_f64) else { return };
                let all =
                    self.loss.get_or_insert(LossOfSteps { first: loss, last: loss, least: loss, least_step: step });
                all.last = loss;
                if loss < all.least {
                    (all.least, all.least_step) = (loss, step);
                }
            }
            _ => {}
        }
    }

    /// The loss of the training steps; `None` before the first.
    pub fn loss(&self) -> Option<LossOfSteps> {
        self.loss
    }

    /// The important metrics of the first and the last evaluation, without the loss.
    pub fn changes(&self) -> Vec<Change> {
        let all = changes(self.first.as_ref(), self.last.as_ref());
        all.into_iter().filter(|change| rank(&change.name).is_some()).collect()
    }
}

/// A metric in the first and in the last evaluation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// Its name, without `eval/`.
    pub name: String,
    /// Its value in the first evaluation.
    pub before: Option<f64>,
    /// Its value in the last evaluation; `None` if there was only one.
    pub after: Option<f64>,
}

/// Every metric of two evaluations; those in `REPORTED` come first, in its order.
pub fn changes(before: Option<&Map<String, Value>>, after: Option<&Map<String, Value>>) -> Vec<Change> {
    let number = |line: Option<&Map<String, Value>>, key: &str| line.and_then(|line| line.get(key)?.as_f64());
    let keys = after.or(before).into_iter().flat_map(Map::keys);
    let mut changes: Vec<Change> = keys
        .filter_map(|key| {
            let name = key.strip_prefix("eval/")?.to_owned();
            Some(Change { name, before: number(before, key), after: number(after, key) })
        })
        .collect();
    changes.sort_by_key(|change| rank(&change.name));
    changes
}

/// Rank of a metric among those that are reported; `None` for the rest. Every reward metric has one (`reward_gold`,
/// `reward/world`), but not the parts of a reward (`reward/world/terse`).
pub fn rank(name: &str) -> Option<usize> {
    let is =
        |reported: &str| name.strip_suffix(reported).is_some_and(|before| before.is_empty() || before.ends_with('/'));
    let known = REPORTED.iter().position(|reported| is(reported));
    let reward = || {
        let words: Vec<&str> = name.split('/').collect();
        let last = words.iter().rposition(|word| word.starts_with("reward") && !word.starts_with("rewards"));
        let is_part = |at: usize| words[at] == "reward" && words.len() > at + 2;
        last.filter(|at| !is_part(*at)).and_then(|_| REPORTED.iter().position(|reported| *reported == "reward"))
    };
    known.or_else(reward)
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, arrow(self.before, self.after))
    }
}

/// `0.020 -> 0.710`, with a dash for a missing value.
pub fn arrow(before: Option<f64>, after: Option<f64>) -> String {
    let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| fixed(value, 3));
    match (before, after) {
        (None, None) => "-".to_owned(),
        (before, after) => format!("{} -> {}", number(before), number(after)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Catches metrics that are lost because of a prefix, reported out of order, or reported although they do not
    /// describe a stage.
    #[test]
    fn reported_metrics_come_first_in_their_order() {
        let line = |value: f64| {
            let names = [
                "answers/kl",
                "kl",
                "loss",
                "token_accuracy",
                "dpo/rewards/margin",
                "rewards/chosen",
                "reward_gold",
                "reward/world/terse",
                "exact_match",
            ];
            names.iter().map(|name| (format!("eval/{name}"), value.into())).collect::<Map<String, Value>>()
        };
        let all = changes(Some(&line(0.5)), Some(&line(0.75)));
        let shown: Vec<String> =
            all.iter().filter(|change| rank(&change.name).is_some()).map(Change::to_string).collect();
        let arrow = "0.500 -> 0.750";
        let expected =
            ["exact_match", "reward_gold", "dpo/rewards/margin", "answers/kl"].map(|name| format!("{name} {arrow}"));
        assert_eq!(shown, expected);
    }

    /// Catches an evaluation in the middle that counts as the first or the last, a null that counts as a loss, and a smallest loss
    /// that is the last one.
    #[test]
    fn a_digest_has_the_first_and_the_last_numbers() {
        let mut digest = Digest::default();
        let lines = [
            json!({ "step": 0, "kind": "eval", "eval/loss": 3.0, "eval/exact_match": 0.1 }),
            json!({ "step": 1, "kind": "train", "loss": 3.0 }),
            json!({ "step": 2, "kind": "train", "loss": 1.0 }),
            json!({ "step": 2, "kind": "eval", "eval/loss": 2.0, "eval/exact_match": 0.5 }),
            json!({ "step": 3, "kind": "train", "loss": null }),
            json!({ "step": 4, "kind": "train", "loss": 2.0 }),
            json!({ "step": 4, "kind": "eval", "eval/loss": 1.0, "eval/exact_match": 0.25 }),
        ];
        lines.iter().for_each(|line| digest.observe(line.as_object().unwrap()));
        assert_eq!(digest.loss(), Some(LossOfSteps { first: 3.0, last: 2.0, least: 1.0, least_step: 2 }));
        let shown: Vec<String> = digest.changes().iter().map(Change::to_string).collect();
        assert_eq!(shown, ["exact_match 0.100 -> 0.250"]);
        assert!(Digest::default().changes().is_empty());
    }
}
