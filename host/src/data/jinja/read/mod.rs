//! Template source to a tree: tokens ([`lexer`]), statements ([`parser`]), expressions ([`expressions`]), the tree ([`ast`]).

pub mod ast;
mod expressions;
pub mod lexer;
pub mod parser;
