//! Prompts alone, labelled answers, renamed columns, and the text of a row that rewards read.

use std::fs;

use plugin_api::reward::Column;
use serde_json::{Value, json};

use super::encoding::{Case, bytes, with_bos};
use crate::data::batches::batcher::{BatchSize, Batcher, BatcherOptions};
use crate::data::batches::pack::Sequence;
use crate::data::error::{DataError, Result};
use crate::data::rows::read::jsonl;
use crate::data::rows::split::Split;
use crate::data::rows::write::template::PLAIN;
use crate::data::rows::{Columns, Row, RowKind, RowOptions, Truncation};
use crate::data::tests::references;
use crate::data::tokenizer::Tokenizer;

fn prompts(tokenizer: &Tokenizer) -> Case<'_> {
    Case { kind: RowKind::Prompt, ..bytes(tokenizer) }
}

fn parse(kind: RowKind, columns: &[(&str, &str)], line: &Value) -> Result<Row> {
    let columns: Columns = columns.iter().map(|(name, from)| (name.to_string(), from.to_string())).collect();
    Ok(jsonl::parse("rows.jsonl".as_ref(), &line.to_string(), kind, &columns)?.remove(0))
}

/// Catches a prompt that contains its answer, one that ends with an end-of-text token, and one that cannot be
/// batched because nothing in it is supervised.
#[test]
fn gotcha_03_a_prompt_ends_where_the_answer_begins() {
    let tokenizer = Tokenizer::bytes().unwrap();
    let line = json!({"prompt": "ab ", "completion": "c", "chosen": "d", "answer": 7});
    assert_eq!(prompts(&tokenizer).all_shown(line.clone()), ["ab "]);
    assert_eq!(Case { template: Some(PLAIN), ..prompts(&tokenizer) }.all_shown(line.clone()), ["ab \n"]);
    let (_folder, with_bos) = with_bos();
    assert_eq!(prompts(&with_bos).all_shown(line), ["<|endoftext|>ab "]);
    let data =
        prompts(&tokenizer).data(&[json!({"prompt": "a"}), json!({"prompt": "bc"}), json!({"prompt": ""})]).unwrap();
    let counts = data.rows.clone().unwrap();
    assert_eq!((counts.train, counts.dropped_empty), (2, 1));
    let options = BatcherOptions { seed: 1, batch: BatchSize::Sequences(2), prefix: None, epochs: Some(1) };
    let mut batcher = Batcher::new(data.train, options).unwrap();
    let sequences = batcher.next_sequences(64).unwrap().unwrap();
    assert_eq!(sequences.iter().map(|s| s.ids.len()).sum::<usize>(), 3);
    assert!(sequences.iter().all(|s| !s.supervised.contains(&true) && s.per_sequence.is_empty()));
    assert!(batcher.next_sequences(64).unwrap().is_none());
}

/// Catches prompts that are skipped or read twice when a number of them other than a window is taken, and a place in the order that a
/// checkpoint cannot restore after it.
#[test]
fn any_number_of_prompts_follows_in_the_order_of_the_data() {
    let tokenizer = Tokenizer::bytes().unwrap();
    let lines: Vec<Value> = (0..10).map(|i| json!({"prompt": format!("{i}")})).collect();
    let data = prompts(&tokenizer).data(&lines).unwrap().train;
    let batcher = |epochs| {
        let options = BatcherOptions { seed: 1, batch: BatchSize::Sequences(4), prefix: None, epochs };
        Batcher::new(data.clone(), options).unwrap()
    };
    let rows = |sequences: Vec<Sequence>| sequences.iter().map(|sequence| sequence.row).collect::<Vec<u64>>();
    let mut whole = batcher(None);
    let order: Vec<u64> = (0..5).flat_map(|_| rows(whole.next_sequences(64).unwrap().unwrap())).collect();
    let mut other = batcher(None);
    let mut read = rows(other.next_sequences(64).unwrap().unwrap());
    read.extend(rows(other.next_few(64, 1).unwrap()));
    let place = other.state().clone();
    let next = rows(other.next_few(64, 7).unwrap());
    other.restore(place).unwrap();
    assert_eq!(rows(other.next_few(64, 7).unwrap()), next);
    read.extend(next);
    assert_eq!(read, order[..12]);
    // With a limited number of epochs, what is left of an epoch is taken.
    let mut one = batcher(Some(1));
    assert_eq!(one.next_few(64, 8).unwrap().len(), 8);
    assert_eq!(one.next_few(64, 8).unwrap().len(), 2);
    assert!(one.next_few(64, 8).unwrap().is_empty() && one.has_ended());
}

