//! A format specification, and values written by it.

use crate::data::jinja::error::Evaluated;
use crate::data::jinja::number;

/// The largest field width and number of digits. Rust's own formatting panics beyond 65,535.
pub const WIDEST: usize = 60_000;
pub const TOO_WIDE: &str = "a format is too wide: more than 60000 characters";

/// The parts of a format specification.
#[derive(Default)]
pub struct Spec {
    pub fill: Option<char>,
    pub align: Option<char>,
    pub sign: Option<char>,
    pub alternate: bool,
    pub width: usize,
    pub group: Option<char>,
    pub precision: Option<usize>,
    pub kind: Option<char>,
}

impl Spec {
    /// Pads to the width; numbers are aligned right by default, and zeros go after the sign.
    pub fn pad(&self, body: &str, prefix: &str, number: bool) -> String {
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

    pub fn integer(&self, value: i128, kind: char) -> Evaluated<String> {
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

    pub fn float(&self, value: f64, kind: char) -> String {
        let (kind, percent) = if kind == '%' { ('f', "%") } else { (kind, "") };
        let value = if percent.is_empty() { value } else { value * 100.0 };
        let text = number::notation(value.abs(), kind, self.precision.unwrap_or(6), self.alternate);
        let text = if kind.is_uppercase() { text.to_uppercase() } else { text };
        let whole = text.find(['.', 'e', 'E', 'i', 'n']).unwrap_or(text.len());
        let body = format!("{}{}{percent}", self.grouped(&text[..whole], 3), &text[whole..]);
        self.pad(&body, self.sign_of(value.is_sign_negative() && !value.is_nan()), true)
    }

    pub fn sign_of(&self, negative: bool) -> &'static str {
        match (negative, self.sign) {
            (true, _) => "-",
            (false, Some('+')) => "+",
            (false, Some(' ')) => " ",
            _ => "",
        }
    }

    pub fn grouped(&self, digits: &str, size: usize) -> String {
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

    pub fn string(&self, text: &str) -> String {
        let cut: String = match self.precision {
            Some(precision) => text.chars().take(precision).collect(),
            None => text.to_owned(),
        };
        self.pad(&cut, "", false)
    }
}

/// Escapes all characters outside ASCII, as Python does.
pub fn ascii(text: &str) -> String {
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

/// Parses the part of a field after its colon.
///
/// # Errors
/// As in Python: it is not a format specification.
pub fn parse_spec(text: &str) -> Evaluated<Spec> {
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
