//! `[[alert]]`: rules that watch metrics while a run trains.

use std::ops::Bound::Unbounded;

use serde::Serialize;

use crate::keys::notes::Notes;
use crate::keys::{Form, table, words};

table! {
    /// rules that watch metrics during training and warn when one holds, or stop the run; each has a metric, or names a built-in rule
    pub struct Written at "alert": Form::Tables, default "[]", example [{ metric = "loss", above = 10.0 }], may_change {
        /// metric of a step, or of an evaluation (eval/loss); several conditions on it: any of them
        metric: String, Form::Text, example "grad_norm";
        /// warns above this value
        above: f64, Form::Float(Unbounded, Unbounded), example 10.0;
        /// warns below this value
        below: f64, Form::Float(Unbounded, Unbounded), example 0.01;
        /// warns more than this many standard deviations above the mean of the last `window` values
        spike: f64, Form::POSITIVE, example 3.0;
        /// warns more than this many standard deviations below the mean of the last `window` values
        drop: f64, Form::POSITIVE, example 3.0;
        /// number of values that spike and drop compare with, spikes left out unless they last that long; before there are as many,
        /// they never hold
        window: usize, Form::Int(2, 100_000), default "50", example 50;
        /// values in a row for which a condition must hold before the alert begins, and must not hold before it ends
        count as "for": u64, Form::Int(1, 1_000_000), default "3; 1 for a metric of evaluations", example 3;
        /// a built-in rule, or all of them, instead of a metric
        rule: BuiltIn, Form::Word(BuiltIn::WORDS), example "loss-spike";
        /// what happens when the alert begins: a warning, or a warning and the end of the run; "off" switches a built-in rule off
        then: Then, Form::Word(Then::WORDS), default "\"warn\"", example "stop";
    }
}

words! {
    /// A built-in rule.
    pub enum BuiltIn {
        /// Every one of the others.
        All = "all",
        /// A metric of a step is not finite.
        NonFinite = "non-finite",
        /// The loss is far above its own mean.
        LossSpike = "loss-spike",
        /// A metric is outside the range that its objective declares healthy.
        HealthyRange = "healthy-range",
        /// The policy is far from the reference.
        KlRunaway = "kl-runaway",
        /// The policy has lost nearly all of its entropy.
        EntropyCollapse = "entropy-collapse",
        /// The trained reward rises while a reward that is only measured falls, or while answers grow.
        RewardHacking = "reward-hacking",
        /// The gradient is exactly 0.
        DeadGradients = "dead-gradients",
        /// All rewards of a rollout are equal.
        EqualRewards = "equal-rewards",
    }
}

words! {
    /// What happens when an alert begins.
    #[derive(Default)]
    pub enum Then {
        /// A warning.
        #[default]
        Warn = "warn",
        /// A warning, and the run ends.
        Stop = "stop",
        /// Nothing: the rule is switched off.
        Off = "off",
    }
}

/// One `[[alert]]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Alert {
    /// What is watched.
    #[serde(flatten)]
    pub watched: Watched,
    /// What happens when it begins; [`Then::Off`] only for built-in rules.
    pub then: Then,
}

/// What an alert watches.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Watched {
    /// What a built-in rule watches.
    BuiltIn {
        /// The rule.
        rule: BuiltIn,
    },
    /// A metric.
    Metric(MetricAlert),
}

/// Conditions on a metric, at least one.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
pub struct MetricAlert {
    /// Its name in metrics.jsonl.
    pub metric: String,
    /// It is above this value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub above: Option<f64>,
    /// It is below this value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub below: Option<f64>,
    /// It is more than this many standard deviations above its mean.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spike: Option<f64>,
    /// It is more than this many standard deviations below its mean.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drop: Option<f64>,
    /// Values of that mean; absent without `spike` and `drop`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<usize>,
    /// Values in a row before the alert begins or ends.
    #[serde(rename = "for")]
    pub count: u64,
}

/// Prefix of the metrics of evaluations.
const EVAL: &str = "eval/";

/// Resolves all `[[alert]]`; `evaluates` says whether the run is evaluated while it trains.
pub fn resolve(written: Vec<Written>, evaluates: bool, notes: &mut Notes<'_>) -> Vec<Alert> {
    let one = |(index, alert): (usize, Written)| {
        let key = |name: &str| format!("alert.{index}.{name}");
        match (alert.rule, &alert.metric) {
            (Some(rule), None) => {
                let why = "a built-in rule has its own conditions; for others give a metric instead of rule";
                notes.unused(&key("above"), &alert.above, why);
                notes.unused(&key("below"), &alert.below, why);
                notes.unused(&key("spike"), &alert.spike, why);
                notes.unused(&key("drop"), &alert.drop, why);
                notes.unused(&key("window"), &alert.window, why);
                notes.unused(&key("for"), &alert.count, why);
                if alert.then.is_none() && !notes.reported(&key("then")) {
                    notes.missing(&key("then"), "built-in rules warn anyway; give then = \"stop\" or then = \"off\"");
                }
                Alert { watched: Watched::BuiltIn { rule }, then: alert.then.unwrap_or_default() }
            }
            (rule, _) => {
                if rule.is_some() {
                    notes.refuse(&key("rule"), "contradicts metric: give one of them");
                }
                of_metric(alert, &key, evaluates, notes)
            }
        }
    };
    written.into_iter().enumerate().map(one).collect()
}

/// Resolves an alert on a metric.
fn of_metric(alert: Written, key: &dyn Fn(&str) -> String, evaluates: bool, notes: &mut Notes<'_>) -> Alert {
    let Written { metric, above, below, spike, drop, window, count, then, .. } = alert;
    // Which conditions are needed follows from the rule that was meant.
    if notes.reported(&key("rule")) {
        return Alert { watched: Watched::Metric(MetricAlert::default()), then: Then::Warn };
    }
    if metric.is_none() {
        notes.missing(&key("metric"), "the name of a metric is needed; for example metric = \"loss\"");
    }
    let metric = metric.unwrap_or_default();
    let conditions = [("above", above), ("below", below), ("spike", spike), ("drop", drop)];
    let is_wrong = |name: &&str| notes.reported(&key(name));
    if conditions.iter().all(|(_, value)| value.is_none()) && !conditions.map(|(name, _)| name).iter().any(is_wrong) {
        notes.missing(&key("above"), "a condition is needed: above, below, spike or drop; for example above = 10.0");
    }
    if let (Some(above), Some(below)) = (above, below)
        && below > above
    {
        notes.refuse(
            &key("below"),
            format!("every number is below {below} or above {above}; give a range, below < above"),
        );
    }
    let compares = spike.is_some() || drop.is_some();
    if !compares && !notes.reported(&key("spike")) && !notes.reported(&key("drop")) {
        notes.unused(&key("window"), &window, "only spike and drop compare with earlier values");
    }
    if then == Some(Then::Off) {
        notes.refuse(&key("then"), "only built-in rules can be switched off; leave the table out");
    }
    let evaluated = metric.starts_with(EVAL);
    if evaluated && !evaluates && !notes.reported("eval.every") {
        let why =
            format!("unused: \"{metric}\" is measured during training only with eval.every; for example every = 50");
        notes.refuse(&key("metric"), why);
    }
    let count = count.unwrap_or(if evaluated { 1 } else { 3 });
    let window = compares.then(|| window.unwrap_or(50));
    let watched = Watched::Metric(MetricAlert { metric, above, below, spike, drop, window, count });
    Alert { watched, then: then.unwrap_or_default() }
}
