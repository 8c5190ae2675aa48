//! List columns, and completions that are lists of segments.

use serde_json::{Value, json};

use super::super::encoding::{Case, bytes, with_bos};
use crate::data::batches::pack::{Sequence, pack};
use crate::data::rows::encode::Reads;
use crate::data::rows::read::{jsonl, segments::separate};
use crate::data::rows::{Columns, RowKind, Truncation};
use crate::data::tokenizer::Tokenizer;

fn steps(steps: &[&str], labels: Value) -> Value {
    json!({"prompt": "q ", "completions": steps, "labels": labels})
}

/// The sequence's text with a `|` after every token in which a segment ends.
fn ends(case: &Case<'_>, sequence: &Sequence) -> String {
    let show =
        |(id, end): (&u32, &f64)| case.tokenizer.decode(&[*id], false).unwrap() + if *end == 1.0 { "|" } else { "" };
    sequence.ids.iter().zip(&sequence.of_tokens["segment_end"]).map(show).collect()
}

/// Catches lists that lose values, are padded, or belong to another row, and true and false that are not 1 and 0.
#[test]
fn lists_reach_the_batch_ragged() {
    let tokenizer = Tokenizer::bytes().unwrap();
    let row =
        |list: Value| json!({"prompt": "a", "completion": "b", "list": list, "flags": [true, false], "texts": ["x"]});
    let (sequences, counts) = bytes(&tokenizer).encode(&[row(json!([1, 2.5])), row(json!([])), row(json!([3]))]);
    assert_eq!(counts.lists, ["flags", "list"]);
    let packed = pack(&sequences).unwrap();
    assert_eq!((&*packed.lists["list"].values, &*packed.lists["list"].lengths), (&[1.0, 2.5, 3.0][..], &[2, 0, 1][..]));
    assert_eq!(packed.lists["flags"].values, [1.0, 0.0, 1.0, 0.0, 1.0, 0.0]);
    assert_eq!(packed.lists["list"].each().collect::<Vec<_>>(), [&[1.0, 2.5][..], &[], &[3.0]]);
}

/// Catches a list that only some rows have and that is passed on for those, a note without the place of a row, and a list that
/// hides behind its own length.
#[test]
fn lists_that_a_row_lacks_are_left_out_and_the_row_is_named() {
    let tokenizer = Tokenizer::bytes().unwrap();
    let row = |list: Value| json!({"prompt": "a", "completion": "b", "list": list});
    for other in [Value::Null, json!(3), json!(["x"]), json!([1, "x"]), json!([9007199254740993_i64])] {
        let (sequences, counts) = bytes(&tokenizer).encode(&[row(json!([1])), row(other.clone())]);
        assert!(pack(&sequences).unwrap().lists.is_empty(), "{other}");
        assert!(counts.to_string().contains("list (not in rows.jsonl:2)"), "{counts}");
    }
    let row = json!({"prompt": "a", "completion": "b", "list": [1], "list.length": 1});
    let error = bytes(&tokenizer).data(&[row]).unwrap_err().to_string();
    assert!(error.contains("rows.jsonl:1: `list.length`"), "{error}");
}

/// Catches an end that is marked at the token before, at the separator's first character, or where the token is read.
#[test]
fn segments_are_joined_and_end_with_their_separators() {
    let tokenizer = Tokenizer::bytes().unwrap();
    let case = bytes(&tokenizer);
    let (sequences, _) = case.encode(&[steps(&["a=1", "", "b"], json!([true, true, false]))]);
    assert_eq!(case.marked(&sequences[0]), "q [a=1\n\nb\n<|endoftext|>]");
    assert_eq!(ends(&case, &sequences[0]), "q a=1\n|\n|b\n|<|endoftext|>");
    for reads_last in [false, true] {
        let packed = pack(&[Sequence { reads_last, ..sequences[0].clone() }]).unwrap();
        let expected: Vec<i32> = (0..packed.len() as i32).filter(|n| packed.targets[*n as usize] == 10).collect();
        let found: Vec<i32> =
            (0..packed.len() as i32).filter(|n| packed.per_token["segment_end"][*n as usize] == 1.0).collect();
        assert_eq!((found, packed.per_token["segment_end"].len()), (expected, packed.len()));
    }
    // Also as `completion`, and where a template writes and trims the answer.
    let row = json!({"prompt": "q ", "completion": ["a=1", "b"]});
    let template = "{% for m in messages %}{{ m.content | trim }}{% if m.role == 'assistant' %}{{ eos_token }}{% else %}: {% endif %}{% endfor %}";
    let case = Case { template: Some(template), ..bytes(&tokenizer) };
    assert_eq!(ends(&case, &case.encode(&[row]).0[0]), "q: a=1\n|b|<|endoftext|>");
    let error =
        Case { template: Some("{% for m in messages %}{{ m.content | upper }}{% endfor %}"), ..bytes(&tokenizer) };
    let error = error.data(&[json!({"prompt": "q ", "completion": ["a", "b"]})]).unwrap_err().to_string();
    assert!(error.contains("rows.jsonl:1"), "{error}");
}

