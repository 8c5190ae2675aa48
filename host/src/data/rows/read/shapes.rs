//! Row shapes of other tools, and how to convert them to the shapes that Telos reads.

use serde_json::{Map, Value};

use crate::data::rows::columns::NamedBy;
use crate::data::rows::kind::RowKind;

/// Other names of a prompt and of its answer.
const PROMPTS: [&str; 6] = ["instruction", "question", "query", "problem", "input", "text"];
const COMPLETIONS: [&str; 6] = ["output", "response", "answer", "solution", "target", "label"];

/// The advice for a row that has these keys and none of the shapes of `kind`.
pub(super) fn remedy(columns: &Map<String, Value>, kind: RowKind, by: &NamedBy) -> String {
    let has = |name: &str| columns.get(name).is_some_and(|value| !value.is_null());
    let only = |name: &str| has(name) && columns.values().filter(|value| !value.is_null()).count() == 1;
    if has("role") && (has("content") || has("tool_calls")) {
        return "; this is a message, and a row contains a conversation: {\"messages\": [...]}".to_owned();
    }
    let lists = |value: &Value| value.as_array().is_some_and(|list| list.iter().any(Value::is_object));
    if let Some((name, _)) = columns.iter().find(|(name, value)| only(name) && lists(value)) {
        return format!("; if `{name}` contains the rows: jq -c '.{name}[]' IN > OUT");
    }
    if columns.values().all(Value::is_null) {
        return String::new();
    }
    let guess = |part: &'static str, names: &[&'static str]| {
        names.iter().find(|name| has(name) && !has(part)).map(|name| (part, *name))
    };
    let mut guesses: Vec<(&str, &str)> = guess("prompt", &PROMPTS).into_iter().collect();
    if matches!(kind, RowKind::PromptCompletion | RowKind::Unpaired) {
        guesses.extend(guess("completion", &COMPLETIONS));
    }
    format!("; {}", by.rename(&guesses))
}
