//! Which plugins are installed, and whether they are still the ones that a folder of runs was made with.
//!
//! What a plugin is and how it is called is defined in `plugin-api`.

mod hashes;
pub mod libraries;
pub mod lock;
mod lock_file;
pub mod registry;
mod remedy;

pub use lock::{Lock, Pinning};
pub use registry::Registry;

/// A plugin for tests, in the file `path`.
#[cfg(test)]
fn example(kind: &str, id: &str, path: &std::path::Path) -> plugin_api_load::PluginInfo {
    plugin_api_load::PluginInfo {
        id: id.into(),
        kind: kind.into(),
        version: "1.0.0".into(),
        abi_major: 1,
        abi_minor: 0,
        requires_minor: 0,
        preload: Vec::new(),
        remedy: String::new(),
        path: path.to_owned(),
    }
}
