//! `cargo xtask archive`: the plugins of every released version of the contract, built from that version's own source, and this
//! build's host with each of them. [`LIST`] names the versions; `docs/contract.md` says what is promised.

use crate::{build::Built, cargo, errors::Result};
use serde_json::Value;
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// A line per version: version, commit, and the packages to build.
const LIST: &str = "tests/archive.txt";

/// A released version of the contract.
#[derive(Debug, PartialEq)]
struct Release {
    version: String,
    commit: String,
    packages: Vec<String>,
}

/// Builds every released version's plugins, and verifies each plugin with this build's host. Returns what was checked, or why a
/// version could not be built.
///
/// # Errors
/// A list that cannot be read, a build that fails, a plugin that this host refuses or whose laws fail.
pub fn run(built: &Built) -> Result<Vec<String>> {
    let text = fs::read_to_string(cargo::root()?.join(LIST)).map_err(|e| format!("cannot read {LIST}: {e}"))?;
    releases(&text)?.iter().map(|release| check(built, release)).collect()
}

fn releases(text: &str) -> Result<Vec<Release>> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            match words.as_slice() {
                [version, commit, packages @ ..] if !packages.is_empty() => {
                    Ok(Release { version: version.clone(), commit: commit.clone(), packages: packages.to_vec() })
                }
                _ => Err(format!("{LIST}: expected `VERSION COMMIT PACKAGE...`, found {line:?}")),
            }
        })
        .collect()
}

fn check(built: &Built, release: &Release) -> Result<String> {
    let Release { version, commit, packages } = release;
    if !has_commit(commit)? {
        return Ok(format!(
            "{version} NOT BUILT: this copy of the repository has no commit {commit}; fetch its history"
        ));
    }
    let folder = built.folder()?.with_file_name("archive").join(version);
    let (source, plugins) = (folder.join("source"), folder.join("plugins"));
    unpack(commit, &source)?;
    _ = fs::remove_dir_all(&plugins);
    fs::create_dir_all(&plugins).map_err(|e| format!("cannot create {}: {e}", plugins.display()))?;
    for library in libraries(&source, &folder.join("target"), packages)? {
        let name = library.file_name().ok_or_else(|| format!("{} has no name", library.display()))?;
        fs::copy(&library, plugins.join(name)).map_err(|e| format!("cannot copy {}: {e}", library.display()))?;
    }
    let ids = ids(&built.host, &plugins)?;
    for id in &ids {
        let mut verify = Command::new(&built.host);
        verify.args(["plugins", "verify", id, "--plugins"]).arg(&plugins).stdout(Stdio::null());
        let status = verify.status().map_err(|e| format!("cannot run {}: {e}", built.host.display()))?;
        if !status.success() {
            return Err(format!("the plugin `{id}` of contract {version} fails with this host; its message is above"));
        }
    }
    Ok(format!("{version}: {} plugins of {} libraries pass", ids.len(), packages.len()))
}

fn has_commit(commit: &str) -> Result<bool> {
    let mut git = Command::new("git");
    git.arg("-C").arg(cargo::root()?).args(["cat-file", "-e"]).arg(format!("{commit}^{{commit}}"));
    let status = git.stderr(Stdio::null()).status().map_err(|e| format!("cannot run git: {e}"))?;
    Ok(status.success())
}

/// Writes the source tree of a commit, unless it is there already.
fn unpack(commit: &str, source: &Path) -> Result<()> {
    let mark = source.join(".commit");
    if fs::read_to_string(&mark).ok().as_deref() == Some(commit) {
        return Ok(());
    }
    _ = fs::remove_dir_all(source);
    fs::create_dir_all(source).map_err(|e| format!("cannot create {}: {e}", source.display()))?;
    let mut git = Command::new("git");
    git.arg("-C").arg(cargo::root()?).args(["archive", "--format=tar", commit]);
    let mut git = git.stdout(Stdio::piped()).spawn().map_err(|e| format!("cannot run git: {e}"))?;
    let tree = git.stdout.take().ok_or("git has no output")?;
    let tar = Command::new("tar").arg("-x").arg("-C").arg(source).stdin(tree).status();
    let written = git.wait().is_ok_and(|status| status.success()) && tar.is_ok_and(|status| status.success());
    if !written {
        return Err(format!("cannot write the source of {commit} into {}", source.display()));
    }
    fs::write(&mark, commit).map_err(|e| format!("cannot write {}: {e}", mark.display()))
}

/// Builds packages of a source tree; returns their dynamic libraries.
fn libraries(source: &Path, target: &Path, packages: &[String]) -> Result<Vec<PathBuf>> {
    let program = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.current_dir(source).args(["build", "--release", "--locked", "--target-dir"]).arg(target);
    packages.iter().for_each(|package| _ = command.args(["--package", package]));
    let built = cargo::artifacts(&mut command)?;
    let own = built.into_iter().filter(|artifact| {
        let folder = artifact.manifest.parent().and_then(Path::file_name).map(|name| name.to_string_lossy());
        cargo::is_library(&artifact.path) && folder.is_some_and(|name| packages.iter().any(|own| *own == name))
    });
    let libraries: Vec<PathBuf> = own.map(|artifact| artifact.path).collect();
    if libraries.len() == packages.len() {
        return Ok(libraries);
    }
    Err(format!("{}: {} of {} packages gave a library", source.display(), libraries.len(), packages.len()))
}

/// The ids of the plugins in a folder, as the host lists them.
fn ids(host: &Path, folder: &Path) -> Result<Vec<String>> {
    let output = Command::new(host).args(["plugins", "list", "--json", "--plugins"]).arg(folder).output();
    let output = output.map_err(|e| format!("cannot run {}: {e}", host.display()))?;
    let list: Value = serde_json::from_slice(&output.stdout).map_err(|e| format!("cannot read the list: {e}"))?;
    let plugins = list["plugins"].as_array().into_iter().flatten();
    let own = plugins.filter(|plugin| plugin["file"].as_str().is_some_and(|file| Path::new(file).starts_with(folder)));
    let ids: Vec<String> = own.filter_map(|plugin| Some(plugin["id"].as_str()?.to_owned())).collect();
    if ids.is_empty() {
        return Err(format!("this host finds no plugin in {}", folder.display()));
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a release that is skipped because its line is not understood.
    #[test]
    fn every_line_is_a_release_or_an_error() {
        let text = "# Versions\n\n1.0 abc123 objective-ce reward-length\n";
        let packages = ["objective-ce", "reward-length"].map(str::to_owned).to_vec();
        let release = Release { version: "1.0".into(), commit: "abc123".into(), packages };
        assert_eq!(releases(text), Ok(vec![release]));
        assert!(releases("1.0 abc123").unwrap_err().contains("expected `VERSION COMMIT PACKAGE...`"));
    }
}
