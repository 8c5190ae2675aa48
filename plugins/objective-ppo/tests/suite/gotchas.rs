//! Known mistakes of PPO, by their numbers in the project's list.

use super::{Answer, all_near, cotangent, create, metric, near, rollout, window, with_prepared};
use objective_ppo::{kl::ESTIMATORS, rollout::names};
use plugin_api::{groups::whiten, prelude::*};
use serde_json::{Value, json};

/// Token rewards of a rollout, read from advantages with a critic of value 0 and a horizon of one token.
fn rewards(given: Value, answers: &[Answer]) -> Vec<f64> {
    let mut given = given;
    for (key, value) in [("gamma", 0.0), ("gae_lambda", 0.0)] {
        given[key] = json!(value);
    }
    given["whiten_advantages"] = json!(false);
    create(given).unwrap().prepare(&rollout(answers)).unwrap().get(names::ADVANTAGE).unwrap().to_vec()
}

fn advantages(given: Value, answers: &[Answer]) -> Vec<f64> {
    create(given).unwrap().prepare(&rollout(answers)).unwrap().get(names::ADVANTAGE).unwrap().to_vec()
}

fn some_answers() -> [Answer; 2] {
    [
        Answer::new(&[-7.0, -1.0, -2.0, -0.5, -9.0])
            .mask(&[0.0, 1.0, 1.0, 1.0, 0.0])
            .reference(&[-3.0, -1.5, -1.0, -0.75, -4.0])
            .value(&[5.0, 1.0, 0.5, 0.0, 7.0])
            .reward(2.0),
        Answer::new(&[-3.0, -1.0]).reference(&[-2.5, -1.25]).value(&[-1.0, 0.5]).reward(-1.0).cut(0.5),
    ]
}

/// Catches a bonus with the sign of a penalty: descent must raise the entropy, by its weight per supervised token.
#[test]
fn the_entropy_bonus_rewards_entropy() {
    let mut ppo = create(json!({"entropy_coef": 0.3})).unwrap();
    let first = window(&mut ppo, &rollout(&some_answers()));
    let loss = ppo.loss(&first).unwrap();
    assert_eq!((loss.terms[2].name.as_str(), loss.terms[2].coefficient, loss.terms[2].sum), ("entropy", 0.3, -2.5));
    assert_eq!(cotangent(&loss, "entropy", "entropy"), [0.0, -1.0, -1.0, -1.0, 0.0, -1.0, -1.0]);
}

/// Catches an old log-probability that is not the rollout's, and an advantage with the wrong sign.
#[test]
fn gotcha_27_the_first_minibatch_has_ratio_1_and_clips_nothing() {
    let mut ppo = create(json!({})).unwrap();
    let first = window(&mut ppo, &rollout(&some_answers()));
    let loss = ppo.loss(&first).unwrap();
    for (name, expected) in [
        ("val/ratio", 1.0),
        ("val/ratio_var", 0.0),
        ("policy/clipfrac_avg", 0.0),
        ("policy/approxkl_avg", 0.0),
        ("val/clipfrac_avg", 0.0),
    ] {
        assert_eq!(metric(&loss, name), expected, "{name}");
    }
    // There the gradient is the policy gradient: descent raises the answers with positive advantage.
    let minus: Vec<f64> = first.get(names::ADVANTAGE).unwrap().iter().map(|a| -a).collect();
    all_near("cotangent", cotangent(&loss, "policy", "logp"), &minus, 1e-14);
}

