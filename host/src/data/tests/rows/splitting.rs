//! JSON lines as rows, and which of them are held out.

use std::fs;

use serde_json::{Value, json};

use crate::data::error::{DataError, Result};
use crate::data::rows::read::jsonl;
use crate::data::rows::split::{Sides, Split};
use crate::data::rows::store::Packed;
use crate::data::rows::{Columns, Content, Part, Row, RowKind, RowOptions, Rows};

fn parse(text: &str) -> Result<Vec<Row>> {
    jsonl::parse("rows.jsonl".as_ref(), text, RowKind::PromptCompletion, &Columns::new())
}

fn rows(count: usize, line: impl Fn(usize) -> Value) -> Vec<Row> {
    parse(&(0..count).map(|i| format!("{}\n", line(i))).collect::<String>()).unwrap()
}

fn split(name: &str, rows: Vec<Row>, split: &Split) -> Result<Sides> {
    let mut sides = Sides::default();
    rows.into_iter().try_for_each(|row| sides.add(&Packed::of(row)?, split))?;
    sides.check(name, split)?;
    sides.remove_shared_questions(Some(split))?;
    Ok(sides)
}

fn questions(rows: &Rows) -> Vec<String> {
    rows.to_vec().iter().map(Row::question).collect()
}

#[test]
fn rows_have_parts_and_the_other_keys_are_columns() {
    let text = "{\"prompt\": \"a\", \"completion\": \"b\", \"margin\": 0.5, \"source\": \"x\"}\r\n\n{\"messages\": [{\"role\": \"user\", \
                \"content\": \"q\"}, {\"role\": \"assistant\", \"content\": \"r\"}], \"prompt\": \"repeated\"}";
    let rows = parse(text).unwrap();
    assert_eq!(rows[0].parts[&Part::Completion], Content::Text("b".into()));
    assert_eq!(Value::Object(rows[0].columns.clone()), json!({"margin": 0.5, "source": "x"}));
    // Data sets of conversations often repeat their first message as `prompt`.
    assert_eq!(rows[1].columns["prompt"], "repeated");
    assert_eq!((rows[1].place.line, rows[1].question().as_str()), (3, "user: q\n"));
}

/// Every error names file, line and key.
#[test]
fn an_invalid_row_is_refused_by_file_line_and_key() {
    let chat = |messages: Value| json!({"messages": messages}).to_string();
    for (line, expected) in [
        ("{\"prompt\": \"a\"".to_owned(), "rows.jsonl:2: not JSON: cut off at column 15 ("),
        ("[1]".into(), "rows.jsonl:2: expected an object with the row's keys, found a list"),
        (
            json!({"prompt": "a", "answer": "7", "completion": null}).to_string(),
            "rows.jsonl:2: needs `messages`, or `prompt` and `completion`; it has `prompt`, `answer`; `completion` is null, which counts as missing: give it a value, \
             \"\" for an empty one, or remove the row; data.columns",
        ),
        (
            json!({"prompt": "a", "completion": 7}).to_string(),
            "rows.jsonl:2: `completion`: expected a string or a list of messages, found a number",
        ),
        (chat(json!("hi")), "rows.jsonl:2: `messages`: expected a list of messages, found a string"),
        (chat(json!([])), "`messages`: no message in the list"),
        (chat(json!([{"role": "user", "content": "a"}])), "`messages`: no message has the role \"assistant\""),
        (chat(json!([{"content": "a"}])), "`messages[0].role`: missing"),
        (chat(json!([{"role": "user"}])), "`messages[0].content`: missing"),
        (
            chat(json!([{"role": "user", "content": 7}])),
            "`messages[0].content`: expected a string or a list of parts, found a number",
        ),
        (chat(json!([{"role": "user", "content": ["a"]}])), "`messages[0].content[0]`: expected a part such as"),
        (chat(json!(["a"])), "`messages[0]`: expected a message with `role` and `content`, found a string"),
    ] {
        let text = format!("{}\n{line}\n", json!({"prompt": "a", "completion": "b"}));
        let error = parse(&text).unwrap_err().to_string();
        assert!(error.contains(expected), "{line}: {error}");
    }
}

/// Catches a split by row, which puts two answers to one question on both sides, and one that moves rows when
/// others are added.
#[test]
fn a_prompt_is_on_one_side_whatever_its_answer() {
    let line = |i: usize| json!({"prompt": format!("question {}", i / 3), "completion": format!("answer {i}")});
    let sides = split("d", rows(600, line), &Split::Share(0.2)).unwrap();
    let (train, held_out) = (questions(&sides.train), questions(&sides.held_out));
    assert!(train.iter().all(|question| !held_out.contains(question)));
    assert_eq!((train.len() + held_out.len(), sides.leaks), (600, 0));
    assert!((80..160).contains(&held_out.len()), "{}", held_out.len());
    let more = split("d", rows(1200, line), &Split::Share(0.2)).unwrap();
    assert_eq!(questions(&more.held_out)[..held_out.len()], held_out);
    // White space around a prompt does not make it a different one.
    let spaced = rows(600, |i| json!({"prompt": format!(" question {} \n", i / 3), "completion": "x"}));
    assert_eq!(split("d", spaced, &Split::Share(0.2)).unwrap().held_out.len(), held_out.len());
}

