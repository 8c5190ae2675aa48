//! The source `jsonl`: files of rows, one or several sources of them, on both sides of the split.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde_json::Value;

use super::formats::Format;
use super::items::Item;
use super::records::records;
use super::row::{Names, row};
use super::segments;
use crate::data::error::{DataError, Result};
use crate::data::progress;
use crate::data::reading::format::record::Unreadable;
use crate::data::rows::columns::{Columns, Found, NamedBy};
use crate::data::rows::counts::MixedSource;
use crate::data::rows::kind::{ANSWER, MARGIN, RowKind};
use crate::data::rows::read::segments::SEPARATOR;
#[cfg(test)]
use crate::data::rows::row::Row;
use crate::data::rows::split::{Sides, Split};
use crate::data::rows::store::Packed;
use crate::data::rows::store::corpus::RowCorpus;
use crate::data::source::Hashed;
use crate::data::text::{check_disjoint, find_files};
use crate::files;

/// Where rows come from and how they are split.
#[derive(Clone, Debug, PartialEq)]
pub struct RowOptions {
    /// Files, folders or patterns, as written.
    pub paths: Vec<String>,
    /// Weighted sources instead of `paths`; empty if there is one source.
    pub mix: Vec<RowPart>,
    /// Files to evaluate on, in the same forms; if there are any, `split` is not used.
    pub eval_paths: Vec<String>,
    /// How rows are held out.
    pub split: Split,
    /// Columns that have other names in the files.
    pub columns: Columns,
    /// How columns are read; `None`: recognised.
    pub format: Option<Format>,
    /// What follows each segment of a completion that is a list of texts.
    pub separator: String,
    /// Where a command takes names of columns, for messages; `None`: in the tables of an experiment.
    pub named_by: Option<NamedBy>,
}

/// A source of a mixture: see [`RowOptions`].
#[derive(Clone, Debug, PartialEq)]
pub struct RowPart {
    /// Files, folders or patterns, as written.
    pub paths: Vec<String>,
    /// How many of its rows are read in proportion to those of the others.
    pub weight: f64,
    /// Columns that have other names in the files.
    pub columns: Columns,
    /// How columns are read; `None`: recognised.
    pub format: Option<Format>,
}

/// The experiment's table of names of columns.
const COLUMNS: &str = "data.columns";
/// Reading more bytes than these takes long enough to show how far it is.
const LARGE: u64 = 64 << 20;

/// A row that was read, with its format, or `None` if it was left out.
type Read = Option<(Packed, Format)>;

impl RowOptions {
    /// All rows of these files on the training side, in a recognised format, for a command with `--column`.
    pub fn all(paths: Vec<String>, columns: Columns) -> RowOptions {
        RowOptions {
            paths,
            mix: Vec::new(),
            eval_paths: Vec::new(),
            split: Split::Share(0.0),
            columns,
            format: None,
            separator: SEPARATOR.to_owned(),
            named_by: Some(NamedBy::Flag { has_format: false }),
        }
    }

    /// Reads, checks and splits the rows, which must be of this kind.
    ///
    /// # Errors
    /// Those of finding and reading files; a row that is not one of the kind, with its key; files of tables with different columns;
    /// a split that leaves one side empty.
    pub fn read(&self, kind: RowKind) -> Result<RowCorpus> {
        let whole =
            RowPart { paths: self.paths.clone(), weight: 1.0, columns: self.columns.clone(), format: self.format };
        let parts = if self.mix.is_empty() { std::slice::from_ref(&whole) } else { self.mix.as_slice() };
        if let Some(format) = parts.iter().filter_map(|part| part.format).find(|format| !format.gives(kind)) {
            let what = format!(
                "{} has no {} of the kind that the objective learns from; it reads {}",
                self.by(&whole, 0).format(&[format.name()]).unwrap_or_default(),
                kind.noun(),
                format.columns(kind)
            );
            return Err(DataError::Option(what));
        }
        let name = parts.iter().flat_map(|part| part.paths.clone()).collect::<Vec<_>>().join(", ");
        let train = parts.iter().map(|part| hashed(&part.paths)).collect::<Result<Vec<_>>>()?;
        let eval = if self.eval_paths.is_empty() { Vec::new() } else { hashed(&self.eval_paths)? };
        let sources = |files: &[Hashed]| files.iter().map(|file| file.source.clone()).collect::<Vec<_>>();
        check_disjoint(&sources(&train.concat()), &sources(&eval))?;
        check_sources_differ(parts, &train)?;
        let mut sides = Sides::default();
        let mut corpus = RowCorpus { name: name.clone(), kind, ..RowCorpus::default() };
        let split = if eval.is_empty() { Some(&self.split) } else { None };
        let mut found = Vec::new();
        for ((part, files), number) in parts.iter().zip(train).zip(0..) {
            let read = sides.train.len() + sides.held_out.len();
            found.push(self.read_files(part, number, files, &mut corpus, &mut |packed| match split {
                Some(split) => sides.add(packed, split),
                None => sides.train.push(packed),
            })?);
            let is_empty = sides.train.len() + sides.held_out.len() == read;
            if is_empty && (parts.len() > 1 || corpus.sources.is_empty()) {
                return Err(DataError::Empty(part.paths.join(", ")));
            }
        }
        let in_eval = self.read_files(&whole, 0, eval, &mut corpus, &mut |packed| sides.held_out.push(packed))?;
        let mixed = |part: &RowPart| MixedSource { path: part.paths.join(", "), weight: part.weight, rows: 0 };
        corpus.mix = self.mix.iter().map(mixed).collect();
        if let Some(split) = split {
            sides.check(&name, split)?;
        }
        sides.remove_shared_questions(split)?;
        let is_requested = !self.eval_paths.is_empty() || matches!(self.split, Split::Column(_));
        for (side, purpose) in [(&sides.train, "train"), (&sides.held_out, "evaluate")] {
            if side.is_empty() && (purpose == "train" || is_requested) {
                let is_of_command = self.named_by.is_some();
                return Err(DataError::NoRow { what: name, purpose, is_of_command });
            }
        }
        self.check_names(parts, &found, &in_eval)?;
        (corpus.leaks, corpus.train, corpus.held_out) = (sides.leaks, sides.train.into(), sides.held_out.into());
        Ok(corpus)
    }

