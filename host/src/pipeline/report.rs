//! What each stage measured before and after training: read from its logs, so stages run by earlier processes are
//! reported like those of this process.

use crate::decimals::fixed;
use std::fmt;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value};

use super::folder;
use crate::config::Experiment;
use crate::error::{Error, Result};
use crate::files;

/// The metrics of evaluations that are reported in addition to the loss, in this order. A prefix up to a `/` is ignored:
/// `rewards/margin`, or `dpo/rewards/margin` where there are several objectives.
const REPORTED: [&str; 7] = ["exact_match", "gold", "accuracy", "reward", "margin", "answers/kl", "score/mean"];

/// Summary of a pipeline that has ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PipelineSummary {
    /// Its name.
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
    /// Seconds spent in this process.
    pub seconds: f64,
    /// Whether every stage is complete.
    pub ended: bool,
    /// The stages that were begun, in order.
    pub stages: Vec<StageFigures>,
}

/// The metrics of one stage.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StageFigures {
    /// Its name.
    pub stage: String,
    /// Its objectives.
    pub objective: String,
    /// Steps done.
    pub steps: u64,
    /// Seconds of its steps and evaluations, including those of earlier processes.
    pub seconds: f64,
    /// Held-out loss of the first evaluation, in nats.
    pub loss_before: Option<f64>,
    /// Held-out loss of the last evaluation.
    pub loss_after: Option<f64>,
    /// Other metrics of its evaluations.
    pub figures: Vec<Change>,
    /// The folder of its run.
    pub folder: PathBuf,
    /// Whether its run is complete.
    pub ended: bool,
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

/// The ids of an experiment's objectives.
pub fn objectives(experiment: &Experiment) -> String {
    experiment.objective.iter().map(|objective| objective.plugin.as_str()).collect::<Vec<_>>().join(" + ")
}

impl StageFigures {
    /// Reads the logs of the run in `folder`; `None` if it was not begun.
    ///
    /// # Errors
    /// The file system failed.
    pub fn read(stage: &str, folder: &Path, experiment: &Experiment) -> Result<Option<StageFigures>> {
        if !folder.join("experiment.toml").is_file() {
            return Ok(None);
        }
        let (mut steps, mut first, mut last) = (0, None, None);
        lines(&folder.join("metrics.jsonl"), |line| {
            let step = line.get("step").and_then(Value::as_u64).unwrap_or(0);
            if line.get("kind").and_then(Value::as_str) == Some("eval") {
                let earlier = last.replace(line);
                first = first.take().or(earlier);
            } else {
                steps = steps.max(step);
            }
        })?;
        let mut seconds = 0.0;
        lines(&folder.join("timing.jsonl"), |line| seconds += line.get("seconds").map_or(0.0, total))?;
        // A single evaluation counts as the one before training, unless steps came before it.
        let step_of = |line: &Map<String, Value>| line.get("step").and_then(Value::as_u64);
        let (before, after) = match (first, last) {
            (None, Some(only)) if step_of(&only) == Some(0) => (Some(only), None),
            pair => pair,
        };
        let changes = changes(before.as_ref(), after.as_ref());
        let loss = changes.iter().find(|change| change.name == "loss").cloned();
        Ok(Some(StageFigures {
            stage: stage.to_owned(),
            objective: objectives(experiment),
            steps,
            seconds,
            loss_before: loss.as_ref().and_then(|loss| loss.before),
            loss_after: loss.and_then(|loss| loss.after),
            figures: changes.into_iter().filter(|change| rank(&change.name).is_some()).collect(),
            folder: folder.to_owned(),
            ended: folder::has_ended(folder)?,
        }))
    }
}

/// Every metric of two evaluations; those in `REPORTED` come first, in its order.
fn changes(before: Option<&Map<String, Value>>, after: Option<&Map<String, Value>>) -> Vec<Change> {
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
fn rank(name: &str) -> Option<usize> {
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

fn total(seconds: &Value) -> f64 {
    match seconds {
        Value::Object(phases) => phases.values().filter_map(Value::as_f64).sum(),
        one => one.as_f64().unwrap_or(0.0),
    }
}

/// Calls `each` with every complete line of a log; a missing log has no lines.
fn lines(path: &Path, mut each: impl FnMut(Map<String, Value>)) -> Result<()> {
    let failed = |cause| Error::run(format!("cannot read {}", path.display())).with_cause(cause);
    let file = match files::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        file => file.map_err(failed)?,
    };
    for line in BufReader::new(file).lines() {
        // A killed run may have left half a line.
        if let Ok(Value::Object(line)) = serde_json::from_str(&line.map_err(failed)?) {
            each(line);
        }
    }
    Ok(())
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, arrow(self.before, self.after))
    }
}

/// `0.020 -> 0.710`, with a dash for a missing value.
fn arrow(before: Option<f64>, after: Option<f64>) -> String {
    let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| fixed(value, 3));
    match (before, after) {
        (None, None) => "-".to_owned(),
        (before, after) => format!("{} -> {}", number(before), number(after)),
    }
}

impl fmt::Display for PipelineSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = vec![["stage", "objective", "steps", "seconds", "held-out loss", "figures"].map(str::to_owned)];
        for stage in &self.stages {
            let figures = stage.figures.iter().map(Change::to_string).collect::<Vec<_>>().join(", ");
            rows.push([
                stage.stage.clone() + if stage.ended { "" } else { " (not done)" },
                stage.objective.clone(),
                stage.steps.to_string(),
                format!("{:.1}", stage.seconds),
                arrow(stage.loss_before, stage.loss_after),
                figures,
            ]);
        }
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; 6] = std::array::from_fn(width);
        for [stage, objective, steps, seconds, loss, figures] in &rows {
            let [a, b, c, d, e, _] = widths;
            let line = format!("{stage:a$}  {objective:b$}  {steps:>c$}  {seconds:>d$}  {loss:e$}  {figures}");
            writeln!(f, "{}", line.trim_end())?;
        }
        write!(f, "pipeline {}, {:.1} s", self.folder.display(), self.seconds)
    }
}

#[cfg(test)]
mod tests {
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
}
