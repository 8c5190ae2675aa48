//! Mistakes that are found after an experiment was read, collected so that they are reported together.

use std::sync::Arc;

use crate::error::{Error, Kind, Result, refusal_text};
use crate::keys::mistake::{Mistake, refusal};
use crate::keys::tree::{Node, place_of};

/// The file that an experiment was read from, for the places of its keys.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) file: Arc<str>,
    pub(super) root: Node,
}

/// The mistakes of an experiment. Checks that do not depend on each other all run; a check that reads a key about which there is
/// a mistake is skipped, see [`Mistakes::are_free`].
#[derive(Debug)]
pub struct Mistakes {
    source: Arc<Source>,
    mistakes: Vec<Mistake>,
    /// The first failed check, as long as its mistakes are the only ones.
    only: Option<Error>,
}

impl Mistakes {
    pub(super) fn new(source: Arc<Source>, mistakes: Vec<Mistake>) -> Mistakes {
        Mistakes { source, mistakes, only: None }
    }

    /// Returns the value of a check, or `None` if it found mistakes, which are kept. An error that lists no mistakes of the
    /// experiment is one at `key`.
    ///
    /// # Errors
    /// A failure that is not a mistake of the request; all mistakes instead, if there are any.
    pub fn check<T>(&mut self, key: &str, result: Result<T>) -> Result<Option<T>> {
        let error = match result {
            Ok(value) => return Ok(Some(value)),
            Err(error) => error,
        };
        if error.kind() != Kind::Request {
            self.finish()?;
            return Err(error);
        }
        let alone = self.mistakes.is_empty();
        match error.attached::<Vec<Mistake>>() {
            Some(mistakes) => self.mistakes.extend(mistakes.iter().cloned()),
            None => {
                let place = place_of(&self.source.root, key);
                self.mistakes.push(Mistake::new(place, key, refusal_text(&error)));
            }
        }
        self.only = alone.then_some(error);
        Ok(None)
    }

    /// Adds a mistake at `key`.
    pub fn refuse(&mut self, key: &str, message: impl Into<String>) {
        self.mistakes.push(Mistake::new(place_of(&self.source.root, key), key, message));
        self.only = None;
    }

    /// Whether there is no mistake about any of these keys, or about the keys below or above them.
    pub fn are_free(&self, keys: &[&str]) -> bool {
        !self.mistakes.iter().any(|mistake| keys.iter().any(|key| mistake.is_about(key)))
    }

    /// Whether there is none.
    pub fn are_none(&self) -> bool {
        self.mistakes.is_empty()
    }

    /// Ends a collection.
    ///
    /// # Errors
    /// One error with every mistake; if only one check failed, its own error.
    pub fn finish(&mut self) -> Result<()> {
        let mistakes = std::mem::take(&mut self.mistakes);
        match self.only.take() {
            Some(error) => Err(error),
            None if mistakes.is_empty() => Ok(()),
            None => Err(refusal(&self.source.file, mistakes)),
        }
    }
}