/// Catches groups that are split, and prompts that leak from one group into another.
#[test]
fn groups_stay_together_and_shared_prompts_still_do_not_leak() {
    let line = |i: usize| json!({"prompt": format!("question {}", i % 50), "completion": "x", "qid": i / 10});
    let sides = split("d", rows(500, line), &Split::Groups { share: 0.3, column: "qid".into() }).unwrap();
    let ids = |rows: &Rows| rows.to_vec().iter().map(|row| row.columns["qid"].as_u64().unwrap()).collect::<Vec<_>>();
    assert!(ids(&sides.train).iter().all(|id| !ids(&sides.held_out).contains(id)));
    assert!(questions(&sides.train).iter().all(|q| !questions(&sides.held_out).contains(q)));
    assert_eq!(sides.leaks + sides.train.len() + sides.held_out.len(), 500);
    assert!(sides.leaks > 0);
    let missing = split(
        "d",
        rows(2, |_| json!({"prompt": "a", "completion": "b"})),
        &Split::Groups { share: 0.3, column: "qid".into() },
    );
    assert_eq!(missing.unwrap_err().to_string(), "rows.jsonl:1: `qid`: missing; the split needs it");
}

#[test]
fn a_column_may_decide_the_side() {
    let line = |i: usize| {
        let word = ["train", "test", "Validation"][i % 3];
        json!({"prompt": format!("q{i}"), "completion": "x", "split": word})
    };
    let sides = split("d", rows(9, line), &Split::Column("split".into())).unwrap();
    assert_eq!((sides.train.len(), sides.held_out.len()), (3, 6));
    let error =
        split("d", rows(1, |_| json!({"prompt": "q", "completion": "x", "split": 3})), &Split::Column("split".into()));
    let error = error.unwrap_err().to_string();
    assert!(error.starts_with("rows.jsonl:1: `split`: 3 is not a side; expected one of: train, "), "{error}");
}

/// Catches a prompt of the evaluation file that is trained on, and a side that is silently empty.
#[test]
fn prompts_of_evaluation_files_are_not_trained_on() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, prompts: &[&str]| {
        let lines = prompts.iter().map(|p| format!("{}\n", json!({"prompt": p, "completion": name})));
        let path = folder.path().join(name);
        fs::write(&path, lines.collect::<String>()).unwrap();
        path.display().to_string()
    };
    let (train, eval) = (write("train.jsonl", &["a", "b", "c"]), write("eval.jsonl", &["b", "d"]));
    let read = |paths: &[&String], eval: &[&String], share| {
        let own = |paths: &[&String]| paths.iter().map(|path| (*path).clone()).collect();
        let (paths, eval_paths, split) = (own(paths), own(eval), Split::Share(share));
        RowOptions {
            paths,
            mix: Vec::new(),
            eval_paths,
            split,
            columns: Columns::new(),
            format: None,
            separator: String::new(),
            named_by: None,
        }
        .read(RowKind::PromptCompletion)
    };
    let corpus = read(&[&train], &[&eval], 0.0).unwrap();
    assert_eq!((corpus.train.len(), corpus.held_out.len(), corpus.leaks, corpus.sources.len()), (2, 2, 1, 2));
    assert!(matches!(read(&[&train], &[&train], 0.0), Err(DataError::Overlap { .. })));
    assert!(matches!(read(&[&train], &[], 1e-9), Err(DataError::NothingHeldOut { .. })));
    assert!(matches!(read(&[&train], &[], 1.0), Err(DataError::HeldOutShare(_))));
    assert_eq!(read(&[&train], &[], 0.0).unwrap().held_out.len(), 0);
}

/// Catches a requested side that is empty, columns that no row has, and a group that counts as another one because
/// a tool wrote its number as a float.
#[test]
fn requested_sides_and_columns_that_do_not_exist_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.jsonl");
    let line =
        |i: i32| json!({"prompt": format!("{i}"), "completion": "b", "side": "train", "qid": i}).to_string() + "\n";
    fs::write(&path, (0..40).map(line).collect::<String>()).unwrap();
    let read = |split: Split, columns: Columns| {
        let paths = vec![path.display().to_string()];
        RowOptions {
            paths,
            mix: Vec::new(),
            eval_paths: Vec::new(),
            split,
            columns,
            format: None,
            separator: String::new(),
            named_by: None,
        }
        .read(RowKind::PromptCompletion)
    };
    let refused = |split: Split, columns: Columns| read(split, columns).map(|_| ()).unwrap_err().to_string();
    assert!(refused(Split::Column("side".into()), Columns::new()).ends_with("has no row to evaluate on"));
    let columns: Columns = [("margin".to_owned(), "strenght".to_owned())].into();
    let why = refused(Split::Share(0.5), columns);
    assert!(why.ends_with("has a column \"strenght\", which data.columns.margin names"), "{why}");
    let groups = || Split::Groups { share: 0.5, column: "qid".into() };
    let whole = questions(&read(groups(), Columns::new()).unwrap().held_out);
    let line = |i: i32| json!({"prompt": format!("{i}"), "completion": "b", "qid": f64::from(i)}).to_string() + "\n";
    fs::write(&path, (0..40).map(line).collect::<String>()).unwrap();
    assert_eq!(questions(&read(groups(), Columns::new()).unwrap().held_out), whole);
}
