//! Alerts: rules that watch the metrics of a run while it trains, and warn when one begins to hold and when it no longer does.
//!
//! The state of all rules is a function of the lines of metrics.jsonl alone. A resumed run passes the lines that it keeps to
//! [`Alerts::replay`], so that it warns, and stops, at the same steps as a run that was never interrupted.
//!
//! | file | job |
//! |---|---|
//! | [`condition`] | when a rule holds: limits, spikes, values that are not finite, a collapse |
//! | `hacking` | the condition of reward hacking |
//! | [`names`] | the message about a metric that no step reports |
//! | [`rules`] | the rules of an experiment: the built-in ones, and those of `[[alert]]` |

pub mod condition;
mod hacking;
pub mod names;
pub mod rules;
#[cfg(test)]
mod tests;

use std::{fmt, path::Path};

use serde::Serialize;
use serde_json::Value;

use crate::{error::Result, runs::jsonl::each_line};
pub use condition::Line;
use condition::{Condition, Finding};

/// One rule and its state.
pub struct Alert {
    /// The rule: the name of a built-in one, or the condition of an `[[alert]]`.
    name: String,
    /// The metric that it watches.
    metric: String,
    /// What the rule's condition means for the run; empty if the user wrote the rule.
    advice: String,
    /// Whether the run ends when it begins.
    stops: bool,
    /// Findings in a row after which it begins, and after which it ends.
    needed: u64,
    condition: Box<dyn Condition>,
    /// Findings in a row that contradict whether it is active.
    streak: u64,
    /// The text with which it began and the metric, while it is active.
    active: Option<(String, String)>,
    /// Whether it is reported at the end of a run that is too short for it to begin.
    for_short_runs: bool,
    /// What every finding said so far; `None` before the first one, and after one that says otherwise.
    always: Option<String>,
    /// Findings so far.
    findings: u64,
}

/// That an alert began or ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AlertChange {
    /// The step of the line that decided it.
    pub step: u64,
    /// The rule.
    pub name: String,
    /// The metric that it watches.
    pub metric: String,
    /// The metric's value; null if it is not finite.
    pub value: Option<f64>,
    /// Whether it began or ended.
    pub state: AlertState,
    /// In words.
    pub text: String,
}

/// Whether an alert began or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertState {
    /// It began.
    Begin,
    /// It ended.
    End,
}

impl fmt::Display for AlertChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.state {
            AlertState::Begin => write!(f, "alert: {}", self.text),
            AlertState::End => write!(f, "alert ended: {}", self.text),
        }
    }
}

/// All rules of a run.
#[derive(Default)]
pub struct Alerts(Vec<Alert>);

impl Alerts {
    /// Passes a line of metrics.jsonl to every rule and returns the alerts that it begins or ends.
    pub fn observe(&mut self, line: &Line) -> Vec<AlertChange> {
        let step = line.get("step").and_then(Value::as_u64).unwrap_or(0);
        self.0.iter_mut().filter_map(|alert| alert.observe(step, line)).collect()
    }

    /// Brings the rules into the state after the lines of `metrics`, a metrics.jsonl. A missing file has no lines.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn replay(&mut self, metrics: &Path) -> Result<()> {
        each_line(metrics, |line| _ = self.observe(&line))
    }

    /// Returns the texts of the active alerts.
    pub fn active(&self) -> Vec<String> {
        self.0.iter().filter_map(|alert| Some(alert.active.as_ref()?.0.clone())).collect()
    }

    /// Returns a text for each rule that held in every line of a run which was too short for its alert to begin, for the rules
    /// that are reported then.
    pub fn too_short(&self) -> Vec<String> {
        self.0.iter().filter_map(Alert::too_short).collect()
    }

    /// Returns the text of an active alert that stops the run, if there is one.
    pub fn stop(&self) -> Option<&str> {
        self.0.iter().filter(|alert| alert.stops).find_map(|alert| Some(alert.active.as_ref()?.0.as_str()))
    }
}

impl Alert {
    /// A rule that begins and ends after `needed` findings in a row.
    pub fn new(
        name: impl Into<String>,
        metric: impl Into<String>,
        needed: u64,
        condition: impl Condition + 'static,
    ) -> Alert {
        Alert {
            name: name.into(),
            metric: metric.into(),
            advice: String::new(),
            stops: false,
            needed,
            condition: Box::new(condition),
            streak: 0,
            active: None,
            for_short_runs: false,
            always: None,
            findings: 0,
        }
    }

    /// Adds what the condition means for the run.
    #[must_use]
    pub fn with_advice(self, advice: impl Into<String>) -> Alert {
        Alert { advice: advice.into(), ..self }
    }

    /// Reports the rule at the end of a run in which it always held, but which was too short for it to begin.
    #[must_use]
    fn also_for_short_runs(self) -> Alert {
        Alert { for_short_runs: true, ..self }
    }

    fn too_short(&self) -> Option<String> {
        let why = self.always.as_ref().filter(|_| self.for_short_runs && self.findings < self.needed)?;
        let times = if self.findings == 1 { String::new() } else { format!(", {} times in a row", self.findings) };
        Some(format!("in the whole run, {why}{times}: {} ({})", self.advice, self.name))
    }

    fn observe(&mut self, step: u64, line: &Line) -> Option<AlertChange> {
        let Finding { value, metric, why, holds } = self.condition.find(line)?;
        let always = holds && (self.findings == 0 || self.always.is_some());
        self.always = always.then(|| why.clone());
        self.findings += 1;
        if holds == self.active.is_some() {
            self.streak = 0;
            return None;
        }
        self.streak += 1;
        if self.streak < self.needed {
            return None;
        }
        self.streak = 0;
        let began = self.active.take().map(|(_, metric)| metric);
        let metric = began.or(metric).unwrap_or_else(|| self.metric.clone());
        let times = match self.needed {
            1 => String::new(),
            needed => format!(", {needed} times in a row"),
        };
        let (state, text) = if holds {
            let advice = if self.advice.is_empty() { String::new() } else { format!(": {}", self.advice) };
            (AlertState::Begin, format!("step {step}: {why}{times}{advice} ({})", self.name))
        } else {
            (AlertState::End, format!("step {step}: {why}{times} ({})", self.name))
        };
        self.active = holds.then(|| (text.clone(), metric.clone()));
        Some(AlertChange { step, name: self.name.clone(), metric, value, state, text })
    }
}