/// Catches `reference - logp`, and a penalty with the sign of a reward.
#[test]
fn gotcha_28_the_kl_penalty_uses_k1_which_may_be_negative_for_a_token() {
    let answer = Answer::new(&[-1.0, -3.0]).reference(&[-2.0, -2.5]);
    all_near("k1", &rewards(json!({"kl_coef": 0.1}), std::slice::from_ref(&answer)), &[-0.1, 0.05], 1e-14);
    let d = [1.0_f64, -0.5];
    let k3 = d.map(|d| -0.1 * ((-d).exp() - 1.0 + d));
    all_near("k3", &rewards(json!({"kl_coef": 0.1, "kl_penalty": "k3"}), std::slice::from_ref(&answer)), &k3, 1e-13);
    assert!(k3.iter().all(|reward| *reward < 0.0));
    all_near(
        "k2",
        &rewards(json!({"kl_coef": 0.1, "kl_penalty": "k2"}), std::slice::from_ref(&answer)),
        &[-0.05, -0.0125],
        1e-14,
    );
    all_near("abs", &rewards(json!({"kl_coef": 0.1, "kl_penalty": "abs"}), &[answer]), &[-0.1, -0.05], 1e-14);
}

/// Catches an estimator inside the loss, whose gradient is not the KL's.
#[test]
fn gotcha_28_the_reference_affects_only_the_rewards() {
    let mut ppo = create(json!({"kl_coef": 3.0})).unwrap();
    let first = window(&mut ppo, &rollout(&some_answers()));
    let tokens = first.tokens().unwrap();
    let elsewhere = first.clone().with("reference.logp", Scope::TOKEN, vec![-8.0; tokens]);
    assert_eq!(ppo.loss(&first).unwrap(), ppo.loss(&elsewhere).unwrap());
}

/// Catches TRL's position one past the end (here the masked last one), the first token, and every token.
#[test]
fn gotcha_29_the_score_sits_on_the_last_supervised_token() {
    let padded = Answer::new(&[-1.0; 4]).mask(&[0.0, 1.0, 1.0, 0.0]).reward(3.0);
    assert_eq!(rewards(json!({}), &[padded, Answer::new(&[-2.0]).reward(-1.0)]), [0.0, 0.0, 3.0, 0.0, -1.0]);
    let nothing = Answer::new(&[-1.0; 2]).mask(&[0.0; 2]).reward(3.0);
    assert_eq!(rewards(json!({}), &[nothing]), [0.0; 2]);
}

/// Catches a penalty on answers that ended, and one that is added.
#[test]
fn gotcha_29_only_a_truncated_answer_is_penalised() {
    let answers = [Answer::new(&[-1.0]).reward(3.0), Answer::new(&[-1.0]).reward(3.0).cut(0.0)];
    assert_eq!(rewards(json!({"missing_eos_penalty": 0.5}), &answers), [3.0, 2.5]);
    assert_eq!(rewards(json!({"missing_eos_penalty": 0.5, "missing_eos": "replace"}), &answers), [3.0, -0.5]);
    assert_eq!(rewards(json!({"missing_eos": "replace"}), &answers), [3.0, 0.0]);
    let mut ppo = create(json!({"missing_eos_penalty": 0.5})).unwrap();
    let first = window(&mut ppo, &rollout(&answers));
    assert_eq!(metric(&ppo.loss(&first).unwrap(), "objective/scores"), 2.75);
}

/// Catches a bootstrap of every answer, one without the discount, and one that is on by default.
#[test]
fn gotcha_29_bootstrapping_uses_the_value_after_a_truncation() {
    let answers =
        [Answer::new(&[-1.0]).value(&[1.0]).reward(2.0), Answer::new(&[-1.0]).value(&[1.0]).reward(2.0).cut(4.0)];
    // The value after an answer that ended is not used, whatever it is.
    let ended = Answer { value_end: f64::NAN, ..answers[0].clone() };
    let given = |truncated: &str| json!({"truncated": truncated, "gamma": 0.5, "whiten_advantages": false});
    assert_eq!(advantages(given("terminal"), &answers), [1.0, 1.0]);
    assert_eq!(advantages(given("bootstrap"), &[ended, answers[1].clone()]), [1.0, 3.0]);
}

