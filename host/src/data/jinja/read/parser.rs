//! Tokens to statements, by jinja2's grammar. Expressions are in [`super::expressions`].

use std::sync::Arc;

use crate::data::jinja::error::Error;
use crate::data::jinja::read::ast::{Arguments, Body, Expr, Filter, For, Macro, Statement, Target};
use crate::data::jinja::read::lexer::{Kind, Token};

/// Statements and expressions nested deeper than this are refused, because parsing them uses the thread's stack.
const DEPTH: usize = 80;
/// The most operators, filters, calls or lookups in one chain. Rendering a longer one would nest too deeply.
const CHAIN: usize = 200;
/// The maximum height of the tree of one expression, which is large for chains within chains. Dropping the tree
/// uses the thread's stack.
const HEIGHT: usize = 2000;

/// A parsed template.
pub struct Parsed {
    pub body: Body,
    /// Every variable and attribute it reads.
    pub names: Vec<Arc<str>>,
    /// Whether it has generation blocks.
    pub marks: bool,
}

pub struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
    /// Links of chains at this depth, and the largest height of the expressions nested below it.
    links: usize,
    below: usize,
    loops: usize,
    /// Whether this macro has read `varargs` and `kwargs` so far.
    pub reads_varargs: bool,
    pub reads_kwargs: bool,
    pub names: Vec<Arc<str>>,
    marks: bool,
}

pub type Parse<T> = Result<T, Error>;

/// # Errors
/// A template that jinja2 would not accept, or that uses an unsupported statement (`include`, `import`, `block`).
pub fn parse(tokens: Vec<Token>) -> Parse<Parsed> {
    let mut parser = Parser {
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
    };
    let body = parser.body(&[])?;
    Ok(Parsed { body, names: parser.names, marks: parser.marks })
}

impl Parser {
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

    /// Parses statements up to a tag with one of these names, which is not consumed; up to the end of the source if
    /// there are no names.
    fn body(&mut self, ends: &[&str]) -> Parse<Body> {
        let mut statements = Vec::new();
        loop {
            match self.kind() {
                Kind::End if ends.is_empty() => return Ok(statements.into()),
                Kind::Text(text) => {
                    statements.push(Statement::Text(text.as_str().into()));
                    self.step();
                }
                Kind::VariableBegin => {
                    let line = self.line();
                    self.step();
                    let value = self.tuple(true, &[])?;
                    if *self.kind() != Kind::VariableEnd {
                        return self.unexpected("`}}`");
                    }
                    self.step();
                    statements.push(Statement::Output(value, line));
                }
                Kind::BlockBegin => {
                    self.step();
                    if let Kind::Name(name) = self.kind()
                        && ends.contains(&name.as_str())
                    {
                        return Ok(statements.into());
                    }
                    statements.push(self.deeper(Parser::statement)?);
                }
                _ => {
                    let wanted: Vec<String> = ends.iter().map(|end| format!("`{end}`")).collect();
                    return self.unexpected(&format!("the tag {}", wanted.join(" or ")));
                }
            }
        }
    }

    fn block_end(&mut self) -> Parse<()> {
        if *self.kind() != Kind::BlockEnd {
            return self.unexpected("`%}`");
        }
        self.step();
        Ok(())
    }

    /// Parses the rest of a tag, statements, and their end tag.
    fn closed(&mut self, end: &str) -> Parse<Body> {
        self.block_end()?;
        let body = self.body(&[end])?;
        self.step();
        // A macro and a block may repeat their name after the end tag's.
        if end == "endmacro" && matches!(self.kind(), Kind::Name(_)) {
            self.step();
        }
        self.block_end()?;
        Ok(body)
    }

