//! The SDK: the folder with the sources of the contract and its laws, which crates of authors depend on by path. It has
//! the layout of this repository, whether it is the repository or the folder `sdk` of a distribution.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The environment variable that names the SDK's folder.
pub const VARIABLE: &str = "TELOS_SDK";

/// The crates that a crate of an author may depend on, relative to the SDK.
pub const CONTRACT: &str = "plugin-api";
/// The laws, for tests.
pub const LAWS: &str = "plugin-api/laws";
/// The backend that others are compared with, for tests of backends.
pub const REFERENCE: &str = "plugins/backend-reference";
/// The versions of all packages that were tested together.
const VERSIONS: &str = "Cargo.lock";

/// A folder with the SDK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sdk {
    folder: PathBuf,
}

impl Sdk {
    /// Finds it: the folder `given`, else the one that [`VARIABLE`] names, else `sdk` next to this program (a
    /// distribution), else the repository that this program was built in.
    ///
    /// # Errors
    /// A request error: the named folder is not an SDK, or none was found.
    pub fn find(given: Option<&Path>) -> Result<Sdk> {
        let variable = env::var_os(VARIABLE).filter(|folder| !folder.is_empty());
        let program = env::current_exe().ok().and_then(|program| fs::canonicalize(program).ok());
        choose(given, variable.as_deref().map(Path::new), program.as_deref().and_then(Path::parent))
    }

    /// The absolute path of one of its crates.
    pub fn path(&self, krate: &str) -> PathBuf {
        self.folder.join(krate)
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The text of its Cargo.lock.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn versions(&self) -> Result<String> {
        let path = self.folder.join(VERSIONS);
        fs::read_to_string(&path)
            .map_err(|cause| Error::request(format!("cannot read {}", path.display())).with_cause(cause))
    }
}

fn choose(given: Option<&Path>, variable: Option<&Path>, program: Option<&Path>) -> Result<Sdk> {
    for (named, by) in [(given, "--sdk"), (variable, VARIABLE)] {
        let Some(folder) = named else { continue };
        if let Some(lacks) = lacks(folder) {
            let message = format!("{by}: {} is not the SDK: it has no {lacks}", folder.display());
            return Err(Error::request(message)
                .with_hint("name the folder `sdk` of a distribution, or a copy of the repository"));
        }
        return absolute(folder);
    }
    let beside = program.map(|folder| folder.join("sdk"));
    // A build lies in target/release.
    let repository = program.and_then(Path::parent).and_then(Path::parent).map(Path::to_owned);
    let places: Vec<PathBuf> = beside.into_iter().chain(repository).collect();
    match places.iter().find(|folder| lacks(folder).is_none()) {
        Some(folder) => absolute(folder),
        None => {
            let tried: Vec<String> = places.iter().map(|folder| format!("searched: {}", folder.display())).collect();
            Err(Error::request("the SDK, with the sources that a plugin is built with, was not found")
                .with_details(tried)
                .with_hint("name it with --sdk DIR or TELOS_SDK: `sdk` in a distribution, or a copy of the repository"))
        }
    }
}

/// The first file that a folder would need to be an SDK and does not have.
fn lacks(folder: &Path) -> Option<String> {
    let manifests = [CONTRACT, LAWS].map(|krate| format!("{krate}/Cargo.toml"));
    manifests.into_iter().chain([VERSIONS.to_owned()]).find(|file| !folder.join(file).is_file())
}

fn absolute(folder: &Path) -> Result<Sdk> {
    let folder = fs::canonicalize(folder)
        .map_err(|cause| Error::request(format!("{} is not a usable path", folder.display())).with_cause(cause))?;
    Ok(Sdk { folder })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sdk(folder: &Path) -> PathBuf {
        for krate in [CONTRACT, LAWS] {
            fs::create_dir_all(folder.join(krate)).unwrap();
            fs::write(folder.join(krate).join("Cargo.toml"), "").unwrap();
        }
        fs::write(folder.join(VERSIONS), "").unwrap();
        fs::canonicalize(folder).unwrap()
    }

    /// Catches a search that prefers a found folder to a named one, takes a folder that lacks a part, or silently falls
    /// back from a named folder to a found one.
    #[test]
    fn a_named_folder_comes_first_and_is_never_replaced() {
        let lab = tempfile::tempdir().unwrap();
        let at = |name: &str| lab.path().join(name);
        let found = |given: Option<&Path>, variable: Option<&Path>, program: &str| {
            choose(given, variable, Some(&at(program))).map(|sdk| sdk.folder)
        };
        let (mine, other) = (sdk(&at("mine")), sdk(&at("other")));
        let (beside, repository) = (sdk(&at("dist/sdk")), sdk(&at("work")));
        assert_eq!(found(Some(&mine), Some(&other), "dist").unwrap(), mine);
        assert_eq!(found(None, Some(&other), "dist").unwrap(), other);
        assert_eq!(found(None, None, "dist").unwrap(), beside);
        assert_eq!(found(None, None, "work/target/release").unwrap(), repository);
        let wrong = found(Some(&at("dist")), None, "dist").unwrap_err().report();
        assert!(wrong.contains("--sdk") && wrong.contains("it has no plugin-api/Cargo.toml"), "{wrong}");
        let none = found(None, None, "nowhere/at/all").unwrap_err().report();
        assert!(none.contains("was not found") && none.contains("--sdk"), "{none}");
    }
}
