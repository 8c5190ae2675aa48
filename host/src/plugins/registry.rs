//! Finds plugins in folders by reading their files; executes none of them until one is loaded.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use plugin_api_load::{Library, PluginInfo, scan};

use crate::config::mistake::nearest;
use crate::error::{Error, Result};

/// A file that is named like a library and cannot be read as one, or a folder that cannot be searched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The file or folder.
    pub path: PathBuf,
    /// What is wrong with it; names the path.
    pub reason: String,
}

/// What was found in the folders searched.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    folders: Vec<PathBuf>,
    plugins: Vec<PluginInfo>,
    shadowed: Vec<PluginInfo>,
    broken: Vec<Broken>,
}

impl Registry {
    /// Reads the header of every library in `folders`. Where two carry the same kind and id, the one in the earlier
    /// folder (in one folder, the one whose file name comes first) is used. Never fails: what is broken is kept for whoever asks.
    pub fn discover(folders: &[PathBuf]) -> Registry {
        let mut registry = Registry::default();
        let mut seen = BTreeSet::new();
        for folder in folders {
            // Without a slash in it, a path would make the system's loader search folders of its own.
            let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.clone());
            if registry.folders.contains(&folder) {
                continue;
            }
            for file in registry.libraries(&folder) {
                // The same file reached in two ways is one plugin.
                if seen.insert(fs::canonicalize(&file).unwrap_or_else(|_| file.clone())) {
                    registry.add(&file);
                }
            }
            registry.folders.push(folder);
        }
        registry.plugins.sort_by(|a, b| (&a.kind, &a.id).cmp(&(&b.kind, &b.id)));
        registry
    }

    /// Files of a folder that are named like libraries, sorted. A folder that is not there has none.
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

    /// The plugin of that kind and id.
    ///
    /// # Errors
    /// A request error that names what was found, what is broken, where it was looked for, and the remedy.
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

    /// The plugins of that id, whatever their kind: at least one.
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
    /// As [`Registry::find`]; a request error that names file and cause where it does not load.
    pub fn load(&self, kind: &str, id: &str) -> Result<Library> {
        Ok(Library::load(self.find(kind, id)?)?)
    }

    /// The refusal of `id`; `ids` are those that would have been right, `what` names them.
    fn missing(&self, message: &str, id: &str, ids: &[&str], what: &str) -> Error {
        let found = if ids.is_empty() { "none".to_owned() } else { ids.join(", ") };
        let searched: Vec<String> = self.folders.iter().map(|folder| said(folder)).collect();
        let searched = if searched.is_empty() { "none".to_owned() } else { searched.join(", ") };
        let hint = match nearest(id, ids.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            // Built apart, because nothing else needs libtorch.
            None if id == "torch" => "`cargo xtask torch` finds or fetches libtorch and builds it".to_owned(),
            None => "build it (`cargo xtask build`), or name its folder with --plugins DIR or TELOS_PLUGINS".to_owned(),
        };
        Error::request(message)
            .with_details([format!("{what} found: {found}"), format!("folders searched: {searched}")])
            .with_details(self.broken.iter().map(|b| format!("broken: {}", b.reason)))
            .with_hint(hint)
    }
}

/// A folder with whether it is there.
fn said(folder: &Path) -> String {
    let note = if folder.is_dir() { "" } else { " (not there)" };
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

    /// Catches a search that skips what it cannot read, or reads every file of a folder as a library.
    #[test]
    fn a_text_file_named_so_is_reported_when_a_plugin_is_missing_and_other_files_are_not() {
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

    /// Catches a search that fails on a folder that is not there, or that does not say so.
    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let registry = Registry::discover(&["/nowhere/plugins".into(), "/nowhere/plugins".into()]);
        assert_eq!(registry.folders().len(), 1);
        assert!(registry.broken().is_empty());
        let report = registry.find_any("ce").unwrap_err().report();
        assert!(report.contains("/nowhere/plugins (not there)"), "{report}");
    }

    fn info(kind: &str, id: &str) -> PluginInfo {
        example(kind, id, Path::new("lib.so"))
    }

    /// Catches a search by id alone, and a suggestion of another kind's plugin.
    #[test]
    fn the_kind_counts_and_the_nearest_id_of_that_kind_is_offered() {
        let plugins = vec![info("backend", "dpo"), info("objective", "dpo_robust"), info("objective", "ce")];
        let registry = Registry { plugins, ..Default::default() };
        assert_eq!(registry.find("objective", "ce").unwrap().id, "ce");
        let error = registry.find("objective", "dpo").unwrap_err();
        assert!(error.report().contains("`dpo` is of kind backend, not objective"), "{}", error.report());
        assert_eq!(registry.find("objective", "dpo_robst").unwrap_err().hint(), Some("did you mean `dpo_robust`?"));
    }
}
