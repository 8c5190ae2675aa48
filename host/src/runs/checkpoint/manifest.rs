//! `manifest.json`, the last file of a checkpoint: lists the other files byte for byte; the checkpoint is intact if
//! they agree.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::super::disk::{self, hex};
use crate::error::{Error, Result};
use crate::files;

/// The manifest's file name.
pub const MANIFEST: &str = "manifest.json";

/// The format version of this file; a newer one is refused.
const FORMAT: u32 = 1;

/// The content of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Format version.
    pub format: u32,
    /// Optimizer steps done.
    pub step: u64,
    /// Whether it was the best so far when it was saved.
    pub best: bool,
    /// Every other file, by path.
    pub files: Vec<FileEntry>,
    /// sha256 of this manifest with this field empty, so that damage to the manifest itself is detected.
    pub sha256: String,
}

/// One file of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Path below the checkpoint's folder.
    pub path: String,
    /// Length in bytes.
    pub bytes: u64,
    /// sha256 of the content, in lower-case hexadecimal.
    pub sha256: String,
}

impl Manifest {
    /// Describes the files in `folder`.
    pub(super) fn of(folder: &Path, step: u64, best: bool) -> Result<Self> {
        let mut files = Vec::new();
        for path in files_below(folder)? {
            let (bytes, sha256) = disk::sha256_file(&folder.join(&path)).map_err(|cause| {
                Error::run(format!("cannot read {}", disk::shown(&folder.join(&path)).display())).with_cause(cause)
            })?;
            files.push(FileEntry { path, bytes, sha256 });
        }
        let mut manifest = Self { format: FORMAT, step, best, files, sha256: String::new() };
        manifest.sha256 = manifest.seal();
        Ok(manifest)
    }

    /// The manifest as the file's bytes.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text.into_bytes()
    }

    /// Reads the manifest in `folder`, and returns the reason if it is not valid; reads no other file.
    pub(super) fn read(folder: &Path) -> Result<Self, String> {
        let bytes = files::read(&folder.join(MANIFEST)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => format!("it has no {MANIFEST}, so it was never finished"),
            _ => format!("{MANIFEST} cannot be read: {error}"),
        })?;
        Self::parse(&bytes)
    }

    /// Parses a manifest from its file's bytes, and returns the reason if it is not valid.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let manifest: Self =
            serde_json::from_slice(bytes).map_err(|error| format!("{MANIFEST} is damaged: {error}"))?;
        if manifest.format > FORMAT {
            return Err(format!("{MANIFEST} has format {}, and this version of telos reads {FORMAT}", manifest.format));
        }
        if manifest.sha256 != manifest.seal() || manifest.to_bytes() != bytes {
            return Err(format!("{MANIFEST} is damaged: its own sha256 differs"));
        }
        Ok(manifest)
    }

    /// Whether a file with the manifest's name was written by Telos, damaged or not, and not by another program.
    pub(super) fn is_telos(bytes: &[u8]) -> bool {
        let text = String::from_utf8_lossy(bytes);
        ["\"format\"", "\"step\"", "\"best\"", "\"files\""].iter().filter(|key| text.contains(**key)).count() >= 3
    }

    /// Reads the manifest in `folder` and every file it lists, from the disk; returns what is wrong if anything is.
    pub(super) fn verify(folder: &Path) -> Result<Self, String> {
        Self::verify_those(folder, |_| true)
    }

    /// As [`Self::verify`], only for files for whose path `is_included` returns true.
    pub(super) fn verify_those(folder: &Path, is_included: impl Fn(&str) -> bool) -> Result<Self, String> {
        let manifest = Self::read(folder)?;
        for file in manifest.files.iter().filter(|file| is_included(&file.path)) {
            let path = Path::new(&file.path);
            if !path.components().all(|part| matches!(part, Component::Normal(_))) {
                return Err(format!("{MANIFEST} names a file outside the checkpoint: {}", file.path));
            }
            let (bytes, sha256) =
                disk::sha256_from_disk(&folder.join(path)).map_err(|error| format!("{}: {error}", file.path))?;
            if bytes != file.bytes {
                return Err(format!("{} has {bytes} bytes instead of {}", file.path, file.bytes));
            }
            if sha256 != file.sha256 {
                return Err(format!("{} is damaged: its sha256 differs", file.path));
            }
        }
        Ok(manifest)
    }

    fn seal(&self) -> String {
        let open = Self { sha256: String::new(), ..self.clone() };
        hex(&Sha256::digest(open.to_bytes()))
    }
}

/// Paths of the files below `folder`, relative to it, in order, except [`MANIFEST`] at the top.
fn files_below(folder: &Path) -> Result<Vec<String>> {
    let failed =
        |path: &Path, cause| Error::run(format!("cannot list {}", disk::shown(path).display())).with_cause(cause);
    let (mut found, mut open) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(below) = open.pop() {
        let here = folder.join(&below);
        for entry in fs::read_dir(&here).map_err(|cause| failed(&here, cause))? {
            let entry = entry.map_err(|cause| failed(&here, cause))?;
            let path = below.join(entry.file_name());
            if entry.path().is_dir() {
                open.push(path);
                continue;
            }
            let Some(name) = path.to_str() else {
                return Err(Error::run(format!("the name of {} is not UTF-8", disk::shown(&entry.path()).display())));
            };
            found.push(name.to_owned());
        }
    }
    found.retain(|name| name != MANIFEST);
    found.sort();
    Ok(found)
}

/// The files below `folder` that its manifest does not name; `None` if there is no valid manifest.
pub(super) fn foreign_files(folder: &Path) -> Option<Vec<String>> {
    let manifest = Manifest::read(folder).ok()?;
    let is_named = |name: &String| manifest.files.iter().any(|file| file.path == *name);
    files_below(folder).ok().map(|found| found.into_iter().filter(|name| !is_named(name)).collect())
}

/// The folders below `folder`, and `folder` itself last. Syncing them in this order makes each name durable, from
/// the inside outwards.
pub(super) fn folders_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![folder.to_path_buf()];
    let mut next = 0;
    while let Some(here) = found.get(next).cloned() {
        let entries = fs::read_dir(here).into_iter().flatten().flatten().map(|entry| entry.path());
        found.extend(entries.filter(|path| path.is_dir()));
        next += 1;
    }
    found.reverse();
    found
}
