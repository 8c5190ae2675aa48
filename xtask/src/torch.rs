//! libtorch 2.11.0 for the torch plugin: finds or fetches it, arranges it, and builds the plugin against it.
//!
//! The first found is used: the folder in `LIBTORCH`; a Python that has torch; files that an earlier run fetched; files that pip
//! fetches now. Nothing is written outside the cache folder (`TELOS_CACHE`, else the user's cache folder) and cargo's own.
//!
//! The arranged folder holds links: `include/`, and a `lib/` without libtorch's CUDA half, so that the plugin needs libtorch_cpu
//! and libc10 alone. The CUDA half is opened at run time, from the folder of the links' targets. A link `libtorch` in the plugins'
//! folder points to the arranged folder; plugin and host look there first.

use crate::{
    cargo::{self, Workspace},
    errors::Result,
};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The one version that works with the pinned `tch`.
pub const VERSION: &str = "2.11.0";

/// The plugin, a workspace of its own.
const PLUGIN: &str = "plugins/backend-torch";

/// The link's name in the folder of plugins.
const LINK: &str = "libtorch";

/// Libraries of libtorch that the plugin and libtorch_cpu need.
const LIBRARIES: &[&str] = &["libtorch_cpu.so", "libc10.so", "libtorch.so", "libgomp.so.1"];

/// Further libraries for a libtorch_cpu that was built with CUDA, each with its package.
const CUDA_LIBRARIES: &[(&str, &str)] =
    &[("libcupti.so.13", "nvidia-cuda-cupti==13.0.*"), ("libcudart.so.13", "nvidia-cuda-runtime==13.0.*")];

/// Where the packages have their libraries, next to `torch`.
const CUDA_PACKAGES: &str = "nvidia/cu13/lib";

/// NVRTC, with which a test compiles the CUDA kernels, and its package.
const NVRTC: (&str, &str) = ("libnvrtc.so.13", "nvidia-cuda-nvrtc==13.0.*");

/// An arranged libtorch.
pub struct Libtorch {
    /// The folder with the links.
    pub folder: PathBuf,
}

impl Libtorch {
    /// Finds or fetches libtorch and arranges it.
    pub fn set_up() -> Result<Libtorch> {
        if !cfg!(target_os = "linux") {
            return Err("the torch plugin is built on Linux only; everything else builds without it".into());
        }
        Ok(Libtorch { folder: arrange(&find()?)? })
    }

    /// The libtorch that a folder of plugins links to, if it still exists.
    pub fn linked(plugins: &Path) -> Option<Libtorch> {
        let folder = fs::read_link(plugins.join(LINK)).ok()?;
        folder.join("lib/libtorch_cpu.so").is_file().then_some(Libtorch { folder })
    }

    /// The folder of NVRTC: the one in `TELOS_NVRTC`, that of the CUDA packages next to libtorch, or one that pip fetches now.
    pub fn nvrtc(&self) -> Result<PathBuf> {
        if let Some(named) = env::var_os("TELOS_NVRTC") {
            return Ok(named.into());
        }
        let library = self.folder.join("lib/libtorch_cpu.so").canonicalize().unwrap_or_default();
        let beside = library.ancestors().nth(3).map(|packages| packages.join(CUDA_PACKAGES)).unwrap_or_default();
        let fetched = cache()?.join("nvrtc-13.0");
        let has_it = |folder: &PathBuf| folder.join(NVRTC.0).is_file();
        if let Some(folder) = [beside, fetched.join(CUDA_PACKAGES)].into_iter().find(has_it) {
            return Ok(folder);
        }
        eprintln!("fetching NVRTC (90 MB) into {}", fetched.display());
        if !install(&fetched, &["--no-deps", NVRTC.1])? {
            return Err(format!(
                "pip could not fetch {}; name a folder that contains {} in TELOS_NVRTC",
                NVRTC.1, NVRTC.0
            ));
        }
        Ok(fetched.join(CUDA_PACKAGES))
    }

    /// Makes a folder of plugins link to it.
    pub fn link(&self, plugins: &Path) -> Result<()> {
        let at = plugins.join(LINK);
        let failed = |e| format!("cannot link {} to {}: {e}", at.display(), self.folder.display());
        fs::create_dir_all(plugins).map_err(failed)?;
        link(&self.folder, &at).map_err(failed)
    }

