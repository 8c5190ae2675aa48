//! PPO as the shipped library: what only an objective with rollouts sends across the ABI.

use crate::support::rig::{Answer, library, plugins, telos};
use plugin_api::{
    batch::{Batch, Scope},
    objective::{Objective, Verdict},
};
use plugin_api_load::{Library, LoadedObjective, scan};
use serde_json::{Value, json};

fn load(options: Value) -> LoadedObjective {
    let path = library(&plugins(), "objective-ppo");
    let found = scan(&path).unwrap_or_else(|e| panic!("{e}")).into_iter().find(|p| p.id == "ppo");
    let library = Library::load(&found.expect("the library holds it")).unwrap_or_else(|e| panic!("{e}"));
    let options = options.as_object().cloned().unwrap_or_default();
    library.objective(&options).unwrap_or_else(|e| panic!("{e}"))
}

/// Two answers of one token each, at 1 and 3 nats from the reference; each has one more position after it, which is masked.
fn rollout() -> Batch<'static> {
    Batch::new()
        .with("offsets", Scope::BATCH, vec![0.0, 2.0, 4.0])
        .with("mask", Scope::TOKEN, vec![1.0, 0.0, 1.0, 0.0])
        .with("reference.logp", Scope::TOKEN, vec![-2.0, -1.0, -4.0, -1.0])
        .with("reward", Scope::SEQUENCE, vec![1.0, 0.0])
        .with("ended", Scope::SEQUENCE, vec![1.0, 0.0])
        .with("critic.value_end", Scope::SEQUENCE, vec![9.0, 0.5])
        .with_statistic("logp", Scope::TOKEN, vec![-1.0, f64::NAN, -1.0, f64::NAN])
        .with_statistic("entropy", Scope::TOKEN, vec![0.5; 4])
        .with_statistic("critic.value", Scope::TOKEN, vec![0.25, 7.0, 0.25, 7.0])
}

/// Catches a wire that loses the arrays from `prepare`, their scopes, or a verdict: the host would split the arrays wrongly, or
/// continue although the verdict is to stop.
#[test]
fn a_rollout_crosses_the_boundary_both_ways() {
    let mut ppo = load(json!({"kl_coef": 0.1, "whiten_advantages": false, "truncated": "bootstrap", "target_kl": 0.1}));
    let prepared = ppo.prepare(&rollout()).expect("prepared");
    let expected = [1.0 - 0.1 - 0.25, 0.0, -0.3 + 0.5 - 0.25, 0.0];
    for (found, expected) in prepared.get("advantage").expect("advantages").iter().zip(expected) {
        assert!((found - expected).abs() < 1e-15, "{prepared:?}");
    }
    for (name, scope) in [("return", Scope::TOKEN), ("old_logp", Scope::TOKEN), ("rollout.kl", Scope::SEQUENCE)] {
        assert_eq!(prepared.array(name).expect("an array").scope, scope, "{name}");
    }
    let window = prepared.arrays().iter().cloned().fold(rollout(), Batch::with_array);
    let loss = ppo.loss(&window).expect("a loss");
    assert_eq!(loss.terms.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["policy", "value"]);
    let verdict =
        |ppo: &mut LoadedObjective, kl| ppo.after_step(&[("policy/approxkl_avg".into(), kl)]).expect("a verdict");
    assert_eq!(verdict(&mut ppo, 0.05), Verdict::CONTINUE);
    assert_eq!(verdict(&mut ppo, 0.2), Verdict::END_ROLLOUT);
}

/// Gotcha 35 through the real library: the adaptive coefficient goes into the checkpoint and comes out of it.
#[test]
fn gotcha_35_the_adaptive_coefficient_survives_a_checkpoint() {
    let options = json!({"kl_control": "adaptive", "kl_target": 1.9, "kl_horizon": 4.0});
    let (mut ran, mut resumed) = (load(options.clone()), load(options.clone()));
    ran.prepare(&rollout()).expect("prepared");
    let state = ran.state().expect("state");
    assert_eq!(state.len(), 8);
    resumed.restore(&state).expect("restored");
    let next = ran.prepare(&rollout()).expect("prepared");
    assert_eq!(next, resumed.prepare(&rollout()).expect("prepared"));
    assert_ne!(next, load(options).prepare(&rollout()).expect("prepared"));
    assert!(load(json!({})).state().expect("state").is_empty());
}

/// `plugins show` prints the conventions on which other projects differ.
#[test]
fn plugins_show_prints_the_conventions() {
    let here = tempfile::tempdir().expect("a temporary folder");
    let show = Answer::of(telos(here.path()).args(["plugins", "show", "ppo"]));
    for part in ["kl_penalty", "missing_eos", "truncated", "value/explained_variance", "policy/approxkl_avg", "critic"]
    {
        assert!(show.succeeds().contains(part), "{part}: {show:#?}");
    }
}
