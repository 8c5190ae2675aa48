//! Chat templates: Jinja as published models carry it, rendered by `minijinja`, with the places of the assistant's words.
//!
//! A template may mark what the assistant says with `{% generation %} ... {% endgeneration %}`, the tag of transformers.
//! minijinja has no tags of others' making, so the pair is read as a filter block, whose filter puts two characters around
//! its text that stand in no text; they are taken out again after rendering, and where they stood is exact.
//!
//! `strftime_now`, which some templates ask for, is not offered: the date of a run must not reach its data.

use std::ops::Range;

use minijinja::{
    Environment, Error as JinjaError, ErrorKind, context,
    syntax::SyntaxConfig,
    value::{Kwargs, Serde},
};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::Message;
use crate::data::{DataError, Result, Tokenizer};

/// Every message on a line of its own; the end-of-text token closes what the assistant says.
pub const PLAIN: &str = "{% for message in messages %}{% if message.role == 'assistant' %}\
{% generation %}{{ message.content }}{{ eos_token }}{% endgeneration %}\
{% else %}{{ message.content }}{{ '\\n' }}{% endif %}{% endfor %}";

/// What stands before [`PLAIN`] for a tokenizer whose inputs begin with a token of their own.
const BEGINNING: &str = "{{ bos_token }}";

/// [`PLAIN`] for `tokenizer`: texts begin as those that no template writes.
pub fn plain(tokenizer: &Tokenizer) -> String {
    let beginning = if tokenizer.prefix().is_some() { BEGINNING } else { "" };
    format!("{beginning}{PLAIN}")
}

const MAIN: &str = "chat_template";
const BEGIN: char = '\u{FDD0}';
const END: char = '\u{FDD1}';

/// A chat template, ready to render.
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    special: Vec<(&'static str, String)>,
    marks: bool,
}

/// A rendered conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// What the assistant says, in code points, as the template marks it; `None` where it marks nothing.
    pub spans: Option<Vec<Range<usize>>>,
}

impl ChatTemplate {
    /// Reads a template; `tokenizer` spells the special tokens.
    ///
    /// # Errors
    /// What is wrong with it, and in which line.
    pub fn new(source: &str, tokenizer: &Tokenizer) -> Result<ChatTemplate> {
        let refuse = |error: JinjaError| DataError::Template(told(&error));
        let (text, marks) = as_filter_blocks(source);
        let mut environment = Environment::new();
        // As transformers sets up Jinja.
        environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(refuse)?);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter("telos_generation", |text: String| format!("{BEGIN}{text}{END}"));
        environment.add_filter("tojson", to_json);
        environment.add_function("raise_exception", |why: String| -> Result<String, JinjaError> {
            Err(JinjaError::new(ErrorKind::InvalidOperation, why))
        });
        environment.add_template_owned(MAIN, text).map_err(refuse)?;
        Ok(ChatTemplate { environment, source: source.to_owned(), special: tokenizer.special_texts(), marks })
    }

    /// The template's text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether it marks what the assistant says.
    pub fn marks_answers(&self) -> bool {
        self.marks
    }

    /// Renders `messages`, with the opening of the assistant's next message where `open` asks for it.
    ///
    /// # Errors
    /// The template's own word, or what it cannot do with these messages.
    pub fn render(&self, messages: &[Message], open: bool) -> Result<Rendered, String> {
        let strings = messages.iter().flat_map(|message| message.values().filter_map(Value::as_str));
        if let Some(bad) = strings.flat_map(str::chars).find(|c| [BEGIN, END].contains(c)) {
            return Err(format!("U+{:04X} is no character of text", u32::from(bad)));
        }
        let special = minijinja::Value::from_pairs(self.special.iter().map(|(name, text)| (*name, text.as_str())));
        let template = self.environment.get_template(MAIN).map_err(|error| told(&error))?;
        let text = template
            .render(context! { messages => Serde(messages), add_generation_prompt => open, ..special })
            .map_err(|error| told(&error))?;
        Ok(if self.marks { take_marks_out(&text) } else { Rendered { text, spans: None } })
    }
}

impl ChatTemplate {
    /// Whether this is [`PLAIN`], with or without a beginning.
    pub fn is_plain(&self) -> bool {
        self.source.strip_prefix(BEGINNING).unwrap_or(&self.source) == PLAIN
    }
}

/// sha256 of a template's text, in hexadecimal.
pub fn sha256(text: &str) -> String {
    crate::data::cache::hex(&Sha256::digest(text))
}

/// The template with generation tags as filter blocks, and whether there are any. Dashes of a tag stay.
fn as_filter_blocks(source: &str) -> (String, bool) {
    let (mut text, mut rest, mut marks) = (String::with_capacity(source.len()), source, false);
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start..].find("%}") else { break };
        let inner = &rest[start + 2..start + length];
        let replaced = match inner.trim_matches(['-', '+', ' ', '\t', '\n', '\r']) {
            "generation" => inner.replace("generation", "filter telos_generation"),
            "endgeneration" => inner.replace("endgeneration", "endfilter"),
            _ => inner.to_owned(),
        };
        marks |= replaced != inner;
        text.push_str(&rest[..start + 2]);
        text.push_str(&replaced);
        text.push_str("%}");
        rest = &rest[start + length + 2..];
    }
    text.push_str(rest);
    (text, marks)
}

fn take_marks_out(marked: &str) -> Rendered {
    let (mut text, mut spans, mut start, mut length) = (String::with_capacity(marked.len()), Vec::new(), 0, 0);
    for character in marked.chars() {
        match character {
            BEGIN => start = length,
            END => spans.push(start..length),
            _ => {
                text.push(character);
                length += 1;
            }
        }
    }
    Rendered { text, spans: Some(spans) }
}

/// `json.dumps` as transformers calls it: nothing escaped for HTML, a space after commas and colons.
fn to_json(value: minijinja::Value, options: Kwargs) -> Result<String, JinjaError> {
    let failed = |error: serde_json::Error| JinjaError::new(ErrorKind::BadSerialization, error.to_string());
    let indent: Option<usize> = options.get("indent")?;
    options.assert_all_used()?;
    let value = serde_json::to_value(&value).map_err(failed)?;
    let mut bytes = Vec::new();
    let written = match indent {
        Some(indent) => {
            let indent = " ".repeat(indent);
            let pretty = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
            serde::Serialize::serialize(&value, &mut serde_json::Serializer::with_formatter(&mut bytes, pretty))
        }
        None => serde::Serialize::serialize(&value, &mut serde_json::Serializer::with_formatter(&mut bytes, Spaced)),
    };
    written.map_err(failed)?;
    String::from_utf8(bytes).map_err(|error| JinjaError::new(ErrorKind::BadSerialization, error.to_string()))
}

/// Python's separators.
struct Spaced;

impl serde_json::ser::Formatter for Spaced {
    fn begin_array_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}

fn told(error: &JinjaError) -> String {
    let line = error.line().map(|line| format!(" (line {line} of the template)")).unwrap_or_default();
    format!("{}{line}", error.detail().map_or_else(|| error.kind().to_string(), str::to_owned))
}
