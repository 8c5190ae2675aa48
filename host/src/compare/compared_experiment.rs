//! The experiment to compare, as written.

use std::path::{Path, PathBuf};

use crate::config::{Override, experiment};

/// The experiment as written, without one of the compared backends.
pub struct ComparedExperiment<'a> {
    /// Its name.
    pub name: String,
    /// Its file.
    pub file: &'a Path,
    /// Overrides in order.
    pub overrides: &'a [Override],
    /// Where to look for plugins.
    pub plugin_folders: &'a [PathBuf],
    /// Its own `[backend]`.
    pub backend: experiment::Backend,
}