    /// Builds the plugin, with its tests if `all`, and returns its library.
    pub fn build(&self, workspace: &Workspace, all: bool) -> Result<Vec<PathBuf>> {
        let mut command = self.cargo(workspace, "build")?;
        command.args(all.then_some("--all-targets"));
        let artifacts = cargo::artifacts(&mut command)?.into_iter();
        let own = manifest()?;
        Ok(artifacts.filter(|a| a.manifest == own && cargo::is_library(&a.path)).map(|a| a.path).collect())
    }

    /// A cargo command for the plugin, in the workspace's target folder.
    pub fn cargo(&self, workspace: &Workspace, command: &str) -> Result<Command> {
        let mut cargo = cargo::cargo()?;
        cargo.args([command, "--release", "--manifest-path"]).arg(manifest()?);
        cargo.arg("--target-dir").arg(&workspace.target).env("LIBTORCH", &self.folder);
        // Only the plugin's library has a run path to libtorch; its tests are programs.
        let libraries = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
        let folders = std::iter::once(self.folder.join("lib")).chain(env::split_paths(&libraries));
        let folders = env::join_paths(folders).map_err(|e| format!("{}: {e}", self.folder.display()))?;
        cargo.env("LD_LIBRARY_PATH", folders);
        Ok(cargo)
    }
}

/// The plugin's `Cargo.toml`.
pub fn manifest() -> Result<PathBuf> {
    Ok(cargo::root()?.join(PLUGIN).join("Cargo.toml"))
}

/// A libtorch found on this machine.
struct Source {
    /// Holds `include` and `lib`: a libtorch folder, or Python's `torch` package.
    folder: PathBuf,
    /// Its own version string, for example `2.11.0+cu130`.
    version: String,
}

fn find() -> Result<Source> {
    if let Some(folder) = env::var_os("LIBTORCH").map(PathBuf::from) {
        return named(folder);
    }
    let mut others = Vec::new();
    for python in pythons() {
        match in_python(&python) {
            Some(source) if fits(&source.version) => return Ok(source),
            Some(source) => others.push(format!("{} has torch {}", python.display(), source.version)),
            None => {}
        }
    }
    for other in others {
        eprintln!("note: {other}, which does not fit; {VERSION} is needed");
    }
    let wheels = cache()?.join(format!("wheels-{VERSION}"));
    if !wheels.join("torch/lib/libtorch_cpu.so").is_file() {
        fetch(&wheels)?;
    }
    named(wheels.join("torch"))
}

/// The folder that the user or an earlier run named, if it holds the right version.
fn named(folder: PathBuf) -> Result<Source> {
    let remedy = "unset LIBTORCH and run `cargo xtask torch` again to find or fetch one";
    if !folder.join("lib/libtorch_cpu.so").is_file() {
        return Err(format!("{} contains no lib/libtorch_cpu.so; {remedy}", folder.display()));
    }
    let version = version_in(&folder).ok_or_else(|| {
        format!("{} does not state its version (in build-version or version.py); {remedy}", folder.display())
    })?;
    if !fits(&version) {
        return Err(format!("{} is libtorch {version}, {VERSION} is needed; {remedy}", folder.display()));
    }
    Ok(Source { folder, version })
}

fn fits(version: &str) -> bool {
    version.split('+').next() == Some(VERSION)
}

/// The version from `build-version` of a libtorch folder or `version.py` of a Python package.
fn version_in(folder: &Path) -> Option<String> {
    if let Ok(text) = fs::read_to_string(folder.join("build-version")) {
        return Some(text.trim().to_owned());
    }
    let text = fs::read_to_string(folder.join("version.py")).ok()?;
    let line = text.lines().find(|line| line.starts_with("__version__"))?;
    Some(line.split_once('=')?.1.trim().trim_matches(['\'', '"']).to_owned())
}

/// Pythons to try: the active environment's, then those on the path.
fn pythons() -> Vec<PathBuf> {
    let active = env::var_os("VIRTUAL_ENV").map(|folder| Path::new(&folder).join("bin/python"));
    active.into_iter().chain(["python3".into(), "python".into()]).collect()
}

/// The torch of a Python, found without importing it (that takes seconds).
fn in_python(python: &Path) -> Option<Source> {
    let script = "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])";
    let output = Command::new(python).args(["-c", script]).stderr(Stdio::null()).output().ok()?;
    let folder = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    let version = version_in(&folder).filter(|_| output.status.success())?;
    Some(Source { folder, version })
}

