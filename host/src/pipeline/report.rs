//! What each stage was before and after: read from its logs, so that stages of earlier processes are told like this one's.

use std::fmt;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value};

use super::folder;
use crate::config::Experiment;
use crate::error::{Error, Result};
use crate::files;

/// The figures of evaluations that are told beside the loss, in the order of telling, whatever stands before a `/` in their
/// names: `rewards/margin`, or `dpo/rewards/margin` where there are several objectives.
const TOLD: [&str; 7] = ["exact_match", "gold", "accuracy", "reward", "margin", "answers/kl", "score/mean"];

/// The end of a pipeline.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PipelineSummary {
    /// Its name.
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
    /// Seconds of this process.
    pub seconds: f64,
    /// Whether every stage has come to its end.
    pub ended: bool,
    /// The stages that were begun, in order.
    pub stages: Vec<StageFigures>,
}

/// What a stage did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StageFigures {
    /// Its name.
    pub stage: String,
    /// Its objectives.
    pub objective: String,
    /// Steps done.
    pub steps: u64,
    /// Seconds of its steps and evaluations, those of earlier processes included.
    pub seconds: f64,
    /// Held-out loss of the first evaluation, in nats.
    pub loss_before: Option<f64>,
    /// Held-out loss of the last evaluation.
    pub loss_after: Option<f64>,
    /// Other figures of its evaluations.
    pub figures: Vec<Change>,
    /// The folder of its run.
    pub folder: PathBuf,
    /// Whether it has come to its end.
    pub ended: bool,
}

/// A figure of the first and the last evaluation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// Its name, without `eval/`.
    pub name: String,
    /// In the first evaluation.
    pub before: Option<f64>,
    /// In the last one; absent where there was only one.
    pub after: Option<f64>,
}

/// The ids of an experiment's objectives.
pub fn objectives(experiment: &Experiment) -> String {
    experiment.objective.iter().map(|objective| objective.plugin.as_str()).collect::<Vec<_>>().join(" + ")
}

impl StageFigures {
    /// Reads the logs of the run in `folder`; `None` where it was not begun.
    ///
    /// # Errors
    /// What the file system says.
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
        // One evaluation alone is what it was before, unless steps came before it.
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

/// Every figure of two evaluations, those worth telling in their order.
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

/// The place of a figure among those that are told; `None` for the rest. Any reward is one: `reward_gold`, `reward/world`.
fn rank(name: &str) -> Option<usize> {
    let is = |told: &str| name.strip_suffix(told).is_some_and(|before| before.is_empty() || before.ends_with('/'));
    let known = TOLD.iter().position(|told| is(told));
    let reward = || {
        let last = name.split('/').rev().find(|part| part.starts_with("reward") && !part.starts_with("rewards"));
        last.and_then(|_| TOLD.iter().position(|told| *told == "reward"))
    };
    known.or_else(reward)
}

fn total(seconds: &Value) -> f64 {
    match seconds {
        Value::Object(phases) => phases.values().filter_map(Value::as_f64).sum(),
        one => one.as_f64().unwrap_or(0.0),
    }
}

/// Hands on each whole line of a log; one that is not there has none.
fn lines(path: &Path, mut each: impl FnMut(Map<String, Value>)) -> Result<()> {
    let failed = |cause| Error::run(format!("cannot read {}", path.display())).with_cause(cause);
    let file = match files::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        file => file.map_err(failed)?,
    };
    for line in BufReader::new(file).lines() {
        // A run that was killed may have left half a line.
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

/// `0.020 -> 0.710`, with a dash for what is not known.
fn arrow(before: Option<f64>, after: Option<f64>) -> String {
    let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.3}"));
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

    /// Catches figures that are lost behind a prefix, told out of order, or told although they say nothing of a stage.
    #[test]
    fn figures_worth_telling_are_told_in_their_order() {
        let line = |value: f64| {
            let names = [
                "answers/kl",
                "kl",
                "loss",
                "token_accuracy",
                "dpo/rewards/margin",
                "rewards/chosen",
                "reward_gold",
                "exact_match",
            ];
            names.iter().map(|name| (format!("eval/{name}"), value.into())).collect::<Map<String, Value>>()
        };
        let all = changes(Some(&line(0.5)), Some(&line(0.75)));
        let told: Vec<String> =
            all.iter().filter(|change| rank(&change.name).is_some()).map(Change::to_string).collect();
        let arrow = "0.500 -> 0.750";
        let expected =
            ["exact_match", "reward_gold", "dpo/rewards/margin", "answers/kl"].map(|name| format!("{name} {arrow}"));
        assert_eq!(told, expected);
    }
}
