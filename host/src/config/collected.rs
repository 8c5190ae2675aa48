//! Mistakes that are found after an experiment was read, collected so that they are reported together.

use std::sync::Arc;

use crate::error::{Error, Kind, Result, refusal_text};
use crate::keys::mistake::{Mistake, refusal};
use crate::keys::tree::{Node, place_of};

/// The file that an experiment was read from, for the places of its keys.
#[derive(Debug)]
pub(super) struct ExperimentFile {
    pub(super) file: Arc<str>,
    pub(super) root: Node,
}

/// The mistakes of an experiment. Checks that do not depend on each other all run; a check that reads a key about which there is
/// a mistake is skipped, see [`Mistakes::are_free`].
#[derive(Debug)]
pub struct Mistakes {
    source: Arc<ExperimentFile>,
    mistakes: Vec<Mistake>,
    /// The first failed check, as long as its mistakes are the only ones.
    only: Option<Error>,
}

impl Mistakes {
    pub(super) fn new(source: Arc<ExperimentFile>, mistakes: Vec<Mistake>) -> Mistakes {
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
                let text = refusal_text(&error).lines().map(str::trim).collect::<Vec<_>>().join(" ");
                let mistake = Mistake::new(place, key, text);
                let place = mistake.of_key();
                self.mistakes.push(mistake);
                self.only = alone.then(|| error.with_details(place));
                return Ok(None);
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
    /// One error with every mistake; if only one check failed, its own error, with the place of its key.
    pub fn finish(&mut self) -> Result<()> {
        let mistakes = std::mem::take(&mut self.mistakes);
        match self.only.take() {
            Some(error) => Err(error),
            None if mistakes.is_empty() => Ok(()),
            None => Err(refusal(&self.source.file, mistakes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Draft, Loaded};

    fn loaded() -> Loaded {
        let text = "[model]\nlayers = 1\ndim = 8\nheads = 2\ncontext = 8\n[data]\npath = \"a\"\n[objective]\nplugin = \"ce\"\n\
                    [train]\nsteps = 1\nbatch = { tokens = 8 }\noptimizer = { lr = 1e-3 }\n";
        let mut draft = Draft::parse("exp.toml", "exp", text, &[]).unwrap();
        let slots: Vec<_> = draft.plugins().iter().map(|plugin| plugin.slot).collect();
        slots.into_iter().for_each(|slot| draft.check_options(slot, &[]));
        draft.finish().unwrap()
    }

    fn report(mistakes: &mut Mistakes) -> String {
        mistakes.finish().unwrap_err().report()
    }

    /// Catches an error that loses its hint, its form or its place although it is the only one, and one that is left out of a list
    /// because it names no key.
    #[test]
    fn a_single_error_keeps_its_form_and_several_become_a_list() {
        let loaded = loaded();
        let missing = || Err::<(), _>(Error::request("there is no file a").with_hint("check the path"));
        let mut mistakes = loaded.mistakes();
        assert!(mistakes.finish().is_ok());
        assert_eq!(mistakes.check("data", missing()).unwrap(), None);
        let alone = "error: there is no file a\n  exp.toml:6:2: data\nhelp: check the path\n";
        assert_eq!(report(&mut mistakes), alone);
        assert_eq!(mistakes.check("data", missing()).unwrap(), None);
        assert_eq!(mistakes.check("train.steps", Err::<(), _>(loaded.refuse("train.steps", "too few"))).unwrap(), None);
        mistakes.refuse("model.dim", "too small");
        let listed = report(&mut mistakes);
        let expected = [
            "error: 3 mistakes in exp.toml",
            "  exp.toml:3:1: model.dim: too small",
            "  exp.toml:6:2: data: there is no file a (check the path)",
            "  exp.toml:11:1: train.steps: too few",
            "help:",
        ];
        assert!(listed.lines().zip(expected).all(|(line, expected)| line.starts_with(expected)), "{listed}");
        assert!(mistakes.finish().is_ok(), "the mistakes were taken");
    }

    /// Catches a failure of the disk or of a plugin that is listed as a mistake of the request, and one that hides mistakes.
    #[test]
    fn a_failure_is_not_listed_as_a_mistake_and_hides_none() {
        let loaded = loaded();
        let failed = || Err::<(), _>(Error::run("the disk is full"));
        let mut mistakes = loaded.mistakes();
        assert_eq!(mistakes.check("data", failed()).unwrap_err().message(), "the disk is full");
        mistakes.refuse("model.dim", "too small");
        assert_eq!(mistakes.check("data", failed()).unwrap_err().message(), "1 mistake in exp.toml");
    }

    /// Catches a check that reads a key with a mistake in it, above it or below it, and one that is skipped without reason.
    #[test]
    fn a_key_is_free_if_no_mistake_is_about_it() {
        let mut mistakes = loaded().mistakes();
        mistakes.refuse("train.batch.pairs", "wrong unit");
        assert!(!mistakes.are_free(&["train.batch"]) && !mistakes.are_free(&["data", "train"]));
        assert!(!mistakes.are_free(&["train.batch.pairs"]));
        assert!(mistakes.are_free(&["train.steps", "data", "train.batchs", "eval"]));
    }
}
