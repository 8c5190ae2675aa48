//! Fill in the middle compared with the laws and its paper's forms.

mod compose;
mod laws;
#[path = "../../../../tests/plugins/support.rs"]
mod support;

use objective_fim::FillInTheMiddle;
use plugin_api::prelude::*;
use serde_json::{Value, json};

fn create(given: Value) -> Result<FillInTheMiddle> {
    support::create(given)
}

/// Options that change what is computed.
fn all_options() -> [Value; 4] {
    [json!({}), json!({"rate": 1.0, "spm_rate": 0.0}), json!({"rate": 1.0, "spm_rate": 1.0}), json!({"rate": 0.0})]
}
