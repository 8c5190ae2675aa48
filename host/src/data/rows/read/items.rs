//! The JSON values in a file, each with the line that it begins on. The file may hold one object per line, a list
//! of objects, or objects that span several lines.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::json::{Fault, value_at};
use crate::data::error::{DataError, Result};
use crate::data::place::Place;
use crate::data::reading::format::record::Unreadable;
use crate::data::reading::format::running_text::is_html;
use crate::data::rows::columns::Columns;

/// A JSON value in a file.
pub struct Item {
    /// Where it begins.
    pub place: Place,
    /// Its parsed value.
    pub value: Value,
    /// Values of its columns that have no JSON; only of files whose columns have types.
    pub unreadable: Vec<Unreadable>,
}

impl Item {
    /// A value of JSON.
    pub fn of(place: Place, value: Value) -> Item {
        Item { place, value, unreadable: Vec::new() }
    }
}

/// Returns the values in the whole text of a file.
///
/// # Errors
/// The first place that is not JSON.
pub fn items(path: &Path, text: &str, names: &Columns) -> Result<Vec<Item>> {
    let reader = Reader { file: path.display().to_string().into(), text, names, before: 0, is_whole: true };
    match text.trim_start().chars().next() {
        Some('[') => reader.list(),
        _ => reader.lines(),
    }
}

/// Returns the values in whole lines of a file, of which `before` lines precede `text`.
///
/// # Errors
/// The first place that is not JSON.
pub fn items_of_lines(file: &Arc<str>, text: &str, before: usize, names: &Columns) -> Result<Vec<Item>> {
    Reader { file: file.clone(), text, names, before, is_whole: false }.lines()
}

/// Whether a file of this text, or one that begins with it, is not a file of JSON lines and must be read whole: it begins a
/// list, or an object that spans several lines.
pub fn spans_lines(text: &str) -> bool {
    let text = text.trim_start();
    if text.starts_with('[') {
        return true;
    }
    let mut lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty());
    let (Some(first), Some(second)) = (lines.next(), lines.next()) else { return false };
    first.starts_with('{')
        && !second.starts_with('{')
        && value_at(first, 0, &Columns::default()).is_err_and(|fault| fault.cut_off)
}

/// Recognizes a notation other than JSON by the first words of a file: what it is, and how to convert it to JSON
/// lines.
pub fn other_notation(text: &str) -> Option<(&'static str, &'static str)> {
    let text = text.trim_start();
    if is_html(text) {
        let remedy = "download the file itself: the address may need a login, or may be that of a web page";
        return Some(("an HTML page, and not JSON lines", remedy));
    }
    if text.starts_with('<') {
        return Some(("XML, and not JSON lines", "convert it to JSON lines with xml.etree and json"));
    }
    let first = text.lines().find(|line| !line.trim_start().starts_with('#') && !line.trim().is_empty())?;
    let is_key = |line: &str| {
        let key = line.trim_start_matches("- ").split_once(':');
        key.is_some_and(|(key, rest)| {
            let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
            !key.is_empty() && key.chars().all(plain) && (rest.is_empty() || rest.starts_with(' '))
        })
    };
    let is_yaml = first.trim_end() == "---" || is_key(first.trim_end());
    is_yaml.then_some((
        "YAML, and not JSON lines",
        "convert it to JSON lines: python3 -c 'import json, yaml; [print(json.dumps(row)) for row in yaml.safe_load(open(0))]' < IN > OUT",
    ))
}

struct Reader<'a> {
    file: Arc<str>,
    text: &'a str,
    /// The file's names of the parts.
    names: &'a Columns,
    /// Lines of the file before the text.
    before: usize,
    /// Whether the text is the whole file.
    is_whole: bool,
}

impl<'a> Reader<'a> {
    fn place(&self, line: usize) -> Place {
        Place { file: self.file.clone(), line: self.before + line }
    }

    /// The line of byte `at`, counted from 1.
    fn line_of(&self, at: usize) -> usize {
        1 + self.text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count()
    }

