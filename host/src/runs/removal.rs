//! Removing runs that are no longer wanted, and nothing that telos did not write.

use std::fs;
use std::path::Path;

use super::checkpoint;
use super::folder::{CHECKPOINTS, PIPELINE_FILE, RunFolder, TENSORBOARD, is_own_file};
use crate::error::{Error, Result};
use crate::track::holds_only_events;

/// Removes the run in the folder `path`, with its checkpoints.
///
/// # Errors
/// A failed run if another process writes it, if it holds what telos did not write (see [`foreign_entries`]), or if it cannot be
/// removed.
pub fn remove(path: &Path) -> Result<()> {
    RunFolder::remove(path, || match foreign_entries(path).first() {
        Some(foreign) => {
            let message = format!("{} holds {foreign}, which telos did not write", path.display());
            Err(Error::run(message).with_hint("move it elsewhere, or remove the run by hand"))
        }
        None => Ok(()),
    })
}

/// The names of what a run's folder, or its folder of checkpoints, holds and telos did not write; in alphabetical order.
pub fn foreign_entries(path: &Path) -> Vec<String> {
    let mut foreign = Vec::new();
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        let (name, inner) = (entry.file_name(), entry.path());
        match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            true if name == CHECKPOINTS => {
                foreign.extend(checkpoint::foreign(&inner).into_iter().map(|name| format!("{CHECKPOINTS}/{name}")));
            }
            true if name == TENSORBOARD && holds_only_events(&inner) => {}
            false if is_own_file(&entry) => {}
            _ => foreign.push(name.to_string_lossy().into_owned()),
        }
    }
    foreign.sort();
    foreign
}

/// Whether telos wrote this entry of a pipeline's folder, besides the folders of its runs.
pub fn is_own_of_pipeline(entry: &fs::DirEntry) -> bool {
    entry.file_name() == PIPELINE_FILE || is_own_file(entry)
}
