//! Distillation compared with the laws, and the numbers of other projects.

mod laws;
mod oracle;
#[path = "../../../../tests/plugins/support.rs"]
mod support;

use objective_distill::{Distillation, OnPolicyDistillation};
use serde_json::{Value, json};

/// All option sets that change what is computed.
fn all_options() -> [Value; 7] {
    [
        json!({}),
        json!({"beta": 0.3, "temperature": 2.0}),
        json!({"beta": 1.0}),
        json!({"nll": 0.5}),
        json!({"top_k": 3}),
        json!({"top_k": 3, "beta": 1.0, "nll": 0.5}),
        json!({"top_k": 3, "beta": 0.7, "temperature": 0.5}),
    ]
}
