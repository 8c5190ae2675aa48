//! The SDK of a distribution: the sources with which a plugin is built, so that its author needs the distribution and
//! Rust alone.
//!
//! It has the layout of this repository. Its Cargo.toml has the workspace's tables, with the dependencies that these
//! crates use; its Cargo.lock is this workspace's, so that a plugin is built with the versions that were tested.

use crate::{
    errors::Result,
    files::{self, copy, copy_file},
};
use std::{collections::BTreeSet, fs, path::Path};
use toml::{Table, Value};

/// The crates, relative to the root: the contract, its laws, what those draw numbers with, and the backend that others
/// are compared with, which is also the template of a backend.
const CRATES: [&str; 4] = ["plugin-api", "plugin-api/laws", "random", "plugins/backend-reference"];

/// Tables of a manifest that name dependencies.
const DEPENDENCIES: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

/// Writes the SDK of the workspace in `root` into the folder `out`.
///
/// # Errors
/// A file that cannot be read or written, or a manifest that is not valid.
pub fn write(root: &Path, out: &Path) -> Result<()> {
    let mut used = BTreeSet::new();
    for krate in CRATES {
        let (from, to) = (root.join(krate), out.join(krate));
        copy(&from.join("src"), &to.join("src"))?;
        copy_file(&from.join(MANIFEST), &to.join(MANIFEST))?;
        used.extend(inherited(&table(&from.join(MANIFEST))?));
    }
    copy_file(&root.join("Cargo.lock"), &out.join("Cargo.lock"))?;
    let manifest = workspace(table(&root.join(MANIFEST))?, &used)?;
    let text = toml::to_string(&manifest).map_err(|e| format!("cannot write the SDK's {MANIFEST}: {e}"))?;
    files::write(&out.join(MANIFEST), &text)
}

const MANIFEST: &str = "Cargo.toml";

fn table(path: &Path) -> Result<Table> {
    let text = fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    text.parse().map_err(|e| format!("{} is not valid TOML: {e}", path.display()))
}

/// The dependencies whose version a crate takes from its workspace.
fn inherited(manifest: &Table) -> Vec<String> {
    let tables = DEPENDENCIES.iter().filter_map(|name| manifest.get(*name)?.as_table());
    let from_workspace = |value: &Value| value.get("workspace").and_then(Value::as_bool) == Some(true);
    tables.flatten().filter(|(_, value)| from_workspace(value)).map(|(name, _)| name.clone()).collect()
}

/// The manifest of the SDK's workspace, from that of the whole.
fn workspace(mut whole: Table, used: &BTreeSet<String>) -> Result<Table> {
    let Some(Value::Table(mut own)) = whole.remove("workspace") else {
        return Err("the root's Cargo.toml has no [workspace]".into());
    };
    own.retain(|name, _| ["resolver", "package", "dependencies", "lints"].contains(&name));
    own.insert("members".into(), CRATES.iter().map(|krate| Value::from(*krate)).collect::<Vec<_>>().into());
    match own.get_mut("dependencies").and_then(Value::as_table_mut) {
        Some(dependencies) => dependencies.retain(|name, _| used.contains(name)),
        None => return Err("the root's Cargo.toml has no [workspace.dependencies]".into()),
    }
    Ok(Table::from_iter([("workspace".to_owned(), Value::Table(own))]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a crate that takes a dependency, a lint or a field from the workspace which the SDK's lacks, a path
    /// dependency that leads out of the SDK, and dependencies that only the rest of the project uses.
    #[test]
    fn the_workspace_has_what_its_crates_use_and_no_more() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let out = std::env::temp_dir().join(format!("telos-xtask-sdk-{}", std::process::id()));
        _ = fs::remove_dir_all(&out);
        write(root, &out).unwrap();
        let manifest = table(&out.join(MANIFEST)).unwrap();
        let own = &manifest["workspace"];
        let offered: BTreeSet<String> = own["dependencies"].as_table().unwrap().keys().cloned().collect();
        let mut used = BTreeSet::new();
        for krate in CRATES {
            assert!(out.join(krate).join("src/lib.rs").is_file(), "{krate}");
            used.extend(inherited(&table(&out.join(krate).join(MANIFEST)).unwrap()));
        }
        assert_eq!(offered, used);
        for dependency in own["dependencies"].as_table().unwrap().values() {
            let Some(path) = dependency.get("path").and_then(Value::as_str) else { continue };
            assert!(CRATES.contains(&path), "{path} is not in the SDK");
        }
        for table in ["package", "lints"] {
            assert!(own[table].as_table().is_some_and(|table| !table.is_empty()), "{table}");
        }
        assert!(!out.join("plugin-api/load").exists() && out.join("Cargo.lock").is_file());
        fs::remove_dir_all(out).unwrap();
    }
}
