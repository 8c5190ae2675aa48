//! Rows in the shapes of other tools.

use serde_json::{Value, json};

use super::encoding::{Case, bytes};
use crate::data::rows::read::jsonl;
use crate::data::rows::store::survey::Survey;
use crate::data::rows::unread::unread;
use crate::data::rows::{Columns, Row, RowKind};
use crate::data::tokenizer::Tokenizer;

const END: &str = "<|endoftext|>";

fn row(kind: RowKind, line: &Value) -> Result<Row, String> {
    let rows = jsonl::parse("rows.jsonl".as_ref(), &line.to_string(), kind, &Columns::new());
    rows.map(|mut rows| rows.remove(0)).map_err(|error| error.to_string())
}

fn turn(role: &str, content: impl Into<Value>) -> Value {
    json!({"role": role, "content": content.into()})
}

fn parts(texts: &[&str]) -> Value {
    texts.iter().map(|text| json!({"type": "text", "text": text})).collect()
}

/// A template that writes parts itself, one that writes strings only, and one that drops what is not a string.
const PARTS: &str = "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}<{{ p.text }}>\
                     {% endfor %}{% endif %}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}";
const STRINGS: &str =
    "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}";
const DROPS: &str = "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% endif %}\
                     {% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}";

/// Catches a list's notation, or nothing, that is learned instead of its text, and parts that never reach the
/// template.
#[test]
fn contents_in_parts_reach_templates_that_read_them_and_are_joined_for_others() {
    let tokenizer = Tokenizer::bytes().unwrap();
    let line = json!({"messages": [turn("user", parts(&["a", "b "])), turn("assistant", parts(&["c"]))]});
    for (template, shown) in [
        (None, format!("ab \n[c{END}]")),
        (Some(STRINGS), format!("ab [c{END}]")),
        (Some(DROPS), format!("ab [c{END}]")),
        (Some(PARTS), format!("<a><b >[<c>{END}]")),
    ] {
        assert_eq!(Case { template, ..bytes(&tokenizer) }.all_shown(line.clone()), [shown], "{template:?}");
    }
    let text = row(RowKind::PromptCompletion, &line).unwrap().text();
    assert_eq!((text.prompt.as_str(), text.answer.as_deref()), ("ab ", Some("c")));
}

/// Every error has its place.
#[test]
fn messages_that_cannot_be_learned_are_refused_by_their_place() {
    let image = json!([{"type": "text", "text": "a"}, {"type": "image", "image": "b.png"}]);
    let ask = turn("user", "q");
    for (messages, expected) in [
        (
            json!([turn("user", image), turn("assistant", "c")]),
            "`messages[0].content[1].type`: \"image\" is not supported",
        ),
        (
            json!([turn("user", json!([{"type": "text"}])), turn("assistant", "c")]),
            "`messages[0].content[0].text`: missing",
        ),
        (json!([turn("user", json!([])), turn("assistant", "c")]), "`messages[0].content`: an empty list of parts"),
        (json!([ask, turn("assistant", Value::Null)]), "`messages[1].content`: null, and the message calls no tool"),
        (
            json!([ask, {"role": "assistant", "tool_calls": null}]),
            "`messages[1].content`: missing, and the message calls no tool",
        ),
        (json!([ask, turn("Assistant", "c")]), "`messages[1].role`: \"Assistant\", which would not be learned"),
        (json!([ask, turn("model", "c")]), "there is nothing to learn; the roles are \"user\", \"model\""),
        (json!([{"from": "alien", "value": "x"}]), "`messages[0].from`: \"alien\" is not a known speaker"),
    ] {
        let error = row(RowKind::PromptCompletion, &json!({"messages": messages})).unwrap_err();
        assert!(error.starts_with("rows.jsonl:1: ") && error.contains(expected), "{error}");
    }
    let calls =
        json!({"messages": [ask, {"role": "assistant", "tool_calls": [{"name": "f"}]}, turn("assistant", "c")]});
    assert!(row(RowKind::PromptCompletion, &calls).is_ok());
}

/// Catches the messages of a role that a template silently drops.
#[test]
fn a_role_that_the_template_leaves_out_is_refused() {
    let tokenizer = Tokenizer::bytes().unwrap();
    let known = "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% elif m.role == 'assistant' %}{{ m.content }}{% endif %}{% endfor %}";
    let case = |template| Case { template, ..bytes(&tokenizer) };
    let line = json!({"messages": [turn("developer", "rules"), turn("user", "q"), turn("assistant", "a")]});
    let error = case(Some(known)).data(std::slice::from_ref(&line)).map(|_| ()).unwrap_err().to_string();
    let expected = "rows.jsonl:1: the chat template does not write message 1: it does not know the role \"developer\"";
    assert!(error.starts_with(expected), "{error}");
    assert_eq!(case(Some(STRINGS)).all_shown(line.clone()), [format!("rulesq[a{END}]")]);
    assert_eq!(case(None).all_shown(line), [format!("rules\nq\n[a{END}]")]);
}

