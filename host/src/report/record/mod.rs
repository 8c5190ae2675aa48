//! A run as its files tell it: whole or damaged, ended or in progress, in its folder or moved elsewhere. Nothing here is refused
//! except a folder that is not a run; what is missing becomes a remark.

pub mod alerts;
pub mod distribution;
pub mod lines;
pub mod operations;
pub mod state;
#[cfg(test)]
pub(super) mod tests;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};
use toml::{Table, Value as Toml};

use crate::{
    error::{Error, Result},
    files,
    runs::end::RunEnd,
    train::run::about::{ABOUT_FILE, About},
};
use alerts::AlertSpan;
use distribution::{Distribution, Over};
use lines::Remark;
use operations::Operations;
use state::State;

/// Points of a curve: step and value; the value is NaN where the log has null.
pub type Points = Vec<(f64, f64)>;

const HISTOGRAMS: &str = "histograms.jsonl";

/// Prefix of the metrics of an evaluation.
pub const EVAL: &str = "eval/";

/// A run.
#[derive(Debug, Clone)]
pub struct RunRecord {
    /// Its folder.
    pub folder: PathBuf,
    /// Its name, as the experiment gives it; the folder's name if that is unknown.
    pub name: String,
    /// The experiment with all defaults; empty if it cannot be read.
    pub experiment: Table,
    /// The receipt; null if it cannot be read.
    pub receipt: Value,
    /// What the run recorded about itself; defaults in runs of earlier versions.
    pub about: About,
    /// Whether it is in progress, and how it ended.
    pub state: State,
    /// Steps done.
    pub step: u64,
    /// Steps that the experiment asks for, if that is known.
    pub total: Option<u64>,
    /// Every number of metrics.jsonl by name; those of evaluations begin with `eval/`.
    pub metrics: BTreeMap<String, Points>,
    /// Tokens per second and GiB of memory by step, from timing.jsonl.
    pub timing: BTreeMap<String, Points>,
    /// Tokens trained on, and seconds spent, up to and including each step.
    pub progress: Vec<Progress>,
    /// Seconds by phase: data, gradient, optimizer, evaluation.
    pub phases: Vec<(String, f64)>,
    /// Time by operation, in the steps in which it was measured.
    pub operations: Operations,
    /// Notes that the run printed, with the step.
    pub notes: Vec<(u64, String)>,
    /// Alerts in the order in which they began.
    pub alerts: Vec<AlertSpan>,
    /// The lines of samples.jsonl.
    pub samples: Vec<Map<String, Value>>,
    /// What histograms.jsonl holds, by kind (train or eval) and name.
    pub distributions: BTreeMap<(String, String), Over>,
    /// What is missing or damaged.
    pub remarks: Vec<String>,
    /// Those of the remarks that explain what was left out of the metrics and of the timing: damaged lines.
    pub left_out: Vec<String>,
}

/// What was spent up to and including a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// The step.
    pub step: f64,
    /// Tokens trained on.
    pub tokens: f64,
    /// Seconds of steps and evaluations.
    pub seconds: f64,
}

/// Whether `folder` is a run.
pub fn is_run(folder: &Path) -> bool {
    ["experiment.toml", "metrics.jsonl"].iter().any(|name| folder.join(name).is_file())
}

