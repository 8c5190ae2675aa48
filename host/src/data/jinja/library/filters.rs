//! jinja2's filters for texts and numbers, and transformers' `tojson`. Those for lists are in [`super::sequences`].

use super::args::Args;
use crate::data::jinja::error::Evaluated;
use crate::data::jinja::json::Dump;
use crate::data::jinja::library::{format, methods, text_functions};
use crate::data::jinja::render::Renderer;
use crate::data::jinja::text::is_space;
use crate::data::jinja::value::Value;
use crate::data::jinja::{number, operators};

/// Filters of jinja2 that no chat template needs, or whose result differs from call to call.
const NOT_SUPPORTED: [&str; 7] = ["filesizeformat", "pprint", "random", "striptags", "urlize", "wordwrap", "xmlattr"];

impl Renderer {
    /// `value | name(args)`.
    pub fn filter(&mut self, name: &str, value: Value, args: Args) -> Evaluated<Value> {
        self.deeper(|renderer| renderer.filter_by_name(name, value, args))
    }

    fn filter_by_name(&mut self, name: &str, value: Value, args: Args) -> Evaluated<Value> {
        match name {
            "tojson" => self.dumped(&value, args).map(Value::str),
            "default" | "d" => {
                let [default, boolean] = args.bind(name, ["default_value", "boolean"])?;
                let replaced = value.is_undefined() || (boolean.is_some_and(|b| b.truth()) && !value.truth());
                Ok(if replaced { default.unwrap_or_else(|| Value::str("")) } else { value })
            }
            "attr" => {
                let [attribute] = args.bind(name, ["name"])?;
                let attribute = self.print(&attribute.ok_or("attr needs a name")?)?;
                if methods::has(&value, &attribute) || matches!(value, Value::Namespace(_) | Value::Loop(_)) {
                    return self.attribute(&value, &attribute);
                }
                Ok(crate::data::jinja::eval::missing(&value, &attribute))
            }
            "abs" => {
                let [] = args.bind(name, [])?;
                match (&value, value.index()) {
                    (Value::Float(number), _) => Ok(Value::Float(number.abs())),
                    (_, Some(number)) => {
                        number.checked_abs().map(Value::Int).ok_or_else(|| operators::TOO_LARGE.into())
                    }
                    _ => Err(value.defined().err().unwrap_or_else(|| format!("abs of '{}'", value.kind()))),
                }
            }
            "int" | "float" => convert(name, &value, args),
            "round" => round(&value, args),
            "format" => {
                let text = self.print(&value)?;
                let Args { positional, named } = args;
                let args = match (positional.is_empty(), named.is_empty()) {
                    (false, false) => {
                        return Err("can't handle positional and keyword arguments at the same time".into());
                    }
                    (_, false) => Value::dict(named.into_iter().map(|(k, v)| (Value::Str(k), v)).collect()),
                    _ => Value::tuple(positional),
                };
                format::percent(&text, &args, &self.meter).map(Value::str)
            }
            "string" | "safe" | "lower" | "upper" | "capitalize" | "title" | "trim" | "center" | "replace"
            | "indent" | "truncate" | "wordcount" | "e" | "escape" | "forceescape" | "urlencode" => {
                self.text_filter(name, &value, args)
            }
            _ if NOT_SUPPORTED.contains(&name) => {
                Err(format!("the filter '{name}' is not supported in chat templates"))
            }
            _ => self.sequence_filter(name, value, args),
        }
    }

