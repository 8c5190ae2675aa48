//! The source files of the workspace, as texts: the input of the map.

use crate::{
    cargo::{Package, root},
    errors::Result,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Endings of source files' names.
const KINDS: [&str; 3] = ["rs", "c", "cpp"];

/// Texts of source files and the root files of crates. All paths are relative to the workspace's root.
#[derive(Default)]
pub struct Sources {
    /// Every source file, tests included.
    pub files: BTreeMap<PathBuf, String>,
    /// The root files of libraries, programs, benches and examples. Test programs are left out.
    pub roots: BTreeSet<PathBuf>,
}

impl Sources {
    /// Reads the source files of `packages` from the disk.
    pub fn read(packages: &[Package]) -> Result<Sources> {
        let root = root()?;
        let mut sources = Sources::default();
        for package in packages {
            let folder = package.manifest.parent().ok_or("a package has no folder")?;
            sources.read_folder(&root, folder)?;
            let inside = package.roots.iter().filter_map(|file| file.strip_prefix(&root).ok());
            sources.roots.extend(inside.map(Path::to_owned));
        }
        Ok(sources)
    }

    fn read_folder(&mut self, root: &Path, folder: &Path) -> Result<()> {
        let failed = |e: std::io::Error, path: &Path| format!("cannot read {}: {e}", path.display());
        for entry in fs::read_dir(folder).map_err(|e| failed(e, folder))? {
            let path = entry.map_err(|e| failed(e, folder))?.path();
            let hidden =
                path.file_name().is_some_and(|name| name == "target" || name.to_string_lossy().starts_with('.'));
            if hidden || path.is_symlink() {
                continue;
            }
            if path.is_dir() {
                self.read_folder(root, &path)?;
            } else if path.extension().is_some_and(|kind| KINDS.iter().any(|k| kind == *k)) {
                let inside = path.strip_prefix(root).map_err(|e| e.to_string())?.to_owned();
                let text = fs::read_to_string(&path).map_err(|e| failed(e, &path))?;
                self.files.insert(inside, text);
            }
        }
        Ok(())
    }
}
