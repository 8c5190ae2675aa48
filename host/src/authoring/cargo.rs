//! Builds the crate of an author with cargo.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::error::{Error, Result};

/// Runs `cargo build --release` in `folder`, with its output on standard error, and returns the dynamic library that it
/// built. Cargo itself names the file, so that every way to choose a target folder is honoured.
///
/// # Errors
/// A request error if the folder is not a crate, the build fails, or it makes no dynamic library or several.
pub fn build(folder: &Path) -> Result<PathBuf> {
    let manifest = folder.join("Cargo.toml");
    if !manifest.is_file() {
        return Err(Error::request(format!("{} is not a crate: it has no Cargo.toml", folder.display()))
            .with_hint("name the folder of a crate, or the file of a library"));
    }
    let program = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut child = Command::new(&program)
        .args(["build", "--release", "--message-format", "json-render-diagnostics"])
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|cause| {
            Error::request(format!("cannot run {}", program.display()))
                .with_cause(cause)
                .with_hint("building a plugin needs Rust: https://rustup.rs")
        })?;
    let mut libraries = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines().map_while(std::result::Result::ok) {
            libraries
                .extend(serde_json::from_str(&line).ok().map(|message| built(&message, &manifest)).unwrap_or_default());
        }
    }
    let status = child.wait().map_err(|cause| Error::run("cannot wait for cargo build").with_cause(cause))?;
    if !status.success() {
        return Err(Error::request(format!("`cargo build --release` failed in {}", folder.display()))
            .with_hint("cargo's messages are above"));
    }
    let [library] = libraries.as_slice() else {
        let found: Vec<String> = libraries.iter().map(|path| path.display().to_string()).collect();
        let message = match found.is_empty() {
            true => format!("{} builds no dynamic library", folder.display()),
            false => format!("{} builds several dynamic libraries: {}", folder.display(), found.join(", ")),
        };
        return Err(Error::request(message)
            .with_hint("its Cargo.toml needs one [lib] with crate-type = [\"cdylib\", \"rlib\"]"));
    };
    Ok(library.clone())
}

/// The dynamic libraries that a message of cargo reports for the package of `manifest`.
fn built(message: &Value, manifest: &Path) -> Vec<PathBuf> {
    let of_this = || {
        let path = Path::new(message["manifest_path"].as_str()?);
        Some(fs::canonicalize(path).ok()? == fs::canonicalize(manifest).ok()?)
    };
    let is_cdylib =
        message["target"]["crate_types"].as_array().is_some_and(|all| all.iter().any(|one| one == "cdylib"));
    if message["reason"] != "compiler-artifact" || !is_cdylib || of_this() != Some(true) {
        return Vec::new();
    }
    let files = message["filenames"].as_array().into_iter().flatten().filter_map(Value::as_str).map(PathBuf::from);
    files.filter(|path| path.extension().is_some_and(|e| e == env::consts::DLL_EXTENSION)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Catches the library of a dependency, the rlib, and a message of another kind.
    #[test]
    fn only_the_dynamic_library_of_the_crate_itself_counts() {
        let lab = tempfile::tempdir().unwrap();
        let [own, other] = ["own", "other"].map(|name| {
            let folder = lab.path().join(name);
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("Cargo.toml"), "").unwrap();
            folder.join("Cargo.toml")
        });
        let so = format!("/t/libown.{}", env::consts::DLL_EXTENSION);
        let message = |reason: &str, manifest: &Path, types: &[&str]| {
            let target = json!({"crate_types": types});
            json!({"reason": reason, "manifest_path": manifest, "target": target, "filenames": ["/t/libown.rlib", so]})
        };
        let both = ["cdylib", "rlib"];
        assert_eq!(built(&message("compiler-artifact", &own, &both), &own), [PathBuf::from(&so)]);
        assert!(built(&message("compiler-artifact", &other, &both), &own).is_empty());
        assert!(built(&message("compiler-artifact", &own, &["rlib"]), &own).is_empty());
        assert!(built(&message("build-finished", &own, &both), &own).is_empty());
    }

    /// Catches a cargo that is started in a folder without a crate, and would search the folders above it.
    #[test]
    fn a_folder_without_a_crate_is_refused() {
        let lab = tempfile::tempdir().unwrap();
        let error = build(lab.path()).unwrap_err().report();
        assert!(error.contains("has no Cargo.toml"), "{error}");
    }
}
