//! Finds plugins in folders by reading their files; runs no plugin code until a plugin is loaded.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use plugin_api_load::{Library, PluginInfo, scan};

use super::remedy;
use crate::error::{Error, Result};
use crate::keys::mistake::nearest;

/// A file that has a library's name but cannot be read as one, or a folder that cannot be searched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The file or folder.
    pub path: PathBuf,
    /// What is wrong with it, including the path.
    pub reason: String,
}

/// The plugins found in the searched folders.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    folders: Vec<PathBuf>,
    plugins: Vec<PluginInfo>,
    shadowed: Vec<PluginInfo>,
    broken: Vec<Broken>,
}

impl Registry {
    /// Reads the header of every library in `folders`. If two have the same kind and id, the one in the earlier
    /// folder is used (within a folder, the one whose file name comes first). Never fails: broken files are listed
    /// in [`Registry::broken`].
    pub fn discover(folders: &[PathBuf]) -> Registry {
        let mut registry = Registry::default();
        let mut seen = BTreeSet::new();
        for folder in folders {
            // A path without a slash would make the system's loader search its own folders.
            let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.clone());
            if registry.folders.contains(&folder) {
                continue;
            }
            for file in registry.libraries(&folder) {
                // The same file reached by two paths is one plugin.
                if seen.insert(fs::canonicalize(&file).unwrap_or_else(|_| file.clone())) {
                    registry.add(&file);
                }
            }
            registry.folders.push(folder);
        }
        registry.plugins.sort_by(|a, b| (&a.kind, &a.id).cmp(&(&b.kind, &b.id)));
        registry
    }

    /// The files of a folder that have library names, sorted. A missing folder has none.
    fn libraries(&mut self, folder: &Path) -> Vec<PathBuf> {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
            Err(cause) => {
                let reason = format!("{} cannot be searched: {cause}", folder.display());
                self.broken.push(Broken { path: folder.to_owned(), reason });
                return Vec::new();
            }
        };
        let named_so = |path: &PathBuf| path.extension().is_some_and(|e| e == "so" || e == "dylib");
        let mut files: Vec<PathBuf> =
            entries.filter_map(|entry| entry.ok().map(|e| e.path())).filter(named_so).collect();
        files.sort();
        files
    }

    fn add(&mut self, file: &Path) {
        match scan(file) {
            Err(error) => self.broken.push(Broken { path: file.to_owned(), reason: error.message }),
            Ok(found) => {
                for info in found {
                    let known = self.plugins.iter().any(|p| p.kind == info.kind && p.id == info.id);
                    if known { self.shadowed.push(info) } else { self.plugins.push(info) }
                }
            }
        }
    }

    /// The folders searched, in order, as absolute paths.
    pub fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// The plugins found, by kind and id.
    pub fn plugins(&self) -> &[PluginInfo] {
        &self.plugins
    }

    /// Plugins that are not used because an earlier folder has the same kind and id.
    pub fn shadowed(&self) -> &[PluginInfo] {
        &self.shadowed
    }

    /// Libraries that cannot be read, and folders that cannot be searched.
    pub fn broken(&self) -> &[Broken] {
        &self.broken
    }

    /// Returns the plugin with this kind and id.
    ///
    /// # Errors
    /// A request error that lists what was found, what is broken, which folders were searched, and the fix.
    pub fn find(&self, kind: &str, id: &str) -> Result<&PluginInfo> {
        self.plugins.iter().find(|p| p.kind == kind && p.id == id).ok_or_else(|| {
            let ids: Vec<&str> = self.plugins.iter().filter(|p| p.kind == kind).map(|p| p.id.as_str()).collect();
            let mut error = self.missing(&format!("there is no {kind} `{id}`"), id, &ids, &format!("{kind}s"));
            if let Some(other) = self.plugins.iter().find(|p| p.id == id) {
                error = error.with_details([format!("`{id}` is of kind {}, not {kind}", other.kind)]);
            }
            error
        })
    }

    /// Returns the plugins with this id, of any kind: at least one.
    ///
    /// # Errors
    /// As [`Registry::find`].
    pub fn find_any(&self, id: &str) -> Result<Vec<&PluginInfo>> {
        let found: Vec<&PluginInfo> = self.plugins.iter().filter(|p| p.id == id).collect();
        if found.is_empty() {
            let ids: Vec<&str> = self.plugins.iter().map(|p| p.id.as_str()).collect();
            return Err(self.missing(&format!("there is no plugin `{id}`"), id, &ids, "plugins"));
        }
        Ok(found)
    }

    /// Finds a plugin and opens its library, which runs its code.
    ///
    /// # Errors
    /// As [`Registry::find`]; a request error with file and cause if it does not load.
    pub fn load(&self, kind: &str, id: &str) -> Result<Library> {
        Ok(Library::load(self.find(kind, id)?)?)
    }

    /// The error for a missing `id`; `ids` are the valid ones, and `what` names them.
    fn missing(&self, message: &str, id: &str, ids: &[&str], what: &str) -> Error {
        let found = if ids.is_empty() { "none".to_owned() } else { ids.join(", ") };
        let searched: Vec<String> = self.folders.iter().map(|folder| shown(folder)).collect();
        let searched = if searched.is_empty() { "none".to_owned() } else { searched.join(", ") };
        let hint = match nearest(id, ids.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => remedy::of_missing(id),
        };
        Error::request(message)
            .with_details([format!("{what} found: {found}"), format!("folders searched: {searched}")])
            .with_details(self.broken.iter().map(|b| format!("broken: {}", b.reason)))
            .with_hint(hint)
    }
}

