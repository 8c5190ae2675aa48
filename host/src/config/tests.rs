//! Hostile experiments and what is said about them; and that a resolved experiment resolves to itself.

use plugin_api::manifest::OptionSpec;
use serde_json::json;

use super::experiment::{Batch, Data, Experiment, Length, Model, ScheduleKind, Span};
use super::schema::{self, KEYS};
use super::{Draft, Override, Slot};
use crate::error::Kind;

/// The smallest experiment without a mistake; tests replace one line of it or append to it.
const GOOD: &str = r#"
model = { layers = 2, dim = 32, heads = 4, context = 64 }
data = { path = "corpus.txt" }
objective = { plugin = "ce" }

[train]
steps = 100
batch = { tokens = 512 }
optimizer = { lr = 1e-3 }
"#;

fn specs() -> Vec<OptionSpec> {
    let spec = |name: &str, kind: &str, default: serde_json::Value| OptionSpec {
        name: name.into(),
        kind: kind.into(),
        default,
        min: None,
        max: None,
        choices: Vec::new(),
        meaning: format!("the {name}"),
    };
    vec![
        OptionSpec {
            min: Some(0.0),
            max: Some(1.0),
            ..spec("label_smoothing", "float", json!(0))
        },
        OptionSpec {
            choices: vec!["sigmoid".into(), "hinge".into()],
            ..spec("loss_type", "string", json!("sigmoid"))
        },
        OptionSpec {
            min: Some(0.0),
            ..spec("weights", "float list", json!([1, 2.5]))
        },
        spec("margin", "bool", json!(false)),
        spec("count", "int", json!(3)),
    ]
}

fn draft(text: &str, sets: &[&str]) -> crate::error::Result<Draft> {
    let overrides: Vec<Override> = sets
        .iter()
        .map(|set| Override::parse(set).expect("a --set of this test"))
        .collect();
    let mut draft = Draft::parse("exp.toml", "exp", text, &overrides)?;
    let slots: Vec<Slot> = draft.plugins().iter().map(|plugin| plugin.slot).collect();
    for slot in slots {
        draft.check_options(slot, if slot == Slot::Backend { &[] } else { &[] });
    }
    Ok(draft)
}

fn load(text: &str, sets: &[&str]) -> Experiment {
    draft(text, sets)
        .and_then(Draft::finish)
        .expect("no mistake")
        .experiment
}

/// All mistakes of `text` with `sets`, one a line.
fn mistakes(text: &str, sets: &[&str]) -> String {
    let error = match draft(text, sets).and_then(Draft::finish) {
        Ok(_) => return "(accepted)".to_owned(),
        Err(error) => error,
    };
    assert_eq!(error.kind(), Kind::Request, "{error:?}");
    error.details().join("\n")
}

/// `text` must be refused with exactly `expected`, one mistake a line.
#[track_caller]
fn check(text: &str, expected: &str) {
    assert_eq!(mistakes(text, &[]), expected.trim(), "\n--- for\n{text}");
}

/// GOOD, plus `line`, must be refused with exactly `expected`.
#[track_caller]
fn check_added(line: &str, expected: &str) {
    check(&format!("{GOOD}{line}\n"), expected);
}

/// GOOD with `from` replaced by `to` must be refused with exactly `expected`.
#[track_caller]
fn check_changed(from: &str, to: &str, expected: &str) {
    assert!(GOOD.contains(from), "the test replaces nothing");
    check(&GOOD.replace(from, to), expected);
}

/// GOOD with one --set must be refused with exactly `expected`.
#[track_caller]
fn check_set(set: &str, expected: &str) {
    assert_eq!(
        mistakes(GOOD, &[set]),
        expected.trim(),
        "\n--- for --set {set}"
    );
}

#[test]
fn probe() {
    for (text, sets) in PROBES {
        println!(
            "=== {text} {sets:?}\n{}",
            mistakes(&format!("{GOOD}{text}"), sets)
        );
    }
}
const PROBES: &[(&str, &[&str])] = &[];
