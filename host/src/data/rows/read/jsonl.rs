//! The source `jsonl`: files of rows. Checks a row's keys and turns them into parts and columns.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde_json::{Map, Value};

use super::formats::{self, Converted, Format};
use super::items::Item;
use super::messages::{is_message, message};
use super::records::records;
use super::refusal::{refuse, what};
use super::{pair, segments, shapes};
use crate::data::error::{DataError, Result};
use crate::data::place::Place;
use crate::data::progress;
use crate::data::reading::format::refusal::from_to;
use crate::data::rows::columns::Columns;
use crate::data::rows::counts::MixedSource;
use crate::data::rows::kind::{ANSWER, LABEL, MARGIN, Part, RowKind};
use crate::data::rows::message::{ASSISTANT, Message, role};
use crate::data::rows::read::segments::SEPARATOR;
use crate::data::rows::row::{Content, Row};
use crate::data::rows::split::{Sides, Split};
use crate::data::rows::store::Packed;
use crate::data::rows::store::corpus::RowCorpus;
use crate::data::rows::text::number;
use crate::data::source::Source;
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

/// Reading more bytes than these takes long enough to show how far it is.
const LARGE: u64 = 64 << 20;

/// A row that was read, with its format, or `None` if it was left out.
type Read = Option<(Packed, Format)>;

impl RowOptions {
    /// All rows of these files on the training side, in a recognised format.
    pub fn all(paths: Vec<String>, columns: Columns) -> RowOptions {
        RowOptions {
            paths,
            mix: Vec::new(),
            eval_paths: Vec::new(),
            split: Split::Share(0.0),
            columns,
            format: None,
            separator: SEPARATOR.to_owned(),
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
                "data.format = \"{}\" has no {} of the kind that the objective learns from; it reads {}",
                format.name(),
                kind.noun(),
                format.columns(kind)
            );
            return Err(DataError::Option(what));
        }
        let name = parts.iter().flat_map(|part| part.paths.clone()).collect::<Vec<_>>().join(", ");
        let train = parts.iter().map(|part| sources(&part.paths)).collect::<Result<Vec<_>>>()?;
        let eval = if self.eval_paths.is_empty() { Vec::new() } else { sources(&self.eval_paths)? };
        check_disjoint(&train.concat(), &eval)?;
        let mut sides = Sides::default();
        let mut corpus = RowCorpus { name: name.clone(), kind, ..RowCorpus::default() };
        let split = if eval.is_empty() { Some(&self.split) } else { None };
        for ((part, files), number) in parts.iter().zip(train).zip(0..) {
            let read = sides.train.len() + sides.held_out.len();
            self.read_files(part, number, files, &mut corpus, &mut |packed| match split {
                Some(split) => sides.add(packed, split),
                None => sides.train.push(packed),
            })?;
            let is_empty = sides.train.len() + sides.held_out.len() == read;
            if is_empty && (parts.len() > 1 || corpus.sources.is_empty()) {
                return Err(DataError::Empty(part.paths.join(", ")));
            }
        }
        self.read_files(&whole, 0, eval, &mut corpus, &mut |packed| sides.held_out.push(packed))?;
        let mixed = |part: &RowPart| MixedSource { path: part.paths.join(", "), weight: part.weight, rows: 0 };
        corpus.mix = self.mix.iter().map(mixed).collect();
        if let Some(split) = split {
            sides.check(&name, split)?;
        }
        sides.remove_shared_questions(split)?;
        let is_requested = !self.eval_paths.is_empty() || matches!(self.split, Split::Column(_));
        for (side, purpose) in [(&sides.train, "train"), (&sides.held_out, "evaluate")] {
            if side.is_empty() && (purpose == "train" || is_requested) {
                return Err(DataError::NoRow { what: name, purpose });
            }
        }
        let has = |key: &str| {
            let of_formats = corpus.formats.keys().any(|format| format.reads(key));
            of_formats || sides.train.survey().has(key) || sides.held_out.survey().has(key)
        };
        let named = parts.iter().flat_map(|part| &part.columns);
        if let Some((key, written)) = named.into_iter().find(|(key, _)| !has(key)) {
            return Err(DataError::NoColumn { what: name, written: written.clone(), key: key.clone() });
        }
        (corpus.leaks, corpus.train, corpus.held_out) = (sides.leaks, sides.train.into(), sides.held_out.into());
        Ok(corpus)
    }

    /// Hands on the rows of files in order, and adds what was read to `corpus`.
    fn read_files(
        &self,
        part: &RowPart,
        number: u16,
        sources: Vec<Source>,
        corpus: &mut RowCorpus,
        take: &mut dyn FnMut(&Packed) -> Result<()>,
    ) -> Result<()> {
        let kind = corpus.kind;
        let mut table: Option<(PathBuf, Vec<String>)> = None;
        // Small files are read before a bar could be seen.
        let is_large = sources.iter().map(|source| source.bytes).sum::<u64>() > LARGE;
        let bar = is_large.then(|| progress::bar("rows read", None));
        for source in sources {
            let file = files::open(&source.path).map_err(DataError::io("read", &source.path))?;
            let contents = records(&source.path, file, &part.columns, &mut |items| {
                bar.iter().for_each(|bar| bar.inc(items.len() as u64));
                let read: Vec<Result<Read>> = items.into_par_iter().map(|item| self.pack(item, kind, part)).collect();
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
            })?;
            if let Some(columns) = contents.columns {
                match &table {
                    Some((first, known)) => check_columns(first, known, &source.path, &columns)?,
                    None => table = Some((source.path.clone(), columns)),
                }
            }
            if !contents.is_empty {
                corpus.sources.push(source);
            }
        }
        bar.iter().for_each(|bar| bar.finish_and_clear());
        Ok(())
    }

    fn pack(&self, item: Item, kind: RowKind, part: &RowPart) -> Result<Read> {
        let Some((mut row, format)) = row(item, kind, &part.columns, part.format)? else { return Ok(None) };
        segments::separate(&mut row, &self.separator)?;
        Ok(Some((Packed::of(row)?, format)))
    }
}

