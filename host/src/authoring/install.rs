//! Puts a plugin's library into a folder in which telos looks for plugins.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process;

use plugin_api_load::{PluginInfo, scan};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::plugins::Registry;
use crate::runs::disk::hex;

/// A library that may be put in place.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The file.
    pub library: PathBuf,
    /// The plugins in it, at least one.
    pub plugins: Vec<PluginInfo>,
    /// Where it goes.
    pub target: PathBuf,
    /// The plugins in the file that it replaces.
    pub replaced: Vec<PluginInfo>,
}

/// A plugin of a library that was put in place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Installed {
    /// Its kind.
    pub kind: String,
    /// Its id.
    pub id: String,
    /// Its version.
    pub version: String,
    /// The version that was there before.
    pub replaces: Option<String>,
    /// The file.
    pub file: PathBuf,
    /// Whether the bytes are those that were there before.
    pub unchanged: bool,
}

impl Candidate {
    /// Reads the headers of `library`, which is to go into `folder`, and compares them with what is installed in
    /// `folder` and in `folders`.
    ///
    /// # Errors
    /// A request error: the file is not a library with a plugin that this host can load; a plugin of the same kind and
    /// id comes from a library of another name; the file that it would replace holds other plugins.
    pub fn read(library: &Path, folder: &Path, folders: &[PathBuf]) -> Result<Candidate> {
        let named = library.file_name().filter(|_| library.is_file());
        let Some(name) = named else {
            return Err(Error::request(format!("there is no file {}", library.display())).with_hint("check the path"));
        };
        let library = std::path::absolute(library)
            .map_err(|cause| Error::request(format!("{} is not a usable path", library.display())).with_cause(cause))?;
        let plugins = scan(&library)?;
        if plugins.is_empty() {
            return Err(Error::request(format!("{} contains no plugin", library.display()))
                .with_hint("a library exports one with export_objective!, export_reward! or export_backend!"));
        }
        for plugin in &plugins {
            plugin.check_version()?;
        }
        let target = folder.join(name);
        let same = |a: &PluginInfo, b: &PluginInfo| a.kind == b.kind && a.id == b.id;
        // A damaged file of the same name is replaced.
        let replaced = if target.is_file() { scan(&target).unwrap_or_default() } else { Vec::new() };
        if !replaced.is_empty() && !plugins.iter().any(|plugin| replaced.iter().any(|old| same(plugin, old))) {
            return Err(Error::request(format!(
                "{} holds {}, not {}",
                target.display(),
                list(&replaced),
                list(&plugins)
            ))
            .with_hint("rename the package in Cargo.toml, or remove that file first"));
        }
        let all: Vec<PathBuf> = [folder.to_owned()].into_iter().chain(folders.iter().cloned()).collect();
        let registry = Registry::discover(&all);
        for plugin in &plugins {
            let other = registry.plugins().iter().chain(registry.shadowed());
            let mut other = other.filter(|known| same(known, plugin) && known.path.file_name() != Some(name));
            if let Some(known) = other.next() {
                let message = format!("the {} `{}` is already there: {}", known.kind, known.id, known.path.display());
                return Err(Error::request(message).with_hint("choose another id, or remove that file first"));
            }
        }
        Ok(Candidate { library, plugins, target, replaced })
    }

    /// Puts it in place: writes beside the target, then renames, so that a process that has mapped the old file keeps
    /// it. `verified` is the hash of the bytes that were verified.
    ///
    /// # Errors
    /// A failed run: the bytes differ from the verified ones, or the file system failed, such as for a folder that may
    /// not be written.
    pub fn place(&self, verified: Option<&str>) -> Result<Vec<Installed>> {
        let bytes = fs::read(&self.library)
            .map_err(|cause| Error::run(format!("cannot read {}", self.library.display())).with_cause(cause))?;
        let sha256 = hex(&Sha256::digest(&bytes));
        if verified.is_some_and(|verified| verified != sha256) {
            return Err(Error::run(format!("{} changed while it was verified", self.library.display()))
                .with_hint("run the command again when nothing builds it"));
        }
        let unchanged = fs::read(&self.target).is_ok_and(|old| old == bytes);
        if !unchanged {
            self.write(&bytes).map_err(|cause| {
                Error::run(format!("cannot write {}", self.target.display())).with_cause(cause).with_hint(
                    "name a folder of yours with --into DIR, and the same folder with --plugins DIR when you run",
                )
            })?;
        }
        let installed = |plugin: &PluginInfo| Installed {
            kind: plugin.kind.clone(),
            id: plugin.id.clone(),
            version: plugin.version.clone(),
            replaces: self.old(plugin).map(|old| old.version.clone()),
            file: self.target.clone(),
            unchanged,
        };
        Ok(self.plugins.iter().map(installed).collect())
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let folder = self.target.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let name = self.target.file_name().unwrap_or_default().to_string_lossy();
        // Not a library's name, so that no search finds it.
        let fresh = folder.join(format!(".{name}.new-{}", process::id()));
        let written = fs::write(&fresh, bytes)
            .and_then(|()| fs::set_permissions(&fresh, fs::metadata(&self.library)?.permissions()))
            .and_then(|()| File::open(&fresh)?.sync_all())
            .and_then(|()| fs::rename(&fresh, &self.target));
        if written.is_err() {
            _ = fs::remove_file(&fresh);
        }
        written
    }

    fn old(&self, plugin: &PluginInfo) -> Option<&PluginInfo> {
        self.replaced.iter().find(|old| old.kind == plugin.kind && old.id == plugin.id)
    }

    /// Plugins of the replaced file that the new one does not hold.
    pub fn lost(&self) -> Vec<&PluginInfo> {
        let is_kept = |old: &&PluginInfo| !self.plugins.iter().any(|new| new.kind == old.kind && new.id == old.id);
        self.replaced.iter().filter(is_kept).collect()
    }
}

fn list(plugins: &[PluginInfo]) -> String {
    plugins.iter().map(|plugin| format!("the {} `{}`", plugin.kind, plugin.id)).collect::<Vec<_>>().join(", ")
}