/// Gotcha 15: the prompt given to a policy, and the text that a reward model reads before an answer, are the same
/// tokens as in instruction tuning. Catches a prompt without the template's generation prompt, and one with another
/// template.
#[test]
fn gotcha_15_prompts_and_pairs_begin_as_the_rows_that_were_learned() {
    for name in ["gpt2", "split"] {
        let tokenizer = Tokenizer::open(&references().join("tokenizer").join(name)).unwrap();
        let template = tokenizer.chat_template().unwrap();
        let line = json!({"prompt": "How many crates came in?", "completion": "Seven.", "chosen": "Seven.", "rejected": "No."});
        let encoded = |kind| {
            let case = Case { kind, template: Some(template), longest: 500, ..bytes(&tokenizer) };
            case.encode(std::slice::from_ref(&line)).0
        };
        let (learned, prompts) = (encoded(RowKind::PromptCompletion), encoded(RowKind::Prompt));
        let prompt = learned[0].supervised.iter().position(|s| *s).unwrap();
        assert!(prompt > 5);
        assert_eq!(prompts[0].ids, learned[0].ids[..prompt], "{name}");
        let pair = encoded(RowKind::Preference);
        assert_eq!((&pair[0].ids, &pair[0].supervised), (&learned[0].ids, &learned[0].supervised), "{name}");
        assert_eq!(pair[1].ids[..prompt], learned[0].ids[..prompt], "{name}");
    }
}

/// The end of a prompt is kept. Catches a truncation that removes the question, and one token too many.
#[test]
fn gotcha_05_long_prompts_lose_their_beginning() {
    let tokenizer = Tokenizer::bytes().unwrap();
    let line = json!({"prompt": "abcdef"});
    let shown = |truncation, longest| Case { truncation, longest, ..prompts(&tokenizer) }.all_shown(line.clone());
    assert_eq!(shown(None, 6), ["abcdef"]);
    assert_eq!(shown(None, 4), ["cdef"]);
    let dropped = Case { truncation: Some(Truncation::Drop), longest: 5, ..prompts(&tokenizer) };
    assert!(matches!(dropped.data(std::slice::from_ref(&line)), Err(DataError::NoRowLeft { .. })));
    let (_folder, with_bos) = with_bos();
    let begun = Case { longest: 3, ..prompts(&with_bos) }.all_shown(json!({"prompt": "How many crates came in?"}));
    assert!(begun[0].starts_with("<|endoftext|>") && begun[0].ends_with("in?"), "{begun:?}");
}

