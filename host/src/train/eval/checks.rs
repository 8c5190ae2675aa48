//! The last checks before a run's first step: samples, held-out data, and the metrics that evaluations report, so that a rule
//! with an unknown name is refused before the run begins.

use super::{
    EVALUATORS,
    evaluator::HeldOutPrompts,
    held_out::{evaluate, held_out},
    prompts::{Evaluated, eval_prompts},
};
use crate::{
    config::{
        Experiment, Mistakes,
        experiment::{MetricRule, Watched},
    },
    data::{PackedBatch, TrainingData},
    error::{Error, Result},
    runs::breadcrumb::CrashMarker,
    setup::Setup,
    train::{alerts::names, learner::Learner},
};

/// Finishes the checks of an experiment; `opened` is its learner and data, `None` if a mistake prevented opening them. If the run
/// is `new`, also checks the prompts of its samples and the names of its metrics.
///
/// # Errors
/// One error with all mistakes; failures that are not mistakes.
pub fn finish(
    setup: &Setup,
    opened: Option<(&mut Learner, &TrainingData)>,
    new: bool,
    mut mistakes: Mistakes,
) -> Result<Evaluated> {
    if new && mistakes.are_free(&["sample"]) {
        mistakes.check("sample.prompts", setup.check_samples())?;
    }
    let Some((learner, data)) = opened else {
        mistakes.finish()?;
        return Err(Error::run("the models were not opened"));
    };
    check_metrics_of_steps(setup, learner, &mut mistakes);
    let held_out = held_out(setup, &learner.objectives, data);
    let most = setup.experiment().eval.generate.unwrap_or(0);
    let eval_prompts = eval_prompts(&*data.held_out, &setup.tokenizer, most);
    let (held_out, eval_prompts) = (mistakes.check("data", held_out)?, mistakes.check("eval.generate", eval_prompts)?);
    if let (Some(held_out), Some(eval_prompts), true) = (&held_out, &eval_prompts, new) {
        let mut answered = learner.held_out_prompts(setup, &*data.held_out, eval_prompts);
        let checked = check_names(setup, held_out, &mut answered, &mut mistakes);
        mistakes.check("eval", checked)?;
    }
    mistakes.finish()?;
    let evaluated = held_out.zip(eval_prompts).map(|(held_out, eval_prompts)| Evaluated { held_out, eval_prompts });
    evaluated.ok_or_else(|| Error::run("the held-out data was not read"))
}

/// The metrics of `[[alert]]` tables, each with its key. One without a name has a mistake that is reported already.
fn alert_metrics(experiment: &Experiment) -> impl Iterator<Item = (String, &str)> {
    experiment.alert.iter().enumerate().filter_map(|(index, alert)| match &alert.watched {
        Watched::Metric(rule) if !rule.metric.is_empty() => {
            Some((format!("alert.{index}.metric"), rule.metric.as_str()))
        }
        Watched::Metric(_) | Watched::BuiltIn { .. } => None,
    })
}

/// All metrics of alerts and of a study that compares runs, each with its key.
fn named_metrics(setup: &Setup) -> impl Iterator<Item = (String, &str)> {
    let compared = setup.compared_by.iter().map(|(key, metric)| (key.clone(), metric.as_str()));
    alert_metrics(setup.experiment()).chain(compared)
}

/// Refuses alerts and comparisons on metrics that no step reports; those of evaluations are checked by [`check_names`].
fn check_metrics_of_steps(setup: &Setup, learner: &Learner, mistakes: &mut Mistakes) {
    let of_steps = named_metrics(setup).filter(|(_, metric)| !metric.starts_with("eval/"));
    let free: Vec<(String, &str)> = of_steps.filter(|(key, _)| mistakes.are_free(&[key])).collect();
    if !free.is_empty() {
        let known = learner.metric_names();
        for (key, metric) in free.into_iter().filter(|(_, metric)| known.iter().all(|name| name != metric)) {
            mistakes.refuse(&key, names::unknown(metric, &known));
        }
    }
}

/// Refuses keys that ask for metrics of answers that cannot be measured, and `checkpoint.best` and `eval.early_stop.metric` if
/// no evaluation reports the metric they name; likewise alerts on metrics of evaluations, and the comparison of a study.
///
/// # Errors
/// Errors of plugins and of the backend.
fn check_names(
    setup: &Setup,
    held_out: &[PackedBatch],
    answered: &mut HeldOutPrompts<'_>,
    mistakes: &mut Mistakes,
) -> Result<()> {
    let experiment = answered.experiment;
    for evaluator in EVALUATORS {
        let refusal = evaluator.refusal(answered).filter(|(key, _)| mistakes.are_free(&[key, "eval.generate"]));
        if let Some((key, why)) = refusal {
            mistakes.refuse(key, why);
        }
    }
    let named = |key: &str, rule: &MetricRule| (key.to_owned(), rule.metric.clone());
    let best = experiment.checkpoint.best.as_ref().map(|rule| named("checkpoint.best", rule));
    let stop = experiment.eval.early_stop.as_ref().map(|stop| named("eval.early_stop.metric", &stop.metric));
    let others = named_metrics(setup).filter(|(_, metric)| metric.starts_with("eval/"));
    let others = others.map(|(key, metric)| (key, metric.to_owned()));
    // Which metrics there are, and which is the default, follows from these keys.
    let known = mistakes.are_free(&["eval.every", "eval.generate"]);
    let rollouts_are_known = mistakes.are_free(&["rollout"]);
    let samples_are_known = mistakes.are_free(&["eval.samples", "eval.pass_at"]);
    let rules = best.into_iter().chain(stop).chain(others);
    let rules: Vec<(String, String)> = rules.filter(|(key, _)| known && mistakes.are_free(&[key])).collect();
    let is_known = |metric: &str| match metric {
        "eval/loss" | "eval/reward" => rollouts_are_known,
        _ => samples_are_known || !metric.starts_with("eval/pass@"),
    };
    for (key, metric) in rules.into_iter().filter(|(_, metric)| is_known(metric)) {
        let name = metric.strip_prefix("eval/").unwrap_or(&metric);
        if name == "loss" && !held_out.is_empty() {
            continue;
        }
        let mut names: Vec<String> = EVALUATORS.iter().flat_map(|evaluator| evaluator.names(answered)).collect();
        // One batch usually has all metrics; the others are evaluated only if the name is not among its metrics.
        for some in [held_out.get(..1).unwrap_or_default(), held_out] {
            if !some.is_empty() && !names.iter().any(|known| known == name) {
                let (figures, _) = evaluate(answered.models, answered.objectives, some, &CrashMarker::default())?;
                names.extend(figures.into_iter().map(|(name, _)| name));
            }
        }
        if !names.iter().any(|known| known == name) {
            mistakes.refuse(&key, missing(&metric, name, names));
        }
    }
    Ok(())
}

fn missing(metric: &str, name: &str, mut reported: Vec<String>) -> String {
    reported.sort();
    reported.dedup();
    let list = || reported.iter().map(|name| format!("eval/{name}")).collect::<Vec<_>>().join(", ");
    match names::similar(name, &reported) {
        Some(near) => format!("no evaluation reports \"{metric}\"; did you mean \"eval/{near}\"?"),
        None if reported.is_empty() => {
            format!("no evaluation reports \"{metric}\" or any other metric; give eval.generate")
        }
        None => format!("no evaluation reports \"{metric}\"; reported are {}", list()),
    }
}
