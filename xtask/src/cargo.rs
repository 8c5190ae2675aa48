//! Calls cargo and reads its output. Build paths come from cargo, never from a guess.

use crate::errors::Result;
use serde_json::Value;
use std::{
    env,
    ffi::OsString,
    io::{BufRead, BufReader, IsTerminal, Read},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

/// The manifests of the workspaces, each with a Cargo.lock of its own.
pub const WORKSPACES: [&str; 2] = ["Cargo.toml", "plugins/backend-torch/Cargo.toml"];

/// The workspace's root: the folder that holds this crate.
pub fn root() -> Result<PathBuf> {
    let manifest = env::var_os("CARGO_MANIFEST_DIR").ok_or("run this through cargo: `cargo xtask` or `cargo telos`")?;
    let root = Path::new(&manifest).parent().ok_or("this crate is not inside a workspace")?;
    Ok(root.to_owned())
}

/// Cargo in the workspace's root.
pub fn cargo() -> Result<Command> {
    let program = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(program);
    command.current_dir(root()?);
    Ok(command)
}

/// The workspace.
pub struct Workspace {
    /// All crates, sorted by name.
    pub members: Vec<Member>,
    /// The target folder.
    pub target: PathBuf,
}

/// A crate of the workspace.
pub struct Member {
    /// Its package's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its `Cargo.toml`.
    pub manifest: PathBuf,
    is_cdylib: bool,
}

impl Workspace {
    /// Reads it from cargo.
    pub fn read() -> Result<Workspace> {
        let json = metadata(None)?;
        let mut members: Vec<Member> = json["packages"].as_array().into_iter().flatten().filter_map(member).collect();
        members.sort_by(|a, b| a.name.cmp(&b.name));
        let target = json["target_directory"].as_str().ok_or("cargo metadata reports no target folder")?.into();
        Ok(Workspace { members, target })
    }

    /// The crates under `folder` (relative to the root) that build a dynamic library.
    pub fn cdylibs_under(&self, folder: &str) -> Result<Vec<&Member>> {
        let folder = root()?.join(folder);
        Ok(self.members.iter().filter(|m| m.is_cdylib && m.manifest.starts_with(&folder)).collect())
    }
}

/// A package with the root files of its crates.
pub struct Package {
    /// Its `Cargo.toml`.
    pub manifest: PathBuf,
    /// The root files of its libraries, programs, benches and examples; not of its test programs.
    pub roots: Vec<PathBuf>,
}

/// The packages of the workspace of `manifest`, from cargo.
pub fn packages(manifest: &Path) -> Result<Vec<Package>> {
    let json = metadata(Some(manifest))?;
    let packages = json["packages"].as_array().into_iter().flatten();
    Ok(packages
        .filter_map(|package| {
            let targets = package["targets"].as_array()?.iter();
            let roots = targets.filter(|target| target["kind"][0] != "test");
            Some(Package {
                manifest: package["manifest_path"].as_str()?.into(),
                roots: roots.filter_map(|target| Some(target["src_path"].as_str()?.into())).collect(),
            })
        })
        .collect())
}

/// The `cargo metadata` of a workspace, by default of this one.
fn metadata(manifest: Option<&Path>) -> Result<Value> {
    let mut command = cargo()?;
    command.args(["metadata", "--no-deps", "--format-version", "1"]);
    if let Some(manifest) = manifest {
        command.arg("--manifest-path").arg(manifest);
    }
    let output = command.stderr(Stdio::inherit()).output().map_err(|e| format!("cannot run cargo: {e}"))?;
    if !output.status.success() {
        return Err("cargo metadata failed".into());
    }
    serde_json::from_slice(&output.stdout).map_err(|e| format!("cargo metadata cannot be read: {e}"))
}

fn member(package: &Value) -> Option<Member> {
    Some(Member {
        name: package["name"].as_str()?.to_owned(),
        version: package["version"].as_str()?.to_owned(),
        manifest: package["manifest_path"].as_str()?.into(),
        is_cdylib: package["targets"].as_array()?.iter().any(|t| has_cdylib(&t["crate_types"])),
    })
}

fn has_cdylib(kinds: &Value) -> bool {
    kinds.as_array().is_some_and(|kinds| kinds.iter().any(|k| k == "cdylib"))
}

/// A file that cargo built or found up to date.
pub struct Artifact {
    /// The `Cargo.toml` of its package.
    pub manifest: PathBuf,
    /// A program or a dynamic library.
    pub path: PathBuf,
}

/// Runs `cargo build` and returns the programs and dynamic libraries. Prints nothing if all was up to date.
pub fn build(args: &[String]) -> Result<Vec<Artifact>> {
    artifacts(cargo()?.args(["build", "--release"]).args(args))
}

/// Runs a `cargo build` and returns the programs and dynamic libraries. Prints nothing if all was up to date.
pub fn artifacts(command: &mut Command) -> Result<Vec<Artifact>> {
    command.args(["--message-format", "json-render-diagnostics"]);
    if std::io::stderr().is_terminal() {
        command.args(["--color", "always"]);
    }
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("cannot run cargo build: {e}"))?;
    let progress = child.stderr.take().map(|stderr| thread::spawn(move || forward(stderr)));
    let mut artifacts = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines().map_while(std::result::Result::ok) {
            artifacts.extend(serde_json::from_str(&line).ok().as_ref().map(artifacts_of).unwrap_or_default());
        }
    }
    if let Some(progress) = progress {
        _ = progress.join();
    }
    let status = child.wait().map_err(|e| format!("cannot wait for cargo build: {e}"))?;
    if status.success() { Ok(artifacts) } else { Err("the build failed".into()) }
}

/// Forwards cargo's progress, except the line that it prints even if there was nothing to do.
fn forward(stderr: impl Read) {
    for line in BufReader::new(stderr).lines().map_while(std::result::Result::ok) {
        if !line.contains("Finished") {
            eprintln!("{line}");
        }
    }
}

fn artifacts_of(message: &Value) -> Vec<Artifact> {
    if message["reason"] != "compiler-artifact" {
        return Vec::new();
    }
    let manifest = PathBuf::from(message["manifest_path"].as_str().unwrap_or_default());
    // Only programs: no tests, benches or examples.
    let program = message["target"]["kind"][0] == "bin" && message["profile"]["test"] == false;
    let executable = message["executable"].as_str().filter(|_| program).map(PathBuf::from);
    let libraries = message["filenames"].as_array().into_iter().flatten().filter_map(Value::as_str).map(PathBuf::from);
    let libraries = libraries.filter(|path| has_cdylib(&message["target"]["crate_types"]) && is_library(path));
    executable.into_iter().chain(libraries).map(|path| Artifact { manifest: manifest.clone(), path }).collect()
}

/// Whether a file has the name of a dynamic library of this platform.
pub fn is_library(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == env::consts::DLL_EXTENSION)
}
