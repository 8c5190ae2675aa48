//! The sequences that `nll = "row"` makes.

use super::create;
use plugin_api::prelude::*;
use serde_json::json;

/// Two rows: prompts of two and one tokens; a hole in the first chosen answer.
fn rows() -> Batch<'static> {
    Batch::new()
        .with("offsets", Scope::BATCH, vec![0.0, 2.0, 5.0, 7.0, 8.0, 9.0, 10.0, 11.0, 13.0])
        .with("token", Scope::TOKEN, vec![1.0, 2.0, 3.0, 4.0, 5.0, 1.0, 2.0, 6.0, 7.0, 8.0, 7.0, 9.0, 9.0])
        .with("mask", Scope::TOKEN, vec![0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0])
        .with("part", Scope::SEQUENCE, vec![1.0, 3.0, 1.0, 4.0, 1.0, 3.0, 1.0, 4.0])
        .with("row", Scope::SEQUENCE, vec![5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0])
}

/// Catches prompts of rejected rows that are learned, a hole that is filled, and pairs that share a number because a
/// window holds a row twice.
#[test]
fn the_prompts_of_chosen_rows_are_supervised() {
    let composed = create(json!({"nll": "row"})).unwrap().compose(&rows(), 0).unwrap().unwrap();
    composed.check().unwrap();
    assert_eq!(composed.offsets().unwrap(), [0, 5, 8, 10, 13]);
    assert_eq!(composed.get("token").unwrap(), rows().get("token").unwrap());
    assert_eq!(composed.mask().unwrap(), [1.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0]);
    let answer = [0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0];
    assert_eq!(composed.get("answer").unwrap(), answer);
    assert_eq!(composed.get("group").unwrap(), [0.0, 0.0, 1.0, 1.0]);
    assert_eq!(composed.get("side").unwrap(), [1.0, 0.0, 1.0, 0.0]);
    assert_eq!(composed.get("row").unwrap(), [5.0; 4]);
    assert_eq!(create(json!({})).unwrap().compose(&rows(), 0).unwrap(), None);
}

/// Catches rows in another order of parts that are learned in silence.
#[test]
fn parts_in_another_order_are_refused() {
    let wrong = rows().with("part", Scope::SEQUENCE, vec![3.0, 1.0, 1.0, 4.0, 1.0, 3.0, 1.0, 4.0]);
    let error = create(json!({"nll": "row"})).unwrap().compose(&wrong, 0).unwrap_err();
    assert!(error.code == Code::ARRAY && error.message.contains("in sequence 0"), "{error}");
}
