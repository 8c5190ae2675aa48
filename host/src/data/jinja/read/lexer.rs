//! Template source to tokens, with jinja2's whitespace control: `trim_blocks` removes the line break after a block,
//! `lstrip_blocks` the indentation before one, `-` all whitespace on its side, `+` neither.

use crate::data::jinja::error::Error;
use crate::data::jinja::render::MARKS;
use crate::data::jinja::text::is_space;

#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    Text(String),
    VariableBegin,
    VariableEnd,
    BlockBegin,
    BlockEnd,
    Name(String),
    Str(String),
    Int(String),
    Float(f64),
    Op(&'static str),
    End,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    pub kind: Kind,
    pub line: usize,
}

/// Longest first.
const OPERATORS: [&str; 26] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<", "=", ".",
    ":", "|", ",", ";",
];

/// The maximum length of a template. Published ones have up to some 50,000 bytes.
const LONGEST: usize = 1 << 20;
/// The most digits of a number: Python's own limit.
const DIGITS: usize = 4300;

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    line: usize,
    tokens: Vec<Token>,
    /// Whether the text read last ended with a line break.
    line_starts: bool,
}

/// # Errors
/// A tag, comment or string that does not end, or a character that cannot begin a token.
pub fn tokens(source: &str) -> Result<Vec<Token>, Error> {
    if source.len() > LONGEST {
        let what = format!("it has {} bytes; the limit of a template is {LONGEST}", source.len());
        return Err(Error::new(what, 1));
    }
    let mut source = source.replace("\r\n", "\n").replace('\r', "\n");
    if source.ends_with('\n') {
        source.pop();
    }
    let mut lexer = Lexer { source: &source, at: 0, line: 1, tokens: Vec::new(), line_starts: true };
    while lexer.text()? {}
    lexer.push(Kind::End);
    Ok(lexer.tokens)
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    fn push(&mut self, kind: Kind) {
        self.tokens.push(Token { kind, line: self.line });
    }

    fn fail<T>(&self, what: impl Into<String>) -> Result<T, Error> {
        Err(Error::new(what.into(), self.line))
    }

    fn advance(&mut self, length: usize) {
        let consumed = &self.source[self.at..self.at + length];
        self.line += consumed.matches('\n').count();
        self.line_starts = consumed.ends_with('\n');
        self.at += length;
    }

    fn spaces(&self, from: usize) -> usize {
        let rest = &self.source[from..];
        rest.len() - rest.trim_start_matches(is_space).len()
    }

    /// Reads text up to the next tag, and that tag. Returns false at the end.
    fn text(&mut self) -> Result<bool, Error> {
        let rest = self.rest();
        // Searches once: a separate search for each of the three would read a long template again at each tag.
        let is_tag = |at: &usize| matches!(rest.as_bytes().get(at + 1), Some(b'{' | b'%' | b'#'));
        let opening = rest.match_indices('{').map(|(at, _)| at).find(is_tag);
        let Some(length) = opening else {
            if !rest.is_empty() {
                self.push(Kind::Text(rest.to_owned()));
            }
            self.advance(rest.len());
            return Ok(false);
        };
        let (tag, sign) = (&rest[length..length + 2], sign(&rest[length + 2..]));
        let text = self.before(&rest[..length], sign, tag != "{{");
        if !text.is_empty() {
            self.push(Kind::Text(text.to_owned()));
        }
        self.advance(length);
        let opened = 2 + sign.map_or(0, char::len_utf8);
        match tag {
            "{#" => self.comment(opened)?,
            "{%" if self.raw(opened)? => {}
            "{%" => {
                self.push(Kind::BlockBegin);
                self.advance(opened);
                self.tag(false)?;
            }
            _ => {
                self.push(Kind::VariableBegin);
                self.advance(opened);
                self.tag(true)?;
            }
        }
        Ok(true)
    }

    /// The text before a tag, without the whitespace that the tag removes.
    fn before<'t>(&self, text: &'t str, sign: Option<char>, block: bool) -> &'t str {
        match sign {
            Some('-') => text.trim_end_matches(is_space),
            None if block => {
                let line = text.rfind('\n').map_or(0, |at| at + 1);
                let blank = !text[line..].is_empty() && text[line..].chars().all(is_space);
                if blank && (line > 0 || self.line_starts) { &text[..line] } else { text }
            }
            _ => text,
        }
    }

    fn comment(&mut self, opened: usize) -> Result<(), Error> {
        let Some(end) = self.rest()[opened..].find("#}") else {
            return self.fail("a comment has no end: `#}` is missing");
        };
        let inner = &self.rest()[opened..opened + end];
        let mut length = opened + end + 2;
        if inner.ends_with('-') {
            length += self.spaces(self.at + length);
        } else if !inner.ends_with('+') && self.rest()[length..].starts_with('\n') {
            length += 1;
        }
        self.advance(length);
        Ok(())
    }

    /// A raw block, if one begins here.
    fn raw(&mut self, opened: usize) -> Result<bool, Error> {
        let start = opened + self.spaces(self.at + opened);
        let Some(after) = self.rest()[start..].strip_prefix("raw") else { return Ok(false) };
        let after = after.trim_start_matches(is_space);
        let after = match (after.strip_prefix("-%}"), after.strip_prefix("%}")) {
            (Some(after), _) => after.trim_start_matches(is_space),
            (None, Some(after)) => after,
            (None, None) => return Ok(false),
        };
        self.advance(self.rest().len() - after.len());
        let rest = self.rest();
        for (length, _) in rest.match_indices("{%") {
            let sign = sign(&rest[length + 2..]);
            let tag = rest[length + 2 + sign.map_or(0, char::len_utf8)..].trim_start_matches(is_space);
            let Some(after) = tag.strip_prefix("endraw") else { continue };
            let Some(after) = block_end(after.trim_start_matches(is_space)) else { continue };
            let text = self.before(&rest[..length], sign, true);
            if !text.is_empty() {
                self.push(Kind::Text(text.to_owned()));
            }
            self.advance(rest.len() - after.len());
            return Ok(true);
        }
        self.fail("a raw block has no end: `{% endraw %}` is missing")
    }

    /// Reads the inside of `{{ }}` or `{% %}`.
    fn tag(&mut self, variable: bool) -> Result<(), Error> {
        let mut open: Vec<char> = Vec::new();
        loop {
            self.advance(self.spaces(self.at));
            let rest = self.rest();
            let Some(first) = rest.chars().next() else {
                return self.fail(format!("a tag has no end: `{}` is missing", if variable { "}}" } else { "%}" }));
            };
            if open.is_empty() {
                let after = if variable { variable_end(rest) } else { block_end(rest) };
                if let Some(after) = after {
                    self.push(if variable { Kind::VariableEnd } else { Kind::BlockEnd });
                    self.advance(rest.len() - after.len());
                    return Ok(());
                }
            }
            if first.is_ascii_digit() {
                self.number()?;
            } else if first.is_alphabetic() || first == '_' {
                let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
                self.push(Kind::Name(rest[..length].to_owned()));
                self.advance(length);
            } else if first == '"' || first == '\'' {
                self.string(first)?;
            } else {
                self.operator(&mut open)?;
            }
        }
    }

    fn operator(&mut self, open: &mut Vec<char>) -> Result<(), Error> {
        let rest = self.rest();
        let Some(operator) = OPERATORS.iter().find(|operator| rest.starts_with(**operator)) else {
            return self.fail(format!("unexpected character {:?}", rest.chars().next().unwrap_or_default()));
        };
        match *operator {
            "{" => open.push('}'),
            "(" => open.push(')'),
            "[" => open.push(']'),
            "}" | ")" | "]" => match open.pop() {
                Some(expected) if operator.starts_with(expected) => {}
                Some(expected) => return self.fail(format!("unexpected '{operator}', expected '{expected}'")),
                None => return self.fail(format!("unexpected '{operator}'")),
            },
            _ => {}
        }
        self.push(Kind::Op(operator));
        self.advance(operator.len());
        Ok(())
    }

    fn number(&mut self) -> Result<(), Error> {
        let rest = self.rest();
        let prefix = rest.get(..2).unwrap_or_default().to_ascii_lowercase();
        if let Some(radix) = [("0x", 16), ("0o", 8), ("0b", 2)].iter().find(|(p, _)| *p == prefix).map(|(_, r)| *r) {
            let length = 2 + digits(&rest[2..], radix);
            let text: String = rest[2..length].chars().filter(|c| *c != '_').collect();
            let Ok(value) = i128::from_str_radix(&text, radix) else { return self.fail("a number is not valid") };
            self.push(Kind::Int(value.to_string()));
            self.advance(length);
            return Ok(());
        }
        let mut length = digits(rest, 10);
        let after_dot = self.at > 0 && self.source[..self.at].ends_with('.');
        let mut float = false;
        if !after_dot {
            let fraction = rest[length..].strip_prefix('.').map_or(0, |rest| digits(rest, 10));
            if fraction > 0 {
                length += 1 + fraction;
                float = true;
            }
            if let Some(exponent) = rest[length..].strip_prefix(['e', 'E']) {
                let sign = usize::from(exponent.starts_with(['+', '-']));
                let exponent = digits(&exponent[sign..], 10);
                if exponent > 0 {
                    length += 1 + sign + exponent;
                    float = true;
                }
            }
        }
        let text: String = rest[..length].chars().filter(|c| *c != '_').collect();
        if text.len() > DIGITS {
            return self.fail(format!("a number has more than {DIGITS} digits"));
        }
        if float {
            self.push(Kind::Float(text.parse().unwrap_or(f64::NAN)));
        } else if text.len() > 1 && text.starts_with('0') && !text.trim_start_matches('0').is_empty() {
            return self.fail(format!("{text} is not a valid number"));
        } else {
            self.push(Kind::Int(text));
        }
        self.advance(length);
        Ok(())
    }

    fn string(&mut self, quote: char) -> Result<(), Error> {
        let rest = &self.rest()[1..];
        let (mut text, mut at) = (String::new(), 0);
        while let Some(character) = rest[at..].chars().next() {
            at += character.len_utf8();
            match character {
                character if character == quote => {
                    if let Some(at) = text.find(MARKS) {
                        return Err(mark(text[at..].chars().next().unwrap_or_default(), self.line));
                    }
                    self.push(Kind::Str(text));
                    self.advance(1 + at);
                    return Ok(());
                }
                '\\' => at += self.escape(&rest[at..], &mut text)?,
                character => text.push(character),
            }
        }
        self.fail("a string has no end")
    }

    /// Reads what follows a backslash, as Python does; returns its length.
    fn escape(&self, rest: &str, text: &mut String) -> Result<usize, Error> {
        let Some(escape) = rest.chars().next() else { return Ok(0) };
        let code = |length: usize| {
            let code = rest.get(1..1 + length).and_then(|code| u32::from_str_radix(code, 16).ok());
            code.and_then(char::from_u32).map(|character| (character, 1 + length))
        };
        let (character, length) = match escape {
            '\n' => return Ok(1),
            '\\' | '\'' | '"' => (escape, 1),
            'a' => ('\x07', 1),
            'b' => ('\x08', 1),
            'f' => ('\x0c', 1),
            'n' => ('\n', 1),
            'r' => ('\r', 1),
            't' => ('\t', 1),
            'v' => ('\x0b', 1),
            'x' | 'u' | 'U' => match code([2, 4, 8]["xuU".find(escape).unwrap_or(0)]) {
                Some(found) => found,
                None => return self.fail(format!("the escape \\{escape} in a string is not valid")),
            },
            '0'..='7' => {
                let octal = rest.bytes().take(3).take_while(|b| (b'0'..=b'7').contains(b)).count();
                let code = u32::from_str_radix(&rest[..octal], 8).ok().and_then(char::from_u32);
                (code.unwrap_or_default(), octal)
            }
            other => {
                text.push('\\');
                (other, other.len_utf8())
            }
        };
        text.push(character);
        Ok(length)
    }
}

