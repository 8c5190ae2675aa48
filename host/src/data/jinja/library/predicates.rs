//! jinja2's tests: `value is name(arguments)`.

use super::args::Args;
use crate::data::jinja::error::Evaluated;
use crate::data::jinja::meter::Meter;
use crate::data::jinja::read::ast::Comparison;
use crate::data::jinja::render::Renderer;
use crate::data::jinja::value::{Value, View};
use crate::data::jinja::{number, operators};

impl Renderer {
    pub fn test(&mut self, name: &str, value: &Value, args: Args) -> Evaluated<bool> {
        let comparison = match name {
            "eq" | "==" | "equalto" => Some(Comparison::Eq),
            "ne" | "!=" => Some(Comparison::Ne),
            "lt" | "<" | "lessthan" => Some(Comparison::Lt),
            "le" | "<=" => Some(Comparison::Le),
            "gt" | ">" | "greaterthan" => Some(Comparison::Gt),
            "ge" | ">=" => Some(Comparison::Ge),
            "in" => Some(Comparison::In),
            _ => None,
        };
        let arguments = usize::from(comparison.is_some() || ["sameas", "divisibleby"].contains(&name));
        let args = args.positional(&format!("the test '{name}'"), arguments, arguments)?;
        if let Some(comparison) = comparison {
            return operators::compare(comparison, value, &args[0], &self.meter);
        }
        Ok(match name {
            "defined" => !value.is_undefined(),
            "undefined" => value.is_undefined(),
            "none" => matches!(value, Value::None),
            "boolean" => matches!(value, Value::Bool(_)),
            "true" => matches!(value, Value::Bool(true)),
            "false" => matches!(value, Value::Bool(false)),
            "integer" => matches!(value, Value::Int(_) | Value::BigInt(_)),
            "float" => matches!(value, Value::Float(_)),
            "number" => matches!(value, Value::Int(_) | Value::BigInt(_) | Value::Float(_) | Value::Bool(_)),
            "string" => matches!(value, Value::Str(_)),
            "mapping" => matches!(value, Value::Dict(_)),
            "callable" => matches!(value, Value::Callable(_) | Value::Loop(_) | Value::Undefined(_)),
            "sequence" => match value {
                Value::Str(_) | Value::List(_) | Value::Tuple(_) | Value::Dict(_) => true,
                Value::View(view, _) => matches!(view, View::Range(..)),
                other => other.is_undefined(),
            },
            "iterable" => !matches!(
                value,
                Value::None
                    | Value::Bool(_)
                    | Value::Int(_)
                    | Value::BigInt(_)
                    | Value::Float(_)
                    | Value::Callable(_)
                    | Value::Namespace(_)
            ),
            "odd" | "even" | "divisibleby" => {
                value.defined()?;
                let divisor = args.first().map_or(Some(2), Value::index);
                let (Some(number), Some(divisor)) = (value.index(), divisor) else {
                    return Err(format!("the test '{name}' needs whole numbers"));
                };
                if divisor == 0 {
                    return Err("division by zero".into());
                }
                (number::modulo(number, divisor) == Some(0)) == (name != "odd")
            }
            "sameas" => same(value, &args[0], &self.meter)?,
            "lower" | "upper" => {
                let text = self.print(value)?;
                self.spend(text.len() / 8)?;
                is_cased(&text, name == "upper")
            }
            "escaped" => false,
            "filter" | "test" => return Err(format!("the test '{name}' is not supported in chat templates")),
            _ => return Err(format!("No test named '{name}'.")),
        })
    }
}

/// Python's `is`: whether both are the same object. Equal strings and small numbers are one object there.
fn same(a: &Value, b: &Value, meter: &Meter) -> Evaluated<bool> {
    Ok(match (a, b) {
        (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => std::rc::Rc::ptr_eq(a, b),
        (Value::Dict(a), Value::Dict(b)) => std::rc::Rc::ptr_eq(a, b),
        (a, b) => a.kind() == b.kind() && a.equals(b, meter)?,
    })
}

fn is_cased(text: &str, upper: bool) -> bool {
    let is_cased = |c: char, upper: bool| if upper { c.is_uppercase() } else { c.is_lowercase() };
    text.chars().any(|c| is_cased(c, upper)) && !text.chars().any(|c| is_cased(c, !upper))
}
