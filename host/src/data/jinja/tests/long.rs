//! Long conversations: the limits must not stop what a template of a published model writes.

use std::fs;

use serde_json::json;

use crate::data::jinja::{Template, Value, from_json};

/// How many messages.
const MESSAGES: usize = 2000;

/// Catches a limit that stops a long conversation with long texts, also where the template looks through all other messages at each
/// message, and one that does not grow with the input.
#[test]
fn conversations_of_thousands_of_messages_render() {
    let text = "A sentence of some forty characters, or so. ".repeat(25);
    let message = |number: usize| {
        let role = if number.is_multiple_of(2) { "user" } else { "assistant" };
        json!({"role": role, "content": format!("{number} {text}")})
    };
    let messages = from_json(&(0..MESSAGES).map(message).collect());
    let folder = crate::data::tests::references().join("templates").join("families");
    let mut sources: Vec<(String, String)> = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        sources.push((path.display().to_string(), fs::read_to_string(path).unwrap()));
    }
    let all = "{% for m in messages %}{{ m.content }}{% set ns = namespace(last=true) %}{% for other in messages[loop.index:] %}\
        {% if other.role == 'assistant' and other.tools is not defined %}{% set ns.last = false %}{% endif %}{% endfor %}{% endfor %}";
    sources.push(("looks through all".into(), all.into()));
    let mut rendered = 0;
    for (name, source) in sources {
        let variables = vec![
            ("messages".to_owned(), messages.clone()),
            ("tools".to_owned(), Value::None),
            ("documents".to_owned(), Value::None),
            ("bos_token".to_owned(), Value::str("<s>")),
            ("eos_token".to_owned(), Value::str("</s>")),
        ];
        match Template::new(&source).unwrap().render(variables) {
            Ok(written) => rendered += usize::from(written.len() > MESSAGES * text.len() / 2),
            // A template may refuse messages, as one without parts or tools.
            Err(error) => assert!(!error.what.contains("the limit"), "{name}: {error}"),
        }
    }
    assert!(rendered > 20, "{rendered}");
}
