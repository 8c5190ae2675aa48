//! When a rule holds, decided line by line of metrics.jsonl.

use std::collections::VecDeque;

use serde_json::{Map, Value};

use crate::{config::experiment::MetricAlert, decimals::short};

/// A line of metrics.jsonl.
pub type Line = Map<String, Value>;

/// What a line says about a rule.
pub struct Finding {
    /// The metric's value; `None` if it is not finite.
    pub value: Option<f64>,
    /// The metric, if the rule watches several.
    pub metric: Option<String>,
    /// The value and what it was compared with, in words.
    pub why: String,
    /// Whether the rule holds.
    pub holds: bool,
}

/// A condition, with what it keeps of earlier lines.
pub trait Condition: Send {
    /// Returns what a line says; `None` if it has nothing to judge.
    fn find(&mut self, line: &Line) -> Option<Finding>;
}

/// Whether a line is a training step.
fn is_step(line: &Line) -> bool {
    line.get("kind").and_then(Value::as_str) == Some("train")
}

/// The finite value of a metric in a line.
pub fn value(line: &Line, metric: &str) -> Option<f64> {
    line.get(metric)?.as_f64().filter(|value| value.is_finite())
}

/// The conditions of an `[[alert]]` on a metric: limits, and spikes against its last values.
pub struct OfMetric {
    rule: MetricAlert,
    last: Last,
}

impl OfMetric {
    /// The conditions of `rule`.
    pub fn new(rule: MetricAlert) -> OfMetric {
        let last = Last::new(rule.window.unwrap_or(0));
        OfMetric { rule, last }
    }

    /// The conditions in words: `kl above 0.5`.
    pub fn words(rule: &MetricAlert) -> String {
        let limit = |word: &str, of: Option<f64>| of.map(|of| format!("{word} {}", short(of)));
        let conditions = [
            limit("above", rule.above),
            limit("below", rule.below),
            limit("spike", rule.spike),
            limit("drop", rule.drop),
        ];
        let conditions: Vec<String> = conditions.into_iter().flatten().collect();
        format!("{} {}", rule.metric, conditions.join(" or "))
    }
}

impl Condition for OfMetric {
    fn find(&mut self, line: &Line) -> Option<Finding> {
        let rule = &self.rule;
        let value = value(line, &rule.metric)?;
        let spread = self.last.spread();
        let is = |what: String| format!("{} is {}{what}", rule.metric, short(value));
        let above = rule.above.filter(|above| value > *above).map(|above| is(format!(", above {}", short(above))));
        let below = rule.below.filter(|below| value < *below).map(|below| is(format!(", below {}", short(below))));
        let (mean, deviation) = spread.unwrap_or((value, 0.0));
        // After equal values any other one is far.
        let far = |times: f64| (value - mean).abs() > times * deviation + 1e-6 * mean.abs();
        let from_mean = |side: &str| {
            let count = self.last.most;
            if deviation == 0.0 {
                return is(format!(", {side} {}, which each of the {count} values before was", short(mean)));
            }
            let times = short((value - mean).abs() / deviation);
            is(format!(", {times} standard deviations {side} {}, the mean of the {count} values before", short(mean)))
        };
        let spike = rule.spike.filter(|times| value > mean && far(*times)).map(|_| from_mean("above"));
        let drop = rule.drop.filter(|times| value < mean && far(*times)).map(|_| from_mean("below"));
        self.last.add(value, spike.is_some() || drop.is_some());
        let broken = above.or(below).or(spike).or(drop);
        let holds = broken.is_some();
        Some(Finding { value: Some(value), metric: None, why: broken.unwrap_or_else(|| is(String::new())), holds })
    }
}

/// The last values of a metric, at most `most`, without spikes: a spike would raise the deviation that the next one is compared
/// with. Spikes that last for `most` values are the new level, and replace the others.
struct Last {
    most: usize,
    values: VecDeque<f64>,
    spikes: VecDeque<f64>,
}

impl Last {
    fn new(most: usize) -> Last {
        Last { most, values: VecDeque::new(), spikes: VecDeque::new() }
    }

    fn add(&mut self, value: f64, is_spike: bool) {
        if is_spike {
            self.spikes.push_back(value);
            if self.spikes.len() == self.most {
                self.values = std::mem::take(&mut self.spikes);
            }
            return;
        }
        self.spikes.clear();
        self.values.push_back(value);
        if self.values.len() > self.most {
            self.values.pop_front();
        }
    }

