//! Files that a command writes where the user says.

use std::fs;
use std::path::Path;

use crate::error::{Error, Result};

/// Refuses `path`, given by `flag`, where a file is already, or no folder to write it into. Called before anything is computed.
///
/// # Errors
/// A request error naming flag and path.
pub(super) fn check_new(flag: &str, path: &Path) -> Result<()> {
    check_folder(flag, path)?;
    if fs::symlink_metadata(path).is_ok() {
        let message = format!("{flag}: {} exists already", path.display());
        return Err(Error::request(message).with_hint("name a new file, or remove this one first"));
    }
    Ok(())
}

/// Refuses a drawing's `path` where something else than an earlier drawing is, or no folder to write it into.
///
/// # Errors
/// A request error naming flag and path.
pub(super) fn check_drawing(flag: &str, path: &Path) -> Result<()> {
    check_folder(flag, path)?;
    let is_drawing = || fs::read_to_string(path).is_ok_and(|text| text.trim_start().starts_with("<svg"));
    if fs::symlink_metadata(path).is_ok() && !(path.is_file() && is_drawing()) {
        let message = format!("{flag}: {} exists already and is no SVG", path.display());
        return Err(Error::request(message).with_hint("name a new file, or remove this one first"));
    }
    Ok(())
}

fn check_folder(flag: &str, path: &Path) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if folder.is_some_and(|folder| !folder.is_dir()) {
        let message = format!("{flag}: {} cannot be written: there is no such folder", path.display());
        return Err(Error::request(message).with_hint("name a file in a folder that is there"));
    }
    Ok(())
}
