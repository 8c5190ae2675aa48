//! Reads the rows of a file of any format, some at a time, so that files may be larger than memory.
//!
//! | content | read | by |
//! |---|---|---|
//! | JSON lines | in blocks of lines, each parsed in parallel | [`super::items`] |
//! | a list of JSON, or objects that span several lines | whole | [`super::items`] |
//! | CSV, TSV, Parquet, Arrow | in blocks of rows | [`crate::data::reading::format`] |
//!
//! gzip and Zstandard are unpacked while reading, except around Parquet and Arrow files, which are not read from front to back.

use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;
use serde_json::Value;

use super::items::{Item, items, items_of_lines, other_notation, spans_lines};
use crate::data::error::{DataError, Result};
use crate::data::place::Place;
use crate::data::reading::format::limit::{most_unpacked, too_large_whole};
use crate::data::reading::format::packed::Packing;
use crate::data::reading::format::record::Record;
use crate::data::reading::format::refusal::refuse;
use crate::data::reading::format::table::{self, Cells};
use crate::data::reading::format::{arrow, check_head, is_utf16, parquet, utf8, utf16};
use crate::data::rows::columns::Columns;
use crate::data::rows::kind::CHOICES;

/// About this much text is parsed at once.
const BLOCK_BYTES: usize = 1 << 22;
/// About this much of it by one thread at a time.
const PART_BYTES: usize = 1 << 17;
/// As many bytes as decide the format.
const HEAD: usize = 1 << 12;

/// Columns of tables whose cells are text, under the names that they have here.
const TEXTS: [&str; 14] = [
    "prompt",
    "completion",
    "chosen",
    "rejected",
    "answer",
    "text",
    "instruction",
    "input",
    "output",
    "question",
    "response",
    "system",
    "system_prompt",
    "messages",
];

/// What a file of rows is, besides its rows.
#[derive(Debug, Default)]
pub struct Contents {
    /// The names of its columns, if the format declares them.
    pub columns: Option<Vec<String>>,
    /// Whether it has no content at all.
    pub is_empty: bool,
}

type Take<'a> = dyn FnMut(Vec<Item>) -> Result<()> + 'a;

/// Hands on the rows of a file in order, some at a time. `names` are the experiment's names of columns.
///
/// # Errors
/// A file of a format that is not read, with the command that converts it; a damaged file, with the place; errors of `take`.
pub fn records(path: &Path, file: File, names: &Columns, take: &mut Take<'_>) -> Result<Contents> {
    let head = head_of(&file).map_err(DataError::io("read", path))?;
    let Some(packing) = Packing::of(&head) else {
        return Reader { path, packing: None, names, take }.content(&head, Bytes::File(file));
    };
    packing.check_window(path, &head)?;
    let mut bytes = packing.unpacked(path, file)?;
    let mut head = Vec::new();
    bytes.by_ref().take(HEAD as u64).read_to_end(&mut head).map_err(|error| packing.damaged(path, &error))?;
    packing.refuse_nested(path, &head)?;
    let whole = Cursor::new(head.clone()).chain(bytes);
    Reader { path, packing: Some(packing), names, take }.content(&head, Bytes::Unpacked(Box::new(whole)))
}

fn head_of(mut file: &File) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::new();
    file.take(HEAD as u64).read_to_end(&mut head)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(head)
}

enum Bytes<'a> {
    File(File),
    Unpacked(Box<dyn Read + 'a>),
}

struct Reader<'a, 'b> {
    path: &'a Path,
    packing: Option<Packing>,
    names: &'a Columns,
    take: &'a mut Take<'b>,
}

