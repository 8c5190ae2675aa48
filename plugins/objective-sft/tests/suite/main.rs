//! Instruction tuning compared with the laws, derivatives by hand, and the numbers of other projects.

mod derivatives;
mod laws;
#[path = "../../../objective-ce/tests/suite/oracle.rs"]
mod oracle;
#[path = "../../../../tests/plugins/support.rs"]
mod support;

use objective_sft::SupervisedFineTuning as Plugin;
use serde_json::{Value, json};

/// All option sets that change what is computed.
fn all_options() -> [Value; 3] {
    [json!({}), json!({"label_smoothing": 0.1}), json!({"label_smoothing": 0.75})]
}
