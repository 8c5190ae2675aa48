//! Tokens to statements, by jinja2's grammar.

use std::sync::Arc;

use crate::data::jinja::read::ast::{Arguments, Body, Expr, Filter, For, Macro, Statement, Target};
use crate::data::jinja::read::lexer::{Kind, Token};
use crate::data::jinja::read::parser::{Parse, Parser};

/// A parsed template.
pub struct Parsed {
    pub body: Body,
    /// Every variable and attribute it reads.
    pub names: Vec<Arc<str>>,
    /// Whether it has generation blocks.
    pub marks: bool,
}

/// Parses the tokens of a template.
///
/// # Errors
/// A template that jinja2 would not accept, or that uses an unsupported statement (`include`, `import`, `block`).
pub fn parse(tokens: Vec<Token>) -> Parse<Parsed> {
    let mut parser = Parser::new(tokens);
    let body = parser.body(&[])?;
    Ok(Parsed { body, names: parser.names, marks: parser.marks })
}

impl Parser {
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