impl Reader<'_, '_> {
    fn content(mut self, head: &[u8], bytes: Bytes<'_>) -> Result<Contents> {
        let path = self.path;
        let file: Arc<str> = path.display().to_string().into();
        let mut before = 0;
        let rows = |columns| Ok(Contents { columns: Some(columns), is_empty: false });
        if head.starts_with(arrow::STREAM) {
            let mut take = |rows| (self.take)(numbered(&file, &mut before, rows));
            return match bytes {
                Bytes::File(bytes) => arrow::stream(path, bytes, &mut take),
                Bytes::Unpacked(bytes) => arrow::stream(path, bytes, &mut take),
            }
            .and_then(rows);
        }
        let is_parquet = head.starts_with(parquet::MAGIC);
        if is_parquet || head.starts_with(arrow::FILE) {
            let mut take = |rows| (self.take)(numbered(&file, &mut before, rows));
            return match (bytes, self.packing) {
                (Bytes::File(file), _) if is_parquet => parquet::rows(path, file, &mut take).and_then(rows),
                (Bytes::File(file), _) => arrow::file(path, file, &mut take).and_then(rows),
                (Bytes::Unpacked(_), packing) => {
                    let (name, unpack, _) = packing.unwrap_or(Packing::Gzip).names();
                    let inner = if is_parquet { "a Parquet file" } else { "an Arrow file" };
                    let what = format!("{inner} within {name}, which is not read from front to back");
                    Err(refuse(path, &what, &format!("unpack it: {unpack}")))
                }
            };
        }
        check_head(path, head)?;
        let bytes: Box<dyn Read + '_> = match bytes {
            Bytes::File(file) => Box::new(file),
            Bytes::Unpacked(bytes) => bytes,
        };
        let mut blocks =
            Blocks { path, packing: self.packing, bytes, rest: Vec::new(), read: 0, lines: 0, ended: false };
        if is_utf16(head) {
            let bytes = blocks.whole(Vec::new())?;
            let text = utf16(path, &bytes).unwrap_or_else(|| Ok(String::new()))?;
            return self.whole(&text);
        }
        let Some(first) = blocks.next()? else { return Ok(Contents { columns: None, is_empty: true }) };
        if let Some(separator) = table::separator(path, &first) {
            return self.table(separator, first, blocks);
        }
        if let Some((what, remedy)) = other_notation(&first) {
            return Err(refuse(path, what, remedy));
        }
        if spans_lines(&first) {
            let bytes = blocks.whole(first.into_bytes())?;
            return self.whole(&utf8(path, bytes, 0, 0)?);
        }
        let mut block = Some(first);
        while let Some(text) = block {
            (self.take)(parsed(&file, &text, before, self.names)?)?;
            before = blocks.lines;
            block = blocks.next()?;
        }
        Ok(Contents::default())
    }

    fn whole(&mut self, text: &str) -> Result<Contents> {
        if let Some((what, remedy)) = other_notation(text) {
            return Err(refuse(self.path, what, remedy));
        }
        if let Some(separator) = table::separator(self.path, text) {
            let named = if separator == '\t' { "tabs" } else { "commas" };
            let what = format!("a table in UTF-16, separated by {named}");
            let name = if separator == '\t' { "converted.tsv" } else { "converted.csv" };
            return Err(refuse(self.path, &what, &format!("convert it: iconv -f UTF-16 -t UTF-8 IN > {name}")));
        }
        (self.take)(items(self.path, text, self.names)?)?;
        Ok(Contents { columns: None, is_empty: text.is_empty() })
    }

    fn table(&mut self, separator: char, first: String, blocks: Blocks<'_>) -> Result<Contents> {
        let file: Arc<str> = self.path.display().to_string().into();
        let cells_of = |column: &str| {
            let renamed = self.names.iter().find(|(_, name)| *name == column);
            match renamed.map_or(column, |(key, _)| key.as_str()) {
                CHOICES => Cells::List,
                key if TEXTS.contains(&key) => Cells::Text,
                _ => Cells::Any,
            }
        };
        let has_carriage_returns = first.split_once('\n').is_some_and(|(line, _)| line.ends_with('\r'));
        let bytes = Cursor::new(first.into_bytes()).chain(Cursor::new(blocks.rest)).chain(blocks.bytes);
        let take = &mut self.take;
        let mut take = |rows: Vec<table::Row>| {
            let item = |(line, value)| Item::of(Place { file: file.clone(), line }, value);
            take(rows.into_iter().map(item).collect())
        };
        let columns = table::rows(self.path, bytes, separator, has_carriage_returns, cells_of, &mut take)?;
        Ok(Contents { columns: Some(columns), is_empty: false })
    }
}

