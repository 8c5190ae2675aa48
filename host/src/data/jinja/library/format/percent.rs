//! `text % args`.

use super::spec::{Spec, TOO_WIDE, WIDEST, ascii};
use crate::data::jinja::error::Evaluated;
use crate::data::jinja::meter::Meter;
use crate::data::jinja::value::Value;

/// `text % args`.
///
/// # Errors
/// As in Python: too few or too many arguments, or one of the wrong type.
pub fn percent(text: &str, args: &Value, meter: &Meter) -> Evaluated<String> {
    meter.fits(text.len())?;
    if let Value::Tuple(items) = args {
        meter.list(items.len())?;
    }
    let several = match args {
        Value::Tuple(items) => items.to_vec(),
        one => vec![one.clone()],
    };
    let (mut given, mut named) = (several.into_iter(), false);
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let mut key = None;
        if rest.starts_with('(') {
            let end = rest.find(')').ok_or("incomplete format key")?;
            key = Some(&rest[1..end]);
            rest = &rest[end + 1..];
            named = true;
        }
        let mut spec = Spec { align: Some('>'), ..Spec::default() };
        while let Some(flag) = rest.chars().next().filter(|c| "-+ 0#".contains(*c)) {
            match flag {
                '-' => spec.align = Some('<'),
                '0' if spec.align == Some('>') => (spec.fill, spec.align) = (Some('0'), Some('=')),
                '0' => {}
                '#' => spec.alternate = true,
                sign if spec.sign != Some('+') => spec.sign = Some(sign),
                _ => {}
            }
            rest = &rest[1..];
        }
        if spec.align == Some('<') {
            spec.fill = None;
        }
        let mut number = |rest: &mut &str| -> Evaluated<Option<i128>> {
            if let Some(after) = rest.strip_prefix('*') {
                *rest = after;
                let value = given.next().ok_or("not enough arguments for format string")?;
                return Ok(Some(value.index().ok_or("* wants int")?));
            }
            let length = rest.bytes().take_while(u8::is_ascii_digit).count();
            let digits = &rest[..length];
            *rest = &rest[length..];
            if digits.is_empty() { Ok(None) } else { digits.parse().map(Some).map_err(|_| TOO_WIDE.to_owned()) }
        };
        if let Some(width) = number(&mut rest)? {
            if width < 0 {
                spec.align = Some('<');
            }
            spec.width = usize::try_from(width.unsigned_abs()).unwrap_or(usize::MAX);
        }
        if let Some(after) = rest.strip_prefix('.') {
            rest = after;
            spec.precision = Some(usize::try_from(number(&mut rest)?.unwrap_or(0).max(0)).unwrap_or(usize::MAX));
        }
        rest = rest.trim_start_matches(['h', 'l', 'L']);
        let kind = rest.chars().next().ok_or("incomplete format")?;
        rest = &rest[kind.len_utf8()..];
        if spec.width.max(spec.precision.unwrap_or(0)) > WIDEST {
            return Err(TOO_WIDE.into());
        }
        meter.spend(1)?;
        if kind == '%' {
            out.push('%');
            continue;
        }
        let value = match key {
            Some(key) => {
                if !matches!(args, Value::Dict(_)) {
                    return Err("format requires a mapping".into());
                }
                args.get(&Value::str(key), meter)?.ok_or_else(|| format!("the format's key '{key}' is missing"))?
            }
            None => given.next().ok_or("not enough arguments for format string")?,
        };
        let part = one_percent(&spec, kind, &value, meter)?;
        meter.grows(out.len() + part.len(), part.len())?;
        out.push_str(&part);
    }
    // A single argument that is a mapping or a list may be left unused.
    let single = !matches!(args, Value::Tuple(_));
    let ignorable = single && matches!(args, Value::Dict(_) | Value::List(_));
    if !named && !ignorable && given.next().is_some() {
        return Err("not all arguments converted during string formatting".into());
    }
    out.push_str(rest);
    Ok(out)
}

fn one_percent(spec: &Spec, kind: char, value: &Value, meter: &Meter) -> Evaluated<String> {
    let plain = || Spec {
        fill: None,
        align: if spec.align == Some('<') { Some('<') } else { Some('>') },
        width: spec.width,
        precision: spec.precision,
        ..Spec::default()
    };
    match kind {
        's' => Ok(plain().string(&value.print(meter)?)),
        'r' => Ok(plain().string(&value.repr(meter)?)),
        'a' => Ok(plain().string(&ascii(&value.repr(meter)?))),
        'd' | 'i' | 'u' => match value {
            Value::Float(number) if number.is_finite() => spec.integer(number.trunc() as i128, 'd'),
            Value::BigInt(digits) => Ok(plain().string(digits)),
            other => {
                let number = other.index().ok_or_else(|| wants("a real number is required", other));
                spec.integer(number?, 'd')
            }
        },
        'x' | 'X' | 'o' | 'c' => match (kind, value) {
            ('c', Value::Str(text)) if text.chars().count() == 1 => Ok(plain().string(text)),
            (_, other) => spec.integer(other.index().ok_or_else(|| wants("an integer is required", other))?, kind),
        },
        'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
            let number = value.float().ok_or_else(|| wants("must be real number", value))?;
            Ok(spec.float(number, kind))
        }
        other => Err(format!("unsupported format character '{other}'")),
    }
}

fn wants(what: &str, value: &Value) -> String {
    value.defined().err().unwrap_or_else(|| format!("%-format: {what}, not {}", value.kind()))
}