/// Catches roles that are not mapped, and conversations that stay a column.
#[test]
fn conversations_of_sharegpt_are_messages() {
    let message = |from: &str, value: &str| json!({"from": from, "value": value});
    let talk = json!([message("system", "s"), message("human", "q"), message("gpt", "a")]);
    let tokenizer = Tokenizer::bytes().unwrap();
    assert_eq!(bytes(&tokenizer).all_shown(json!({"conversations": talk, "id": "x"})), [format!("s\nq\n[a{END}]")]);
    let pair = json!({"conversations": [message("human", "q")], "chosen": message("gpt", "a"), "rejected": message("gpt", "b")});
    let pairs = Case { kind: RowKind::Preference, ..bytes(&tokenizer) };
    assert_eq!(pairs.all_shown(pair), [format!("q\n[a{END}]"), format!("q\n[b{END}]")]);
    let both = json!({"messages": [turn("user", "m"), turn("assistant", "n")], "conversations": talk});
    assert!(row(RowKind::PromptCompletion, &both).is_err_and(|error| error.contains("`messages` or `conversations`")));
}

fn pair(line: &Value) -> Result<[Value; 3], String> {
    use crate::data::rows::{Content, Part};
    let row = row(RowKind::Preference, line)?;
    Ok([Part::Prompt, Part::Chosen, Part::Rejected].map(|part| match &row.parts[&part] {
        Content::Text(text) => json!(text),
        Content::Messages(messages) => json!(messages),
    }))
}

/// Catches a null that is not named, advice to rename what is not there, and an empty list under another name than the file's.
#[test]
fn rows_without_a_value_say_what_is_missing() {
    let null = "; it has no value; `text` is null, which counts as missing: give it a value, \"\" for an empty one, or remove the row";
    for (line, expected) in [
        (json!({"text": null}), null),
        (json!({}), "or `prompt` and `completion`; it has no column"),
        (json!({"conversations": null}), "it has no value; `conversations` is null, which counts as missing"),
        (json!({"conversations": []}), "rows.jsonl:1: `conversations`: no message in the list"),
        (json!({"messages": []}), "rows.jsonl:1: `messages`: no message in the list"),
    ] {
        let error = row(RowKind::PromptCompletion, &line).unwrap_err();
        assert!(error.contains(expected) && !error.contains("renames"), "{line}: {error}");
    }
}

/// The cases with strings are examples from TRL's documentation of implicit prompts and of `extract_prompt`.
/// Catches a prompt that is learned, doubled or lost.
#[test]
fn the_prompt_of_a_pair_is_the_common_beginning_of_its_answers() {
    let (sys, ask, yes, no) = (turn("system", "s"), turn("user", "Q"), turn("assistant", "A"), turn("assistant", "B"));
    let whole = |first: &[&Value], last: &Value| -> Value { first.iter().copied().chain([last]).cloned().collect() };
    let expected = Ok([json!([sys, ask]), json!([yes]), json!([no])]);
    let line = |prompt: Value, first: &[&Value]| json!({"prompt": prompt, "chosen": whole(first, &yes), "rejected": whole(first, &no)});
    for prompt in [json!("Q"), json!(" Q \n"), json!([ask]), json!([sys, ask]), json!("s\nQ")] {
        assert_eq!(pair(&line(prompt.clone(), &[&sys, &ask])), expected, "{prompt}");
    }
    // The conversations begin after the system message.
    assert_eq!(pair(&line(json!([sys, ask]), &[&ask])), expected);
    assert_eq!(pair(&line(json!([sys, ask]), &[])), expected);
    // One has more keys than the other.
    let named = json!({"role": "user", "content": "Q", "name": "n"});
    assert_eq!(pair(&line(json!("Q"), &[&named])), Ok([json!([named]), json!([yes]), json!([no])]));
    let error = pair(&line(json!("another"), &[&sys, &ask])).unwrap_err();
    assert!(error.starts_with("rows.jsonl:1: `prompt` is not among the messages"), "{error}");

    for (chosen, rejected, expected) in [
        ("The sky is blue.", "The sky is green.", ["The sky is", " blue.", " green."]),
        ("a? yes", "a? no", ["a?", " yes", " no"]),
        ("a b", "a b c", ["a ", "b", "b c"]),
        ("ü: ä", "ü: ö", ["ü:", " ä", " ö"]),
        (
            "\n\nHuman: h\n\nAssistant: I am x",
            "\n\nHuman: h\n\nAssistant: I am y",
            ["\n\nHuman: h\n\nAssistant:", " I am x", " I am y"],
        ),
    ] {
        assert_eq!(pair(&json!({"chosen": chosen, "rejected": rejected})), Ok(expected.map(|text| json!(text))));
    }
}

/// Catches prompts that are learned twice.
#[test]
fn a_completion_may_repeat_its_prompt() {
    let tokenizer = Tokenizer::bytes().unwrap();
    let line = json!({"prompt": "q", "completion": [turn("user", "q"), turn("assistant", "a")]});
    assert_eq!(bytes(&tokenizer).all_shown(line), [format!("q\n[a{END}]")]);
}

