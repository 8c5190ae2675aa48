//! Expressions: lookups with jinja2's order of attributes and items, calls, slices.

use std::rc::Rc;
use std::sync::Arc;

use super::equality::insert;
use super::error::Evaluated;
use super::library::args::Args;
use super::library::{functions, methods};
use super::meter::{REMEDY, TEXT};
use super::number::at;
use super::operators;
use super::read::ast::{Arguments, Comparison, Expr, Filter, Operator};
use super::render::Renderer;
use super::value::{Callable, DEEPEST, Loop, Scope, Value};

impl Renderer {
    pub fn eval(&mut self, expr: &Expr, scope: &Rc<Scope>) -> Evaluated<Value> {
        self.spend(1)?;
        match expr {
            Expr::None => Ok(Value::None),
            Expr::Bool(truth) => Ok(Value::Bool(*truth)),
            Expr::Int(number) => Ok(Value::Int(*number)),
            Expr::BigInt(digits) => Ok(Value::BigInt(digits.clone())),
            Expr::Float(number) => Ok(Value::Float(*number)),
            Expr::Str(text) => Ok(Value::Str(text.clone())),
            Expr::Name(name) => self.name(name, scope),
            _ => self.bounded(expr, scope),
        }
    }

    fn bounded(&mut self, expr: &Expr, scope: &Rc<Scope>) -> Evaluated<Value> {
        let value = self.deeper(|renderer| renderer.compound(expr, scope))?;
        let ((depth, size), most) = (value.extent(), self.meter.limits.length);
        if depth > DEEPEST || size > most {
            return Err(format!(
                "the template makes a value that nests deeper than {DEEPEST} or is larger than {most}{REMEDY}"
            ));
        }
        Ok(value)
    }

    fn name(&self, name: &Arc<str>, scope: &Rc<Scope>) -> Evaluated<Value> {
        let found = scope.find(name, &self.meter)?.or_else(|| functions::global(name));
        Ok(found.unwrap_or_else(|| Value::undefined(format!("'{name}' is undefined"))))
    }

    /// Evaluates expressions that contain others. Each kind has its own function: a single function would use the
    /// stack space of all kinds at each level of nesting.
    #[inline(never)]
    fn compound(&mut self, expr: &Expr, scope: &Rc<Scope>) -> Evaluated<Value> {
        match expr {
            Expr::List(items) => self.all(items, scope).map(Value::list),
            Expr::Tuple(items) => self.all(items, scope).map(Value::tuple),
            Expr::Dict(items) => self.dict(items, scope),
            Expr::Attribute(value, name) => self.attribute_of(value, name, scope),
            Expr::Item(value, index) => self.item(value, index, scope),
            Expr::Slice(_) => Err("a slice outside brackets".into()),
            Expr::Call(callee, arguments, line) => self.called(callee, arguments, *line, scope),
            Expr::Filter(value, filter) => self.filter_of(value, filter, scope),
            Expr::Test(value, test) => self.test_of(value, test, scope),
            Expr::Not(value) => self.eval(value, scope).map(|value| Value::Bool(!value.truth())),
            Expr::And(left, right) => self.either(left, right, true, scope),
            Expr::Or(left, right) => self.either(left, right, false, scope),
            Expr::Negative(value) => self.eval(value, scope).and_then(|value| operators::negative(&value)),
            Expr::Positive(value) => self.eval(value, scope).and_then(|value| operators::positive(&value)),
            Expr::Binary(operator, left, right) => self.binary_of(*operator, left, right, scope),
            Expr::Concat(parts) => self.concat(parts, scope),
            Expr::Compare(first, links) => self.compare(first, links, scope),
            Expr::Conditional(condition, value, otherwise) => {
                self.conditional(condition, value, otherwise.as_deref(), scope)
            }
            simple => self.eval(simple, scope),
        }
    }

    fn all(&mut self, items: &[Expr], scope: &Rc<Scope>) -> Evaluated<Vec<Value>> {
        let mut all = Vec::with_capacity(items.len());
        for item in items {
            all.push(self.eval(item, scope)?);
        }
        Ok(all)
    }

    fn attribute_of(&mut self, value: &Expr, name: &Arc<str>, scope: &Rc<Scope>) -> Evaluated<Value> {
        let value = self.eval(value, scope)?;
        self.attribute(&value, name)
    }

    fn called(&mut self, callee: &Expr, arguments: &Arguments, line: usize, scope: &Rc<Scope>) -> Evaluated<Value> {
        let callee = self.eval(callee, scope)?;
        let args = self.arguments(arguments, scope)?;
        self.line = line;
        self.call(&callee, args)
    }

    fn filter_of(&mut self, value: &Expr, filter: &Filter, scope: &Rc<Scope>) -> Evaluated<Value> {
        let value = self.eval(value, scope)?;
        self.filtered(filter, value, scope)
    }

