//! The JSON values in a file, each with the line that it begins on. The file may hold one object per line, a list
//! of objects, or objects that span several lines.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::json::{Fault, value_at};
use crate::data::error::{DataError, Result};
use crate::data::reading::format::refusal::refuse;
use crate::data::reading::format::running_text::is_html;
use crate::data::rows::columns::Columns;
use crate::data::source::Place;

/// A JSON value in a file.
pub struct Item<'a> {
    /// Where it begins.
    pub place: Place,
    /// Its text.
    pub text: &'a str,
    /// Its parsed value.
    pub value: Value,
}

/// The command that converts a table on standard input to JSON lines.
const TABLE: &str = "convert it to JSON lines: python3 -c 'import csv, json; csv.field_size_limit(10**9); [print(json.dumps(row)) for row in csv.DictReader(open(0, newline=\"\", encoding=\"utf-8-sig\")DELIMITER)]' < IN > OUT";

/// Returns the values in the text of a file.
///
/// # Errors
/// The first place that is not JSON; a table.
pub fn items<'a>(path: &Path, text: &'a str, names: &'a Columns) -> Result<Vec<Item<'a>>> {
    if let Some(delimiter) = table(path, text) {
        let (what, argument) = if delimiter == '\t' {
            ("a table of values separated by tabs (TSV), and not JSON lines", ", delimiter=\"\\t\"")
        } else {
            ("a table of values separated by commas (CSV), and not JSON lines", "")
        };
        return Err(refuse(path, what, &TABLE.replace("DELIMITER", argument)));
    }
    if let Some((what, remedy)) = other_notation(text) {
        return Err(refuse(path, what, remedy));
    }
    let reader = Reader { file: path.display().to_string().into(), text, names };
    match text.trim_start().chars().next() {
        Some('[') => reader.list(),
        _ => reader.lines(),
    }
}

/// Recognizes a notation other than JSON by the first words of a file: what it is, and how to convert it to JSON
/// lines.
fn other_notation(text: &str) -> Option<(&'static str, &'static str)> {
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

/// The separator of a table's columns, recognized by the file's name, or because its first two lines hold words and
/// the same number of separators.
fn table(path: &Path, text: &str) -> Option<char> {
    let name = path.to_string_lossy().to_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    if text.trim_start().starts_with(['{', '[']) {
        return None;
    }
    if name.ends_with(".csv") {
        return Some(',');
    }
    if name.ends_with(".tsv") {
        return Some('\t');
    }
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let (first, second) = (lines.next()?, lines.next()?);
    let words = first.chars().all(|c| c.is_alphanumeric() || matches!(c, ',' | '\t' | '_' | '-' | ' ' | '"'));
    ['\t', ','].into_iter().find(|c| {
        let count = |line: &str| line.matches(*c).count();
        words && count(first) > 0 && count(second) >= count(first)
    })
}

struct Reader<'a> {
    file: Arc<str>,
    text: &'a str,
    /// The file's names of the parts.
    names: &'a Columns,
}

impl<'a> Reader<'a> {
    fn place(&self, line: usize) -> Place {
        Place { file: self.file.clone(), line }
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
    fn lines(&self) -> Result<Vec<Item<'a>>> {
        let mut items = Vec::new();
        for (index, line) in self.text.lines().enumerate() {
            // A byte order mark occurs here if files that begin with one were concatenated.
            let line = line.trim_start_matches('\u{FEFF}');
            let mut at = skip_space(line, 0);
            while at < line.len() {
                match value_at(line, at, self.names) {
                    Ok((value, end)) => {
                        items.push(Item { place: self.place(index + 1), text: &line[at..end], value });
                        at = skip_space(line, end);
                        if line[at..].trim_end() == "," {
                            let what = "a comma after the object: JSON lines have none; remove it (sed 's/,$//')";
                            return Err(self.refuse(index + 1, what.to_owned()));
                        }
                    }
                    Err(fault) => {
                        let over_lines = items.is_empty() && fault.cut_off && line[at..].starts_with('{');
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
    fn objects(&self) -> Option<Result<Vec<Item<'a>>>> {
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
                    items.push(Item { place: self.place(line), text: &self.text[at..end], value });
                    at = skip_space(self.text, end);
                }
                Err(fault) => return Some(Err(self.refuse_at(fault))),
            }
        }
        Some(Ok(items))
    }

    /// A list of objects.
    fn list(&self) -> Result<Vec<Item<'a>>> {
        let text = self.text;
        let (mut items, mut line, mut counted) = (Vec::new(), 1, 0);
        let mut at = skip_space(text, skip_space(text, 0) + 1);
        if !text[at..].starts_with(']') {
            loop {
                line += newlines(&text[counted..at]);
                counted = at;
                let (value, end) = value_at(text, at, self.names).map_err(|fault| self.refuse_at(fault))?;
                items.push(Item { place: self.place(line), text: &text[at..end], value });
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