/// A folder's path, and whether the folder exists.
fn shown(folder: &Path) -> String {
    let note = if folder.is_dir() { "" } else { " (does not exist)" };
    format!("{}{note}", folder.display())
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    fn folder_with(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        folder
    }

    /// Catches a search that silently skips what it cannot read, or reads every file of a folder as a library.
    #[test]
    fn broken_libraries_are_reported_if_a_plugin_is_missing() {
        let folder = folder_with(&[("note.so", b"just text"), ("empty.so", b""), ("readme.txt", b"text")]);
        let registry = Registry::discover(&[folder.path().to_owned()]);
        let error = registry.find("objective", "ce").unwrap_err();
        let report = error.report();
        assert_eq!(error.exit_code(), 2);
        for part in ["`ce`", "note.so", "empty.so", "objectives found: none", "--plugins"] {
            assert!(report.contains(part), "{part} is not in {report}");
        }
        assert!(!report.contains("readme"), "{report}");
        assert_eq!(registry.broken().len(), 2);
    }

    /// Catches a search that fails on a missing folder, or that does not report it.
    #[test]
    fn a_missing_folder_is_reported() {
        let registry = Registry::discover(&["/nowhere/plugins".into(), "/nowhere/plugins".into()]);
        assert_eq!(registry.folders().len(), 1);
        assert!(registry.broken().is_empty());
        let report = registry.find_any("ce").unwrap_err().report();
        assert!(report.contains("/nowhere/plugins (does not exist)"), "{report}");
    }

    fn info(kind: &str, id: &str) -> PluginInfo {
        example(kind, id, Path::new("lib.so"))
    }

    /// Catches a search by id alone, and a suggestion from another kind's plugins.
    #[test]
    fn plugins_are_found_by_kind_and_id_and_the_nearest_id_is_suggested() {
        let plugins = vec![info("backend", "dpo"), info("objective", "dpo_robust"), info("objective", "ce")];
        let registry = Registry { plugins, ..Default::default() };
        assert_eq!(registry.find("objective", "ce").unwrap().id, "ce");
        let error = registry.find("objective", "dpo").unwrap_err();
        assert!(error.report().contains("`dpo` is of kind backend, not objective"), "{}", error.report());
        assert_eq!(registry.find("objective", "dpo_robst").unwrap_err().hint(), Some("did you mean `dpo_robust`?"));
    }
}
