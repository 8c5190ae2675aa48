//! The forms in which data sets are published: each row becomes the parts that its form means, and what is ambiguous is refused.

use serde_json::{Value, json};

use crate::data::rows::read::jsonl;
use crate::data::rows::store::survey::Survey;
use crate::data::rows::unread::copies;
use crate::data::rows::{Columns, Content, Format, Part, Row, RowCounts, RowKind};

fn read(line: &Value, kind: RowKind, format: Option<Format>) -> Result<(Row, Format), String> {
    let read = jsonl::parse_bytes("r.jsonl".as_ref(), line.to_string().as_bytes(), kind, &Columns::new(), format);
    let (mut rows, mut formats) = read.map_err(|error| error.to_string())?;
    match (rows.pop(), formats.pop()) {
        (Some(row), Some(format)) => Ok((row, format)),
        _ => Err("left out".to_owned()),
    }
}

/// The parts of a row: texts as they are, conversations as `role: content` lines.
fn shown((row, format): (Row, Format)) -> String {
    let part = |(part, content): (&Part, &Content)| match content {
        Content::Text(text) => format!("{}={text:?}", part.name()),
        Content::Messages(messages) => {
            let lines = messages.iter().map(|m| format!("{}: {}", m["role"].as_str().unwrap(), m["content"]));
            format!("{}=[{}]", part.name(), lines.collect::<Vec<_>>().join(", "))
        }
    };
    let columns: String = row.columns.keys().map(|name| format!(" +{name}")).collect();
    let parts = row.parts.iter().map(part).collect::<Vec<_>>().join(" ");
    format!("{}: {parts}{columns}", format.name())
}