    fn text_filter(&mut self, name: &str, value: &Value, args: Args) -> Evaluated<Value> {
        let text = self.print(value)?;
        self.spend(text.len() / 8)?;
        match name {
            "trim" => {
                let [characters] = args.bind(name, ["chars"])?;
                let characters = characters.filter(|c| !matches!(c, Value::None));
                let characters = characters.map(|characters| self.print(&characters)).transpose()?;
                Ok(Value::str(text_functions::strip(&text, characters.as_deref(), true, true)))
            }
            "center" => {
                let [width] = args.bind(name, ["width"])?;
                let width = width.and_then(|width| width.index()).unwrap_or(80);
                let width = usize::try_from(width.max(0)).unwrap_or(usize::MAX);
                self.fits(width)?;
                Ok(Value::str(text_functions::center(&text, width, ' ')))
            }
            "replace" => {
                let [old, new, count] = args.bind(name, ["old", "new", "count"])?;
                let (old, new) = old.zip(new).ok_or("replace needs a text to replace and its replacement")?;
                let (old, new) = (self.print(&old)?, self.print(&new)?);
                let count = count.filter(|count| !matches!(count, Value::None));
                self.replaced(&text, &old, &new, count.as_ref())
            }
            "indent" => self.indented(&text, args),
            "truncate" => {
                let text = truncated(&text, args)?;
                self.fits(text.len())?;
                Ok(Value::str(text))
            }
            _ => {
                let [] = args.bind(name, [])?;
                // Their output is at most six times as long.
                if ["e", "escape", "forceescape", "urlencode"].contains(&name) {
                    self.grows(text.len(), text.len().saturating_mul(6))?;
                }
                let made = match name {
                    "lower" => Value::str(text.to_lowercase()),
                    "upper" => Value::str(text.to_uppercase()),
                    "capitalize" => Value::str(text_functions::capitalize(&text)),
                    "title" => Value::str(title(&text)),
                    "wordcount" => {
                        let words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
                        Value::Int(words.filter(|word| !word.is_empty()).count() as i128)
                    }
                    "e" | "escape" | "forceescape" => Value::str(escaped(&text)),
                    "urlencode" => {
                        self.spend(text.len() / 2)?;
                        Value::str(url_encoded(&text))
                    }
                    _ => Value::Str(text),
                };
                if let Value::Str(made) = &made {
                    self.fits(made.len())?;
                }
                Ok(made)
            }
        }
    }

    fn indented(&mut self, text: &str, args: Args) -> Evaluated<Value> {
        let [width, first, blank] = args.bind("indent", ["width", "first", "blank"])?;
        let (first, blank) = (first.is_some_and(|f| f.truth()), blank.is_some_and(|b| b.truth()));
        let step = match width {
            Some(Value::Str(step)) => step.to_string(),
            Some(width) => self.spaces(width.index().ok_or("indent needs a number or a text")?)?,
            None => "    ".to_owned(),
        };
        let lines = format!("{text}\n");
        self.fits(text.len().saturating_add(lines.matches('\n').count().saturating_mul(step.len())))?;
        // After the last line break there is no further line.
        let lines = lines.strip_suffix('\n').unwrap_or(&lines).split('\n');
        let mut out = String::new();
        for (number, line) in lines.enumerate() {
            if number > 0 {
                out.push('\n');
            }
            if (number == 0 && first) || (number > 0 && (blank || !line.is_empty())) {
                out.push_str(&step);
            }
            out.push_str(line);
        }
        Ok(Value::str(out))
    }

    /// Spaces; none if `width` is negative.
    fn spaces(&self, width: i128) -> Evaluated<String> {
        let width = usize::try_from(width.max(0)).unwrap_or(usize::MAX);
        self.fits(width)?;
        Ok(" ".repeat(width))
    }

    fn dumped(&self, value: &Value, args: Args) -> Evaluated<String> {
        let names = ["ensure_ascii", "indent", "separators", "sort_keys"];
        let [ascii, indent, separators, sort_keys] = args.bind("tojson", names)?;
        let indent = match indent {
            None | Some(Value::None) => None,
            Some(Value::Str(step)) => Some(step.to_string()),
            Some(width) => {
                let width = width.index().ok_or("tojson: indent must be a number, a text or none")?;
                Some(self.spaces(width)?)
            }
        };
        let (item_separator, key_separator) = match separators {
            None | Some(Value::None) => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
            Some(separators) => match separators.items(&self.meter)?.as_slice() {
                [Value::Str(item), Value::Str(key)] => (item.to_string(), key.to_string()),
                _ => return Err("tojson: separators must be two texts".into()),
            },
        };
        let (ascii, sort_keys) = (ascii.is_some_and(|a| a.truth()), sort_keys.is_some_and(|s| s.truth()));
        let dump = Dump { ascii, indent, item_separator, key_separator, sort_keys, meter: &self.meter };
        dump.text(value)
    }
}

