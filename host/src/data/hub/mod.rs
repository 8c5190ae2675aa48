//! Models and data of the Hugging Face hub, named as `hf:org/name`: parsed, downloaded into the hub's cache, and pinned to a commit.
//!
//! | file | job |
//! |---|---|
//! | [`id`] | the names: `hf:org/name/path@revision`, `hf:datasets/org/name` |
//! | `settings` | the cache, the address and the token, from the environment as the Python library reads it |
//! | `wanted` | which files of a repository are needed |
//! | `fetch` | downloads, by the `hf-hub` crate |
//!
//! A process resolves each name once, so that everything in it reads the same commit. The commits stand in the receipt, and a
//! resumed run pins them before anything is read.

mod fetch;
pub mod id;
mod settings;
#[cfg(test)]
mod tests;
mod wanted;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use crate::data::error::Result;
use fetch::{Need, Repository};
use id::{Id, Kind};
use settings::Settings;

/// A commit that this process has resolved, or that a receipt pinned.
struct Resolved {
    commit: String,
    /// Whether a receipt pinned it.
    is_pinned: bool,
    /// Its folder in the cache, once it is known.
    snapshot: Option<PathBuf>,
}

/// By the names' keys.
static RESOLVED: Mutex<BTreeMap<String, Resolved>> = Mutex::new(BTreeMap::new());

/// Returns the folder, or the GGUF file, of a model of the hub; `None` if `path` does not begin with "hf:".
///
/// # Errors
/// A name that is not valid; no network; a repository, revision or file that does not exist; weights in a format that is not read.
pub fn model(path: &Path) -> Result<Option<PathBuf>> {
    let Some(id) = Id::parse(&path.to_string_lossy(), Kind::Model)? else { return Ok(None) };
    with(&id, Need::Whole, |repository| repository.model()).map(Some)
}

/// Returns the folder of a model of the hub without its weights, for its tokenizer; `None` if `path` does not begin with "hf:".
///
/// # Errors
/// As [`model`].
pub fn tokenizer(path: &Path) -> Result<Option<PathBuf>> {
    let Some(id) = Id::parse(&path.to_string_lossy(), Kind::Model)? else { return Ok(None) };
    with(&id, Need::Small, |repository| repository.tokenizer()).map(Some)
}

/// Returns the data files of the hub that `path` stands for; `None` if it does not begin with "hf:".
///
/// # Errors
/// As [`model`]; several files of which none is named.
pub fn data(path: &str) -> Result<Option<Vec<PathBuf>>> {
    let Some(id) = Id::parse(path, Kind::Dataset)? else { return Ok(None) };
    with(&id, Need::Whole, |repository| repository.data()).map(Some)
}

/// Whether `path` is written as the name of a model of the hub.
pub fn is_named(path: &str) -> bool {
    !matches!(Id::parse(path, Kind::Model), Ok(None))
}

fn with<T>(id: &Id, need: Need, read: impl FnOnce(&Repository<'_>) -> Result<T>) -> Result<T> {
    let settings = Settings::from_env()?;
    let mut resolved = RESOLVED.lock().unwrap_or_else(PoisonError::into_inner);
    let known = resolved.get(&id.key());
    let is_pinned = known.is_some_and(|known| known.is_pinned);
    let mut repository = Repository::open(id, &settings, known.map(|known| known.commit.as_str()), need)?;
    repository.follows = !is_pinned;
    let found = read(&repository)?;
    let (commit, snapshot) = (repository.commit().to_owned(), Some(repository.snapshot()));
    resolved.insert(id.key(), Resolved { commit, is_pinned, snapshot });
    Ok(found)
}

/// Pins names to commits, by their keys in a receipt.
pub fn pin(commits: &BTreeMap<String, String>) {
    let mut resolved = RESOLVED.lock().unwrap_or_else(PoisonError::into_inner);
    let pinned = |commit: &String| Resolved { commit: commit.clone(), is_pinned: true, snapshot: None };
    resolved.extend(commits.iter().map(|(key, commit)| (key.clone(), pinned(commit))));
}

/// Returns the name of a path in the hub's cache for a receipt, which names no folder of this machine; other paths as they are.
pub fn shown(path: &Path) -> String {
    let resolved = RESOLVED.lock().unwrap_or_else(PoisonError::into_inner);
    let name = resolved.iter().find_map(|(key, known)| {
        let rest = path.strip_prefix(known.snapshot.as_ref()?).ok()?;
        let rest = rest.to_string_lossy();
        Some(if rest.is_empty() { key.clone() } else { format!("{key}/{rest}") })
    });
    name.unwrap_or_else(|| path.display().to_string())
}

/// Returns the name of a path in the hub's cache, with the commit as its revision; `None` for other paths.
pub fn named(path: &Path) -> Option<Id> {
    let resolved = RESOLVED.lock().unwrap_or_else(PoisonError::into_inner);
    resolved.iter().find_map(|(key, known)| named_in(path, key, known))
}

fn named_in(path: &Path, key: &str, known: &Resolved) -> Option<Id> {
    let rest = path.strip_prefix(known.snapshot.as_ref()?).ok()?.to_string_lossy();
    let id = Id::parse(key, Kind::Model).ok()??;
    Some(Id { path: (!rest.is_empty()).then(|| rest.into_owned()), revision: known.commit.clone(), ..id })
}

/// Returns the commits of all names of the hub in an experiment, and of those by which this process found `folders`: an adapter names
/// its base in its own files.
pub fn commits_of(experiment: &Value, folders: &[PathBuf]) -> BTreeMap<String, String> {
    let resolved = RESOLVED.lock().unwrap_or_else(PoisonError::into_inner);
    let is_of = |known: &Resolved, folder: &PathBuf| known.snapshot.as_ref().is_some_and(|own| folder.starts_with(own));
    let named = resolved.iter().filter(|(_, known)| folders.iter().any(|folder| is_of(known, folder)));
    let mut found: BTreeMap<_, _> = named.map(|(key, known)| (key.clone(), known.commit.clone())).collect();
    let mut open = vec![experiment];
    while let Some(value) = open.pop() {
        match value {
            Value::Array(values) => open.extend(values),
            Value::Object(values) => open.extend(values.values()),
            Value::String(text) => {
                for kind in [Kind::Model, Kind::Dataset] {
                    let Ok(Some(id)) = Id::parse(text, kind) else { continue };
                    found.extend(resolved.get(&id.key()).map(|known| (id.key(), known.commit.clone())));
                }
            }
            _ => {}
        }
    }
    found
}
