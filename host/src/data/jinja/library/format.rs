//! Python's two ways to format: `'%d' % 5` and `'{:>5}'.format(x)`.

use super::args::Args;
use crate::data::jinja::error::Evaluated;
use crate::data::jinja::meter::Meter;
use crate::data::jinja::number;
use crate::data::jinja::value::Value;

/// The largest field width and number of digits. Rust's own formatting panics beyond 65,535.
const WIDEST: usize = 60_000;
const TOO_WIDE: &str = "a format is too wide: more than 60000 characters";

/// The parts of a format specification.
#[derive(Default)]
struct Spec {
    fill: Option<char>,
    align: Option<char>,
    sign: Option<char>,
    alternate: bool,
    width: usize,
    group: Option<char>,
    precision: Option<usize>,
    kind: Option<char>,
}

impl Spec {
    /// Pads to the width; numbers are aligned right by default, and zeros go after the sign.
    fn pad(&self, body: &str, prefix: &str, number: bool) -> String {
        let length = prefix.chars().count() + body.chars().count();
        let space = self.width.saturating_sub(length);
        let fill = |count: usize| String::from(self.fill.unwrap_or(' ')).repeat(count);
        match self.align.unwrap_or(if number { '>' } else { '<' }) {
            '<' => format!("{prefix}{body}{}", fill(space)),
            '^' => format!("{}{prefix}{body}{}", fill(space / 2), fill(space - space / 2)),
            '=' => format!("{prefix}{}{body}", fill(space)),
            _ => format!("{}{prefix}{body}", fill(space)),
        }
    }

    fn integer(&self, value: i128, kind: char) -> Evaluated<String> {
        let size = value.unsigned_abs();
        let (digits, base) = match kind {
            'x' => (format!("{size:x}"), "0x"),
            'X' => (format!("{size:X}"), "0X"),
            'o' => (format!("{size:o}"), "0o"),
            'b' => (format!("{size:b}"), "0b"),
            'c' => {
                let character = u32::try_from(value).ok().and_then(char::from_u32);
                let character = character.ok_or("%c arg not in range(0x110000)")?;
                return Ok(self.pad(&character.to_string(), "", false));
            }
            _ => (size.to_string(), ""),
        };
        let digits = match self.precision {
            Some(precision) => format!("{}{digits}", "0".repeat(precision.saturating_sub(digits.len()))),
            None => digits,
        };
        let prefix = format!("{}{}", self.sign_of(value < 0), if self.alternate { base } else { "" });
        Ok(self.pad(&self.grouped(&digits, if kind == 'd' { 3 } else { 4 }), &prefix, true))
    }

    fn float(&self, value: f64, kind: char) -> String {
        let (kind, percent) = if kind == '%' { ('f', "%") } else { (kind, "") };
        let value = if percent.is_empty() { value } else { value * 100.0 };
        let text = number::notation(value.abs(), kind, self.precision.unwrap_or(6), self.alternate);
        let text = if kind.is_uppercase() { text.to_uppercase() } else { text };
        let whole = text.find(['.', 'e', 'E', 'i', 'n']).unwrap_or(text.len());
        let body = format!("{}{}{percent}", self.grouped(&text[..whole], 3), &text[whole..]);
        self.pad(&body, self.sign_of(value.is_sign_negative() && !value.is_nan()), true)
    }

    fn sign_of(&self, negative: bool) -> &'static str {
        match (negative, self.sign) {
            (true, _) => "-",
            (false, Some('+')) => "+",
            (false, Some(' ')) => " ",
            _ => "",
        }
    }

    fn grouped(&self, digits: &str, size: usize) -> String {
        let Some(separator) = self.group else { return digits.to_owned() };
        let mut out = String::new();
        for (place, digit) in digits.chars().enumerate() {
            if place > 0 && (digits.len() - place).is_multiple_of(size) {
                out.push(separator);
            }
            out.push(digit);
        }
        out
    }

    fn string(&self, text: &str) -> String {
        let cut: String = match self.precision {
            Some(precision) => text.chars().take(precision).collect(),
            None => text.to_owned(),
        };
        self.pad(&cut, "", false)
    }
}

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

fn ascii(text: &str) -> String {
    let mut out = String::new();
    for character in text.chars() {
        match u32::from(character) {
            ..=0x7F => out.push(character),
            code @ ..=0xFF => out.push_str(&format!("\\x{code:02x}")),
            code @ ..=0xFFFF => out.push_str(&format!("\\u{code:04x}")),
            code => out.push_str(&format!("\\U{code:08x}")),
        }
    }
    out
}

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
        value = found.ok_or_else(|| format!("'{key}' is not there"))?;
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

fn parse_spec(text: &str) -> Evaluated<Spec> {
    let mut spec = Spec::default();
    let mut characters: Vec<char> = text.chars().collect();
    let is_align = |c: Option<&char>| c.is_some_and(|c| "<>^=".contains(*c));
    if is_align(characters.get(1)) {
        (spec.fill, spec.align) = (Some(characters[0]), Some(characters[1]));
        characters.drain(..2);
    } else if is_align(characters.first()) {
        spec.align = Some(characters.remove(0));
    }
    let mut rest = characters.into_iter().peekable();
    spec.sign = rest.next_if(|c| "+- ".contains(*c));
    spec.alternate = rest.next_if_eq(&'#').is_some();
    if rest.next_if_eq(&'0').is_some() && spec.align.is_none() {
        (spec.fill, spec.align) = (spec.fill.or(Some('0')), Some('='));
    }
    let digits = |rest: &mut std::iter::Peekable<std::vec::IntoIter<char>>| {
        let mut text = String::new();
        while let Some(digit) = rest.next_if(char::is_ascii_digit) {
            text.push(digit);
        }
        // A number that does not fit is too wide in any case.
        if text.is_empty() { None } else { Some(text.parse().unwrap_or(usize::MAX)) }
    };
    spec.width = digits(&mut rest).unwrap_or(0);
    spec.group = rest.next_if(|c| [',', '_'].contains(c));
    if rest.next_if_eq(&'.').is_some() {
        spec.precision = Some(digits(&mut rest).ok_or("Format specifier missing precision")?);
    }
    spec.kind = rest.next();
    if rest.next().is_some() || spec.kind.is_some_and(|kind| !"bcdeEfFgGnosxX%".contains(kind)) {
        return Err("Invalid format specifier".into());
    }
    Ok(spec)
}
