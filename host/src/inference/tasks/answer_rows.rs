//! Rows of answers as `telos generate --prompts` and `telos eval --rows --out` write them, where some prompts were too long to be
//! answered.

use serde_json::Value;

use crate::{
    data::rows::{Content, Part, Row, kind::ANSWER},
    generate::Finish,
};

/// Why a prompt has no answer, in the column `finish`.
pub const PROMPT_TOO_LONG: &str = "prompt too long";

/// The column that says whether an answer ended by itself.
pub const ENDED: &str = "completion_ended";

/// What a row has, read as a prompt with columns.
#[derive(Debug, PartialEq)]
pub enum Answered {
    /// A completion: the row of prompt and completion.
    With(Row),
    /// The note that the prompt was too long.
    TooLong,
    /// Neither.
    Without,
}

/// Returns the row of an answer: of the column `completion`, or of `answer` in a row of `telos eval`, which has `expected` too.
pub fn answered(mut row: Row) -> Answered {
    let is = |row: &Row, name: &str, value: &str| row.columns.get(name).and_then(Value::as_str) == Some(value);
    let completion = Part::Completion.name();
    if row.columns.get(completion).is_some_and(Value::is_null) && is(&row, "finish", PROMPT_TOO_LONG) {
        return Answered::TooLong;
    }
    let is_evaluated = !row.columns.contains_key(completion) && row.columns.contains_key("expected");
    let answer = row.columns.get(if is_evaluated { ANSWER } else { completion });
    let content = match answer {
        Some(Value::String(text)) => Content::Text(text.clone()),
        Some(Value::Array(list)) if !is_evaluated && !list.is_empty() && list.iter().all(Value::is_object) => {
            Content::Messages(list.iter().filter_map(|message| message.as_object().cloned()).collect())
        }
        _ => return Answered::Without,
    };
    if is_evaluated {
        let ended = row.columns.get("ended").and_then(Value::as_bool);
        let ended = ended.unwrap_or_else(|| is(&row, "finish", Finish::EndOfSequence.as_str()));
        row.columns.insert(ENDED.to_owned(), ended.into());
        row.columns.shift_remove(ANSWER);
    }
    row.columns.shift_remove(completion);
    row.parts.insert(Part::Completion, content);
    Answered::With(row)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::data::rows::{Columns, RowKind, jsonl::parse};

    /// Catches an unanswered prompt that counts as an answer or as a mistake, an evaluated answer that is not found, and a right
    /// answer of a prompt that counts as given by a model.
    #[test]
    fn a_row_has_an_answer_or_the_reason_why_not() {
        let of = |line: Value| {
            let rows = parse("a.jsonl".as_ref(), &line.to_string(), RowKind::Prompt, &Columns::default()).unwrap();
            answered(rows[0].clone())
        };
        let answer = |line: Value| match of(line) {
            Answered::With(row) => (row.text().answer.unwrap(), row.columns.get(ENDED).cloned()),
            other => panic!("{other:?}"),
        };
        let long = json!({"prompt": "p", "completion": null, "completion_ended": false, "finish": "prompt too long"});
        assert_eq!(of(long), Answered::TooLong);
        assert_eq!(of(json!({"prompt": "p", "completion": null})), Answered::Without);
        assert_eq!(of(json!({"prompt": "p", "answer": "gold"})), Answered::Without);
        let generated = json!({"prompt": "p", "completion": "c", "completion_ended": false, "reference": "r"});
        assert_eq!(answer(generated), ("c".to_owned(), Some(json!(false))));
        let chat = json!({"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "c"}]});
        assert_eq!(answer(chat).0, "c");
        let compared =
            json!({"prompt": "p", "answer": "a", "expected": "e", "match": false, "finish": "end of sequence"});
        assert_eq!(answer(compared), ("a".to_owned(), Some(json!(true))));
        let checked = json!({"prompt": "p", "answer": "a", "expected": null, "score": 1.0, "ended": false});
        assert_eq!(answer(checked), ("a".to_owned(), Some(json!(false))));
    }
}
