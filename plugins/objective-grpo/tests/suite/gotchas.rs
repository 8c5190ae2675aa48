//! Known mistakes of objectives of this kind, by their numbers in the project's list.

use super::{Answer, advantages, all_near, cotangent, create, metric, near, rewarded, rollout, window, with_prepared};
use objective_grpo::{kl::ESTIMATORS, rollout::names};
use plugin_api::prelude::*;
use serde_json::{Value, json};

fn some_answers() -> [Answer; 2] {
    [
        Answer::new(0.0, &[-7.0, -1.0, -2.0, -0.5, -9.0])
            .mask(&[0.0, 1.0, 1.0, 1.0, 0.0])
            .reference(&[-3.0, -1.5, -1.0, -0.75, -4.0])
            .reward(2.0),
        Answer::new(0.0, &[-3.0, -1.0]).reference(&[-2.5, -1.25]).reward(-1.0).cut(),
    ]
}

/// Catches a mean over tokens where answers count alike, and the reverse. The first answer has two tokens, the second
/// one has one; both have the advantage 1 and the ratio 1.
#[test]
fn gotcha_01_each_normaliser_has_its_sum() {
    let answers = [Answer::new(0.0, &[-1.0, -1.0]), Answer::new(0.0, &[-1.0])];
    let batch = with_prepared(&[1.0; 3], &[-1.0; 3], rollout(&answers));
    for (given, sum, gradient) in [
        (json!({}), -2.0, [-0.5, -0.5, -1.0]),
        (json!({"normaliser": "token"}), -3.0, [-1.0; 3]),
        (json!({"normaliser": "constant", "max_length": 4}), -3.0, [-1.0; 3]),
    ] {
        let loss = create(given.clone()).unwrap().loss(&batch).unwrap();
        near("sum", loss.terms[0].sum, sum, 1e-14);
        all_near(&given.to_string(), cotangent(&loss, "policy"), &gradient, 1e-14);
    }
}

/// Catches an old log-probability that is not the rollout's, and an advantage with the wrong sign.
#[test]
fn gotcha_27_the_first_minibatch_has_ratio_1_and_clips_nothing() {
    for given in [json!({}), json!({"level": "sequence"}), json!({"loss": "cispo"}), json!({"loss": "sapo"})] {
        let mut grpo = create(given.clone()).unwrap();
        let first = window(&mut grpo, &rollout(&some_answers()));
        let loss = grpo.loss(&first).unwrap();
        assert_eq!((metric(&loss, "ratio/mean"), metric(&loss, "ratio/max")), (1.0, 1.0), "{given}");
        assert_eq!(metric(&loss, "approx_kl"), 0.0);
        for name in ["clip/low", "clip/high"] {
            assert!(loss.metrics.iter().all(|m| m.name != name || m.value == 0.0), "{given}");
        }
        // There the gradient is the policy gradient: descent raises the answers with a positive advantage.
        let advantage = first.get(names::ADVANTAGE).unwrap();
        let expected = [0.0, -advantage[1] / 3.0, -advantage[2] / 3.0, -advantage[3] / 3.0, 0.0];
        all_near(&given.to_string(), &cotangent(&loss, "policy")[..5], &expected, 1e-14);
        assert!(advantage[1] > 0.0 && advantage[5] < 0.0);
    }
}