/// The filters `int` and `float`: the default if the value is not a number.
fn convert(name: &str, value: &Value, args: Args) -> Evaluated<Value> {
    let (default, base) = if name == "int" {
        let [default, base] = args.bind(name, ["default", "base"])?;
        let base = base.and_then(|base| base.index()).unwrap_or(10);
        (default.unwrap_or(Value::Int(0)), base)
    } else {
        let [default] = args.bind(name, ["default"])?;
        (default.unwrap_or(Value::Float(0.0)), 10)
    };
    let text = match value {
        Value::Str(text) => Some(text.trim_matches(is_space).replace('_', "").to_lowercase()),
        Value::Undefined(_) => value.defined().map(|()| None)?,
        _ => None,
    };
    let float = || match &text {
        Some(text) => text.parse::<f64>().ok(),
        None => value.float(),
    };
    if name == "float" {
        return Ok(float().map_or(default, Value::Float));
    }
    if let Value::BigInt(_) = value {
        return Ok(value.clone());
    }
    let whole = match &text {
        Some(text) => {
            let prefixes = [("0x", 16), ("0o", 8), ("0b", 2)];
            let bare =
                prefixes.iter().find(|(_, radix)| *radix == base).and_then(|(prefix, _)| text.strip_prefix(prefix));
            u32::try_from(base)
                .ok()
                .filter(|base| (2..=36).contains(base))
                .and_then(|base| i128::from_str_radix(bare.unwrap_or(text), base).ok())
        }
        None => value.index(),
    };
    let whole = whole.or_else(|| float().filter(|number| number.is_finite()).map(|number| number.trunc() as i128));
    Ok(whole.map_or(default, Value::Int))
}

fn round(value: &Value, args: Args) -> Evaluated<Value> {
    let [precision, method] = args.bind("round", ["precision", "method"])?;
    let precision = precision.and_then(|precision| precision.index()).unwrap_or(0);
    let method = match &method {
        Some(Value::Str(method)) => method.to_string(),
        _ => "common".to_owned(),
    };
    value.defined()?;
    match (method.as_str(), value) {
        ("common", Value::Float(number)) => Ok(Value::Float(number::round(*number, precision))),
        ("common", other) if other.index().is_some() && precision >= 0 => Ok(Value::Int(other.index().unwrap_or(0))),
        ("ceil" | "floor", other) => {
            let scale = 10f64.powi(precision.clamp(-300, 300) as i32);
            let scaled = other.float().ok_or("round needs a number")? * scale;
            Ok(Value::Float(if method == "ceil" { scaled.ceil() } else { scaled.floor() } / scale))
        }
        ("common", other) => {
            let number = other.float().ok_or("round needs a number")?;
            Ok(Value::Int(number::round(number, precision) as i128))
        }
        _ => Err("method must be common, ceil or floor".into()),
    }
}

fn truncated(text: &str, args: Args) -> Evaluated<String> {
    let [length, kill_words, end, leeway] = args.bind("truncate", ["length", "killwords", "end", "leeway"])?;
    let count = |value: Option<Value>, default: i128| value.and_then(|value| value.index()).unwrap_or(default);
    let (length, leeway) = (count(length, 255), count(leeway, 5));
    let end = match &end {
        Some(Value::Str(end)) => end.to_string(),
        _ => "...".to_owned(),
    };
    let tail = end.chars().count() as i128;
    if length < tail {
        return Err(format!("expected length >= {tail}, got {length}"));
    }
    if (text.chars().count() as i128) <= length.saturating_add(leeway) {
        return Ok(text.to_owned());
    }
    let kept: String = text.chars().take((length - tail) as usize).collect();
    let whole = match kept.rsplit_once(' ') {
        Some((words, _)) if !kill_words.is_some_and(|kill| kill.truth()) => words,
        _ => &kept,
    };
    Ok(format!("{whole}{end}"))
}

/// jinja2's own rule: a letter is upper case at the beginning and after a space, `-`, `(`, `{`, `[` or `<`.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut begins = true;
    for character in text.chars() {
        if begins {
            out.extend(character.to_uppercase())
        } else {
            out.extend(character.to_lowercase())
        }
        begins = is_space(character) || "-({[<".contains(character);
    }
    out
}

fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('\'', "&#39;").replace('"', "&#34;")
}

fn url_encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"_.-~/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
