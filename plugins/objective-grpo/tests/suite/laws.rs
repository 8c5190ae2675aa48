//! The laws of every objective, under every option that changes what is computed; and computations over the whole
//! rollout.

use super::{Answer, create, metric, near, options, rollout, window};
use objective_grpo::{Grpo, rollout::names};
use plugin_api::{options::OptionMap, prelude::*};
use plugin_api_laws::objective::{Generator, verify};
use serde_json::json;

fn cases() -> Vec<OptionMap> {
    [
        json!({}),
        json!({"kl_coef": 0.1, "report_entropy": true}),
        json!({"kl_coef": 0.1, "kl": "k1", "kl_weighted": true, "normaliser": "token"}),
        json!({"kl_coef": 0.1, "kl": "k2", "scale": "none", "normaliser": "constant", "max_length": 12}),
        json!({"kl_coef": 0.1, "kl_weighted": true, "level": "sequence", "clip_low": 0.01, "clip_high": 0.02}),
        json!({"baseline": "leave-one-out", "scale": "none", "loss": "reinforce"}),
        json!({"baseline": "batch", "scale": "batch", "delta": 1.3, "target_kl": 0.5}),
        json!({"baseline": "none", "scale": "none", "level": "sequence", "normaliser": "token"}),
        json!({"loss": "cispo", "normaliser": "token", "clip_high": 0.05}),
        json!({"loss": "cispo", "level": "sequence", "clip_high": 0.05}),
        json!({"loss": "sapo", "tau_positive": 2.0}),
        json!({"token_rewards": ["steps"], "baseline": "none", "scale": "none"}),
        json!({"overlong_buffer": 3, "max_length": 6, "mask_truncated": true}),
        json!({"importance": "truncate", "importance_cap": 1.1}),
        json!({"importance": "mask", "importance_cap": 1.1, "level": "sequence"}),
        json!({
            "aggregation": "normalize-then-sum", "rewards": ["exact", "length"], "reward_weights": [1.0, 0.5]
        }),
    ]
    .map(options)
    .to_vec()
}

/// The rewards by name, which the host adds to the reward itself.
fn generator(seed: u64) -> Generator {
    let rewards = ["reward.exact", "reward.length"];
    let all = Generator::new(seed).with_array("reward.steps.token", Scope::TOKEN, -1.0..=1.0);
    rewards.iter().fold(all, |all, name| all.with_array(name, Scope::SEQUENCE, -1.0..=1.0))
}

/// They catch among others: statistics over a micro-batch instead of the rollout (`additivity`), a mean over tokens
/// that counts masked ones (`masked`), an advantage by the place of an answer (`prepare`), a ratio that is held
/// constant by mistake, or not where it must be (`cotangents`, `stop-gradients`), 0 / 0 in a group of one or an answer
/// without tokens (`empty`).
#[test]
fn the_laws_hold_under_every_option() {
    verify::<Grpo>(&cases(), &generator(61)).assert_ok();
    verify::<Grpo>(&cases(), &generator(62).with_sizes(9, 15)).assert_ok();
}

/// Catches a group without a signal that is kept, and a request that depends on the order of the answers.
#[test]
fn the_laws_hold_with_dynamic_sampling() {
    let cases = [json!({"dynamic": true}), json!({"dynamic": true, "mask_truncated": true, "normaliser": "token"})];
    let cases = [cases.map(options).to_vec(), cases_with_every_metric()].concat();
    verify::<Grpo>(&cases, &generator(63)).assert_ok();
}

/// Options under which every term and metric is returned.
fn cases_with_every_metric() -> Vec<OptionMap> {
    [json!({"kl_coef": 0.1, "report_entropy": true, "importance": "mask"})].map(options).to_vec()
}

/// Catches arrays that cannot be split into minibatches: of another length than the rollout's.
#[test]
fn prepared_arrays_are_per_token_or_per_answer() {
    let answers = [Answer::new(0.0, &[-1.0, -2.0, -0.5]).reward(1.0), Answer::new(0.0, &[-1.5]).cut()];
    for mut case in cases() {
        case.remove("aggregation");
        case.remove("rewards");
        case.remove("reward_weights");
        let rollout = rollout(&answers).with("reward.steps.token", Scope::TOKEN, vec![0.5; 4]);
        let prepared = create(case.into()).unwrap().prepare(&rollout).unwrap();
        for array in prepared.arrays() {
            let rows = if array.scope == Scope::TOKEN { 4 } else { 2 };
            assert!([Scope::TOKEN, Scope::SEQUENCE].contains(&array.scope), "{}", array.name);
            assert_eq!(array.data.len(), rows, "{}", array.name);
        }
    }
}

