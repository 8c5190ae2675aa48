//! Builds one plugin of each kind and a small host against several minor versions of the contract, for the test that crosses them
//! (`tests/e2e/plugins/abi_versions.rs`). They are put into `abi-cross/VARIANT` in the host's folder.

use crate::{build::Built, cargo, errors::Result};
use std::{fs, path::Path};

const PLUGIN: &str = "abi-cross-plugin";
const LOADER: &str = "abi-cross-loader";

/// Name, the feature that enables it, the crates built.
const VARIANTS: [(&str, Option<&str>, &[&str]); 3] = [
    ("this-minor", None, &[PLUGIN, LOADER]),
    ("next-minor", Some("next-minor"), &[PLUGIN, LOADER]),
    ("other-layout", Some("other-layout"), &[PLUGIN]),
];

/// Builds all variants.
pub fn build(built: &Built) -> Result<()> {
    let folder = built.folder()?;
    VARIANTS.iter().try_for_each(|(name, feature, crates)| variant(folder, name, *feature, crates))
}

fn variant(folder: &Path, name: &str, feature: Option<&str>, crates: &[&str]) -> Result<()> {
    // A dynamic library keeps its plain name for any features, so that variants replace each other and cargo would treat a stale
    // one as fresh: the last one has to be removed first. All other files have distinct names, and are shared with other builds.
    let library =
        format!("{}{}{}", std::env::consts::DLL_PREFIX, PLUGIN.replace('-', "_"), std::env::consts::DLL_SUFFIX);
    for stale in [folder.join(&library), folder.join("deps").join(&library)] {
        if let Err(e) = fs::remove_file(&stale)
            && e.kind() != std::io::ErrorKind::NotFound
        {
            return Err(format!("cannot remove {}: {e}", stale.display()));
        }
    }
    let mut args: Vec<String> = crates.iter().flat_map(|c| ["--package".to_owned(), (*c).to_owned()]).collect();
    args.extend(feature.into_iter().flat_map(|f| ["--features".to_owned(), f.to_owned()]));
    let to = folder.join("abi-cross").join(name);
    fs::create_dir_all(&to).map_err(|e| format!("cannot create {}: {e}", to.display()))?;
    for artifact in cargo::build(&args)? {
        let Some(file) = artifact.path.file_name().filter(|f| f.to_string_lossy().contains("cross")) else { continue };
        // A copy, not a link, because the next variant overwrites the original.
        fs::copy(&artifact.path, to.join(file)).map_err(|e| format!("cannot copy {}: {e}", artifact.path.display()))?;
    }
    Ok(())
}
