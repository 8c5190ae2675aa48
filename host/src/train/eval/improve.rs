//! Compares an evaluation with the best one before it.

use super::evaluator::Figures;
use crate::config::experiment::MetricRule;

/// Returns whether the rule's metric (`eval/loss`) is better than `best`, and updates `best` if so.
pub(crate) fn improve(rule: &MetricRule, min_delta: f64, figures: &Figures, best: &mut Option<f64>) -> bool {
    let name = rule.metric.strip_prefix("eval/").unwrap_or(&rule.metric);
    let Some((_, value)) = figures.iter().find(|(n, v)| n == name && v.is_finite()) else { return false };
    let better = best.is_none_or(|old| rule.is_better(*value, old, min_delta));
    if better {
        *best = Some(*value);
    }
    better
}
