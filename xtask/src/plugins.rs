//! Puts built plugins into the folder in which the host looks for them.

use crate::{cargo::is_library, errors::Result};
use std::{
    fs, io,
    path::{Path, PathBuf},
    process,
};

/// Makes `folder` hold `libraries`, and removes those from an earlier build that this one no longer makes. Any other file in the
/// folder is a user's own plugin and is kept.
pub fn arrange(folder: &Path, libraries: &[PathBuf]) -> Result<()> {
    let failed = |what: &str, path: &Path, e: io::Error| format!("cannot {what} {}: {e}", path.display());
    fs::create_dir_all(folder).map_err(|e| failed("create", folder, e))?;
    let mut placed = Vec::new();
    for library in libraries {
        let name = library.file_name().ok_or_else(|| format!("{} has no name", library.display()))?;
        place(library, &folder.join(name)).map_err(|e| failed("place", &folder.join(name), e))?;
        placed.push(name.to_owned());
    }
    let built_in = libraries.first().and_then(|l| l.parent());
    for entry in fs::read_dir(folder).map_err(|e| failed("read", folder, e))? {
        let entry = entry.map_err(|e| failed("read", folder, e))?;
        let was_built = built_in.is_some_and(|f| f.join(entry.file_name()).exists());
        if was_built && is_library(&entry.path()) && !placed.contains(&entry.file_name()) {
            fs::remove_file(entry.path()).map_err(|e| failed("remove", &entry.path(), e))?;
        }
    }
    Ok(())
}

/// A hard link if the file system supports it, else a copy; the file exists at every moment.
fn place(from: &Path, to: &Path) -> io::Result<()> {
    if same_file(from, to) {
        return Ok(());
    }
    let fresh = to.with_extension(format!("new-{}", process::id()));
    if fs::hard_link(from, &fresh).is_err() {
        fs::copy(from, &fresh)?;
    }
    fs::rename(&fresh, to)
}

#[cfg(unix)]
fn same_file(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    matches!((fs::metadata(a), fs::metadata(b)), (Ok(a), Ok(b)) if (a.dev(), a.ino()) == (b.dev(), b.ino()))
}

#[cfg(not(unix))]
fn same_file(_: &Path, _: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("telos-xtask-{name}-{}", process::id()));
        _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("plugins")).unwrap();
        folder
    }

    fn library(folder: &Path, name: &str, content: &str) -> PathBuf {
        let path = folder.join(format!("{name}.{}", std::env::consts::DLL_EXTENSION));
        fs::write(&path, content).unwrap();
        path
    }

    /// Catches an arrangement that keeps old bytes, keeps the library of a removed crate, or removes a user's file.
    #[test]
    fn arranging_replaces_built_plugins_and_keeps_files_of_the_user() {
        let built = scratch("arrange");
        let plugins = built.join("plugins");
        let (one, two) = (library(&built, "one", "1"), library(&built, "two", "2"));
        let own = library(&plugins, "own", "mine");
        arrange(&plugins, &[one.clone(), two.clone()]).unwrap();
        fs::remove_file(&one).unwrap();
        library(&built, "one", "changed");
        arrange(&plugins, std::slice::from_ref(&one)).unwrap();
        assert_eq!(fs::read_to_string(plugins.join(one.file_name().unwrap())).unwrap(), "changed");
        assert!(!plugins.join(two.file_name().unwrap()).exists());
        assert!(own.exists());
        assert_eq!(fs::read_dir(&plugins).unwrap().count(), 2, "no temporary file is left");
        fs::remove_dir_all(built).unwrap();
    }
}