/// Hands on every row of files as it is written, in order. `columns`: as in [`RowOptions`].
///
/// # Errors
/// Those of finding and reading files.
pub fn raw_rows(paths: &[String], columns: &Columns, take: &mut dyn FnMut(Value)) -> Result<()> {
    for path in find_files(paths, true)? {
        let file = files::open(&path).map_err(DataError::io("read", &path))?;
        records(&path, file, columns, &mut |items| {
            items.into_iter().for_each(|item| take(item.value));
            Ok(())
        })?;
    }
    Ok(())
}

/// The files that `paths` name, with their hashes.
fn sources(paths: &[String]) -> Result<Vec<Source>> {
    find_files(paths, true)?.into_iter().map(Source::of_file).collect()
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
    let mut read = Vec::new();
    records(path, file, columns, &mut |items| {
        for item in items {
            read.extend(row(item, kind, columns, format)?);
        }
        Ok(())
    })?;
    Ok(read.into_iter().unzip())
}

/// Returns a row and its format; `None` if it is left out because all its answers have the same score.
fn row(
    Item { place, value }: Item,
    kind: RowKind,
    names: &Columns,
    format: Option<Format>,
) -> Result<Option<(Row, Format)>> {
    let Value::Object(mut columns) = value else {
        return Err(refuse(&place, "", format!("expected an object with the row's keys, found {}", what(&value))));
    };
    let written = outline(&columns);
    rename(&mut columns, names);
    name_conversation(&mut columns, kind, format);
    // A key with the value null counts as missing, because exporters of tables write it that way.
    let has =
        |columns: &Map<String, Value>, part: &Part| columns.get(part.name()).is_some_and(|value| !value.is_null());
    let shapes = formats::shapes(format, kind);
    let is_own = |columns: &Map<String, Value>| {
        let stepwise =
            kind == RowKind::PromptCompletion && has(columns, &Part::Prompt) && columns.contains_key("completions");
        // Answers that are strings begin with their prompt only if they repeat the question.
        let asked = ["question", "instruction"].iter().find_map(|name| columns.get(*name)?.as_str());
        let answer = columns.get(Part::Chosen.name()).and_then(Value::as_str).filter(|_| !has(columns, &Part::Prompt));
        if let (RowKind::Preference, Some(asked), Some(answer)) = (kind, asked, answer)
            && !answer.contains(asked.trim())
        {
            return false;
        }
        stepwise || shapes.iter().any(|shape| shape.iter().all(|part| has(columns, part)))
    };
    let converted = formats::convert(&mut columns, kind, format, is_own).map_err(|what| refuse(&place, "", what))?;
    if matches!(converted, Converted::SameScore) {
        return Ok(None);
    }
    let segments = segments::take(&place, &mut columns, kind)?;
    let Some(shape) = shapes.iter().find(|shape| shape.iter().all(|part| has(&columns, part))) else {
        return Err(no_shape(&place, &written, kind, shapes, names));
    };
    let format = match converted {
        Converted::As(format) => format,
        _ => Format::of_parts(&columns, shape, kind, !segments.is_empty()),
    };
    let mut parts = BTreeMap::new();
    for part in *shape {
        let value = columns.shift_remove(part.name()).unwrap_or_default();
        parts.insert(*part, content(&place, *part, value)?);
    }
    let separated = match kind {
        RowKind::Preference => pair::separate_prompt(&mut parts),
        RowKind::Unpaired | RowKind::PromptCompletion => pair::remove_prompt(&mut parts, Part::Completion),
        RowKind::Prompt => Ok(()),
    };
    separated.map_err(|what| refuse(&place, "", what))?;
    match kind {
        RowKind::Preference => check_margin(columns.get(MARGIN)).map_err(|what| refuse(&place, MARGIN, what))?,
        RowKind::Prompt => {
            check_open(&parts).map_err(|what| refuse(&place, Part::Prompt.name(), what))?;
            normalize_answer(&mut columns);
            check_answer(columns.get(ANSWER)).map_err(|what| refuse(&place, ANSWER, what))?;
        }
        RowKind::Unpaired => check_label(columns.get(LABEL)).map_err(|what| refuse(&place, LABEL, what))?,
        RowKind::PromptCompletion => {}
    }
    Ok(Some((Row { place, parts, columns, segments }, format)))
}

