//! Names of new plugins. One name is the package, the crate, the library's file and the plugin's id.

use std::path::PathBuf;

use super::sdk::Sdk;
use crate::error::{Error, Result};
use crate::plugins::Registry;

/// Names that cargo refuses, or that would hide a crate of every program: keywords, crates of the standard library,
/// cargo's folders.
const RESERVED: &[&str] = &[
    "abstract",
    "alloc",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "build",
    "const",
    "continue",
    "core",
    "crate",
    "deps",
    "do",
    "dyn",
    "else",
    "enum",
    "examples",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "if",
    "impl",
    "in",
    "incremental",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "priv",
    "proc-macro",
    "pub",
    "ref",
    "return",
    "self",
    "static",
    "std",
    "struct",
    "super",
    "test",
    "trait",
    "true",
    "try",
    "type",
    "typeof",
    "unsafe",
    "unsized",
    "use",
    "virtual",
    "where",
    "while",
    "yield",
];

/// Names that no plugin has: the host's own metrics begin with them, or arrays of rewards end with them.
const OWN: &[&str] = &["answers", "critic", "eval", "host", "token"];

/// The longest name.
const LONGEST: usize = 64;

/// Refuses a name that is not legal or that is taken: by a package that the SDK is built with, or by a plugin that is
/// installed.
///
/// # Errors
/// A request error that says why, and what a legal name looks like.
pub fn check(name: &str, sdk: &Sdk, registry: &Registry) -> Result<()> {
    if let Some(why) = illegal(name) {
        return Err(Error::request(format!("{name:?} is not a name for a plugin: {why}")).with_hint(
            "use lower-case letters, digits and single hyphens, beginning with a letter; for example my-loss",
        ));
    }
    let taken =
        |by: String| Err(Error::request(format!("the name `{name}` is taken: {by}")).with_hint("choose another name"));
    if sdk.versions()?.lines().any(|line| line.trim() == format!("name = \"{name}\"")) {
        return taken("the SDK is built with a package of this name".to_owned());
    }
    if let Some(plugin) = registry.plugins().iter().find(|plugin| plugin.id == name) {
        return taken(format!("{} holds the {} of this id", plugin.path.display(), plugin.kind));
    }
    let file = library_file(name);
    if let Some(plugin) = registry.plugins().iter().find(|p| p.path.file_name() == file.file_name()) {
        return taken(format!("{} has the file name of its library", plugin.path.display()));
    }
    Ok(())
}

/// The file that cargo builds for a crate of this name.
fn library_file(name: &str) -> PathBuf {
    let stem = name.replace('-', "_");
    format!("{}{stem}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX).into()
}

/// Why a name is not legal; `None` if it is.
fn illegal(name: &str) -> Option<String> {
    if name.is_empty() || name.len() > LONGEST {
        return Some(format!("it has {} characters, and 1 to {LONGEST} are possible", name.len()));
    }
    let parts_are_words = name.split('-').all(|part| !part.is_empty());
    let letters = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if !letters || !parts_are_words || !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        return Some("it is not made of lower-case letters, digits and single hyphens, beginning with a letter".into());
    }
    if OWN.contains(&name) {
        return Some("telos names its own numbers so".to_owned());
    }
    RESERVED.contains(&name).then(|| "Rust or cargo reserves it".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a name that cargo, the file system or the export macro would refuse later, and a legal one that is
    /// refused.
    #[test]
    fn names_are_legal_packages_crates_and_ids() {
        for name in ["penalty-ce", "x", "l2", "focal-2-b"] {
            assert_eq!(illegal(name), None, "{name}");
        }
        let long = "x".repeat(LONGEST + 1);
        for name in ["", "Focal", "my_loss", "2x", "-x", "x-", "a--b", "ä", "a/b", "../x", "fn", "test", "std", &long]
        {
            assert!(illegal(name).is_some(), "{name}");
        }
    }
}