    fn statement(&mut self) -> Parse<Statement> {
        let line = self.line();
        let tag = self.name()?;
        match &*tag {
            "for" => self.for_loop(line),
            "if" => self.conditional(line),
            "set" => self.set(line),
            "with" => self.with(line),
            "macro" => self.macro_definition(),
            "call" => self.call_block(line),
            "filter" => {
                let filters = self.filters(true)?;
                Ok(Statement::Filtered { filters, body: self.closed("endfilter")?, line })
            }
            "generation" => {
                self.marks = true;
                Ok(Statement::Generation(self.closed("endgeneration")?))
            }
            "print" => {
                let value = self.tuple(true, &[])?;
                self.block_end()?;
                Ok(Statement::Output(value, line))
            }
            "break" | "continue" => {
                if self.loops == 0 {
                    return self.fail(format!("`{tag}` outside a loop"));
                }
                self.block_end()?;
                Ok(if &*tag == "break" { Statement::Break } else { Statement::Continue })
            }
            "include" | "import" | "from" | "extends" | "block" | "autoescape" => {
                self.fail(format!("the tag `{tag}` is not supported: a chat template is one text"))
            }
            _ => self.fail(format!("unknown tag `{tag}`")),
        }
    }

    fn for_loop(&mut self, line: usize) -> Parse<Statement> {
        let target = self.target(&["in"], false)?;
        if !self.skip_name("in") {
            return self.unexpected("`in`");
        }
        let over = self.tuple(false, &["recursive"])?;
        let condition = if self.skip_name("if") { Some(self.expression()?) } else { None };
        let recursive = self.skip_name("recursive");
        self.block_end()?;
        self.loops += 1;
        let body = self.body(&["endfor", "else"])?;
        self.loops -= 1;
        let otherwise = if self.is_name("else") {
            self.step();
            self.closed("endfor")?
        } else {
            self.step();
            self.block_end()?;
            Vec::new().into()
        };
        Ok(Statement::For(Arc::new(For { target, over, condition, recursive, body, otherwise, line })))
    }

    fn conditional(&mut self, line: usize) -> Parse<Statement> {
        let mut branches = Vec::new();
        loop {
            let condition = self.tuple(false, &[])?;
            self.block_end()?;
            branches.push((condition, self.body(&["elif", "else", "endif"])?));
            if self.skip_name("elif") {
                continue;
            }
            let otherwise = if self.skip_name("else") {
                self.closed("endif")?
            } else {
                self.step();
                self.block_end()?;
                Vec::new().into()
            };
            return Ok(Statement::If { branches, otherwise, line });
        }
    }

    fn set(&mut self, line: usize) -> Parse<Statement> {
        let target = self.target(&[], true)?;
        if self.skip_op("=") {
            let value = self.tuple(true, &[])?;
            self.block_end()?;
            return Ok(Statement::Set { target, value, line });
        }
        let filters = self.filters(false)?;
        Ok(Statement::Capture { target, filters, body: self.closed("endset")?, line })
    }

    fn with(&mut self, line: usize) -> Parse<Statement> {
        let mut targets = Vec::new();
        while *self.kind() != Kind::BlockEnd {
            if !targets.is_empty() {
                self.expect_op(",")?;
            }
            let target = self.one_target(false)?;
            self.expect_op("=")?;
            targets.push((target, self.expression()?));
        }
        Ok(Statement::With { targets, body: self.closed("endwith")?, line })
    }

    fn macro_definition(&mut self) -> Parse<Statement> {
        let name = self.name()?;
        let parameters = self.parameters()?;
        Ok(Statement::Macro(self.macro_body(name, parameters, "endmacro")?))
    }

    fn call_block(&mut self, line: usize) -> Parse<Statement> {
        let parameters = if self.is_op("(") { self.parameters()? } else { Vec::new() };
        let call = self.expression()?;
        if !matches!(call, Expr::Call(..)) {
            return self.fail("`call` needs a call, such as `{% call name() %}`");
        }
        let caller = self.macro_body("caller".into(), parameters, "endcall")?;
        Ok(Statement::CallBlock { call, caller, line })
    }

