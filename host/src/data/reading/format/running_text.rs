//! Refuses rows, tables, HTML pages and TOML files where running text is expected.

use std::path::Path;

use super::refusal::refuse;
use crate::data::error::Result;

/// Refuses rows, tables, HTML pages and experiments as text on which a loss is measured.
///
/// # Errors
/// Decided by the file name's extension, or by the format of the whole text: JSON, lines of JSON, HTML, TOML.
pub fn check_running_text(path: &Path, text: &str) -> Result<()> {
    let to_rows = "`telos eval MODEL --rows IN` measures rows; for running text, extract it (for example jq -r .text IN > \
                   text.txt)";
    let (what, remedy) = match ending(path).as_str() {
        "jsonl" | "ndjson" => ("a file of rows", to_rows),
        "json" => ("a file of JSON", to_rows),
        "csv" | "tsv" => ("a table", "`telos eval MODEL --rows IN` measures rows; for running text, extract it"),
        "toml" | "yaml" | "yml" => ("a file of settings", TO_EXPERIMENT),
        "html" | "htm" => ("an HTML page", TO_TEXT),
        _ if are_rows(text) => ("a file of rows: every line is an object of JSON", to_rows),
        _ if are_lists(text) => ("a file of rows: every line is a list of JSON, or an object", to_rows),
        _ if is_json(text) => ("a file of JSON: one object or list", to_rows),
        _ if is_html(text) => ("an HTML page", TO_TEXT),
        _ if is_toml(text) => ("a file of settings: TOML", TO_EXPERIMENT),
        _ => return Ok(()),
    };
    Err(refuse(path, &format!("{what}, and its syntax would be measured too"), remedy))
}

const TO_EXPERIMENT: &str = "name the text to measure; `telos check` tests an experiment, and `telos eval MODEL --rows` measures \
                             rows";
const TO_TEXT: &str = "extract its text, for example: python3 -c \"import bs4; print(bs4.BeautifulSoup(open('IN'), \
                       'html.parser').get_text())\" > text.txt; \
     rows are measured by `telos eval MODEL --rows`";

/// Keys that occur only in rows of training data.
const ROW_KEYS: [&str; 14] = [
    "text",
    "content",
    "prompt",
    "completion",
    "messages",
    "conversations",
    "chosen",
    "rejected",
    "instruction",
    "output",
    "question",
    "answer",
    "response",
    "story",
];

/// Refuses a file of rows as running text to train on: the model would learn its keys and brackets too.
///
/// # Errors
/// JSON lines whose first object has a key of rows: decided by the file name's extension, or because every line is
/// a JSON object.
pub fn check_learned_text(path: &Path, text: &str) -> Result<()> {
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let has_row_keys = || {
        let row: serde_json::Map<String, serde_json::Value> = serde_json::from_str(first.trim()).unwrap_or_default();
        ROW_KEYS.iter().any(|key| row.contains_key(*key))
    };
    let is_lines = ["jsonl", "ndjson"].contains(&ending(path).as_str());
    // A file with one incomplete line still counts as rows. Objects with other keys may belong to program code.
    if !(has_row_keys() && (is_lines || are_rows(text))) {
        return Ok(());
    }
    let remedy = "extract the text: jq -r .text IN > text.txt makes one document; a document for each row: mkdir texts && python3 \
                  -c \
                  \"import json; [open(f'texts/{i:08}.txt', 'w').write(json.loads(row)['text']) for i, row in enumerate(open('IN'))]\", \
                  with path = \"texts\"; rows with prompts are read by data.source = \"jsonl\"";
    Err(refuse(path, "a file of rows, and not running text: its keys and brackets would be learned too", remedy))
}

/// The extension of a file's name in lower case, without `.gz` or `.zst`.
fn ending(path: &Path) -> String {
    let mut name = path.to_owned();
    if name.extension().is_some_and(|ending| ["gz", "zst"].iter().any(|packed| ending.eq_ignore_ascii_case(packed))) {
        name.set_extension("");
    }
    name.extension().unwrap_or_default().to_string_lossy().to_lowercase()
}

/// Whether every line is a JSON object.
fn are_rows(text: &str) -> bool {
    every_line(text, |line| {
        line.starts_with('{') && serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(line).is_ok()
    })
}

/// Whether every line is a JSON object or list, and there are several.
fn are_lists(text: &str) -> bool {
    text.trim().contains('\n') && every_line(text, |line| line.starts_with(['{', '[']) && is_json(line))
}

fn every_line(text: &str, is_fitting: impl Fn(&str) -> bool) -> bool {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty()).peekable();
    lines.peek().is_some() && lines.all(is_fitting)
}

/// Whether the whole text is one JSON object, or one list that contains an object, a list or a string. `[1]` may be
/// a footnote.
fn is_json(text: &str) -> bool {
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(serde_json::Value::Object(_)) => true,
        Ok(serde_json::Value::Array(list)) => {
            list.iter().any(|value| value.is_object() || value.is_array() || value.is_string())
        }
        _ => false,
    }
}

/// Whether the text begins like an HTML page.
pub(in crate::data) fn is_html(text: &str) -> bool {
    let head: String = text.trim_start().chars().take(15).flat_map(char::to_lowercase).collect();
    ["<!doctype html", "<html", "<head>", "<body"].iter().any(|opening| head.starts_with(opening))
}

/// Whether the whole text is TOML with at least one table and one value. Text that is only comments may be
/// headings; only table headers, footnotes; only values, lines of code.
fn is_toml(text: &str) -> bool {
    text.contains('=')
        && text.lines().any(|line| line.starts_with('['))
        && toml::from_str::<toml::Table>(text).is_ok_and(|table| !table.is_empty())
}
