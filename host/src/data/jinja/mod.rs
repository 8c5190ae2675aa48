//! Jinja as `transformers` runs it for chat templates: jinja2's grammar and scoping, Python's values, operators,
//! methods and number formats, an immutable sandbox, `trim_blocks`, `lstrip_blocks`, loop controls and the
//! `generation` tag.
//!
//! | step | file |
//! |---|---|
//! | source to tokens, with whitespace control, to a tree | [`read`] |
//! | values as Python has them | [`value`], [`equality`], [`number`], [`mod@text`], [`json`] (to and from JSON) |
//! | statements, scopes, macros, loops | [`render`], [`scope`] |
//! | limits, and the count of work | [`meter`] |
//! | expressions, attributes, calls | [`eval`], [`operators`] |
//! | filters, tests and functions of jinja2 and transformers; methods of Python's types | [`library`] |
//!
//! A library that only has Jinja's syntax is not enough: templates of published models are written for Python,
//! where `1e20` prints as `1e+20`, a list as `['a']`, and `'%d' % 5` is a string. Existing libraries do not allow
//! operators and printing to be replaced, so the interpreter is written here, and compared with jinja2's own
//! results (`tests/references/templates`).
//!
//! Templates are untrusted. A render has limits on work, nesting and length ([`Limits`]), a template's source has
//! limits on length and nesting, and a render reads nothing but its variables: no clock, no random number, no file.
//! With the limits on nesting, neither reading nor rendering nor dropping the results overflows a thread's stack of
//! 2 MiB, even without optimisation.

mod equality;
mod error;
mod eval;
mod json;
mod library;
mod meter;
mod number;
mod operators;
mod read;
mod render;
mod scope;
#[cfg(test)]
mod tests;
mod text;
mod value;

use std::sync::Arc;

pub use error::Error;
pub use json::{INTEGER, from_json};
pub use library::functions::clock;
pub use meter::Limits;
use render::MARKS;
pub use render::{BEGIN, END, NUMBER_END};
pub use value::Value;

/// A parsed template.
#[derive(Debug)]
pub struct Template {
    body: read::ast::Body,
    names: Vec<Arc<str>>,
    marks: bool,
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// What is not valid Jinja, and on which line.
    pub fn new(source: &str) -> Result<Template, Error> {
        if let Some(at) = source.find(MARKS) {
            return Err(read::lexer::mark(
                source[at..].chars().next().unwrap_or_default(),
                1 + source[..at].matches('\n').count(),
            ));
        }
        let parsed = read::statements::parse(read::lexer::tokens(source)?)?;
        Ok(Template { body: parsed.body, names: parsed.names, marks: parsed.marks })
    }

    /// Whether it has `{% generation %}` blocks. The text of each is rendered between [`BEGIN`] and [`END`].
    pub fn marks(&self) -> bool {
        self.marks
    }

    /// Whether the template reads a variable or an attribute of this name anywhere.
    pub fn mentions(&self, name: &str) -> bool {
        self.names.iter().any(|one| &**one == name)
    }

    /// Renders it with these variables; the limits grow with them.
    ///
    /// # Errors
    /// An error that the template raises (`raise_exception`), one from rendering these variables, or an exceeded
    /// limit.
    pub fn render(&self, variables: Vec<(String, Value)>) -> Result<String, Error> {
        let size = variables.iter().fold(0, |size: usize, (_, value)| size.saturating_add(value.extent().1));
        let messages = variables.iter().find_map(|(name, value)| match value {
            Value::List(messages) if name == "messages" => Some(messages.len()),
            _ => None,
        });
        render::render(&self.body, variables, Limits::for_input(size, messages.unwrap_or(0)))
    }
}
