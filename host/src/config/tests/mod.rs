//! Shared by the tests of experiments: the smallest valid one, a plugin's options, and snapshots.

mod fuzz;
mod pipeline;
mod refusals;
mod resolved;

use plugin_api::manifest::OptionSpec;
use serde_json::json;

use super::draft::{Draft, Slot};
use super::experiment::Experiment;
use super::overrides::Override;
use crate::error::{Kind, Result};

/// The smallest experiment without a mistake; tests change or extend it.
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
        OptionSpec { min: Some(0.0), max: Some(1.0), ..spec("label_smoothing", "float", json!(0)) },
        OptionSpec { choices: vec!["sigmoid".into(), "hinge".into()], ..spec("loss_type", "string", json!("sigmoid")) },
        OptionSpec { min: Some(0.0), ..spec("weights", "float list", json!([1, 2.5])) },
        spec("margin", "bool", json!(false)),
        spec("count", "int", json!(3)),
    ]
}

fn draft(text: &str, sets: &[&str]) -> Result<Draft> {
    let overrides: Vec<Override> = sets.iter().map(|set| Override::parse(set).unwrap()).collect();
    let mut draft = Draft::parse("exp.toml", "exp", text, &overrides)?;
    let slots: Vec<Slot> = draft.plugins().iter().map(|plugin| plugin.slot).collect();
    for slot in slots {
        let specs = if slot == Slot::Backend { Vec::new() } else { specs() };
        draft.check_options(slot, &specs);
    }
    Ok(draft)
}

#[track_caller]
fn load(text: &str, sets: &[&str]) -> Experiment {
    draft(text, sets).and_then(Draft::finish).unwrap().experiment
}

/// Compares `text` with the snapshot `name`, which `cargo xtask test --accept` replaces.
#[track_caller]
fn snapshot(name: &str, text: &str) {
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!(name, text);
    });
}
