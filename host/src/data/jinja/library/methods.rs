//! Methods of values: which exist, which are refused because they would change the value, and what they do.

use super::args::Args;
use crate::data::jinja::equality::all_equal;
use crate::data::jinja::error::Evaluated;
use crate::data::jinja::library::strings;
use crate::data::jinja::operators;
use crate::data::jinja::render::Renderer;
use crate::data::jinja::value::{Value, View};

/// Whether an immutable sandbox refuses the method, because it changes the value.
pub fn changes(value: &Value, name: &str) -> bool {
    match value {
        Value::List(_) => ["append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"].contains(&name),
        Value::Dict(_) => ["clear", "pop", "popitem", "setdefault", "update"].contains(&name),
        _ => false,
    }
}

pub fn has(value: &Value, name: &str) -> bool {
    match value {
        Value::Str(_) => strings::METHODS.contains(&name),
        Value::Dict(_) => ["copy", "fromkeys", "get", "items", "keys", "values"].contains(&name),
        Value::List(_) => ["copy", "count", "index"].contains(&name),
        Value::Tuple(_) | Value::View(View::Range(..), _) => ["count", "index"].contains(&name),
        Value::Int(_) | Value::Bool(_) => name == "bit_length",
        Value::Float(_) => name == "is_integer",
        _ => false,
    }
}

impl Renderer {
    pub fn method(&mut self, value: &Value, name: &str, args: Args) -> Evaluated<Value> {
        match value {
            Value::Str(text) => self.string_method(text, name, args),
            Value::Loop(state) if name == "cycle" => {
                let items = args.positional;
                if items.is_empty() {
                    return Err("no items for cycling given".into());
                }
                Ok(items[state.index.get() % items.len()].clone())
            }
            Value::Loop(state) => {
                let now = args.positional;
                let mut before = state.changed.borrow_mut();
                let same = match &*before {
                    Some(before) => all_equal(before, &now, &self.meter)?,
                    None => false,
                };
                *before = Some(now);
                Ok(Value::Bool(!same))
            }
            Value::Dict(dict) => match name {
                "get" => {
                    let mut args = args.positional(name, 1, 2)?.into_iter();
                    let key = args.next().unwrap_or(Value::None);
                    Ok(value.get(&key, &self.meter)?.or_else(|| args.next()).unwrap_or(Value::None))
                }
                "fromkeys" => Err("fromkeys is a function of `dict`: dict.fromkeys(keys)".into()),
                _ => {
                    args.positional(name, 0, 0)?;
                    // Each item of `items` is its own tuple.
                    self.meter.list(dict.len() * if name == "items" { 4 } else { 1 })?;
                    let pairs = dict.iter().cloned();
                    Ok(match name {
                        "copy" => value.clone(),
                        "keys" => Value::view(View::Keys, pairs.map(|(key, _)| key).collect()),
                        "values" => Value::view(View::Values, pairs.map(|(_, value)| value).collect()),
                        _ => {
                            let items = pairs.map(|(key, value)| Value::tuple(vec![key, value]));
                            Value::view(View::Items, items.collect())
                        }
                    })
                }
            },
            Value::List(items) | Value::Tuple(items) | Value::View(_, items) => match name {
                "copy" => Ok(value.clone()),
                "count" => {
                    let args = args.positional(name, 1, 1)?;
                    let mut count = 0;
                    for item in items.iter() {
                        self.spend(1)?;
                        count += i128::from(item.equals(&args[0], &self.meter)?);
                    }
                    Ok(Value::Int(count))
                }
                _ => {
                    let args = args.positional(name, 1, 3)?;
                    let bound = |place: usize, default| args.get(place).and_then(Value::index).unwrap_or(default);
                    let length = items.len() as i128;
                    let clip = |at: i128| if at < 0 { (at + length).max(0) } else { at.min(length) } as usize;
                    let (start, end) = (clip(bound(1, 0)), clip(bound(2, length)));
                    for place in start..end {
                        self.spend(1)?;
                        if items[place].equals(&args[0], &self.meter)? {
                            return Ok(Value::Int(place as i128));
                        }
                    }
                    Err("the item is not in the list".into())
                }
            },
            Value::Float(number) => Ok(Value::Bool(number.fract() == 0.0)),
            other => {
                let number = operators::positive(other)?.index().unwrap_or(0).unsigned_abs();
                Ok(Value::Int((128 - number.leading_zeros()).into()))
            }
        }
    }
}
