//! Online DPO compared with the laws, with pairs chosen by hand, and the known mistakes.

use objective_online_dpo::{OnlineDpo, config::Config, loss::LOSSES, pairs::names};
use plugin_api::prelude::*;
use plugin_api_laws::objective::{Generator, verify};
use serde_json::{Value, json};

#[path = "../../../tests/plugins/support.rs"]
mod support;

use support::{metric, near, options};

fn create(json: Value) -> Result<OnlineDpo> {
    support::create(json)
}

/// A rollout of answers of two tokens each: group, reward and first token.
fn rollout(answers: &[(f64, f64, f64)]) -> Batch<'static> {
    let each = |of: fn(&(f64, f64, f64)) -> f64| answers.iter().map(of).collect::<Vec<_>>();
    let tokens = 2 * answers.len();
    Batch::new()
        .with("offsets", Scope::BATCH, (0..=answers.len()).map(|s| 2.0 * s as f64).collect::<Vec<_>>())
        .with("mask", Scope::TOKEN, vec![1.0; tokens])
        .with("group", Scope::SEQUENCE, each(|a| a.0))
        .with("reward", Scope::SEQUENCE, each(|a| a.1))
        .with("target", Scope::TOKEN, answers.iter().flat_map(|a| [a.2, 1.0]).collect::<Vec<_>>())
        .with("ended", Scope::SEQUENCE, vec![1.0; answers.len()])
        .with("reference.logp", Scope::TOKEN, vec![-1.0; tokens])
        .with_statistic("logp", Scope::TOKEN, vec![-1.0; tokens])
}

fn prepared(answers: &[(f64, f64, f64)]) -> Batch<'static> {
    create(json!({})).unwrap().prepare(&rollout(answers)).unwrap()
}

/// A pair, the worst answer first, with these log-probabilities of its tokens.
fn pair(logp: [f64; 4]) -> Batch<'static> {
    let batch = rollout(&[(1.0, 0.25, 1.0), (1.0, 2.0, 2.0)]);
    let prepared = create(json!({})).unwrap().prepare(&batch).unwrap();
    let batch = prepared.arrays().iter().cloned().fold(batch, Batch::with_array);
    batch.with_statistic("logp", Scope::TOKEN, logp.to_vec())
}

/// They catch among others: pairs that depend on the order of the answers (`prepare`), a mean over pairs
/// (`additivity`), a gradient into the reference (`declared`), a sequence without a partner (`empty`).
#[test]
fn the_laws_hold_under_every_option() {
    let cases = [json!({}), json!({"beta": 0.7}), json!({"loss": "ipo", "beta": 0.3})].map(options).to_vec();
    verify::<OnlineDpo>(&cases, &Generator::new(81)).assert_ok();
    verify::<OnlineDpo>(&cases, &Generator::new(82).with_sizes(9, 15)).assert_ok();
}

/// Catches a row that is in the table but cannot be selected, and a `beta` that divides by 0.
#[test]
fn options_are_checked() {
    let specs = Config::specs();
    assert_eq!(specs[0].choices, LOSSES.iter().map(|row| row.name).collect::<Vec<_>>());
    let error = create(json!({"beta": 0.0})).err().unwrap();
    assert!(error.code == Code::OPTION && error.message.contains("`beta`: 0 is not above 0"), "{error}");
    let requirements = create(json!({})).unwrap().requirements().unwrap();
    assert_eq!((requirements.samples, requirements.whole_groups), (2, true));
}

/// Catches exchanged sides, prompts whose answers are equal, a single answer, and a third answer that is kept.
#[test]
fn the_best_and_the_worst_answer_of_each_prompt_are_kept() {
    let answers =
        [(1.0, 0.5, 1.0), (2.0, 0.1, 2.0), (1.0, 2.0, 3.0), (2.0, 0.1, 4.0), (1.0, 0.25, 5.0), (3.0, 7.0, 6.0)];
    let found = prepared(&answers);
    assert_eq!(found.get("keep").unwrap(), [0.0, 0.0, 1.0, 0.0, 1.0, 0.0]);
    assert_eq!(found.get(names::RANK).unwrap(), [0.0, 0.0, 1.0, 0.0, -1.0, 0.0]);
    assert_eq!(found.get(names::PAIRS).unwrap()[0], 1.0 / 3.0);
    near("reward", found.get(names::REWARD).unwrap()[0], (0.5 + 0.2 + 2.0 + 0.25 + 7.0) / 6.0, 1e-14);
}

/// Catches two best answers where their rewards are equal, which leave no partner.
#[test]
fn gotcha_36_equal_best_answers_give_one_pair_in_any_order() {
    let answers = [(1.0, 2.0, 11.0), (1.0, 2.0, 12.0), (1.0, 0.0, 13.0), (1.0, 0.0, 14.0), (1.0, 2.0, 11.0)];
    assert_eq!(prepared(&answers).get("keep").unwrap().iter().sum::<f64>(), 2.0);
    let reversed: Vec<_> = answers[..4].iter().rev().copied().collect();
    for name in ["keep", names::RANK] {
        let mut forwards = prepared(&answers[..4]).get(name).unwrap().to_vec();
        forwards.reverse();
        assert_eq!(prepared(&reversed).get(name).unwrap(), forwards, "{name}");
    }
}