impl RunRecord {
    /// Reads the run in `folder`.
    ///
    /// # Errors
    /// A request error if the folder is not a run.
    pub fn read(folder: &Path) -> Result<RunRecord> {
        if !is_run(folder) {
            let message =
                format!("{} is not a run: it has neither experiment.toml nor metrics.jsonl", folder.display());
            return Err(
                Error::request(message).with_hint("name the folder of a run or of a pipeline, such as runs/NAME")
            );
        }
        let mut remarks = Vec::new();
        let experiment = experiment(folder, &mut remarks);
        let receipt = receipt(folder, &mut remarks);
        let about = match About::read(folder) {
            Ok(Some(about)) => about,
            Ok(None) => {
                remarks.push(format!(
                    "there is no {ABOUT_FILE}: parameters, FLOPs, the processor and the meanings of metrics are unknown"
                ));
                About::default()
            }
            Err(error) => {
                remarks.push(error.message().to_owned());
                About::default()
            }
        };
        let named = experiment.get("name").and_then(Toml::as_str).map(str::to_owned);
        let name = named.unwrap_or_else(|| folder.file_name().unwrap_or_default().to_string_lossy().into_owned());
        let total = experiment.get("train").and_then(|train| train.get("steps")?.as_integer());
        let mut run = RunRecord {
            folder: folder.to_owned(),
            name,
            experiment,
            receipt,
            about,
            state: State::Lost,
            step: 0,
            total: total.and_then(|total| total.try_into().ok()),
            metrics: BTreeMap::new(),
            timing: BTreeMap::new(),
            progress: Vec::new(),
            phases: Vec::new(),
            operations: Operations::default(),
            notes: Vec::new(),
            alerts: Vec::new(),
            samples: Vec::new(),
            distributions: BTreeMap::new(),
            remarks,
            left_out: Vec::new(),
        };
        run.read_metrics();
        run.read_timing();
        let mut samples = Vec::new();
        let remark = lines::read(folder, "samples.jsonl", |line| samples.push(line));
        run.samples = samples;
        run.remarks.extend(remark.map(|remark| remark.text().to_owned()));
        run.read_distributions();
        run.state = State::read(folder, run.step, run.total);
        if let Err(error) = RunEnd::read(folder) {
            run.remarks.push(format!("how it ended is unknown: {}", error.message()));
        }
        Ok(run)
    }

    fn read_metrics(&mut self) {
        let (mut metrics, mut tokens, mut step) = (BTreeMap::<String, Points>::new(), Vec::new(), 0_u64);
        let remark = lines::read(&self.folder, "metrics.jsonl", |line| {
            let Some(at) = line.get("step").and_then(Value::as_u64) else { return };
            if line.get("kind").and_then(Value::as_str) == Some("train") {
                step = step.max(at);
                tokens.push((at as f64, line.get("tokens").and_then(Value::as_f64).unwrap_or(0.0)));
            }
            for (name, value) in line {
                let value = match value {
                    Value::Number(number) => number.as_f64().unwrap_or(f64::NAN),
                    // JSON has no NaN and no infinity.
                    Value::Null => f64::NAN,
                    _ => continue,
                };
                if name != "step" {
                    metrics.entry(name).or_default().push((at as f64, value));
                }
            }
        });
        self.note(remark);
        let mut sum = 0.0;
        for (step, tokens) in tokens {
            sum += tokens;
            self.progress.push(Progress { step, tokens: sum, seconds: f64::NAN });
        }
        let empty = metrics.values().all(Vec::is_empty);
        if empty && self.remarks.iter().all(|remark| !remark.contains("metrics.jsonl")) {
            self.remarks.push("metrics.jsonl has no step and no evaluation yet".to_owned());
        } else if !empty && !metrics.keys().any(|name| name.starts_with(EVAL)) {
            self.remarks.push("nothing was evaluated".to_owned());
        }
        let missing = |points: &&Points| points.iter().any(|(_, value)| value.is_nan());
        let with_gaps: Vec<&str> = metrics.iter().filter(|(_, p)| missing(p)).map(|(name, _)| name.as_str()).collect();
        if !with_gaps.is_empty() {
            self.remarks.push(format!("not a finite number in some steps: {}", with_gaps.join(", ")));
        }
        (self.metrics, self.step) = (metrics, step);
    }

