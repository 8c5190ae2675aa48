//! Durable filesystem steps: every change of a checkpoint's folder is made here, one call per step.
//!
//! They are in one place for two reasons: each step syncs what it must and names its path when it fails, and a test
//! can stop the program before any of them. How the steps are combined is defined in [`super::checkpoint`].

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::files;

/// The disk; in a test, one that may stop before a chosen step.
#[derive(Debug, Default, Clone)]
pub(super) struct Disk {
    #[cfg(test)]
    pub(super) faults: Option<std::sync::Arc<super::checkpoint::faults::Faults>>,
}

impl Disk {
    /// Creates a folder and its missing parents.
    pub(super) fn make_folder(&self, path: &Path) -> Result<()> {
        self.step("make", path).and_then(|()| fs::create_dir_all(path)).map_err(failed("create", path))
    }

    /// Writes a file and makes its bytes durable, but not yet its name, for which the folder must be synced.
    pub(super) fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let write = || {
            self.step("create", path)?;
            let mut file = File::create(path)?;
            self.step("write", path)?;
            file.write_all(bytes)
        };
        write().map_err(failed("write", path))?;
        self.sync(path)
    }

    /// Makes a file's bytes, or a folder's names, durable.
    pub(super) fn sync(&self, path: &Path) -> Result<()> {
        let sync = || {
            self.step("sync", path)?;
            let file = File::open(path)?;
            #[cfg(test)]
            if let Some(faults) = &self.faults {
                return faults.synced(&file);
            }
            file.sync_all()
        };
        sync().map_err(failed("make durable", path))
    }

    /// Moves a file or folder within one filesystem.
    pub(super) fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let moved = self.step("rename", to).and_then(|()| fs::rename(from, to));
        moved.map_err(|cause| {
            Error::run(format!("cannot rename {} to {}", shown(from).display(), shown(to).display())).with_cause(cause)
        })
    }

    /// Removes a file, or a folder with everything in it; does nothing if there is neither.
    pub(super) fn remove(&self, path: &Path) -> Result<()> {
        let remove = || {
            let Ok(kind) = fs::symlink_metadata(path) else { return Ok(()) };
            if !kind.is_dir() {
                self.step("remove", path)?;
                return fs::remove_file(path);
            }
            for entry in fs::read_dir(path)? {
                self.remove(&entry?.path()).map_err(io::Error::other)?;
            }
            self.step("remove", path)?;
            fs::remove_dir(path)
        };
        remove().map_err(failed("remove", path))
    }

    /// Replaces the content of `path` with `bytes` by one rename: a reader sees the old content or the new, and
    /// never a part.
    pub(super) fn replace(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let temporary = temporary(path);
        let moved = self.write(&temporary, bytes).and_then(|()| self.rename(&temporary, path));
        if moved.is_err() {
            // If it cannot be removed now, it is removed at the next start.
            _ = self.remove(&temporary);
        }
        moved
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "a test's disk counts steps and may stop here")]
    fn step(&self, _what: &'static str, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    #[cfg(test)]
    fn step(&self, what: &'static str, path: &Path) -> io::Result<()> {
        self.faults.as_ref().map_or(Ok(()), |faults| faults.step(what, path))
    }
}

/// Replaces the content of `path` with `bytes` by one rename and makes both content and name durable.
///
/// # Errors
/// The path and the system's error; the old file then still exists.
pub fn write_durably(path: &Path, bytes: &[u8]) -> Result<()> {
    let disk = Disk::default();
    disk.replace(path, bytes)?;
    // A name without a folder is in the current folder, whose path is not "".
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    disk.sync(folder.unwrap_or(Path::new(".")))
}

/// Writes `value` as indented JSON, by [`write_durably`].
///
/// # Errors
/// The path and the cause.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let bytes = serde_json::to_vec_pretty(value).map_err(|cause| failed("write", path)(cause.into()))?;
    write_durably(path, &bytes)
}

/// Reads a file of JSON; `None` if it does not exist.
///
/// # Errors
/// The file cannot be read, or is damaged.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let failed = || Error::run(format!("cannot read {}", shown(path).display()));
    match files::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|cause| failed().with_cause(cause)),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(failed().with_cause(cause)),
    }
}

/// Gives the file `from`, whose bytes are durable, the name `to`, and makes that durable.
///
/// # Errors
/// The path and the system's error.
pub fn make_durable(from: &Path, to: &Path) -> Result<()> {
    let disk = Disk::default();
    disk.rename(from, to)?;
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty());
    disk.sync(folder.unwrap_or(Path::new(".")))
}

/// Length and sha256 (lower-case hexadecimal) of a file.
///
/// # Errors
/// The system's error.
pub fn sha256_file(path: &Path) -> io::Result<(u64, String)> {
    hash(&files::open(path)?)
}

