//! `plugins.lock`: the hashes of the plugins that a folder of runs was made with, and of the libraries that they
//! load.
//!
//! A plugin is pinned when it is first used. Later, other bytes under the same name stop the run, so that runs made
//! by different code are not compared by mistake. A pin fixes identity, not behaviour: a plugin is trusted code.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use plugin_api::manifest::kind;
use plugin_api_load::{LibraryFile, PluginInfo};
use sha2::{Digest, Sha256};

use super::hashes::Hashes;
use super::lock_file::{self, Pin};
use crate::error::{Error, Result};
use crate::runs::{
    disk::hex,
    file_lock::{Denied, FileLock},
    folder::PLUGINS_LOCK,
    receipt::LibraryUse,
};

/// The file's name.
pub const FILE: &str = PLUGINS_LOCK;

/// The file that a process locks while it writes `plugins.lock`.
const ALONE: &str = ".plugins.lock";

/// How long to wait for another process that writes it.
const PATIENCE: Duration = Duration::from_secs(60);

/// What to do about a plugin whose bytes differ from the pinned ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pinning {
    /// Refuse it.
    #[default]
    Strict,
    /// Accept it and pin it instead (`--update-lock`).
    Update,
    /// Accept it and pin nothing, new plugins included: while a plugin is being written (`--dev`).
    Ignore,
}

/// The pinned plugins of a folder of runs.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    pins: Vec<Pin>,
    pinning: Pinning,
    /// What this process pinned and has not written yet.
    pinned: Vec<Pin>,
    /// Pins whose bytes passed the quick laws in this process and are not written yet.
    proved: Vec<Pin>,
    /// One line for each plugin that was accepted although different bytes are pinned.
    unpinned: Vec<String>,
    /// Kind and id of each plugin whose bytes were accepted without a pin.
    unlisted: Vec<(String, String)>,
    /// Cached hashes of libraries.
    pub(super) hashes: Hashes,
}

impl Lock {
    /// Reads the lock of `folder`; a missing lock has no pins.
    ///
    /// # Errors
    /// A request error with file and line if the lock is damaged, or with the file if it cannot be read.
    pub fn open(folder: &Path, pinning: Pinning) -> Result<Lock> {
        let path = folder.join(FILE);
        // For a run that may replace the lock, a damaged one has no pins.
        let pins = lock_file::read(&path, pinning == Pinning::Update)?;
        let (pinned, proved, unpinned, unlisted) = Default::default();
        let hashes = Hashes::open(folder);
        Ok(Lock { path, pins, pinning, pinned, proved, unpinned, unlisted, hashes })
    }

    /// What to do about changed plugins.
    pub fn pinning(&self) -> Pinning {
        self.pinning
    }

    /// One line for each plugin or library that [`Pinning::Ignore`] accepted although different bytes are pinned.
    pub fn unpinned(&self) -> &[String] {
        &self.unpinned
    }

    /// Compares the plugin in `file`, which is loaded next, with its pin; pins it if it has none. Returns the hash
    /// of the file, in lower-case hexadecimal digits.
    ///
    /// # Errors
    /// A request error with the plugin, the file, both hashes and the fix if the bytes changed.
    pub fn verify(&mut self, plugin: &PluginInfo, file: &LibraryFile) -> Result<String> {
        let found = Pin {
            kind: plugin.kind.clone(),
            id: plugin.id.clone(),
            version: plugin.version.clone(),
            sha256: hex(&Sha256::digest(file.bytes())),
            unproved: plugin.kind == kind::OBJECTIVE,
            libraries: Vec::new(),
        };
        let sha256 = found.sha256.clone();
        match self.pins.iter_mut().find(|pin| pin.is_of(&found)) {
            Some(pin) if pin.same(&found) => return Ok(sha256),
            Some(pin) if pin.sha256 != sha256 && self.pinning == Pinning::Strict => {
                return Err(changed(&self.path, plugin, pin, &found));
            }
            Some(pin) if self.pinning == Pinning::Ignore => {
                let Pin { kind, id, sha256: old, .. } = pin;
                self.unpinned.push(format!("{kind} {id}: pinned sha256 {old}, used {sha256}"));
                self.unlisted.push((found.kind, found.id));
                return Ok(sha256);
            }
            None if self.pinning == Pinning::Ignore => {
                self.unlisted.push((found.kind, found.id));
                return Ok(sha256);
            }
            // Its bytes are the pinned ones, with a different version.
            Some(pin) if pin.sha256 == sha256 => pin.version.clone_from(&found.version),
            Some(pin) => *pin = found.clone(),
            None => self.pins.push(found.clone()),
        }
        self.note_pinned(&found);
        Ok(sha256)
    }

