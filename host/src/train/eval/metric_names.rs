//! The names of the metrics that evaluations will report, so that a rule with an unknown name is refused before the run begins.

use super::{EVALUATORS, evaluator::HeldOutPrompts, held_out::evaluate};
use crate::{data::PackedBatch, error::Result, keys::mistake::nearest, runs::breadcrumb::CrashMarker, setup::Setup};

/// Refuses keys that ask for metrics of answers that cannot be measured, and `checkpoint.best` and `eval.early_stop.metric` if
/// no evaluation reports the metric they name.
///
/// # Errors
/// A request error that lists the metrics; errors of plugins and of the backend.
pub fn check(setup: &Setup, held_out: &[PackedBatch], answered: &mut HeldOutPrompts<'_>) -> Result<()> {
    let experiment = setup.experiment();
    for evaluator in EVALUATORS {
        if let Some((key, why)) = evaluator.refusal(answered) {
            return Err(setup.loaded.refuse(key, why));
        }
    }
    let best = experiment.checkpoint.best.as_ref().map(|rule| ("checkpoint.best", rule));
    let stop = experiment.eval.early_stop.as_ref().map(|stop| ("eval.early_stop.metric", &stop.metric));
    for (key, rule) in best.into_iter().chain(stop) {
        let name = rule.metric.strip_prefix("eval/").unwrap_or(&rule.metric);
        if name == "loss" && !held_out.is_empty() {
            continue;
        }
        let mut names: Vec<String> = EVALUATORS.iter().flat_map(|evaluator| evaluator.names(answered)).collect();
        // One batch usually has all metrics; the others are evaluated only if the name is not among its metrics.
        for some in [held_out.get(..1).unwrap_or_default(), held_out] {
            if !some.is_empty() && !names.iter().any(|known| known == name) {
                let figures = evaluate(answered.models, answered.objectives, some, &CrashMarker::default())?;
                names.extend(figures.into_iter().map(|(name, _)| name));
            }
        }
        if !names.iter().any(|known| known == name) {
            return Err(setup.loaded.refuse(key, missing(&rule.metric, name, names)));
        }
    }
    Ok(())
}

fn missing(metric: &str, name: &str, mut names: Vec<String>) -> String {
    names.sort();
    names.dedup();
    let list = || names.iter().map(|name| format!("eval/{name}")).collect::<Vec<_>>().join(", ");
    match nearest(name, names.iter().map(String::as_str)) {
        Some(near) => format!("evaluations do not find \"{metric}\"; did you mean \"eval/{near}\"?"),
        None if names.is_empty() => {
            format!("evaluations do not find \"{metric}\", nor anything else; give eval.generate")
        }
        None => format!("evaluations do not find \"{metric}\"; they find {}", list()),
    }
}