    /// Parses the body of a macro or a call block, in which an enclosing loop does not count.
    fn macro_body(
        &mut self,
        name: Arc<str>,
        parameters: Vec<(Arc<str>, Option<Expr>)>,
        end: &str,
    ) -> Parse<Arc<Macro>> {
        let loops = std::mem::take(&mut self.loops);
        let (varargs, kwargs) = (std::mem::take(&mut self.reads_varargs), std::mem::take(&mut self.reads_kwargs));
        let body = self.closed(end);
        let (reads_varargs, reads_kwargs) = (self.reads_varargs, self.reads_kwargs);
        self.loops = loops;
        // What an inner macro reads, the enclosing one reads too.
        (self.reads_varargs, self.reads_kwargs) = (reads_varargs || varargs, reads_kwargs || kwargs);
        Ok(Arc::new(Macro { name, parameters, body: body?, reads_varargs, reads_kwargs }))
    }

    fn parameters(&mut self) -> Parse<Vec<(Arc<str>, Option<Expr>)>> {
        self.expect_op("(")?;
        let mut parameters: Vec<(Arc<str>, Option<Expr>)> = Vec::new();
        while !self.is_op(")") {
            if !parameters.is_empty() {
                self.expect_op(",")?;
                if self.is_op(")") {
                    break;
                }
            }
            let name = self.name()?;
            let default = if self.skip_op("=") { Some(self.expression()?) } else { None };
            if default.is_none() && parameters.last().is_some_and(|(_, default)| default.is_some()) {
                return self.fail("a parameter without a default follows one with a default");
            }
            parameters.push((name, default));
        }
        self.expect_op(")")?;
        Ok(parameters)
    }

    /// `name | name(arguments)`, without the first bar if `inline` is set.
    pub fn filters(&mut self, inline: bool) -> Parse<Vec<Filter>> {
        let (mut filters, mut inline) = (Vec::new(), inline);
        while inline || self.is_op("|") {
            let mut links = filters.len();
            self.link(&mut links)?;
            if !inline {
                self.step();
            }
            inline = false;
            filters.push(self.filter()?);
        }
        Ok(filters)
    }

    pub fn filter(&mut self) -> Parse<Filter> {
        let line = self.line();
        let name = self.dotted_name()?;
        let arguments = if self.is_op("(") { self.arguments()? } else { Arguments::default() };
        Ok(Filter { name, arguments, line })
    }

    pub fn dotted_name(&mut self) -> Parse<Arc<str>> {
        let mut name = self.name()?.to_string();
        while self.skip_op(".") {
            name.push('.');
            name.push_str(&self.name()?);
        }
        Ok(name.into())
    }

    fn target(&mut self, ends: &[&str], attributes: bool) -> Parse<Target> {
        let mut targets = Vec::new();
        loop {
            let ended = matches!(self.kind(), Kind::BlockEnd | Kind::VariableEnd) || self.is_op(")") || self.is_op("=");
            if !targets.is_empty() && (ended || ends.iter().any(|end| self.is_name(end))) {
                return Ok(Target::Several(targets));
            }
            targets.push(self.one_target(attributes)?);
            if !self.skip_op(",") {
                break;
            }
        }
        Ok(if targets.len() == 1 { targets.remove(0) } else { Target::Several(targets) })
    }

    fn one_target(&mut self, attributes: bool) -> Parse<Target> {
        if self.skip_op("(") {
            let inner = self.deeper(|parser| parser.target(&[], attributes))?;
            self.expect_op(")")?;
            return Ok(inner);
        }
        let name = self.name()?;
        if ["true", "false", "none", "True", "False", "None"].contains(&&*name) {
            return self.fail(format!("`{name}` cannot be assigned to"));
        }
        if attributes && self.skip_op(".") {
            return Ok(Target::Attribute(name, self.name()?));
        }
        Ok(Target::Name(name))
    }
}
