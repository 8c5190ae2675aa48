//! Options: what each requests, and which contradictions are refused.

use super::{Answer, create, rollout, window};
use objective_grpo::{
    Grpo,
    advantages::{BASELINES, SCALES},
    config::Config,
    kl::ESTIMATORS,
    surrogates::SURROGATES,
};
use plugin_api::{manifest::TermNormaliser, options::OptionSet, prelude::*};
use serde_json::{Value, json};

/// Catches a row that is in a table but cannot be selected, and the reverse.
#[test]
fn the_choices_are_the_tables() {
    let specs = Config::specs();
    for (key, names) in [
        ("baseline", BASELINES.iter().map(|row| row.name).collect::<Vec<_>>()),
        ("scale", SCALES.iter().map(|row| row.name).collect()),
        ("loss", SURROGATES.iter().map(|row| row.name).collect()),
        ("kl", ESTIMATORS.iter().map(|row| row.name).collect()),
    ] {
        assert_eq!(specs.iter().find(|s| s.name == key).unwrap().choices, names, "{key}");
    }
}

/// A statistic costs a pass or a part of the head: unused ones are not requested.
#[test]
fn statistics_are_requested_only_if_they_are_read() {
    for (given, more) in [
        (json!({}), &["logp"][..]),
        (json!({"report_entropy": true}), &["logp", "entropy"]),
        (json!({"kl_coef": 0.1}), &["logp", "reference.logp"]),
        (json!({"importance": "mask"}), &["logp", "sampler.logp"]),
    ] {
        assert_eq!(create(given.clone()).unwrap().requirements().unwrap().statistics, more, "{given}");
    }
}

/// Catches a normaliser that is forgotten for one of the terms, or does not depend on the option.
#[test]
fn normalisers_follow_the_option() {
    let of = |given: Value| create(given).unwrap().requirements().unwrap().normalisers;
    let both = |normaliser: Normaliser, times: f64| {
        let one = |term: &str| TermNormaliser { term: term.into(), normaliser: normaliser.clone(), times };
        vec![one("policy"), one("kl")]
    };
    assert_eq!(of(json!({})), []);
    assert_eq!(of(json!({"normaliser": "token"})), both(Normaliser::SUPERVISED_TOKENS, 1.0));
    assert_eq!(of(json!({"normaliser": "constant", "max_length": 24})), both(Normaliser::SEQUENCES, 24.0));
}

/// Catches a length that differs from the rollout's without the host knowing it, and a limit of prompts that the host must accept
/// although none are requested.
#[test]
fn the_host_knows_the_longest_answer_and_whether_prompts_are_requested() {
    let of = |given: Value| {
        let requirements = create(given).unwrap().requirements().unwrap();
        (requirements.max_new_tokens, requirements.requests)
    };
    assert_eq!(of(json!({})), (None, false));
    assert_eq!(of(json!({"dynamic": true})), (None, true));
    let length = Some(GivenNumber::new(24, "max_length"));
    assert_eq!(of(json!({"normaliser": "constant", "max_length": 24})), (length.clone(), false));
    assert_eq!(of(json!({"overlong_buffer": 8, "max_length": 24})), (length, false));
}

/// Catches one answer per prompt where answers are compared, and groups that are kept whole for nothing.
#[test]
fn answers_that_are_compared_are_required() {
    for (given, samples) in [
        (json!({}), 2),
        (json!({"baseline": "leave-one-out", "scale": "none"}), 2),
        (json!({"baseline": "batch"}), 2),
        (json!({"baseline": "batch", "scale": "batch"}), 1),
        (json!({"baseline": "none", "scale": "none"}), 1),
    ] {
        let requirements = create(given.clone()).unwrap().requirements().unwrap();
        assert_eq!((requirements.samples, requirements.whole_groups), (samples, false), "{given}");
    }
}

