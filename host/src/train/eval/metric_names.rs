//! The names of the metrics that evaluations will report, so that a rule with an unknown name is refused before the run begins.

use super::{
    exact_match::{EXACT_MATCH, EvalPrompt},
    generation,
    held_out::evaluate,
};
use crate::{
    config::mistake::nearest, data::PackedBatch, error::Result, runs::breadcrumb::CrashMarker, setup::Setup,
    train::learner::Learner,
};

/// Refuses `checkpoint.best` and `eval.early_stop.metric` if no evaluation reports the metric they name.
///
/// # Errors
/// A request error that lists the metrics; errors of plugins and of the backend.
pub fn check(setup: &Setup, learner: &mut Learner, held_out: &[PackedBatch], asked: &[EvalPrompt]) -> Result<()> {
    let experiment = setup.experiment();
    let best = experiment.checkpoint.best.as_ref().map(|rule| ("checkpoint.best", rule));
    let stop = experiment.eval.early_stop.as_ref().map(|stop| ("eval.early_stop.metric", &stop.metric));
    for (key, rule) in best.into_iter().chain(stop) {
        let name = rule.metric.strip_prefix("eval/").unwrap_or(&rule.metric);
        if name == "loss" && !held_out.is_empty() {
            continue;
        }
        let mut names = of_answers(learner, asked);
        // One batch usually has all metrics; the others are evaluated only if the name is not among its metrics.
        for some in [held_out.get(..1).unwrap_or_default(), held_out] {
            if !some.is_empty() && !names.iter().any(|known| known == name) {
                let Learner { model, roles, objectives, .. } = &mut *learner;
                let figures = evaluate(roles.models(model), objectives, some, &CrashMarker::default())?;
                names.extend(figures.into_iter().map(|(name, _)| name));
            }
        }
        if !names.iter().any(|known| known == name) {
            return Err(setup.loaded.refuse(key, missing(&rule.metric, name, names)));
        }
    }
    Ok(())
}

fn of_answers(learner: &Learner, asked: &[EvalPrompt]) -> Vec<String> {
    let exact = asked.iter().any(EvalPrompt::has_answer).then(|| EXACT_MATCH.to_owned());
    let judged = (!asked.is_empty() && !learner.rewards.is_empty())
        .then(|| generation::names(&learner.objectives, &learner.rewards, learner.roles.reference_stays()));
    exact.into_iter().chain(judged.unwrap_or_default()).collect()
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
