//! Experiments: from a TOML file and the command line's overrides to one checked value.
//!
//! In order: [`tree`] parses, [`overrides`] merges the command line into it, [`form`] checks every value against
//! [`schema`], the result is read as written, [`experiment::resolve`] fills in defaults and checks rules between keys, and
//! once the plugins are loaded [`options`] checks theirs. A key is declared in the file of its table, in [`tables`] or in the
//! module that owns the table. Mistakes of all these stages are collected in one list. What the keys name (files, models,
//! plugins) is checked by other modules, which add to the same list with [`Draft::refuse`] and [`Mistakes`].

mod collected;
mod draft;
pub mod experiment;
mod file;
mod form;
pub mod options;
pub mod overrides;
pub mod pipeline;
pub mod schema;
pub mod sweep;
mod tables;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

pub use crate::keys::mistake::{Mistake, Place};
pub use collected::Mistakes;
pub use draft::{Draft, Loaded, PluginUse, Slot};
pub use experiment::Experiment;
pub use options::SpannedTable;
pub use overrides::Override;
pub use pipeline::Pipeline;
pub use sweep::Study;

use crate::error::Result;
use crate::keys::mistake::refusal;
use crate::keys::tree;
use draft::{is_pipeline, is_study};
use file::read_text;

/// The content of a file.
#[derive(Debug)]
pub enum Plan {
    /// One experiment.
    Experiment(Box<Draft>),
    /// Several experiments that pass their models on: the file has `[[stage]]` tables.
    Pipeline(Pipeline),
    /// Several runs of an experiment, or of the last stage of a pipeline: the file has `[sweep]`, or a number of seeds was given.
    Study(Box<Study>),
}

impl Plan {
    /// Reads `path`, an experiment, a pipeline or a study, and merges `overrides` into it. With `seeds`, it is a study of that many
    /// seeds.
    ///
    /// # Errors
    /// As for [`Draft::read`].
    pub fn read(path: &Path, overrides: &[Override], seeds: Option<u64>) -> Result<Self> {
        let (file, stem, text) = read_text(path)?;
        Self::parse(&file, &stem, &text, overrides, seeds)
    }

    /// As [`Plan::read`], from the text of `file`; `stem` is the default of `name`.
    ///
    /// # Errors
    /// A request error for text that is not TOML.
    pub fn parse(file: &str, stem: &str, text: &str, overrides: &[Override], seeds: Option<u64>) -> Result<Self> {
        let file: Arc<str> = file.into();
        let root = tree::parse(&file, text).map_err(|mistakes| refusal(&file, mistakes))?;
        Ok(match is_pipeline(&root) {
            _ if is_study(&root) || seeds.is_some() => {
                Plan::Study(Box::new(Study::new(&file, stem, root, overrides, seeds)))
            }
            true => Plan::Pipeline(Pipeline::new(&file, stem, root, overrides)),
            false => Plan::Experiment(Box::new(Draft::with_overrides(&file, stem, root, overrides))),
        })
    }
}
