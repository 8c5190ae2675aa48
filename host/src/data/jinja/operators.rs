//! Arithmetic, comparison and slices, as Python's types define them.

use std::cmp::Ordering;

use super::error::Evaluated;
use super::library::format;
use super::meter::Meter;
use super::number;
use super::read::ast::{Comparison, Operator};
use super::render::Renderer;
use super::value::{Value, View};

pub const TOO_LARGE: &str = "a whole number beyond 127 bits cannot be used in arithmetic";

impl Renderer {
    pub fn binary(&mut self, operator: Operator, left: &Value, right: &Value) -> Evaluated<Value> {
        left.defined()?;
        right.defined()?;
        match (operator, left, right) {
            (Operator::Mod, Value::Str(text), args) => {
                let text = format::percent(text, args, &self.meter)?;
                Ok(Value::str(text))
            }
            (Operator::Add, Value::Str(a), Value::Str(b)) => {
                self.fits(a.len() + b.len())?;
                Ok(Value::str([&**a, &**b].concat()))
            }
            (Operator::Add, Value::List(a), Value::List(b)) => {
                self.meter.list(a.len() + b.len())?;
                Ok(Value::list(a.iter().chain(b.iter()).cloned().collect()))
            }
            (Operator::Add, Value::Tuple(a), Value::Tuple(b)) => {
                self.meter.list(a.len() + b.len())?;
                Ok(Value::tuple(a.iter().chain(b.iter()).cloned().collect()))
            }
            (Operator::Mul, several, times) | (Operator::Mul, times, several)
                if times.index().is_some() && matches!(several, Value::Str(_) | Value::List(_) | Value::Tuple(_)) =>
            {
                self.repeated(several, times.index().unwrap_or(0))
            }
            _ => arithmetic(operator, left, right),
        }
    }

    fn repeated(&mut self, several: &Value, times: i128) -> Evaluated<Value> {
        let times = usize::try_from(times.max(0)).unwrap_or(usize::MAX);
        let length = match several {
            Value::Str(text) => text.len(),
            other => other.length()?,
        };
        let made = length.saturating_mul(times);
        if let Value::Str(_) = several {
            self.fits(made)?
        } else {
            self.meter.list(made)?
        }
        let times = if length == 0 { 0 } else { times };
        let items = |items: &[Value]| (0..times).flat_map(|_| items.iter().cloned()).collect();
        Ok(match several {
            Value::Str(text) => Value::str(text.repeat(times)),
            Value::Tuple(several) => Value::tuple(items(several)),
            Value::List(several) => Value::list(items(several)),
            other => other.clone(),
        })
    }
}

fn arithmetic(operator: Operator, left: &Value, right: &Value) -> Evaluated<Value> {
    if let (Some(a), Some(b)) = (left.index(), right.index()) {
        return integers(operator, a, b);
    }
    if let Value::BigInt(_) = left {
        return Err(TOO_LARGE.into());
    }
    if let Value::BigInt(_) = right {
        return Err(TOO_LARGE.into());
    }
    let Some((a, b)) = left.float().zip(right.float()) else {
        let sign = sign(operator);
        return Err(format!("unsupported operand type(s) for {sign}: '{}' and '{}'", left.kind(), right.kind()));
    };
    if b == 0.0 && matches!(operator, Operator::Div | Operator::FloorDiv | Operator::Mod) {
        return Err("division by zero".into());
    }
    Ok(Value::Float(match operator {
        Operator::Add => a + b,
        Operator::Sub => a - b,
        Operator::Mul => a * b,
        Operator::Div => a / b,
        Operator::FloorDiv => (a / b).floor(),
        Operator::Mod => number::float_modulo(a, b),
        Operator::Pow => a.powf(b),
    }))
}