/// Catches `reference - logp`, an estimator that is negative, and one with the other's gradient. On policy the means of
/// the gradients are: k1 none, k2 that of KL(policy, reference), and k1 and k3 with the ratio the same.
#[test]
fn gotcha_28_the_kl_has_its_sign_and_its_gradient() {
    let d = [1.0_f64, -0.5];
    let batch =
        with_prepared(&[0.0; 2], &[-1.0, -3.0], rollout(&[Answer::new(0.0, &[-1.0, -3.0]).reference(&[-2.0, -2.5])]));
    let term = |given: Value| {
        let mut given = given;
        (given["kl_coef"], given["normaliser"]) = (json!(0.1), json!("token"));
        let loss = create(given).unwrap().loss(&batch).unwrap();
        assert_eq!((loss.terms[1].name.as_str(), loss.terms[1].coefficient), ("kl", 0.1));
        (loss.terms[1].sum, cotangent(&loss, "kl").to_vec())
    };
    let k3 = d.map(|d| (-d).exp() - 1.0 + d);
    assert!(k3.iter().all(|kl| *kl > 0.0));
    for (given, sum, gradient) in [
        (json!({"kl": "k1"}), 0.5, [1.0, 1.0]),
        (json!({"kl": "k2"}), 0.625, d),
        (json!({"kl": "k3"}), k3[0] + k3[1], d.map(|d| 1.0 - (-d).exp())),
        (json!({"kl": "k1", "kl_weighted": true}), 0.5, d.map(|d| 1.0 + d)),
        // k3 + (1 - exp(-d)) is d: the gradient of the KL, up to the mean.
        (json!({"kl": "k3", "kl_weighted": true}), k3[0] + k3[1], d),
    ] {
        let (found, gradients) = term(given.clone());
        near(&given.to_string(), found, sum, 1e-13);
        all_near(&given.to_string(), &gradients, &gradient, 1e-13);
    }
}

/// Catches a penalty on answers that ended early, one with the wrong slope, and one that is added.
#[test]
fn gotcha_29_long_answers_lose_reward_up_to_the_greatest_length() {
    let answers: Vec<Answer> =
        (1..=6).map(|n| Answer::new(f64::from(n), &vec![-1.0; n as usize]).reward(1.0)).collect();
    let given = json!({
        "overlong_buffer": 2, "max_length": 5, "overlong_penalty": 0.5, "baseline": "none", "scale": "none"
    });
    let prepared = create(given).unwrap().prepare(&rollout(&answers)).unwrap();
    let (advantage, offsets) = (prepared.get(names::ADVANTAGE).unwrap(), rollout(&answers).offsets().unwrap());
    let first: Vec<f64> = offsets[..6].iter().map(|t| advantage[*t]).collect();
    assert_eq!(first, [1.0, 1.0, 1.0, 0.75, 0.5, 0.5]);
}

/// Catches truncated answers that are learned from or stay in the denominator (trl 6439), and ones that leave the
/// baseline.
#[test]
fn gotcha_36_masked_truncated_answers_leave_the_loss_and_its_denominator() {
    let mut answers = rewarded(&[(0.0, 1.0), (0.0, 0.0), (1.0, 0.5), (1.0, 0.5)]);
    answers[1].ended = 0.0;
    let prepared = create(json!({"mask_truncated": true})).unwrap().prepare(&rollout(&answers)).unwrap();
    assert_eq!(prepared.get("keep").unwrap(), [1.0, 0.0, 1.0, 1.0]);
    near("advantage", prepared.get(names::ADVANTAGE).unwrap()[0], 0.5 / (0.5_f64.sqrt() + 1e-4), 1e-14);
    assert!(prepared.find("request").is_none());
    assert!(create(json!({})).unwrap().prepare(&rollout(&answers)).unwrap().find("keep").is_none());
}

