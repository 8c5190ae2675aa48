//! TensorBoard's Python package, for the test that reads event files with it: fetched with pip into the cache folder.

use super::steps::Outcome;
use crate::{
    errors::Result,
    torch::{cache, install},
};
use std::path::PathBuf;

/// The version that the test was written for.
const VERSION: &str = "2.21.0";

/// Fetches the package if it is not in the cache folder. Without it the test is ignored.
pub fn set_up() -> Result<Outcome> {
    if folder().is_some() {
        return Ok(Outcome::Passed);
    }
    let folder = named()?;
    eprintln!("fetching TensorBoard {VERSION} (130 MB with what it needs) into {}", folder.display());
    Ok(match install(&folder, &[&format!("tensorboard=={VERSION}")])? {
        true => Outcome::Passed,
        false => {
            Outcome::Skipped(format!("NOT RUN: the test of TensorBoard: pip could not fetch tensorboard {VERSION}"))
        }
    })
}

/// The folder with the package, if it was fetched.
pub fn folder() -> Option<PathBuf> {
    named().ok().filter(|folder| folder.join("tensorboard").is_dir())
}

fn named() -> Result<PathBuf> {
    Ok(cache()?.join(format!("tensorboard-{VERSION}")))
}
