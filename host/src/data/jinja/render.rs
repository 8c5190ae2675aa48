//! Statements: scopes as jinja2 has them, loops, macros, captured text, and the marks around generation blocks.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use super::equality::insert;
use super::error::{Error, Evaluated};
use super::library::args::Args;
use super::meter::{Limits, Meter, REMEDY};
use super::read::ast::{Arguments, Body, Expr, Filter, For, Macro, Statement, Target};
use super::value::{Callable, Dict, Loop, Nested, Scope, Value, plain};

/// Precedes the text of a generation block. It is followed by the digits of the message's number, if the block
/// writes one of `messages`, and by [`NUMBER_END`]. No text contains any of the marks.
pub const BEGIN: char = '\u{FDD0}';
/// Follows the text of a generation block.
pub const END: char = '\u{FDD1}';
/// Follows the number of the message.
pub const NUMBER_END: char = '\u{FDD3}';

/// All marks.
pub const MARKS: [char; 3] = [BEGIN, END, NUMBER_END];

enum Flow {
    Next,
    Break,
    Continue,
}

/// One render.
pub struct Renderer {
    pub meter: Meter,
    depth: usize,
    pub line: usize,
    out: String,
    /// The last text whose characters were counted, for an index, and their number.
    pub counted: Option<(Arc<str>, usize)>,
    /// The address of each of `messages`, with its number, to recognize which of them a generation block writes.
    messages: HashMap<*const Nested<Dict>, usize>,
    /// Scopes that contain macros, which in turn hold their scopes.
    closed: Vec<Rc<Scope>>,
}

/// Renders statements with variables.
///
/// # Errors
/// An error that the template raises or causes, with its line.
pub fn render(body: &Body, variables: Vec<(String, Value)>, limits: Limits) -> Result<String, Error> {
    let scope = Scope::new(None);
    let meter = Meter::new(limits);
    for (name, value) in variables {
        scope.set(&name.into(), value, &meter).map_err(|what| Error::new(what, 1))?;
    }
    let mut messages = HashMap::new();
    if let Some((_, Value::List(all))) = scope.variables.borrow().iter().find(|(name, _)| &**name == "messages") {
        for (number, message) in all.iter().enumerate() {
            if let Value::Dict(message) = message {
                messages.entry(Rc::as_ptr(message)).or_insert(number);
            }
        }
    }
    let mut renderer =
        Renderer { meter, depth: 0, line: 1, out: String::new(), counted: None, messages, closed: vec![scope.clone()] };
    let result = renderer.body(body, &scope);
    // Breaks reference cycles, which would never be freed.
    renderer.closed.iter().for_each(|scope| scope.variables.borrow_mut().clear());
    match result {
        Ok(_) => Ok(renderer.out),
        Err(what) => Err(Error::new(what, renderer.line)),
    }
}

impl Renderer {
    /// Counts work.
    pub fn spend(&self, work: usize) -> Evaluated<()> {
        self.meter.spend(work)
    }

