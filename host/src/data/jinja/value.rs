//! Values as in Python: how they print, compare and iterate, and which count as true.

use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

use super::error::Evaluated;
use super::meter::{Meter, TEXT};
use super::number;
use super::read::ast::{For, Macro};
use super::text::write_repr;

/// A value of a template.
#[derive(Clone)]
pub enum Value {
    /// A missing value, with the error for using it.
    Undefined(Rc<str>),
    /// `strftime_now`: counts as missing, and calling it is an error that explains why.
    Clock,
    None,
    Bool(bool),
    Int(i128),
    /// A whole number beyond 127 bits, which prints exactly but cannot be used in arithmetic.
    BigInt(Arc<str>),
    Float(f64),
    Str(Arc<str>),
    List(Rc<Nested<Vec<Value>>>),
    Tuple(Rc<Nested<Vec<Value>>>),
    /// `dict.keys()` and similar views, and `range`.
    View(View, Rc<Nested<Vec<Value>>>),
    Dict(Rc<Nested<Dict>>),
    /// An iterator that reading exhausts, such as the result of `select`.
    Iterator(Rc<Nested<RefCell<std::vec::IntoIter<Value>>>>),
    Namespace(Rc<RefCell<Dict>>),
    Loop(Rc<Loop>),
    Callable(Rc<Callable>),
}

/// Keys and values in order of insertion.
pub type Dict = Vec<(Value, Value)>;

/// A container of other values, with its depth and its size. The size counts a value as often as it is reached: one
/// for each value, and one for each [`TEXT`] bytes of text.
pub struct Nested<T> {
    inner: T,
    depth: usize,
    size: usize,
}

/// Depth and size of a container of these values.
fn extent_of<'v>(children: impl Iterator<Item = &'v Value>) -> (usize, usize) {
    let (depth, size) = children
        .map(Value::extent)
        .fold((0, 1usize), |(depth, size), child| (depth.max(child.0), size.saturating_add(child.1)));
    (depth + 1, size)
}

pub fn nested(items: Vec<Value>) -> Rc<Nested<Vec<Value>>> {
    let (depth, size) = extent_of(items.iter());
    Rc::new(Nested { inner: items, depth, size })
}

impl<T> Deref for Nested<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner
    }
}

/// The depth that a namespace, a macro and `loop` count as: they can only hold values of smaller depth, so that no
/// value contains itself.
pub const HOLDER: usize = 140;
/// The maximum depth of a value. JSON input nests less than [`HOLDER`].
pub const DEEPEST: usize = 200;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum View {
    Keys,
    Values,
    Items,
    Range(i128, i128, i128),
}

/// The value of the variable `loop`.
pub struct Loop {
    pub items: Vec<Value>,
    pub index: Cell<usize>,
    pub depth: usize,
    /// The arguments of the last call of `loop.changed`.
    pub changed: RefCell<Option<Vec<Value>>>,
    pub node: Arc<For>,
    pub scope: Rc<Scope>,
}

/// A callable value.
pub enum Callable {
    Macro {
        node: Arc<Macro>,
        scope: Rc<Scope>,
        caller: bool,
    },
    /// A method of a value, by name.
    Method(Value, Arc<str>),
    Function(&'static str),
    /// `strftime_now` where a date is given: writes this time.
    Date(chrono::NaiveDateTime),
    Cycler {
        items: Rc<Nested<Vec<Value>>>,
        index: Cell<usize>,
    },
    /// Its separator contains no other value.
    Joiner {
        separator: Value,
        used: Cell<bool>,
    },
}

/// Variables of one scope. A `for` body, a macro, `with`, and captured text have their own; `if` does not.
pub struct Scope {
    pub variables: RefCell<Vec<(Arc<str>, Value)>>,
    pub(super) parent: Option<Rc<Scope>>,
}

/// Why using the date is an error, and what to do.
pub const NO_CLOCK: &str = "the template prints today's date (strftime_now), which must not be part of the data: the same rows would \
    become other tokens on another day; copy the template to a file, write a fixed date in place of the call, and name the file \
    in data.chat_template, or in --chat-template of a command";

impl Value {
    pub fn str(text: impl Into<Arc<str>>) -> Value {
        Value::Str(text.into())
    }

    pub fn list(items: Vec<Value>) -> Value {
        Value::List(nested(items))
    }

    pub fn tuple(items: Vec<Value>) -> Value {
        Value::Tuple(nested(items))
    }

    pub fn iterator(items: Vec<Value>) -> Value {
        let (depth, size) = extent_of(items.iter());
        Value::Iterator(Rc::new(Nested { inner: RefCell::new(items.into_iter()), depth, size }))
    }

    pub fn view(kind: View, items: Vec<Value>) -> Value {
        Value::View(kind, nested(items))
    }