/// Catches advantages that run through masked tokens, and a prompt's values in the sums. By hand: gamma 1/2, lambda 1/2.
#[test]
fn gotcha_30_advantages_skip_masked_tokens() {
    let answer = Answer::new(&[-1.0; 5]).mask(&[0.0, 1.0, 0.0, 1.0, 0.0]).value(&[9.0, 1.0, 8.0, 2.0, 7.0]).reward(4.0);
    let found = advantages(json!({"gamma": 0.5, "gae_lambda": 0.5, "whiten_advantages": false}), &[answer]);
    // Behind: 4 - 2 = 2. Before: 0 + 2/2 - 1 = 0, and 2/4 of what follows.
    assert_eq!(found, [0.0, 0.5, 0.0, 2.0, 0.0]);
}

/// Catches the population's variance, masked tokens in the moments, and torchtune's mean that is added back.
#[test]
fn gotcha_30_whitening_has_mean_0_and_bessels_variance_over_the_mask() {
    let (mut x, mask) = ([100.0, 1.0, 2.0, 4.0, f64::NAN], [0.0, 1.0, 1.0, 1.0, 0.0]);
    whiten(&mut x, &mask, false);
    assert_eq!(x[0], 100.0);
    near("mean", x[1..4].iter().sum::<f64>(), 0.0, 0.0);
    near("variance", x[1..4].iter().map(|x| x * x).sum::<f64>() / 2.0, 1.0, 1e-8);
    let mut kept = [1.0, 2.0, 4.0];
    whiten(&mut kept, &[1.0; 3], true);
    near("mean kept", kept.iter().sum::<f64>() / 3.0, 7.0 / 3.0, 1e-14);
}

/// Bessel's correction divides by 0 for one token; none at all is 0 / 0.
#[test]
fn gotcha_30_a_single_token_is_whitened_to_0() {
    let (mut one, mut none) = ([7.0, 3.0], [3.0]);
    whiten(&mut one, &[1.0, 0.0], false);
    whiten(&mut none, &[0.0], false);
    assert_eq!((one, none), ([0.0, 3.0], [3.0]));
    assert_eq!(advantages(json!({"whiten_rewards": true}), &[Answer::new(&[-1.0]).reward(2.0)]), [0.0]);
}

/// Catches `min`, a missing 1/2, and a clip around the return. If clipped, a value that moved towards its return has no gradient;
/// one that moved away has one.
#[test]
fn gotcha_31_the_value_loss_is_half_the_greater_of_clipped_and_unclipped() {
    let value = [0.5, -0.5, 0.1];
    let batch = rollout(&[Answer::new(&[-1.0; 3]).value(&value)]);
    let batch = with_prepared([&[0.0; 3], &[1.0; 3], &[-1.0; 3], &[0.0; 3]], batch);
    let loss = create(json!({"value_clip_range": 0.2, "value_coef": 0.3})).unwrap().loss(&batch).unwrap();
    let term = &loss.terms[1];
    assert_eq!((term.name.as_str(), term.coefficient), ("value", 0.3));
    near("sum", term.sum, 0.5 * (0.8_f64.powi(2) + 1.5_f64.powi(2) + 0.9_f64.powi(2)), 1e-14);
    all_near("cotangent", cotangent(&loss, "value", "critic.value"), &[0.0, -1.5, -0.9], 1e-14);
    near("clip fraction", metric(&loss, "val/clipfrac_avg"), 1.0 / 3.0, 1e-15);
    let free = create(json!({"value_clip_range": 0.0})).unwrap().loss(&batch).unwrap();
    near("unclipped", free.terms[1].sum, 0.5 * (0.5_f64.powi(2) + 1.5_f64.powi(2) + 0.9_f64.powi(2)), 1e-14);
    assert!(free.metrics.iter().all(|m| m.name != "val/clipfrac_avg"));
}

