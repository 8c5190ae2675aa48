//! The default backend: candle-core's tensors, with our own kernels for the processor.
//!
//! Two paths compute the same operations and pass the same conformance suite:
//! * **kernels** (the processor): forward and backward kernels over the memory of candle's tensors, matrix products for each instruction
//!   set of the processor, work split into fixed tasks so that the number of threads never changes a result;
//! * **generic**: only candle's tensor operations, with explicit backward formulas, on any device candle supports. It is
//!   what Metal runs (feature `metal`), and `path = "generic"` selects it on the processor.
//!
//! Buffers, handles and views belong to the contract's pool ([`plugin_api::backend::Pool`]), models to the host.

mod check;
mod generic;
mod kernels;
mod session;
mod storage;
mod workspace;

pub use session::CandleSession;

use candle_core::Device;
use kernels::{
    Context,
    isa::{self, Isa},
};
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

/// Whether Metal is compiled in.
const METAL: bool = cfg!(all(feature = "metal", target_os = "macos"));
/// The devices of this build, for messages.
const DEVICES: &str = if METAL { "cpu or metal" } else { "cpu" };

impl Backend for Candle {
    type Session = CandleSession;

    fn manifest() -> BackendManifest {
        let device = |name: &str, compiled, tested, note: &str| DeviceSpec {
            name: name.into(),
            compiled,
            tested,
            note: note.into(),
            instruction_set: if name == "cpu" { instruction_set() } else { String::new() },
            same_with_any_threads: name == "cpu",
        };
        BackendManifest {
            id: "candle".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "candle-core tensors with own kernels on the processor; f32 and bf16".into(),
            devices: vec![
                device("cpu", true, true, &isa_note()),
                device("metal", METAL, false, "has not been run by its makers"),
            ],
            dtypes: vec!["f32".into(), "bf16".into()],
            options: vec![path_option(), isa_option()],
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
        "metal" if METAL => Device::new_metal(0).map_err(|e| Error::new(Code::DEVICE, format!("open: metal: {e}"))),
        "metal" => Err(Error::new(
            Code::DEVICE,
            "open: metal is not compiled in; build backend-candle on macOS with `--features metal`",
        )),
        cuda if cuda.starts_with("cuda") => Err(Error::new(
            Code::DEVICE,
            format!("open: candle does not offer {cuda}, only {DEVICES}; choose a backend that has CUDA"),
        )),
        other => Err(Error::new(Code::DEVICE, format!("open: device `{other}` is unknown, expected {DEVICES}"))),
    }
}

fn path(options: &SessionOptions, device: &Device) -> Result<Path> {
    if let Some(key) = options.options.keys().find(|key| !["path", "isa"].contains(&key.as_str())) {
        return Err(Error::new(Code::OPTION, format!("open: option `{key}` is unknown, expected `path` or `isa`")));
    }
    let (given, isa) = (text(options, "path")?.unwrap_or(AUTO), text(options, "isa")?);
    let on_cpu = matches!(device, Device::Cpu);
    match given {
        KERNELS | AUTO if on_cpu => {
            let variable = std::env::var_os(isa::VARIABLE).map(|value| value.to_string_lossy().into_owned());
            let isa = Isa::choose(isa, variable.as_deref())?;
            Ok(Path::Kernels(Box::new(Context::new(options.threads, isa)?)))
        }
        GENERIC | AUTO => match isa.filter(|isa| *isa != isa::AUTO) {
            None => Ok(Path::Generic),
            Some(isa) => Err(Error::new(
                Code::OPTION,
                format!(
                    "open: option `isa` is \"{isa}\", but only candle's own kernels have a choice; leave it at auto"
                ),
            )),
        },
        KERNELS => Err(Error::new(Code::OPTION, "open: `path = \"kernels\"` needs device cpu; leave it at auto")),
        other => Err(Error::new(
            Code::OPTION,
            format!("open: option `path` is \"{other}\", expected {AUTO}, {KERNELS} or {GENERIC}"),
        )),
    }
}

/// An option that is a string.
fn text<'a>(options: &'a SessionOptions, name: &str) -> Result<Option<&'a str>> {
    let Some(value) = options.options.get(name) else { return Ok(None) };
    let refused = || Error::new(Code::OPTION, format!("open: option `{name}` is {value}, expected a string"));
    value.as_str().map(Some).ok_or_else(refused)
}

fn path_option() -> OptionSpec {
    choice(
        "path",
        &[AUTO, KERNELS, GENERIC],
        "`kernels`: own kernels, on the processor alone; `generic`: candle's tensor operations, on every device; `auto`: \
         kernels on the processor, generic elsewhere.",
    )
}

fn isa_option() -> OptionSpec {
    let choices: Vec<&str> = std::iter::once(isa::AUTO).chain(isa::KNOWN.iter().copied()).collect();
    choice(
        "isa",
        &choices,
        "Instruction set of the kernels; `auto`: the widest that the processor has, or what the environment variable \
         TELOS_CANDLE_ISA names. Each gives the same bits every time; the last bits of two sets may differ. `amx` and \
         `avx512bf16` have products of bf16; in f32 they give the bits of `avx512`.",
    )
}

/// An option with named values, the first of which is the default.
fn choice(name: &str, choices: &[&str], meaning: &str) -> OptionSpec {
    OptionSpec {
        name: name.into(),
        kind: "string".into(),
        default: AUTO.into(),
        min: None,
        max: None,
        choices: choices.iter().map(ToString::to_string).collect(),
        meaning: meaning.into(),
    }
}

/// The instruction set of sessions whose option `isa` is `auto`.
fn instruction_set() -> String {
    let forced = std::env::var(isa::VARIABLE).ok().filter(|isa| isa::KNOWN.contains(&isa.as_str()));
    forced.unwrap_or_else(|| isa::available().first().copied().unwrap_or_default().to_owned())
}

/// The instruction sets that the kernels can use on this processor, as a note.
fn isa_note() -> String {
    let (widest, lower) = (isa::available().first().copied().unwrap_or_default(), isa::available()[1..].join(", "));
    match std::env::var_os(isa::VARIABLE).filter(|value| !value.is_empty()) {
        Some(forced) => format!("kernels for {} ({} is set)", forced.to_string_lossy(), isa::VARIABLE),
        None if lower.is_empty() => format!("kernels for {widest}"),
        None => format!("kernels for {widest}; also {lower}"),
    }
}

plugin_api::export_backend!("candle", Candle);
