//! Template source to a tree: tokens ([`lexer`]), statements ([`parser`]), expressions ([`expressions`]), the tree ([`ast`]).

pub mod ast;
mod expressions;
pub mod lexer;
pub mod parser;

use super::Error;

/// The error for a template that writes a character which marks generation blocks.
pub fn mark(character: char, line: usize) -> Error {
    Error::new(format!("U+{:04X} is not a character of text", u32::from(character)), line)
}
