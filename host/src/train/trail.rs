//! Who is at work right now, left as a breadcrumb for the supervising parent: a crash in native code is then laid at the
//! right door.

use std::{
    cell::{Cell, RefCell},
    fmt,
};

use crate::runs::{Breadcrumb, RunFolder};

/// The breadcrumb with the names a run uses.
#[derive(Debug, Default)]
pub struct Trail {
    breadcrumb: Breadcrumb,
    backend: String,
    step: Cell<u64>,
    current: RefCell<Option<CurrentCall>>,
}

/// The plugin call in progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CurrentCall {
    kind: &'static str,
    id: String,
    call: String,
}

impl fmt::Display for CurrentCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} \"{}\", in `{}`", self.kind, self.id, self.call)
    }
}

impl Trail {
    /// The trail of a run on `backend`.
    pub fn new(breadcrumb: Breadcrumb, backend: &str) -> Trail {
        Trail { breadcrumb, backend: backend.to_owned(), ..Trail::default() }
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
        self.set_current("objective", id, call);
    }

    /// The backend is next.
    pub fn backend(&self, call: &str) {
        self.breadcrumb.set(&self.backend, call, self.step.get());
        self.set_current("backend", &self.backend, call);
    }

    /// The host itself is at work again.
    pub fn host(&self) {
        self.breadcrumb.clear(self.step.get());
        self.current.replace(None);
    }

    /// The plugin call in progress, or the one that failed last; `None` where the host itself is working.
    pub fn current(&self) -> Option<CurrentCall> {
        self.current.borrow().clone()
    }

    fn set_current(&self, kind: &'static str, id: &str, call: &str) {
        let (id, call) = (id.to_owned(), call.to_owned());
        self.current.replace(Some(CurrentCall { kind, id, call }));
    }
}
