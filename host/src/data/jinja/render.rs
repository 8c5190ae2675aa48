//! Statements: scopes as jinja2 has them, loops, macros, captured text, and the marks around generation blocks.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use super::eval::Args;
use super::library::functions::plain;
use super::read::ast::{Arguments, Body, Filter, For, Macro, Statement, Target};
use super::value::{Callable, Loop, Value, insert};
use super::{Error, Evaluated, Limits};

/// Stands before the text of a generation block. Behind it are the digits of the message's number, where the block writes
/// one of `messages`, and [`NUMBER_END`]. None of the marks stands in any text.
pub const BEGIN: char = '\u{FDD0}';
/// Stands behind the text of a generation block.
pub const END: char = '\u{FDD1}';
/// Stands behind the number of the message.
pub const NUMBER_END: char = '\u{FDD3}';

/// Variables of one scope. A `for` body, a macro, `with`, and captured text have their own; `if` has none.
pub struct Scope {
    variables: RefCell<Vec<(Arc<str>, Value)>>,
    parent: Option<Rc<Scope>>,
}

impl Scope {
    fn new(parent: Option<Rc<Scope>>) -> Rc<Scope> {
        Rc::new(Scope { variables: RefCell::default(), parent })
    }

    pub fn inside(parent: &Rc<Scope>) -> Rc<Scope> {
        Scope::new(Some(parent.clone()))
    }

    pub fn find(&self, name: &str) -> Option<Value> {
        let mut scope = Some(self);
        while let Some(here) = scope {
            if let Some((_, value)) = here.variables.borrow().iter().find(|(one, _)| &**one == name) {
                return Some(value.clone());
            }
            scope = here.parent.as_deref();
        }
        None
    }

    /// The first result of `found` on a variable, from the innermost scope outwards.
    fn first<T>(&self, found: impl Fn(&Value) -> Option<T>) -> Option<T> {
        let mut scope = Some(self);
        while let Some(here) = scope {
            if let Some(result) = here.variables.borrow().iter().find_map(|(_, value)| found(value)) {
                return Some(result);
            }
            scope = here.parent.as_deref();
        }
        None
    }

    pub fn set(&self, name: &Arc<str>, value: Value) {
        let mut variables = self.variables.borrow_mut();
        match variables.iter_mut().find(|(one, _)| one == name) {
            Some((_, old)) => *old = value,
            None => variables.push((name.clone(), value)),
        }
    }
}

enum Flow {
    Next,
    Break,
    Continue,
}

/// One render.
pub struct Renderer {
    pub limits: Limits,
    work: u64,
    depth: usize,
    pub line: usize,
    out: String,
    /// The variable `messages`, to know which of them a generation block writes.
    messages: Vec<Value>,
    /// Scopes that hold macros, which hold their scopes.
    closed: Vec<Rc<Scope>>,
}

/// Renders statements with variables.
///
/// # Errors
/// What the template raises or cannot do, and its line.
pub fn render(body: &Body, variables: Vec<(String, Value)>, limits: Limits) -> Result<String, Error> {
    let scope = Scope::new(None);
    for (name, value) in variables {
        scope.set(&name.into(), value);
    }
    let messages = scope.find("messages").and_then(|messages| messages.items().ok()).unwrap_or_default();
    let mut renderer =
        Renderer { limits, work: 0, depth: 0, line: 1, out: String::new(), messages, closed: vec![scope.clone()] };
    let result = renderer.body(body, &scope);
    // What holds itself would never be freed.
    renderer.closed.iter().for_each(|scope| scope.variables.borrow_mut().clear());
    match result {
        Ok(_) => Ok(renderer.out),
        Err(what) => Err(Error { what, line: renderer.line }),
    }
}

impl Renderer {
    /// Counts work.
    pub fn spend(&mut self, work: usize) -> Evaluated<()> {
        self.work = self.work.saturating_add(work as u64);
        if self.work > self.limits.work {
            return Err(format!("the template does not end: it needs more than {} steps", self.limits.work));
        }
        Ok(())
    }

