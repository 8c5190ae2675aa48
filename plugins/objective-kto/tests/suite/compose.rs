//! The sequences of a window.

use super::create;
use plugin_api::prelude::*;
use serde_json::json;

fn rows() -> Batch<'static> {
    Batch::new()
        .with("offsets", Scope::BATCH, vec![0.0, 2.0, 3.0, 4.0, 6.0])
        .with("longest", Scope::BATCH, vec![4.0])
        .with("token", Scope::TOKEN, vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
        .with("mask", Scope::TOKEN, vec![0.0, 0.0, 1.0, 0.0, 1.0, 1.0])
        .with("part", Scope::SEQUENCE, vec![1.0, 2.0, 1.0, 2.0])
        .with("row", Scope::SEQUENCE, vec![7.0, 7.0, 9.0, 9.0])
        .with("column.label", Scope::SEQUENCE, vec![1.0, 1.0, 0.0, 0.0])
}

/// Catches a rotation that pairs a prompt with its own answer, loses an answer's end, or moves a label to the other
/// row; and mismatched sequences that count in the normaliser.
#[test]
fn gotcha_24_a_window_gets_each_prompt_with_the_next_rows_answer() {
    let composed = create(json!({})).unwrap().compose(&rows(), 0).unwrap().unwrap();
    composed.check().unwrap();
    assert_eq!(composed.get("token").unwrap(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1.0, 2.0, 5.0, 6.0, 4.0, 3.0]);
    assert_eq!(composed.mask().unwrap(), [0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0]);
    assert_eq!(composed.offsets().unwrap(), [0, 3, 6, 10, 12]);
    assert_eq!(composed.get("side").unwrap(), [1.0, 0.0, 1.0, 0.0]);
    assert_eq!(composed.get("mismatched").unwrap(), [0.0, 0.0, 1.0, 1.0]);
    assert_eq!(composed.get("counted").unwrap(), [1.0, 1.0, 0.0, 0.0]);
    assert_eq!(composed.get("row").unwrap(), [7.0, 9.0, 7.0, 9.0]);
}

/// Catches a long prompt beside a long answer that does not fit into the model's context, an answer that is cut although its prompt
/// could be, and a sequence without a prompt.
#[test]
fn mismatched_sequences_fit_the_context() {
    let limited = |longest: f64| {
        let rows = rows().with("longest", Scope::BATCH, vec![longest]);
        let made = create(json!({})).unwrap().compose(&rows, 0).unwrap().unwrap();
        let (offsets, tokens) = (made.offsets().unwrap(), made.get("token").unwrap());
        offsets.windows(2).skip(2).map(|ends| tokens[ends[0]..ends[1]].to_vec()).collect::<Vec<_>>()
    };
    assert_eq!(limited(3.0), [vec![2.0, 5.0, 6.0], vec![4.0, 3.0]]);
    assert_eq!(limited(2.0), [vec![2.0, 5.0], vec![4.0, 3.0]]);
}

/// Catches a row that is mismatched with itself, and sequences that nothing reads.
#[test]
fn a_single_row_and_apo_zero_have_no_mismatched_sequences() {
    let one = Batch::new()
        .with("offsets", Scope::BATCH, vec![0.0, 2.0, 3.0])
        .with("longest", Scope::BATCH, vec![3.0])
        .with("token", Scope::TOKEN, vec![1.0, 2.0, 3.0])
        .with("mask", Scope::TOKEN, vec![0.0, 0.0, 1.0])
        .with("part", Scope::SEQUENCE, vec![1.0, 2.0])
        .with("row", Scope::SEQUENCE, vec![7.0, 7.0])
        .with("column.label", Scope::SEQUENCE, vec![1.0, 1.0]);
    let composed = create(json!({})).unwrap().compose(&one, 0).unwrap().unwrap();
    assert_eq!(composed.get("mismatched").unwrap(), [0.0]);
    assert_eq!(create(json!({"loss": "apo-zero-unpaired"})).unwrap().compose(&rows(), 0).unwrap(), None);
}