    pub fn dict(items: Dict) -> Value {
        let (depth, size) = extent_of(items.iter().flat_map(|(key, value)| [key, value]));
        Value::Dict(Rc::new(Nested { inner: items, depth, size }))
    }

    /// The depth and size of a value.
    pub fn extent(&self) -> (usize, usize) {
        match self {
            Value::List(items) | Value::Tuple(items) | Value::View(_, items) => (items.depth, items.size),
            Value::Dict(dict) => (dict.depth, dict.size),
            Value::Iterator(items) => (items.depth, items.size),
            Value::Namespace(_) | Value::Loop(_) => (HOLDER, 1),
            Value::Callable(callable) => match &**callable {
                Callable::Method(value, _) | Callable::Joiner { separator: value, .. } => {
                    let (depth, size) = value.extent();
                    (depth + 1, size.saturating_add(1))
                }
                Callable::Cycler { items, .. } => (items.depth + 1, items.size),
                Callable::Macro { .. } => (HOLDER, 1),
                Callable::Function(_) | Callable::Date(_) => (0, 1),
            },
            Value::Str(text) | Value::BigInt(text) => (0, 1 + text.len() / TEXT),
            _ => (0, 1),
        }
    }

    pub fn undefined(what: String) -> Value {
        Value::Undefined(what.into())
    }

    pub fn is_undefined(&self) -> bool {
        matches!(self, Value::Undefined(_) | Value::Clock)
    }

