//! Experiments: from a TOML file and the command line's overrides to one checked value.
//!
//! In order: [`tree`] parses, [`overrides`] lays the command line over it, [`form`] checks every value against [`schema`], the
//! result is read as [`written`], [`resolve`] fills in defaults and checks keys against each other and gives an
//! [`experiment`], and once the plugins are loaded [`options`] checks theirs. Mistakes of all these stages come in one
//! list. What the keys name (files, models, plugins) is looked at by others, who add to the same list with
//! [`Draft::refuse`].

mod draft;
pub mod experiment;
mod file;
mod form;
pub mod mistake;
pub mod options;
pub mod overrides;
pub mod pipeline;
mod resolve;
pub mod schema;
pub mod tree;
// The meaning of each field is said once, in `schema`.
#[allow(missing_docs)]
mod written;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

pub use draft::{Draft, Loaded, PluginUse, Slot};
pub use experiment::Experiment;
pub use mistake::{Mistake, Place};
pub use options::SpannedTable;
pub use overrides::Override;
pub use pipeline::Pipeline;

use crate::error::Result;
use draft::is_pipeline;
use file::read_text;
use mistake::refusal;

/// What a file holds.
#[derive(Debug)]
pub enum Plan {
    /// One experiment.
    Experiment(Box<Draft>),
    /// Several that hand their models on: the file has `[[stage]]` tables.
    Pipeline(Pipeline),
}

impl Plan {
    /// Reads `path` and lays `overrides` over it, whichever of the two it is.
    ///
    /// # Errors
    /// As for [`Draft::read`].
    pub fn read(path: &Path, overrides: &[Override]) -> Result<Self> {
        let (file, stem, text) = read_text(path)?;
        let file: Arc<str> = file.into();
        let root = tree::parse(&file, &text).map_err(|mistakes| refusal(&file, mistakes))?;
        Ok(match is_pipeline(&root) {
            true => Plan::Pipeline(Pipeline::new(&file, &stem, root, overrides)),
            false => Plan::Experiment(Box::new(Draft::laid_over(&file, &stem, root, overrides))),
        })
    }
}