    /// Checks that every name of a column occurs in the rows that it is for: `found` in each source, `in_eval` in the files to
    /// evaluate on. A misspelt name would otherwise leave its column unread.
    fn check_names(&self, parts: &[RowPart], found: &[Found], in_eval: &Found) -> Result<()> {
        let missing = |paths: &[String], by: NamedBy, key: &str, written: &str| DataError::NoColumn {
            what: paths.join(", "),
            written: written.to_owned(),
            key: by.key(key),
        };
        for ((part, found), number) in parts.iter().zip(found).zip(0..) {
            let is_common = part.columns == self.columns;
            let has = |key: &str| found.has(&part.columns, key) || (is_common && in_eval.has(&self.columns, key));
            if let Some((key, written)) = part.columns.iter().find(|(key, _)| !has(key)) {
                return Err(missing(&part.paths, self.by(part, number), key, written));
            }
        }
        if self.eval_paths.is_empty() {
            return Ok(());
        }
        // Rows can be evaluated without a column that not every row has.
        let is_additional = |key: &str| {
            let mut common = parts.iter().zip(found).filter(|(part, _)| part.columns == self.columns);
            [ANSWER, MARGIN, "input", "system"].contains(&key)
                && common.any(|(part, found)| found.has(&part.columns, key))
        };
        let has = |key: &str| in_eval.has(&self.columns, key) || is_additional(key);
        match self.columns.iter().find(|(key, _)| !has(key)) {
            Some((key, written)) => Err(missing(&self.eval_paths, NamedBy::Table(COLUMNS.to_owned()), key, written)),
            None => Ok(()),
        }
    }

    /// Where the columns of this source are named.
    fn by(&self, part: &RowPart, number: u16) -> NamedBy {
        self.named_by.clone().unwrap_or_else(|| {
            let is_common = part.columns == self.columns;
            NamedBy::Table(if is_common { COLUMNS.to_owned() } else { format!("data.mix.{number}.columns") })
        })
    }

    /// Hands on the rows of files in order, and adds what was read to `corpus`. Returns which names of columns the rows have.
    fn read_files(
        &self,
        part: &RowPart,
        number: u16,
        files: Vec<Hashed>,
        corpus: &mut RowCorpus,
        take: &mut dyn FnMut(&Packed) -> Result<()>,
    ) -> Result<Found> {
        let (kind, found, by) = (corpus.kind, Found::none(&part.columns), self.by(part, number));
        let mut table: Option<(PathBuf, Vec<String>)> = None;
        // Small files are read before a bar could be seen.
        let is_large = files.iter().map(|file| file.source.bytes).sum::<u64>() > LARGE;
        let bar = is_large.then(|| progress::bar("rows read", None));
        for hashed in files {
            let source = &hashed.source;
            let mut take = |items: Vec<Item>| {
                bar.iter().for_each(|bar| bar.inc(items.len() as u64));
                let pack = |item| self.pack(item, kind, part, &by, &found);
                let read: Vec<Result<Read>> = items.into_par_iter().map(pack).collect();
                for read in read {
                    match read? {
                        Some((packed, format)) => {
                            *corpus.formats.entry(format).or_default() += 1;
                            take(&packed.from_source(number))?;
                        }
                        None => corpus.same_score += 1,
                    }
                }
                Ok(())
            };
            let contents = hashed.read(|file| records(&source.path, file, &part.columns, &mut take))?;
            if let Some(columns) = contents.columns {
                match &table {
                    Some((first, known)) => check_columns(first, known, &source.path, &columns)?,
                    None => table = Some((source.path.clone(), columns)),
                }
            }
            if !contents.is_empty {
                corpus.sources.push(hashed.source);
            }
        }
        bar.iter().for_each(|bar| bar.finish_and_clear());
        Ok(found)
    }

