//! `cargo xtask dist`: a folder that runs on another machine of the same kind, without Rust and without this workspace.
//!
//! Programs and plugins are copied from a build and stripped of their debug tables, together with files to run with
//! them: experiments, documents, the GPU script, the PyTorch peers, and the SDK (`sdk`), with which a plugin is built. libtorch is
//! never included: each machine has its own, linked as `plugins/libtorch`.

use crate::{
    build,
    cargo::{self, Workspace},
    errors::Result,
    files::{copy, copy_file, write},
    sdk,
};
use sha2::{Digest, Sha256};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{self, Command},
};

/// The programs: the host, and `telos-step`, whose steps are timed in turns with PyTorch's.
const PROGRAMS: &[&str] = &["telos", "telos-step"];

/// Built outside the workspace, if there is a libtorch; included if it was built.
const TORCH: &str = "backend-torch";

/// Copied unchanged: files, or folders with their content. They include every file that the README names, so that it holds in a
/// distribution too.
const TEXTS: &[&str] = &[
    "experiments",
    "benches/LOG.md",
    "benches/gpu.sh",
    "benches/gpu.py",
    "benches/peers",
    "benches/results",
    "docs",
    "python",
    "tests/peers",
    "tests/results",
    "README.md",
    "ARCHITECTURE.md",
    "SECURITY.md",
    "LICENSE-APACHE",
    "LICENSE-MIT",
];

/// Marks a folder as a distribution, and names its version.
const CARD: &str = "DIST.txt";
const SUMS: &str = "SHA256SUMS";

/// The maximum size of a distribution. Packed, it has less than half of it.
const LIMIT: u64 = 96 << 20;

/// The arguments of the command.
#[derive(Debug, Default, PartialEq)]
pub struct Request {
    /// The output folder; default `target/dist/telos-VERSION-TARGET`.
    pub out: Option<PathBuf>,
    /// The folder of an earlier build; default: everything is built first.
    pub built: Option<PathBuf>,
}

impl Request {
    /// Reads `[--out DIR] [--built DIR]`; `None` for anything else.
    pub fn read(args: &[std::ffi::OsString]) -> Option<Request> {
        let mut request = Request::default();
        for pair in args.chunks(2) {
            let [name, folder] = pair else { return None };
            let slot = match name.to_str()? {
                "--out" => &mut request.out,
                "--built" => &mut request.built,
                _ => return None,
            };
            *slot = Some(folder.into());
        }
        Some(request)
    }
}

/// Builds the same files that the tests run, copies, strips, checks the size, and moves the folder to its final path.
pub fn run(request: &Request) -> Result<()> {
    let built = match &request.built {
        Some(folder) => folder.clone(),
        None => build::everything(None)?.folder()?.to_owned(),
    };
    let workspace = Workspace::read()?;
    let name = name(&workspace)?;
    // As in cargo's layout, the folder of a build is target/release.
    let target = built.parent().ok_or_else(|| format!("{} has no parent folder", built.display()))?;
    let out = request.out.clone().unwrap_or_else(|| target.join("dist").join(&name));
    may_be_replaced(&out)?;
    // In the folder of the final path, so that the last step is a rename.
    let fresh = out.with_file_name(format!(".new-{name}-{}", process::id()));
    _ = fs::remove_dir_all(&fresh);
    let done = fill(&fresh, &built, &workspace, &name).and_then(|files| {
        let weight = weigh(&files)?;
        _ = fs::remove_dir_all(&out);
        fs::rename(&fresh, &out).map_err(|e| format!("cannot name {}: {e}", out.display()))?;
        Ok(weight)
    });
    if done.is_err() {
        _ = fs::remove_dir_all(&fresh);
    }
    println!("{}: {}", out.display(), mib(done?));
    Ok(())
}