/// TRL uses 1 for the log-probability of padding; a value there must enter no mean.
#[test]
fn gotcha_32_placeholders_reach_no_metric() {
    let whole = |placeholder: f64| {
        let mut answers = some_answers();
        for t in [0, 4] {
            answers[0].logp[t] = placeholder;
            answers[0].reference[t] = 2.0 * placeholder;
            answers[0].value[t] = -placeholder;
        }
        let mut ppo = create(json!({"kl_penalty": "k3", "whiten_rewards": true})).unwrap();
        let mut entropy = vec![0.5; 7];
        (entropy[0], entropy[4]) = (placeholder, placeholder);
        let first = window(&mut ppo, &rollout(&answers)).with_statistic("entropy", Scope::TOKEN, entropy);
        ppo.loss(&first).unwrap()
    };
    let clean = whole(-1.0);
    assert!(clean.metrics.iter().all(|m| m.value.is_finite() && m.weight > 0.0), "{clean:?}");
    for placeholder in [1.0, 1e300, f64::NAN, f64::NEG_INFINITY] {
        assert_eq!(whole(placeholder), clean, "{placeholder}");
    }
}

/// Catches an exponential of a number that can be thousands: in the ratio, and in k3.
#[test]
fn gotcha_33_log_ratios_of_thousands_stay_finite() {
    let mut ppo = create(json!({"kl_penalty": "k3", "whiten_advantages": false})).unwrap();
    let far = [Answer::new(&[-1.0, -5000.0]).reference(&[-5000.0, -1.0]).reward(1.0)];
    let first = window(&mut ppo, &rollout(&far));
    assert!(first.get(names::ADVANTAGE).unwrap().iter().all(|a| a.is_finite()), "{first:?}");
    let loss = ppo.loss(&first.with_statistic("logp", Scope::TOKEN, vec![-9000.0, -0.01])).unwrap();
    assert!(loss.terms.iter().all(|t| t.sum.is_finite()), "{loss:?}");
    assert!(loss.terms.iter().flat_map(|t| &t.cotangents).flat_map(|c| &c.1).all(|c| c.is_finite()), "{loss:?}");
    assert!(loss.metrics.iter().all(|m| m.value.is_finite()), "{loss:?}");
    let k3 = ESTIMATORS.iter().find(|e| e.name == "k3").unwrap().of;
    assert!(k3(-5000.0).is_finite() && k3(5000.0) == 4999.0);
}

/// Catches `if reward`: a reward of 0 counts in the mean and gets the penalty.
#[test]
fn gotcha_33_a_reward_of_exactly_0_is_a_reward() {
    let answers = [Answer::new(&[-1.0]), Answer::new(&[-1.0]).reward(3.0), Answer::new(&[-1.0]).cut(0.0)];
    assert_eq!(rewards(json!({"missing_eos_penalty": 0.5}), &answers), [0.0, 3.0, -0.5]);
    let mut ppo = create(json!({})).unwrap();
    let first = window(&mut ppo, &rollout(&answers));
    assert_eq!(metric(&ppo.loss(&first).unwrap(), "objective/scores"), 1.0);
}

/// While the policy equals the reference the penalty is 0.
#[test]
fn gotcha_34_kl_is_0_if_the_policy_equals_the_reference() {
    let answers = [Answer::new(&[-1.0, -2.0]).reward(1.0), Answer::new(&[-0.5])];
    for kl_penalty in ESTIMATORS.iter().map(|e| e.name) {
        let mut ppo = create(json!({"kl_penalty": kl_penalty})).unwrap();
        let first = window(&mut ppo, &rollout(&answers));
        let loss = ppo.loss(&first).unwrap();
        assert_eq!(metric(&loss, "objective/kl"), 0.0);
        assert_eq!(metric(&loss, "objective/non_score_reward"), 0.0);
        assert_eq!(metric(&loss, "objective/rlhf_reward"), metric(&loss, "objective/scores"));
    }
}