#[test]
fn options_without_effect_are_refused_by_name() {
    for (given, key) in [
        (json!({"clip_low": 0.0}), "`clip_low`"),
        (json!({"clip_high": 0.0}), "`clip_high`"),
        (json!({"loss": "reinforce", "clip_high": 0.3}), "`clip_high`"),
        (json!({"loss": "cispo", "clip_low": 0.3}), "`clip_low`"),
        (json!({"loss": "reinforce", "level": "sequence"}), "`level`"),
        (json!({"delta": 1.1}), "`delta`"),
        (json!({"loss": "cispo", "delta": 5.0}), "`delta`"),
        (json!({"tau_positive": 2.0}), "`tau_positive`"),
        (json!({"tau_negative": 2.0}), "`tau_negative`"),
        (json!({"loss": "sapo", "tau_negative": 0.0}), "`tau_negative`"),
        (json!({"kl": "k1"}), "`kl`"),
        (json!({"kl_weighted": true}), "`kl_weighted`"),
        (json!({"kl_coef": 0.1, "kl": "k2", "kl_weighted": true}), "`kl_weighted`"),
        (json!({"normaliser": "constant"}), "`max_length`"),
        (json!({"overlong_buffer": 4}), "`max_length`"),
        (json!({"overlong_buffer": 4, "max_length": 3}), "`max_length`"),
        (json!({"max_length": 3}), "`max_length`"),
        (json!({"overlong_penalty": 0.5}), "`overlong_penalty`"),
        (json!({"importance_cap": 3.0}), "`importance_cap`"),
        (json!({"importance": "mask", "importance_cap": 0.0}), "`importance_cap`"),
        (json!({"dynamic": true, "baseline": "batch"}), "`dynamic`"),
        (json!({"rewards": ["exact"]}), "`rewards`"),
        (json!({"token_rewards": ["a", "a"]}), "option `token_rewards`: names `a` twice"),
        (json!({"aggregation": "normalize-then-sum", "rewards": ["a", "b", "a"]}), "option `rewards`: names `a` twice"),
        (json!({"reward_weights": [1.0]}), "`reward_weights`"),
        (json!({"aggregation": "normalize-then-sum"}), "`rewards`"),
        (
            json!({"aggregation": "normalize-then-sum", "rewards": ["a", "b"], "reward_weights": [1.0]}),
            "`reward_weights`",
        ),
        (json!({"aggregation": "normalize-then-sum", "rewards": ["a"], "scale": "none"}), "`scale`"),
        (json!({"aggregation": "normalize-then-sum", "rewards": ["a"], "baseline": "batch"}), "`baseline`"),
        (
            json!({"aggregation": "normalize-then-sum", "rewards": ["a"], "max_length": 9, "overlong_buffer": 4}),
            "`overlong_buffer`",
        ),
    ] {
        let error = create(given.clone()).err().unwrap_or_else(|| panic!("{given} is accepted"));
        assert_eq!(error.code, Code::OPTION);
        assert!(error.message.contains(key), "{given}: {error}");
    }
    let both = create(json!({"clip_high": 0.0, "kl": "k1"})).err().unwrap();
    assert!(both.message.contains("`clip_high`") && both.message.contains("`kl`"), "{both}");
}

