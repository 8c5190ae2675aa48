//! Mistakes, collected with the place of each key.

use super::mistake::Mistake;
use super::tree::{Node, place_of};

/// Collects mistakes and looks up the place of each key.
pub struct Notes<'a> {
    /// The tree that the user wrote.
    pub root: &'a Node,
    /// All mistakes so far.
    pub mistakes: Vec<Mistake>,
}

impl Notes<'_> {
    /// Records a mistake at `key`.
    pub fn refuse(&mut self, key: &str, message: impl Into<String>) {
        self.mistakes.push(Mistake::new(place_of(self.root, key), key, message));
    }

    /// Records that `key` is missing, unless a mistake about it is already recorded.
    pub fn missing(&mut self, key: &str, message: &str) {
        if !self.reported(key) {
            self.refuse(key, format!("missing; {message}"));
        }
    }

    /// Whether a mistake was recorded at `key`, below it or above it, or for a misspelling of it.
    pub fn reported(&self, key: &str) -> bool {
        self.mistakes.iter().any(|mistake| mistake.is_about(key))
    }

    /// Records that `key` has no effect if it has a `value`.
    pub fn unused<T>(&mut self, key: &str, value: &Option<T>, why: &str) {
        if value.is_some() {
            self.refuse(key, format!("unused: {why}"));
        }
    }
}
