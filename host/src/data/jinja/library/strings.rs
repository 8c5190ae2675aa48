//! Python's string methods: their arguments and limits. What they compute is in [`super::text_functions`].

use super::args::Args;
use super::text_functions::{LINE_ENDS, center, expand_tabs, lines, plain, split, strip};
use crate::data::jinja::error::Evaluated;
use crate::data::jinja::library::format;
use crate::data::jinja::meter::TEXT;
use crate::data::jinja::render::Renderer;
use crate::data::jinja::text::is_space;
use crate::data::jinja::value::Value;

/// Methods of `str` that a template can look up. All except `encode` and `translate` can be called.
pub const METHODS: &[&str] = &[
    "capitalize",
    "casefold",
    "center",
    "count",
    "encode",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "translate",
    "upper",
    "zfill",
];

fn string(value: &Value) -> Evaluated<&str> {
    match value {
        Value::Str(text) => Ok(text),
        other => {
            other.defined()?;
            Err(format!("a string is needed, not {}", other.kind()))
        }
    }
}

fn count(value: &Value) -> Evaluated<i128> {
    value.defined()?;
    value.index().ok_or_else(|| format!("'{}' object cannot be interpreted as an integer", value.kind()))
}

/// The part of the text that a method searches: the characters from `start` to `end`, and how many precede them.
fn part<'t>(text: &'t str, args: &[Value]) -> Evaluated<Option<(&'t str, usize)>> {
    let length = text.chars().count();
    let bound = |place: usize, default: usize| match args.get(place) {
        None | Some(Value::None) => Ok(default as i128),
        Some(value) => count(value).map(|at| if at < 0 { (at + length as i128).max(0) } else { at }),
    };
    let (start, end) = (bound(1, 0)?, bound(2, length)?.min(length as i128));
    if start > end {
        return Ok(None);
    }
    let byte = |at: i128| text.char_indices().nth(at as usize).map_or(text.len(), |(byte, _)| byte);
    Ok(Some((&text[byte(start)..byte(end)], start as usize)))
}

impl Renderer {
    /// Calls a string's method.
    pub fn string_method(&mut self, text: &str, name: &str, args: Args) -> Evaluated<Value> {
        self.spend(text.len() / 8)?;
        match name {
            "encode" | "translate" => return Err(format!("str.{name} is not supported in chat templates")),
            "format" => return format::braces(text, &args, &self.meter).map(Value::str),
            "format_map" => {
                let [map] = args.bind(name, ["mapping"])?;
                let Some(Value::Dict(dict)) = map else { return Err("format_map needs a dict".into()) };
                self.meter.list(dict.len())?;
                let named = dict.iter().filter_map(|(key, value)| match key {
                    Value::Str(key) => Some((key.clone(), value.clone())),
                    _ => None,
                });
                let args = Args { positional: Vec::new(), named: named.collect() };
                return format::braces(text, &args, &self.meter).map(Value::str);
            }
            "split" | "rsplit" => {
                let [separator, most] = args.bind(name, ["sep", "maxsplit"])?;
                let separator = match &separator {
                    None | Some(Value::None) => None,
                    Some(separator) => Some(string(separator)?),
                };
                if separator == Some("") {
                    return Err("empty separator".into());
                }
                let most = most.as_ref().map(count).transpose()?.and_then(|most| usize::try_from(most).ok());
                // Each part is a separate text.
                let parts = match separator {
                    Some(separator) => text.matches(separator).count(),
                    None => text.matches(is_space).count(),
                };
                self.spend(parts.min(most.unwrap_or(usize::MAX)))?;
                return Ok(Value::list(split(text, separator, most, name == "rsplit")));
            }
            "splitlines" => {
                let [keep] = args.bind(name, ["keepends"])?;
                self.spend(text.matches(LINE_ENDS).count())?;
                return Ok(Value::list(lines(text, keep.is_some_and(|keep| keep.truth()))));
            }
            "expandtabs" => {
                let [size] = args.bind(name, ["tabsize"])?;
                let size = size.as_ref().map_or(Ok(8), count)?;
                let size = usize::try_from(size.max(0)).unwrap_or(usize::MAX);
                self.fits(text.len().saturating_add(text.matches('\t').count().saturating_mul(size)))?;
                return Ok(Value::str(expand_tabs(text, size)));
            }
            _ => {}
        }
        let most = match name {
            "find" | "rfind" | "index" | "rindex" | "count" | "startswith" | "endswith" | "replace" => 3,
            "center" | "ljust" | "rjust" => 2,
            "strip" | "lstrip" | "rstrip" | "partition" | "rpartition" | "removeprefix" | "removesuffix" | "zfill"
            | "join" => 1,
            _ => 0,
        };
        let least = match name {
            "replace" => 2,
            "strip" | "lstrip" | "rstrip" => 0,
            _ => most.min(1),
        };
        let args = args.positional(name, least, most)?;
        match name {
            "find" | "rfind" | "index" | "rindex" | "count" => search(text, name, &args),
            "startswith" | "endswith" => {
                let Some((part, _)) = part(text, &args)? else { return Ok(Value::Bool(false)) };
                let several = match &args[0] {
                    Value::Tuple(several) => {
                        self.meter.list(several.len())?;
                        several.to_vec()
                    }
                    one => vec![one.clone()],
                };
                for affix in &several {
                    let affix = string(affix)?;
                    self.spend(affix.len() / TEXT)?;
                    if if name == "startswith" { part.starts_with(affix) } else { part.ends_with(affix) } {
                        return Ok(Value::Bool(true));
                    }
                }
                Ok(Value::Bool(false))
            }
            "replace" => self.replaced(text, string(&args[0])?, string(&args[1])?, args.get(2)),
            "center" | "ljust" | "rjust" | "zfill" => self.padded(text, name, &args),
            "strip" | "lstrip" | "rstrip" => {
                let characters = match args.first() {
                    None | Some(Value::None) => None,
                    Some(characters) => Some(string(characters)?),
                };
                Ok(Value::str(strip(text, characters, name != "rstrip", name != "lstrip")))
            }
            "partition" | "rpartition" => {
                let separator = string(&args[0])?;
                if separator.is_empty() {
                    return Err("empty separator".into());
                }
                let split = if name == "partition" { text.split_once(separator) } else { text.rsplit_once(separator) };
                Ok(Value::tuple(match (split, name) {
                    (Some((before, after)), _) => vec![Value::str(before), args[0].clone(), Value::str(after)],
                    (None, "partition") => vec![Value::str(text), Value::str(""), Value::str("")],
                    (None, _) => vec![Value::str(""), Value::str(""), Value::str(text)],
                }))
            }
            "removeprefix" => Ok(Value::str(text.strip_prefix(string(&args[0])?).unwrap_or(text))),
            "removesuffix" => Ok(Value::str(text.strip_suffix(string(&args[0])?).unwrap_or(text))),
            "join" => {
                let items = args[0].items(&self.meter)?;
                let mut out = String::new();
                for (number, item) in items.iter().enumerate() {
                    let separator = if number == 0 { "" } else { text };
                    out.push_str(separator);
                    let Value::Str(item) = item else {
                        return Err(format!("sequence item {number}: expected str instance, {} found", item.kind()));
                    };
                    out.push_str(item);
                    self.spend(1)?;
                    self.grows(out.len(), item.len() + separator.len())?;
                }
                Ok(Value::str(out))
            }
            _ => {
                let made = plain(text, name);
                if let Value::Str(made) = &made {
                    self.fits(made.len())?;
                }
                Ok(made)
            }
        }
    }

