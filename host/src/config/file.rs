//! Reads the file of an experiment as text.

use std::io::Read;
use std::path::Path;

use crate::error::{Error, Result};
use crate::files;

/// The maximum size in bytes of an experiment's file.
pub(super) const LARGEST: usize = 1 << 20;

/// Returns name, stem and content of an experiment's file.
pub(super) fn read_text(path: &Path) -> Result<(String, String, String)> {
    let file = path.display().to_string();
    let mut bytes = Vec::new();
    let read = files::open(path).and_then(|file| file.take(LARGEST as u64 + 1).read_to_end(&mut bytes));
    read.map_err(|cause| {
        Error::request(format!("cannot read the experiment {file}")).with_cause(cause).with_hint("check the path")
    })?;
    if bytes.len() > LARGEST {
        return Err(Error::request(format!("{file} is larger than {LARGEST} bytes, the limit for an experiment"))
            .with_hint("name the experiment's TOML file; put data into separate files"));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        Error::request(format!("{file} is not UTF-8 text: byte {valid} is invalid")).with_hint("save it as UTF-8")
    })?;
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    Ok((file, stem, text))
}
