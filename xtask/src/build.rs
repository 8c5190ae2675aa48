//! Builds host and plugins in one call of cargo, so that they share every dependency.

use crate::{
    cargo::{self, Artifact, Member, Workspace},
    errors::Result,
    plugins::arrange,
    torch::Libtorch,
};
use std::path::{Path, PathBuf};

/// The folder of plugins in the workspace.
const PLUGINS: &str = "plugins";
/// The folder of plugins that only tests load.
const TEST_PLUGINS: &str = "tests/plugins";

/// The host's crate.
const HOST: &str = "telos";

/// The result of a build.
pub struct Built {
    /// The host program. `plugins` in its folder holds the plugins, `test-plugins` those for tests.
    pub host: PathBuf,
}

impl Built {
    /// The folder that holds the host.
    pub fn folder(&self) -> Result<&Path> {
        self.host.parent().ok_or_else(|| format!("{} has no parent folder", self.host.display()))
    }
}

/// The host and every plugin; the torch plugin if `libtorch` is given, or was given when the plugins were last arranged.
pub fn host_and_plugins(libtorch: Option<&Libtorch>) -> Result<Built> {
    let workspace = Workspace::read()?;
    let plugins = workspace.cdylibs_under(PLUGINS)?;
    let packages = plugins.iter().map(|m| m.name.as_str()).chain([HOST]);
    let args: Vec<String> = packages.flat_map(|name| ["--package".to_owned(), name.to_owned()]).collect();
    build(&workspace, &plugins, &[], &args, libtorch)
}

/// The host, every plugin, and the plugins that only tests load; the torch plugin as in [`host_and_plugins`].
pub fn everything(libtorch: Option<&Libtorch>) -> Result<Built> {
    let workspace = Workspace::read()?;
    let (plugins, test_plugins) = (workspace.cdylibs_under(PLUGINS)?, workspace.cdylibs_under(TEST_PLUGINS)?);
    // With the same features as the tests, or cargo would build half of the dependencies twice.
    build(&workspace, &plugins, &test_plugins, &["--workspace".to_owned(), "--all-targets".to_owned()], libtorch)
}

fn build(
    workspace: &Workspace,
    plugins: &[&Member],
    test_plugins: &[&Member],
    args: &[String],
    libtorch: Option<&Libtorch>,
) -> Result<Built> {
    let host = workspace.members.iter().find(|m| m.name == HOST).ok_or("the workspace has no crate `telos`")?;
    let artifacts = cargo::build(args)?;
    let host = of(&artifacts, host).find(|path| !cargo::is_library(path)).ok_or("cargo built no `telos`")?;
    let built = Built { host };
    let folder = built.folder()?.join("plugins");
    let mut placed = libraries(&artifacts, plugins);
    let linked = Libtorch::linked(&folder);
    if let Some(libtorch) = libtorch.or(linked.as_ref()) {
        // The tests of the torch plugin are built if those of the workspace are.
        placed.extend(libtorch.build(workspace, !test_plugins.is_empty())?);
        libtorch.link(&folder)?;
    }
    arrange(&folder, &placed)?;
    if !test_plugins.is_empty() {
        arrange(&built.folder()?.join("test-plugins"), &libraries(&artifacts, test_plugins))?;
    }
    Ok(built)
}

fn of(artifacts: &[Artifact], member: &Member) -> impl Iterator<Item = PathBuf> {
    artifacts.iter().filter(move |a| a.manifest == member.manifest).map(|a| a.path.clone())
}

fn libraries(artifacts: &[Artifact], members: &[&Member]) -> Vec<PathBuf> {
    members.iter().flat_map(|m| of(artifacts, m)).filter(|path| cargo::is_library(path)).collect()
}
