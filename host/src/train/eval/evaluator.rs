//! A metric of the policy's answers to held-out prompts: one type returns its names and its values.

use serde_json::{Map, Value};

use super::prompts::EvalPrompt;
use crate::{
    config::Experiment,
    data::{Examples, Tokenizer},
    error::{Error, Result},
    generate::GenerateOptions,
    objectives::Objectives,
    train::{histogram::Distribution, rollout::rewards::Rewards, step::models::Models},
};

/// Metrics of an evaluation, by name without the prefix `eval/`; `loss` comes first.
pub type Figures = Vec<(String, f64)>;

/// Lines for samples.jsonl: the answers that a metric counted, without the step.
pub type AnswerLines = Vec<Map<String, Value>>;

/// What an evaluator measured.
#[derive(Default)]
pub struct Measured {
    /// A value for each name of a metric, in their order.
    pub values: Vec<f64>,
    /// The answers that were counted.
    pub answers: AnswerLines,
    /// Distributions over the answers.
    pub distributions: Vec<Distribution>,
}

/// Held-out prompts, and the models and rewards that answer and score them.
pub struct HeldOutPrompts<'a> {
    /// The experiment.
    pub experiment: &'a Experiment,
    /// The policy's tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// The data that the prompts come from.
    pub data: &'a dyn Examples,
    /// The prompts, with their rows' answers.
    pub prompts: &'a [EvalPrompt],
    /// The policy that answers, and the other models.
    pub models: Models<'a>,
    /// Whether the reference is there for the whole run.
    pub has_reference: bool,
    /// The objectives.
    pub objectives: &'a mut Objectives,
    /// The rewards that score answers.
    pub rewards: &'a Rewards,
}

/// Some metrics of answers to held-out prompts. A new one is a file with an implementation, and a row in
/// [`EVALUATORS`](super::EVALUATORS).
pub trait Evaluator: Sync {
    /// Returns the names of the metrics, without the prefix `eval/`; empty if this experiment does not measure them. They are
    /// the same for the whole run.
    fn names(&self, held_out: &HeldOutPrompts<'_>) -> Vec<String>;

    /// Returns a key of the experiment that asks for the metrics although they cannot be measured, and the reason.
    fn refusal(&self, _held_out: &HeldOutPrompts<'_>) -> Option<(&'static str, String)> {
        None
    }

    /// Measures the metrics. Called only if there are names.
    ///
    /// # Errors
    /// Errors of plugins and of the backend.
    fn measure(&self, held_out: &mut HeldOutPrompts<'_>) -> Result<Measured>;
}

/// Returns the metrics of `evaluator` by name, and all that it measured; nothing if the experiment does not measure them.
///
/// # Errors
/// Errors of plugins and of the backend.
pub fn figures(evaluator: &dyn Evaluator, held_out: &mut HeldOutPrompts<'_>) -> Result<(Figures, Measured)> {
    let names = evaluator.names(held_out);
    if names.is_empty() {
        return Ok(Default::default());
    }
    let measured = evaluator.measure(held_out)?;
    Ok((named(names, &measured.values)?, measured))
}

/// Gives each value its name.
fn named(names: Vec<String>, values: &[f64]) -> Result<Figures> {
    if values.len() != names.len() {
        let (values, count) = (values.len(), names.len());
        return Err(Error::run(format!("an evaluation has {values} values for {count} metrics: {}", names.join(", "))));
    }
    Ok(names.into_iter().zip(values.iter().copied()).collect())
}

/// Returns the options of answers that are drawn: the token limit of rollouts; without rollouts twice the longest answer of a
/// row, or 64 tokens if there is none. The seed is always the same.
pub fn sampling(experiment: &Experiment, prompts: &[EvalPrompt]) -> GenerateOptions {
    let longest = prompts.iter().map(EvalPrompt::answer_length).max().filter(|length| *length > 0);
    let (max_tokens, top_p, top_k) = match &experiment.rollout {
        Some(rollout) => (rollout.max_new_tokens, rollout.top_p, rollout.top_k),
        None => (longest.map_or(64, |length| 2 * length), 1.0, 0),
    };
    let temperature = experiment.eval.temperature.unwrap_or(1.0);
    GenerateOptions { max_tokens, temperature, top_p, top_k, seed: experiment.seed }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a metric that is declared and not measured, or measured and not declared: the others would get its name.
    #[test]
    fn every_name_has_a_value_and_every_value_a_name() {
        let names = || vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(named(names(), &[1.0, 2.0]).unwrap(), [("a".to_owned(), 1.0), ("b".to_owned(), 2.0)]);
        for values in [&[1.0][..], &[1.0, 2.0, 3.0]] {
            assert!(named(names(), values).unwrap_err().message().contains("for 2 metrics: a, b"));
        }
    }
}
