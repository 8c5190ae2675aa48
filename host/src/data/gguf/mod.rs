//! Models in one GGUF file, the format of llama.cpp: read as if they were a Hugging Face folder.
//!
//! | file | job |
//! |---|---|
//! | [`header`] | metadata and table of tensors, read within bounds |
//! | `typed` | typed access to the metadata; errors name file and key |
//! | [`quants`] | the types of tensors: their names and block sizes |
//! | [`architecture`] | the architectures that are read, and how each differs from its Hugging Face form |
//! | `config` | `config.json` and `generation_config.json` from the metadata |
//! | `tokenizer` | `tokenizer.json` and `tokenizer_config.json` from the metadata |
//! | `splitting` | how each named pre-tokenizer splits a text into words |
//!
//! The weights are read by `model/files/gguf_file.rs`.

pub mod architecture;
mod config;
pub mod header;
pub mod quants;
#[cfg(test)]
pub(crate) mod sample;
mod splitting;
#[cfg(test)]
mod tests;
mod tokenizer;
mod typed;

use std::path::{Path, PathBuf};

use crate::data::error::{DataError, Result};
use crate::files;
pub use header::Gguf;

/// Whether a path names a GGUF file by its ending.
pub fn is_named(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gguf"))
}

/// Returns the GGUF file that `path` stands for: `path` itself if it is such a file, or the only one in a folder that has neither a
/// `config.json` nor a `tokenizer.json`. `None` for any other path.
///
/// # Errors
/// Such a folder with several GGUF files.
pub fn at(path: &Path) -> Result<Option<PathBuf>> {
    if is_named(path) && !path.is_dir() {
        return Ok((!files::is_missing(path)).then(|| path.to_owned()));
    }
    let has = |name: &str| !files::is_missing(&path.join(name));
    if !path.is_dir() || has("config.json") || has("tokenizer.json") {
        return Ok(None);
    }
    let entries = std::fs::read_dir(path).map_err(DataError::io("list", path))?;
    let mut found = Vec::new();
    for entry in entries {
        let file = entry.map_err(DataError::io("list", path))?.path();
        found.extend((is_named(&file) && file.is_file()).then_some(file));
    }
    found.sort();
    match found.len() {
        0 | 1 => Ok(found.pop()),
        count => {
            let names: Vec<String> =
                found.iter().filter_map(|file| Some(file.file_name()?.to_string_lossy().into_owned())).collect();
            Err(DataError::Unusable {
                path: path.to_owned(),
                what: format!("holds {count} GGUF files: {}", names.join(", ")),
                remedy: "name one of them; a model that was split is joined first, by llama.cpp's `llama-gguf-split --merge`"
                    .into(),
                source: None,
            })
        }
    }
}

/// Returns the files of the Hugging Face layout that the metadata of a GGUF file stands for, by name.
///
/// # Errors
/// An architecture or tokenizer that is not read; keys that are missing or of a wrong type; a damaged file.
pub fn folder_files(file: &Gguf) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let [config, generation] = config::json(file)?;
    let [tokenizer, tokenizer_config] = tokenizer::json(file)?;
    let bytes = |value: serde_json::Value| format!("{value:#}\n").into_bytes();
    Ok(vec![
        ("config.json", bytes(config)),
        ("generation_config.json", bytes(generation)),
        ("tokenizer.json", tokenizer.to_string().into_bytes()),
        ("tokenizer_config.json", bytes(tokenizer_config)),
    ])
}