    fn test_of(&mut self, value: &Expr, test: &Filter, scope: &Rc<Scope>) -> Evaluated<Value> {
        let value = self.eval(value, scope)?;
        let args = self.arguments(&test.arguments, scope)?;
        self.line = test.line;
        self.test(&test.name, &value, args).map(Value::Bool)
    }

    /// `left and right`, or `left or right`.
    fn either(&mut self, left: &Expr, right: &Expr, both: bool, scope: &Rc<Scope>) -> Evaluated<Value> {
        let left = self.eval(left, scope)?;
        if left.truth() == both { self.eval(right, scope) } else { Ok(left) }
    }

    fn binary_of(&mut self, operator: Operator, left: &Expr, right: &Expr, scope: &Rc<Scope>) -> Evaluated<Value> {
        let left = self.eval(left, scope)?;
        let right = self.eval(right, scope)?;
        self.binary(operator, &left, &right)
    }

    fn concat(&mut self, parts: &[Expr], scope: &Rc<Scope>) -> Evaluated<Value> {
        let mut text = String::new();
        for part in parts {
            let part = self.eval(part, scope)?;
            let part = self.printed(&part)?;
            text.push_str(&part);
            self.grows(text.len(), part.len())?;
        }
        Ok(Value::str(text))
    }

    fn conditional(
        &mut self,
        condition: &Expr,
        value: &Expr,
        otherwise: Option<&Expr>,
        scope: &Rc<Scope>,
    ) -> Evaluated<Value> {
        match (self.eval(condition, scope)?.truth(), otherwise) {
            (true, _) => self.eval(value, scope),
            (false, Some(otherwise)) => self.eval(otherwise, scope),
            (false, None) => Ok(Value::undefined(
                "the inline if-expression evaluated to false and no else section was defined".into(),
            )),
        }
    }

    fn dict(&mut self, items: &[(Expr, Expr)], scope: &Rc<Scope>) -> Evaluated<Value> {
        let mut dict = Vec::with_capacity(items.len());
        for (key, value) in items {
            let key = self.eval(key, scope)?;
            let value = self.eval(value, scope)?;
            insert(&mut dict, key, value, &self.meter)?;
        }
        Ok(Value::dict(dict))
    }

    fn compare(&mut self, first: &Expr, links: &[(Comparison, Expr)], scope: &Rc<Scope>) -> Evaluated<Value> {
        let mut left = self.eval(first, scope)?;
        for (comparison, right) in links {
            let right = self.eval(right, scope)?;
            if !operators::compare(*comparison, &left, &right, &self.meter)? {
                return Ok(Value::Bool(false));
            }
            left = right;
        }
        Ok(Value::Bool(true))
    }

    /// `value.name`: an attribute first, then an item.
    pub fn attribute(&mut self, value: &Value, name: &Arc<str>) -> Evaluated<Value> {
        // The full name is needed for what is missing.
        self.spend(1 + name.len() / TEXT)?;
        if let Value::Loop(state) = value {
            return Ok(loop_attribute(state, name).unwrap_or_else(|| missing(value, name)));
        }
        if let Value::Namespace(_) = value {
            let found = value.get(&Value::Str(name.clone()), &self.meter)?;
            return Ok(found.unwrap_or_else(|| missing(value, name)));
        }
        value.defined()?;
        if methods::changes(value, name) {
            let instead = match value {
                Value::Dict(_) => "dict(old, key=value)",
                _ => "old + [item]",
            };
            let kind = value.kind();
            let what = format!(
                "{kind}.{name} would change a {kind} in place, which transformers does not allow to chat templates either; make a new \
                 one ({instead}), or keep what changes in a namespace()"
            );
            return Ok(Value::undefined(what));
        }
        if methods::has(value, name) {
            return Ok(Value::Callable(Rc::new(Callable::Method(value.clone(), name.clone()))));
        }
        if let Some(found) = functions::attribute(value, name) {
            return Ok(found);
        }
        Ok(value.get(&Value::Str(name.clone()), &self.meter)?.unwrap_or_else(|| missing(value, name)))
    }

    fn item(&mut self, value: &Expr, index: &Expr, scope: &Rc<Scope>) -> Evaluated<Value> {
        let value = self.eval(value, scope)?;
        if let Expr::Slice(parts) = index {
            let mut bounds = [None, None, None];
            for (bound, part) in bounds.iter_mut().zip(parts.iter()) {
                if let Some(part) = part {
                    *bound = match self.eval(part, scope)? {
                        Value::None => None,
                        part => Some(part.index().ok_or("slice indices must be integers or None")?),
                    };
                }
            }
            value.defined()?;
            match &value {
                Value::Str(text) => self.spend(text.len() / 8)?,
                other => self.meter.list(other.length().unwrap_or(0))?,
            }
            return operators::slice(&value, bounds);
        }
        let index = self.eval(index, scope)?;
        self.subscript(&value, &index)
    }

