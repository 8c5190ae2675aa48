//! `[track]`: programs that show the run while it is in progress.

use serde::Serialize;

use crate::keys::{Form, table};

table! {
    /// programs that show the run while it is in progress
    pub struct Written at "track": Form::Table, example { tensorboard = true }, may_change {
        /// whether to write event files for TensorBoard into the run's folder, live: `tensorboard --logdir runs`
        tensorboard: bool = false, Form::Bool, example true;
    }
}

/// `[track]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Track {
    /// Whether event files for TensorBoard are written.
    pub tensorboard: bool,
}

/// Resolves `[track]`; `None` if nothing is tracked.
pub fn resolve(written: Written) -> Option<Track> {
    written.tensorboard().then_some(Track { tensorboard: true })
}
