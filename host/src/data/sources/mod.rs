//! The sources of an experiment's data, `data.source`: each in its own file, with its keys and what it yields.

pub mod data_source;
mod files;
mod jsonl;
pub mod synthetic;
mod text;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::keys::notes::Notes;
use crate::keys::{Form, Key, Table, count, joined, table};

pub use data_source::DataSource;
pub use files::HeldOut;
pub use jsonl::Jsonl;
pub use synthetic::Synthetic;
pub use text::Text;

table! {
    /// the training data
    pub struct Choice at "data": Form::Table, example { path = "corpus.txt" } {
        /// text: UTF-8 files; jsonl: rows, in files of JSON lines, JSON, CSV, TSV, Parquet or Arrow (Feather), also compressed by gzip
        /// or Zstandard, of the kind that the first objective learns from: prompt and completion, or messages; prompt, chosen and
        /// rejected (chosen and rejected alone if they begin alike); prompt alone; prompt, completion and label; each a string or
        /// a list of messages; published forms with other columns: see data.format; other keys are columns; synthetic: the generated world of small tasks, as running text or as rows, depending on the objective
        source: String, Form::Word(&["text", "jsonl", "synthetic"]), default "\"text\"", example "text";
    }
}

/// `[data]` as written: the choice of a source, and the keys of all sources. Each source reads its own.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub struct Written(Map<String, Value>);

const PARTS: &[&[Key]] = &[Choice::KEYS, files::Written::KEYS, jsonl::Written::KEYS, synthetic::Written::KEYS];

impl Table for Written {
    const KEYS: &'static [Key] = {
        const ALL: [Key; count(PARTS)] = joined(PARTS);
        &ALL
    };
}

/// The keys that a single source reads, with its name, and why others do not read them.
const ALONE: [(&str, &[Key], &str); 2] =
    [("jsonl", jsonl::Written::KEYS, jsonl::ALONE), ("synthetic", synthetic::Written::KEYS, synthetic::ALONE)];

/// Resolves `[data]`.
pub fn resolve(written: &Written, notes: &mut Notes<'_>) -> Data {
    let choice = written.read::<Choice>(notes).source;
    let source = choice.as_deref().unwrap_or("text");
    if !notes.reported("data.source") {
        for (_, keys, why) in ALONE.iter().filter(|(owner, ..)| *owner != source) {
            for key in keys.iter().filter(|key| written.0.contains_key(name(key))) {
                notes.refuse(key.path, format!("unused: {why}, and source is \"{source}\""));
            }
        }
    }
    let of_files = written.read::<files::Written>(notes);
    match source {
        "synthetic" => Data::Synthetic(synthetic::resolve(&of_files, written.read(notes), notes)),
        "jsonl" => Data::Jsonl(jsonl::resolve(&of_files, written.read(notes), notes)),
        _ => Data::Text(text::resolve(&of_files, notes)),
    }
}

/// Checks that the longest row is not longer than the model's context length, if that is known. Returns the length of the
/// longest sequence, as far as it is known.
pub fn check_max_length(data: &Data, context: Option<usize>, notes: &mut Notes<'_>) -> Option<usize> {
    let Some(max_length) = data.source().writing().max_length else { return context };
    if let Some(context) = context.filter(|context| max_length > *context) {
        notes.refuse(
            "data.max_length",
            format!("{max_length} tokens are longer than the model's context length of {context}"),
        );
    }
    context.map(|context| context.min(max_length))
}

impl Written {
    /// Returns the keys of one of the tables that make up `[data]`. Their forms were checked before.
    fn read<T: Table + DeserializeOwned + Default>(&self, notes: &mut Notes<'_>) -> T {
        let own = T::KEYS.iter().filter_map(|key| Some((name(key).to_owned(), self.0.get(name(key))?.clone())));
        serde_json::from_value(Value::Object(own.collect())).unwrap_or_else(|error| {
            notes.refuse("data", format!("cannot be read as an experiment: {error}"));
            T::default()
        })
    }
}

/// The name of a key in `[data]`.
fn name(key: &Key) -> &'static str {
    key.path.strip_prefix("data.").unwrap_or_default()
}

/// `[data]`. A new source is a file with an implementation of [`DataSource`], and a variant here.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "source", rename_all = "lowercase")]
#[expect(clippy::large_enum_variant, reason = "an experiment has one")]
pub enum Data {
    /// UTF-8 files.
    Text(Text),
    /// Rows of JSON lines, of the kind that the first objective requires.
    Jsonl(Jsonl),
    /// The generated world of small tasks.
    Synthetic(Synthetic),
}

impl Data {
    /// The source.
    pub fn source(&self) -> &dyn DataSource {
        match self {
            Data::Text(text) => text,
            Data::Jsonl(rows) => rows,
            Data::Synthetic(world) => world,
        }
    }
}