fn sign(rest: &str) -> Option<char> {
    rest.chars().next().filter(|c| ['-', '+'].contains(c))
}

/// What follows the end of a block tag, if `rest` begins with such an end.
fn block_end(rest: &str) -> Option<&str> {
    if let Some(after) = rest.strip_prefix("+%}") {
        return Some(after);
    }
    if let Some(after) = rest.strip_prefix("-%}") {
        return Some(after.trim_start_matches(is_space));
    }
    rest.strip_prefix("%}").map(|after| after.strip_prefix('\n').unwrap_or(after))
}

fn variable_end(rest: &str) -> Option<&str> {
    match rest.strip_prefix("-}}") {
        Some(after) => Some(after.trim_start_matches(is_space)),
        None => rest.strip_prefix("}}"),
    }
}

/// How many bytes of `rest` are digits, with single underscores between them.
fn digits(rest: &str, radix: u32) -> usize {
    let mut length = 0usize;
    let mut last = '_';
    for character in rest.chars() {
        let fits = character.is_digit(radix) || (character == '_' && last != '_' && length > 0);
        if !fits {
            break;
        }
        length += 1;
        last = character;
    }
    if last == '_' { length.saturating_sub(1) } else { length }
}

/// The error for a template that contains a character used to mark generation blocks.
pub fn mark(character: char, line: usize) -> Error {
    Error::new(format!("U+{:04X} is not a character of text", u32::from(character)), line)
}