/// Catches log-ratios with another sign, a lost factor, a strict comparison that counts ties. Before the first step the
/// policy equals the reference.
#[test]
fn gotcha_16_equal_models_give_ln_2_and_a_tie() {
    for (given, sum) in [(json!({}), std::f64::consts::LN_2), (json!({"loss": "ipo", "beta": 0.5}), 1.0)] {
        let loss = create(given).unwrap().loss(&pair([-1.0; 4])).unwrap();
        near("loss", loss.terms[0].sum, sum, 1e-14);
        assert_eq!(
            (metric(&loss, "rewards/margin"), metric(&loss, "rewards/accuracy"), metric(&loss, "kl")),
            (0.0, 0.0, 0.0)
        );
    }
}

/// Catches a sum where `ipo` averages, and the reverse. By hand: the log-ratios are -0.5 and 0.25 of the worst, 1 and
/// 0.5 of the best answer, so that the margin is 1.75, of means 0.875.
#[test]
fn gotcha_18_sums_and_means_by_hand() {
    let batch = pair([-1.5, -0.75, 0.0, -0.5]);
    let of = |given: Value| {
        let loss = create(given).unwrap().loss(&batch).unwrap();
        (loss.terms[0].sum, loss.terms[0].cotangents[0].1.clone(), loss)
    };
    let (sum, gradient, loss) = of(json!({"beta": 2.0}));
    near("sigmoid", sum, (1.0 + (-3.5_f64).exp()).ln(), 1e-14);
    let slope = 2.0 / (1.0 + 3.5_f64.exp());
    for (found, expected) in gradient.iter().zip([slope, slope, -slope, -slope]) {
        near("gradient", *found, expected, 1e-13);
    }
    for (name, expected) in [
        ("rewards/chosen", 3.0),
        ("rewards/rejected", -0.5),
        ("rewards/margin", 3.5),
        ("rewards/accuracy", 1.0),
        ("logps/chosen", -0.5),
        ("logps/rejected", -2.25),
        ("scores/best", 2.0),
        ("scores/worst", 0.25),
        ("scores/mean", 1.125),
        ("pairs", 1.0),
        ("length", 2.0),
        ("ended", 1.0),
    ] {
        near(name, metric(&loss, name), expected, 1e-13);
    }
    let (sum, gradient, _) = of(json!({"loss": "ipo", "beta": 2.0}));
    near("ipo", sum, (0.875_f64 - 0.25).powi(2), 1e-14);
    near("gradient of ipo", gradient[2], 0.625, 1e-13);
}

/// Catches a loss of answers that were not kept: the host tries a batch with all of them before step 1. And a pair that
/// was cut apart is an error rather than half a loss.
#[test]
fn answers_that_are_not_kept_add_nothing() {
    let answers = [(1.0, 0.25, 1.0), (1.0, 1.0, 3.0), (1.0, 2.0, 2.0), (2.0, 0.5, 4.0), (2.0, 0.5, 5.0)];
    let mut objective = create(json!({})).unwrap();
    let batch = rollout(&answers);
    let made = objective.prepare(&batch).unwrap();
    let whole = made.arrays().iter().cloned().fold(batch, Batch::with_array);
    let loss = objective.loss(&whole).unwrap();
    near("sum", loss.terms[0].sum, std::f64::consts::LN_2, 1e-14);
    assert_eq!(loss.terms[0].cotangents[0].1, [0.05, 0.05, 0.0, 0.0, -0.05, -0.05, 0.0, 0.0, 0.0, 0.0]);
    let cut = whole.with(names::RANK, Scope::SEQUENCE, vec![0.0, 0.0, 1.0, 0.0, 0.0]);
    assert!(objective.loss(&cut).unwrap_err().message.contains("not in one micro-batch"));
}

/// The KL is that of all answers as they were drawn, tokens behind the mask left out.
#[test]
fn gotcha_32_the_kl_is_of_the_drawn_answers() {
    let batch = rollout(&[(1.0, 0.0, 1.0), (1.0, 1.0, 2.0)])
        .with("mask", Scope::TOKEN, vec![1.0, 1.0, 1.0, 0.0])
        .with_statistic("logp", Scope::TOKEN, vec![-0.5, -0.75, -2.0, f64::NAN]);
    let found = create(json!({})).unwrap().prepare(&batch).unwrap();
    near("kl", found.get(names::KL).unwrap()[0], (0.75 - 1.0) / 2.0, 1e-14);
}

/// A reward that is not a number is refused by place, and ranks nothing.
#[test]
fn a_nan_is_refused_by_name_and_place() {
    let batch = rollout(&[(1.0, 0.0, 1.0), (1.0, f64::NAN, 2.0)]);
    let error = create(json!({})).unwrap().prepare(&batch).unwrap_err();
    assert!(error.code == Code::ARRAY && error.message.contains("`reward`[1] of the rollout is NaN"), "{error}");
}
