//! Computes Python's string methods on a text. The methods check the limits on templates.

use crate::data::jinja::text::{is_printable, is_space};
use crate::data::jinja::value::Value;

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
pub const LINE_ENDS: [char; 10] =
    ['\n', '\r', '\x0b', '\x0c', '\x1c', '\x1d', '\x1e', '\u{85}', '\u{2028}', '\u{2029}'];

/// Splits `text` into lines, whose ends are kept if `keep` is set.
pub fn lines(text: &str, keep: bool) -> Vec<Value> {
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
pub fn split<'t>(text: &'t str, separator: Option<&str>, most: Option<usize>, right: bool) -> Vec<Value> {
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

/// Replaces tabs by spaces up to the next multiple of `size`.
pub fn expand_tabs(text: &str, size: usize) -> String {
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

/// Calls a method without arguments.
pub fn plain(text: &str, name: &str) -> Value {
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
