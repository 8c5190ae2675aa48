//! Equality, order and membership of values, and lookups in dictionaries that use them. All of it is counted as
//! work.

use std::cmp::Ordering;
use std::rc::Rc;

use super::error::Evaluated;
use super::meter::{Meter, TEXT};
use super::value::{Dict, Value};

impl Value {
    /// `self == other`.
    ///
    /// # Errors
    /// Those of the meter, here and in everything that compares.
    pub fn equals(&self, other: &Value, meter: &Meter) -> Evaluated<bool> {
        Ok(match (self, other) {
            (Value::Str(a), Value::Str(b)) => {
                if a.len() == b.len() {
                    meter.spend(a.len() / TEXT)?;
                }
                a == b
            }
            (Value::None, Value::None) => true,
            (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => all_equal(a, b, meter)?,
            (Value::View(_, a), Value::View(_, b)) => all_equal(a, b, meter)?,
            (Value::Dict(a), Value::Dict(b)) => {
                if a.len() != b.len() {
                    return Ok(false);
                }
                for (key, value) in a.iter() {
                    match find(b, key, meter)? {
                        Some(other) if value.equals(&other, meter)? => {}
                        _ => return Ok(false),
                    }
                }
                true
            }
            (Value::BigInt(a), Value::BigInt(b)) => a == b,
            (Value::BigInt(_), _) | (_, Value::BigInt(_)) => false,
            (Value::Iterator(a), Value::Iterator(b)) => Rc::ptr_eq(a, b),
            (Value::Namespace(a), Value::Namespace(b)) => Rc::ptr_eq(a, b),
            (a, b) if a.is_undefined() || b.is_undefined() => a.is_undefined() && b.is_undefined(),
            (a, b) => match (a.index(), b.index()) {
                (Some(a), Some(b)) => a == b,
                _ => a.float().zip(b.float()).is_some_and(|(a, b)| a == b),
            },
        })
    }

    /// The order of two values for `<` and similar operators; `None` if one is NaN.
    pub fn compare(&self, other: &Value, meter: &Meter) -> Evaluated<Option<Ordering>> {
        self.defined()?;
        other.defined()?;
        meter.spend(1)?;
        match (self, other) {
            (Value::Str(a), Value::Str(b)) => {
                meter.spend(a.len().min(b.len()) / TEXT)?;
                Ok(Some(a.cmp(b)))
            }
            (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => {
                for (a, b) in a.iter().zip(b.iter()) {
                    meter.spend(1)?;
                    if !a.equals(b, meter)? {
                        return a.compare(b, meter);
                    }
                }
                Ok(Some(a.len().cmp(&b.len())))
            }
            (a, b) => {
                if let (Some(a), Some(b)) = (a.index(), b.index()) {
                    return Ok(Some(a.cmp(&b)));
                }
                match a.float().zip(b.float()) {
                    Some((a, b)) => Ok(a.partial_cmp(&b)),
                    None => Err(format!("'{}' and '{}' have no order", a.kind(), b.kind())),
                }
            }
        }
    }

    /// `item in self`.
    pub fn contains(&self, item: &Value, meter: &Meter) -> Evaluated<bool> {
        match self {
            Value::Str(text) => match item {
                Value::Str(part) => {
                    meter.spend((text.len() + part.len()) / TEXT)?;
                    Ok(text.contains(&**part))
                }
                other => Err(format!("'in <string>' needs a string on its left, not {}", other.kind())),
            },
            Value::Dict(dict) => Ok(find(dict, item, meter)?.is_some()),
            Value::None
            | Value::Bool(_)
            | Value::Int(_)
            | Value::BigInt(_)
            | Value::Float(_)
            | Value::Namespace(_)
            | Value::Callable(_) => Err(format!("argument of type '{}' is not iterable", self.kind())),
            Value::List(items) | Value::Tuple(items) | Value::View(_, items) => any_equals(items, item, meter),
            other => any_equals(&other.items(meter)?, item, meter),
        }
    }
}

impl Value {
    /// The value of a dictionary for a key.
    pub fn get(&self, key: &Value, meter: &Meter) -> Evaluated<Option<Value>> {
        match self {
            Value::Dict(dict) => find(dict, key, meter),
            Value::Namespace(dict) => find(&dict.borrow(), key, meter),
            _ => Ok(None),
        }
    }
}

pub fn find(dict: &Dict, key: &Value, meter: &Meter) -> Evaluated<Option<Value>> {
    Ok(place(dict, key, meter)?.map(|place| dict[place].1.clone()))
}

fn place(dict: &Dict, key: &Value, meter: &Meter) -> Evaluated<Option<usize>> {
    meter.spend(dict.len() / 8)?;
    for (place, (one, _)) in dict.iter().enumerate() {
        if one.equals(key, meter)? {
            return Ok(Some(place));
        }
    }
    Ok(None)
}

/// Whether one of the items equals `item`.
pub fn any_equals(items: &[Value], item: &Value, meter: &Meter) -> Evaluated<bool> {
    meter.spend(items.len() / 8)?;
    for one in items {
        if one.equals(item, meter)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Sets a key; a key that exists already keeps its place.
pub fn insert(dict: &mut Dict, key: Value, value: Value, meter: &Meter) -> Evaluated<()> {
    if matches!(key, Value::List(_) | Value::Dict(_) | Value::Namespace(_)) {
        return Err(format!("unhashable type: '{}'", key.kind()));
    }
    match place(dict, &key, meter)? {
        Some(place) => dict[place].1 = value,
        None => dict.push((key, value)),
    }
    Ok(())
}

/// Whether two lists have equal items.
pub fn all_equal(a: &[Value], b: &[Value], meter: &Meter) -> Evaluated<bool> {
    if a.len() != b.len() {
        return Ok(false);
    }
    for (a, b) in a.iter().zip(b) {
        meter.spend(1)?;
        if !a.equals(b, meter)? {
            return Ok(false);
        }
    }
    Ok(true)
}
