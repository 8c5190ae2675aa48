//! Chat templates: Jinja as in published models, rendered like transformers' `apply_chat_template`, with the places
//! that `{% generation %} ... {% endgeneration %}` marks.
//!
//! `strftime_now`, which some templates use, counts as not defined, and calling it is an error: the date of a run
//! must not affect its data. Only answers to a user have a date: [`ChatTemplate::at`].

use std::ops::Range;
use std::path::Path;

use chrono::NaiveDateTime;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::data::error::{DataError, Result};
use crate::data::jinja::{self, BEGIN, END, NUMBER_END, from_json};
use crate::data::reading::{foreign, guard};
use crate::data::rows::message::Message;
use crate::data::rows::row::Row;
use crate::data::tokenizer::Tokenizer;

/// Each message on its own line, with the end-of-text token after the assistant's messages.
pub const PLAIN: &str = "{% for message in messages %}{% if message.role == 'assistant' %}\
{% generation %}{{ message.content }}{{ eos_token }}{% endgeneration %}\
{% else %}{{ message.content }}{{ '\\n' }}{% endif %}{% endfor %}";

/// The text before [`PLAIN`] for a tokenizer whose inputs begin with a special token.
const BEGINNING: &str = "{{ bos_token }}";

/// [`PLAIN`] for `tokenizer`: its texts begin with the same token as texts written without a template.
pub fn plain(tokenizer: &Tokenizer) -> String {
    let beginning = if tokenizer.prefix().is_some() { BEGINNING } else { "" };
    format!("{beginning}{PLAIN}")
}

/// A chat template, ready to render.
pub struct ChatTemplate {
    template: jinja::Template,
    source: String,
    /// Where it comes from, for error messages.
    origin: String,
    special: Vec<(&'static str, String)>,
    /// The time that `strftime_now` writes, if it is defined.
    now: Option<NaiveDateTime>,
}

/// A rendered conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// What the template marks, in the order of the text; `None` if it has no marks.
    pub marked: Option<Vec<Marked>>,
}

/// A span of text that a template marks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marked {
    /// Its place, in code points.
    pub place: Range<usize>,
    /// The number of the message that it belongs to, if the template's variables show it.
    pub message: Option<usize>,
}

/// What a row passes to a template besides its messages.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Variables {
    /// Descriptions of tools, a list of objects: the row's column `tools`.
    pub tools: Option<Value>,
    /// Documents to read, a list of objects: the row's column `documents`, if the template reads it.
    pub documents: Option<Value>,
    /// Other variables by name, which take precedence over special tokens: the row's column [`KWARGS`].
    pub more: Map<String, Value>,
}

/// The column of variables for the template, named as in transformers and TRL.
pub const KWARGS: &str = "chat_template_kwargs";

/// The column of documents for the template to write.
pub const DOCUMENTS: &str = "documents";

/// The function that writes the date, as transformers names it.
pub const NOW: &str = "strftime_now";

/// Variables that every template is given.
const GIVEN: [&str; 4] = ["messages", "tools", "documents", "add_generation_prompt"];
/// Names of the key for a message's reasoning, the standard one first.
pub(super) const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

impl ChatTemplate {
    /// Parses a template; `tokenizer` provides the special tokens' texts.
    ///
    /// # Errors
    /// What is wrong with it, and on which line.
    pub fn new(source: &str, tokenizer: &Tokenizer) -> Result<ChatTemplate> {
        ChatTemplate::of("the template", source, tokenizer)
    }

    /// As [`ChatTemplate::new`], with the template's origin, such as its file, for error messages.
    ///
    /// # Errors
    /// As [`ChatTemplate::new`].
    pub fn of(origin: &str, source: &str, tokenizer: &Tokenizer) -> Result<ChatTemplate> {
        let template =
            guarded(origin, "cannot be read", || jinja::Template::new(source)).map_err(DataError::Template)?;
        let special = tokenizer.special_texts();
        Ok(ChatTemplate { template, source: source.to_owned(), origin: origin.to_owned(), special, now: None })
    }

    /// Defines `strftime_now`, which writes this time.
    pub fn at(self, now: NaiveDateTime) -> ChatTemplate {
        ChatTemplate { now: Some(now), ..self }
    }

    /// The template's text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether it reads a variable or an attribute of this name.
    pub fn mentions(&self, name: &str) -> bool {
        self.template.mentions(name)
    }

