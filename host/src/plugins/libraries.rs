//! Opens plugins, and finds the libraries that they load, such as libtorch. A run's numbers depend on those as much
//! as on the plugin.
//!
//! A library in the plugin's folder is hashed and compared with its pin before it is opened. Other libraries that
//! the system's loader maps are found in the process's list of mapped files, and hashed afterwards. Libraries in
//! the system's folders are ignored, like libc: the system maintains them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use plugin_api_load::{Companion, Identity, Library, LibraryFile, PluginInfo};

use super::lock::Lock;
use crate::error::{Error, Result};
use crate::runs::breadcrumb;
use crate::runs::receipt::LibraryUse;

/// A plugin that was loaded.
pub struct Loaded {
    /// The plugin.
    pub library: Library,
    /// sha256 of its file.
    pub sha256: String,
    /// The libraries that it loaded, by name.
    pub libraries: Vec<LibraryUse>,
}

/// Reads the plugin's file, compares it and the libraries in its folder with their pins, and opens them.
///
/// # Errors
/// A request error if a file changed, cannot be read, no longer contains the plugin, or does not load.
pub fn open(info: &PluginInfo, lock: &mut Lock) -> Result<Loaded> {
    let file = LibraryFile::read(&info.path).map_err(|e| Error::request(e.to_string()))?;
    // The file may have been replaced since the folders were searched.
    let found = file.plugins().map_err(|e| Error::request(e.to_string()))?;
    let info = found.iter().find(|own| own.kind == info.kind && own.id == info.id).ok_or_else(|| {
        Error::request(format!("{} no longer contains the {} `{}`", info.path.display(), info.kind, info.id))
    })?;
    let sha256 = lock.verify(info, &file)?;
    let mut libraries = Libraries { info, lock, seen: Vec::new(), found: Vec::new() };
    let before = mapped();
    let mut companions = Vec::new();
    for Companion { path, .. } in file.companions(info) {
        if path.is_absolute() {
            companions.push((libraries.add(&path)?, path));
        }
    }
    let library = breadcrumb::within(&info.id, "open", || Library::load_from(&file, info));
    let library = library.map_err(|e| Error::request(e.to_string()))?;
    let after = mapped();
    for (identity, path) in &companions {
        check_opened(info, path, identity, &after)?;
    }
    note_mapped(info, &before, &after);
    libraries.add_noted()?;
    let mut libraries = libraries.found;
    libraries.sort_by(|a, b| (&a.name, &a.sha256).cmp(&(&b.name, &b.sha256)));
    Ok(Loaded { library, sha256, libraries })
}

/// Adds to `known` the libraries that the plugin loaded later, which [`note_mapped`] recorded.
///
/// # Errors
/// As in [`open`].
pub fn add_opened(info: &PluginInfo, lock: &mut Lock, known: &mut Vec<LibraryUse>) -> Result<()> {
    let mut libraries = Libraries { info, lock, seen: Vec::new(), found: Vec::new() };
    libraries.add_noted()?;
    known.extend(libraries.found);
    known.sort_by(|a, b| (&a.name, &a.sha256).cmp(&(&b.name, &b.sha256)));
    known.dedup();
    Ok(())
}

/// The libraries that plugins of this process loaded, by the plugin's file. A library is mapped only once: when a
/// plugin is opened again, as for every stage of a pipeline, its libraries are found here.
static LOADED: Mutex<BTreeMap<PathBuf, BTreeSet<PathBuf>>> = Mutex::new(BTreeMap::new());

/// Records what was mapped between `before` and `after`, while the plugin or its session was opened, except for the
/// system's own libraries. (libtorch loads its GPU libraries with a session.)
pub fn note_mapped(info: &PluginInfo, before: &BTreeSet<PathBuf>, after: &BTreeSet<PathBuf>) {
    let own = fs::canonicalize(&info.path).unwrap_or_default();
    let new = after.difference(before).filter(|path| !is_system_library(path) && **path != own).cloned();
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    loaded.entry(info.path.clone()).or_default().extend(new);
}

/// The libraries of one plugin, while they are being collected.
struct Libraries<'a> {
    info: &'a PluginInfo,
    lock: &'a mut Lock,
    seen: Vec<Identity>,
    found: Vec<LibraryUse>,
}