    /// Python's name of its type.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Undefined(_) | Value::Clock => "Undefined",
            Value::None => "NoneType",
            Value::Bool(_) => "bool",
            Value::Int(_) | Value::BigInt(_) => "int",
            Value::Float(_) => "float",
            Value::Str(_) => "str",
            Value::List(_) => "list",
            Value::Tuple(_) => "tuple",
            Value::View(View::Keys, _) => "dict_keys",
            Value::View(View::Values, _) => "dict_values",
            Value::View(View::Items, _) => "dict_items",
            Value::View(View::Range(..), _) => "range",
            Value::Dict(_) => "dict",
            Value::Iterator(_) => "generator",
            Value::Namespace(_) => "Namespace",
            Value::Loop(_) => "LoopContext",
            Value::Callable(callable) => match &**callable {
                Callable::Macro { .. } => "Macro",
                Callable::Method(..) => "method",
                Callable::Function(_) | Callable::Date(_) => "function",
                Callable::Cycler { .. } => "Cycler",
                Callable::Joiner { .. } => "Joiner",
            },
        }
    }

    /// Refuses a missing value.
    pub fn defined(&self) -> Evaluated<()> {
        match self {
            Value::Undefined(what) => Err(what.to_string()),
            Value::Clock => Err(NO_CLOCK.to_owned()),
            _ => Ok(()),
        }
    }

    pub fn truth(&self) -> bool {
        match self {
            Value::Undefined(_) | Value::Clock | Value::None => false,
            Value::Bool(truth) => *truth,
            Value::Int(number) => *number != 0,
            Value::Float(number) => *number != 0.0,
            Value::Str(text) => !text.is_empty(),
            Value::List(items) | Value::Tuple(items) | Value::View(_, items) => !items.is_empty(),
            Value::Dict(dict) => !dict.is_empty(),
            _ => true,
        }
    }

    /// Its items, as a `for` loop reads them; an iterator is exhausted by this.
    pub fn items(&self, meter: &Meter) -> Evaluated<Vec<Value>> {
        meter.list(match self {
            Value::Str(text) => text.len(),
            Value::List(items) | Value::Tuple(items) | Value::View(_, items) => items.len(),
            Value::Dict(dict) => dict.len(),
            Value::Iterator(items) => items.borrow().len(),
            Value::Loop(state) => state.items.len(),
            _ => 0,
        })?;
        match self {
            Value::Undefined(_) | Value::Clock => Ok(Vec::new()),
            Value::Str(text) => Ok(text.chars().map(|c| Value::str(c.to_string())).collect()),
            Value::List(items) | Value::Tuple(items) | Value::View(_, items) => Ok(items.to_vec()),
            Value::Dict(dict) => Ok(dict.iter().map(|(key, _)| key.clone()).collect()),
            Value::Iterator(items) => Ok(items.borrow_mut().by_ref().collect()),
            Value::Loop(state) => Ok(state.items.clone()),
            other => Err(format!("'{}' object is not iterable", other.kind())),
        }
    }

    pub fn length(&self) -> Evaluated<usize> {
        match self {
            Value::Undefined(_) | Value::Clock => Ok(0),
            Value::Str(text) => Ok(text.chars().count()),
            Value::List(items) | Value::Tuple(items) | Value::View(_, items) => Ok(items.len()),
            Value::Dict(dict) => Ok(dict.len()),
            Value::Loop(state) => Ok(state.items.len()),
            other => Err(format!("object of type '{}' has no len()", other.kind())),
        }
    }

    /// Its value as a whole number where Python accepts it as one: true and false count.
    pub fn index(&self) -> Option<i128> {
        match self {
            Value::Int(number) => Some(*number),
            Value::Bool(truth) => Some(i128::from(*truth)),
            _ => None,
        }
    }

    pub fn float(&self) -> Option<f64> {
        match self {
            Value::Float(number) => Some(*number),
            Value::BigInt(digits) => digits.parse().ok(),
            other => other.index().map(|number| number as f64),
        }
    }

    /// `str(value)`.
    ///
    /// # Errors
    /// A text that is too long, or a value whose text is an address in memory.
    pub fn print(&self, meter: &Meter) -> Evaluated<Arc<str>> {
        match self {
            Value::Str(text) => {
                meter.fits(text.len())?;
                Ok(text.clone())
            }
            Value::Undefined(_) | Value::Clock => Ok("".into()),
            other => other.repr(meter).map(Arc::from),
        }
    }

    /// `repr(value)`.
    pub fn repr(&self, meter: &Meter) -> Evaluated<String> {
        let mut out = String::new();
        self.write(&mut out, meter, 0)?;
        Ok(out)
    }

    fn write(&self, out: &mut String, meter: &Meter, depth: usize) -> Evaluated<()> {
        if depth > DEEPEST {
            return Err(format!("a value nests deeper than {DEEPEST}, too deep to print"));
        }
        let text = if let Value::Str(text) | Value::BigInt(text) = self { text.len() } else { 0 };
        // Escapes lengthen a text: the check of the next value notices.
        meter.spend(1 + text / 4)?;
        meter.grows(out.len().saturating_add(text), text)?;
        match self {
            Value::Undefined(_) | Value::Clock => out.push_str("Undefined"),
            Value::None => out.push_str("None"),
            Value::Bool(true) => out.push_str("True"),
            Value::Bool(false) => out.push_str("False"),
            Value::Int(number) => out.push_str(&number.to_string()),
            Value::BigInt(digits) => out.push_str(digits),
            Value::Float(value) => out.push_str(&number::repr(*value)),
            Value::Str(text) => write_repr(out, text),
            Value::List(items) => write_items(out, "[", items, "]", meter, depth)?,
            Value::Tuple(items) if items.len() == 1 => write_items(out, "(", items, ",)", meter, depth)?,
            Value::Tuple(items) => write_items(out, "(", items, ")", meter, depth)?,
            Value::View(View::Range(start, stop, 1), _) => out.push_str(&format!("range({start}, {stop})")),
            Value::View(View::Range(start, stop, step), _) => out.push_str(&format!("range({start}, {stop}, {step})")),
            Value::View(_, items) => write_items(out, &format!("{}([", self.kind()), items, "])", meter, depth)?,
            Value::Dict(dict) => write_dict(out, dict, meter, depth)?,
            Value::Namespace(dict) => {
                out.push_str("<Namespace ");
                write_dict(out, &dict.borrow(), meter, depth + 1)?;
                out.push('>');
            }
            Value::Loop(state) => {
                out.push_str(&format!("<LoopContext {}/{}>", state.index.get() + 1, state.items.len()))
            }
            Value::Iterator(_) | Value::Callable(_) => {
                return Err(format!("a {} cannot be printed: its text would be an address in memory", self.kind()));
            }
        }
        Ok(())
    }
}

fn write_items(
    out: &mut String,
    open: &str,
    items: &[Value],
    close: &str,
    meter: &Meter,
    depth: usize,
) -> Evaluated<()> {
    out.push_str(open);
    for (number, item) in items.iter().enumerate() {
        out.push_str(if number == 0 { "" } else { ", " });
        item.write(out, meter, depth + 1)?;
    }
    out.push_str(close);
    Ok(())
}

fn write_dict(out: &mut String, dict: &Dict, meter: &Meter, depth: usize) -> Evaluated<()> {
    out.push('{');
    for (number, (key, value)) in dict.iter().enumerate() {
        out.push_str(if number == 0 { "" } else { ", " });
        key.write(out, meter, depth + 1)?;
        out.push_str(": ");
        value.write(out, meter, depth + 1)?;
    }
    out.push('}');
    Ok(())
}

/// Refuses a value that a namespace may not hold, because it could then contain itself.
pub fn plain(value: &Value) -> Evaluated<()> {
    if value.extent().0 >= HOLDER {
        return Err(format!("a namespace cannot hold a {}", value.kind()));
    }
    Ok(())
}
