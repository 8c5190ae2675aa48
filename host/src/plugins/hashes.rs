//! Hashes of library files, cached from run to run.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fs, io};

use plugin_api_load::Identity;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::files;
use crate::runs::disk::{hex, sha256_of_open, write_durably};

/// Hashes of libraries, which may be hundreds of megabytes in size. Cached in a file in the runs folder, by file
/// identity.
#[derive(Debug)]
pub struct Hashes {
    path: PathBuf,
    known: Vec<Known>,
    /// Whether there are new hashes to write.
    grown: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Known {
    identity: Identity,
    sha256: String,
}

/// The cache has at most this many entries: those of the libraries used last.
const MOST: usize = 256;
/// A file that changed this shortly before it was hashed is not cached: it may change again without a new
/// modification time.
const SETTLED: Duration = Duration::from_secs(2);

impl Hashes {
    /// Reads the hashes cached in the runs folder. A damaged or unreadable cache counts as empty.
    pub fn open(runs: &Path) -> Hashes {
        let path = runs.join(".cache").join("libraries");
        let text = files::read_to_string(&path).unwrap_or_default();
        let known = text.split_once('\n').filter(|(seal, rest)| *seal == seal_of(rest));
        let known = known.and_then(|(_, rest)| serde_json::from_str(rest).ok()).unwrap_or_default();
        Hashes { path, known, grown: false }
    }

    /// Returns the identity of the file at `path`, and its hash.
    pub(super) fn of(&mut self, path: &Path) -> Result<(Identity, String)> {
        let failed = |cause| Error::request(format!("cannot read {}", path.display())).with_cause(cause);
        let file = files::open(path).map_err(failed)?;
        let which = || file.metadata().map(|metadata| Identity::from(&metadata)).map_err(failed);
        let identity = which()?;
        if let Some(known) = self.known.iter().find(|known| known.identity == identity) {
            return Ok((identity, known.sha256.clone()));
        }
        let (_, sha256) = sha256_of_open(&file).map_err(failed)?;
        if which()? != identity {
            return Err(failed(io::Error::other("it changed while it was read")));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let changed = Duration::from_secs(u64::try_from(identity.changed.0.max(identity.modified.0)).unwrap_or(0));
        if changed + SETTLED < now {
            self.known.push(Known { identity, sha256: sha256.clone() });
            self.grown = true;
        }
        Ok((identity, sha256))
    }

    /// Writes the cache. The cache only saves time, so a folder that cannot be written to is not an error.
    pub fn save(&mut self) {
        if !std::mem::take(&mut self.grown) {
            return;
        }
        // Keep what another process hashed meanwhile.
        let mut known = Hashes::open(self.path.parent().and_then(Path::parent).unwrap_or(Path::new("."))).known;
        known.retain(|other| self.known.iter().all(|own| own.identity != other.identity));
        known.extend(self.known.iter().cloned());
        known.drain(..known.len().saturating_sub(MOST));
        let Ok(rest) = serde_json::to_string(&known) else { return };
        let folder = self.path.parent().unwrap_or(Path::new("."));
        if fs::create_dir_all(folder).is_ok() {
            _ = write_durably(&self.path, format!("{}\n{rest}", seal_of(&rest)).as_bytes());
        }
    }
}

fn seal_of(text: &str) -> String {
    hex(&Sha256::digest(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a cached hash that is used for a file that has changed since, a hash that is computed again for an
    /// unchanged file, and a damaged cache that is trusted.
    #[test]
    fn a_cached_hash_is_used_only_for_the_unchanged_file() {
        let folder = tempfile::tempdir().unwrap();
        let (library, kept) = (folder.path().join("lib.so"), folder.path().join(".cache/libraries"));
        fs::write(&library, "abc").unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let mut hashes = Hashes::open(folder.path());
        assert_eq!(hashes.of(&library).unwrap().1, abc);
        hashes.save();
        assert!(!kept.exists(), "it changed a moment ago, and may change again in the same tick of the clock");
        std::thread::sleep(SETTLED + Duration::from_millis(1100));
        assert_eq!(hashes.of(&library).unwrap().1, abc);
        hashes.save();
        let whole = fs::read_to_string(&kept).unwrap();
        assert!(whole.contains(abc));
        // If the cache were not trusted, the hash would be computed.
        let marked = |text: &str| {
            let (_, rest) = text.split_once('\n').unwrap();
            let rest = rest.replace(abc, &"f".repeat(64));
            format!("{}\n{rest}", seal_of(&rest))
        };
        fs::write(&kept, marked(&whole)).unwrap();
        assert_eq!(Hashes::open(folder.path()).of(&library).unwrap().1, "f".repeat(64));
        fs::write(&kept, whole.replace(abc, &"f".repeat(64))).unwrap();
        assert_eq!(Hashes::open(folder.path()).of(&library).unwrap().1, abc);
        fs::write(&kept, marked(&whole)).unwrap();
        fs::write(&library, "abd").unwrap();
        let now = Hashes::open(folder.path()).of(&library).unwrap().1;
        assert!(now != abc && now != "f".repeat(64), "{now}");
        fs::write(&kept, "").unwrap();
        assert_eq!(Hashes::open(folder.path()).of(&library).unwrap().1, now);
    }
}
