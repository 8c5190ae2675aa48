//! The source `synthetic`: running text or rows of the quickstart world. The world itself is the crate `telos_world`.

use std::ops::Bound::Included;
use std::path::PathBuf;
use std::sync::Arc;

use plugin_api::manifest::DataKind;
use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use telos_world::{Segments, Split, Task, World, right_answer};

use super::data_source::{DataSource, comes_in};
use super::files;
use crate::data::cache::hex;
use crate::data::corpus::Corpus;
use crate::data::document::Document;
use crate::data::error::{DataError, Result};
use crate::data::rows::kind::LABEL;
use crate::data::rows::{Content, Part, Place, Row, RowCorpus, RowKind, Rows};
use crate::data::source::Source;
use crate::keys::notes::Notes;
use crate::keys::{Form, table};

/// The tasks.
pub const TASKS: &[&str] = &["copy", "reverse", "sort", "count", "add"];

table! {
    /// The keys as written.
    pub struct Written at "data" {
        /// synthetic: number of examples to generate
        rows: u64 = 20000, Form::Int(1, 1 << 32), example 20000;
        /// synthetic: number of held-out examples; none of them has the prompt of a training example
        held_out_rows: u64, Form::Int(1, 1 << 32), default "a tenth of data.rows", example 400;
        /// synthetic: which tasks
        tasks: Vec<String>, Form::Words(TASKS), default "all", example ["sort", "add"];
        /// synthetic pairs, and labelled answers from pairs: whether the two answers of every pair are equally long
        equal_length: bool = false, Form::Bool, example true;
        /// synthetic demonstrations: share of answers that are wrong or rambling; held-out answers are always right
        flawed: f64 = 0.0, Form::Float(Included(0.0), Included(1.0)), example 0.25;
        /// synthetic demonstrations: answers in segments, one per word, half of them wrong from some word on, with the column `labels`:
        /// whether the answer is right up to the end of a segment; a space separates the segments
        segments: bool = false, Form::Bool, example true;
        /// synthetic rows: with the column `hint`, each prompt behind its right answer, which a context model can read
        hint: bool = false, Form::Bool, example true;
    }
}

/// Why no other source reads these keys.
pub const ALONE: &str = "only source = \"synthetic\" generates data";

/// The generated world of small tasks, in which a tenth of the prompts is reserved for held-out examples.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Synthetic {
    /// How many examples.
    pub rows: u64,
    /// How many held-out examples.
    pub held_out_rows: u64,
    /// Which tasks, in the order of [`TASKS`].
    pub tasks: Vec<String>,
    /// Whether the two answers of every pair have the same length.
    pub equal_length: bool,
    /// The share of demonstrations whose answer is flawed, from 0 to 1.
    pub flawed: f64,
    /// Whether answers come in labelled segments.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub segments: bool,
    /// Whether rows have the column `hint`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub hint: bool,
}

/// The column with each prompt behind its right answer.
const HINT: &str = "hint";

/// What separates segments.
const SPACE: &str = " ";

impl DataSource for Synthetic {
    fn has_rows(&self, _kind: RowKind) -> bool {
        true
    }

    fn usual_kind(&self) -> DataKind {
        DataKind::TEXT
    }

    fn unused(&self, kind: Option<RowKind>) -> Vec<(&'static str, String)> {
        let comes_in = comes_in(kind);
        let no_pairs = self.equal_length && !matches!(kind, Some(RowKind::Preference | RowKind::Unpaired));
        let demonstrations = kind == Some(RowKind::PromptCompletion);
        let no_demonstrations = self.flawed > 0.0 && !demonstrations;
        let in_segments = match (self.segments, demonstrations) {
            (true, false) => {
                Some(("data.segments", format!("unused: this data comes in {comes_in}, not in demonstrations")))
            }
            (true, true) if self.flawed > 0.0 => {
                Some(("data.flawed", "unused: half of the answers in segments are wrong".into()))
            }
            _ => None,
        };
        let of_pairs = ("data.equal_length", format!("unused: this data comes in {comes_in}, not in pairs"));
        let of_demonstrations =
            ("data.flawed", format!("unused: this data comes in {comes_in}, not in demonstrations"));
        let unused = no_pairs.then_some(of_pairs).into_iter().chain(no_demonstrations.then_some(of_demonstrations));
        let no_hint = match (self.hint, kind) {
            (true, None) => Some(("data.hint", format!("unused: this data comes in {comes_in}, which has no columns"))),
            (true, _) if self.segments => Some(("data.hint", "unused: answers in segments have no hints".to_owned())),
            _ => None,
        };
        unused.chain(in_segments).chain(no_hint).collect()
    }

