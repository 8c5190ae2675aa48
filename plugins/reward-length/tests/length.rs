//! The scores of lengths.

use plugin_api::prelude::*;
use reward_length::{Config, Length};
use serde_json::json;

fn scores(options: serde_json::Value, completions: &[&str]) -> Vec<f64> {
    let reward = Length::create(Config::parse(options.as_object().unwrap()).unwrap()).unwrap();
    let sample = |text: &&str| Sample { completion: (*text).into(), ..Sample::default() };
    reward.score(&completions.iter().map(sample).collect::<Vec<_>>()).unwrap()
}

/// Catches a reward of the wrong sign, bytes counted as characters, and separators counted as words.
#[test]
fn the_reward_is_highest_at_the_target_and_falls_on_both_sides() {
    let words = ["", "a b", "a  b\nc d", "a b c d e f g h"];
    assert_eq!(scores(json!({"target": 4}), &words), [-1.0, -0.5, 0.0, -1.0]);
    assert_eq!(scores(json!({"target": 4, "unit": "characters"}), &["äöü!", "ab"]), [0.0, -0.5]);
}

/// Catches a division by a target of 0.
#[test]
fn an_empty_answer_can_be_the_target() {
    assert_eq!(scores(json!({"target": 0}), &["", "a", "a b"]), [0.0, -1.0, -2.0]);
}

#[test]
fn an_impossible_target_or_unit_is_refused_by_name() {
    for (options, key) in [(json!({"target": -1}), "target"), (json!({"unit": "bytes"}), "unit")] {
        let error = Config::parse(options.as_object().unwrap()).unwrap_err();
        assert!(error.code == Code::OPTION && error.message.contains(key), "{error}");
    }
}
