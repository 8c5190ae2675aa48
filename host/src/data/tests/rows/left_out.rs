//! Keys and columns of rows that nothing reads are reported, and no others.

use serde_json::{Value, json};

use super::encoding::{Case, bytes};
use crate::data::error::DataError;
use crate::data::rows::read::jsonl;
use crate::data::rows::store::survey::Survey;
use crate::data::rows::unread::undeclared;
use crate::data::rows::{Columns, Filter, Row, RowCounts, RowKind, RowOptions};
use crate::data::tokenizer::Tokenizer;

const TURNS: &str = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}";

fn conversation(answer: Value) -> Value {
    json!({"messages": [{"role": "user", "content": "q"}, answer]})
}

fn counts(template: &str, rows: &[Value]) -> RowCounts {
    let tokenizer = Tokenizer::bytes().unwrap();
    let case = Case { template: Some(template), longest: 512, ..bytes(&tokenizer) };
    case.encode(rows).1
}

fn unwritten(template: &str, rows: &[Value]) -> Vec<(String, usize)> {
    counts(template, rows).unwritten_keys.into_iter().collect()
}

/// Catches a key of messages that is silently dropped, one that is written and still reported, and a wrong count of
/// rows.
#[test]
fn keys_of_messages_that_a_template_does_not_write_are_reported_with_row_counts() {
    let answer = |more: Value| {
        let mut message = json!({"role": "assistant", "content": "a"});
        message.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        conversation(message)
    };
    let rows = [
        answer(json!({"reasoning_content": "r", "name": "bot", "weight": 1})),
        answer(json!({"thinking": "t", "images": ["i.png"], "audio": null, "refusal": ""})),
        answer(
            json!({"name": "bot", "content": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]}),
        ),
        answer(json!({})),
    ];
    let named = |keys: &[(&str, usize)]| keys.iter().map(|(key, rows)| ((*key).to_owned(), *rows)).collect::<Vec<_>>();
    let all = [("content.cache_control", 1), ("images", 1), ("name", 2), ("reasoning_content", 1), ("thinking", 1)];
    assert_eq!(unwritten(TURNS, &rows), named(&all));
    let notes = counts(TURNS, &rows).to_string();
    assert!(notes.contains("keys of messages that the chat template does not write: content.cache_control in 1 row, images in 1 row, name in 2 rows"), "{notes}");
    // A template that reads a key under any of its names, or tests whether it exists.
    let reads =
        TURNS.replace("{{ m.content }}", "<{{ m.thinking }}>{% if m.name is defined %}!{% endif %}{{ m.content }}");
    assert_eq!(unwritten(&reads, &rows), named(&[("content.cache_control", 1), ("images", 1)]));
    // A template that reads it in some rows only counts as reading it.
    let long = TURNS.replace("{{ m.content }}", "{% if m.images %}{{ m.images | length }}{% endif %}{{ m.content }}");
    assert!(!unwritten(&long, &rows).iter().any(|(key, _)| key == "images"));
    // A template that mentions a key but never writes its value.
    let mentions = TURNS.replace("{{ m.content }}", "{% set unused = m.images %}{{ m.content }}");
    assert!(unwritten(&mentions, &rows).iter().any(|(key, _)| key == "images"));
    // Reasoning of earlier turns is left out on purpose, but that of the last turn is written.
    let last_only =
        TURNS.replace("{{ m.content }}", "{% if loop.last %}<{{ m.reasoning_content }}>{% endif %}{{ m.content }}");
    let turn = |content: &str| json!({"role": "assistant", "content": content, "reasoning_content": "r"});
    let user = json!({"role": "user", "content": "q"});
    assert_eq!(unwritten(&last_only, &[json!({"messages": [user, turn("a"), user, turn("b")]})]), []);
}