    /// Mean and standard deviation, once there are `most` values.
    fn spread(&self) -> Option<(f64, f64)> {
        let count = self.values.len();
        (count >= 2 && count == self.most).then(|| {
            let (mean, variance) = moments(self.values.iter().copied());
            (mean, variance.sqrt())
        })
    }
}

/// Mean and variance (with Bessel's correction) of at least two values.
pub fn moments(values: impl ExactSizeIterator<Item = f64> + Clone) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.clone().sum::<f64>() / count;
    let variance = values.map(|value| (value - mean) * (value - mean)).sum::<f64>() / (count - 1.0);
    (mean, variance)
}

/// Any metric of a step is not finite; the line has null in its place.
pub struct NonFinite;

impl Condition for NonFinite {
    fn find(&mut self, line: &Line) -> Option<Finding> {
        if !is_step(line) {
            return None;
        }
        let metric = line.iter().find(|(_, value)| value.is_null()).map(|(name, _)| name.clone());
        let holds = metric.is_some();
        let why = match &metric {
            Some(name) => format!("{name} is not a finite number"),
            None => "all metrics are finite numbers".to_owned(),
        };
        Some(Finding { value: None, metric, why, holds })
    }
}

/// A metric, or a metric divided by another one.
#[derive(Debug, Clone)]
pub struct Quantity {
    /// The metric.
    pub metric: String,
    /// What it is divided by: metric and unit in words.
    pub per: Option<(String, &'static str)>,
}

impl Quantity {
    /// Its value in a line.
    fn of(&self, line: &Line) -> Option<f64> {
        let value = value(line, &self.metric)?;
        match &self.per {
            None => Some(value),
            Some((per, _)) => self::value(line, per).filter(|per| *per > 0.0).map(|per| value / per),
        }
    }

    /// Its value in words.
    fn words(&self, value: f64) -> String {
        let per = self.per.as_ref().map_or_else(String::new, |(_, unit)| format!(" {unit}"));
        format!("{} is {}{per}", self.metric, short(value))
    }
}

/// A quantity is outside of a range.
pub struct Outside {
    /// The quantity.
    pub quantity: Quantity,
    /// The range, both ends included.
    pub range: (f64, f64),
    /// What the range is: `its healthy range`.
    pub called: &'static str,
}

impl Condition for Outside {
    fn find(&mut self, line: &Line) -> Option<Finding> {
        let value = self.quantity.of(line)?;
        let (low, high) = self.range;
        let holds = !(low..=high).contains(&value);
        let side = if holds { "outside" } else { "inside" };
        let bounds = match low.is_finite() {
            true => format!("{} to {}", short(low), short(high)),
            false => format!("up to {}", short(high)),
        };
        let why = format!("{}, {side} {}, {bounds}", self.quantity.words(value), self.called);
        Some(Finding { value: Some(value), metric: None, why, holds })
    }
}

/// A metric is exactly 0.
pub struct Zero {
    /// The metric.
    pub metric: &'static str,
    /// What that means, in words: `the gradient is exactly 0`.
    pub meaning: &'static str,
}

impl Condition for Zero {
    fn find(&mut self, line: &Line) -> Option<Finding> {
        // One that is not finite ends a row of zeros.
        let value = line.get(self.metric)?.as_f64().unwrap_or(f64::NAN);
        let holds = value == 0.0;
        let name = self.metric;
        let why = match holds {
            true => format!("{name} is 0: {}", self.meaning),
            false => format!("{name} is {}", short(value)),
        };
        Some(Finding { value: value.is_finite().then_some(value), metric: None, why, holds })
    }
}

/// A metric that began above 0 has fallen to a small share of the mean of its first values.
pub struct Collapse {
    /// The metric.
    pub metric: String,
    /// The share.
    pub share: f64,
    /// How many first values there are.
    pub count: usize,
    /// The first values.
    pub first: Vec<f64>,
}

impl Condition for Collapse {
    fn find(&mut self, line: &Line) -> Option<Finding> {
        let value = value(line, &self.metric)?;
        if self.first.len() < self.count {
            self.first.push(value);
            return None;
        }
        let mean = self.first.iter().sum::<f64>() / self.count as f64;
        let holds = mean > 0.0 && value < self.share * mean;
        let (name, value_text, mean_text) = (&self.metric, short(value), short(mean));
        let than = if holds { "less than" } else { "at least" };
        let share = short(100.0 * self.share);
        let why = format!(
            "{name} is {value_text}, {than} {share}% of {mean_text}, the mean of its first {} values",
            self.count
        );
        Some(Finding { value: Some(value), metric: None, why, holds })
    }
}