    fn read_timing(&mut self) {
        let (mut timing, mut phases) = (BTreeMap::<String, Points>::new(), Vec::<(String, f64)>::new());
        let (mut notes, mut alerts) = (Vec::new(), Vec::<AlertSpan>::new());
        let (mut sum, mut at_step, mut operations) = (0.0, BTreeMap::new(), Operations::default());
        let remark = lines::read(&self.folder, "timing.jsonl", |line| {
            let Some(step) = line.get("step").and_then(Value::as_u64) else { return };
            let word = |key: &str| line.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            match word("kind").as_str() {
                "note" => notes.push((step, word("text"))),
                "alert" => AlertSpan::add(&mut alerts, &line),
                "operations" => operations.add(&line),
                _ => {}
            }
            let mut add = |name: &str, seconds: f64| {
                sum += seconds;
                match phases.iter_mut().find(|(own, _)| own == name) {
                    Some((_, total)) => *total += seconds,
                    None => phases.push((name.to_owned(), seconds)),
                }
            };
            match line.get("seconds") {
                Some(Value::Object(own)) => own.iter().for_each(|(name, s)| add(name, s.as_f64().unwrap_or(0.0))),
                Some(Value::Number(seconds)) => add("evaluation", seconds.as_f64().unwrap_or(0.0)),
                _ => {}
            }
            at_step.insert(step, sum);
            let gib = f64::from(1 << 30);
            let shown = [
                ("tokens_per_s", "tokens_per_s", 1.0),
                ("memory_bytes", "memory_gib", gib),
                ("process_peak_bytes", "process_peak_gib", gib),
            ];
            for (key, name, unit) in shown {
                if let Some(value) = line.get(key).and_then(Value::as_f64) {
                    timing.entry(name.to_owned()).or_default().push((step as f64, value / unit));
                }
            }
        });
        self.note(remark);
        for progress in &mut self.progress {
            progress.seconds = at_step.get(&(progress.step as u64)).copied().unwrap_or(f64::NAN);
        }
        (self.timing, self.phases, self.notes, self.alerts) = (timing, phases, notes, alerts);
        self.operations = operations;
    }

    fn read_distributions(&mut self) {
        let mut found: BTreeMap<(String, String), Over> = BTreeMap::new();
        let mut foreign = 0_u64;
        let remark = lines::read(&self.folder, HISTOGRAMS, |line| {
            match serde_json::from_value::<Distribution>(Value::Object(line)) {
                Ok(line) => found.entry((line.kind.clone(), line.name.clone())).or_default().add(line),
                Err(_) => foreign += 1,
            }
        });
        // The file exists only if there was something to count.
        let remark = remark.filter(|remark| matches!(remark, Remark::LeftOut(_)));
        self.remarks.extend(remark.map(|remark| remark.text().to_owned()));
        if foreign > 0 {
            self.remarks.push(format!("{HISTOGRAMS}: {foreign} lines are not distributions and skipped"));
        }
        self.distributions = found;
    }

    /// Keeps a remark about the log of metrics or of timing.
    fn note(&mut self, remark: Option<Remark>) {
        let Some(remark) = remark else { return };
        self.remarks.push(remark.text().to_owned());
        if let Remark::LeftOut(text) = remark {
            self.left_out.push(text);
        }
    }

    /// Seconds of all phases.
    pub fn seconds(&self) -> f64 {
        self.phases.iter().map(|(_, seconds)| seconds).sum()
    }

    /// Tokens trained on.
    pub fn tokens(&self) -> f64 {
        self.progress.last().map_or(0.0, |progress| progress.tokens)
    }

    /// The ids of its objectives.
    pub fn objectives(&self) -> Vec<String> {
        let tables = self.experiment.get("objective").and_then(Toml::as_array);
        let plugins = tables.into_iter().flatten().filter_map(|table| table.get("plugin")?.as_str());
        plugins.map(str::to_owned).collect()
    }
}

fn experiment(folder: &Path, remarks: &mut Vec<String>) -> Table {
    let read = files::read_to_string(&folder.join("experiment.toml")).map_err(|cause| cause.to_string());
    let parsed = read.and_then(|text| text.parse::<Table>().map_err(|cause| cause.message().to_owned()));
    parsed.unwrap_or_else(|why| {
        remarks.push(format!("experiment.toml cannot be read: {why}"));
        Table::new()
    })
}

fn receipt(folder: &Path, remarks: &mut Vec<String>) -> Value {
    let read = files::read(&folder.join("receipt.json")).map_err(|cause| cause.to_string());
    let parsed = read.and_then(|bytes| serde_json::from_slice(&bytes).map_err(|cause| cause.to_string()));
    parsed.unwrap_or_else(|why| {
        remarks.push(format!("receipt.json cannot be read: {why}"));
        Value::Null
    })
}