/// Catches a note for ordinary templates, and a missing note where generation begins with text that is never
/// learned.
#[test]
fn a_generation_prompt_that_differs_from_learned_text_is_reported() {
    let row = conversation(json!({"role": "assistant", "content": "a"}));
    let opening = |template: &str| counts(template, std::slice::from_ref(&row)).other_opening;
    let chatml = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    let no_opening = "{% for m in messages %}{{ m.content }}{% endfor %}";
    for template in [TURNS, chatml, no_opening] {
        assert_eq!(opening(template), None, "{template}");
    }
    let thinks = chatml.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}");
    let found = opening(&thinks).unwrap_or_default();
    assert!(found.contains(r#""<|im_start|>assistant\n<think>\n""#), "{found}");
    assert!(found.contains(r#""<|im_start|>assistant\na<|im_end|>"#) && found.contains("rows.jsonl:1"), "{found}");
    // A mark around the header and the answer: generation begins with the header, which is learned too.
    let header_marked = "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endgeneration %}{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    assert_eq!(opening(header_marked), None);
    let other = header_marked.replace("<|im_start|>assistant\n{% endif %}", "<|start|>assistant\n{% endif %}");
    let found = opening(&other).unwrap_or_default();
    assert!(found.contains(r#"writes "<|im_start|>assistant\na<|im_end|>\n" there"#), "{found}");
    // With marks, a generation prompt that is missing or too short leaves out text that precedes every learned
    // answer.
    for (writes, is_named) in [("A:", false), ("A", true), ("", true)] {
        let marks = format!(
            "{{% for m in messages %}}{{% if m.role == 'assistant' %}}A:{{% generation %}}{{{{ m.content }}}}{{% endgeneration %}}\
             {{% else %}}{{{{ m.content }}}};{{% endif %}}{{% endfor %}}{{% if add_generation_prompt %}}{writes}{{% endif %}}"
        );
        let found = opening(&marks);
        assert_eq!(
            found.is_some_and(|note| note.contains(&format!("{writes:?} (add_generation_prompt), but writes \"A:\""))),
            is_named
        );
    }
}

/// Catches a column of numbers that nothing reads and that is not reported, and a note for one that is read.
#[test]
fn unused_numeric_columns_are_reported() {
    let read = |line: Value, kind| -> Row {
        jsonl::parse("rows.jsonl".as_ref(), &line.to_string(), kind, &Columns::new()).unwrap().remove(0)
    };
    let line = json!({"prompt": "p", "completion": "c", "weight": 0.5, "good": true, "fold": 3, "source": "s", "nothing": null,
        "completion_ended": true, "other_ended": false});
    let row = read(line, RowKind::PromptCompletion);
    let mentions = |name: &str| name == "good";
    let found = |row: &Row, kind, own: &[&str]| {
        undeclared(&Survey::of(row), kind, &own.iter().map(|name| (*name).to_owned()).collect(), mentions)
    };
    assert_eq!(found(&row, RowKind::PromptCompletion, &["fold"]), ["other_ended", "weight"]);
    let pair = json!({"prompt": "p", "chosen": "c", "rejected": "d", "chosen_ended": 1, "rejected_score": 0.25, "margin": 1.0});
    assert_eq!(found(&read(pair, RowKind::Preference), RowKind::Preference, &[]), ["margin"]);
    let prompt = json!({"prompt": "p", "answer": 7, "label": 1});
    assert_eq!(found(&read(prompt, RowKind::Prompt), RowKind::Prompt, &[]), ["label"]);
    let counts = RowCounts { undeclared_columns: vec!["weight".into()], ..RowCounts::default() };
    assert!(
        counts.to_string().contains("columns of numbers that no objective, reward or option names: weight"),
        "{counts}"
    );
}

/// Catches a limit that is not applied, applied after truncation, or to one answer of a pair only; and rows that are dropped
/// without a count.
#[test]
fn rows_of_other_lengths_are_dropped_and_counted() {
    let tokenizer = Tokenizer::bytes().unwrap();
    let rows = ["a", "abcd", "abcdefghij"].map(|completion| json!({"prompt": "p: ", "completion": completion}));
    let filter = |filter: Filter| Case { filter, longest: 9, ..bytes(&tokenizer) }.encode(&rows).1;
    let found = filter(Filter { min_tokens: Some(5), max_chars: Some(12), ..Filter::default() });
    assert_eq!(found.train, 1);
    let counted: Vec<_> = found.filtered.clone().into_iter().collect();
    assert_eq!(counted, [("max_chars = 12".to_owned(), 1), ("min_tokens = 5".to_owned(), 1)]);
    assert!(
        found.to_string().contains("; 1 dropped: data.filter.max_chars = 12; 1 dropped: data.filter.min_tokens = 5"),
        "{found}"
    );
    assert_eq!(filter(Filter { max_tokens: Some(12), ..Filter::default() }).filtered.len(), 1);
    assert_eq!(filter(Filter { max_tokens: Some(13), ..Filter::default() }).filtered.len(), 0);
    let pairs = [
        json!({"prompt": "p", "chosen": "ab", "rejected": "abcdef"}),
        json!({"prompt": "p", "chosen": "a", "rejected": "b"}),
    ];
    let case = Case {
        filter: Filter { max_tokens: Some(4), ..Filter::default() },
        kind: RowKind::Preference,
        ..bytes(&tokenizer)
    };
    assert_eq!(case.encode(&pairs).1.filtered.values().sum::<usize>(), 1);
}

/// Catches advice about answers where the filter drops every row, and a limit without the key that changes it.
#[test]
fn rows_that_a_limit_drops_are_named_with_it() {
    let filtered = [("min_tokens = 5".to_owned(), 3)].into();
    let counts = RowCounts { filtered, dropped_empty: 1, ..RowCounts::default() };
    let error = DataError::NoRowLeft { what: "r".into(), purpose: "train", longest: 8, counts: Box::new(counts) };
    assert!(error.hint().is_some_and(|hint| hint.contains("data.filter") && !hint.contains("empty")), "{error}");
    let long = RowCounts { dropped_too_long: 2, ..RowCounts::default() }.to_string();
    assert!(long.contains("no token of the answer fits (data.max_length"), "{long}");
}

/// Catches a run that cannot be resumed because a newer version counts empty answers by another rule.
#[test]
fn empty_answers_are_not_compared() {
    let counts = |empty_answers| RowCounts { empty_answers, dropped_empty: 1, ..RowCounts::default() };
    assert_eq!(counts(3).without_notes(), counts(0).without_notes());
    assert_ne!(RowCounts { dropped_empty: 2, ..counts(3) }.without_notes(), counts(3).without_notes());
}

/// Catches a remedy that names a table of an experiment in a command that has none.
#[test]
fn remedies_name_what_the_command_has() {
    use crate::data::rows::columns::NamedBy;
    let names = [("prompt", "q"), ("completion", "a")];
    for (by, expected, format) in [
        (
            NamedBy::Table("data.columns".into()),
            "data.columns renames columns: data.columns = { prompt = \"q\", completion = \"a\" }",
            Some("data.format = \"alpaca\""),
        ),
        (
            NamedBy::Flag { has_format: true },
            "--column KEY=NAME renames columns: --column prompt=q --column completion=a",
            Some("--format alpaca"),
        ),
        (
            NamedBy::Flag { has_format: false },
            "--column KEY=NAME renames columns: --column prompt=q --column completion=a",
            None,
        ),
        (NamedBy::File, "rename the columns in the file: `q` to `prompt`, `a` to `completion`", None),
    ] {
        assert_eq!((by.rename(&names).as_str(), by.format(&["alpaca"]).as_deref()), (expected, format));
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r.jsonl");
    std::fs::write(&path, json!({"question": "q", "answer": "a"}).to_string()).unwrap();
    let read = |named_by| {
        let all = RowOptions::all(vec![path.display().to_string()], Columns::new());
        RowOptions { named_by, ..all }.read(RowKind::PromptCompletion).map(|_| ()).unwrap_err().to_string()
    };
    assert!(
        read(Some(NamedBy::Flag { has_format: false }))
            .ends_with("--column prompt=question --column completion=answer")
    );
    assert!(read(None).contains("data.columns = { prompt"));
    std::fs::write(&path, "[]").unwrap();
    let all = RowOptions::all(vec![path.display().to_string()], Columns::new());
    let error = all.read(RowKind::PromptCompletion).map(|_| ()).unwrap_err();
    assert!(
        error.to_string().ends_with(" has no row") && !error.hint().unwrap_or_default().contains("data."),
        "{error}"
    );
}
