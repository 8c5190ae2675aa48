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

/// Catches a sentinel that the host does not know: it then cannot refuse texts in which the id occurs, or a model without it.
#[test]
fn the_host_knows_the_sentinels_and_their_options() {
    let requirements = create(json!({"suffix_id": 300})).unwrap().requirements().unwrap();
    let of = |id, option| GivenNumber::new(id, option);
    assert_eq!(requirements.reserved_ids, [of(257, "prefix_id"), of(300, "suffix_id"), of(259, "middle_id")]);
    assert!(requirements.least_context.is_some());
    // Ids are 32-bit integers to a backend; a float beyond 2^53 is not even the number that was written.
    let refused = create(json!({"prefix_id": 9_007_199_254_740_993_i64})).err().unwrap();
    assert!(refused.message.contains("`prefix_id`"));
}
