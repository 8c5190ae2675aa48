//! The source `synthetic`: running text of the quickstart world. The world itself is the crate `telos_world`.

use std::path::PathBuf;

use sha2::{Digest, Sha256};
use telos_world::{Split, Task, World};

use super::cache::hex;
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
        let source = source(train.iter().chain(&held_out));
        Ok(Corpus { name: "the synthetic text".into(), train, held_out, sources: vec![source] })
    }
}

/// The generated text stands in the receipt like a file, so that a changed generator shows.
fn source<'a>(documents: impl Iterator<Item = &'a Document>) -> Source {
    let (mut hash, mut bytes) = (Sha256::new(), 0);
    for document in documents {
        hash.update(&document.text);
        hash.update([0]);
        bytes += document.text.len() as u64;
    }
    Source { path: PathBuf::from("synthetic"), bytes, sha256: hex(&hash.finalize()) }
}
