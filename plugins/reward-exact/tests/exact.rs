//! What counts as the right answer.

use plugin_api::prelude::*;
use reward_exact::{Config, Exact};
use serde_json::json;

fn exact(options: serde_json::Value) -> Exact {
    Exact::create(Config::parse(options.as_object().unwrap()).unwrap()).unwrap()
}

fn sample(completion: &str, answer: Column) -> Sample {
    Sample { completion: completion.into(), columns: vec![("answer".into(), answer)], ..Sample::default() }
}

fn score(options: serde_json::Value, completion: &str, answer: &str) -> f64 {
    exact(options).score(&[sample(completion, Column::Text(answer.into()))]).unwrap()[0]
}

/// Catches a search for the answer anywhere in the text.
#[test]
fn without_a_pattern_the_whole_completion_is_compared() {
    assert_eq!(score(json!({}), " 72\n", "72"), 1.0);
    assert_eq!(score(json!({}), "it is 72", "72"), 0.0);
    assert_eq!(score(json!({}), "", "72"), 0.0);
}

/// Catches the first match instead of the last, and the whole match instead of its group.
#[test]
fn the_last_match_and_its_group_are_used() {
    let options = || json!({"pattern": r"####\s*(-?[\d,.]+)"});
    assert_eq!(score(options(), "half is 24\n#### 24\nno:\n#### 72", "72"), 1.0);
    assert_eq!(score(options(), "#### 72 and then #### 24", "72"), 0.0);
    assert_eq!(score(options(), "72", "72"), 0.0, "nothing found is wrong, even beside the right text");
}

/// Catches a comparison of texts if values are meant, and one of values if there are none.
#[test]
fn numbers_are_compared_by_value_if_configured() {
    for given in ["1,000", "1000.0", "$1000", "1000."] {
        assert_eq!(score(json!({"numeric": true}), given, "1000"), 1.0, "{given}");
        assert_eq!(score(json!({}), given, "1000"), 0.0, "{given}");
    }
    assert_eq!(score(json!({"numeric": true}), "nan", "nan"), 1.0, "words are compared as words");
    assert_eq!(score(json!({"numeric": true}), "inf", "1e999"), 0.0);
    assert_eq!(score(json!({"ignore_case": true}), "Paris", "paris"), 1.0);
}

/// Catches an answer column of numbers that is not read, and a pattern that reads the wrong side.
#[test]
fn the_answer_column_may_be_a_number_or_contain_an_explanation() {
    let right = exact(json!({"numeric": true})).score(&[sample("72", Column::Number(72.0))]).unwrap();
    assert_eq!(right, [1.0]);
    assert_eq!(score(json!({"answer_pattern": r"#### (\d+)"}), "72", "48/2 = 24\n#### 72"), 1.0);
}

/// Catches a list of right answers of which only the first counts, and a list without any.
#[test]
fn every_answer_of_a_list_is_accepted() {
    let scores = |list: &str| {
        let column = Column::Json(list.into());
        exact(json!({"numeric": true})).score(&["72", "a", "b"].map(|given| sample(given, column.clone())))
    };
    assert_eq!(scores(r#"["a", 72.0]"#).unwrap(), [1.0, 1.0, 0.0]);
    for list in ["[]", r#"[["a"]]"#, r#"{"a": 72}"#] {
        let error = scores(list).unwrap_err();
        assert!(error.code == Code::ARRAY && error.message.contains("a list of answers"), "{error}");
    }
}

/// Catches scores in another order than the samples', and scores that are not the options'.
#[test]
fn every_sample_gets_its_own_score() {
    let samples = ["1", "2", "1"].map(|given| sample(given, Column::Text("1".into())));
    assert_eq!(exact(json!({"right": 2.0, "wrong": -1.0})).score(&samples).unwrap(), [2.0, -1.0, 2.0]);
    assert_eq!(exact(json!({})).score(&[]).unwrap(), Vec::<f64>::new());
}

/// Catches an error in the data that is scored as a wrong answer, and a broken pattern that is found only in the middle of a run.
#[test]
fn invalid_data_and_patterns_are_refused_by_name() {
    let lost = Sample { columns: vec![("id".into(), Column::Text("a".into()))], ..sample("1", Column::Number(1.0)) };
    let error = exact(json!({})).score(&[lost]).unwrap_err();
    assert!(error.code == Code::ARRAY && error.message.contains("`answer`") && error.message.contains("id"), "{error}");
    let error = exact(json!({"answer_pattern": "#+"})).score(&[sample("1", Column::Text("1".into()))]).unwrap_err();
    assert!(error.message.contains("answer_pattern"), "{error}");
    let options = json!({"pattern": "(("});
    let error = Exact::create(Config::parse(options.as_object().unwrap()).unwrap()).err().unwrap();
    assert!(error.code == Code::OPTION && error.message.contains("pattern"), "{error}");
}