/// Catches segment ends that do not move with their tokens if a row is shortened or a token is put in front of it.
#[test]
fn truncated_rows_lose_segments_and_keep_their_lists() {
    let tokenizer = Tokenizer::bytes().unwrap();
    let row = steps(&["ab", "cd"], json!([1, 0]));
    let case = Case { longest: 6, ..bytes(&tokenizer) };
    let (sequences, counts) = case.encode(std::slice::from_ref(&row));
    assert_eq!((ends(&case, &sequences[0]), counts.truncated), ("q ab\n|cd".to_owned(), 1));
    assert_eq!(sequences[0].lists["labels"], [1.0, 0.0]);
    let case = Case { longest: 7, truncation: Some(Truncation::Left), ..bytes(&tokenizer) };
    assert_eq!(ends(&case, &case.encode(std::slice::from_ref(&row)).0[0]), " ab\n|cd\n|<|endoftext|>");
    let (_folder, tokenizer) = with_bos();
    let case = bytes(&tokenizer);
    let sequence = case.encode(std::slice::from_ref(&row)).0.remove(0);
    let ends = &sequence.of_tokens["segment_end"];
    assert_eq!((ends.len(), ends.iter().sum::<f64>()), (sequence.ids.len(), 2.0));
}

/// Catches a row that fills the context with a last token that is read too, and a truncated row without a whole segment, from which
/// nothing is learned.
#[test]
fn rows_for_values_of_segments_fit_whole_and_keep_a_segment() {
    let tokenizer = Tokenizer::bytes().unwrap();
    let row = steps(&["ab", "cd"], json!([1, 0]));
    let rows = std::slice::from_ref(&row);
    let case = |longest, last, segments| Case { longest, reads: Reads { last, segments }, ..bytes(&tokenizer) };
    // "q ab\n", and one more token if the last one is only predicted.
    for (longest, last, tokens) in [(6, false, 7), (6, true, 6), (5, true, 5)] {
        let (sequences, counts) = case(longest, last, true).encode(rows);
        assert_eq!((sequences[0].ids.len(), counts.truncated, counts.dropped_no_segment), (tokens, 1, 0));
    }
    let long = steps(&["a"], json!([1]));
    let (sequences, counts) = case(4, true, true).encode(&[long, row.clone()]);
    assert_eq!((sequences.len(), counts.dropped_no_segment, counts.dropped_too_long), (1, 1, 0));
    assert!(counts.to_string().contains("1 dropped: no whole segment of the answer fits"), "{counts}");
    assert_eq!(case(4, true, false).encode(rows).1.dropped_no_segment, 0);
    let error = case(4, true, true).data(rows).unwrap_err();
    assert!(error.hint().unwrap_or_default().contains("data.max_length"), "{error}");
}

/// Catches rows whose labels would belong to other segments.
#[test]
fn segments_that_cannot_be_told_apart_are_refused_by_their_place() {
    let tokenizer = Tokenizer::bytes().unwrap();
    let text = json!({"prompt": "q ", "completion": "a", "labels": [1]});
    let error = bytes(&tokenizer).data(&[steps(&["a"], json!([1])), text]).unwrap_err().to_string();
    assert!(error.contains("rows.jsonl:2: `completion`: not a list of texts"), "{error}");
    let parse = |kind, line: Value, separator: &str| {
        let rows = jsonl::parse("rows.jsonl".as_ref(), &line.to_string(), kind, &Columns::new());
        rows.and_then(|mut rows| rows.iter_mut().try_for_each(|row| separate(row, separator)))
    };
    let mixed = json!({"prompt": "q", "completions": ["a", 3]});
    for (kind, line, separator, expected) in [
        (RowKind::PromptCompletion, mixed, "\n", "`completions[1]`: a number, expected a string"),
        (RowKind::PromptCompletion, steps(&[], json!([])), "\n", "`completions`: an empty list, expected a list of texts"),
        (RowKind::PromptCompletion, json!({"prompt": "q", "completions": "a"}), "\n", "`completions`: a string, expected"),
        (RowKind::PromptCompletion, steps(&["a", ""], json!([])), "", "segment 2 is empty"),
        (RowKind::Unpaired, json!({"prompt": "q", "completion": ["a"], "label": 1}), "\n", "completion[0]"),
    ] {
        let error = parse(kind, line, separator).unwrap_err().to_string();
        assert!(error.starts_with("rows.jsonl:1: ") && error.contains(expected), "{error}");
    }
}

/// Catches a list of steps with a fault that is reported as a row without a completion, though it has `completions`.
#[test]
fn completions_with_a_fault_are_named() {
    let text = |completions: Value| json!({"prompt": "q ", "completions": completions, "labels": [1]}).to_string();
    for (completions, found) in [
        (json!([]), "found an empty list"),
        (json!("a"), "found a string"),
        (json!([["a"]]), "found a list that begins with a list"),
        (json!(7), "found a number"),
    ] {
        let parsed =
            jsonl::parse("rows.jsonl".as_ref(), &text(completions), RowKind::PromptCompletion, &Columns::new());
        let message = parsed.unwrap_err().to_string();
        assert!(message.contains("rows.jsonl:1: `completions`: expected a list of texts"), "{message}");
        assert!(message.contains(found), "{message}");
    }
}

/// Catches a column that is a number in one row and a list in another, and that is reported as both.
#[test]
fn a_column_of_numbers_and_lists_has_one_fault() {
    let tokenizer = Tokenizer::bytes().unwrap();
    let row = |value: Value| json!({"prompt": "a", "completion": "b", "mixed": value});
    let (_, counts) = bytes(&tokenizer).encode(&[row(json!([1])), row(json!(2)), row(json!("x"))]);
    assert_eq!(counts.ragged_columns, Vec::<String>::new());
    assert!(counts.ragged_lists.len() == 1 && counts.has_ragged_list("mixed"), "{counts:?}");
    assert!(!counts.has_ragged_list("mix"));
    assert_eq!(counts.to_string().matches("mixed").count(), 1, "{counts}");
}