    /// Runs `inner` one level deeper.
    pub fn deeper<T>(&mut self, inner: impl FnOnce(&mut Renderer) -> Evaluated<T>) -> Evaluated<T> {
        if self.depth >= self.limits.depth {
            return Err(format!("the template nests or recurses deeper than {} levels", self.limits.depth));
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    /// Refuses what is longer than a text or list may be, and counts its making as work.
    pub fn fits(&mut self, length: usize) -> Evaluated<()> {
        self.grows(length, length)
    }

    /// [`Renderer::fits`] for what is made longer by `more`, without a copy of the rest.
    pub fn grows(&mut self, length: usize, more: usize) -> Evaluated<()> {
        if length > self.limits.length {
            return Err(format!("a text or list is longer than {} characters or items", self.limits.length));
        }
        self.spend(more / 32)
    }

    pub fn print(&mut self, value: &Value) -> Evaluated<Arc<str>> {
        let text = value.print(self.limits.length)?;
        self.fits(text.len())?;
        Ok(text)
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
                let text = self.print(&value)?;
                self.write(&text)?;
            }
            Statement::If { branches, otherwise, line } => {
                self.line = *line;
                for (condition, body) in branches {
                    if self.eval(condition, scope)?.truth() {
                        return self.body(body, scope);
                    }
                }
                return self.body(otherwise, scope);
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
                let text = self.captured(body, &Scope::inside(scope))?;
                self.line = *line;
                let value = self.apply(filters, Value::str(text), scope)?;
                self.assign(target, value, scope)?;
            }
            Statement::Filtered { filters, body, line } => {
                let text = self.captured(body, &Scope::inside(scope))?;
                self.line = *line;
                let value = self.apply(filters, Value::str(text), scope)?;
                let text = self.print(&value)?;
                self.write(&text)?;
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
            Statement::Macro(node) => {
                self.closed.push(scope.clone());
                scope.set(&node.name, closure(node, scope, false));
            }
            Statement::CallBlock { call, caller, line } => {
                self.line = *line;
                let value = self.call_with(call, closure(caller, scope, true), scope)?;
                let text = self.print(&value)?;
                self.write(&text)?;
            }
            Statement::Generation(body) => {
                self.out.push(BEGIN);
                if let Some(number) = self.written_message(scope) {
                    self.out.push_str(&number.to_string());
                }
                self.out.push(NUMBER_END);
                self.body(body, &Scope::inside(scope))?;
                self.out.push(END);
            }
            Statement::Break => return Ok(Flow::Break),
            Statement::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    /// The number of the message that the innermost variable holds.
    fn written_message(&self, scope: &Scope) -> Option<usize> {
        let same = |a: &Value, b: &Value| matches!((a, b), (Value::Dict(a), Value::Dict(b)) if Rc::ptr_eq(a, b));
        scope.first(|value| self.messages.iter().position(|message| same(message, value)))
    }

    fn apply(&mut self, filters: &[Filter], mut value: Value, scope: &Rc<Scope>) -> Evaluated<Value> {
        for filter in filters {
            value = self.filtered(filter, value, scope)?;
        }
        Ok(value)
    }

    fn assign(&mut self, target: &Target, value: Value, scope: &Rc<Scope>) -> Evaluated<()> {
        match target {
            Target::Name(name) => scope.set(name, value),
            Target::Attribute(name, attribute) => match scope.find(name) {
                Some(Value::Namespace(dict)) => {
                    if attribute.starts_with('_') {
                        return Err(format!(
                            "a namespace takes no attribute that begins with an underscore: {attribute}"
                        ));
                    }
                    plain(&value)?;
                    insert(&mut dict.borrow_mut(), Value::Str(attribute.clone()), value)?;
                }
                _ => return Err(format!("cannot assign attribute on non-namespace object: {name}.{attribute}")),
            },
            Target::Several(targets) => {
                let items = value.items()?;
                if items.len() != targets.len() {
                    return Err(format!("{} values where {} are unpacked", items.len(), targets.len()));
                }
                for (target, item) in targets.iter().zip(items) {
                    self.assign(target, item, scope)?;
                }
            }
        }
        Ok(())
    }

    /// Runs a loop and writes what its body writes.
    fn loop_over(&mut self, node: &Arc<For>, over: Value, scope: &Rc<Scope>, depth: usize) -> Evaluated<()> {
        let mut items = over.items()?;
        self.fits(items.len())?;
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
            inner.set(&name, Value::Loop(state.clone()));
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

    /// Calls a macro: its parameters, then its text.
    pub fn call_macro(&mut self, node: &Macro, scope: &Rc<Scope>, block: bool, args: Args) -> Evaluated<Value> {
        let inner = Scope::inside(scope);
        let Args { mut positional, mut named } = args;
        let extra = positional.split_off(node.parameters.len().min(positional.len()));
        let mut given = positional.into_iter();
        for (name, default) in &node.parameters {
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
            inner.set(name, value);
        }
        let caller: Arc<str> = "caller".into();
        match named.iter().position(|(name, _)| *name == caller) {
            Some(keyword) => inner.set(&caller, named.remove(keyword).1),
            None if !block => inner.set(&caller, Value::undefined("No caller defined".into())),
            None => {}
        }
        let reads = |name: &str| mentions(&node.body, name);
        if !extra.is_empty() && !reads("varargs") {
            return Err(format!("macro '{}' takes not more than {} argument(s)", node.name, node.parameters.len()));
        }
        if let Some((name, _)) = named.first()
            && !reads("kwargs")
        {
            return Err(format!("macro '{}' takes no keyword argument '{name}'", node.name));
        }
        inner.set(&"varargs".into(), Value::tuple(extra));
        let named = named.into_iter().map(|(name, value)| (Value::Str(name), value)).collect();
        inner.set(&"kwargs".into(), Value::dict(named));
        self.captured(&node.body, &inner).map(Value::str)
    }

    /// Positional and named arguments, with `*` and `**` unpacked.
    pub fn arguments(&mut self, arguments: &Arguments, scope: &Rc<Scope>) -> Evaluated<Args> {
        let mut args = Args::default();
        for value in &arguments.positional {
            args.positional.push(self.eval(value, scope)?);
        }
        if let Some(rest) = &arguments.rest {
            args.positional.extend(self.eval(rest, scope)?.items()?);
        }
        for (name, value) in &arguments.named {
            args.named.push((name.clone(), self.eval(value, scope)?));
        }
        if let Some(rest) = &arguments.named_rest {
            let Value::Dict(dict) = self.eval(rest, scope)? else { return Err("`**` needs a dict".into()) };
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

/// Whether a macro's body reads a name. Debug text of the tree names every variable it reads.
fn mentions(body: &Body, name: &str) -> bool {
    format!("{body:?}").contains(&format!("Name({name:?})"))
}
