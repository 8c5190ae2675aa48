//! Where the crate that checks layouts may be used: it could be replaced by changing these places alone.

use super::sources::Sources;

/// A path into the crate.
const USE: &str = concat!("abi_", "stable::");

/// Files and folders that may use it: the layout, the loader, and the test of the recorded layout.
const ALLOWED: [&str; 3] = ["plugin-api/src/abi/", "plugin-api/load/src/", "plugin-api/tests/abi_lock.rs"];

/// An error for each line of code elsewhere that uses it.
pub fn crossings(sources: &Sources) -> Vec<String> {
    let elsewhere = sources.files.iter().filter(|(file, _)| !ALLOWED.iter().any(|start| file.starts_with(start)));
    let lines = elsewhere.flat_map(|(file, text)| (1..).zip(text.lines()).map(move |(at, line)| (file, at, line)));
    lines
        .filter(|(_, _, line)| line.contains(USE) && !line.trim_start().starts_with("//"))
        .map(|(file, at, _)| {
            format!("{}:{at} uses `{USE}`: only {} may; use `plugin_api::abi`", file.display(), ALLOWED.join(", "))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// Catches a use outside of the layout that is accepted, and a use inside of it that is not.
    #[test]
    fn the_layout_crate_is_used_at_the_boundary_alone() {
        let text = format!("// {USE}A\nuse {USE}std_types::RVec;\n");
        let files = ["plugin-api/src/abi/types.rs", "plugin-api/src/export/reward.rs", "host/src/lib.rs"];
        let files = files.map(|path| (PathBuf::from(path), text.clone())).into();
        let errors = crossings(&Sources { files, ..Sources::default() });
        assert_eq!(errors.len(), 2, "{errors:?}");
        assert!(errors[1].starts_with("plugin-api/src/export/reward.rs:2 uses"), "{errors:?}");
    }
}