    /// Whether it marks the assistant's answers.
    pub fn marks_answers(&self) -> bool {
        self.template.marks()
    }

    /// Renders `messages`, followed by the opening of the assistant's next message if `open` is set.
    ///
    /// # Errors
    /// An error that the template raises, one from rendering these messages, or an exceeded limit.
    pub fn render(&self, messages: &[Message], variables: &Variables, open: bool) -> Result<Rendered, String> {
        let given = messages.iter().flat_map(Map::values).chain(&variables.tools).chain(&variables.documents);
        if let Some(bad) = given.chain(variables.more.values()).find_map(mark_in) {
            return Err(format!("U+{:04X} is not a character of text", u32::from(bad)));
        }
        let messages: Vec<Value> = messages.iter().map(|message| Value::Object(as_transformers(message))).collect();
        let json = |value: &Option<Value>| from_json(value.as_ref().unwrap_or(&Value::Null));
        let mut all = vec![
            ("messages".to_owned(), from_json(&Value::Array(messages))),
            ("tools".to_owned(), json(&variables.tools)),
            ("documents".to_owned(), json(&variables.documents)),
            ("add_generation_prompt".to_owned(), jinja::Value::Bool(open)),
        ];
        all.extend(self.now.map(|now| (NOW.to_owned(), jinja::clock(now))));
        all.extend(self.special.iter().map(|(name, text)| ((*name).to_owned(), jinja::Value::str(text.as_str()))));
        all.extend(variables.more.iter().map(|(name, value)| (name.clone(), from_json(value))));
        let text = guarded(&self.origin, "cannot be rendered", || self.template.render(all))?;
        Ok(if self.marks_answers() { extract_marks(&text) } else { Rendered { text, marked: None } })
    }
}

impl ChatTemplate {
    /// Whether this is [`PLAIN`], with or without a beginning.
    pub fn is_plain(&self) -> bool {
        self.source.strip_prefix(BEGINNING).unwrap_or(&self.source) == PLAIN
    }
}

impl Variables {
    /// Returns the variables that `row` passes to `template`.
    ///
    /// # Errors
    /// The key, and what is wrong with its value, or that the template does not read it.
    pub fn of(row: &Row, template: &ChatTemplate) -> Result<Variables, (String, String)> {
        let mut variables = Variables::default();
        let refuse = |key: &str, what: String| Err((key.to_owned(), what));
        if let Some(tools) = row.columns.get("tools").filter(|tools| !tools.is_null()) {
            let tools = list_of_objects(tools).ok_or_else(|| {
                let what =
                    "not a list of tools; each is an object, such as {\"type\": \"function\", \"function\": {...}}";
                ("tools".to_owned(), what.to_owned())
            })?;
            if !template.template.mentions("tools") && tools.as_array().is_some_and(|tools| !tools.is_empty()) {
                let what = "the chat template does not use `tools`, so the row would be written without them; give \
                            data.chat_template a template that does, or remove the key";
                return refuse("tools", what.to_owned());
            }
            variables.tools = Some(tools);
        }
        if template.template.mentions(DOCUMENTS)
            && let Some(documents) = row.columns.get(DOCUMENTS).filter(|documents| !documents.is_null())
        {
            let Some(documents) = list_of_objects(documents) else {
                let what =
                    "not a list of documents; each is an object, such as {\"title\": \"...\", \"text\": \"...\"}";
                return refuse("documents", what.to_owned());
            };
            variables.documents = Some(documents);
        }
        match row.columns.get(KWARGS) {
            None | Some(Value::Null) => {}
            Some(Value::Object(more)) => {
                for name in more.keys() {
                    let key = format!("{KWARGS}.{name}");
                    if GIVEN.contains(&name.as_str()) {
                        return refuse(&key, format!("`{name}` comes from elsewhere and cannot be given here"));
                    }
                    if !template.template.mentions(name) {
                        let what = "the chat template does not use this variable; remove it, or give data.chat_template \
                                    a template that does";
                        return refuse(&key, what.to_owned());
                    }
                }
                variables.more = more.clone();
            }
            Some(_) => return refuse(KWARGS, "not an object of the template's variables, by name".to_owned()),
        }
        Ok(variables)
    }
}

