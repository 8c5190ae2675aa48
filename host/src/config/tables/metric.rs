//! The metric that decides when a run stops early and which checkpoint is the best.

use std::fmt;

use serde::Serialize;

use crate::keys::notes::Notes;

/// A metric, and whether larger or smaller is better; written `min:eval/loss`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub struct MetricRule {
    /// Name of the metric: `eval/loss`.
    pub metric: String,
    /// Whether larger is better.
    pub larger_is_better: bool,
}

impl MetricRule {
    /// Parses `min:NAME` or `max:NAME`; a loss or perplexity needs no prefix.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (prefix, metric) = text.split_once(':').unwrap_or(("", text));
        let larger_is_better = match prefix {
            "max" => true,
            "min" => false,
            "" if metric.ends_with("loss") || metric.ends_with("perplexity") => false,
            "" => {
                return Err(format!(
                    "write \"min:{metric}\" or \"max:{metric}\" to state whether smaller or larger is better"
                ));
            }
            other => return Err(format!("\"{other}:\" is neither min: nor max:")),
        };
        if metric.is_empty() {
            return Err(format!("\"{text}\" has no metric name; for example \"min:eval/loss\""));
        }
        Ok(Self { metric: metric.to_owned(), larger_is_better })
    }

    /// Whether `new` is better than `old` by more than `min_delta`; NaN never is.
    pub fn is_better(&self, new: f64, old: f64, min_delta: f64) -> bool {
        if self.larger_is_better { new - old > min_delta } else { old - new > min_delta }
    }
}

impl fmt::Display for MetricRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", if self.larger_is_better { "max" } else { "min" }, self.metric)
    }
}

impl From<MetricRule> for String {
    fn from(rule: MetricRule) -> String {
        rule.to_string()
    }
}

/// Returns the default metric: the held-out loss; with rollouts, which have none, the reward of held-out answers if
/// `eval.generate` is set and there are rewards, else `None`.
pub fn usual_metric(has_rollouts: bool, generate: Option<u64>, has_rewards: bool) -> Option<&'static str> {
    match (has_rollouts, generate) {
        (false, _) => Some("eval/loss"),
        (true, Some(_)) if has_rewards => Some("max:eval/reward"),
        (true, _) => None,
    }
}

/// Parses the metric `written` at `key`. Without one, returns the held-out loss.
pub fn rule(written: Option<&str>, key: &str, notes: &mut Notes<'_>) -> MetricRule {
    let parsed = MetricRule::parse(written.unwrap_or("eval/loss"));
    parsed.unwrap_or_else(|message| {
        notes.refuse(key, message);
        MetricRule { metric: String::new(), larger_is_better: false }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a default that no evaluation reports: then a run is refused for a key that its author did not write.
    #[test]
    fn the_default_is_a_metric_that_is_reported() {
        let with_rewards = |generate| usual_metric(true, generate, true);
        assert_eq!((with_rewards(Some(8)), with_rewards(None)), (Some("max:eval/reward"), None));
        assert_eq!((usual_metric(true, Some(8), false), usual_metric(true, None, false)), (None, None));
        for (generate, has_rewards) in [(None, false), (None, true), (Some(8), false), (Some(8), true)] {
            assert_eq!(usual_metric(false, generate, has_rewards), Some("eval/loss"));
        }
    }
}