/// Rewards read a row's text, whatever happens to its tokens. Catches the text of another row after rows were
/// dropped, a prompt that is trimmed, and an answer that the row does not have.
#[test]
fn a_sequence_has_the_text_of_its_own_row() {
    let tokenizer = Tokenizer::bytes().unwrap();
    let lines = [
        json!({"prompt": ""}),
        json!({"prompt": " what? \n", "answer": "7", "level": 2, "hard": true, "none": null, "tags": ["a"]}),
        json!({"prompt": [turn("user", "b?")], "completion": "yes"}),
        json!({"prompt": [turn("system", "s"), turn("user", "c?")]}),
    ];
    let data = prompts(&tokenizer).data(&lines).unwrap().train;
    let texts: Vec<_> = data
        .in_order(64, false)
        .into_iter()
        .map(|span| data.row_text(data.sequences(span, None, 0)[0].row).unwrap().clone())
        .collect();
    let prompts: Vec<&str> = texts.iter().map(|text| text.prompt.as_str()).collect();
    assert_eq!(prompts, [" what? \n", "b?", "system: s\nuser: c?\n"]);
    let answers: Vec<Option<&str>> = texts.iter().map(|text| text.answer.as_deref()).collect();
    assert_eq!(answers, [Some("7"), Some("yes"), None]);
    let text = |text: &str| Column::Text(text.to_owned());
    let columns = [
        ("answer", text("7")),
        ("level", Column::Number(2.0)),
        ("hard", Column::Number(1.0)),
        ("tags", Column::Json("[\"a\"]".to_owned())),
    ];
    assert_eq!(texts[0].columns, columns.map(|(name, column)| (name.to_owned(), column)));
    assert_eq!(data.row_text(0), None);
    let answered = |kind, line: &Value| parse(kind, &[], line).unwrap().text().answer;
    let line = json!({"prompt": "a", "completion": "b", "chosen": "c", "rejected": "d", "answer": "e"});
    assert_eq!(answered(RowKind::PromptCompletion, &line).as_deref(), Some("b"));
    assert_eq!(answered(RowKind::Preference, &line).as_deref(), Some("c"));
    let chat = json!({"messages": [turn("user", "q"), turn("assistant", "r")]});
    assert_eq!(answered(RowKind::PromptCompletion, &chat).as_deref(), Some("r"));
}

fn turn(role: &str, content: &str) -> Value {
    json!({"role": role, "content": content})
}

#[test]
fn a_prompt_that_ends_with_an_answer_is_refused() {
    let line = json!({"prompt": [turn("user", "a?"), turn("assistant", "b")]});
    let error = parse(RowKind::Prompt, &[], &line).unwrap_err().to_string();
    assert_eq!(error, "rows.jsonl:1: `prompt`: ends with the role \"assistant\": a prompt ends before the answer");
}

