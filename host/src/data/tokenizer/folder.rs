//! The files of a tokenizer's folder: which are read, and how. A file that exists but is of another kind than its name
//! implies is an error that names the file; it is never replaced by a guess.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::data::error::{DataError, Result};
use crate::data::gguf;
use crate::data::reading::foreign;
use crate::data::reading::inputs::Inputs;
use crate::data::source::Source;
use crate::files;

/// The file of the tokenizer itself.
pub(super) const JSON: &str = "tokenizer.json";
/// The file of its settings.
pub(super) const CONFIG: &str = "tokenizer_config.json";
/// Special tokens in the layout of transformers 4.
pub(super) const SPECIAL_TOKENS: &str = "special_tokens_map.json";
/// Added tokens in the layout of transformers 4, text to id.
pub(super) const ADDED_TOKENS: &str = "added_tokens.json";
/// The chat template; it takes precedence over those in `tokenizer_config.json`.
pub(super) const TEMPLATE: &str = "chat_template.jinja";
/// The chat template as transformers' processors store it: `{"chat_template": ...}`.
pub(super) const TEMPLATE_JSON: &str = "chat_template.json";
/// Folder of further chat templates, one file `NAME.jinja` each.
pub(super) const TEMPLATES: &str = "additional_chat_templates";

/// A tokenizer's files as read.
pub(super) struct Folder {
    /// The path of `tokenizer.json`, for messages.
    pub name: String,
    /// Its bytes.
    pub json: Vec<u8>,
    /// The other files, by their path in the folder.
    pub other_files: BTreeMap<String, Vec<u8>>,
    /// All files that were read.
    pub read: Vec<Source>,
}

impl Folder {
    /// Reads a `tokenizer.json`, or a folder that contains one, with the other files of the folder.
    ///
    /// # Errors
    /// A file that is missing, unreadable, or a Git LFS pointer; a tokenizer in another format.
    pub fn read(path: &Path) -> Result<Folder> {
        if let Some(file) = gguf::at(path)? {
            return Folder::of(&file, JSON);
        }
        let file = if path.is_dir() { path.join(JSON) } else { path.to_owned() };
        if files::is_missing(&file) {
            let other = foreign::other_tokenizer(path).filter(|_| path.is_dir());
            return Err(match other {
                Some((what, remedy)) => DataError::Unusable { path: path.to_owned(), what, remedy, source: None },
                None if path.is_dir() => DataError::Missing(file),
                None => foreign::missing(path),
            });
        }
        if file.extension().is_some_and(|ending| ending == "model") {
            let folder = file.parent().unwrap_or(Path::new(".")).display().to_string();
            let what = "is a sentencepiece model; expected a tokenizer.json".into();
            let remedy = foreign::convert_tokenizer(if folder.is_empty() { "." } else { &folder });
            return Err(DataError::Unusable { path: file, what, remedy, source: None });
        }
        let folder = file.parent().unwrap_or(Path::new("."));
        Folder::of(folder, &file.file_name().unwrap_or_default().to_string_lossy())
    }

    /// Reads the tokenizer in the file `name` of `folder`.
    fn of(folder: &Path, name: &str) -> Result<Folder> {
        let mut inputs = Inputs::of(folder)?;
        let json = inputs.read(name)?;
        let file = inputs.path(name);
        let mut other_files = BTreeMap::new();
        for name in [SPECIAL_TOKENS, ADDED_TOKENS, TEMPLATE, TEMPLATE_JSON, CONFIG] {
            if inputs.has(name) {
                other_files.insert(name.to_owned(), inputs.read(name)?);
            }
        }
        for name in further_templates(&folder.join(TEMPLATES))? {
            let name = format!("{TEMPLATES}/{name}");
            let bytes = inputs.read(&name)?;
            other_files.insert(name, bytes);
        }
        Ok(Folder { name: file.display().to_string(), json, other_files, read: inputs.noted() })
    }
}

fn further_templates(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(Vec::new()),
        Err(error) => return Err(DataError::io("list", folder)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(DataError::io("list", folder))?.file_name().to_string_lossy().into_owned();
        names.extend(name.ends_with(".jinja").then_some(name));
    }
    names.sort();
    Ok(names)
}

/// The JSON object in the file `name` of the tokenizer `tokenizer`; empty if there is no such file.
///
/// # Errors
/// A file that is not a JSON object.
pub(super) fn object(
    tokenizer: &str,
    other_files: &BTreeMap<String, Vec<u8>>,
    name: &str,
) -> Result<Map<String, Value>> {
    let Some(bytes) = other_files.get(name) else { return Ok(Map::new()) };
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(unusable(tokenizer, name, "is not a JSON object".into(), None)),
        Err(error) => Err(unusable(tokenizer, name, "is not JSON".into(), Some(error.into()))),
    }
}

/// The text in the file `name`; `None` if there is no such file.
///
/// # Errors
/// A file that is not UTF-8.
pub(super) fn text(tokenizer: &str, other_files: &BTreeMap<String, Vec<u8>>, name: &str) -> Result<Option<String>> {
    let Some(bytes) = other_files.get(name) else { return Ok(None) };
    match String::from_utf8(bytes.clone()) {
        Ok(text) => Ok(Some(text)),
        Err(error) => {
            let offset = error.utf8_error().valid_up_to();
            let what = format!("is not UTF-8 text: byte 0x{:02X} at offset {offset}", bytes[offset]);
            Err(unusable(tokenizer, name, what, None))
        }
    }
}

/// The path of the file `name` in the tokenizer's folder. A GGUF file has all of them within it.
pub(super) fn place(tokenizer: &str, name: &str) -> PathBuf {
    match Path::new(tokenizer).parent() {
        Some(gguf) if gguf.is_file() => gguf.to_owned(),
        _ => Path::new(tokenizer).with_file_name(name),
    }
}

/// The error for the file `name` in the tokenizer's folder.
pub(super) fn unusable(
    tokenizer: &str,
    name: &str,
    what: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
) -> DataError {
    let path = place(tokenizer, name);
    let remedy = "transformers does not read it either: restore the file from where the tokenizer came from".into();
    DataError::Unusable { path, what, remedy, source }
}
