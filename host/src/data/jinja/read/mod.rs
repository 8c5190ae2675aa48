//! Template source to a tree: tokens ([`lexer`]), statements ([`statements`]), expressions ([`expressions`]), the tree ([`ast`]).
//! The parsers of statements and expressions share their place in the tokens ([`parser`]).

pub mod ast;
mod expressions;
pub mod lexer;
mod parser;
pub mod statements;