/// A list of objects, or a string that contains one as JSON, since some exporters write it that way.
fn list_of_objects(value: &Value) -> Option<Value> {
    let value = match value {
        Value::String(text) => serde_json::from_str(text).ok()?,
        other => other.clone(),
    };
    value.as_array().is_some_and(|list| list.iter().all(Value::is_object)).then_some(value)
}

/// A message as transformers passes it to a template: without keys that are null, and with its reasoning under all
/// names that templates use.
fn as_transformers(message: &Message) -> Message {
    let there = message.iter().filter(|(_, value)| !value.is_null());
    let mut message: Message = there.map(|(key, value)| (key.clone(), value.clone())).collect();
    let reasoning = REASONING.iter().find_map(|name| message.get(*name)).cloned();
    if let Some(reasoning) = reasoning {
        let thinking = message.shift_remove("thinking").unwrap_or_else(|| reasoning.clone());
        message.shift_insert(0, "thinking".to_owned(), thinking);
        message.insert(REASONING[0].to_owned(), reasoning);
    }
    message
}

/// Reads the text of a template's file.
///
/// # Errors
/// A file that cannot be read; a Git LFS pointer; bytes that are not UTF-8, with their place.
pub fn read_template(path: &Path) -> Result<String> {
    String::from_utf8(foreign::read(path)?).map_err(|error| {
        let (offset, bytes) = (error.utf8_error().valid_up_to(), error.as_bytes());
        let byte = bytes.get(offset).copied().unwrap_or_default();
        let line = 1 + bytes.iter().take(offset).filter(|byte| **byte == b'\n').count();
        let encoding =
            if bytes.starts_with(b"\xFF\xFE") || bytes.starts_with(b"\xFE\xFF") { "UTF-16" } else { "LATIN1" };
        DataError::Unusable {
            path: path.to_owned(),
            what: format!(
                "not UTF-8 text: byte 0x{byte:02X} at offset {offset} (line {line}), and a chat template is UTF-8"
            ),
            remedy: format!("convert it: iconv -f {encoding} -t UTF-8 {} > template.jinja", path.display()),
            source: None,
        }
    })
}

/// Runs `work` on the template from `origin`. An error includes the origin and the line, and a panic becomes an
/// error.
fn guarded<T>(origin: &str, fails: &str, work: impl FnOnce() -> Result<T, jinja::Error>) -> Result<T, String> {
    match guard::caught(work) {
        Ok(result) => result.map_err(|jinja::Error { what, line }| format!("{what} (line {line} of {origin})")),
        Err(panic) => Err(format!(
            "{origin} {fails}: this is a bug in Telos, which panicked with \"{panic}\"; give another template"
        )),
    }
}

/// sha256 of a template's text, in hexadecimal.
pub fn sha256(text: &str) -> String {
    crate::data::cache::hex(&Sha256::digest(text))
}

/// Returns a mark that occurs in a value, if any.
fn mark_in(value: &Value) -> Option<char> {
    let in_text = |text: &str| text.chars().find(|c| [BEGIN, END, NUMBER_END].contains(c));
    match value {
        Value::String(text) => in_text(text),
        Value::Array(items) => items.iter().find_map(mark_in),
        Value::Object(object) => object.iter().find_map(|(key, value)| in_text(key).or_else(|| mark_in(value))),
        _ => None,
    }
}

fn extract_marks(marked: &str) -> Rendered {
    let (mut text, mut length, mut found) = (String::with_capacity(marked.len()), 0, Vec::new());
    let mut open: Vec<usize> = Vec::new();
    let mut characters = marked.chars();
    while let Some(character) = characters.next() {
        match character {
            BEGIN => {
                let number: String = characters.by_ref().take_while(|c| *c != NUMBER_END).collect();
                open.push(found.len());
                found.push(Marked { place: length..length, message: number.parse().ok() });
            }
            END => {
                if let Some(mark) = open.pop().and_then(|number| found.get_mut(number)) {
                    mark.place.end = length;
                }
            }
            character => {
                text.push(character);
                length += 1;
            }
        }
    }
    Rendered { text, marked: Some(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a panic of the interpreter that ends the host, or an error without the fact that rendering this file
    /// panicked.
    #[test]
    fn gotcha_63_a_panic_while_a_template_renders_is_an_error_with_its_file() {
        let error = guarded::<()>("x.jinja", "cannot be rendered", || panic!("index out of bounds")).unwrap_err();
        assert!(error.starts_with("x.jinja cannot be rendered") && error.contains("index out of bounds"), "{error}");
    }
}