/// Rows with their numbers in the file, of which `before` precede.
fn numbered(file: &Arc<str>, before: &mut usize, rows: Vec<Record>) -> Vec<Item> {
    let place = |line| Place { file: file.clone(), line };
    let item =
        |(Record { columns, unreadable }, line)| Item { place: place(line), value: Value::Object(columns), unreadable };
    let items: Vec<Item> = rows.into_iter().zip(*before + 1..).map(item).collect();
    *before += items.len();
    items
}

/// The values in whole lines, parsed in parallel; the first error in the order of the lines.
fn parsed(file: &Arc<str>, text: &str, before: usize, names: &Columns) -> Result<Vec<Item>> {
    let (mut parts, mut rest, mut lines) = (Vec::new(), text, before);
    while !rest.is_empty() {
        let from = rest.floor_char_boundary(PART_BYTES);
        let end = rest.get(from..).and_then(|after| after.find('\n')).map_or(rest.len(), |at| from + at + 1);
        let (part, after) = rest.split_at(end);
        parts.push((part, lines));
        lines += part.bytes().filter(|byte| *byte == b'\n').count();
        rest = after;
    }
    let parsed: Vec<Result<Vec<Item>>> =
        parts.into_par_iter().map(|(part, before)| items_of_lines(file, part, before, names)).collect();
    Ok(parsed.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// Whole lines of UTF-8 text, about [`BLOCK_BYTES`] at a time.
struct Blocks<'a> {
    path: &'a Path,
    packing: Option<Packing>,
    bytes: Box<dyn Read + 'a>,
    /// The beginning of the next line.
    rest: Vec<u8>,
    /// Bytes in the blocks returned.
    read: usize,
    /// Line ends in the blocks returned.
    lines: usize,
    ended: bool,
}

impl Blocks<'_> {
    /// The next lines; `None` at the end.
    fn next(&mut self) -> Result<Option<String>> {
        let (mut block, most) = (std::mem::take(&mut self.rest), most_unpacked());
        let mut searched = 0;
        while !self.ended {
            self.fill(&mut block, BLOCK_BYTES as u64)?;
            if let Some(at) = block.get(searched..).and_then(|new| new.iter().rposition(|byte| *byte == b'\n')) {
                self.rest = block.split_off(searched + at + 1);
                break;
            }
            searched = block.len();
            if block.len() as u64 > most {
                let what = format!("a file whose line {} has a length", self.lines + 1);
                return Err(too_large_whole(self.path, &what, most, "write one row per line"));
            }
        }
        if block.is_empty() {
            return Ok(None);
        }
        let (bytes, lines) = (block.len(), block.iter().filter(|byte| **byte == b'\n').count());
        let text = utf8(self.path, block, self.read, self.lines)?;
        self.read += bytes;
        self.lines += lines;
        Ok(Some(text))
    }

    /// `first` and all that follows.
    fn whole(mut self, mut first: Vec<u8>) -> Result<Vec<u8>> {
        let most = most_unpacked();
        first.append(&mut self.rest);
        while !self.ended {
            self.fill(&mut first, BLOCK_BYTES as u64)?;
            if first.len() as u64 > most {
                let remedy = "convert it to JSON lines, which are read piece by piece: jq -c '.[]' IN > OUT";
                return Err(too_large_whole(self.path, "a file that is read whole,", most, remedy));
            }
        }
        Ok(first)
    }

    fn fill(&mut self, block: &mut Vec<u8>, most: u64) -> Result<()> {
        let read = self.bytes.by_ref().take(most).read_to_end(block).map_err(|error| match self.packing {
            Some(packing) => packing.damaged(self.path, &error),
            None => DataError::io("read", self.path)(error),
        })?;
        self.ended = (read as u64) < most;
        Ok(())
    }
}
