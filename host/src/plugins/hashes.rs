//! Hashes of libraries, kept from run to run.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fs, io};

use plugin_api_load::Identity;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::files;
use crate::runs::disk::{hex, sha256_of_open, write_durably};

/// Hashes of libraries, which may weigh hundreds of megabytes: kept in a file beside the runs, under which file it was.
#[derive(Debug)]
pub struct Hashes {
    path: PathBuf,
    known: Vec<Known>,
    /// Whether there is something to write.
    grown: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Known {
    identity: Identity,
    sha256: String,
}

/// The file has this many entries at most: of the libraries used last.
const MOST: usize = 256;
/// A file that changed so shortly before it was hashed may change again without another time: it is not kept.
const SETTLED: Duration = Duration::from_secs(2);

impl Hashes {
    /// The hashes kept in the folder of runs. A file that is damaged or cannot be read keeps none.
    pub fn open(runs: &Path) -> Hashes {
        let path = runs.join(".cache").join("libraries");
        let text = files::read_to_string(&path).unwrap_or_default();
        let known = text.split_once('\n').filter(|(seal, rest)| *seal == seal_of(rest));
        let known = known.and_then(|(_, rest)| serde_json::from_str(rest).ok()).unwrap_or_default();
        Hashes { path, known, grown: false }
    }

    /// Which file `path` is, and its hash.
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

    /// Writes what was hashed. It only saves time, so a folder that cannot be written is no failure.
    pub fn save(&mut self) {
        if !std::mem::take(&mut self.grown) {
            return;
        }
        // What another process hashed meanwhile stays.
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

    /// Catches a hash that is kept for a file that changed since, one that is computed again for a file that did not, and a damaged
    /// file of hashes that is believed.
    #[test]
    fn a_hash_is_kept_for_the_file_it_was_computed_from() {
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
        // Had it not been believed, the hash would be computed.
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