/// Catches an option that is never read: each changes the results of a rollout or of a step.
#[test]
fn gotcha_21_every_option_changes_something() {
    let logp = [-1.0, -2.0, -0.5];
    let answers = [
        Answer::new(1.0, &logp).reference(&[-1.5, -2.5, -0.75]).sampler(&[-2.0, -2.1, -0.4]).reward(2.0),
        Answer::new(1.0, &[-3.0, -1.0]).reference(&[-2.5, -1.25]).reward(1.0).cut(),
        Answer::new(2.0, &[-1.0]).reward(0.5),
        Answer::new(2.0, &[-2.0]).reward(0.5),
        Answer::new(3.0, &[-1.0]).reward(-1.0),
        Answer::new(3.0, &[-1.0]).reward(0.0),
        Answer::new(3.0, &[-1.5]).reward(0.25),
    ];
    let sequences = |name: &str, values: [f64; 7]| (format!("reward.{name}"), values.to_vec());
    let outcome = |given: Value| {
        let mut grpo = create(given).unwrap();
        let named =
            [sequences("a", [1.0, 0.0, 0.5, 0.25, 0.0, 1.0, 1.0]), sequences("b", [0.0, 0.5, 0.5, 1.0, 2.0, 1.0, 0.0])];
        let steps = vec![0.0, 0.5, 1.0, 0.25, 1.0, 0.5, 0.5, 1.0, 0.5, 0.25];
        let answered = rollout(&answers).with("reward.steps.token", Scope::TOKEN, steps);
        let batch = named.into_iter().fold(answered, |batch, (n, v)| batch.with(n, Scope::SEQUENCE, v));
        let first = window(&mut grpo, &batch);
        let [keep, request] = ["keep", "request"].map(|name| first.find(name).map(|array| array.data.to_vec()));
        let moved =
            first.with_statistic("logp", Scope::TOKEN, vec![-0.5, -1.8, -0.6, -2.6, -1.1, -1.2, -1.9, 0.0, -0.9, -1.6]);
        let loss = grpo.loss(&moved).unwrap();
        let terms: Vec<_> = loss.terms.iter().map(|t| (t.coefficient, t.sum, &t.cotangents)).collect();
        let verdict = grpo.after_step(&[("approx_kl".into(), 0.2)]).unwrap();
        format!("{terms:?} {verdict:?} {keep:?} {request:?} {:?}", grpo.requirements().unwrap())
    };
    let decoupled = |more: Value| {
        let mut all = json!({"aggregation": "normalize-then-sum", "rewards": ["a", "b"]});
        more.as_object().unwrap().iter().for_each(|(key, value)| all[key] = value.clone());
        all
    };
    let overlong = |penalty: f64| json!({"overlong_buffer": 2, "max_length": 3, "overlong_penalty": penalty});
    let given = [
        json!({}),
        json!({"baseline": "leave-one-out"}),
        json!({"baseline": "batch"}),
        json!({"baseline": "none"}),
        json!({"scale": "batch"}),
        json!({"scale": "none"}),
        decoupled(json!({})),
        decoupled(json!({"rewards": ["a"]})),
        decoupled(json!({"reward_weights": [1.0, 0.5]})),
        json!({"loss": "cispo"}),
        json!({"loss": "cispo", "clip_high": 0.1}),
        json!({"loss": "sapo"}),
        json!({"loss": "sapo", "tau_positive": 2.0}),
        json!({"loss": "sapo", "tau_negative": 2.0}),
        json!({"loss": "reinforce"}),
        json!({"level": "sequence"}),
        json!({"clip_low": 0.05}),
        json!({"clip_high": 0.1}),
        json!({"delta": 1.25}),
        json!({"normaliser": "token"}),
        json!({"normaliser": "constant", "max_length": 8}),
        json!({"normaliser": "constant", "max_length": 9}),
        json!({"kl_coef": 0.1}),
        json!({"kl_coef": 0.1, "kl": "k1"}),
        json!({"kl_coef": 0.1, "kl": "k2"}),
        json!({"kl_coef": 0.1, "kl_weighted": true}),
        overlong(1.0),
        overlong(0.5),
        json!({"mask_truncated": true}),
        json!({"dynamic": true}),
        json!({"importance": "truncate"}),
        json!({"importance": "mask"}),
        json!({"importance": "mask", "importance_cap": 3.0}),
        json!({"report_entropy": true}),
        json!({"target_kl": 0.1}),
        json!({"token_rewards": ["steps"]}),
    ];
    let outcomes: Vec<_> = given.iter().map(|given| outcome(given.clone())).collect();
    for (i, one) in outcomes.iter().enumerate() {
        for (j, other) in outcomes[..i].iter().enumerate() {
            assert!(one != other, "{} and {}: {one}", given[i], given[j]);
        }
    }
    for spec in Config::specs() {
        assert!(given.iter().any(|g| g.get(&spec.name).is_some()), "`{}` is not tried", spec.name);
    }
}

/// Early stopping uses the step's own metric, and only if it is configured.
#[test]
fn a_rollout_stops_above_the_target_kl() {
    let verdict = |target: f64, kl: f64| {
        let mut grpo: Grpo = create(json!({"target_kl": target})).unwrap();
        grpo.after_step(&[("kl/reference".into(), 9.0), ("approx_kl".into(), kl)]).unwrap()
    };
    assert_eq!(verdict(0.1, 0.11), Verdict::END_ROLLOUT);
    assert_eq!(verdict(0.1, 0.09), Verdict::CONTINUE);
    assert_eq!(verdict(0.0, 5.0), Verdict::CONTINUE);
}
