//! Families `kl_rewards`, `kl_estimators` and `kl_controller`: token rewards from log-ratios and scores.

use super::{Rollout, TOLERANCE, all_near, family, read, same};
use objective_ppo::kl::{Controller, ESTIMATORS};
use serde::Deserialize;
use serde_json::{Value, json};

/// TRL's estimates continue over padding; ours are compared as functions, and the rewards on an answer's tokens. If a torchtune
/// case puts the score inside the row, the answer ends there.
#[test]
fn token_rewards_match_trl_and_torchtune() {
    for case in family("kl_rewards") {
        let (logp, reference) = (case.rows("logps"), case.rows("ref_logps"));
        let scores: Vec<f64> = read(&case.given, "scores");
        let mask = match case.given.get("score_index") {
            Some(Value::Array(_)) => {
                let index: Vec<usize> = read(&case.given, "score_index");
                let upto = |last: &usize| (0..logp[0].len()).map(|t| f64::from(u8::from(t <= *last))).collect();
                index.iter().map(upto).collect()
            }
            _ => case.mask("mask"),
        };
        let estimator = match case.given.get("kl_penalty").and_then(Value::as_str) {
            None | Some("kl") => "k1",
            Some("mse") => "k2",
            Some("abs") => "abs",
            Some(unknown) => panic!("`{unknown}` is expressed by no option"),
        };
        let options = json!({"kl_coef": case.number("kl_coef"), "kl_penalty": estimator});
        let everywhere = same(&logp, 1.0);
        let of = ESTIMATORS.iter().find(|e| e.name == estimator).unwrap().of;
        let kl: Vec<f64> =
            logp.concat().iter().zip(reference.concat()).map(|(logp, reference)| of(logp - reference)).collect();
        case.all_near("kl", &kl, &everywhere, TOLERANCE);
        let found = Rollout::new(&mask, &logp, &reference, &scores).rewards(&options);
        case.all_near("rewards", &found, &mask, TOLERANCE);
        let unscored = Rollout::new(&everywhere, &logp, &reference, &vec![0.0; scores.len()]).rewards(&options);
        let key = if case.peer.starts_with("trl") { "non_score_rewards" } else { "kl_reward" };
        case.all_near(key, &unscored, &everywhere, TOLERANCE);
    }
}

#[test]
fn kl_estimates_match_trl() {
    for case in family("kl_estimators") {
        let (logp, reference) = (case.rows("logps"), case.rows("ref_logps"));
        assert_eq!(case.expected.len(), ESTIMATORS.len());
        for estimator in ESTIMATORS {
            let pairs = logp.concat().into_iter().zip(reference.concat());
            let found: Vec<f64> = pairs.map(|(logp, reference)| (estimator.of)(logp - reference)).collect();
            case.all_near(estimator.name, &found, &same(&logp, 1.0), TOLERANCE);
        }
    }
}

#[test]
fn the_adaptive_coefficient_matches_trl() {
    #[derive(Deserialize)]
    struct Update {
        kl: f64,
        n_steps: usize,
    }
    for case in family("kl_controller") {
        let steering = Some((case.number("target"), case.number("horizon")));
        let mut controller = Controller { coefficient: case.number("init_kl_coef"), steering };
        let found = read::<Vec<Update>>(&case.given, "updates").into_iter().map(|update| {
            controller.update(update.kl, update.n_steps);
            controller.coefficient
        });
        let found: Vec<f64> = found.collect();
        all_near(&case.label("values"), &found, &read::<Vec<f64>>(&case.expected, "values"), TOLERANCE);
    }
}