/// By hand. Catches a step that is normalised over answers or over the rollout instead of over the group's steps, tokens after a step
/// that get its reward, and answers that get another one's.
#[test]
fn rewards_of_segments_reach_the_tokens_before_their_ends() {
    let answers = [
        Answer::new(0.0, &[-1.0, -2.0, -0.5]).reward(1.0),
        Answer::new(0.0, &[-1.5]).reward(1.0),
        Answer::new(7.0, &[-1.5, -1.0]),
    ];
    let steps = rollout(&answers).with("reward.steps.token", Scope::TOKEN, vec![0.0, 3.0, 1.0, 2.0, 5.0, 0.0]);
    let prepared = create(json!({"token_rewards": ["steps"]})).unwrap().prepare(&steps).unwrap();
    // The first group's steps have the rewards 3, 1 and 2: mean 2, deviation 1.
    let one = 1.0 / (1.0 + 1e-4);
    let found = prepared.get(names::ADVANTAGE).unwrap();
    super::all_near("advantage", found, &[0.0, 0.0, -one, 0.0, 0.0, 0.0], 1e-12);
    let refused = create(json!({"token_rewards": ["steps"], "dynamic": true})).err().unwrap();
    assert!(refused.message.contains("`dynamic`"), "{refused}");
}

/// Sums and means: per answer or per token, each with its own weight.
#[test]
fn every_metric_of_a_small_window() {
    let answers = [
        // The last position was not sampled: the host packs it.
        Answer::new(4.0, &[-1.0, -2.0, -0.5, -9.0])
            .mask(&[1.0, 1.0, 1.0, 0.0])
            .reference(&[-1.5, -2.0, -0.75, -4.0])
            .sampler(&[-1.0, -2.5, -0.5, 7.0])
            .reward(2.0),
        Answer::new(4.0, &[-3.0]).reference(&[-2.5]).sampler(&[-4.0]).reward(1.0).cut(),
        Answer::new(2.0, &[-1.0]).reward(0.5),
        Answer::new(2.0, &[-1.0]).reward(0.5),
    ];
    let given = json!({"kl_coef": 0.5, "kl": "k1", "report_entropy": true, "importance": "truncate", "clip_low": 0.1});
    let mut grpo = create(given).unwrap();
    let first = window(&mut grpo, &rollout(&answers));
    let logp = vec![-0.5, -2.0, -0.6, -7.0, -3.3, -1.0, -1.0];
    let loss = grpo.loss(&first.clone().with_statistic("logp", Scope::TOKEN, logp)).unwrap();
    let ratios = [0.5_f64, 0.0, -0.1, -0.3, 0.0, 0.0];
    let mean = |of: fn(f64) -> f64| ratios.iter().map(|x| of(*x)).sum::<f64>() / 6.0;
    for (name, expected) in [
        ("rewards/mean", 1.0),
        ("rewards/std", 0.5_f64.sqrt() / 2.0),
        ("rewards/equal", 0.5),
        // The second answer has the negative advantage, and a ratio of exp(-0.3).
        ("clip/low", 1.0 / 6.0),
        ("clip/high", 1.0 / 6.0),
        ("ratio/mean", mean(f64::exp)),
        ("ratio/max", 0.5_f64.exp()),
        ("approx_kl", mean(|x| 0.5 * x * x)),
        ("kl/reference", (1.0 + 0.15 - 0.8) / 6.0),
        ("entropy", 0.5),
        ("length", 1.5),
        ("truncated", 0.25),
        ("importance/mean", (1.0 + 0.5_f64.exp() + 1.0 + 2.0 + 1.0 + 1.0) / 6.0),
        ("importance/capped", 1.0 / 6.0),
    ] {
        near(name, metric(&loss, name), expected, 1e-12);
    }
    assert_eq!(loss.metrics.len(), 14);
    assert_eq!(first.get(names::OLD_LOGP).unwrap()[3], 0.0);
}