/// The names of a row's columns, with the type of each value, for messages.
fn outline(columns: &Map<String, Value>) -> Map<String, Value> {
    let shallow = |value: &Value| match value {
        Value::String(_) => "".into(),
        Value::Array(list) if list.iter().any(Value::is_object) => vec![Value::Object(Map::new())].into(),
        Value::Array(_) => Value::Array(Vec::new()),
        Value::Object(_) => Value::Object(Map::new()),
        other => other.clone(),
    };
    columns.iter().map(|(name, value)| (name.clone(), shallow(value))).collect()
}

/// Keys that hold a conversation in data sets of ShareGPT's shape and in others.
const CONVERSATIONS: [&str; 2] = ["conversations", "conversation"];

/// Renames a list of messages that another tool calls a conversation to the row's `messages`, or to the prompt of
/// its answers, if the row has none.
fn name_conversation(columns: &mut Map<String, Value>, kind: RowKind, format: Option<Format>) {
    let there = |name: &str| columns.get(name).is_some_and(|value| !value.is_null());
    let is_wanted = format == Some(Format::ShareGpt);
    let part = match kind {
        RowKind::PromptCompletion if is_wanted => Part::Messages,
        RowKind::PromptCompletion if !there("prompt") || !there("completion") => Part::Messages,
        RowKind::PromptCompletion => return,
        RowKind::Preference | RowKind::Prompt | RowKind::Unpaired => Part::Prompt,
    };
    let is_list = |value: &Value| value.as_array().is_some_and(|list| list.iter().any(Value::is_object));
    let found = CONVERSATIONS.iter().find(|name| columns.get(**name).is_some_and(is_list));
    if let Some(name) = found.filter(|_| is_wanted || !there(part.name())) {
        let value = columns.shift_remove(*name).unwrap_or_default();
        columns.shift_remove(part.name());
        columns.insert(part.name().to_owned(), value);
    }
}

/// Renames all at once, so that two columns can swap names.
fn rename(columns: &mut Map<String, Value>, names: &Columns) {
    let found: Vec<Option<Value>> = names.values().map(|written| columns.shift_remove(written)).collect();
    for (name, value) in names.keys().zip(found) {
        columns.shift_remove(name);
        columns.extend(value.map(|value| (name.clone(), value)));
    }
}

fn check_open(parts: &BTreeMap<Part, Content>) -> Result<(), String> {
    match parts.get(&Part::Prompt) {
        Some(Content::Messages(messages)) if messages.last().is_some_and(|last| role(last) == ASSISTANT) => {
            Err(format!("ends with the role \"{ASSISTANT}\": a prompt ends before the answer"))
        }
        _ => Ok(()),
    }
}

fn check_margin(margin: Option<&Value>) -> Result<(), String> {
    match margin {
        None | Some(Value::Null) => Ok(()),
        Some(value) if value.is_number() && number(value).is_some() => Ok(()),
        Some(other) => Err(format!("expected a number, found {other}")),
    }
}

/// Turns SQuAD's answers, `{"text": [...], "answer_start": [...]}`, into the list of their texts; the positions are
/// not used.
fn normalize_answer(columns: &mut Map<String, Value>) {
    if let Some(answer) = columns.get_mut(ANSWER)
        && let Value::Object(object) = &*answer
        && object.keys().all(|key| key == "text" || key == "answer_start")
        && let Some(texts) = object.get("text").filter(|texts| texts.is_array() || texts.is_string()).cloned()
    {
        *answer = texts;
    }
}

