//! Families `ppo_loss` and `ppo_loss_trl`: losses, gradients and diagnostics of a step.

use super::{Answer, Case, FRACTIONS, Rows, TOLERANCE, create, family, near, read, rollout, same};
use crate::{cotangent, metric, with_prepared};
use plugin_api::prelude::*;
use serde_json::{Map, Value, json};

/// The inputs of a host's step: a window of the rollout with the numbers of models that have changed.
pub(super) struct Step {
    pub(super) mask: Rows,
    pub(super) advantage: Rows,
    pub(super) returns: Rows,
    pub(super) old: [Rows; 2],
    pub(super) new: [Rows; 2],
    pub(super) entropy: Rows,
}

impl Step {
    fn of(case: &Case, mask: &Rows) -> Self {
        let rows = |key: &str| case.rows(key);
        Self {
            mask: mask.clone(),
            advantage: rows("advantages"),
            returns: rows("returns"),
            old: [rows("old_logps"), rows("old_values")],
            new: [rows("logps"), rows("values")],
            entropy: same(mask, 0.0),
        }
    }

    pub(super) fn loss(&self, options: &Value) -> Loss {
        let one = |s: usize| Answer::new(&self.new[0][s]).mask(&self.mask[s]).value(&self.new[1][s]);
        let answers: Vec<Answer> = (0..self.mask.len()).map(one).collect();
        let batch = rollout(&answers).with_statistic("entropy", Scope::TOKEN, self.entropy.concat());
        let [logp, value] = self.old.each_ref().map(|rows| rows.concat());
        let batch = with_prepared([&self.advantage.concat(), &self.returns.concat(), &logp, &value], batch);
        create(options.clone()).unwrap().loss(&batch).unwrap()
    }

    /// A term in the host's total, and its gradient.
    pub(super) fn total(&self, options: &Value, term: &str, statistic: &str) -> (f64, Vec<f64>) {
        let loss = self.loss(options);
        let found = loss.terms.iter().find(|t| t.name == term).unwrap();
        let factor = found.coefficient / self.mask.concat().iter().sum::<f64>();
        let gradient = cotangent(&loss, term, statistic).iter().map(|c| factor * c).collect();
        (factor * found.sum, gradient)
    }
}

/// A case's hyper-parameters by the peer's names, as options.
pub(super) fn clipping(given: &Map<String, Value>, [ratio, value, coefficient]: [&str; 3]) -> Value {
    let number = |key: &str| read::<f64>(given, key);
    json!({"clip_range": number(ratio), "value_clip_range": number(value), "value_coef": number(coefficient)})
}

/// torchtune supervises values by a separate mask, one token longer: its two terms are those of two windows of ours. Its means
/// over every position, padding included, are compared only if all tokens are supervised: gotcha 32.
#[test]
fn losses_and_gradients_match_torchtune() {
    for case in family("ppo_loss") {
        let (mask, value_mask) = (case.mask("mask"), case.mask("value_mask"));
        let options = clipping(&case.given, ["epsilon", "value_clip_range", "value_coef"]);
        let everywhere = same(&mask, 1.0);
        let step = Step::of(&case, &mask);
        let (policy, by_logp) = step.total(&options, "policy", "logp");
        let (value, by_value) = Step::of(&case, &value_mask).total(&options, "value", "critic.value");
        case.near("policy_loss", policy, TOLERANCE);
        near(
            &case.label("value_loss"),
            value,
            case.number("value_coef") * read::<f64>(&case.expected, "value_loss"),
            TOLERANCE,
        );
        case.near("loss", policy + value, TOLERANCE);
        case.all_near("grad_logps", &by_logp, &everywhere, TOLERANCE);
        case.all_near("grad_values", &by_value, &everywhere, TOLERANCE);
        case.near("clipfrac", metric(&step.loss(&options), "policy/clipfrac_avg"), FRACTIONS);
        let unmasked = Step::of(&case, &everywhere).loss(&options);
        case.near("mean_ratio_unmasked", metric(&unmasked, "val/ratio"), TOLERANCE);
    }
}

/// TRL gives a batch whose mean ratio is above a threshold no loss. That couples a batch, while here a window can be split
/// anywhere: there is no such threshold, and the diagnostics still agree with TRL's.
#[test]
fn losses_gradients_and_diagnostics_match_trl() {
    for case in family("ppo_loss_trl") {
        let mask = case.mask("mask");
        let options = clipping(&case.given, ["cliprange", "cliprange_value", "vf_coef"]);
        let step = Step { entropy: entropies(&case), ..Step::of(&case, &mask) };
        let (policy, by_logp) = step.total(&options, "policy", "logp");
        let (value, by_value) = step.total(&options, "value", "critic.value");
        let loss = step.loss(&options);
        if metric(&loss, "val/ratio") <= case.number("ratio_threshold") {
            let everywhere = same(&mask, 1.0);
            case.near("policy_loss", policy, TOLERANCE);
            case.near("value_loss_scaled", value, TOLERANCE);
            case.near("loss", policy + value, TOLERANCE);
            case.all_near("grad_logps", &by_logp, &everywhere, TOLERANCE);
            case.all_near("grad_values", &by_value, &everywhere, TOLERANCE);
        } else {
            assert_eq!(read::<f64>(&case.expected, "loss"), 0.0, "{}", case.name);
            assert!(policy + value != 0.0);
        }
        for (theirs, ours, tolerance) in [
            ("approx_kl", "policy/approxkl_avg", TOLERANCE),
            ("clipfrac", "policy/clipfrac_avg", FRACTIONS),
            ("value_clipfrac", "val/clipfrac_avg", FRACTIONS),
            ("entropy", "policy/entropy_avg", TOLERANCE),
            ("value_error", "value/error", TOLERANCE),
        ] {
            case.near(theirs, metric(&loss, ours), tolerance);
        }
    }
}

/// Entropies from the case's logits.
fn entropies(case: &Case) -> Rows {
    let entropy = |logits: &Vec<f64>| {
        let lse = logits.iter().map(|x| x.exp()).sum::<f64>().ln();
        -logits.iter().map(|x| (x - lse).exp() * (x - lse)).sum::<f64>()
    };
    read::<Vec<Rows>>(&case.given, "logits").iter().map(|row| row.iter().map(entropy).collect()).collect()
}
