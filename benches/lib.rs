//! What the benches share: finding the built plugins, which backends to run on, and opening one through its library.
//!
//! Run `cargo xtask build` first, then `cargo bench -p telos-benches`. `TELOS_BENCH_BACKENDS` names the backends, for
//! example `candle,torch:cuda:0@bf16` ([`Spec`]); left out, it is every one that is installed but the reference, in f32
//! and, where it has it, bf16. Results worth keeping go to `results/`, named by machine and date.

mod spec;
mod training;

pub use spec::Spec;
pub use training::{Figures, Training};

use plugin_api::{
    backend::{DType, SessionOptions},
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

/// The backends to bench: those of `TELOS_BENCH_BACKENDS`, else what is installed of candle (both paths) and torch, on the
/// processor, in f32 and bf16 as far as each has it.
///
/// # Panics
/// Where the variable holds no specs, or a plugin does not load.
pub fn backends() -> Vec<Spec> {
    if let Ok(text) = std::env::var("TELOS_BENCH_BACKENDS") {
        return Spec::list(&text).unwrap_or_else(|why| panic!("TELOS_BENCH_BACKENDS: {why}"));
    }
    let registry = Registry::discover(&[plugin_folder()]);
    let generic = Spec { options: vec![("path".into(), "generic".into())], ..Spec::of("candle") };
    let installed = [Spec::of("candle"), generic, Spec::of("torch")];
    let installed = installed.into_iter().filter(|spec| registry.find(kind::BACKEND, &spec.id).is_ok());
    let in_each_dtype = |spec: Spec| {
        let known = library(kind::BACKEND, &spec.id).backend_manifest().expect("a manifest").dtypes;
        let own = move |dtype: &DType| known.contains(&dtype.to_string());
        [DType::F32, DType::BF16].into_iter().filter(own).map(move |dtype| Spec { dtype, ..spec.clone() })
    };
    installed.flat_map(in_each_dtype).collect()
}

/// A session of a backend, with some of its options set.
///
/// # Panics
/// Where the backend is not built or does not open.
pub fn session(spec: &Spec, threads: usize) -> LoadedSession {
    let library = library(kind::BACKEND, &spec.id);
    let manifest = library.backend_manifest().expect("a manifest");
    let mut options: OptionMap = manifest.options.iter().map(|o| (o.name.clone(), o.default.clone())).collect();
    // `true` and `2` are themselves in JSON; a bare word is none, and is text.
    let value = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| text.into());
    options.extend(spec.options.iter().map(|(name, text)| (name.clone(), value(text))));
    let options = SessionOptions { device: spec.device.clone(), threads, options, ..Default::default() };
    library.session(&options).unwrap_or_else(|why| panic!("{spec}: {why}"))
}

/// Threads used where a bench does not vary them.
pub const THREADS: usize = 2;