/// Checks that a right answer is a string or a number, or a list of several right answers.
fn check_answer(answer: Option<&Value>) -> Result<(), String> {
    let wanted = "a right answer is a string or a number, or a list of several, of which any counts; give other values another \
                  key, or write them as strings";
    match answer {
        Some(Value::Bool(truth)) => {
            Err(format!("expected a right answer, found {truth}: write the word that the model should answer, such as \"{truth}\" \
                         or \"yes\"; give other values another key"))
        }
        Some(Value::String(text)) if is_list_of_texts(text) => Err(
            "a list within a string; write several right answers as a list: jq -c '.answer |= fromjson' converts it (Python's \
             notation: ast.literal_eval and json.dumps); if the brackets are part of a single answer, put the string into a list: \
             jq -c '.answer |= [.]'; give other values another key"
                .to_owned(),
        ),
        Some(Value::Array(list)) if list.is_empty() => {
            Err("an empty list, so that no answer would be right; remove the row, or give [\"\"] if the right answer is \
                 empty".into())
        }
        Some(Value::Array(list)) => {
            let other = list.iter().enumerate().find(|(_, value)| !value.is_string() && !value.is_number());
            other.map_or(Ok(()), |(index, value)| Err(format!("{} at place {index} of the list; {wanted}", what(value))))
        }
        Some(value @ Value::Object(_)) => Err(format!("{}; {wanted}", what(value))),
        _ => Ok(()),
    }
}

/// Whether a string is a list of strings in JSON or Python notation.
fn is_list_of_texts(text: &str) -> bool {
    let text = text.trim();
    let is_python = text.starts_with("['") && text.ends_with("']");
    is_python
        || text.starts_with('[')
            && serde_json::from_str::<Vec<Value>>(text).is_ok_and(|list| list.iter().any(Value::is_string))
}

fn check_label(label: Option<&Value>) -> Result<(), String> {
    match label {
        Some(label) if number(label).is_some_and(|number| number == 0.0 || number == 1.0) => Ok(()),
        Some(label) => Err(format!("expected true, false, 1 or 0, found {label}")),
        None => Err("missing; expected true, false, 1 or 0: whether the answer is desirable".into()),
    }
}

fn no_shape(
    place: &Place,
    columns: &Map<String, Value>,
    kind: RowKind,
    shapes: &[&[Part]],
    names: &Columns,
) -> DataError {
    let part = |part: &Part| match names.get(part.name()) {
        Some(written) => format!("`{written}` (data.columns.{})", part.name()),
        None => format!("`{}`", part.name()),
    };
    let wanted: Vec<String> =
        shapes.iter().map(|shape| shape.iter().map(part).collect::<Vec<_>>().join(" and ")).collect();
    let there = columns.iter().filter(|(_, value)| !value.is_null()).map(|(name, _)| format!("`{name}`"));
    let there: Vec<String> = there.collect();
    let names_of_parts = || shapes.iter().flat_map(|shape| shape.iter()).map(|part| part.name());
    let written = |name: &str| names.get(name).cloned().unwrap_or_else(|| name.to_owned());
    let nulls: BTreeSet<String> =
        names_of_parts().map(written).filter(|name| columns.get(name).is_some_and(Value::is_null)).collect();
    let nulls: String = nulls
        .iter()
        .map(|name| {
            format!(
                "; `{name}` is null, which counts as missing: give it a value, \"\" for an empty one, or remove the row"
            )
        })
        .collect();
    let remedy = if names.is_empty() { shapes::remedy(columns, kind) } else { String::new() };
    let remedy = nulls + &remedy;
    let remedy = remedy.replace("IN > OUT", &from_to(Path::new(&*place.file)));
    refuse(place, "", format!("needs {}; it has {}{remedy}", wanted.join(", or "), there.join(", ")))
}

fn content(place: &Place, part: Part, value: Value) -> Result<Content> {
    let key = part.name();
    match value {
        Value::String(text) if part != Part::Messages => Ok(Content::Text(text)),
        Value::Array(list) => {
            let messages: Vec<Message> = list
                .into_iter()
                .enumerate()
                .map(|(i, value)| message(place, &format!("{key}[{i}]"), value))
                .collect::<Result<_>>()?;
            let answers = messages.iter().any(|message| role(message) == ASSISTANT);
            if messages.is_empty() {
                return Err(refuse(place, key, "no message in the list".into()));
            }
            if part != Part::Prompt && !answers {
                let roles: Vec<String> = messages.iter().map(|message| format!("\"{}\"", role(message))).collect();
                let what = format!(
                    "no message has the role \"{ASSISTANT}\": there is nothing to learn; the roles are {}",
                    roles.join(", ")
                );
                return Err(refuse(place, key, what));
            }
            Ok(Content::Messages(messages))
        }
        // One message of a conversation: some preference data sets store each answer in this form.
        Value::Object(_) if part != Part::Messages && is_message(&value) => {
            content(place, part, Value::Array(vec![value]))
        }
        other if part == Part::Messages => {
            Err(refuse(place, key, format!("expected a list of messages, found {}", what(&other))))
        }
        other => Err(refuse(place, key, format!("expected a string or a list of messages, found {}", what(&other)))),
    }
}