/// Catches a form that is not recognised, one that loses a column (the input, the system prompt), and one that is read as
/// another.
#[test]
fn published_forms_are_recognised_by_their_columns() {
    use RowKind::{Preference, Prompt, PromptCompletion, Unpaired};
    let turns = json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]);
    let sharegpt = json!([{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]);
    let dialogue = |answer: &str| format!("\n\nHuman: q\n\nAssistant: {answer}");
    for (kind, line, expected) in [
        (PromptCompletion, json!({"text": "t"}), r#"text: prompt="" completion="t""#),
        (
            PromptCompletion,
            json!({"prompt": "p", "completion": "c"}),
            r#"prompt-completion: prompt="p" completion="c""#,
        ),
        (PromptCompletion, json!({"messages": turns}), r#"messages: messages=[user: "q", assistant: "a"]"#),
        (PromptCompletion, json!({"conversations": sharegpt}), r#"sharegpt: messages=[user: "q", assistant: "a"]"#),
        (
            PromptCompletion,
            json!({"prompt": "p", "completions": ["a", "b"], "labels": [true, false]}),
            r#"stepwise: prompt="p" completion="ab" +labels"#,
        ),
        (
            PromptCompletion,
            json!({"instruction": "i", "input": "n", "output": "o"}),
            r#"alpaca: prompt=[user: "i\n\nn"] completion=[assistant: "o"]"#,
        ),
        (
            PromptCompletion,
            json!({"instruction": "i", "input": "", "output": "o", "system": "s"}),
            r#"alpaca: prompt=[system: "s", user: "i"] completion=[assistant: "o"]"#,
        ),
        (
            PromptCompletion,
            json!({"system_prompt": "s", "question": "q", "response": "r", "id": 1}),
            r#"orca: prompt=[system: "s", user: "q"] completion=[assistant: "r"] +id"#,
        ),
        (
            Preference,
            json!({"prompt": "p", "chosen": "c", "rejected": "r"}),
            r#"preference: prompt="p" chosen="c" rejected="r""#,
        ),
        (
            Preference,
            json!({"chosen": "p c", "rejected": "p r"}),
            r#"preference-implicit: prompt="p" chosen=" c" rejected=" r""#,
        ),
        (
            Preference,
            json!({"chosen": dialogue("a"), "rejected": dialogue("b")}),
            r#"hh: prompt="\n\nHuman: q\n\nAssistant:" chosen=" a" rejected=" b""#,
        ),
        (
            Preference,
            json!({"system": "", "question": "q", "chosen": "c", "rejected": "r"}),
            r#"orca: prompt=[user: "q"] chosen=[assistant: "c"] rejected=[assistant: "r"]"#,
        ),
        (
            Preference,
            json!({"question": "q?", "chosen": "To q? I say c", "rejected": "r to q?"}),
            r#"orca: prompt=[user: "q?"] chosen=[assistant: "To q? I say c"] rejected=[assistant: "r to q?"]"#,
        ),
        (
            Preference,
            json!({"question": "q", "chosen": {"role": "assistant", "content": "c"}, "rejected": [{"role": "assistant", "content": "r"}]}),
            r#"orca: prompt=[user: "q"] chosen=[assistant: "c"] rejected=[assistant: "r"]"#,
        ),
        (
            Preference,
            json!({"question": "q", "chosen": dialogue("a"), "rejected": dialogue("b")}),
            r#"hh: prompt="\n\nHuman: q\n\nAssistant:" chosen=" a" rejected=" b" +question"#,
        ),
        (
            Preference,
            json!({"instruction": "i", "input": "n", "chosen": "c", "rejected": "r"}),
            r#"alpaca: prompt=[user: "i\n\nn"] chosen=[assistant: "c"] rejected=[assistant: "r"]"#,
        ),
        (
            Preference,
            json!({"instruction": "i", "completions": [
                {"response": "x", "overall_score": 3.0}, {"response": "y", "overall_score": 7.5}, {"response": "z", "overall_score": 1.0}
            ]}),
            r#"ultrafeedback: prompt=[user: "i"] chosen=[assistant: "y"] rejected=[assistant: "z"]"#,
        ),
        (
            Unpaired,
            json!({"prompt": "p", "completion": "c", "label": true}),
            r#"unpaired: prompt="p" completion="c" +label"#,
        ),
        (
            Unpaired,
            json!({"instruction": "i", "output": "o", "label": false}),
            r#"alpaca: prompt=[user: "i"] completion=[assistant: "o"] +label"#,
        ),
        (Prompt, json!({"prompt": "p", "answer": 1}), r#"prompt: prompt="p" +answer"#),
        (Prompt, json!({"system": "s", "question": "q"}), r#"orca: prompt=[system: "s", user: "q"]"#),
        (Prompt, json!({"instruction": "i", "input": null}), r#"alpaca: prompt=[user: "i"]"#),
    ] {
        let found = read(&line, kind, None).map(shown).unwrap_or_else(|error| error);
        assert_eq!(found, expected, "{line}");
    }
    let same = json!({"instruction": "i", "completions": [{"response": "x", "overall_score": 3}, {"response": "y", "overall_score": 3}]});
    assert_eq!(read(&same, Preference, None).map(shown), Err("left out".into()));
}

/// Catches pairs whose answers both begin with the question, and which are split there, or not, without a word.
#[test]
fn pairs_that_may_begin_with_their_question_are_refused() {
    let line = json!({"question": "2+2?", "chosen": "2+2? It is 4", "rejected": "2+2? It is 5"});
    let error = read(&line, RowKind::Preference, None).unwrap_err();
    assert!(
        error.contains("as \"preference-implicit\" (`chosen`") && error.contains("data.format = \"orca\""),
        "{error}"
    );
    for (format, expected) in [
        (
            Format::Orca,
            r#"orca: prompt=[user: "2+2?"] chosen=[assistant: "2+2? It is 4"] rejected=[assistant: "2+2? It is 5"]"#,
        ),
        (Format::PreferenceImplicit, r#"preference-implicit: prompt="2+2? It is" chosen=" 4" rejected=" 5" +question"#),
    ] {
        assert_eq!(read(&line, RowKind::Preference, Some(format)).map(shown).unwrap(), expected);
    }
}

/// Catches a row that is read in one of two ways without a word, a key that does not decide, and a row that was read before and
/// is now refused.
#[test]
fn ambiguous_rows_are_refused_with_the_key_that_decides() {
    let kind = RowKind::PromptCompletion;
    let alpaca = json!({"instruction": "i", "input": "n", "output": "o", "text": "all"});
    let error = read(&alpaca, kind, None).unwrap_err();
    for part in ["as \"text\" (`text`, of which", "or as \"alpaca\" (`instruction`", "data.format = \"alpaca\""] {
        assert!(error.contains(part), "{error}");
    }
    for (format, expected) in [
        (Format::Text, r#"text: prompt="" completion="all" +instruction +input +output"#),
        (Format::Alpaca, r#"alpaca: prompt=[user: "i\n\nn"] completion=[assistant: "o"] +text"#),
    ] {
        assert_eq!(read(&alpaca, kind, Some(format)).map(shown).unwrap(), expected);
    }
    let template = shown(read(&alpaca, kind, Some(Format::AlpacaTemplate)).unwrap());
    assert!(template.contains("context. Write a response that appropriately completes the request.\\n\\n### Instruction:\\ni\\n\\n### Input:\\nn\\n\\n### Response:\" completion=\"o\""), "{template}");
    let both = json!({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "prompt": "p", "completion": "c", "text": "t"});
    let error = read(&both, kind, None).unwrap_err();
    assert!(
        error.ends_with(
            "the row can be read from `messages` or `prompt` with `completion`: drop or rename the columns that are not meant, \
             or decide with data.format = \"messages\" or \"prompt-completion\""
        ),
        "{error}"
    );
    assert!(shown(read(&both, kind, Some(Format::Messages)).unwrap()).starts_with("messages: "));
    assert!(
        shown(read(&both, kind, Some(Format::PromptCompletion)).unwrap())
            .starts_with("prompt-completion: prompt=\"p\"")
    );
    let error = read(&json!({"prompt": "p", "completion": "c"}), kind, Some(Format::Alpaca)).unwrap_err();
    assert!(
        error.contains(
            "data.format = \"alpaca\" reads `instruction`, `input` and `output`; the row has `prompt`, `completion`"
        ),
        "{error}"
    );
    let error = read(&json!({"prompt": "p", "completion": "c"}), kind, Some(Format::Messages)).unwrap_err();
    assert!(error.contains("needs `messages`; it has `prompt`, `completion`"), "{error}");
}

/// Catches one of two whole conversations that is trained on without a word.
#[test]
fn rows_with_two_examples_are_refused() {
    let turns = |answer: &str| json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": answer}]);
    let kind = RowKind::PromptCompletion;
    let both = json!({"messages": turns("a"), "conversations": turns("b")});
    let error = read(&both, kind, None).unwrap_err();
    assert!(error.contains("from `messages` or `conversations`: drop") && error.contains("\"sharegpt\""), "{error}");
    for (format, answer) in [(Format::Messages, "a"), (Format::ShareGpt, "b")] {
        let found = shown(read(&both, kind, Some(format)).unwrap());
        assert!(found.contains(&format!("assistant: \"{answer}\"")), "{found}");
    }
    let prompts =
        json!({"messages": [{"role": "user", "content": "p"}], "conversations": [{"role": "user", "content": "q"}]});
    assert!(read(&prompts, RowKind::Prompt, None).is_err());
    let mixed = json!({"prompt": "p", "completion": "c", "conversations": turns("b")});
    assert!(read(&mixed, kind, None).unwrap_err().contains("from `conversations` or `prompt` with `completion`"));
}

/// Catches published sets that are refused because they repeat a part of the row, and the copy that is read or not reported. The rows
/// have the columns of HuggingFaceH4/ultrachat_200k and HuggingFaceH4/ultrafeedback_binarized.
#[test]
fn copies_of_the_prompt_beside_a_row_are_reported() {
    use RowKind::{Preference, PromptCompletion};
    let turns = |answer: &str| json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": answer}]);
    let ultrachat = json!({"prompt": "q", "prompt_id": "f0e3", "messages": turns("a")});
    let ultrafeedback = json!({
        "prompt": "q", "prompt_id": "f0e3", "chosen": turns("a"), "rejected": turns("b"), "messages": turns("a"),
        "score_chosen": 8.5, "score_rejected": 7.0
    });
    for (line, kind, expected, line_of_counts) in [
        (
            &ultrachat,
            PromptCompletion,
            r#"messages: messages=[user: "q", assistant: "a"] +prompt +prompt_id"#,
            "1 row to train on, 0 held out, read as messages (`prompt` is not read)",
        ),
        (
            &ultrafeedback,
            Preference,
            r#"preference: prompt="q" chosen=[assistant: "a"] rejected=[assistant: "b"] +prompt_id +messages +score_chosen +score_rejected"#,
            "1 pair to train on, 0 held out, read as preference (`messages` is not read)",
        ),
    ] {
        let (row, format) = read(line, kind, None).unwrap();
        let unread_columns = copies(&Survey::of(&row), kind);
        assert_eq!(shown((row, format)), expected);
        let formats = [(format.name().to_owned(), 1)].into();
        let counts = RowCounts { kind, train: 1, formats, unread_columns, ..RowCounts::default() };
        assert_eq!(counts.to_string(), line_of_counts);
    }
}
