//! Expressions, by jinja2's grammar and precedences.

use crate::data::jinja::read::ast::{Arguments, Comparison, Expr, Filter, Operator};
use crate::data::jinja::read::lexer::Kind;
use crate::data::jinja::read::parser::{Parse, Parser};

impl Parser {
    pub fn expression(&mut self) -> Parse<Expr> {
        self.deeper(Parser::conditional_expression)
    }

    /// Parses a tuple: expressions separated by commas.
    pub fn tuple(&mut self, conditional: bool, ends: &[&str]) -> Parse<Expr> {
        self.tuple_in(conditional, ends, false)
    }

    fn tuple_in(&mut self, conditional: bool, ends: &[&str], parentheses: bool) -> Parse<Expr> {
        let (mut items, mut several) = (Vec::new(), false);
        loop {
            if !items.is_empty() {
                self.expect_op(",")?;
            }
            let ended = matches!(self.kind(), Kind::VariableEnd | Kind::BlockEnd) || self.is_op(")");
            if ended || ends.iter().any(|end| self.is_name(end)) {
                break;
            }
            items.push(if conditional { self.expression()? } else { self.deeper(Parser::or)? });
            if !self.is_op(",") {
                break;
            }
            several = true;
        }
        match items.len() {
            1 if !several => Ok(items.remove(0)),
            0 if !parentheses => self.unexpected("an expression"),
            _ => Ok(Expr::Tuple(items)),
        }
    }

    fn conditional_expression(&mut self) -> Parse<Expr> {
        let (mut value, mut links) = (self.or()?, 0);
        while self.skip_name("if") {
            self.link(&mut links)?;
            let condition = self.or()?;
            let otherwise = if self.skip_name("else") { Some(Box::new(self.expression()?)) } else { None };
            value = Expr::Conditional(Box::new(condition), Box::new(value), otherwise);
        }
        Ok(value)
    }

    fn or(&mut self) -> Parse<Expr> {
        let (mut left, mut links) = (self.and()?, 0);
        while self.skip_name("or") {
            self.link(&mut links)?;
            left = Expr::Or(Box::new(left), Box::new(self.and()?));
        }
        Ok(left)
    }

    fn and(&mut self) -> Parse<Expr> {
        let (mut left, mut links) = (self.not()?, 0);
        while self.skip_name("and") {
            self.link(&mut links)?;
            left = Expr::And(Box::new(left), Box::new(self.not()?));
        }
        Ok(left)
    }

    fn not(&mut self) -> Parse<Expr> {
        if self.skip_name("not") {
            return Ok(Expr::Not(Box::new(self.deeper(Parser::not)?)));
        }
        self.compare()
    }

    fn compare(&mut self) -> Parse<Expr> {
        let first = self.sum()?;
        let mut links = Vec::new();
        loop {
            let comparison = match self.kind() {
                Kind::Op("==") => Comparison::Eq,
                Kind::Op("!=") => Comparison::Ne,
                Kind::Op("<") => Comparison::Lt,
                Kind::Op("<=") => Comparison::Le,
                Kind::Op(">") => Comparison::Gt,
                Kind::Op(">=") => Comparison::Ge,
                Kind::Name(name) if name == "in" => Comparison::In,
                Kind::Name(name) if name == "not" && matches!(self.after(1), Kind::Name(name) if name == "in") => {
                    self.step();
                    Comparison::NotIn
                }
                _ => break,
            };
            self.step();
            let mut linked = links.len();
            self.link(&mut linked)?;
            links.push((comparison, self.sum()?));
        }
        Ok(if links.is_empty() { first } else { Expr::Compare(Box::new(first), links) })
    }

    fn sum(&mut self) -> Parse<Expr> {
        let (mut left, mut links) = (self.concat()?, 0);
        loop {
            let operator = match self.kind() {
                Kind::Op("+") => Operator::Add,
                Kind::Op("-") => Operator::Sub,
                _ => return Ok(left),
            };
            self.step();
            self.link(&mut links)?;
            left = Expr::Binary(operator, Box::new(left), Box::new(self.concat()?));
        }
    }

    fn concat(&mut self) -> Parse<Expr> {
        let mut parts = vec![self.product()?];
        while self.skip_op("~") {
            parts.push(self.product()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expr::Concat(parts) })
    }

