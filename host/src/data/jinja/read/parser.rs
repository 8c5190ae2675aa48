//! The tokens of a template as they are read, and the limits on nesting. Statements are in [`super::statements`],
//! expressions in [`super::expressions`].

use std::sync::Arc;

use crate::data::jinja::error::Error;
use crate::data::jinja::read::lexer::{Kind, Token};

/// Statements and expressions nested deeper than this are refused, because parsing them uses the thread's stack.
const DEPTH: usize = 80;
/// The most operators, filters, calls or lookups in one chain. Rendering a longer one would nest too deeply.
const CHAIN: usize = 200;
/// The maximum height of the tree of one expression, which is large for chains within chains. Dropping the tree
/// uses the thread's stack.
const HEIGHT: usize = 2000;

pub struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
    /// Links of chains at this depth, and the largest height of the expressions nested below it.
    links: usize,
    below: usize,
    /// The loops around this place, in this macro.
    pub loops: usize,
    /// Whether this macro has read `varargs` and `kwargs` so far.
    pub reads_varargs: bool,
    pub reads_kwargs: bool,
    pub names: Vec<Arc<str>>,
    /// Whether a generation block was read.
    pub marks: bool,
}

pub type Parse<T> = Result<T, Error>;

impl Parser {
    /// Creates a parser that reads the first of these tokens next.
    pub fn new(tokens: Vec<Token>) -> Parser {
        Parser {
            tokens,
            at: 0,
            depth: 0,
            links: 0,
            below: 0,
            loops: 0,
            reads_varargs: false,
            reads_kwargs: false,
            names: Vec::new(),
            marks: false,
        }
    }

    pub fn kind(&self) -> &Kind {
        self.tokens.get(self.at).map_or(&Kind::End, |token| &token.kind)
    }

    pub fn after(&self, more: usize) -> &Kind {
        self.tokens.get(self.at + more).map_or(&Kind::End, |token| &token.kind)
    }

    pub fn line(&self) -> usize {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(1, |token| token.line)
    }

    pub fn step(&mut self) {
        self.at += 1;
    }

    pub fn fail<T>(&self, what: impl Into<String>) -> Parse<T> {
        Err(Error::new(what.into(), self.line()))
    }

    pub fn unexpected<T>(&self, wanted: &str) -> Parse<T> {
        let found = match self.kind() {
            Kind::Text(_) | Kind::VariableBegin | Kind::BlockBegin => "text".to_owned(),
            Kind::VariableEnd => "`}}`".to_owned(),
            Kind::BlockEnd => "`%}`".to_owned(),
            Kind::Name(name) => format!("`{name}`"),
            Kind::Str(text) => format!("the string {text:?}"),
            Kind::Int(text) => text.clone(),
            Kind::Float(number) => number.to_string(),
            Kind::Op(operator) => format!("`{operator}`"),
            Kind::End => "the end of the template".to_owned(),
        };
        self.fail(format!("expected {wanted}, found {found}"))
    }

    pub fn is_op(&self, operator: &str) -> bool {
        matches!(self.kind(), Kind::Op(found) if *found == operator)
    }

    pub fn is_name(&self, name: &str) -> bool {
        matches!(self.kind(), Kind::Name(found) if found == name)
    }

    pub fn skip_op(&mut self, operator: &str) -> bool {
        let found = self.is_op(operator);
        self.at += usize::from(found);
        found
    }

    pub fn skip_name(&mut self, name: &str) -> bool {
        let found = self.is_name(name);
        self.at += usize::from(found);
        found
    }

    pub fn expect_op(&mut self, operator: &'static str) -> Parse<()> {
        if self.skip_op(operator) { Ok(()) } else { self.unexpected(&format!("`{operator}`")) }
    }

    pub fn name(&mut self) -> Parse<Arc<str>> {
        let Kind::Name(name) = self.kind() else { return self.unexpected("a name") };
        let name = name.as_str().into();
        self.step();
        Ok(name)
    }

    /// Runs `inner` one level deeper.
    pub fn deeper<T>(&mut self, inner: impl FnOnce(&mut Parser) -> Parse<T>) -> Parse<T> {
        if self.depth >= DEPTH {
            return self.fail(format!("nested deeper than {DEPTH} levels, the limit of a template"));
        }
        self.depth += 1;
        let (links, below) = (std::mem::take(&mut self.links), std::mem::take(&mut self.below));
        let result = inner(self);
        self.depth -= 1;
        let height = 1 + self.links + self.below;
        (self.links, self.below) = (links, below.max(height));
        if height > HEIGHT && result.is_ok() {
            return self.fail(format!("an expression nests more than {HEIGHT} operations, the limit of a template"));
        }
        result
    }

    /// Counts a link of a chain.
    pub fn link(&mut self, links: &mut usize) -> Parse<()> {
        *links += 1;
        self.links += 1;
        if *links > CHAIN {
            return self.fail(format!("more than {CHAIN} operations in one expression, the limit of a template"));
        }
        Ok(())
    }
}