impl Libraries<'_> {
    /// Hashes a library and compares it with its pin. Returns the file's identity.
    fn add(&mut self, path: &Path) -> Result<Identity> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (identity, sha256) = self.lock.hashes.of(path)?;
        if !self.seen.contains(&identity) {
            let library = LibraryUse { name, sha256 };
            self.lock.verify_library(self.info, path, &library)?;
            self.seen.push(identity);
            self.found.push(library);
        }
        Ok(identity)
    }

    /// Adds the libraries that were recorded for the plugin.
    fn add_noted(&mut self) -> Result<()> {
        let noted = LOADED.lock().unwrap_or_else(PoisonError::into_inner).get(&self.info.path).cloned();
        noted.unwrap_or_default().iter().try_for_each(|path| self.add(path).map(|_| ()))
    }
}

/// Checks that the library mapped from `path` is the file that was hashed.
fn check_opened(info: &PluginInfo, path: &Path, hashed: &Identity, mapped: &BTreeSet<PathBuf>) -> Result<()> {
    let now = fs::metadata(path).map(|now| Identity::from(&now));
    let is_mapped = || fs::canonicalize(path).is_ok_and(|path| mapped.contains(&path));
    // Where the system does not list what is mapped, only the first test is possible.
    if now.is_ok_and(|now| now == *hashed) && (mapped.is_empty() || is_mapped()) {
        return Ok(());
    }
    let message =
        format!("{}, which the {} `{}` uses, changed while it was opened", path.display(), info.kind, info.id);
    Err(Error::request(message).with_hint("start the run again when the file is no longer being replaced"))
}

/// The files from which code is mapped into this process, as Linux lists them; empty elsewhere.
pub fn mapped() -> BTreeSet<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let of_code = maps.lines().filter(|line| line.split_whitespace().nth(1).is_some_and(|flags| flags.contains('x')));
    let paths = of_code.filter_map(|line| line.find('/').and_then(|at| line.get(at..)));
    // Plugins themselves are copies in memory. A deleted file cannot be hashed: it is code generated at run time,
    // or a library that was replaced.
    let is_file = |path: &&str| !path.starts_with("/memfd:") && !path.ends_with(" (deleted)");
    // A file that cannot be inspected is hashed later, and that reports the error.
    let is_library = |path: &PathBuf| {
        fs::metadata(path).map_or_else(|e| e.kind() != std::io::ErrorKind::NotFound, |found| found.is_file())
    };
    paths.filter(is_file).map(PathBuf::from).filter(is_library).collect()
}

fn is_system_library(path: &Path) -> bool {
    ["/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64"].iter().any(|folder| path.starts_with(folder))
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;
    use crate::plugins::lock::Pinning;

    /// Catches a library that a session opens and that is neither pinned nor reported, one that changed and is
    /// used, and pins of the system's own libraries, which would make a run fail after a system update.
    #[test]
    fn libraries_that_a_session_opens_are_pinned() {
        let folder = tempfile::tempdir().unwrap();
        let (half, plugin) = (folder.path().join("libhalf.so"), folder.path().join("backend.so"));
        fs::write(&half, "abc").unwrap();
        fs::write(&plugin, "the plugin").unwrap();
        let info = example("backend", "torch", &plugin);
        let file = LibraryFile::read(&plugin).unwrap();
        let open = |pinning| {
            let mut lock = Lock::open(folder.path(), pinning).unwrap();
            lock.verify(&info, &file).unwrap();
            lock
        };
        let paths = |more: &[&Path]| more.iter().map(|path| path.to_path_buf()).collect::<BTreeSet<_>>();
        let (before, system) = (paths(&[Path::new("/usr/bin/telos")]), Path::new("/usr/lib/libc.so.6"));
        let after = paths(&[Path::new("/usr/bin/telos"), &half, &plugin, system]);
        let add = |lock: &mut Lock| {
            let mut known = Vec::new();
            add_opened(&info, lock, &mut known).map(|()| known)
        };
        note_mapped(&info, &before, &after);
        // Opened again in this process, where everything is already mapped.
        note_mapped(&info, &after, &after);
        let mut lock = open(Pinning::Strict);
        let known = add(&mut lock).unwrap();
        assert!(matches!(&known[..], [only] if only.name == "libhalf.so"), "{known:?}");
        lock.save().unwrap();
        fs::write(&half, "abd").unwrap();
        let report = add(&mut open(Pinning::Strict)).unwrap_err().report();
        assert!(report.contains("libhalf.so") && report.contains("--update-lock"), "{report}");
        add(&mut open(Pinning::Update)).unwrap();
        fs::remove_file(&half).unwrap();
        assert!(add(&mut open(Pinning::Update)).unwrap_err().report().contains("libhalf.so"));
    }
}