/// Catches the end of an answer that a template writes although the model must not learn it.
#[test]
fn a_template_does_not_end_an_answer_that_was_cut_off() {
    let tokenizer = Tokenizer::bytes().unwrap();
    let case = |template| Case { kind: RowKind::Preference, template, ..bytes(&tokenizer) };
    let line = json!({"prompt": [turn("user", "q")], "chosen": [turn("assistant", "a a")], "rejected": [turn("assistant", "b")],
        "chosen_ended": false, "rejected_ended": true});
    assert_eq!(case(None).all_shown(line.clone()), ["q\n[a a]".to_owned(), format!("q\n[b{END}]")]);
    assert_eq!(case(Some(STRINGS)).all_shown(line), ["q[a a]".to_owned(), format!("q[b{END}]")]);
    let strings = json!({"prompt": "q", "chosen": "a", "rejected": "b", "chosen_ended": true, "rejected_ended": false});
    assert_eq!(case(Some(STRINGS)).all_shown(strings), [format!("q[a{END}]"), "q[b]".to_owned()]);
}

/// Catches a list's JSON that is treated as an answer, and lists that cannot contain a right answer.
#[test]
fn gotcha_48_any_answer_of_a_list_is_right() {
    let line = |answer: Value| json!({"prompt": "q", "answer": answer});
    let text = row(RowKind::Prompt, &line(json!(["a", 7, 9007199254740993_u64]))).unwrap().text();
    assert_eq!(
        (text.answer.as_deref(), text.more_answers),
        (Some("a"), vec!["7".to_owned(), "9007199254740993".to_owned()])
    );
    for (answer, expected) in [
        (json!([]), "an empty list"),
        (json!(["a", ["b"]]), "a list at place 1 of the list"),
        (json!([null]), "null at place 0 of the list"),
        (json!({"value": "a"}), "an object; a right answer is a string or a number"),
    ] {
        let error = row(RowKind::Prompt, &line(answer)).unwrap_err();
        assert!(error.starts_with(&format!("rows.jsonl:1: `answer`: {expected}")), "{error}");
    }
    // For rows that have a completion it is a column like any other.
    let other = json!({"prompt": "q", "completion": "c", "answer": {"value": "a"}});
    assert!(row(RowKind::PromptCompletion, &other).is_ok());
}

/// Catches rounded integers in columns, messages and answers.
#[test]
fn gotcha_53_integers_in_rows_stay_exact() {
    use plugin_api::reward::Column;
    let large = 9_007_199_254_740_993_u64;
    let tokenizer = Tokenizer::bytes().unwrap();
    let case = Case {
        template: Some(
            "{% for m in messages %}{{ m.content }}{% if m.n %}{{ m.n }}{{ m.n | tojson }}{% endif %}{{ eos_token }}{% endfor %}",
        ),
        ..bytes(&tokenizer)
    };
    let line = json!({"messages": [{"role": "user", "content": "", "n": large}, turn("assistant", "a")]});
    let shown = case.all_shown(line).remove(0);
    assert!(shown.starts_with(&format!("{large}{large}{END}")), "{shown}");
    let line = json!({"prompt": "q", "answer": large, "id": large, "small": large - 1});
    let row = row(RowKind::Prompt, &line).unwrap();
    let text = row.text();
    assert_eq!(text.answer, Some(large.to_string()));
    assert_eq!(text.columns[1].1, Column::Text(large.to_string()));
    assert_eq!(text.columns[2].1, Column::Number((large - 1) as f64));
    assert_eq!(Survey::of(&row).inexact(), ["answer", "id"]);
}

/// Catches columns of numbers that are reported although they reach the objective, and reported columns that
/// something reads.
#[test]
fn unread_text_columns_are_reported() {
    let line = json!({"prompt": "q", "completion": "c", "input": "x", "system": "y", "score": 1, "none": null, "meta": {"a": 1}});
    let sft = row(RowKind::PromptCompletion, &line).unwrap();
    assert_eq!(unread(&Survey::of(&sft), RowKind::PromptCompletion, &["system".to_owned()].into()), ["input", "meta"]);
    let prompt = row(RowKind::Prompt, &json!({"prompt": "q", "answer": "a", "source": "s"})).unwrap();
    assert_eq!(unread(&Survey::of(&prompt), RowKind::Prompt, &Default::default()), ["source"]);
}

/// Each with the command that converts it to rows.
#[test]
fn rows_of_other_shapes_are_refused_with_a_remedy() {
    for (line, expected) in [
        (
            json!({"instruction": "a", "answer": "c"}),
            "data.columns = { prompt = \"instruction\", completion = \"answer\" }",
        ),
        (json!({"data": [{"prompt": "a"}]}), "jq -c '.data[]' rows.jsonl > rows.converted.jsonl"),
        (turn("user", "a"), "this is a message, and a row contains a conversation"),
        (json!({"question": "a", "answer": "b"}), "data.columns = { prompt = \"question\", completion = \"answer\" }"),
    ] {
        let error = row(RowKind::PromptCompletion, &line).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}
