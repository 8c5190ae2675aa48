//! Notes on a run that does not seem to learn, and on figures that an objective did not expect.

use serde_json::Value;

use super::odd::odd;
use crate::support::{
    experiments::{PPO, lab},
    lab::Lab,
};

/// Catches a run that learns nothing and ends without a note, or repeats the note in every step.
#[test]
fn a_run_that_learns_nothing_reports_it_once() {
    // The first batch has a gradient, or the quick laws would refuse the objective.
    let (lab, answer) = odd("no-gradient", &["objective.at_step=2"]);
    answer.succeeds();
    let alert = "alert: step 4: grad_norm is 0: the gradient is exactly 0, 3 times in a row";
    assert_eq!(answer.err.matches(alert).count(), 1, "{answer:#?}");
    assert!(answer.out.contains("active at the end: step 4: grad_norm is 0"), "{answer:#?}");
    assert!(answer.err.contains("objective \"odd\" declares metrics that it never returned: ghost"), "{answer:#?}");
    let notes: Vec<Value> =
        lab.tiny_run().lines("timing.jsonl").into_iter().filter(|line| line["kind"] == "note").collect();
    assert_eq!(notes.len(), 1, "{notes:?}");
    let listed = lab.ask(&["runs"]);
    assert!(listed.succeeds().contains("dead-gradients"), "{listed:#?}");
    let json: Value = serde_json::from_str(lab.ask(&["runs", "--json"]).succeeds()).expect("JSON");
    assert_eq!(json["runs"][0]["alerts"], serde_json::json!(["dead-gradients"]), "{json}");
    let json = lab.ask(&["run", "tiny.toml", "--name", "other", "--json", "--set", "objective.plugin=odd"]);
    json.succeeds();
    let summary = json.last_event();
    assert!(summary["notes"][0].as_str().is_some_and(|note| note.contains("ghost")), "{summary}");
    let (_, at_once) = odd("no-gradient", &[]);
    at_once.refuses(1, &["every cotangent of the first batch is 0"]);
}

/// Catches notes on shipped objectives in a run without problems.
#[test]
fn a_correct_run_has_no_notes() {
    let lab = Lab::tiny();
    let answer = lab.ask(&["run", "tiny.toml", "--json"]);
    answer.succeeds();
    let summary = answer.last_event();
    assert!(summary["notes"].is_null() && summary["alerts"].is_null(), "{answer:#?}");
    for objective in [PPO, crate::support::experiments::DPO, crate::support::experiments::REWARD] {
        let lab = crate::support::experiments::lab(
            &objective.replace("plugin = \"length\"", "plugin = \"length\"\nweight = 1.0"),
        );
        let samples: &[&str] = if objective == PPO { &["--set", "rollout.samples=2"] } else { &[] };
        let args = [&["run", "tiny.toml", "--json", "--set", "train.steps=6"][..], samples].concat();
        let answer = lab.ask(&args);
        answer.succeeds();
        let summary = answer.last_event();
        assert!(summary["notes"].is_null() && summary["alerts"].is_null(), "{answer:#?}");
    }
}

/// Catches rewards that are equal for all answers, and groups of one, without a note.
#[test]
fn equal_rewards_and_groups_of_one_are_reported() {
    let equal = PPO.replace(
        "plugin = \"length\"\nunit = \"characters\"\ntarget = 4",
        "plugin = \"odd-reward\"\nfault = \"equal\"",
    );
    let answer = lab(&equal).run(&["rollout.epochs=1"]);
    answer.succeeds();
    let alert = "answers/spread is 0: all rewards of the rollout are equal, 2 times in a row";
    assert_eq!(answer.err.matches(alert).count(), 1, "{answer:#?}");
    assert!(!answer.err.contains("rollout.samples = 1"), "PPO's critic needs no groups: {answer:#?}");
    let groups = lab(&PPO.replace(
        "plugin = \"ppo\"\nwhiten_advantages = true",
        "plugin = \"grpo\"\nbaseline = \"batch\"\nscale = \"batch\"",
    ));
    let one = groups.ask(&["run", "tiny.toml", "--unproved", "--set", "train.steps=2"]);
    assert_eq!(
        one.err.matches("note: rollout.samples = 1: each of the 8 prompts has one answer").count(),
        1,
        "{one:#?}"
    );
    let several = groups.ask(&["run", "tiny.toml", "--name", "several", "--set", "rollout.samples=4"]);
    several.succeeds();
    assert!(!several.err.contains("has one answer"), "{several:#?}");
}

/// Catches an expectation that only a run reports, and a unit that no manifest declares.
#[test]
fn missed_expectations_are_reported_by_run_and_check() {
    let lab = Lab::tiny();
    let set = ["--set", "objective.plugin=missed-expectation"];
    let run = lab.ask(&[&["run", "tiny.toml"][..], &set].concat());
    // Uniform logits would give the expected value, so that the laws find no contradiction; those of a fresh model are not
    // uniform.
    let expected = [
        "note: expectation missed: nll is 5.5",
        "\"missed-expectation\" expects about 5.5491",
        "(the logits are uniform)",
    ];
    assert!(expected.iter().all(|part| run.err.contains(part)), "{run:#?}");
    assert_eq!(run.err.matches("expectation missed").count(), 1, "{run:#?}");
    assert!(run.succeeds().contains("held-out loss") && !run.out.contains("nats"), "{run:#?}");
    let text = lab.ask(&[&["check", "tiny.toml"][..], &set].concat());
    assert!(text.succeeds().contains("expectation missed: nll is 5.5"), "{text:#?}");
    let json = lab.ask(&[&["check", "tiny.toml", "--json"][..], &set].concat());
    let found: Value = serde_json::from_str(json.succeeds()).expect("JSON");
    assert!(found["notes"][0].as_str().is_some_and(|note| note.starts_with("expectation missed: ")), "{found}");
    let sound = lab.ask(&["check", "tiny.toml", "--json"]);
    let found: Value = serde_json::from_str(sound.succeeds()).expect("JSON");
    assert_eq!(found["notes"], Value::Null);
}

/// Catches a unit of one of CE's terms behind the sum of both.
#[test]
fn a_loss_of_several_units_has_no_unit() {
    let lab = Lab::tiny();
    let plain = lab.run(&["train.steps=2"]);
    assert!(plain.succeeds().contains("nats per token"), "{plain:#?}");
    let answer =
        lab.ask(&["run", "tiny.toml", "--name", "z", "--set", "objective.z_loss=0.1", "--set", "train.steps=2"]);
    assert!(answer.succeeds().contains("held-out loss") && !answer.out.contains("nats"), "{answer:#?}");
}