/// As [`sha256_file`], for an open file, from its current position.
///
/// # Errors
/// The system's error.
pub fn sha256_of_open(file: &File) -> io::Result<(u64, String)> {
    hash(file)
}

/// As [`sha256_file`], but reads the disk and not the system's cache of it, if the system allows that.
pub(super) fn sha256_from_disk(path: &Path) -> io::Result<(u64, String)> {
    let file = files::open(path)?;
    #[cfg(not(target_vendor = "apple"))]
    {
        // Only advice: pages that are already synced are dropped. If they are not dropped, the same bytes are read.
        _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
    }
    hash(&file)
}

/// Bytes in lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hash(mut file: &File) -> io::Result<(u64, String)> {
    let (mut hash, mut length, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((length, hex(&hash.finalize()))),
            Ok(count) => {
                hash.update(buffer.get(..count).unwrap_or_default());
                length += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Prefix of an unfinished file or folder.
pub(super) const UNFINISHED: &str = ".tmp-";

/// The path to which a file is written before it gets its name; the process's number distinguishes a leftover from
/// a file in use.
fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{UNFINISHED}{name}-{}", std::process::id()))
}

/// Whether an interrupted write left a file or folder of this name.
pub(crate) fn is_unfinished(name: &OsStr) -> bool {
    name.to_string_lossy().starts_with(UNFINISHED)
}

/// Whether interrupted writes left anything in `folder`.
pub fn holds_unfinished(folder: &Path) -> bool {
    let mut entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.any(|entry| is_unfinished(&entry.file_name()))
}

/// Removes what interrupted writes left in `folder`, in which only this process writes.
///
/// # Errors
/// What cannot be listed or removed.
pub fn remove_unfinished(folder: &Path) -> Result<()> {
    remove_unfinished_by(folder, |_| true)
}

/// The age from which on no process can still be writing a file.
const ABANDONED: Duration = Duration::from_secs(3600);

/// As [`remove_unfinished`], for a folder in which several processes write, maybe on other machines: files touched
/// within the last hour stay.
///
/// # Errors
/// What cannot be listed or removed.
pub fn remove_abandoned(folder: &Path) -> Result<()> {
    let age = |name: &str| folder.join(name).symlink_metadata().ok()?.modified().ok()?.elapsed().ok();
    remove_unfinished_by(folder, |name| age(name).is_some_and(|age| age > ABANDONED))
}

fn remove_unfinished_by(folder: &Path, is_left: impl Fn(&str) -> bool) -> Result<()> {
    let entries = fs::read_dir(folder).map_err(failed("list", folder))?;
    for entry in entries {
        let name = entry.map_err(failed("list", folder))?.file_name();
        if is_unfinished(&name) && is_left(&name.to_string_lossy()) {
            Disk::default().remove(&folder.join(name))?;
        }
    }
    Ok(())
}

/// Makes the names in a folder durable.
///
/// # Errors
/// The path and the system's error.
pub fn sync_folder(path: &Path) -> Result<()> {
    Disk::default().sync(path)
}

/// Where the system lists the open files of a process.
const OPEN_FILES: &str = "/proc/self/fd";

/// A path that leads to an open folder even if the folder is moved; `None` if the system has no such paths.
pub(super) fn descriptor_path(folder: &File) -> Option<PathBuf> {
    cfg!(target_os = "linux").then(|| Path::new(OPEN_FILES).join(folder.as_raw_fd().to_string()))
}

/// The path in the form to show to the user: a path through an open folder is replaced by the folder's current
/// path.
pub fn shown(path: &Path) -> PathBuf {
    let place = || {
        let mut rest = path.strip_prefix(OPEN_FILES).ok()?.components();
        let folder = fs::read_link(Path::new(OPEN_FILES).join(rest.next()?)).ok()?;
        Some(folder.join(rest.as_path()))
    };
    place().unwrap_or_else(|| path.to_owned())
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = shown(path);
    move |cause| Error::run(format!("cannot {doing} {}", path.display())).with_cause(cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a hash that stops at the end of its buffer, or counts other bytes than it hashes.
    #[test]
    fn sha256_of_a_file_longer_than_the_buffer_is_that_of_its_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let bytes: Vec<u8> = (0..(1usize << 20) + 7).map(|i| (i % 251) as u8).collect();
        write_durably(&path, &bytes).unwrap();
        let expected = (bytes.len() as u64, hex(&Sha256::digest(&bytes)));
        assert_eq!(sha256_file(&path).unwrap(), expected);
        assert_eq!(sha256_from_disk(&path).unwrap(), expected);
    }

    /// Catches a replacement that fails and leaves its temporary file, or does not name the path.
    #[test]
    fn a_failed_replacement_leaves_nothing_and_names_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let taken = folder.path().join("taken");
        fs::create_dir_all(taken.join("full")).unwrap();
        let error = write_durably(&taken, b"x").unwrap_err();
        assert!(error.message().contains("taken"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