    /// Compares a library that the plugin loads with its pin, which is stored with the plugin's; pins it if it has
    /// none.
    ///
    /// # Errors
    /// A request error with the plugin, the library, both hashes and the fix if the bytes changed.
    pub fn verify_library(&mut self, plugin: &PluginInfo, file: &Path, library: &LibraryUse) -> Result<()> {
        if self.is_unlisted(&plugin.kind, &plugin.id) {
            return Ok(());
        }
        let Some(pin) = self.pins.iter_mut().find(|pin| pin.kind == plugin.kind && pin.id == plugin.id) else {
            return Ok(());
        };
        match pin.library(&library.name) {
            Some(pinned) if pinned == library => return Ok(()),
            Some(pinned) if self.pinning == Pinning::Strict => {
                return Err(changed_library(&self.path, plugin, file, pinned, library));
            }
            Some(pinned) if self.pinning == Pinning::Ignore => {
                let (PluginInfo { kind, id, .. }, LibraryUse { name, sha256 }) = (plugin, library);
                self.unpinned.push(format!("{kind} {id}, {name}: pinned sha256 {}, used {sha256}", pinned.sha256));
                return Ok(());
            }
            None if self.pinning == Pinning::Ignore => return Ok(()),
            Some(pinned) => *pinned = library.clone(),
            None => pin.libraries.push(library.clone()),
        }
        let pin = pin.clone();
        self.note_pinned(&pin);
        Ok(())
    }

    /// Records a pin for [`Lock::save`].
    fn note_pinned(&mut self, pin: &Pin) {
        let now = self.pins.iter().find(|own| own.is_of(pin)).unwrap_or(pin).clone();
        self.pinned.retain(|noted| !noted.is_of(pin));
        self.pinned.push(now);
    }

    fn is_unlisted(&self, kind: &str, id: &str) -> bool {
        self.unlisted.iter().any(|(own_kind, own_id)| own_kind == kind && own_id == id)
    }

    /// Whether a plugin's bytes have not passed the quick laws yet, according to the lock. Bytes that are not
    /// pinned count as not passed.
    pub fn is_unproved(&self, kind: &str, id: &str) -> bool {
        self.pins.iter().any(|pin| pin.kind == kind && pin.id == id && pin.unproved) || self.is_unlisted(kind, id)
    }

    /// Records that the pinned bytes of a plugin have passed the quick laws.
    pub fn prove(&mut self, kind: &str, id: &str) {
        if self.is_unlisted(kind, id) {
            // Different bytes are pinned.
            return;
        }
        for pin in self.pins.iter_mut().filter(|pin| pin.kind == kind && pin.id == id && pin.unproved) {
            pin.unproved = false;
            self.proved.push(pin.clone());
        }
    }