/// Catches a coefficient that is changed before it is used, a controller that follows the chosen estimate instead of the KL, and a
/// state that is not saved.
#[test]
fn gotcha_35_the_adaptive_coefficient_is_used_then_changed_and_kept() {
    let given =
        json!({"kl_control": "adaptive", "kl_coef": 0.1, "kl_target": 2.4, "kl_horizon": 10.0, "kl_penalty": "k2"});
    // KL of 4 and 1 nats: 2.5 in the mean, over 2 answers of a horizon of 10.
    let answers = [Answer::new(&[-1.0, -1.0]).reference(&[-4.0, -2.0]), Answer::new(&[-1.0]).reference(&[-2.0])];
    let coefficient = |batch: &Batch<'_>| batch.get(names::KL_COEF).unwrap()[0];
    let mut ppo = create(given.clone()).unwrap();
    assert_eq!(coefficient(&ppo.prepare(&rollout(&answers)).unwrap()), 0.1);
    let mut resumed = create(given.clone()).unwrap();
    resumed.restore(&ppo.state().unwrap()).unwrap();
    let (here, there) = (ppo.prepare(&rollout(&answers)).unwrap(), resumed.prepare(&rollout(&answers)).unwrap());
    near("after one rollout", coefficient(&here), 0.1 * (1.0 + (2.5 / 2.4 - 1.0) * 2.0 / 10.0), 1e-14);
    assert_eq!(here, there);
    assert_eq!(ppo.state().unwrap(), resumed.state().unwrap());
    // A rollout of five horizons or more, far below the target, leaves a tenth of the coefficient and not 0 or less.
    let mut long = objective_ppo::kl::Controller { coefficient: 1.0, steering: Some((2.0, 10.0)) };
    long.update(0.0, 1000);
    assert_eq!(long.coefficient, 0.1);
    for bytes in [f64::NAN.to_le_bytes(), (-1.0_f64).to_le_bytes(), 0.0_f64.to_le_bytes()] {
        assert_eq!(create(given.clone()).unwrap().restore(&bytes).unwrap_err().code, Code::STATE);
    }
    assert_eq!(create(given).unwrap().restore(&[]).unwrap_err().code, Code::STATE);
    let fixed = create(json!({})).unwrap().restore(&ppo.state().unwrap()).unwrap_err();
    assert!(fixed.message.contains("kl_control"), "{fixed}");
}

/// A run that collapses early is reported by array and token, not as NaN in every advantage of the rollout.
#[test]
fn a_nan_is_refused_by_name_and_place() {
    let of =
        |answers: &[Answer]| create(json!({"truncated": "bootstrap"})).unwrap().prepare(&rollout(answers)).unwrap_err();
    let fine = Answer::new(&[-1.0, -2.0]);
    for (broken, part) in [
        (fine.clone().reward(f64::NAN), "`reward`[1] of the rollout is NaN"),
        (fine.clone().value(&[0.0, f64::INFINITY]), "`critic.value`[3] of the rollout is inf"),
        (fine.clone().reference(&[f64::NAN, 0.0]), "`reference.logp`[2] of the rollout is NaN"),
        (fine.clone().cut(f64::NAN), "`critic.value_end`[1] of the rollout is NaN"),
    ] {
        let error = of(&[fine.clone(), broken]);
        assert_eq!(error.code, Code::ARRAY);
        assert!(error.message.contains(part), "{error}");
    }
    let short = rollout(&[fine]).with("reward", Scope::SEQUENCE, vec![1.0, 2.0]);
    let error = create(json!({})).unwrap().prepare(&short).unwrap_err();
    assert!(error.message.contains("`reward` holds 2 values, expected 1"), "{error}");
    let unprepared = create(json!({})).unwrap().loss(&rollout(&some_answers())).unwrap_err();
    assert!(unprepared.code == Code::ARRAY && unprepared.message.contains("old_logp"), "{unprepared}");
}
