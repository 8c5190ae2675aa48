//! `text.format(...)`.

use super::spec::{TOO_WIDE, WIDEST, ascii, parse_spec};
use crate::data::jinja::error::Evaluated;
use crate::data::jinja::library::args::Args;
use crate::data::jinja::meter::Meter;
use crate::data::jinja::number;
use crate::data::jinja::value::Value;

/// `text.format(...)`.
///
/// # Errors
/// As in Python: a missing field, a format that does not fit the value, a single brace.
pub fn braces(text: &str, args: &Args, meter: &Meter) -> Evaluated<String> {
    let mut next = 0;
    fields(text, args, &mut next, meter, 2)
}

fn fields(text: &str, args: &Args, next: &mut usize, meter: &Meter, depth: usize) -> Evaluated<String> {
    meter.spend(text.len() / 8)?;
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find(['{', '}']) {
        out.push_str(&rest[..at]);
        let brace = &rest[at..at + 1];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(brace) {
            out.push_str(brace);
            rest = after;
            continue;
        }
        if brace == "}" {
            return Err("Single '}' encountered in format string".into());
        }
        let mut open = 1;
        let end = rest.find(|c| {
            open += i32::from(c == '{') - i32::from(c == '}');
            open == 0
        });
        let end = end.ok_or("expected '}' before end of string")?;
        let field = &rest[..end];
        rest = &rest[end + 1..];
        let (field, spec) = field.split_once(':').unwrap_or((field, ""));
        let (name, conversion) = field.split_once('!').unwrap_or((field, ""));
        let value = lookup(name, args, next, meter)?;
        let spec =
            if spec.contains('{') && depth > 0 { fields(spec, args, next, meter, depth - 1)? } else { spec.to_owned() };
        let value = match conversion {
            "" => value,
            "s" => Value::Str(value.print(meter)?),
            "r" => Value::str(value.repr(meter)?),
            "a" => Value::str(ascii(&value.repr(meter)?)),
            other => return Err(format!("Unknown conversion specifier '{other}'")),
        };
        let part = formatted(&value, &spec, meter)?;
        meter.grows(out.len() + part.len(), part.len())?;
        out.push_str(&part);
    }
    out.push_str(rest);
    Ok(out)
}

fn lookup(name: &str, args: &Args, next: &mut usize, meter: &Meter) -> Evaluated<Value> {
    meter.spend(1 + args.named.len() / 8 + name.len() / 8)?;
    let end = name.find(['.', '[']).unwrap_or(name.len());
    let (first, mut path) = name.split_at(end);
    let mut value = if let Ok(index) = first.parse::<usize>() {
        args.positional.get(index).cloned().ok_or("Replacement index out of range for positional args")?
    } else if first.is_empty() {
        *next += 1;
        args.positional.get(*next - 1).cloned().ok_or("Replacement index out of range for positional args")?
    } else {
        let found = args.named.iter().find(|(one, _)| &**one == first);
        found.map(|(_, value)| value.clone()).ok_or_else(|| format!("the format's key '{first}' is missing"))?
    };
    while !path.is_empty() {
        let (key, after) = match path.strip_prefix('[') {
            Some(inner) => inner.split_once(']').ok_or("Missing ']' in format string")?,
            None => return Err("attributes in a format string are not supported".into()),
        };
        let index = key.parse::<i128>().ok();
        let found = match (&value, index) {
            (Value::List(items) | Value::Tuple(items), Some(index)) => {
                number::at(items.len(), index).map(|place| items[place].clone())
            }
            (value, Some(index)) => value.get(&Value::Int(index), meter)?,
            (value, None) => value.get(&Value::str(key), meter)?,
        };
        value = found.ok_or_else(|| format!("'{key}' not found"))?;
        path = after;
    }
    Ok(value)
}

fn formatted(value: &Value, spec: &str, meter: &Meter) -> Evaluated<String> {
    value.defined()?;
    if spec.is_empty() {
        return value.print(meter).map(|text| text.to_string());
    }
    meter.spend(spec.len() / 8)?;
    let spec = parse_spec(spec)?;
    if spec.width.max(spec.precision.unwrap_or(0)) > WIDEST {
        return Err(TOO_WIDE.into());
    }
    if let Value::Str(text) = value {
        meter.fits(text.len())?;
    }
    let unknown = |kind: char| format!("Unknown format code '{kind}' for object of type '{}'", value.kind());
    match (value, spec.kind) {
        (Value::Str(text), None | Some('s')) => {
            if spec.align == Some('=') {
                return Err("'=' alignment not allowed in string format specifier".into());
            }
            Ok(spec.string(text))
        }
        (Value::Float(number), None) if spec.precision.is_none() => {
            let text = number::repr(number.abs());
            let whole = text.find('.').unwrap_or(text.len());
            let body = format!("{}{}", spec.grouped(&text[..whole], 3), &text[whole..]);
            Ok(spec.pad(&body, spec.sign_of(number.is_sign_negative()), true))
        }
        (Value::Float(number), kind) => match kind.unwrap_or('g') {
            kind if "eEfFgG%".contains(kind) => Ok(spec.float(*number, kind)),
            kind => Err(unknown(kind)),
        },
        (other, kind) => match (other.index(), kind.unwrap_or('d')) {
            (Some(number), kind) if "dxXobcn".contains(kind) => {
                if spec.precision.is_some() {
                    return Err("Precision not allowed in integer format specifier".into());
                }
                spec.integer(number, kind)
            }
            (Some(number), kind) if "eEfFgG%".contains(kind) => Ok(spec.float(number as f64, kind)),
            (Some(_), kind) => Err(unknown(kind)),
            (None, _) => Err(format!("unsupported format string passed to {}.__format__", other.kind())),
        },
    }
}
