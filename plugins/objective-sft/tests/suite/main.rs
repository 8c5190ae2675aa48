//! Instruction tuning compared with the laws, the tape, and the numbers of other projects.

mod laws;
#[path = "../../../objective-ce/tests/suite/oracle.rs"]
mod oracle;
mod tape;

use objective_sft::{SupervisedFineTuning, config::Config};
use plugin_api::{
    options::{OptionMap, OptionSet},
    prelude::*,
};
use serde_json::{Value, json};

/// All option sets that change what is computed.
fn all_options() -> Vec<OptionMap> {
    [json!({}), json!({"label_smoothing": 0.1}), json!({"label_smoothing": 0.75})].map(options).into()
}

fn options(json: Value) -> OptionMap {
    json.as_object().cloned().unwrap_or_default()
}

fn create(options: &OptionMap) -> Result<SupervisedFineTuning> {
    SupervisedFineTuning::create(Config::parse(options)?)
}