    fn refuse(&self, line: usize, what: String) -> DataError {
        DataError::Json { place: self.place(line), key: String::new(), what }
    }

    fn refuse_at(&self, fault: Fault) -> DataError {
        let end = self.text.trim_end().len();
        self.refuse(self.line_of(fault.at.min(end)), fault.what)
    }

    /// Reads one object per line. Several objects on one line are read too: a file may have lost its line ends, or
    /// been appended to another.
    fn lines(&self) -> Result<Vec<Item>> {
        let mut items = Vec::new();
        for (index, line) in self.text.lines().enumerate() {
            // A byte order mark occurs here if files that begin with one were concatenated.
            let line = line.trim_start_matches('\u{FEFF}');
            let mut at = skip_space(line, 0);
            while at < line.len() {
                match value_at(line, at, self.names) {
                    Ok((value, end)) => {
                        items.push(Item::of(self.place(index + 1), value));
                        at = skip_space(line, end);
                        if line[at..].trim_end() == "," {
                            let what = "a comma after the object: JSON lines have none; remove it (sed 's/,$//')";
                            return Err(self.refuse(index + 1, what.to_owned()));
                        }
                    }
                    Err(fault) => {
                        let over_lines =
                            self.is_whole && items.is_empty() && fault.cut_off && line[at..].starts_with('{');
                        return match self.objects().filter(|_| over_lines) {
                            Some(objects) => objects,
                            None => Err(self.refuse(index + 1, fault.what)),
                        };
                    }
                }
            }
        }
        Ok(items)
    }

    /// Reads consecutive objects that span several lines; `None` if the first one seems to be an incomplete line.
    fn objects(&self) -> Option<Result<Vec<Item>>> {
        let mut lines = self.text.lines().filter(|line| !line.trim().is_empty());
        if lines.nth(1)?.starts_with('{') {
            return None;
        }
        let (mut items, mut at, mut line, mut counted) = (Vec::new(), skip_space(self.text, 0), 1, 0);
        while at < self.text.len() {
            line += newlines(&self.text[counted..at]);
            counted = at;
            match value_at(self.text, at, self.names) {
                Ok((value, end)) => {
                    items.push(Item::of(self.place(line), value));
                    at = skip_space(self.text, end);
                }
                Err(fault) => return Some(Err(self.refuse_at(fault))),
            }
        }
        Some(Ok(items))
    }

    /// A list of objects.
    fn list(&self) -> Result<Vec<Item>> {
        let text = self.text;
        let (mut items, mut line, mut counted) = (Vec::new(), 1, 0);
        let mut at = skip_space(text, skip_space(text, 0) + 1);
        if !text[at..].starts_with(']') {
            loop {
                line += newlines(&text[counted..at]);
                counted = at;
                let (value, end) = value_at(text, at, self.names).map_err(|fault| self.refuse_at(fault))?;
                items.push(Item::of(self.place(line), value));
                at = skip_space(text, end);
                match text[at..].chars().next() {
                    Some(',') => at = skip_space(text, at + 1),
                    Some(']') => break,
                    Some(other) => {
                        let what = format!("not JSON: expected , or ] after an element of the list, found {other:?}");
                        return Err(self.refuse(self.line_of(at), what));
                    }
                    None => {
                        let what = "not JSON: the file ends within its list: it was cut off".to_owned();
                        return Err(self.refuse(self.line_of(text.trim_end().len()), what));
                    }
                }
            }
        }
        let rest = skip_space(text, at + 1);
        if rest < text.len() {
            let what = "text after the list: a file contains one list of objects, or one object per line; if every line is a list \
                        of messages, convert them to rows: jq -c '{messages: .}'";
            return Err(self.refuse(self.line_of(rest), what.to_owned()));
        }
        Ok(items)
    }
}

fn newlines(text: &str) -> usize {
    text.bytes().filter(|byte| *byte == b'\n').count()
}

/// The first byte from `at` on that is not JSON white space.
fn skip_space(text: &str, at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    text.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len()
}
