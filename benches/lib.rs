//! What the benches share: finding the built plugins and opening a backend through its library.
//!
//! Run `cargo xtask build` first, then `cargo bench -p telos-benches`. Results worth keeping go to `results/`, named by
//! machine and date.

use plugin_api::{
    backend::SessionOptions,
    load::{Library, LoadedSession},
    manifest::kind,
    options::OptionMap,
};
use std::path::PathBuf;
use telos::plugins::Registry;

/// The folder with the plugins' libraries: `TELOS_PLUGINS`, else `plugins` beside the build's programs.
///
/// # Panics
/// Where the place of this program is unknown.
pub fn plugin_folder() -> PathBuf {
    if let Some(folder) = std::env::var_os("TELOS_PLUGINS") {
        return folder.into();
    }
    let program = std::env::current_exe().expect("the bench's own path");
    let folder = program.ancestors().nth(2).expect("target/release/deps/bench");
    folder.join("plugins")
}

/// A plugin's library.
///
/// # Panics
/// Where it is not built.
pub fn library(kind: &str, id: &str) -> Library {
    Registry::discover(&[plugin_folder()]).load(kind, id).expect("run `cargo xtask build` first")
}

/// A session of a backend on the processor, with some of its options set.
///
/// # Panics
/// Where the backend is not built or does not open.
pub fn session(id: &str, threads: usize, set: &[(&str, &str)]) -> LoadedSession {
    let library = library(kind::BACKEND, id);
    let manifest = library.backend_manifest().expect("a manifest");
    let mut options: OptionMap = manifest.options.iter().map(|o| (o.name.clone(), o.default.clone())).collect();
    options.extend(set.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())));
    library.session(&SessionOptions { threads, options, ..Default::default() }).expect("a session")
}

/// Threads used where a bench does not vary them.
pub const THREADS: usize = 2;
