//! Who is at work right now, left as a breadcrumb for the supervising parent: a crash in native code is then laid at the
//! right door.

use std::cell::Cell;

use crate::runs::{Breadcrumb, RunFolder};

/// The breadcrumb with the names a run uses.
#[derive(Debug)]
pub struct Trail {
    breadcrumb: Breadcrumb,
    backend: String,
    step: Cell<u64>,
}

impl Default for Trail {
    /// The trail of work that belongs to no run, such as a dry run's.
    fn default() -> Trail {
        Trail::new(Breadcrumb::from_env(), "")
    }
}

impl Trail {
    /// The trail of a run on `backend`.
    pub fn new(breadcrumb: Breadcrumb, backend: &str) -> Trail {
        Trail { breadcrumb, backend: backend.to_owned(), step: Cell::new(0) }
    }

    /// Says where the run's checkpoints are.
    pub fn run(&self, folder: &RunFolder) {
        self.breadcrumb.set_run(folder.path());
    }

    /// The step that is being worked on from here on.
    pub fn step(&self, step: u64) {
        self.step.set(step);
    }

    /// An objective's call is next.
    pub fn objective(&self, id: &str, call: &str) {
        self.breadcrumb.set(id, call, self.step.get());
    }

    /// The backend is next.
    pub fn backend(&self, call: &str) {
        self.breadcrumb.set(&self.backend, call, self.step.get());
    }

    /// The host itself is at work again.
    pub fn host(&self) {
        self.breadcrumb.clear(self.step.get());
    }
}
