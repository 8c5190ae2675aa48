//! Options: what each requests, and which contradictions are refused.

use super::{Answer, create, rollout, window};
use objective_ppo::{Ppo, config::Config, kl::ESTIMATORS};
use plugin_api::{options::OptionSet, prelude::*};
use serde_json::json;

/// Catches an estimator that is in the table but cannot be selected, and the reverse.
#[test]
fn the_choices_are_the_table() {
    let specs = Config::specs();
    let choices = &specs.iter().find(|s| s.name == "kl_penalty").unwrap().choices;
    assert_eq!(*choices, ESTIMATORS.iter().map(|e| e.name).collect::<Vec<_>>());
}

/// A statistic costs a pass or a part of the head: unused ones are not requested.
#[test]
fn statistics_are_requested_only_if_they_are_read() {
    let base = ["logp", "reference.logp", "critic.value"];
    for (given, more) in [
        (json!({}), &["entropy"][..]),
        (json!({"report_entropy": false}), &[]),
        (json!({"entropy_coef": 0.1}), &["entropy"]),
        (json!({"truncated": "bootstrap", "report_entropy": false}), &["critic.value_end"]),
    ] {
        let mut found = create(given.clone()).unwrap().requirements().unwrap().statistics;
        found.retain(|name| !base.contains(&name.as_str()));
        assert_eq!(found, more, "{given}");
    }
}

#[test]
fn options_without_effect_are_refused_by_name() {
    for (given, key) in [
        (json!({"clip_range": 0.0}), "`clip_range`"),
        (json!({"kl_target": 3.0}), "`kl_target`"),
        (json!({"kl_horizon": 3.0}), "`kl_horizon`"),
        (json!({"kl_control": "adaptive", "kl_coef": 0.0}), "`kl_coef`"),
        (json!({"kl_control": "adaptive", "kl_target": 0.0}), "`kl_target`"),
        (json!({"kl_control": "adaptive", "kl_horizon": 0.0}), "`kl_horizon`"),
        (json!({"entropy_coef": 0.1, "report_entropy": false}), "`report_entropy`"),
        (json!({"token_rewards": ["a", "a"]}), "`token_rewards`: names `a` twice"),
    ] {
        let error = create(given.clone()).err().unwrap_or_else(|| panic!("{given} is accepted"));
        assert_eq!(error.code, Code::OPTION);
        assert!(error.message.contains(key), "{given}: {error}");
    }
    let both = create(json!({"clip_range": 0.0, "kl_target": 3.0})).err().unwrap();
    assert!(both.message.contains("`clip_range`") && both.message.contains("`kl_target`"), "{both}");
}

/// Catches an option that is never read: each changes the results of a rollout or of a step.
#[test]
fn gotcha_21_every_option_changes_something() {
    let answers = [
        Answer::new(&[-1.0, -2.0, -0.5]).reference(&[-1.5, -2.5, -0.75]).value(&[1.0, 0.5, 0.0]).reward(2.0),
        Answer::new(&[-3.0, -1.0]).reference(&[-2.5, -1.25]).value(&[-1.0, 0.5]).reward(1.0).cut(0.5),
    ];
    // KL of 1.25 and -0.25 nats: within a fifth of the target 0.6, so that the controller's cap does not hide it.
    let outcome = |given: serde_json::Value| {
        let mut ppo = create(given).unwrap();
        let steps = vec![0.0, 0.5, 1.0, 0.25, 1.0];
        let first = window(&mut ppo, &rollout(&answers).with("reward.steps.token", Scope::TOKEN, steps));
        let moved = first.with_statistic("logp", Scope::TOKEN, vec![-0.5, -1.8, -1.0, -2.6, -1.1]).with_statistic(
            "critic.value",
            Scope::TOKEN,
            vec![1.5, 0.4, 1.0, -0.5, 0.4],
        );
        let terms: Vec<_> = ppo.loss(&moved).unwrap().terms.iter().map(|t| (t.coefficient, t.sum)).collect();
        let verdict = ppo.after_step(&[("policy/approxkl_avg".into(), 0.2)]).unwrap();
        format!("{terms:?} {verdict:?} {:?} {:?}", ppo.state().unwrap(), ppo.requirements().unwrap().statistics)
    };
    let adaptive = |key: &str, value: f64| json!({"kl_control": "adaptive", key: value});
    let given = [
        json!({}),
        json!({"kl_coef": 0.2}),
        json!({"kl_penalty": "k2"}),
        json!({"kl_penalty": "k3"}),
        json!({"kl_penalty": "abs"}),
        json!({"kl_control": "adaptive"}),
        adaptive("kl_target", 0.6),
        adaptive("kl_horizon", 100.0),
        json!({"missing_eos_penalty": 0.5}),
        json!({"missing_eos_penalty": 0.5, "missing_eos": "replace"}),
        json!({"truncated": "bootstrap"}),
        json!({"gamma": 0.9}),
        json!({"gae_lambda": 0.5}),
        json!({"whiten_advantages": false}),
        json!({"whiten_rewards": true}),
        json!({"clip_range": 0.3}),
        json!({"value_clip_range": 0.3}),
        json!({"value_coef": 0.3}),
        json!({"entropy_coef": 0.3}),
        json!({"report_entropy": false}),
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
        let mut ppo: Ppo = create(json!({"target_kl": target})).unwrap();
        ppo.after_step(&[("objective/kl".into(), 9.0), ("policy/approxkl_avg".into(), kl)]).unwrap()
    };
    assert_eq!(verdict(0.1, 0.11), Verdict::END_ROLLOUT);
    assert_eq!(verdict(0.1, 0.09), Verdict::CONTINUE);
    assert_eq!(verdict(0.0, 5.0), Verdict::CONTINUE);
}
