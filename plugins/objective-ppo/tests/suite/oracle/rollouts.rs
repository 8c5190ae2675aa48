//! Families `rollout_trl` and `rollout_torchtune`: the first step from answers and scores, in one test.

use super::{
    Case, FRACTIONS, Rollout, Rows, TOLERANCE, all_near, family,
    losses::{Step, clipping},
    near, read, same,
};
use crate::metric;
use objective_ppo::rollout::names;
use plugin_api::groups::whiten;
use serde_json::{Map, Value, json};

impl Case {
    /// The tokens for which TRL computes rewards and values, one more than the answer's if there is room, for its score. As an
    /// answer of ours that is one token longer, whose last token has the same probability in both models, every reward and return
    /// equals TRL's.
    fn longer(&self) -> Rollout {
        let (mask, answer) = (self.unpadded("value_padding_mask"), self.unpadded("padding_mask"));
        let real = |key: &str| -> Rows {
            let row = |(row, mask): (Vec<f64>, &Vec<f64>)| row.iter().zip(mask).map(|(x, m)| x * m).collect();
            self.rows(key).into_iter().zip(&answer).map(row).collect()
        };
        let rollout = Rollout::new(&mask, &real("logps"), &real("ref_logps"), &read::<Vec<f64>>(&self.given, "scores"));
        Rollout { value: self.rows("values"), ..rollout }
    }

    fn has_eos(&self, before: usize) -> impl Fn(&Vec<f64>) -> bool {
        let eos = self.number("eos_id");
        move |row| row[..before].contains(&eos)
    }
}

/// TRL 0.16.1 puts the score one past the answer if there is room (gotcha 29), whitens advantages and takes the policy's means
/// over only the answer, and the value's over one token more. Rewards and returns are compared on the longer answer; advantages
/// are ours before whitening, whitened over the shorter one.
#[test]
fn gotcha_29_a_rollout_of_trl_from_scores_to_gradients() {
    for case in family("rollout_trl") {
        let hyper: Map<String, Value> = read(&case.given, "hyper");
        let number = |key: &str| hyper[key].as_f64().unwrap_or(0.0);
        let mut options = clipping(&hyper, ["cliprange", "cliprange_value", "vf_coef"]);
        for (theirs, ours) in [
            ("kl_coef", "kl_coef"),
            ("missing_eos_penalty", "missing_eos_penalty"),
            ("gamma", "gamma"),
            ("lam", "gae_lambda"),
        ] {
            options[ours] = json!(number(theirs));
        }
        options["whiten_rewards"] = hyper["whiten_rewards"].clone();
        options["whiten_advantages"] = json!(false);
        let responses = case.rows("responses");
        let ended =
            responses.iter().map(case.has_eos(responses[0].len())).map(|has| f64::from(u8::from(has))).collect();
        let longer = Rollout { ended, ..case.longer() };
        let (answer, everywhere) = (case.unpadded("padding_mask"), same(&responses, 1.0));
        case.all_near("rewards", &longer.rewards(&options), &everywhere, TOLERANCE);
        let prepared = longer.prepare(options.clone());
        let adjusted: Vec<f64> = read(&case.expected, "adjusted_scores");
        all_near(&case.label("adjusted_scores"), prepared.get(names::SCORE).unwrap(), &adjusted, TOLERANCE);
        let kl: Vec<f64> = case.expects("kl").iter().map(|row| row.iter().sum()).collect();
        all_near(&case.label("kl"), prepared.get(names::KL).unwrap(), &kl, TOLERANCE);
        case.all_near("returns", prepared.get(names::RETURN).unwrap(), &everywhere, TOLERANCE);
        let mut advantage = prepared.get(names::ADVANTAGE).unwrap().to_vec();
        whiten(&mut advantage, &answer.concat(), false);
        case.all_near("advantages", &advantage, &answer, TOLERANCE);

        let width = responses[0].len();
        let step = |mask: &Rows| Step {
            mask: mask.clone(),
            advantage: advantage.chunks(width).map(<[f64]>::to_vec).collect(),
            returns: case.expects("returns"),
            old: [case.rows("logps"), case.rows("values")],
            new: [case.rows("new_logps"), case.rows("new_values")],
            entropy: same(mask, 0.0),
        };
        let (of_policy, of_value) = (step(&answer), step(&longer.mask));
        let (policy, by_logp) = of_policy.total(&options, "policy", "logp");
        let (value, by_value) = of_value.total(&options, "value", "critic.value");
        case.near("policy_loss", policy, TOLERANCE);
        near(
            &case.label("value_loss"),
            value,
            number("vf_coef") * read::<f64>(&case.expected, "value_loss"),
            TOLERANCE,
        );
        case.near("loss", policy + value, TOLERANCE);
        case.all_near("grad_logps", &by_logp, &everywhere, TOLERANCE);
        case.all_near("grad_values", &by_value, &everywhere, TOLERANCE);
        let (policy, value) = (of_policy.loss(&options), of_value.loss(&options));
        case.near("clipfrac", metric(&policy, "policy/clipfrac_avg"), FRACTIONS);
        case.near("value_clipfrac", metric(&value, "val/clipfrac_avg"), FRACTIONS);
        // TRL's mean has the zeros of padding in its denominator: gotcha 32.
        let share = answer.concat().iter().sum::<f64>() / everywhere.concat().len() as f64;
        case.near("approx_kl_unmasked", share * metric(&policy, "policy/approxkl_avg"), TOLERANCE);
    }
}

/// torchtune replaces the score by the penalty: `missing_eos = "replace"`. Its minimum length of an answer is a stopping rule and
/// therefore belongs to the host: answers that it penalises are given as truncated. An end in the very last position counts as
/// missing there.
#[test]
fn gotcha_29_a_rollout_of_torchtune_from_scores_to_rewards() {
    for case in family("rollout_torchtune") {
        let options = json!({
            "kl_coef": case.number("kl_coef"), "missing_eos": "replace", "missing_eos_penalty": -case.number("reward_penalty"),
        });
        let responses = case.rows("responses");
        let last_index: Vec<f64> = read(&case.expected, "last_index");
        let (penalised, shortest) =
            (read::<bool>(&case.given, "penalise_no_eos"), case.given["min_response_length"].as_f64());
        let has_eos = case.has_eos(responses[0].len() - 1);
        let ended = responses.iter().zip(&last_index).map(|(row, last)| {
            let fine = (has_eos(row) || !penalised) && shortest.is_none_or(|shortest| *last >= shortest);
            f64::from(u8::from(fine))
        });
        let longer = Rollout { ended: ended.collect(), ..case.longer() };
        let everywhere = same(&responses, 1.0);
        case.all_near("rewards", &longer.rewards(&options), &everywhere, TOLERANCE);
        let prepared = longer.prepare(options);
        let adjusted: Vec<f64> = read(&case.expected, "adjusted_scores");
        all_near(&case.label("adjusted_scores"), prepared.get(names::SCORE).unwrap(), &adjusted, TOLERANCE);
        case.all_near("values", prepared.get(names::OLD_VALUE).unwrap(), &everywhere, TOLERANCE);
        let kl: Vec<f64> = case.expects("kl").iter().map(|row| row.iter().sum()).collect();
        all_near(&case.label("kl"), prepared.get(names::KL).unwrap(), &kl, TOLERANCE);
    }
}
