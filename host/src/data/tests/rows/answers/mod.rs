//! Right answers of prompts, in the shapes in which other tools write them.

use serde_json::{Value, json};

use crate::data::error::Result;
use crate::data::rows::read::jsonl;
use crate::data::rows::{Columns, Row, RowKind};

fn parse(columns: &[(&str, &str)], line: &Value) -> Result<Row> {
    let columns: Columns = columns.iter().map(|(name, from)| (name.to_string(), from.to_string())).collect();
    Ok(jsonl::parse("rows.jsonl".as_ref(), &line.to_string(), RowKind::Prompt, &columns)?.remove(0))
}

fn turn(role: &str, content: &str) -> Value {
    json!({"role": role, "content": content})
}

/// Right answers in the shapes of other tools. Catches `""` and `[""]` that mean different things, a SQuAD list
/// that is not read, an answer given as a message that is dropped, and values that no answer could equal and that
/// are silently accepted.
#[test]
fn gotcha_48_right_answers_are_read_or_refused_with_a_remedy() {
    let read = |answer: Value| parse(&[], &json!({"prompt": "p", "answer": answer}));
    let answers = |row: Row| {
        let text = row.text();
        text.answer.into_iter().chain(text.more_answers).collect::<Vec<_>>()
    };
    for (answer, right) in [
        (json!(""), vec![""]),
        (json!([""]), vec![""]),
        (json!("a"), vec!["a"]),
        (json!(7), vec!["7"]),
        (json!(["a", 7]), vec!["a", "7"]),
        (json!({"text": ["a", "b"], "answer_start": [3, 9]}), vec!["a", "b"]),
        (json!({"answer_start": 3, "text": "a"}), vec!["a"]),
        (json!("[1, 2]"), vec!["[1, 2]"]),
        (json!(["[\"a\", \"b\"]"]), vec!["[\"a\", \"b\"]"]),
        (json!("[see above]"), vec!["[see above]"]),
    ] {
        assert_eq!(answers(read(answer.clone()).unwrap()), right, "{answer}");
    }
    for (answer, expected) in [
        (json!(true), "expected a right answer, found true: write the word"),
        (
            json!("[\"a\", \"b\"]"),
            "a list within a string; write several right answers as a list: jq -c '.answer |= fromjson'",
        ),
        (json!("['a', 'b']"), "a list within a string"),
        (json!([["a"], ["b"]]), "a list at place 0 of the list; a right answer is a string or a number"),
        (json!(["a", true]), "true or false at place 1 of the list"),
        (json!([]), "an empty list, so that no answer would be right"),
        (json!({"text": [], "answer_start": []}), "an empty list, so that no answer would be right"),
        (json!({"text": ["a"], "score": 1}), "an object; a right answer is a string or a number"),
    ] {
        let error = read(answer.clone()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("rows.jsonl:1: `answer`: {expected}")), "{answer}: {error}");
    }
    let named = parse(&[("answer", "answers")], &json!({"prompt": "p", "answers": {"text": ["a"]}}));
    assert_eq!(answers(named.unwrap()), ["a"]);
    for (key, answer) in [
        ("completion", json!([turn("assistant", "a")])),
        ("chosen", json!([turn("user", "p"), turn("assistant", "a")])),
        ("completion", turn("assistant", "a")),
        ("completion", json!(["a"])),
    ] {
        let row = parse(&[], &json!({"prompt": [turn("user", "p")], key: answer})).unwrap();
        assert_eq!(answers(row), ["a"], "{key}: {answer}");
    }
}
