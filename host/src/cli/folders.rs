//! The folders that are searched for plugins.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// The environment variable that lists folders in the same way as PATH.
pub const VARIABLE: &str = "TELOS_PLUGINS";

/// The folders to search, in order: `given`, those of [`VARIABLE`], and `plugins` next to this program. The
/// program's own folder is not searched: a build puts every library there, including those for tests.
pub fn search(given: &[PathBuf]) -> Vec<PathBuf> {
    let program = env::current_exe().ok();
    let program_folder = program.as_deref().and_then(Path::parent);
    order(given, env::var_os(VARIABLE).as_deref(), program_folder)
}

/// Lists each folder once. An empty entry of the variable, which in PATH means the current directory, is ignored.
fn order(given: &[PathBuf], variable: Option<&OsStr>, program_folder: Option<&Path>) -> Vec<PathBuf> {
    let listed = variable.map(|list| env::split_paths(list).collect::<Vec<_>>()).unwrap_or_default();
    let own = program_folder.map(|folder| folder.join("plugins"));
    let mut folders: Vec<PathBuf> = Vec::new();
    for folder in given.iter().cloned().chain(listed).chain(own) {
        if !folder.as_os_str().is_empty() && !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a search that adds the current directory (an empty entry, as in PATH), drops a source, or prefers a
    /// default to a folder that the user named.
    #[test]
    fn named_folders_come_first_and_the_current_directory_is_not_searched() {
        let list = env::join_paths(["/b", "", "/a"]).expect("a list of folders");
        let found = order(&["/a".into()], Some(&list), Some(Path::new("/bin")));
        assert_eq!(found, ["/a", "/b", "/bin/plugins"].map(PathBuf::from));
        assert_eq!(order(&[], None, None), Vec::<PathBuf>::new());
    }
}