    fn holds_out(&self) -> bool {
        true
    }

    fn generated(&self) -> Vec<(&'static str, u64)> {
        vec![("data.rows", self.rows), ("data.held_out_rows", self.held_out_rows)]
    }

    fn text(&self, seed: u64) -> Result<Corpus> {
        self.options(seed).read()
    }

    fn rows(&self, kind: RowKind, seed: u64) -> Result<RowCorpus> {
        self.options(seed).read_rows(kind)
    }

    fn separator(&self) -> &str {
        SPACE
    }
}

/// Resolves its keys, and refuses those of files.
pub fn resolve(of_files: &files::Written, written: Written, notes: &mut Notes<'_>) -> Synthetic {
    notes.unused("data.path", &of_files.path, "source = \"synthetic\" generates its data");
    let why = "source = \"synthetic\" always holds out a tenth of its texts";
    notes.unused("data.eval_path", &of_files.eval_path, why);
    notes.unused("data.held_out", &of_files.held_out, why);
    let (rows, equal_length, flawed, segments, hint) =
        (written.rows(), written.equal_length(), written.flawed(), written.segments(), written.hint());
    let chosen = written.tasks.unwrap_or_else(|| TASKS.iter().map(|task| task.to_string()).collect());
    let in_order = TASKS.iter().filter(|task| chosen.iter().any(|name| name == *task));
    Synthetic {
        rows,
        held_out_rows: written.held_out_rows.unwrap_or((rows / 10).max(1)),
        tasks: in_order.map(|task| task.to_string()).collect(),
        equal_length,
        flawed,
        segments,
        hint,
    }
}

impl Synthetic {
    fn options(&self, seed: u64) -> SyntheticOptions {
        let Synthetic { rows, held_out_rows, tasks, equal_length, flawed, segments, hint } = self;
        SyntheticOptions {
            rows: *rows,
            held_out_rows: *held_out_rows,
            tasks: tasks.iter().filter_map(|name| name.parse().ok()).collect(),
            equal_length: *equal_length,
            flawed: *flawed,
            segments: *segments,
            hint: *hint,
            seed,
        }
    }
}

/// How much of the quickstart world to read.
#[derive(Clone, Debug, PartialEq)]
pub struct SyntheticOptions {
    /// Documents to train on.
    pub rows: u64,
    /// Documents to evaluate on. They share no prompt and no sentence with the training documents.
    pub held_out_rows: u64,
    /// The tasks; empty for all.
    pub tasks: Vec<Task>,
    /// Whether the two answers of every pair have the same length, so that length carries no information.
    pub equal_length: bool,
    /// The share of training demonstrations whose answer is flawed, from 0 to 1. Held-out demonstrations are all
    /// right.
    pub flawed: f64,
    /// Whether demonstrations come in labelled segments.
    pub segments: bool,
    /// Whether rows have the column `hint`.
    pub hint: bool,
    /// The seed from which every document follows.
    pub seed: u64,
}

impl SyntheticOptions {
    /// Generates the text.
    ///
    /// # Errors
    /// No rows to train on.
    pub fn read(&self) -> Result<Corpus> {
        if self.rows == 0 {
            return Err(DataError::Option("synthetic data needs at least one row".into()));
        }
        let world = World::new(self.seed, &self.tasks);
        let side = |split, rows| -> Vec<Document> {
            (0..rows).map(|index| Document { text: world.document(split, index), ends: true }).collect()
        };
        let (train, held_out) = (side(Split::Train, self.rows), side(Split::HeldOut, self.held_out_rows));
        let source = source(train.iter().chain(&held_out).map(|document| document.text.as_str()));
        Ok(Corpus { name: "the synthetic text".into(), train, held_out, sources: vec![source] })
    }
}

