//! The laws of every objective, under every option that changes what is computed; and computations over the whole rollout.

use super::{Answer, create, metric, options, rollout, window};
use objective_ppo::{Ppo, rollout::names};
use plugin_api::{options::OptionMap, prelude::*};
use plugin_api_laws::objective::{Generator, verify};
use serde_json::json;

fn cases() -> Vec<OptionMap> {
    [
        json!({}),
        json!({"entropy_coef": 0.02, "value_coef": 0.7}),
        json!({"report_entropy": false, "kl_penalty": "k2"}),
        json!({"kl_penalty": "k3", "truncated": "bootstrap", "gamma": 0.9}),
        json!({"kl_penalty": "abs", "missing_eos": "replace", "missing_eos_penalty": 1.5}),
        json!({"kl_control": "adaptive", "kl_target": 0.3, "kl_horizon": 50.0, "target_kl": 0.5}),
        json!({"whiten_rewards": true, "whiten_advantages": false, "gae_lambda": 0.0}),
        json!({"value_clip_range": 0.0, "clip_range": 0.05}),
        json!({"token_rewards": ["steps"], "gamma": 0.9}),
    ]
    .map(options)
    .to_vec()
}

/// What the host adds to the statistics of a rollout.
fn generator(seed: u64) -> Generator {
    let rewards = Generator::new(seed).with_array("reward", Scope::SEQUENCE, -1.0..=1.0);
    rewards.with_array("reward.steps.token", Scope::TOKEN, -1.0..=1.0).with_integers("ended", Scope::SEQUENCE, 0..=1)
}

/// They catch among others: whitening over masked tokens (`masked`), a mean or a ratio threshold over a micro-batch
/// (`additivity`), a value term without its 1/2 in the cotangent (`cotangents`), a controller that `loss` changes (`repeatable`)
/// or `restore` forgets (`state`), a coefficient that is read after it was changed (`state`).
#[test]
fn the_laws_hold_under_every_option() {
    verify::<Ppo>(&cases(), &generator(51)).assert_ok();
    verify::<Ppo>(&cases(), &generator(52).with_sizes(9, 15)).assert_ok();
}

/// Catches arrays that cannot be split into minibatches: of scope batch, or of another length than the rollout's.
#[test]
fn prepared_arrays_are_per_token_or_per_answer() {
    let answers = [Answer::new(&[-1.0, -2.0, -0.5]).reward(1.0), Answer::new(&[-1.5]).cut(0.3)];
    for case in cases() {
        let mut ppo = create(case.into()).unwrap();
        let rollout = rollout(&answers).with("reward.steps.token", Scope::TOKEN, vec![0.5; 4]);
        let prepared = ppo.prepare(&rollout).unwrap();
        for array in prepared.arrays() {
            let rows = if array.scope == Scope::TOKEN { 4 } else { 2 };
            assert!([Scope::TOKEN, Scope::SEQUENCE].contains(&array.scope), "{}", array.name);
            assert_eq!(array.data.len(), rows, "{}", array.name);
        }
    }
}

/// Catches whitening, explained variance or a coefficient per answer or per group: preparing the halves differs from preparing the
/// whole, while windows taken from the whole keep its numbers.
#[test]
fn advantages_are_whitened_over_the_whole_rollout() {
    let answers = [Answer::new(&[-1.0, -2.0]).reward(5.0), Answer::new(&[-1.5, -0.5]).reward(-1.0)];
    let whole = create(json!({})).unwrap().prepare(&rollout(&answers)).unwrap();
    let half = create(json!({})).unwrap().prepare(&rollout(&answers[..1])).unwrap();
    let (whole, half) = (whole.get(names::ADVANTAGE).unwrap(), half.get(names::ADVANTAGE).unwrap());
    assert!(whole[..2].iter().all(|a| *a > 0.5) && whole[2..].iter().all(|a| *a < -0.5), "{whole:?}");
    assert!(half[0] < 0.0 && half[1] > 0.0, "{half:?}");
}

