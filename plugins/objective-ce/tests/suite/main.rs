//! Cross-entropy compared with the laws, the tape, and the numbers of other projects.

mod laws;
mod oracle;
mod tape;

use objective_ce::{CrossEntropy, config::Config};
use plugin_api::{
    options::{OptionMap, OptionSet},
    prelude::*,
};
use serde_json::{Value, json};

/// All option sets that change what is computed.
fn all_options() -> Vec<OptionMap> {
    let cases = [json!({}), json!({"label_smoothing": 0.1}), json!({"z_loss": 1e-4})];
    let both = json!({"label_smoothing": 0.25, "z_loss": 0.5});
    cases.into_iter().chain([both]).map(options).collect()
}

fn options(json: Value) -> OptionMap {
    json.as_object().cloned().unwrap_or_default()
}

fn create(options: &OptionMap) -> Result<CrossEntropy> {
    CrossEntropy::create(Config::parse(options)?)
}
