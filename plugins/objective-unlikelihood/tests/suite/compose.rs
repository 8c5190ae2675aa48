//! The candidates of every token.

use super::create;
use plugin_api::prelude::*;
use serde_json::json;

/// Catches the target among its own candidates, a candidate of the other sequence, an older token in place of a later
/// one, and an id that occurs twice.
#[test]
fn candidates_are_the_last_distinct_tokens_before_a_target() {
    let rows = Batch::new()
        .with("offsets", Scope::BATCH, vec![0.0, 6.0, 8.0])
        .with("token", Scope::TOKEN, vec![4.0, 7.0, 4.0, 9.0, 7.0, 1.0, 5.0, 6.0])
        .with("mask", Scope::TOKEN, vec![0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0])
        .with("part", Scope::SEQUENCE, vec![0.0, 0.0])
        .with("row", Scope::SEQUENCE, vec![2.0, 5.0]);
    let made = create(json!({"candidates": 2})).unwrap().compose(&rows, 0).unwrap().unwrap();
    made.check().unwrap();
    for name in ["offsets", "token", "mask", "row"] {
        assert_eq!(made.get(name).unwrap(), rows.get(name).unwrap(), "{name}");
    }
    let expected = [
        ([0.0, 1.0], [0.0, 0.0]), // 4: nothing before it
        ([4.0, 0.0], [1.0, 0.0]), // 7 after 4
        ([7.0, 0.0], [1.0, 0.0]), // 4 after 4 7: 4 is the target
        ([4.0, 7.0], [1.0, 1.0]), // 9 after 4 7 4
        ([9.0, 4.0], [1.0, 1.0]), // 7 after 4 7 4 9
        ([7.0, 9.0], [1.0, 1.0]), // 1 after 4 7 4 9 7: 4 is too far
        ([0.0, 1.0], [0.0, 0.0]), // 5 of the next sequence
        ([5.0, 0.0], [1.0, 0.0]), // 6 after 5
    ];
    for (name, of) in [("candidate_ids", 0), ("negative", 1)] {
        let array = made.array(name).unwrap();
        assert_eq!((array.scope, array.cols), (Scope::TOKEN, 2));
        let all: Vec<f64> = expected.iter().flat_map(|(ids, count)| if of == 0 { *ids } else { *count }).collect();
        assert_eq!(array.data.as_ref(), all, "{name}");
    }
}

/// Catches a filled id that repeats a candidate: ids of one token must differ.
#[test]
fn filled_ids_differ_from_the_candidates_and_from_each_other() {
    let tokens: Vec<f64> = (0..40).map(|n| f64::from(n * n % 11)).collect();
    let rows = Batch::new()
        .with("offsets", Scope::BATCH, vec![0.0, 40.0])
        .with("token", Scope::TOKEN, tokens)
        .with("mask", Scope::TOKEN, vec![1.0; 40])
        .with("row", Scope::SEQUENCE, vec![0.0]);
    let made = create(json!({"candidates": 16})).unwrap().compose(&rows, 0).unwrap().unwrap();
    for ids in made.get("candidate_ids").unwrap().chunks(16) {
        let mut distinct = ids.to_vec();
        distinct.sort_by(f64::total_cmp);
        distinct.dedup();
        assert_eq!(distinct.len(), 16, "{ids:?}");
        assert!(distinct[15] < 32.0, "the smallest ids fill: {ids:?}");
    }
}