/// `telos-VERSION-TARGET`.
fn name(workspace: &Workspace) -> Result<String> {
    let host = workspace.members.iter().find(|m| m.name == "telos").ok_or("the workspace has no crate `telos`")?;
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("-vV").output().map_err(|e| format!("cannot run rustc -vV: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let target = text.lines().find_map(|line| line.strip_prefix("host: ")).ok_or("rustc -vV reports no host")?;
    Ok(format!("telos-{}-{target}", host.version))
}

/// Only an older distribution may be removed.
fn may_be_replaced(out: &Path) -> Result<()> {
    let is_empty = fs::read_dir(out).map_or(!out.exists(), |mut entries| entries.next().is_none());
    if is_empty || out.join(CARD).is_file() {
        return Ok(());
    }
    Err(format!("{} exists and is not a distribution (it contains no {CARD}); choose another --out", out.display()))
}

/// A file of the distribution.
struct Shipped {
    /// Relative to the folder, with `/`.
    name: String,
    bytes: u64,
    sha256: String,
}

fn fill(folder: &Path, built: &Path, workspace: &Workspace, name: &str) -> Result<Vec<Shipped>> {
    for program in PROGRAMS {
        let file = format!("{program}{}", env::consts::EXE_SUFFIX);
        strip(&built.join(&file), &folder.join(&file))?;
    }
    for library in libraries(&built.join("plugins"), workspace)? {
        let file = library.file_name().ok_or_else(|| format!("{} has no name", library.display()))?;
        strip(&library, &folder.join("plugins").join(file))?;
    }
    for text in TEXTS {
        copy(&cargo::root()?.join(text), &folder.join(text))?;
    }
    sdk::write(&cargo::root()?, &folder.join("sdk"))?;
    let has_torch = library(&folder.join("plugins"), TORCH).is_file();
    write(&folder.join(CARD), &card(name, has_torch))?;
    let mut files = Vec::new();
    list(folder, folder, &mut files)?;
    files.sort_by(|a, b| a.name.cmp(&b.name));
    let sums: String = files.iter().map(|f| format!("{}  {}\n", f.sha256, f.name)).collect();
    write(&folder.join(SUMS), &sums)?;
    Ok(files)
}

/// The plugins of this project in the build's folder: all of the workspace's, and torch's if it was built. A user's own
/// plugins are not included.
fn libraries(folder: &Path, workspace: &Workspace) -> Result<Vec<PathBuf>> {
    let path = |package: &str| library(folder, package);
    let mut libraries = Vec::new();
    for plugin in workspace.cdylibs_under("plugins")? {
        let library = path(&plugin.name);
        if !library.is_file() {
            return Err(format!("there is no {}: run `cargo xtask build`", library.display()));
        }
        libraries.push(library);
    }
    match path(TORCH) {
        torch if torch.is_file() => libraries.push(torch),
        torch => println!("without {TORCH}: there is no {}; `cargo xtask torch` builds it", torch.display()),
    }
    libraries.sort();
    libraries.dedup();
    Ok(libraries)
}

/// The file of a package's library in a folder.
fn library(folder: &Path, package: &str) -> PathBuf {
    let (before, after) = (env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX);
    folder.join(format!("{before}{}{after}", package.replace('-', "_")))
}

/// A copy without debug tables. Everything that the dynamic linker and the host read from a plugin is kept.
fn strip(from: &Path, to: &Path) -> Result<()> {
    copy_file(from, to)?;
    // Apple's strip would remove a library's exported symbols.
    let how = if cfg!(target_os = "macos") { "-x" } else { "--strip-all" };
    let status = Command::new("strip").arg(how).arg(to).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(format!("strip failed for {}; its message is above", from.display())),
        Err(e) => Err(format!("cannot run `strip` ({e}); install binutils, which contains it")),
    }
}

/// Every file below `folder`.
fn list(root: &Path, folder: &Path, files: &mut Vec<Shipped>) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(|e| format!("cannot read {}: {e}", folder.display()))? {
        let path = entry.map_err(|e| format!("cannot read {}: {e}", folder.display()))?.path();
        if path.is_dir() {
            list(root, &path, files)?;
            continue;
        }
        let bytes = fs::read(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        let sha256 = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
        let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().replace('\\', "/");
        files.push(Shipped { name, bytes: bytes.len() as u64, sha256 });
    }
    Ok(())
}

/// The total number of bytes, if it is within the limit.
fn weigh(files: &[Shipped]) -> Result<u64> {
    let sum = files.iter().map(|f| f.bytes).sum();
    if sum <= LIMIT {
        return Ok(sum);
    }
    let mut heavy: Vec<&Shipped> = files.iter().collect();
    heavy.sort_by_key(|f| std::cmp::Reverse(f.bytes));
    let heavy: Vec<String> = heavy.iter().take(3).map(|f| format!("{} {}", f.name, mib(f.bytes))).collect();
    Err(format!(
        "the folder has {}, more than the limit of {}; its largest files: {}",
        mib(sum),
        mib(LIMIT),
        heavy.join(", ")
    ))
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn card(name: &str, has_torch: bool) -> String {
    let torch = if has_torch {
        "The torch backend needs a libtorch 2.11.0, which is not included: link it to `plugins/libtorch` (its folder holds `lib`),
for example a Python's:
    ln -s \"$(python3 -c 'import torch, os; print(os.path.dirname(torch.__file__))')\" plugins/libtorch
benches/gpu.sh does that by itself.
"
    } else {
        "This distribution was made without the torch backend.
"
    };
    format!(
        "{name}

./telos plugins list                          lists the plugins
./telos run experiments/quickstart.toml       trains a small model; needs nothing else
./telos plugins new objective my-loss         makes a crate for a loss of your own, built with Rust and the folder sdk
bash benches/gpu.sh --out result.json         on a machine with a GPU and PyTorch 2.11.0: verify, compare, GPT-2 step
sha256sum --check {SUMS}                  checks that no file was changed in transit

README.md describes all commands. The folder works at any path; `telos` finds `plugins` next to itself, and `telos plugins install`
puts plugins of yours there, or into the folder that TELOS_PLUGINS names, if it is set. {SUMS} lists the files that came with the
distribution and no others: the check still passes after you installed plugins, made runs or linked libtorch.

{torch}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let folder = env::temp_dir().join(format!("telos-xtask-dist-{name}-{}", process::id()));
        _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    /// Catches a dist that removes a folder named by mistake.
    #[test]
    fn only_a_distribution_or_an_empty_folder_is_replaced() {
        let folder = scratch("place");
        assert_eq!(may_be_replaced(&folder.join("new")), Ok(()));
        assert_eq!(may_be_replaced(&folder), Ok(()));
        fs::write(folder.join("thesis.tex"), "years of work").unwrap();
        assert!(may_be_replaced(&folder).unwrap_err().contains("is not a distribution"));
        fs::write(folder.join(CARD), "telos").unwrap();
        assert_eq!(may_be_replaced(&folder), Ok(()));
        assert!(may_be_replaced(&folder.join("thesis.tex")).is_err(), "a file");
        fs::remove_dir_all(folder).unwrap();
    }

    /// Catches a limit that is not enforced, and an error that does not name the largest files.
    #[test]
    fn a_folder_above_the_limit_is_refused_with_its_largest_files() {
        let file = |name: &str, bytes| Shipped { name: name.into(), bytes, sha256: String::new() };
        assert_eq!(weigh(&[file("telos", LIMIT)]), Ok(LIMIT));
        let error = weigh(&[file("README.md", 1), file("plugins/big.so", LIMIT)]).unwrap_err();
        assert!(error.contains("plugins/big.so 96.0 MiB"), "{error}");
    }

    /// Catches a copy that includes Python's caches, and sums of other bytes.
    #[test]
    fn folders_are_copied_without_caches_and_listed_with_checksums() {
        let (from, to) = (scratch("from"), scratch("to"));
        fs::create_dir_all(from.join("peers/__pycache__")).unwrap();
        fs::write(from.join("peers/a.py"), "abc").unwrap();
        fs::write(from.join("peers/__pycache__/a.pyc"), "cache").unwrap();
        copy(&from, &to).unwrap();
        let mut files = Vec::new();
        list(&to, &to, &mut files).unwrap();
        let [only] = files.as_slice() else { panic!("{} files", files.len()) };
        assert_eq!((only.name.as_str(), only.bytes), ("peers/a.py", 3));
        // FIPS 180-2, appendix B.1.
        assert_eq!(only.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        fs::remove_dir_all(from).unwrap();
        fs::remove_dir_all(to).unwrap();
    }

    /// Catches advice about libtorch in a distribution without the backend that needs it, none in one with it, and sums that are said
    /// to cover what a user adds.
    #[test]
    fn the_card_says_what_the_distribution_has() {
        let (with, without) = (card("telos-1", true), card("telos-1", false));
        assert!(with.contains("plugins/libtorch") && !without.contains("plugins/libtorch"), "{without}");
        assert!(without.contains("made without the torch backend"), "{without}");
        assert!(with.contains("lists the files that came with the\ndistribution and no others"), "{with}");
    }

    /// Catches arguments that are misread.
    #[test]
    fn arguments_are_folders_by_name() {
        let read = |args: &[&str]| Request::read(&args.iter().map(Into::into).collect::<Vec<_>>());
        assert_eq!(read(&[]), Some(Request::default()));
        let both = Request { out: Some("a".into()), built: Some("b".into()) };
        assert_eq!(read(&["--built", "b", "--out", "a"]), Some(both));
        assert_eq!(read(&["--out"]), None);
        assert_eq!(read(&["a"]), None);
        assert_eq!(read(&["--folder", "a"]), None);
    }
}