/// Catches the population's deviation, a deviation without 1e-4, and advantages of rounding errors. By hand: the
/// rewards 1, 2, 6 have mean 3 and variance 7; with 0.1, 0.1, 0.1 the mean of the rollout is 1.55.
#[test]
fn gotcha_36_every_baseline_and_scale_by_hand() {
    let answers = rewarded(&[(0.0, 1.0), (1.0, 0.1), (0.0, 2.0), (1.0, 0.1), (0.0, 6.0), (1.0, 0.1)]);
    let of = |baseline: &str, scale: &str| advantages(json!({"baseline": baseline, "scale": scale}), &answers);
    let seven = 7.0_f64.sqrt() + 1e-4;
    all_near("grpo", &of("group", "group"), &[-2.0 / seven, 0.0, -1.0 / seven, 0.0, 3.0 / seven, 0.0], 1e-14);
    assert_eq!(of("group", "group")[1], 0.0);
    all_near("dr. grpo", &of("group", "none"), &[-2.0, 0.0, -1.0, 0.0, 3.0, 0.0], 1e-14);
    all_near("rloo", &of("leave-one-out", "none"), &[-3.0, 0.0, -1.5, 0.0, 4.5, 0.0], 1e-14);
    let squares: f64 = [1.0, 0.1, 2.0, 0.1, 6.0, 0.1].iter().map(|r: &f64| (r - 1.55).powi(2)).sum();
    let batch = (squares / 5.0).sqrt() + 1e-4;
    let plus = [-0.55, -1.45, 0.45, -1.45, 4.45, -1.45].map(|x| x / batch);
    all_near("reinforce++", &of("batch", "batch"), &plus, 1e-13);
    all_near("none", &of("none", "none"), &[1.0, 0.1, 2.0, 0.1, 6.0, 0.1], 1e-14);
}

/// Catches groups of equal rewards that are kept, a number of answers instead of prompts, and a comparison after the
/// penalty is left out.
#[test]
fn gotcha_36_dynamic_sampling_drops_groups_without_a_signal_and_asks_for_as_many() {
    let mut answers = rewarded(&[(3.0, 1.0), (5.0, 0.1), (3.0, 0.0), (5.0, 0.1), (5.0, 0.1), (4.0, 0.7)]);
    let of = |answers: &[Answer], given: Value| {
        let prepared = create(given).unwrap().prepare(&rollout(answers)).unwrap();
        (prepared.get("keep").unwrap().to_vec(), prepared.get("request").unwrap().to_vec())
    };
    assert_eq!(of(&answers, json!({"dynamic": true})), (vec![1.0, 0.0, 1.0, 0.0, 0.0, 0.0], vec![2.0]));
    // A long answer to the second prompt loses reward, so that its group has a signal.
    answers[4] = Answer::new(5.0, &[-1.0; 4]).reward(0.1);
    let given = json!({"dynamic": true, "overlong_buffer": 2, "max_length": 4});
    assert_eq!(of(&answers, given), (vec![1.0, 1.0, 1.0, 1.0, 1.0, 0.0], vec![1.0]));
}

/// Catches a clip that ignores the sign of the advantage, and a two-sided clip on the wrong side.
#[test]
fn clips_hold_only_on_the_side_that_would_gain() {
    let moved = [0.5_f64, -0.5, 0.5, -0.5].map(f64::exp);
    let advantage = [1.0, 1.0, -1.0, -1.0];
    let answers: Vec<Answer> = moved.iter().map(|ratio| Answer::new(0.0, &[ratio.ln() - 2.0])).collect();
    let batch = with_prepared(&advantage, &[-2.0; 4], rollout(&answers));
    let gradient = |given: Value| cotangent(&create(given).unwrap().loss(&batch).unwrap(), "policy").to_vec();
    let [up, down] = [moved[0], moved[1]];
    all_near("clip", &gradient(json!({})), &[0.0, -down, up, 0.0], 1e-14);
    all_near("clip-higher", &gradient(json!({"clip_high": 0.7})), &[-up, -down, up, 0.0], 1e-14);
    all_near("two-sided", &gradient(json!({"delta": 1.5})), &[0.0, -down, 0.0, 0.0], 1e-14);
    // CISPO never loses the gradient of a token.
    all_near("cispo", &gradient(json!({"loss": "cispo"})), &[-1.2, -down, 1.2, down], 1e-14);
    all_near("reinforce", &gradient(json!({"loss": "reinforce"})), &[-1.0, -1.0, 1.0, 1.0], 1e-14);
}