    fn product(&mut self) -> Parse<Expr> {
        let (mut left, mut links) = (self.power()?, 0);
        loop {
            let operator = match self.kind() {
                Kind::Op("*") => Operator::Mul,
                Kind::Op("/") => Operator::Div,
                Kind::Op("//") => Operator::FloorDiv,
                Kind::Op("%") => Operator::Mod,
                _ => return Ok(left),
            };
            self.step();
            self.link(&mut links)?;
            left = Expr::Binary(operator, Box::new(left), Box::new(self.power()?));
        }
    }

    fn power(&mut self) -> Parse<Expr> {
        let (mut left, mut links) = (self.unary(true)?, 0);
        while self.skip_op("**") {
            self.link(&mut links)?;
            left = Expr::Binary(Operator::Pow, Box::new(left), Box::new(self.unary(true)?));
        }
        Ok(left)
    }

    fn unary(&mut self, filters: bool) -> Parse<Expr> {
        let value = if self.skip_op("-") {
            Expr::Negative(Box::new(self.deeper(|parser| parser.unary(false))?))
        } else if self.skip_op("+") {
            Expr::Positive(Box::new(self.deeper(|parser| parser.unary(false))?))
        } else {
            self.primary()?
        };
        let value = self.postfix(value)?;
        if filters { self.filtered(value) } else { Ok(value) }
    }

    fn primary(&mut self) -> Parse<Expr> {
        let value = match self.kind().clone() {
            Kind::Name(name) => match name.as_str() {
                "true" | "True" => Expr::Bool(true),
                "false" | "False" => Expr::Bool(false),
                "none" | "None" => Expr::None,
                name => {
                    self.reads_varargs |= name == "varargs";
                    self.reads_kwargs |= name == "kwargs";
                    self.names.push(name.into());
                    Expr::Name(name.into())
                }
            },
            Kind::Str(mut text) => {
                while let Kind::Str(more) = self.after(1).clone() {
                    text.push_str(&more);
                    self.step();
                }
                self.names.push(text.as_str().into());
                Expr::Str(text.into())
            }
            Kind::Int(text) => text.parse().map_or_else(|_| Expr::BigInt(text.as_str().into()), Expr::Int),
            Kind::Float(number) => Expr::Float(number),
            Kind::Op("(") => {
                self.step();
                let inner = self.deeper(|parser| parser.tuple_in(true, &[], true))?;
                self.expect_op(")")?;
                return Ok(inner);
            }
            Kind::Op("[") => return self.list(),
            Kind::Op("{") => return self.dict(),
            _ => return self.unexpected("an expression"),
        };
        self.step();
        Ok(value)
    }

    fn list(&mut self) -> Parse<Expr> {
        self.step();
        let mut items = Vec::new();
        while !self.is_op("]") {
            if !items.is_empty() {
                self.expect_op(",")?;
                if self.is_op("]") {
                    break;
                }
            }
            items.push(self.expression()?);
        }
        self.expect_op("]")?;
        Ok(Expr::List(items))
    }

    fn dict(&mut self) -> Parse<Expr> {
        self.step();
        let mut items = Vec::new();
        while !self.is_op("}") {
            if !items.is_empty() {
                self.expect_op(",")?;
                if self.is_op("}") {
                    break;
                }
            }
            let key = self.expression()?;
            self.expect_op(":")?;
            items.push((key, self.expression()?));
        }
        self.expect_op("}")?;
        Ok(Expr::Dict(items))
    }

    fn postfix(&mut self, mut value: Expr) -> Parse<Expr> {
        let mut links = 0;
        while [".", "[", "("].iter().any(|operator| self.is_op(operator)) {
            self.link(&mut links)?;
            value = match self.kind() {
                Kind::Op(".") => {
                    self.step();
                    match self.kind().clone() {
                        Kind::Int(text) => {
                            self.step();
                            let Ok(index) = text.parse() else { return self.fail("an index is too large") };
                            Expr::Item(Box::new(value), Box::new(Expr::Int(index)))
                        }
                        _ => {
                            let name = self.name()?;
                            self.names.push(name.clone());
                            Expr::Attribute(Box::new(value), name)
                        }
                    }
                }
                Kind::Op("[") => {
                    self.step();
                    let mut items = vec![self.subscript()?];
                    let mut several = false;
                    while self.skip_op(",") {
                        several = true;
                        if self.is_op("]") {
                            break;
                        }
                        items.push(self.subscript()?);
                    }
                    self.expect_op("]")?;
                    let index = if several { Expr::Tuple(items) } else { items.remove(0) };
                    Expr::Item(Box::new(value), Box::new(index))
                }
                _ => self.call(value)?,
            };
        }
        Ok(value)
    }

