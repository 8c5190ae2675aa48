//! The functions that every template can call: jinja2's globals as transformers restricts them.

use std::cell::{Cell, RefCell};
use std::fmt::Write;
use std::rc::Rc;

use super::args::Args;
use crate::data::jinja::equality::insert;
use crate::data::jinja::error::Evaluated;
use crate::data::jinja::library::sequences::range;
use crate::data::jinja::meter::Meter;
use crate::data::jinja::render::Renderer;
use crate::data::jinja::value::{Callable, Dict, Value, nested, plain};

const FUNCTIONS: [&str; 6] = ["cycler", "dict", "joiner", "namespace", "raise_exception", "range"];

pub fn global(name: &str) -> Option<Value> {
    if name == "strftime_now" {
        return Some(Value::Clock);
    }
    let function = FUNCTIONS.iter().find(|function| **function == name)?;
    Some(Value::Callable(Rc::new(Callable::Function(function))))
}

/// Attributes of values that are not items.
pub fn attribute(value: &Value, name: &str) -> Option<Value> {
    match (value, name) {
        (Value::Callable(callable), _) => match (&**callable, name) {
            (Callable::Function("dict"), "fromkeys") => {
                Some(Value::Callable(Rc::new(Callable::Function("dict.fromkeys"))))
            }
            (Callable::Macro { node, .. }, "name") => Some(Value::Str(node.name.clone())),
            (Callable::Cycler { .. }, "next") => Some(value.clone()),
            (Callable::Cycler { items, index }, "current") => items.get(index.get()).cloned(),
            _ => None,
        },
        // The results of `groupby` are tuples with two names.
        (Value::Tuple(items), "grouper" | "list") if items.len() == 2 && matches!(items[1], Value::List(_)) => {
            Some(items[usize::from(name == "list")].clone())
        }
        _ => None,
    }
}

impl Renderer {
    pub fn function(&mut self, name: &str, args: Args) -> Evaluated<Value> {
        match name {
            "raise_exception" => {
                let [message] = args.bind(name, ["message"])?;
                let message = message.ok_or("raise_exception needs a message")?;
                let message = self.print(&message)?;
                if message.trim().is_empty() {
                    return Err("the template raises an exception without a message".into());
                }
                Err(message.to_string())
            }
            "range" => {
                let range = range(args.positional(name, 1, 3)?)?;
                self.spend(range.length()?)?;
                Ok(range)
            }
            "dict" => Ok(Value::dict(dict(args, &self.meter)?)),
            "dict.fromkeys" => {
                let [keys, value] = args.bind(name, ["iterable", "value"])?;
                let mut dict = Dict::new();
                for key in self.items(&keys.ok_or("fromkeys needs keys")?)? {
                    insert(&mut dict, key, value.clone().unwrap_or(Value::None), &self.meter)?;
                }
                Ok(Value::dict(dict))
            }
            "namespace" => {
                let dict = dict(args, &self.meter)?;
                let hidden = dict.iter().find(|(name, _)| matches!(name, Value::Str(name) if name.starts_with('_')));
                if let Some((name, _)) = hidden {
                    let name = name.repr(&self.meter)?;
                    return Err(format!("an attribute of a namespace must not begin with an underscore: {name}"));
                }
                dict.iter().try_for_each(|(_, value)| plain(value))?;
                Ok(Value::Namespace(Rc::new(RefCell::new(dict))))
            }
            "cycler" if args.positional.is_empty() => Err("at least one item has to be provided".into()),
            "cycler" => {
                Ok(Value::Callable(Rc::new(Callable::Cycler { items: nested(args.positional), index: Cell::new(0) })))
            }
            _ => {
                let [separator] = args.bind(name, ["sep"])?;
                let separator = separator.unwrap_or_else(|| Value::str(", "));
                if separator.extent().0 > 0 {
                    return Err(format!("joiner needs a text, not a {}", separator.kind()));
                }
                Ok(Value::Callable(Rc::new(Callable::Joiner { separator, used: Cell::new(false) })))
            }
        }
    }
}

/// `strftime_now`, which writes `now`.
pub fn clock(now: chrono::NaiveDateTime) -> Value {
    Value::Callable(Rc::new(Callable::Date(now)))
}

impl Renderer {
    /// `strftime_now(format)`: as Python's `datetime.strftime` for a time without a zone; `%z` and `%Z`, for which Python writes nothing, are errors.
    pub fn date(&mut self, now: &chrono::NaiveDateTime, args: Args) -> Evaluated<Value> {
        let [format] = args.bind("strftime_now", ["format"])?;
        let Some(Value::Str(format)) = format else { return Err("strftime_now needs a format, a text".into()) };
        let mut text = String::new();
        // A placeholder of two characters writes less than 64.
        self.spend(format.len())?;
        self.meter.fits(format.len().saturating_mul(32))?;
        write!(text, "{}", now.format(&format))
            .map_err(|_| format!("strftime_now: '{format}' is not a format of dates"))?;
        Ok(Value::str(text))
    }
}

/// `dict(mapping or pairs, **named)`.
fn dict(args: Args, meter: &Meter) -> Evaluated<Dict> {
    let mut dict = Dict::new();
    if args.positional.len() > 1 {
        return Err("dict expected at most 1 argument".into());
    }
    match args.positional.first() {
        None => {}
        Some(Value::Dict(given)) => {
            meter.list(given.len())?;
            dict = given.to_vec();
        }
        Some(Value::Namespace(given)) => {
            meter.list(given.borrow().len())?;
            dict = given.borrow().clone();
        }
        Some(pairs) => {
            for pair in pairs.items(meter)? {
                match pair.items(meter)?.as_slice() {
                    [key, value] => insert(&mut dict, key.clone(), value.clone(), meter)?,
                    _ => return Err("dict needs pairs".into()),
                }
            }
        }
    }
    for (name, value) in args.named {
        insert(&mut dict, Value::Str(name), value, meter)?;
    }
    Ok(dict)
}