/// Catches a weight of the sampler by the policy, a cap on the wrong side, weights of tokens behind the mask, and a KL
/// that is weighted.
#[test]
fn importance_weights_are_capped_or_masked() {
    let answer = Answer::new(0.0, &[-1.0, -1.0, -1.0, -9.0]).mask(&[1.0, 1.0, 1.0, 0.0]).reward(1.0);
    let answer = answer.sampler(&[-1.0 - 0.5_f64.ln(), -1.0, -1.0 - 4.0_f64.ln(), f64::NAN]);
    let answers = [answer, Answer::new(0.0, &[-1.0])];
    let gradient = |given: Value, term: &str| {
        let mut given = given;
        (given["normaliser"], given["scale"], given["kl_coef"]) = (json!("token"), json!("none"), json!(0.1));
        given["kl"] = json!("k1");
        let mut grpo = create(given).unwrap();
        let first = window(&mut grpo, &rollout(&answers));
        cotangent(&grpo.loss(&first).unwrap(), term).to_vec()
    };
    for (importance, last) in [("none", 1.0), ("truncate", 2.0), ("mask", 0.0)] {
        let given = json!({"importance": importance});
        let first = if importance == "none" { 1.0 } else { 0.5 };
        let expected = [-0.5 * first, -0.5, -0.5 * last, 0.0, 0.5];
        all_near(importance, &gradient(given.clone(), "policy"), &expected, 1e-14);
        all_near(importance, &gradient(given, "kl"), &[1.0, 1.0, 1.0, 0.0, 1.0], 1e-14);
    }
}

/// A placeholder for the log-probability of padding must enter no mean.
#[test]
fn gotcha_32_placeholders_reach_no_metric() {
    let whole = |placeholder: f64| {
        let mut answers = some_answers();
        for t in [0, 4] {
            answers[0].logp[t] = placeholder;
            answers[0].reference[t] = 2.0 * placeholder;
            answers[0].sampler[t] = -placeholder;
        }
        let given = json!({"kl_coef": 0.1, "report_entropy": true, "importance": "mask", "level": "sequence"});
        let mut grpo = create(given).unwrap();
        let mut entropy = vec![0.5; 7];
        (entropy[0], entropy[4]) = (placeholder, placeholder);
        let first = window(&mut grpo, &rollout(&answers)).with_statistic("entropy", Scope::TOKEN, entropy);
        grpo.loss(&first).unwrap()
    };
    let clean = whole(-1.0);
    assert!(clean.metrics.iter().all(|m| m.value.is_finite() && m.weight > 0.0), "{clean:?}");
    for placeholder in [1.0, 1e300, f64::NAN, f64::NEG_INFINITY] {
        assert_eq!(whole(placeholder), clean, "{placeholder}");
    }
}

/// Catches an exponential of a number that can be thousands: in the ratio, in k3 and in the importance weight.
#[test]
fn gotcha_33_log_ratios_of_thousands_stay_finite() {
    for level in ["token", "sequence"] {
        let given = json!({"kl_coef": 0.1, "importance": "truncate", "importance_cap": 1e9, "level": level});
        let mut grpo = create(given).unwrap();
        let far = Answer::new(0.0, &[-1.0, -5000.0]).reference(&[-5000.0, -1.0]).sampler(&[-9000.0, -1.0]).reward(1.0);
        let first = window(&mut grpo, &rollout(&[far, Answer::new(0.0, &[-1.0])]));
        let loss = grpo.loss(&first.with_statistic("logp", Scope::TOKEN, vec![-9000.0, -0.01, -1.0])).unwrap();
        assert!(loss.terms.iter().all(|t| t.sum.is_finite()), "{loss:?}");
        assert!(loss.terms.iter().flat_map(|t| &t.cotangents).flat_map(|c| &c.1).all(|c| c.is_finite()), "{loss:?}");
        assert!(loss.metrics.iter().all(|m| m.value.is_finite()), "{loss:?}");
    }
}

/// Catches `if reward`: a reward of 0 counts in the mean.
#[test]
fn gotcha_33_a_reward_of_exactly_0_is_a_reward() {
    let answers = rewarded(&[(0.0, 0.0), (0.0, 3.0)]);
    assert_eq!(advantages(json!({"scale": "none"}), &answers), [-1.5, 1.5]);
    let mut grpo = create(json!({})).unwrap();
    let first = window(&mut grpo, &rollout(&answers));
    assert_eq!(metric(&grpo.loss(&first).unwrap(), "rewards/mean"), 1.5);
}

