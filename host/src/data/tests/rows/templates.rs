//! Compares renders of chat templates with those of transformers, in a table of `tests/references/templates`.

use std::fs;

use serde_json::{Map, Value, json};

use crate::data::rows::read::integers::keep;
use crate::data::rows::write::template::{Rendered, Variables};
use crate::data::rows::{ChatTemplate, Columns, Message};
use crate::data::tests::references;
use crate::data::tokenizer::Tokenizer;

fn table() -> Map<String, Value> {
    let text = fs::read_to_string(references().join("templates").join("cases.json")).unwrap();
    let also = Columns::from([("variables".to_owned(), "variables".to_owned())]);
    serde_json::from_str(&keep(&text, &also)).unwrap()
}

/// The text and the union of the marked spans, or an error.
fn shown(rendered: Result<Rendered, String>) -> Value {
    match rendered {
        Err(_) => json!("error"),
        Ok(Rendered { text, marked }) => {
            let marked = marked.unwrap_or_default();
            let spans: Vec<[usize; 2]> = marked.iter().map(|mark| [mark.place.start, mark.place.end]).collect();
            json!({"text": text, "spans": spans})
        }
    }
}

fn expected(case: &Value) -> Value {
    match case.get("error") {
        Some(_) => json!("error"),
        None => json!({"text": case["text"], "spans": case.get("spans").cloned().unwrap_or(json!([]))}),
    }
}

fn render(template: &str, messages: &Value, variables: &Variables, open: bool) -> Result<Rendered, String> {
    let tokenizer = Tokenizer::bytes().unwrap();
    let messages: Vec<Message> = serde_json::from_value(messages.clone()).unwrap();
    let template = ChatTemplate::new(template, &tokenizer).map_err(|error| error.to_string())?;
    template.render(&messages, variables, open)
}

/// Gotcha 49: each render, span and error is that of transformers. Catches Jinja with another language's numbers,
/// methods, tests, truth or whitespace; a variable that transformers provides and Telos does not; keys that are
/// dropped or added.
#[test]
fn gotcha_49_conversations_render_as_transformers_renders_them() {
    let table = table();
    let cases = table["cases"].as_array().unwrap();
    assert!(cases.len() > 1000, "{}", cases.len());
    let mut wrong = Vec::new();
    for case in cases {
        let (name, title) = (case["template"].as_str().unwrap(), case["conversation"].as_str().unwrap());
        let conversation = &table["conversations"][title];
        let given = |key: &str| conversation.get(key).filter(|value| !value.is_null()).cloned();
        let mut more = table["special"].as_object().unwrap().clone();
        more.extend(conversation.get("more").and_then(Value::as_object).cloned().unwrap_or_default());
        let variables = Variables { tools: given("tools"), documents: given("documents"), more };
        let template = table["templates"][name].as_str().unwrap();
        let found = shown(render(template, &conversation["messages"], &variables, case["open"].as_bool().unwrap()));
        if found != expected(case) {
            wrong.push(format!("{name} with {title}: {found} where {}", expected(case)));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// Gotcha 49: tested one at a time; what Python refuses is refused. Catches an operator, filter, test or method
/// that does more or less than Python's.
#[test]
fn gotcha_49_each_filter_method_and_operator_matches_python() {
    let table = table();
    let snippets = table["snippets"].as_array().unwrap();
    assert!(snippets.len() > 250, "{}", snippets.len());
    let mut more = table["special"].as_object().unwrap().clone();
    more.extend(table["variables"].as_object().unwrap().clone());
    let messages = more.shift_remove("messages").unwrap();
    let variables = Variables { more, ..Variables::default() };
    let mut wrong = Vec::new();
    for case in snippets {
        let template = case["template"].as_str().unwrap();
        let found = shown(render(template, &messages, &variables, false));
        if found != expected(case) {
            wrong.push(format!("{template:?}: {found} where {}", expected(case)));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), snippets.len(), wrong.join("\n"));
}