/// The folder for fetched and arranged files.
pub fn cache() -> Result<PathBuf> {
    let given = env::var_os("TELOS_CACHE").map(PathBuf::from);
    let user = || env::var_os("XDG_CACHE_HOME").map(|folder| Path::new(&folder).join("telos"));
    let home = || env::var_os("HOME").map(|folder| Path::new(&folder).join(".cache/telos"));
    let folder =
        given.or_else(user).or_else(home).ok_or("no cache folder: set TELOS_CACHE to one outside the project")?;
    if folder.starts_with(cargo::root()?) {
        return Err(format!("the cache folder {} is inside the project; set TELOS_CACHE to another", folder.display()));
    }
    Ok(folder)
}

/// Fetches the wheels with pip.
fn fetch(wheels: &Path) -> Result<()> {
    eprintln!("fetching torch {VERSION} (530 MB) into {}", wheels.display());
    let torch = format!("torch=={VERSION}");
    let packages: Vec<&str> = CUDA_LIBRARIES.iter().map(|(_, package)| *package).chain([torch.as_str()]).collect();
    if !install(wheels, &[&["--no-deps"], &packages[..]].concat())? {
        return Err(format!(
            "pip could not fetch torch {VERSION}; install Python 3.10 or newer with pip, or install torch yourself (`python3 -m \
             pip install {torch}`) and run `cargo xtask torch` again, or set LIBTORCH to a libtorch {VERSION} folder"
        ));
    }
    Ok(())
}

/// Installs Python packages into a folder of their own, with the first Python whose pip can; the folder appears when it is complete.
/// `packages` may begin with an option of pip. Returns whether one could.
pub fn install(folder: &Path, packages: &[&str]) -> Result<bool> {
    // Its name has dots, so that an extension would replace a part of it.
    let part = folder.with_added_extension("part");
    _ = fs::remove_dir_all(&part);
    let run = |python: &PathBuf| {
        let mut pip = Command::new(python);
        pip.args(["-m", "pip", "install", "--no-compile", "--target"]).arg(&part).args(packages);
        pip.status().is_ok_and(|status| status.success())
    };
    if !pythons().iter().any(run) {
        return Ok(false);
    }
    fs::rename(&part, folder).map_err(|e| format!("cannot name {}: {e}", folder.display()))?;
    Ok(true)
}

/// Links what is needed into a folder of its own, and returns it.
fn arrange(source: &Source) -> Result<PathBuf> {
    let arranged = cache()?.join(format!("libtorch-{VERSION}"));
    let (lib, shown) = (arranged.join("lib"), |path: &Path, e| format!("cannot arrange {}: {e}", path.display()));
    fs::create_dir_all(&lib).map_err(|e| shown(&lib, e))?;
    let include = arranged.join("include");
    link(&source.folder.join("include"), &include).map_err(|e| shown(&include, e))?;
    let own = source.folder.join("lib");
    for name in LIBRARIES {
        let from = own.join(name);
        if from.exists() {
            link(&from, &lib.join(name)).map_err(|e| shown(&from, e))?;
        }
    }
    // A wheel's CUDA libraries are in the packages next to it; a libtorch folder has them among its own.
    let packages = source.folder.parent().map(|folder| folder.join(CUDA_PACKAGES)).unwrap_or_default();
    for (name, package) in CUDA_LIBRARIES.iter().filter(|_| !source.version.ends_with("+cpu")) {
        let from = [&own, &packages].into_iter().map(|folder| folder.join(name)).find(|path| path.is_file());
        let from = from.ok_or_else(|| {
            let python = "the Python that has torch";
            format!("{} needs {name}: run `python -m pip install '{package}'` with {python}", own.display())
        })?;
        link(&from, &lib.join(name)).map_err(|e| shown(&from, e))?;
    }
    let version = arranged.join("build-version");
    if version_in(&arranged).as_deref() != Some(VERSION) {
        fs::write(&version, VERSION).map_err(|e| shown(&version, e))?;
    }
    Ok(arranged)
}

/// Creates a link at `to` in one step; keeps a link that is right already, so that no file becomes newer.
#[cfg(unix)]
fn link(from: &Path, to: &Path) -> std::io::Result<()> {
    let from = from.canonicalize()?;
    if fs::read_link(to).is_ok_and(|old| old == from) {
        return Ok(());
    }
    let fresh = to.with_extension(format!("new-{}", std::process::id()));
    std::os::unix::fs::symlink(from, &fresh)?;
    fs::rename(&fresh, to)
}

#[cfg(not(unix))]
fn link(_: &Path, _: &Path) -> std::io::Result<()> {
    Err(std::io::Error::other("arranging libtorch is written for Linux and macOS"))
}