impl SyntheticOptions {
    /// Generates rows: instructions with an answer (the one right answer, unless `flawed` is set), with a right and
    /// a flawed one, with one of these two and its label, or alone with the right one in the column `answer`.
    ///
    /// # Errors
    /// No rows to train on.
    pub fn read_rows(&self, kind: RowKind) -> Result<RowCorpus> {
        if self.rows == 0 {
            return Err(DataError::Option("synthetic data needs at least one row".into()));
        }
        let (world, file) = (World::new(self.seed, &self.tasks), Arc::<str>::from("synthetic"));
        let row = |split, index: u64| {
            let place = Place { file: file.clone(), line: index as usize + 1 };
            if self.segments && kind == RowKind::PromptCompletion {
                return in_segments(place, world.segments(split, index));
            }
            let (parts, mut columns) = self.row(&world, kind, split, index);
            if self.hint {
                let prompt = parts.iter().find_map(|(part, text)| (*part == Part::Prompt).then_some(text.as_str()));
                columns.insert(HINT.to_owned(), hint(prompt.unwrap_or_default()).into());
            }
            let parts = parts.into_iter().map(|(part, text)| (part, Content::Text(text))).collect();
            Row { place, parts, columns, segments: Vec::new() }
        };
        let side = |split, rows| -> Vec<Row> { (0..rows).map(|index| row(split, index)).collect() };
        let (train, held_out) = (side(Split::Train, self.rows), side(Split::HeldOut, self.held_out_rows));
        let sources = vec![source(train.iter().chain(&held_out).flat_map(texts))];
        let (train, held_out) = (Rows::of(train)?.into(), Rows::of(held_out)?.into());
        Ok(RowCorpus { name: "the synthetic rows".into(), kind, train, held_out, sources, ..RowCorpus::default() })
    }

    /// The parts of a row, and its columns.
    fn row(&self, world: &World, kind: RowKind, split: Split, index: u64) -> (Vec<(Part, String)>, Map<String, Value>) {
        if kind == RowKind::Preference {
            let pair = world.preference(split, index, self.equal_length);
            let parts = vec![(Part::Prompt, pair.prompt), (Part::Chosen, pair.chosen), (Part::Rejected, pair.rejected)];
            return (parts, Map::new());
        }
        if kind == RowKind::Unpaired {
            // Two rows of each pair: its chosen answer, which is desirable, then its rejected one.
            let pair = world.preference(split, index / 2, self.equal_length);
            let desirable = index.is_multiple_of(2);
            let answer = if desirable { pair.chosen } else { pair.rejected };
            let columns = Map::from_iter([(LABEL.to_owned(), desirable.into())]);
            return (vec![(Part::Prompt, pair.prompt), (Part::Completion, answer)], columns);
        }
        if kind == RowKind::Prompt {
            let example = world.example(split, index);
            return (
                vec![(Part::Prompt, example.prompt)],
                Map::from_iter([("answer".to_owned(), example.answer.into())]),
            );
        }
        let flawed = if split == Split::Train { self.flawed } else { 0.0 };
        let example = world.demonstration(split, index, flawed);
        (vec![(Part::Prompt, example.prompt), (Part::Completion, example.answer)], Map::new())
    }
}

/// A prompt behind its right answer.
fn hint(prompt: &str) -> String {
    let answer = right_answer(prompt).unwrap_or_default();
    format!("{answer}\n{prompt}")
}

/// A row whose completion is in segments.
fn in_segments(place: Place, answer: Segments) -> Row {
    let text: String = answer.segments.iter().flat_map(|segment| [segment, SPACE]).collect();
    let ends = answer.segments.iter().scan(0, |end, segment| {
        *end += segment.chars().count() + SPACE.len();
        Some(*end)
    });
    let segments = ends.collect();
    let parts = [(Part::Prompt, Content::Text(answer.prompt)), (Part::Completion, Content::Text(text))].into();
    Row { place, parts, columns: Map::from_iter([("labels".to_owned(), answer.labels.into())]), segments }
}

/// All strings of a row.
fn texts(row: &Row) -> impl Iterator<Item = &str> {
    let parts = row.parts.values().filter_map(|content| match content {
        Content::Text(text) => Some(text.as_str()),
        Content::Messages(_) => None,
    });
    parts.chain(row.columns.values().filter_map(Value::as_str))
}

/// The generated text is recorded in the receipt like a file, so that a change of the generator is visible.
fn source<'a>(texts: impl Iterator<Item = &'a str>) -> Source {
    let (mut hash, mut bytes) = (Sha256::new(), 0);
    for text in texts {
        hash.update(text);
        hash.update([0]);
        bytes += text.len() as u64;
    }
    Source { path: PathBuf::from("synthetic"), bytes, sha256: hex(&hash.finalize()) }
}