/// While the policy equals the reference the KL is 0, by every estimator.
#[test]
fn gotcha_34_kl_is_0_if_the_policy_equals_the_reference() {
    let answers = rewarded(&[(0.0, 0.0), (0.0, 1.0)]);
    for kl in ESTIMATORS.iter().map(|e| e.name) {
        let mut grpo = create(json!({"kl_coef": 0.1, "kl": kl})).unwrap();
        let first = window(&mut grpo, &rollout(&answers));
        let loss = grpo.loss(&first).unwrap();
        assert_eq!((loss.terms[1].sum, metric(&loss, "kl/reference")), (0.0, 0.0), "{kl}");
    }
}

/// A run that collapses early is reported by array and token, not as NaN in every advantage of the group.
#[test]
fn a_nan_is_refused_by_name_and_place() {
    let of =
        |answers: &[Answer]| create(json!({"importance": "mask"})).unwrap().prepare(&rollout(answers)).unwrap_err();
    let fine = Answer::new(0.0, &[-1.0, -2.0]);
    for (broken, part) in [
        (fine.clone().reward(f64::NAN), "`reward`[1] of the rollout is NaN"),
        (fine.clone().sampler(&[0.0, f64::INFINITY]), "`sampler.logp`[3] of the rollout is inf"),
        (Answer { logp: vec![f64::NAN, 0.0], ..fine.clone() }, "`logp`[2] of the rollout is NaN"),
    ] {
        let error = of(&[fine.clone(), broken]);
        assert_eq!(error.code, Code::ARRAY);
        assert!(error.message.contains(part), "{error}");
    }
    let short = rollout(std::slice::from_ref(&fine)).with("reward", Scope::SEQUENCE, vec![1.0, 2.0]);
    let error = create(json!({})).unwrap().prepare(&short).unwrap_err();
    assert!(error.message.contains("`reward` holds 2 values, expected 1"), "{error}");
    let unprepared = create(json!({})).unwrap().loss(&rollout(&[fine])).unwrap_err();
    assert!(unprepared.code == Code::ARRAY && unprepared.message.contains("advantage"), "{unprepared}");
}

/// Catches an estimate whose gradient turns round far below the reference, so that a step moves the policy further away.
#[test]
fn gotcha_33_far_below_the_reference_no_estimate_pushes_the_policy_away() {
    for logp in [-1.0, -5.0, -20.0, -22.0, -60.0] {
        let answers = [Answer::new(0.0, &[logp]).reference(&[-1.0]), Answer::new(0.0, &[logp]).reference(&[-1.0])];
        let mut grpo = create(json!({"kl_coef": 0.1, "kl": "k3"})).unwrap();
        let first = window(&mut grpo, &rollout(&answers));
        let loss = grpo.loss(&first).unwrap();
        assert!(cotangent(&loss, "kl").iter().all(|slope| *slope <= 0.0), "{logp}: {:?}", cotangent(&loss, "kl"));
    }
}

/// Catches a prompt that lost all of its answers and is not replaced.
#[test]
fn a_prompt_without_an_answer_is_replaced() {
    let answers = [
        Answer::new(0.0, &[-1.0]).reward(1.0).cut(),
        Answer::new(0.0, &[-1.0]).reward(0.0).cut(),
        Answer::new(5.0, &[-1.0]).reward(1.0).cut(),
        Answer::new(5.0, &[-1.0]).reward(0.0),
    ];
    let given = json!({"dynamic": true, "mask_truncated": true});
    let prepared = create(given).unwrap().prepare(&rollout(&answers)).unwrap();
    assert_eq!(prepared.get("keep").unwrap(), [0.0, 0.0, 0.0, 1.0]);
    assert_eq!(prepared.get("request").unwrap(), [1.0]);
}
