//! The source `synthetic`: running text or rows of the quickstart world. The world itself is the crate `telos_world`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use telos_world::{Example, Split, Task, World};

use super::cache::hex;
use super::rows::{Content, Part, Place, Row, RowCorpus};
use super::{Corpus, DataError, Document, Result, Source};

/// How much of the quickstart world to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntheticOptions {
    /// Documents to train on.
    pub rows: u64,
    /// Documents to evaluate on. They share no prompt and no sentence with those to train on.
    pub held_out_rows: u64,
    /// Which tasks; empty for all.
    pub tasks: Vec<Task>,
    /// Decides every document.
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
    /// Generates rows: instructions with their one right answer.
    ///
    /// # Errors
    /// No rows to train on.
    pub fn read_rows(&self) -> Result<RowCorpus> {
        if self.rows == 0 {
            return Err(DataError::Option("synthetic data needs at least one row".into()));
        }
        let (world, file) = (World::new(self.seed, &self.tasks), Arc::<str>::from("synthetic"));
        let row = |index: u64, example: Example| Row {
            place: Place { file: file.clone(), line: index as usize + 1 },
            parts: BTreeMap::from([
                (Part::Prompt, Content::Text(example.prompt)),
                (Part::Completion, Content::Text(example.answer)),
            ]),
            columns: Default::default(),
        };
        let side = |split, rows| -> Vec<Row> { (0..rows).map(|i| row(i, world.example(split, i))).collect() };
        let (train, held_out) = (side(Split::Train, self.rows), side(Split::HeldOut, self.held_out_rows));
        let texts =
            train.iter().chain(&held_out).flat_map(|row| row.parts.values()).filter_map(|content| match content {
                Content::Text(text) => Some(text.as_str()),
                Content::Messages(_) => None,
            });
        let sources = vec![source(texts)];
        Ok(RowCorpus { name: "the synthetic rows".into(), train, held_out, leaks: 0, sources })
    }
}

/// The generated text stands in the receipt like a file, so that a changed generator shows.
fn source<'a>(texts: impl Iterator<Item = &'a str>) -> Source {
    let (mut hash, mut bytes) = (Sha256::new(), 0);
    for text in texts {
        hash.update(text);
        hash.update([0]);
        bytes += text.len() as u64;
    }
    Source { path: PathBuf::from("synthetic"), bytes, sha256: hex(&hash.finalize()) }
}