/// Catches a label that is treated as an ordinary column, and a value that is not a label.
#[test]
fn a_labelled_answer_carries_its_label_as_its_side() {
    let tokenizer = Tokenizer::bytes().unwrap();
    let case = Case { kind: RowKind::Unpaired, ..bytes(&tokenizer) };
    let line = |label: Value| json!({"prompt": "a", "completion": "b", "label": label});
    let lines = [json!(true), json!(false), json!(1), json!(0)].map(line);
    let (sequences, _) = case.encode(&lines);
    assert_eq!(sequences.iter().map(|s| s.per_sequence["side"]).collect::<Vec<_>>(), [1.0, 0.0, 1.0, 0.0]);
    assert!(sequences.iter().all(|s| case.marked(s) == "a[b<|endoftext|>]" && !s.per_sequence.contains_key("group")));
    for (line, expected) in [
        (line(json!("yes")), "`label`: expected true, false, 1 or 0, found \"yes\""),
        (line(json!(0.5)), "`label`: expected true, false, 1 or 0, found 0.5"),
        (json!({"prompt": "a", "completion": "b"}), "`label`: missing"),
    ] {
        let error = parse(RowKind::Unpaired, &[], &line).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

/// Catches data without one of both labels, or without any answer, that is trained on without a word.
#[test]
fn one_label_and_empty_answers_are_reported() {
    let tokenizer = Tokenizer::bytes().unwrap();
    let counts = |kind: RowKind, lines: &[Value]| Case { kind, ..bytes(&tokenizer) }.encode(lines).1;
    let labelled = |label: Value| json!({"prompt": "a", "completion": "b", "label": label});
    let of = |labels: [bool; 2]| counts(RowKind::Unpaired, &labels.map(|label| labelled(json!(label))));
    assert_eq!(
        [[true, true], [false, false], [true, false]].map(|l| of(l).only_label),
        [Some(true), Some(false), None]
    );
    let text = of([false, false]).to_string();
    assert!(text.contains("the label of every row is false: all answers are undesirable"), "{text}");
    let line = |completion: &str| json!({"prompt": "a", "completion": completion});
    // White space is learned, and a text without a token is dropped.
    let rows = [line(""), line(""), line(" \n"), line("b"), json!({"text": ""})];
    let found = counts(RowKind::PromptCompletion, &rows);
    assert_eq!((found.empty_answers, found.dropped_empty, found.only_label), (2, 1, None));
    assert!(found.to_string().contains("2 with an empty answer"), "{found}");
    let pair = |chosen: &str| json!({"prompt": "a", "chosen": chosen, "rejected": "c"});
    assert_eq!(counts(RowKind::Preference, &[pair(""), pair("b")]).empty_answers, 1);
}

/// Catches columns that are renamed one after the other, which fails if two swap names, and a column of the file
/// that is used although another was named.
#[test]
fn columns_may_have_other_names_in_the_file() {
    let swap = [("chosen", "rejected"), ("rejected", "chosen"), ("prompt", "question"), ("margin", "gap")];
    let line = json!({"question": "q", "prompt": "unused", "chosen": "bad", "rejected": "good", "gap": 2});
    let row = parse(RowKind::Preference, &swap, &line).unwrap();
    assert_eq!((row.text().prompt.as_str(), row.text().answer.as_deref()), ("q", Some("good")));
    assert_eq!(Value::Object(row.columns), json!({"original_prompt": "unused", "margin": 2}));
    let error = parse(RowKind::Prompt, &[("prompt", "question")], &json!({"prompt": "a"})).unwrap_err().to_string();
    assert_eq!(error, "rows.jsonl:1: needs `question` (data.columns.prompt); it has `prompt`");
}

/// For every kind, a prompt is on one side only. Catches a split that hashes the whole row, and pairs whose prompt
/// is only in their conversations.
#[test]
fn no_kind_of_row_has_a_prompt_on_both_sides() {
    fn question(i: usize) -> String {
        format!("question {}", i / 4)
    }
    type Line = fn(usize) -> Value;
    let folder = tempfile::tempdir().unwrap();
    let lines: [(RowKind, Line); 4] = [
        (
            RowKind::Preference,
            |i| json!({"prompt": question(i), "chosen": i.to_string(), "rejected": "no", "qid": i / 8}),
        ),
        (RowKind::Preference, |i| {
            let conversation = |answer: &str| json!([turn("user", &question(i)), turn("assistant", answer)]);
            json!({"chosen": conversation(&i.to_string()), "rejected": conversation("no"), "qid": i / 8})
        }),
        (RowKind::Prompt, |i| json!({"prompt": question(i), "answer": i, "qid": i / 8})),
        (RowKind::Unpaired, |i| json!({"prompt": question(i), "completion": "x", "label": i % 2, "qid": i / 8})),
    ];
    for (kind, line) in lines {
        let path = folder.path().join("rows.jsonl");
        fs::write(&path, (0..400).map(|i| format!("{}\n", line(i))).collect::<String>()).unwrap();
        for split in [Split::Share(0.3), Split::Groups { share: 0.3, column: "qid".into() }] {
            let paths = vec![path.display().to_string()];
            let corpus = RowOptions {
                paths,
                mix: Vec::new(),
                eval_paths: Vec::new(),
                split,
                columns: Columns::new(),
                format: None,
                separator: String::new(),
                named_by: None,
            }
            .read(kind)
            .unwrap();
            assert_eq!((corpus.kind, corpus.train.len() + corpus.held_out.len() + corpus.leaks), (kind, 400));
            let held_out: Vec<String> = corpus.held_out.to_vec().iter().map(Row::question).collect();
            assert!(
                held_out.len() > 40 && corpus.train.to_vec().iter().all(|row| !held_out.contains(&row.question())),
                "{kind:?}"
            );
        }
    }
}