    /// `value[index]`: an item first, then an attribute.
    pub fn subscript(&mut self, value: &Value, index: &Value) -> Evaluated<Value> {
        value.defined()?;
        self.spend(1)?;
        let found = match (value, index.index()) {
            (Value::Str(text), Some(place)) => self.character(text, place)?,
            (Value::List(items) | Value::Tuple(items), Some(place))
            | (Value::View(super::value::View::Range(..), items), Some(place)) => {
                at(items.len(), place).map(|place| items[place].clone())
            }
            _ => value.get(index, &self.meter)?,
        };
        match (found, index) {
            (Some(found), _) => Ok(found),
            (None, Value::Str(name)) => self.attribute(value, name),
            (None, index) => {
                let index = index.repr(&self.meter)?;
                Ok(Value::undefined(format!("{} has no element {index}", described(value))))
            }
        }
    }

    /// The character at this index.
    fn character(&mut self, text: &Arc<str>, number: i128) -> Evaluated<Option<Value>> {
        let count = match &self.counted {
            Some((counted, count)) if Arc::ptr_eq(counted, text) => *count,
            _ => {
                self.spend(text.len() / 128)?;
                let count = text.chars().count();
                self.counted = Some((text.clone(), count));
                count
            }
        };
        let Some(place) = at(count, number) else { return Ok(None) };
        if count == text.len() {
            return Ok(text.get(place..=place).map(Value::str));
        }
        self.spend(place / 64)?;
        Ok(text.chars().nth(place).map(|c| Value::str(c.to_string())))
    }

    pub fn call(&mut self, callee: &Value, args: Args) -> Evaluated<Value> {
        callee.defined()?;
        let callable = match callee {
            Value::Callable(callable) => callable,
            Value::Loop(state) => {
                let [over] = args.bind("loop", ["iterable"])?;
                return self.deeper(|renderer| renderer.recurse(state, over.unwrap_or(Value::None)));
            }
            other => return Err(format!("'{}' object is not callable", other.kind())),
        };
        self.deeper(|renderer| match &**callable {
            Callable::Macro { node, scope, caller } => renderer.call_macro(node, scope, *caller, args),
            Callable::Method(value, name) => renderer.method(value, name, args),
            Callable::Function(name) => renderer.function(name, args),
            Callable::Date(now) => renderer.date(now, args),
            Callable::Cycler { items, index } => {
                let item = items.get(index.get()).cloned().unwrap_or(Value::None);
                index.set((index.get() + 1) % items.len().max(1));
                Ok(item)
            }
            Callable::Joiner { separator, used } => {
                Ok(if used.replace(true) { separator.clone() } else { Value::str("") })
            }
        })
    }

    /// Evaluates the call of a call block, with its text as `caller`.
    pub fn call_with(&mut self, call: &Expr, caller: Value, scope: &Rc<Scope>) -> Evaluated<Value> {
        let Expr::Call(callee, arguments, _) = call else { return Err("`call` needs a call".into()) };
        let callee = self.eval(callee, scope)?;
        let mut args = self.arguments(arguments, scope)?;
        args.named.push(("caller".into(), caller));
        self.call(&callee, args)
    }

    pub fn filtered(&mut self, filter: &Filter, value: Value, scope: &Rc<Scope>) -> Evaluated<Value> {
        let args = self.arguments(&filter.arguments, scope)?;
        self.line = filter.line;
        self.filter(&filter.name, value, args)
    }
}

/// A value with its type, as jinja2 describes it.
fn described(value: &Value) -> String {
    match value {
        Value::None => "None".into(),
        other => format!("'{} object'", other.kind()),
    }
}

pub fn missing(value: &Value, name: &str) -> Value {
    Value::undefined(format!("{} has no attribute '{name}'", described(value)))
}

fn loop_attribute(state: &Rc<Loop>, name: &str) -> Option<Value> {
    let (index, length) = (state.index.get(), state.items.len());
    let int = |number: usize| Some(Value::Int(number as i128));
    match name {
        "index" => int(index + 1),
        "index0" => int(index),
        "revindex" => int(length - index),
        "revindex0" => int(length - index - 1),
        "first" => Some(Value::Bool(index == 0)),
        "last" => Some(Value::Bool(index + 1 == length)),
        "length" => int(length),
        "depth" => int(state.depth + 1),
        "depth0" => int(state.depth),
        "previtem" => Some(match index.checked_sub(1) {
            Some(previous) => state.items[previous].clone(),
            None => Value::undefined("there is no previous item".into()),
        }),
        "nextitem" => {
            let next = state.items.get(index + 1).cloned();
            Some(next.unwrap_or_else(|| Value::undefined("there is no next item".into())))
        }
        "cycle" | "changed" => {
            Some(Value::Callable(Rc::new(Callable::Method(Value::Loop(state.clone()), name.into()))))
        }
        _ => None,
    }
}
