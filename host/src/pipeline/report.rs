//! What each stage measured before and after training: read from its logs, so stages run by earlier processes are
//! reported like those of this process.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value};

use super::folder;
use crate::config::Experiment;
use crate::error::Result;
use crate::runs::jsonl::each_line;
use crate::train::run::digest::{Change, arrow, changes, rank};

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
        each_line(&folder.join("metrics.jsonl"), |line| {
            let step = line.get("step").and_then(Value::as_u64).unwrap_or(0);
            if line.get("kind").and_then(Value::as_str) == Some("eval") {
                let earlier = last.replace(line);
                first = first.take().or(earlier);
            } else {
                steps = steps.max(step);
            }
        })?;
        let mut seconds = 0.0;
        each_line(&folder.join("timing.jsonl"), |line| seconds += line.get("seconds").map_or(0.0, total))?;
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

fn total(seconds: &Value) -> f64 {
    match seconds {
        Value::Object(phases) => phases.values().filter_map(Value::as_f64).sum(),
        one => one.as_f64().unwrap_or(0.0),
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
