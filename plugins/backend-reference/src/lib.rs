//! The reference backend: every operation of the catalogue in plain, slow Rust that is easy to verify.
//!
//! Other backends are compared with it, and the author of a backend reads it first. Each operation reads its operands into f64
//! matrices, loops as in the catalogue's formula, and writes the results rounded to their dtype. It therefore computes in f64 for
//! every storage type, and takes the same inputs as an f32 or bf16 backend.
//!
//! As a template: [`session`] keeps the buffers (the SDK's pool manages the handles) and implements the session's calls; [`ops`]
//! lists the operations, one line each; a file per family in the same folder holds the formulas. A faster backend replaces the
//! bodies of those functions, and keeps the order of their checks.

pub mod ops;
pub mod session;

mod matrix;
mod storage;

pub use session::Reference;

use plugin_api::{
    Code, Error, Result,
    backend::{Backend, SessionOptions},
    manifest::{BackendManifest, DeviceSpec},
};

/// The plugin: opens [`Reference`] sessions on the processor.
pub struct ReferenceBackend;

impl Backend for ReferenceBackend {
    type Session = Reference;

    fn manifest() -> BackendManifest {
        BackendManifest {
            id: "reference".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "Plain loops in f64: the oracle for conformance, too slow for real training".into(),
            devices: vec![DeviceSpec {
                name: "cpu".into(),
                compiled: true,
                tested: true,
                note: "computes in f64 on one thread, whatever the storage".into(),
                instruction_set: String::new(),
                same_with_any_threads: true,
            }],
            dtypes: vec!["f64".into(), "f32".into(), "bf16".into()],
            options: Vec::new(),
        }
    }

    fn open(options: &SessionOptions) -> Result<Reference> {
        if options.device != "cpu" {
            return Err(Error::new(
                Code::DEVICE,
                format!("device `{}` is not available, only `cpu` is", options.device),
            ));
        }
        if let Some(key) = options.options.keys().next() {
            return Err(Error::new(Code::OPTION, format!("it has no options, found `{key}`")));
        }
        Ok(Reference::new(options.tag))
    }
}

plugin_api::export_backend!("reference", ReferenceBackend);
