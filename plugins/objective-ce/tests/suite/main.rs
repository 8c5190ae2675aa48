//! Cross-entropy compared with the laws, derivatives by hand, and the numbers of other projects.

mod derivatives;
mod laws;
mod oracle;
#[path = "../../../../tests/plugins/support.rs"]
mod support;

use objective_ce::CrossEntropy as Plugin;
use serde_json::{Value, json};

/// All option sets that change what is computed.
fn all_options() -> [Value; 4] {
    [
        json!({}),
        json!({"label_smoothing": 0.1}),
        json!({"z_loss": 1e-4}),
        json!({"label_smoothing": 0.25, "z_loss": 0.5}),
    ]
}
