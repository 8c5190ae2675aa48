//! Commands that are printed for the user, as a shell reads them.

use std::env;
use std::fs;
use std::path::Path;

/// How a shell finds this program from any folder: its name if that leads to it, else its path.
pub(super) fn program() -> String {
    const NAME: &str = "telos";
    let Ok(own) = env::current_exe() else { return NAME.to_owned() };
    let own = fs::canonicalize(&own).unwrap_or(own);
    let path = env::var_os("PATH").unwrap_or_default();
    let first = env::split_paths(&path).map(|folder| folder.join(NAME)).find(|file| file.is_file());
    match first.and_then(|file| fs::canonicalize(file).ok()) {
        Some(found) if found == own => NAME.to_owned(),
        _ => quoted(&own),
    }
}

/// A path as a shell reads it.
pub(super) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a command that a shell reads as several words, or as an option of it.
    #[test]
    fn paths_are_quoted_for_a_shell() {
        assert_eq!(quoted(Path::new("my-loss")), "my-loss");
        assert_eq!(quoted(Path::new("/a b/telos")), "'/a b/telos'");
        assert_eq!(quoted(Path::new("it's")), "'it'\\''s'");
    }
}