fn integers(operator: Operator, a: i128, b: i128) -> Evaluated<Value> {
    if b == 0 && matches!(operator, Operator::Div | Operator::FloorDiv | Operator::Mod) {
        return Err("division by zero".into());
    }
    let result = match operator {
        Operator::Add => a.checked_add(b),
        Operator::Sub => a.checked_sub(b),
        Operator::Mul => a.checked_mul(b),
        Operator::Div => return Ok(Value::Float(a as f64 / b as f64)),
        Operator::FloorDiv => number::floor_div(a, b),
        Operator::Mod => number::modulo(a, b),
        Operator::Pow if b < 0 && a == 0 => return Err("0 cannot be raised to a negative power".into()),
        Operator::Pow if b < 0 => return Ok(Value::Float((a as f64).powf(b as f64))),
        Operator::Pow => u32::try_from(b).ok().and_then(|b| a.checked_pow(b)),
    };
    result.map(Value::Int).ok_or_else(|| TOO_LARGE.into())
}

fn sign(operator: Operator) -> &'static str {
    match operator {
        Operator::Add => "+",
        Operator::Sub => "-",
        Operator::Mul => "*",
        Operator::Div => "/",
        Operator::FloorDiv => "//",
        Operator::Mod => "%",
        Operator::Pow => "**",
    }
}

pub fn negative(value: &Value) -> Evaluated<Value> {
    value.defined()?;
    match (value, value.index()) {
        (Value::Float(number), _) => Ok(Value::Float(-number)),
        (_, Some(number)) => number.checked_neg().map(Value::Int).ok_or_else(|| TOO_LARGE.into()),
        _ => Err(format!("bad operand type for unary -: '{}'", value.kind())),
    }
}

pub fn positive(value: &Value) -> Evaluated<Value> {
    value.defined()?;
    match (value, value.index()) {
        (Value::Float(number), _) => Ok(Value::Float(*number)),
        (_, Some(number)) => Ok(Value::Int(number)),
        _ => Err(format!("bad operand type for unary +: '{}'", value.kind())),
    }
}

pub fn compare(comparison: Comparison, left: &Value, right: &Value, meter: &Meter) -> Evaluated<bool> {
    Ok(match comparison {
        Comparison::Eq => left.equals(right, meter)?,
        Comparison::Ne => !left.equals(right, meter)?,
        Comparison::In => right.contains(left, meter)?,
        Comparison::NotIn => !right.contains(left, meter)?,
        Comparison::Lt => left.compare(right, meter)? == Some(Ordering::Less),
        Comparison::Gt => left.compare(right, meter)? == Some(Ordering::Greater),
        Comparison::Le => left.compare(right, meter)?.is_some_and(Ordering::is_le),
        Comparison::Ge => left.compare(right, meter)?.is_some_and(Ordering::is_ge),
    })
}

/// `value[start:stop:step]`.
pub fn slice(value: &Value, bounds: [Option<i128>; 3]) -> Evaluated<Value> {
    match value {
        Value::Str(text) => {
            let characters: Vec<char> = text.chars().collect();
            let places = places(characters.len(), bounds)?;
            Ok(Value::str(places.into_iter().map(|place| characters[place]).collect::<String>()))
        }
        Value::List(items) => {
            Ok(Value::list(places(items.len(), bounds)?.into_iter().map(|p| items[p].clone()).collect()))
        }
        Value::Tuple(items) | Value::View(View::Range(..), items) => {
            Ok(Value::tuple(places(items.len(), bounds)?.into_iter().map(|p| items[p].clone()).collect()))
        }
        other => Err(format!("'{}' object cannot be sliced", other.kind())),
    }
}

fn places(length: usize, [start, stop, step]: [Option<i128>; 3]) -> Evaluated<Vec<usize>> {
    let (length, step) = (length as i128, step.unwrap_or(1));
    if step == 0 {
        return Err("slice step cannot be zero".into());
    }
    let (least, most) = if step < 0 { (-1, length - 1) } else { (0, length) };
    let bound = |bound: Option<i128>, default: i128| match bound {
        None => default,
        Some(bound) if bound < 0 => bound.saturating_add(length).clamp(least, most),
        Some(bound) => bound.clamp(least, most),
    };
    let (mut place, stop) =
        if step < 0 { (bound(start, length - 1), bound(stop, -1)) } else { (bound(start, 0), bound(stop, length)) };
    let mut places = Vec::new();
    while if step < 0 { place > stop } else { place < stop } {
        places.push(usize::try_from(place).unwrap_or(0));
        place = place.saturating_add(step);
    }
    Ok(places)
}
