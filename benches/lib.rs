//! Shared by the benches: finding the built plugins, which backends to run on, and opening one through its library.
//!
//! Run `cargo xtask build` first, then `cargo bench -p telos-benches`. `TELOS_BENCH_BACKENDS` names the backends as `telos
//! compare` does, for example `candle,torch:cuda:0@bf16`. The default is every installed backend but the reference, in f32 and, if
//! it has it, bf16. Results to keep go to `results/`, named by machine and date.

mod training;

pub use telos::compare::spec::Spec;
pub use training::{Figures, Training, setup};

use plugin_api::manifest::kind;
use plugin_api_load::Library;
use std::path::PathBuf;
use telos::{config::Override, plugins::Registry, setup::Setup};

/// The folder with the plugins' libraries: `TELOS_PLUGINS`, else `plugins` in the folder of the built programs.
///
/// # Panics
/// If the path of this program is unknown.
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
/// If it is not built.
pub fn library(kind: &str, id: &str) -> Library {
    Registry::discover(&[plugin_folder()]).load(kind, id).expect("run `cargo xtask build` first")
}

/// The backends to bench: those of `TELOS_BENCH_BACKENDS`, else candle (both paths) and torch as far as installed, on the
/// processor, in f32 and bf16 if supported.
///
/// # Panics
/// If the variable holds no specs, or a plugin does not load.
pub fn backends() -> Vec<Spec> {
    if let Ok(text) = std::env::var("TELOS_BENCH_BACKENDS") {
        return text.split(',').map(|part| spec(part.trim())).collect();
    }
    let registry = Registry::discover(&[plugin_folder()]);
    let mut found = Vec::new();
    for (id, options) in [("candle", ""), ("candle", "?path=generic"), ("torch", "")] {
        if registry.find(kind::BACKEND, id).is_err() {
            continue;
        }
        let dtypes = library(kind::BACKEND, id).backend_manifest().expect("a manifest").dtypes;
        found.push(spec(&format!("{id}{options}")));
        if dtypes.iter().any(|dtype| dtype == "bf16") {
            found.push(spec(&format!("{id}@bf16{options}")));
        }
    }
    found
}

/// A backend as text: `ID[:DEVICE][@DTYPE][?OPTION=VALUE[&OPTION=VALUE]...]`.
///
/// # Panics
/// If the text is not a spec.
pub fn spec(text: &str) -> Spec {
    Spec::parse(text).unwrap_or_else(|why| panic!("backend `{text}`: {why}"))
}

/// A small pre-training experiment on a backend with `threads` threads, for benches that need a session and no model.
///
/// # Panics
/// If the backend is not built or does not open.
pub fn on(spec: &Spec, threads: usize) -> Setup {
    let sets = [threads_of(threads)];
    setup(&experiment("pretrain"), spec, &sets, &[plugin_folder()]).unwrap_or_else(|why| panic!("{spec}: {why:?}"))
}

/// A file of `experiments/`.
pub fn experiment(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../experiments").join(name).with_extension("toml")
}

/// `backend.threads`, as an override.
pub fn threads_of(threads: usize) -> Override {
    Override::value("bench", "backend.threads", &threads.to_string())
}

/// Number of threads of benches that do not vary it.
pub const THREADS: usize = 2;