    fn pack(&self, item: Item, kind: RowKind, part: &RowPart, by: &NamedBy, found: &Found) -> Result<Read> {
        let names = Names { columns: &part.columns, by };
        let Some((mut row, format)) = row(item, kind, names, found, part.format)? else { return Ok(None) };
        segments::separate(&mut row, &self.separator)?;
        Ok(Some((Packed::of(row)?, format)))
    }
}

/// Hands on every row of files as it is written, in order, and its values that have no JSON. `columns`: as in [`RowOptions`].
///
/// # Errors
/// Those of finding and reading files.
pub fn raw_rows(paths: &[String], columns: &Columns, take: &mut dyn FnMut(Value, &[Unreadable])) -> Result<()> {
    for path in find_files(paths, true)? {
        let file = files::open(&path).map_err(DataError::io("read", &path))?;
        records(&path, file, columns, &mut |items| {
            items.into_iter().for_each(|item| take(item.value, &item.unreadable));
            Ok(())
        })?;
    }
    Ok(())
}

/// The files that `paths` name, with their hashes.
fn hashed(paths: &[String]) -> Result<Vec<Hashed>> {
    find_files(paths, true)?.into_iter().map(Hashed::of_file).collect()
}

/// Checks that no rows are in two sources of a mixture, whose weights would then not be those of their rows. Of one file, two sources
/// may read different columns, or the formats that both name.
fn check_sources_differ(parts: &[RowPart], sources: &[Vec<Hashed>]) -> Result<()> {
    type Names<'a> = Vec<(&'a String, &'a String)>;
    let mut known: BTreeMap<(&str, Names<'_>), Vec<(usize, &Path)>> = BTreeMap::new();
    for (number, (part, files)) in parts.iter().zip(sources).enumerate() {
        for Hashed { source, .. } in files.iter().filter(|file| file.source.bytes > 0) {
            // A column that keeps its name is read as without the name.
            let names = part.columns.iter().filter(|(key, written)| key != written).collect();
            let same = known.entry((&source.sha256, names)).or_default();
            let may_be_same = |other: usize| {
                part.format.zip(parts.get(other).and_then(|part| part.format)).is_none_or(|(own, other)| own == other)
            };
            if let Some((first, path)) = same.iter().find(|(first, _)| *first != number && may_be_same(*first)) {
                return Err(DataError::Unusable {
                    path: source.path.clone(),
                    what: format!(
                        "is in two sources: data.mix.{number} has it, and data.mix.{first} has the same bytes ({})",
                        path.display()
                    ),
                    remedy: "name it in one source, and give that one more weight; if they read it in different formats, give \
                             both their format"
                        .into(),
                    source: None,
                });
            }
            same.push((number, &source.path));
        }
    }
    Ok(())
}

/// Checks that two files of tables have the same columns, in any order.
fn check_columns(first: &Path, known: &[String], path: &Path, columns: &[String]) -> Result<()> {
    let other = |own: &[String], than: &[String]| own.iter().find(|name| !than.contains(name)).cloned();
    let (has, with, without) = match (other(columns, known), other(known, columns)) {
        (Some(has), _) => (has, path, first),
        (None, Some(has)) => (has, first, path),
        (None, None) => return Ok(()),
    };
    Err(DataError::Unusable {
        path: with.to_owned(),
        what: format!("has a column \"{has}\", and {} has none", without.display()),
        remedy: "files of one data set have the same columns: name only those that belong together in data.path, or give the \
                 column to every file"
            .to_owned(),
        source: None,
    })
}

/// Returns the rows of a file with this content, segments of a completion still without separators: one object per line, a list of
/// objects, objects that span several lines, or any other format that is read.
///
/// # Errors
/// The first line that is not a row of this kind.
#[cfg(test)]
pub fn parse(path: &Path, text: &str, kind: RowKind, columns: &Columns) -> Result<Vec<Row>> {
    parse_bytes(path, text.as_bytes(), kind, columns, None).map(|(rows, _)| rows)
}

/// As [`parse`], with the rows' formats.
#[cfg(test)]
pub fn parse_bytes(
    path: &Path,
    bytes: &[u8],
    kind: RowKind,
    columns: &Columns,
    format: Option<Format>,
) -> Result<(Vec<Row>, Vec<Format>)> {
    use std::io::{Seek, Write};
    let mut file = tempfile::tempfile().map_err(DataError::io("write", path))?;
    file.write_all(bytes).and_then(|()| file.rewind()).map_err(DataError::io("write", path))?;
    let (mut read, found, by) = (Vec::new(), Found::none(columns), NamedBy::Table(COLUMNS.to_owned()));
    records(path, file, columns, &mut |items| {
        for item in items {
            read.extend(row(item, kind, Names { columns, by: &by }, &found, format)?);
        }
        Ok(())
    })?;
    Ok(read.into_iter().unzip())
}