    fn subscript(&mut self) -> Parse<Expr> {
        let mut parts: [Option<Expr>; 3] = [None, None, None];
        let mut colons = 0;
        loop {
            if self.skip_op(":") {
                colons += 1;
                if colons > 2 {
                    return self.unexpected("`]`");
                }
            } else if self.is_op("]") || self.is_op(",") {
                break;
            } else if parts[colons].is_none() {
                parts[colons] = Some(self.expression()?);
            } else {
                return self.unexpected("`]`");
            }
        }
        match parts {
            [Some(index), None, None] if colons == 0 => Ok(index),
            _ if colons == 0 => self.unexpected("an index"),
            parts => Ok(Expr::Slice(Box::new(parts))),
        }
    }

    fn call(&mut self, callee: Expr) -> Parse<Expr> {
        let line = self.line();
        Ok(Expr::Call(Box::new(callee), Box::new(self.arguments()?), line))
    }

    fn filtered(&mut self, mut value: Expr) -> Parse<Expr> {
        let mut links = 0;
        while self.is_op("|") || self.is_name("is") || self.is_op("(") {
            self.link(&mut links)?;
            value = if self.skip_op("|") {
                Expr::Filter(Box::new(value), Box::new(self.filter()?))
            } else if self.skip_name("is") {
                self.test(value)?
            } else {
                self.call(value)?
            };
        }
        Ok(value)
    }

    fn test(&mut self, value: Expr) -> Parse<Expr> {
        let line = self.line();
        let negated = self.skip_name("not");
        let name = self.dotted_name()?;
        let argument = match self.kind() {
            Kind::Op(operator) => ["[", "{"].contains(operator),
            Kind::Name(name) => !["else", "or", "and"].contains(&name.as_str()),
            Kind::Str(_) | Kind::Int(_) | Kind::Float(_) => true,
            _ => false,
        };
        let arguments = if self.is_op("(") {
            self.arguments()?
        } else if argument {
            if self.is_name("is") {
                return self.fail("tests cannot be chained with `is`");
            }
            // As in jinja2: any name except the three above is the test's argument, even `if`.
            let value = self.primary()?;
            Arguments { positional: vec![self.postfix(value)?], ..Arguments::default() }
        } else {
            Arguments::default()
        };
        let test = Expr::Test(Box::new(value), Box::new(Filter { name, arguments, line }));
        Ok(if negated { Expr::Not(Box::new(test)) } else { test })
    }

    pub fn arguments(&mut self) -> Parse<Arguments> {
        self.expect_op("(")?;
        let mut arguments = Arguments::default();
        let mut comma = false;
        while !self.is_op(")") {
            if comma {
                self.expect_op(",")?;
                if self.is_op(")") {
                    break;
                }
            }
            comma = true;
            let late = arguments.named_rest.is_some();
            if self.skip_op("**") {
                if late {
                    return self.fail("an argument follows `**`");
                }
                arguments.named_rest = Some(self.expression()?);
            } else if self.skip_op("*") {
                if late || arguments.rest.is_some() {
                    return self.fail("an argument follows `**`, or a second `*`");
                }
                arguments.rest = Some(self.expression()?);
            } else if matches!(self.kind(), Kind::Name(_)) && matches!(self.after(1), Kind::Op("=")) {
                if late {
                    return self.fail("an argument follows `**`");
                }
                let name = self.name()?;
                self.step();
                let value = self.expression()?;
                arguments.named.push((name, value));
            } else {
                if late || arguments.rest.is_some() || !arguments.named.is_empty() {
                    return self.fail("an argument without a name follows one with a name");
                }
                arguments.positional.push(self.expression()?);
            }
        }
        self.expect_op(")")?;
        Ok(arguments)
    }
}