    pub fn replaced(&mut self, text: &str, old: &str, new: &str, most: Option<&Value>) -> Evaluated<Value> {
        let most = most.map(count).transpose()?.and_then(|most| usize::try_from(most).ok());
        let found = text.matches(old).count().min(most.unwrap_or(usize::MAX));
        self.fits(text.len().saturating_add(found.saturating_mul(new.len())))?;
        self.spend(found)?;
        Ok(Value::str(match most {
            Some(most) => text.replacen(old, new, most),
            None => text.replace(old, new),
        }))
    }

    fn padded(&mut self, text: &str, name: &str, args: &[Value]) -> Evaluated<Value> {
        let width = usize::try_from(count(&args[0])?.max(0)).unwrap_or(usize::MAX);
        self.fits(width)?;
        let fill = match args.get(1).map(string).transpose()?.unwrap_or(" ") {
            fill if fill.chars().count() == 1 => fill.chars().next().unwrap_or(' '),
            _ => return Err("The fill character must be exactly one character long".into()),
        };
        let space = width.saturating_sub(text.chars().count());
        let padding = String::from(fill).repeat(space);
        Ok(Value::str(match name {
            "center" => center(text, width, fill),
            "ljust" => format!("{text}{padding}"),
            "rjust" => format!("{padding}{text}"),
            _ => {
                let digits = text.trim_start_matches(['+', '-']);
                let sign = if text.len() - digits.len() == 1 { &text[..1] } else { "" };
                format!("{sign}{}{}", "0".repeat(space), &text[sign.len()..])
            }
        }))
    }
}

fn search(text: &str, name: &str, args: &[Value]) -> Evaluated<Value> {
    let wanted = string(&args[0])?;
    let part = part(text, args)?;
    if name == "count" {
        let count = part.map_or(0, |(part, _)| part.matches(wanted).count());
        return Ok(Value::Int(count as i128));
    }
    let place = part.and_then(|(part, before)| {
        let byte = if name.starts_with('r') { part.rfind(wanted) } else { part.find(wanted) };
        byte.map(|byte| (before + part[..byte].chars().count()) as i128)
    });
    match (place, name) {
        (Some(place), _) => Ok(Value::Int(place)),
        (None, "index" | "rindex") => Err("substring not found".into()),
        (None, _) => Ok(Value::Int(-1)),
    }
}
