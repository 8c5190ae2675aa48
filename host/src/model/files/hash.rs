//! The sha256 of a model's weights. A process reads each file for it once, as long as the file does not change.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use plugin_api_load::Identity;
use sha2::{Digest, Sha256};

use super::weights::weight_files;
use crate::data::cache::hex;
use crate::error::{Error, Result};
use crate::runs::disk::sha256_file;

/// A file of weights at the time at which it was looked at.
type Seen = (PathBuf, Identity);

/// The hashes of the files that this process has read.
static READ: Mutex<BTreeMap<Seen, String>> = Mutex::new(BTreeMap::new());

/// The files of a model's weights as they were at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenWeights(Vec<Seen>);

impl SeenWeights {
    /// Looks at the weights in `folder`, of which nothing is read.
    ///
    /// # Errors
    /// No weights; files that the system cannot inspect.
    pub fn of(folder: &Path) -> Result<SeenWeights> {
        let seen = |file: PathBuf| Ok((file.clone(), identity(&file)?));
        weight_files(folder)?.into_iter().map(seen).collect::<Result<_>>().map(SeenWeights)
    }

    /// Returns the sha256 of the one file; of several, that of the lines of `sha256sum` for them, sorted by name.
    ///
    /// # Errors
    /// Files that cannot be read, or that have changed since they were looked at and were not hashed before.
    pub fn sha256(&self) -> Result<String> {
        let hashes: Vec<String> = self.0.iter().map(hash).collect::<Result<_>>()?;
        if let [only] = &hashes[..] {
            return Ok(only.clone());
        }
        let line = |((file, _), hash): (&Seen, &String)| {
            format!("{hash}  {}\n", file.file_name().unwrap_or_default().display())
        };
        let lines: String = self.0.iter().zip(&hashes).map(line).collect();
        Ok(hex(&Sha256::digest(lines)))
    }
}

/// Returns the sha256 of the weights that are now in `folder`, as [`SeenWeights::sha256`].
///
/// # Errors
/// No weights, or files that cannot be read.
pub fn weights_sha256(folder: &Path) -> Result<String> {
    SeenWeights::of(folder)?.sha256()
}

/// Returns the sha256 of a file as it is now.
///
/// # Errors
/// A file that cannot be read.
pub fn file_sha256(file: &Path) -> Result<String> {
    hash(&(file.to_owned(), identity(file)?))
}

/// Whether two folders contain the same weights, in files of the same names.
///
/// # Errors
/// No weights, or files that cannot be read.
pub fn same_weights(a: &Path, b: &Path) -> Result<bool> {
    let canonical = |path: &Path| path.canonicalize().ok();
    if canonical(a) == canonical(b) {
        return Ok(true);
    }
    Ok(weights_sha256(a)? == weights_sha256(b)?)
}

fn hash(seen: &Seen) -> Result<String> {
    let (file, then) = seen;
    let known = |seen: &Seen| READ.lock().unwrap_or_else(PoisonError::into_inner).get(seen).cloned();
    if let Some(known) = known(seen) {
        return Ok(known);
    }
    let (_, sha256) = sha256_file(file).map_err(unreadable(file))?;
    if identity(file)? != *then {
        return Err(Error::run(format!("{} changed while it was in use", file.display()))
            .with_hint("start again once nothing writes there"));
    }
    if is_settled(then.changed) {
        READ.lock().unwrap_or_else(PoisonError::into_inner).insert(seen.clone(), sha256.clone());
    }
    Ok(sha256)
}

/// Whether a write now gives another time than this one, in seconds and nanoseconds: the clock of a file system has steps of some
/// milliseconds.
fn is_settled((seconds, nanoseconds): (i64, i64)) -> bool {
    let changed = Duration::new(seconds.try_into().unwrap_or(0), nanoseconds.try_into().unwrap_or(0));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(changed) > Duration::from_secs(1)
}

fn identity(file: &Path) -> Result<Identity> {
    fs::metadata(file).map(|file| Identity::from(&file)).map_err(unreadable(file))
}

fn unreadable(file: &Path) -> impl Fn(std::io::Error) -> Error {
    move |cause| Error::run(format!("cannot read {}", file.display())).with_cause(cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches sharded weights without a hash, a hash of only the first shard, and one that depends on the order of the folder.
    #[test]
    fn every_shard_counts() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        let hash = || weights_sha256(folder.path()).unwrap();
        write("model.safetensors.index.json", r#"{"weight_map": {"b": "2.safetensors", "a": "1.safetensors"}}"#);
        write("1.safetensors", "abc");
        write("2.safetensors", "de");
        // printf '%s' abc > 1.safetensors; printf '%s' de > 2.safetensors; sha256sum *.safetensors | sha256sum
        assert_eq!(hash(), "454c24c63aace23758313d508dbcd87bae41effbf651afb9d31910edcee0943f");
        write("2.safetensors", "df");
        assert_ne!(hash(), "454c24c63aace23758313d508dbcd87bae41effbf651afb9d31910edcee0943f");
        write("model.safetensors", "abc");
        assert_eq!(hash(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    /// Catches a hash of the weights that are in the folder now, for a model that was loaded before they were replaced, and one that is
    /// lost with the file although it was read.
    #[test]
    fn weights_that_were_looked_at_are_not_those_that_replaced_them() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("model.safetensors");
        let replaced = || {
            fs::write(folder.path().join("new"), "abd").unwrap();
            fs::rename(folder.path().join("new"), &file).unwrap();
        };
        fs::write(&file, "abc").unwrap();
        let seen = SeenWeights::of(folder.path()).unwrap();
        replaced();
        assert!(seen.sha256().unwrap_err().report().contains("changed while it was in use"));
        fs::write(&file, "abc").unwrap();
        let seen = SeenWeights::of(folder.path()).unwrap();
        // As if the file had been old when it was read.
        READ.lock().unwrap().insert(seen.0[0].clone(), "known".to_owned());
        replaced();
        assert_eq!(seen.sha256().unwrap(), "known");
        assert_ne!(weights_sha256(folder.path()).unwrap(), "known");
    }

    /// Catches a hash that is kept although the next write may leave the file's times as they are.
    #[test]
    fn a_file_that_was_just_written_is_not_settled() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a");
        fs::write(&file, "abc").unwrap();
        let (seconds, nanoseconds) = identity(&file).unwrap().changed;
        assert!(!is_settled((seconds, nanoseconds)) && is_settled((seconds - 10, nanoseconds)));
    }
}
