//! Long conversations: the limits must not stop what a template of a published model writes.

use std::fs;

use serde_json::json;

use crate::data::jinja::Template;
use crate::data::jinja::json::from_json;
use crate::data::jinja::value::Value;

/// How many messages.
const MESSAGES: usize = 2000;

/// Reads all later messages for each message.
const LOOKS_THROUGH_ALL: &str = "{% for m in messages %}{{ m.content }}{% set ns = namespace(last=true) %}\
    {% for other in messages[loop.index:] %}{% if other.role == 'assistant' and other.tools is not defined %}\
    {% set ns.last = false %}{% endif %}{% endfor %}{% endfor %}";

/// Catches a limit that stops a long conversation with long texts, also if the template reads all other messages
/// for each message, and one that does not grow with the input.
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
    sources.push(("looks through all".into(), LOOKS_THROUGH_ALL.into()));
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
            // A template may refuse messages, such as ones without parts or tools.
            Err(error) => assert!(!error.what.contains("the limit"), "{name}: {error}"),
        }
    }
    assert!(rendered > 20, "{rendered}");
}

/// The length of what a template writes for this many messages with this text.
fn written(source: &str, messages: usize, text: &str) -> usize {
    let message = |number: usize| {
        let role = if number.is_multiple_of(2) { "user" } else { "assistant" };
        json!({"role": role, "content": text})
    };
    let messages = from_json(&(0..messages).map(message).collect());
    Template::new(source).unwrap().render(vec![("messages".to_owned(), messages)]).unwrap().len()
}

/// Catches a limit on work that depends only on the length of texts, although a template reads pairs of messages.
#[test]
fn many_short_messages_can_be_read_at_each_message() {
    assert_eq!(written(LOOKS_THROUGH_ALL, 1500, "Hello"), 1500 * 5);
}

/// Catches a text that is counted again for each step of copying it.
#[test]
fn a_text_of_all_messages_is_gathered() {
    let gathers = "{% set ns = namespace(out='') %}{% for m in messages %}{% set ns.out = ns.out ~ m.content %}{% endfor %}{{ ns.out }}";
    assert_eq!(written(gathers, 2000, &"a".repeat(1100)), 2000 * 1100);
}

/// Catches an index whose work is counted as if the text were read from its beginning.
#[test]
fn a_text_is_read_character_by_character() {
    let each = "{% set text = messages[0].content %}{% for i in range(text|length) %}{{ text[i] }}{% endfor %}";
    assert_eq!(written(each, 1, &"a".repeat(12_000)), 12_000);
    assert_eq!(written(each, 1, &"\u{fc}".repeat(12_000)), 2 * 12_000);
}