/// Catches a token reward that is added to another token, to the last one, or behind the mask, and a name that is not found in
/// silence.
#[test]
fn token_rewards_are_rewards_of_their_own_tokens() {
    let answers = [Answer::new(&[-1.0, -2.0, -0.5]).reward(2.0), Answer::new(&[-1.5])];
    let given = json!({"token_rewards": ["a", "b"], "kl_coef": 0.0, "gae_lambda": 1.0, "whiten_advantages": false});
    let mut ppo = create(given).unwrap();
    let named =
        |batch: Batch<'static>, name: &'static str, values: [f64; 4]| batch.with(name, Scope::TOKEN, values.to_vec());
    let one = named(rollout(&answers), "reward.a.token", [0.25, 0.5, 0.0, 1.0]);
    let missing = ppo.prepare(&one).unwrap_err();
    assert!(missing.message.contains("`reward.b.token`") && missing.message.contains("reward.a.token"), "{missing}");
    let prepared = ppo.prepare(&named(one, "reward.b.token", [1.0, 0.0, 0.0, 0.0])).unwrap();
    // Undiscounted sums of what follows, the answer's reward included.
    assert_eq!(prepared.get(names::RETURN).unwrap(), [3.75, 2.5, 2.0, 1.0]);
    assert!(!ppo.requirements().unwrap().rewards && create(json!({})).unwrap().requirements().unwrap().rewards);
    assert!(!ppo.requirements().unwrap().whole_groups, "micro-batches of several answers to a prompt could not be cut");
}

/// Sums and means: per answer or per token, each with its own weight.
#[test]
fn every_metric_of_a_small_window() {
    let answers = [
        Answer::new(&[-1.0, -2.0, -0.5]).reference(&[-1.5, -2.0, -0.75]).value(&[1.0, 0.5, 0.0]).reward(2.0),
        Answer::new(&[-3.0]).reference(&[-2.5]).value(&[-1.0]).reward(1.0).cut(0.0),
    ];
    // The host packs one more position, whose token was not sampled.
    let beyond = |mut answer: Answer| {
        for (array, junk) in
            [(&mut answer.mask, 0.0), (&mut answer.logp, -9.0), (&mut answer.reference, -4.0), (&mut answer.value, 3.0)]
        {
            array.push(junk);
        }
        answer
    };
    let answers = answers.map(beyond);
    let mut ppo = create(json!({"kl_coef": 0.5, "missing_eos_penalty": 0.25, "gae_lambda": 1.0})).unwrap();
    let first = window(&mut ppo, &rollout(&answers));
    // Returns: 1.625, 1.875, 1.875 and 1; the critic predicted 1, 0.5, 0 and -1.
    let returns = [1.625, 1.875, 1.875, 1.0];
    assert_eq!(first.get(names::RETURN).unwrap(), [1.625, 1.875, 1.875, 0.0, 1.0, 0.0]);
    let variance = |x: [f64; 4]| x.iter().map(|x| x * x).sum::<f64>() / 4.0 - (x.iter().sum::<f64>() / 4.0).powi(2);
    let explained = 1.0 - variance([0.625, 1.375, 1.875, 2.0]) / variance(returns);
    let loss = ppo.loss(&first.with_statistic("logp", Scope::TOKEN, vec![-0.5, -2.0, -0.5, -7.0, -3.0, -8.0])).unwrap();
    for (name, expected) in [
        ("objective/kl", (0.75 - 0.5) / 2.0),
        ("objective/entropy", (3.5 + 3.0) / 2.0),
        ("objective/non_score_reward", -0.5 * (0.75 - 0.5) / 2.0),
        ("objective/scores", (2.0 + 0.75) / 2.0),
        ("objective/rlhf_reward", (2.75 - 0.125) / 2.0),
        ("policy/entropy_avg", 0.5),
        ("policy/approxkl_avg", 0.5 * 0.25 / 4.0),
        // The first advantage is below the mean, so that its greater ratio is not clipped.
        ("policy/clipfrac_avg", 0.0),
        ("val/clipfrac_avg", 0.0),
        ("val/ratio", (0.5_f64.exp() + 3.0) / 4.0),
        ("val/ratio_var", (0.5_f64.exp() - 1.0).powi(2) / 4.0),
        ("value/error", (0.625_f64.powi(2) + 1.375_f64.powi(2) + 1.875_f64.powi(2) + 4.0) / 4.0),
        ("value/explained_variance", explained),
        ("length/mean", 2.0),
        ("ended", 0.5),
        ("kl_coef", 0.5),
    ] {
        super::near(name, metric(&loss, name), expected, 1e-12);
    }
    assert_eq!(loss.metrics.len(), 16);
}
