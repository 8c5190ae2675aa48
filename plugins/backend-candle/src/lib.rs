//! The default backend: candle-core's tensors, with kernels of our own for the processor.
//!
//! Two paths compute the same operations and pass the same conformance suite:
//! * **kernels** (the processor): forward and backward kernels over the memory of candle's tensors, matrix products by
//!   the `gemm` library, work cut into fixed pieces so that the number of threads never shows in a result;
//! * **generic**: candle's tensor operations alone, with explicit backward formulas, on any device candle knows. It is
//!   what Metal runs (feature `metal`), and `path = "generic"` selects it on the processor.
//!
//! Buffers, handles and views are the contract's pool ([`plugin_api::backend::Pool`]); models are the host's.

mod check;
mod generic;
mod kernels;
mod session;
mod storage;
mod workspace;

pub use session::CandleSession;

use candle_core::Device;
use kernels::Context;
use plugin_api::{
    Code, Error, Result,
    backend::{Backend, SessionOptions},
    manifest::{BackendManifest, DeviceSpec, OptionSpec},
};
use session::Path;

/// The backend plugin.
pub struct Candle;

const KERNELS: &str = "kernels";
const GENERIC: &str = "generic";
const AUTO: &str = "auto";

impl Backend for Candle {
    type Session = CandleSession;

    fn manifest() -> BackendManifest {
        let device = |name: &str, compiled, tested, note: &str| DeviceSpec {
            name: name.into(),
            compiled,
            tested,
            note: note.into(),
        };
        BackendManifest {
            id: "candle".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "candle-core tensors with own kernels on the processor; f32".into(),
            devices: vec![
                device("cpu", true, true, ""),
                device("metal", cfg!(feature = "metal"), false, "has not been run by its makers"),
            ],
            dtypes: vec!["f32".into()],
            options: vec![OptionSpec {
                name: "path".into(),
                kind: "string".into(),
                default: AUTO.into(),
                min: None,
                max: None,
                choices: [AUTO, KERNELS, GENERIC].map(String::from).to_vec(),
                meaning: "`kernels`: own kernels, on the processor alone; `generic`: candle's tensor operations, on \
                          every device; `auto`: kernels on the processor, generic elsewhere."
                    .into(),
            }],
        }
    }

    fn open(options: &SessionOptions) -> Result<CandleSession> {
        let device = device(&options.device)?;
        let path = path(options, &device)?;
        Ok(CandleSession::new(device, options.tag, path))
    }
}

fn device(name: &str) -> Result<Device> {
    match name {
        "cpu" => Ok(Device::Cpu),
        "metal" if cfg!(all(feature = "metal", target_os = "macos")) => {
            Device::new_metal(0).map_err(|e| Error::new(Code::DEVICE, format!("open: metal: {e}")))
        }
        "metal" => Err(Error::new(
            Code::DEVICE,
            "open: metal is not compiled in; build backend-candle on macOS with `--features metal`",
        )),
        cuda if cuda.starts_with("cuda") => Err(Error::new(
            Code::DEVICE,
            format!(
                "open: candle does not offer {cuda}; it knows cpu, metal: choose one of them, or a backend that has CUDA"
            ),
        )),
        other => Err(Error::new(Code::DEVICE, format!("open: device `{other}` is unknown; candle knows cpu, metal"))),
    }
}

fn path(options: &SessionOptions, device: &Device) -> Result<Path> {
    for key in options.options.keys() {
        if key != "path" {
            return Err(Error::new(Code::OPTION, format!("open: option `{key}` is unknown; candle knows `path`")));
        }
    }
    let given = match options.options.get("path") {
        None => AUTO,
        Some(value) => value
            .as_str()
            .ok_or_else(|| Error::new(Code::OPTION, format!("open: option `path` is {value}, expected a string")))?,
    };
    let on_cpu = matches!(device, Device::Cpu);
    match given {
        KERNELS | AUTO if on_cpu => Ok(Path::Kernels(Box::new(Context::new(options.threads)?))),
        GENERIC | AUTO => Ok(Path::Generic),
        KERNELS => Err(Error::new(Code::OPTION, "open: `path = \"kernels\"` needs device cpu; leave it at auto")),
        other => Err(Error::new(
            Code::OPTION,
            format!("open: option `path` is \"{other}\"; candle knows {AUTO}, {KERNELS}, {GENERIC}"),
        )),
    }
}

plugin_api::export_backend!("candle", Candle);
