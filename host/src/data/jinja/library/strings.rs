//! Python's string methods.

use super::args::Args;
use crate::data::jinja::error::Evaluated;
use crate::data::jinja::library::format;
use crate::data::jinja::meter::TEXT;
use crate::data::jinja::render::Renderer;
use crate::data::jinja::text::{is_printable, is_space};
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

/// Makes the first letter upper case and the others lower case.
pub fn capitalize(text: &str) -> String {
    let mut characters = text.chars();
    let first: String = characters.next().into_iter().flat_map(char::to_uppercase).collect();
    first + &characters.as_str().to_lowercase()
}

fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for character in text.chars() {
        if inside {
            out.extend(character.to_lowercase())
        } else {
            out.extend(character.to_uppercase())
        }
        inside = character.is_alphabetic();
    }
    out
}

fn swapcase(text: &str) -> String {
    let swap = |c: char| if c.is_uppercase() { c.to_lowercase().to_string() } else { c.to_uppercase().to_string() };
    text.chars().map(swap).collect()
}

/// Centres `text` in `width` characters. An odd space goes to the side where Python puts it, which is not Rust's
/// choice.
pub fn center(text: &str, width: usize, fill: char) -> String {
    let space = width.saturating_sub(text.chars().count());
    let left = space / 2 + (space & width & 1);
    let fill = |count: usize| String::from(fill).repeat(count);
    format!("{}{text}{}", fill(left), fill(space - left))
}

/// `text.strip(characters)` on the chosen sides; strips whitespace if no characters are given.
pub fn strip<'t>(text: &'t str, characters: Option<&str>, left: bool, right: bool) -> &'t str {
    let goes = |c: char| characters.map_or_else(|| is_space(c), |characters| characters.contains(c));
    let text = if left { text.trim_start_matches(goes) } else { text };
    if right { text.trim_end_matches(goes) } else { text }
}

/// The characters that end a line in Python.
const LINE_ENDS: [char; 10] = ['\n', '\r', '\x0b', '\x0c', '\x1c', '\x1d', '\x1e', '\u{85}', '\u{2028}', '\u{2029}'];

fn lines(text: &str, keep: bool) -> Vec<Value> {
    let (mut lines, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let at = rest.find(LINE_ENDS).unwrap_or(rest.len());
        let end = if rest[at..].starts_with("\r\n") { 2 } else { rest[at..].chars().next().map_or(0, char::len_utf8) };
        lines.push(Value::str(&rest[..if keep { at + end } else { at }]));
        rest = &rest[at + end..];
    }
    lines
}

/// `text.split(separator, most)`, from the right if `right` is set.
fn split<'t>(text: &'t str, separator: Option<&str>, most: Option<usize>, right: bool) -> Vec<Value> {
    let most = most.map_or(usize::MAX, |most| most.saturating_add(1));
    let mut parts: Vec<&str> = match (separator, right) {
        (Some(separator), false) => text.splitn(most, separator).collect(),
        (Some(separator), true) => text.rsplitn(most, separator).collect(),
        (None, _) => {
            // The part that remains after the last allowed split keeps the space on its far side.
            let near =
                |rest: &'t str| if right { rest.trim_end_matches(is_space) } else { rest.trim_start_matches(is_space) };
            let (mut parts, mut rest) = (Vec::new(), near(text));
            while !rest.is_empty() {
                let cut = if right { rest.rfind(is_space) } else { rest.find(is_space) };
                let Some(cut) = cut.filter(|_| parts.len() + 1 < most) else {
                    parts.push(rest);
                    break;
                };
                let width = rest[cut..].chars().next().map_or(1, char::len_utf8);
                let (before, after) = (&rest[..cut], &rest[cut + width..]);
                parts.push(if right { after } else { before });
                rest = near(if right { before } else { after });
            }
            parts
        }
    };
    if right {
        parts.reverse();
    }
    parts.into_iter().map(Value::str).collect()
}

/// Whether it is a decimal digit of any script: fractions, exponents, Roman and circled numerals are not.
fn is_digit(character: char) -> bool {
    let other = matches!(character, '\u{B2}'..='\u{BE}' | '\u{2070}'..='\u{218B}' | '\u{2460}'..='\u{24FF}' | '\u{2776}'..='\u{2793}');
    character.is_ascii_digit() || (!character.is_ascii() && character.is_numeric() && !other)
}

fn is_all(text: &str, test: impl Fn(char) -> bool) -> Value {
    Value::Bool(!text.is_empty() && text.chars().all(test))
}

fn is_title(text: &str) -> bool {
    let (mut inside, mut cased) = (false, false);
    for character in text.chars() {
        let upper = character.is_uppercase();
        if (upper && inside) || (character.is_lowercase() && !inside) {
            return false;
        }
        inside = upper || character.is_lowercase();
        cased |= inside;
    }
    cased
}

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
            "encode" | "translate" => return Err(format!("str.{name} is not offered in chat templates")),
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

fn expand_tabs(text: &str, size: usize) -> String {
    let (mut out, mut column) = (String::new(), 0);
    for character in text.chars() {
        match character {
            '\t' => {
                let spaces = if size == 0 { 0 } else { size - column % size };
                out.push_str(&" ".repeat(spaces));
                column += spaces;
            }
            '\n' | '\r' => {
                out.push(character);
                column = 0;
            }
            other => {
                out.push(other);
                column += 1;
            }
        }
    }
    out
}

/// Methods without arguments.
fn plain(text: &str, name: &str) -> Value {
    let cased = |test: fn(char) -> bool, other: fn(char) -> bool| {
        Value::Bool(text.chars().any(test) && !text.chars().any(other))
    };
    match name {
        "capitalize" => Value::str(capitalize(text)),
        "casefold" => Value::str(text.to_lowercase().replace('ß', "ss")),
        "lower" => Value::str(text.to_lowercase()),
        "upper" => Value::str(text.to_uppercase()),
        "title" => Value::str(title(text)),
        "swapcase" => Value::str(swapcase(text)),
        "isalnum" => is_all(text, char::is_alphanumeric),
        "isalpha" => is_all(text, char::is_alphabetic),
        "isascii" => Value::Bool(text.is_ascii()),
        "isdecimal" | "isdigit" => is_all(text, is_digit),
        "isnumeric" => is_all(text, char::is_numeric),
        "isidentifier" => {
            let first = text.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_');
            Value::Bool(first && text.chars().all(|c| c.is_alphanumeric() || c == '_'))
        }
        "islower" => cased(char::is_lowercase, char::is_uppercase),
        "isupper" => cased(char::is_uppercase, char::is_lowercase),
        "isprintable" => Value::Bool(text.chars().all(is_printable)),
        "isspace" => is_all(text, is_space),
        _ => Value::Bool(is_title(text)),
    }
}