    /// Writes what this process pinned and proved, in one step, so that no reader sees half of it. First reads the
    /// file again, while no other process writes it, and keeps what another process pinned or proved meanwhile.
    ///
    /// # Errors
    /// A failed run with the file that cannot be written; a request error if another process pinned different bytes
    /// meanwhile.
    pub fn save(&mut self) -> Result<()> {
        self.hashes.save();
        if self.pinned.is_empty() && self.proved.is_empty() {
            return Ok(());
        }
        let failed = |cause: io::Error| Error::run(format!("cannot write {}", self.path.display())).with_cause(cause);
        let folder = self.path.parent().unwrap_or(Path::new("."));
        // Held until the end of this function.
        fs::create_dir_all(folder).map_err(failed)?;
        let _alone = FileLock::take(&folder.join(ALONE), PATIENCE).map_err(|denied| match denied {
            Denied::Failed(cause) => failed(cause),
            Denied::Taken(by) => failed(io::Error::other(format!("{by} is writing it"))),
        })?;
        let mut pins = lock_file::read(&self.path, self.pinning == Pinning::Update)?;
        for own in &self.pinned {
            match pins.iter_mut().find(|pin| pin.is_of(own)) {
                Some(pin) if pin.same(own) => self.merge_libraries(pin, own)?,
                Some(pin) if pin.sha256 != own.sha256 && self.pinning == Pinning::Strict => {
                    return Err(pinned_meanwhile(&self.path, own, "", &pin.sha256, &own.sha256));
                }
                Some(pin) => *pin = own.clone(),
                None => pins.push(own.clone()),
            }
        }
        for own in &self.proved {
            pins.iter_mut().filter(|pin| pin.same(own)).for_each(|pin| pin.unproved = false);
        }
        pins.sort_by(|a, b| (&a.kind, &a.id).cmp(&(&b.kind, &b.id)));
        lock_file::write(&self.path, &pins)?;
        self.pins = pins;
        self.pinned.clear();
        self.proved.clear();
        Ok(())
    }

    /// Adds the libraries of `own` to `pin`, to which another process may have added some meanwhile.
    fn merge_libraries(&self, pin: &mut Pin, own: &Pin) -> Result<()> {
        for library in &own.libraries {
            match pin.library(&library.name) {
                Some(pinned) if pinned == library => {}
                Some(pinned) if self.pinning == Pinning::Strict => {
                    let name = format!(" {}", library.name);
                    return Err(pinned_meanwhile(&self.path, own, &name, &pinned.sha256, &library.sha256));
                }
                Some(pinned) => *pinned = library.clone(),
                None => pin.libraries.push(library.clone()),
            }
        }
        pin.libraries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(())
    }
}

/// The fix to suggest when bytes differ from the pinned ones.
const ACCEPT: &str =
    "run with --update-lock to accept the new one; earlier runs are then not comparable with later ones";

fn pinned_meanwhile(lock: &Path, own: &Pin, library: &str, pinned: &str, used: &str) -> Error {
    let Pin { kind, id, .. } = own;
    let message =
        format!("meanwhile another run pinned different bytes of the {kind} `{id}`{library} in {}", lock.display());
    Error::request(message)
        .with_details([format!("pinned: sha256 {pinned}"), format!("used:   sha256 {used}")])
        .with_hint(ACCEPT)
}

fn changed(lock: &Path, plugin: &PluginInfo, pin: &Pin, found: &Pin) -> Error {
    Error::request(format!("the {} `{}` is not the one pinned in {}", pin.kind, pin.id, lock.display()))
        .with_details([
            format!("pinned: version {}, sha256 {}", pin.version, pin.sha256),
            format!("found:  version {}, sha256 {}", found.version, found.sha256),
            format!("file:   {}", plugin.path.display()),
        ])
        .with_hint(format!("{ACCEPT}. While you write a plugin, run with --dev"))
}

fn changed_library(lock: &Path, plugin: &PluginInfo, file: &Path, pinned: &LibraryUse, found: &LibraryUse) -> Error {
    let PluginInfo { kind, id, .. } = plugin;
    let message = format!("{}, which the {kind} `{id}` uses, is not the one pinned in {}", found.name, lock.display());
    Error::request(message)
        .with_details([
            format!("pinned: sha256 {}", pinned.sha256),
            format!("found:  sha256 {}", found.sha256),
            format!("file:   {}", file.display()),
        ])
        .with_hint(ACCEPT)
}

#[cfg(test)]
#[path = "lock_tests.rs"]
mod tests;