    /// Runs `inner` one level deeper.
    pub fn deeper<T>(&mut self, inner: impl FnOnce(&mut Renderer) -> Evaluated<T>) -> Evaluated<T> {
        let most = self.meter.limits.depth;
        if self.depth >= most {
            return Err(format!(
                "the template nests or recurses deeper than {most} levels, the limit of a render: a macro or a recursive loop may \
                 not end{REMEDY}"
            ));
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    /// [`Meter::fits`]
    pub fn fits(&self, length: usize) -> Evaluated<()> {
        self.meter.fits(length)
    }

    /// [`Meter::grows`]
    pub fn grows(&self, length: usize, more: usize) -> Evaluated<()> {
        self.meter.grows(length, more)
    }

    pub fn print(&self, value: &Value) -> Evaluated<Arc<str>> {
        value.print(&self.meter)
    }

    /// As [`Renderer::print`], for text that is copied next: its length is counted where it is copied, not here.
    pub fn printed(&self, value: &Value) -> Evaluated<Arc<str>> {
        match value {
            Value::Str(text) => Ok(text.clone()),
            other => self.print(other),
        }
    }

    fn write(&mut self, text: &str) -> Evaluated<()> {
        self.grows(self.out.len() + text.len(), text.len())?;
        self.out.push_str(text);
        Ok(())
    }

    fn body(&mut self, body: &Body, scope: &Rc<Scope>) -> Evaluated<Flow> {
        self.deeper(|renderer| {
            for statement in body.iter() {
                match renderer.statement(statement, scope)? {
                    Flow::Next => {}
                    flow => return Ok(flow),
                }
            }
            Ok(Flow::Next)
        })
    }

    /// The text that statements write.
    pub fn captured(&mut self, body: &Body, scope: &Rc<Scope>) -> Evaluated<String> {
        let outer = std::mem::take(&mut self.out);
        let result = self.body(body, scope);
        let text = std::mem::replace(&mut self.out, outer);
        result.map(|_| text)
    }

    fn statement(&mut self, statement: &Statement, scope: &Rc<Scope>) -> Evaluated<Flow> {
        self.spend(1)?;
        match statement {
            Statement::Text(text) => self.write(text)?,
            Statement::Output(value, line) => {
                self.line = *line;
                let value = self.eval(value, scope)?;
                self.write_value(&value)?;
            }
            Statement::If { branches, otherwise, line } => {
                self.line = *line;
                return self.branch(branches, otherwise, scope);
            }
            Statement::For(node) => {
                self.line = node.line;
                let over = self.eval(&node.over, scope)?;
                self.loop_over(node, over, scope, 0)?;
            }
            Statement::Set { target, value, line } => {
                self.line = *line;
                let value = self.eval(value, scope)?;
                self.assign(target, value, scope)?;
            }
            Statement::Capture { target, filters, body, line } => {
                let value = self.filtered_text(filters, body, *line, scope)?;
                self.assign(target, value, scope)?;
            }
            Statement::Filtered { filters, body, line } => {
                let value = self.filtered_text(filters, body, *line, scope)?;
                self.write_value(&value)?;
            }
            Statement::With { targets, body, line } => {
                self.line = *line;
                let inner = Scope::inside(scope);
                for (target, value) in targets {
                    let value = self.eval(value, scope)?;
                    self.assign(target, value, &inner)?;
                }
                return self.body(body, &inner);
            }
            Statement::Macro(node) => self.define(node, scope)?,
            Statement::CallBlock { call, caller, line } => {
                self.line = *line;
                let value = self.call_with(call, closure(caller, scope, true), scope)?;
                self.write_value(&value)?;
            }
            Statement::Generation(body) => self.generation(body, scope)?,
            Statement::Break => return Ok(Flow::Break),
            Statement::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    fn write_value(&mut self, value: &Value) -> Evaluated<()> {
        let text = self.printed(value)?;
        self.write(&text)
    }

    fn branch(&mut self, branches: &[(Expr, Body)], otherwise: &Body, scope: &Rc<Scope>) -> Evaluated<Flow> {
        for (condition, body) in branches {
            if self.eval(condition, scope)?.truth() {
                return self.body(body, scope);
            }
        }
        self.body(otherwise, scope)
    }

    fn filtered_text(&mut self, filters: &[Filter], body: &Body, line: usize, scope: &Rc<Scope>) -> Evaluated<Value> {
        let text = self.captured(body, &Scope::inside(scope))?;
        self.line = line;
        self.apply(filters, Value::str(text), scope)
    }

    fn define(&mut self, node: &Arc<Macro>, scope: &Rc<Scope>) -> Evaluated<()> {
        if !self.closed.last().is_some_and(|last| Rc::ptr_eq(last, scope)) {
            self.closed.push(scope.clone());
        }
        scope.set(&node.name, closure(node, scope, false), &self.meter)
    }

    fn generation(&mut self, body: &Body, scope: &Rc<Scope>) -> Evaluated<()> {
        self.out.push(BEGIN);
        if let Some(number) = self.written_message(scope) {
            self.out.push_str(&number.to_string());
        }
        self.out.push(NUMBER_END);
        self.body(body, &Scope::inside(scope))?;
        self.out.push(END);
        Ok(())
    }

    /// The number of the message that a variable holds; variables are searched from the innermost scope outwards.
    fn written_message(&self, scope: &Scope) -> Option<usize> {
        scope.first(|value| match value {
            Value::Dict(dict) => self.messages.get(&Rc::as_ptr(dict)).copied(),
            _ => None,
        })
    }

    fn apply(&mut self, filters: &[Filter], mut value: Value, scope: &Rc<Scope>) -> Evaluated<Value> {
        for filter in filters {
            value = self.filtered(filter, value, scope)?;
        }
        Ok(value)
    }

    fn assign(&mut self, target: &Target, value: Value, scope: &Rc<Scope>) -> Evaluated<()> {
        match target {
            Target::Name(name) => scope.set(name, value, &self.meter)?,
            Target::Attribute(name, attribute) => match scope.find(name, &self.meter)? {
                Some(Value::Namespace(dict)) => {
                    if attribute.starts_with('_') {
                        return Err(format!(
                            "an attribute of a namespace must not begin with an underscore: {attribute}"
                        ));
                    }
                    plain(&value)?;
                    insert(&mut dict.borrow_mut(), Value::Str(attribute.clone()), value, &self.meter)?;
                }
                _ => return Err(format!("cannot assign attribute on non-namespace object: {name}.{attribute}")),
            },
            Target::Several(targets) => {
                let items = value.items(&self.meter)?;
                if items.len() != targets.len() {
                    return Err(format!("{} values cannot be unpacked into {} names", items.len(), targets.len()));
                }
                for (target, item) in targets.iter().zip(items) {
                    self.assign(target, item, scope)?;
                }
            }
        }
        Ok(())
    }

    /// Runs a loop and writes the output of its body.
    fn loop_over(&mut self, node: &Arc<For>, over: Value, scope: &Rc<Scope>, depth: usize) -> Evaluated<()> {
        let mut items = over.items(&self.meter)?;
        if let Some(condition) = &node.condition {
            let mut kept = Vec::new();
            for item in items {
                self.spend(1)?;
                let inner = Scope::inside(scope);
                self.assign(&node.target, item.clone(), &inner)?;
                if self.eval(condition, &inner)?.truth() {
                    kept.push(item);
                }
            }
            items = kept;
        }
        if items.is_empty() {
            return self.body(&node.otherwise, scope).map(drop);
        }
        let state = Rc::new(Loop {
            items,
            index: Cell::new(0),
            depth,
            changed: RefCell::default(),
            node: node.clone(),
            scope: scope.clone(),
        });
        let name: Arc<str> = "loop".into();
        for (index, item) in state.items.iter().enumerate() {
            self.spend(1)?;
            state.index.set(index);
            let inner = Scope::inside(scope);
            inner.set(&name, Value::Loop(state.clone()), &self.meter)?;
            self.assign(&node.target, item.clone(), &inner)?;
            if let Flow::Break = self.body(&node.body, &inner)? {
                break;
            }
        }
        Ok(())
    }

    /// `loop(items)` inside a recursive loop.
    pub fn recurse(&mut self, state: &Loop, over: Value) -> Evaluated<Value> {
        if !state.node.recursive {
            return Err("the loop must have the `recursive` marker to be called".into());
        }
        let outer = std::mem::take(&mut self.out);
        let result = self.loop_over(&state.node, over, &state.scope, state.depth + 1);
        let text = std::mem::replace(&mut self.out, outer);
        result.map(|()| Value::str(text))
    }

    /// Calls a macro: binds its parameters, then renders its text.
    pub fn call_macro(&mut self, node: &Macro, scope: &Rc<Scope>, block: bool, args: Args) -> Evaluated<Value> {
        let inner = Scope::inside(scope);
        let Args { mut positional, mut named } = args;
        let extra = positional.split_off(node.parameters.len().min(positional.len()));
        let mut given = positional.into_iter();
        for (name, default) in &node.parameters {
            self.spend(1 + named.len() / 8)?;
            let keyword = named.iter().position(|(one, _)| one == name);
            let value = match (given.next(), keyword) {
                (Some(_), Some(_)) => return Err(format!("macro '{}' got two values for '{name}'", node.name)),
                (Some(value), None) => value,
                (None, Some(keyword)) => named.remove(keyword).1,
                (None, None) => match default {
                    Some(default) => self.eval(default, &inner)?,
                    None => Value::undefined(format!("parameter '{name}' was not provided")),
                },
            };
            inner.set(name, value, &self.meter)?;
        }
        let caller: Arc<str> = "caller".into();
        match named.iter().position(|(name, _)| *name == caller) {
            Some(keyword) => inner.set(&caller, named.remove(keyword).1, &self.meter)?,
            None if !block => inner.set(&caller, Value::undefined("No caller defined".into()), &self.meter)?,
            None => {}
        }
        if !extra.is_empty() && !node.reads_varargs {
            return Err(format!("macro '{}' takes not more than {} argument(s)", node.name, node.parameters.len()));
        }
        if let Some((name, _)) = named.first()
            && !node.reads_kwargs
        {
            return Err(format!("macro '{}' takes no keyword argument '{name}'", node.name));
        }
        inner.set(&"varargs".into(), Value::tuple(extra), &self.meter)?;
        self.spend(named.len())?;
        let named = named.into_iter().map(|(name, value)| (Value::Str(name), value)).collect();
        inner.set(&"kwargs".into(), Value::dict(named), &self.meter)?;
        self.captured(&node.body, &inner).map(Value::str)
    }

    /// Positional and named arguments, with `*` and `**` unpacked.
    pub fn arguments(&mut self, arguments: &Arguments, scope: &Rc<Scope>) -> Evaluated<Args> {
        let mut args = Args::default();
        for value in &arguments.positional {
            args.positional.push(self.eval(value, scope)?);
        }
        if let Some(rest) = &arguments.rest {
            let rest = self.eval(rest, scope)?;
            args.positional.extend(rest.items(&self.meter)?);
        }
        for (name, value) in &arguments.named {
            args.named.push((name.clone(), self.eval(value, scope)?));
        }
        if let Some(rest) = &arguments.named_rest {
            let Value::Dict(dict) = self.eval(rest, scope)? else { return Err("`**` needs a dict".into()) };
            self.spend(dict.len())?;
            for (name, value) in dict.iter() {
                let Value::Str(name) = name else { return Err("keywords must be strings".into()) };
                args.named.push((name.clone(), value.clone()));
            }
        }
        Ok(args)
    }
}

fn closure(node: &Arc<Macro>, scope: &Rc<Scope>, caller: bool) -> Value {
    Value::Callable(Rc::new(Callable::Macro { node: node.clone(), scope: scope.clone(), caller }))
}
