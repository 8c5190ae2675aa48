//! Checks the paths of files that a command writes for the user.

use std::fs;
use std::path::Path;

use crate::error::{Error, Result};
use crate::plot::Format;

/// Refuses `path`, given by `flag`, if the file already exists or its folder does not. Called before anything is
/// computed.
///
/// # Errors
/// A request error that names flag and path.
pub(super) fn check_new(flag: &str, path: &Path) -> Result<()> {
    check_folder(flag, path)?;
    if fs::symlink_metadata(path).is_ok() {
        let message = format!("{flag}: {} exists already", path.display());
        return Err(Error::request(message).with_hint("name a new file, or remove this one first"));
    }
    Ok(())
}

/// Refuses a drawing's `path` if its ending names no format, something other than an earlier drawing is there, or its folder does not
/// exist.
///
/// # Errors
/// A request error that names flag and path.
pub(super) fn check_drawing(flag: &str, path: &Path) -> Result<()> {
    let format = Format::of(flag, path)?;
    let kind = match format {
        Format::Svg => "an SVG",
        Format::Png => "a PNG",
    };
    check_own(flag, path, kind, |bytes| format.is_of(bytes))
}

/// Refuses `path` if a file is there that `is_own` refuses, or its folder does not exist. `kind` says what the command writes.
///
/// # Errors
/// A request error that names flag and path.
pub(super) fn check_own(flag: &str, path: &Path, kind: &str, is_own: impl Fn(&[u8]) -> bool) -> Result<()> {
    check_folder(flag, path)?;
    let is_own = || fs::read(path).is_ok_and(|bytes| is_own(&bytes));
    if fs::symlink_metadata(path).is_ok() && !(path.is_file() && is_own()) {
        let message = format!("{flag}: {} exists already and is not {kind}", path.display());
        return Err(Error::request(message).with_hint("name a new file, or remove this one first"));
    }
    Ok(())
}

/// Refuses `path` if its folder does not exist.
///
/// # Errors
/// A request error that names flag and path.
pub(super) fn check_folder(flag: &str, path: &Path) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if folder.is_some_and(|folder| !folder.is_dir()) {
        let message = format!("{flag}: {} cannot be written: its folder does not exist", path.display());
        return Err(Error::request(message).with_hint("name a file in an existing folder, or create the folder"));
    }
    Ok(())
}
