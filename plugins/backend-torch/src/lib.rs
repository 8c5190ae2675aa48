//! The backend on libtorch 2.11.0, through `tch`: the processor, and CUDA if the machine has it.
//!
//! Every operation is written as its formula in ATen calls that record no graph; buffers are flat tensors in the contract's pool,
//! and operands are strided views of them. `shim.cpp` has what tch leaves out. Models belong to the host.

mod context;
mod device;
mod fault;
mod fused;
mod integers;
mod ops;
mod queue;
mod session;
mod settings;
mod shim;
mod storage;
#[cfg(test)]
mod testing;

pub use session::TorchSession;
pub use shim::cpu_capability;

use plugin_api::{
    Code, Error, Result,
    backend::{Backend, SessionOptions},
    manifest::{BackendManifest, DeviceSpec, OptionSpec},
};

use settings::{AttentionPath, Settings};

/// The backend plugin.
#[derive(Debug)]
pub struct Torch;

const TF32: &str = "tf32";
const DETERMINISTIC: &str = "deterministic";
const FUSED: &str = "fused";

impl Backend for Torch {
    type Session = TorchSession;

    fn manifest() -> BackendManifest {
        let option = |name: &str, default: bool, meaning: &str| OptionSpec {
            name: name.into(),
            kind: "bool".into(),
            default: default.into(),
            min: None,
            max: None,
            choices: Vec::new(),
            meaning: meaning.into(),
        };
        let device = |name: &str, tested, note: &str| DeviceSpec {
            name: name.into(),
            compiled: true,
            tested,
            note: note.into(),
            instruction_set: if name == "cpu" { instruction_set() } else { String::new() },
            // The processor's threads compute nothing in a run on CUDA.
            same_with_any_threads: name == "cuda",
        };
        BackendManifest {
            id: "torch".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "libtorch 2.11.0: ATen's kernels on the processor and on CUDA; f32, bf16 and f64".into(),
            devices: vec![
                device("cpu", true, "another number of threads may give other last bits"),
                device(
                    "cuda",
                    true,
                    "f32 has passed every check on an H200 (2026-11-26), bf16 not yet; needs libtorch's CUDA half at run time",
                ),
            ],
            dtypes: ["f32", "bf16", "f64"].map(String::from).to_vec(),
            options: vec![
                option(TF32, false, "Lets matrix products of f32 round their inputs to 10 bits where that is faster."),
                option(DETERMINISTIC, true, "Uses the kernels alone that give the same bits every time, on CUDA too."),
                option(
                    FUSED,
                    false,
                    "Computes norms, activations, rotary embedding, the head's softmax and the optimizer with the plugin's own CUDA \
                     kernels, which read and write less memory. They have not run on a GPU yet: try `plugins verify` first.",
                ),
            ],
        }
    }

    fn open(options: &SessionOptions) -> Result<TorchSession> {
        shim::check_version()?;
        let settings = settings(options)?;
        let device = device::find(&options.device)?;
        let kernels = if settings.fused { Some(fused::open(device)?) } else { None };
        TorchSession::new(device, options, settings, kernels)
    }
}

/// The variable that overrides the option `fused`, for tests: `aten` or `fused`.
const KERNELS: &str = "TELOS_TORCH_KERNELS";

/// What [`KERNELS`] says of `fused`, if it is set.
fn forced() -> Result<Option<bool>> {
    let Some(value) = std::env::var_os(KERNELS) else { return Ok(None) };
    match value.to_str() {
        Some("aten") => Ok(Some(false)),
        Some("fused") => Ok(Some(true)),
        _ => {
            let text = format!("open: {KERNELS} is {}, expected `aten` or `fused`", value.display());
            Err(Error::new(Code::OPTION, text))
        }
    }
}

/// Variables that limit the instruction sets of the libraries that compute products.
const LIMITS: [&str; 2] = ["ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS"];

/// What decides the last bits on the processor: the instruction set of libtorch's own kernels, and limits set for oneDNN and MKL.
fn instruction_set() -> String {
    if shim::check_version().is_err() {
        return String::new();
    }
    let limits = LIMITS.iter().filter_map(|name| Some(format!("{name}={}", std::env::var(name).ok()?)));
    [cpu_capability()].into_iter().chain(limits).collect::<Vec<_>>().join(", ")
}

fn settings(options: &SessionOptions) -> Result<Settings> {
    let attention = AttentionPath::from_environment()?;
    let mut settings = Settings { tf32: false, deterministic: true, fused: false, attention };
    for (key, value) in &options.options {
        let flag = || {
            let refusal =
                || Error::new(Code::OPTION, format!("open: option `{key}` is {value}, expected true or false"));
            value.as_bool().ok_or_else(refusal)
        };
        match key.as_str() {
            TF32 => settings.tf32 = flag()?,
            DETERMINISTIC => settings.deterministic = flag()?,
            FUSED => settings.fused = flag()?,
            _ => {
                let known = format!("torch has `{TF32}`, `{DETERMINISTIC}`, `{FUSED}`");
                return Err(Error::new(Code::OPTION, format!("open: option `{key}` is unknown; {known}")));
            }
        }
    }
    settings.fused = forced()?.unwrap_or(settings.fused);
    Ok(settings)
}

plugin_api::export_backend!(
    "torch",
    Torch,
    preload = "global:libtorch/lib/libc10.so;global:libtorch/lib/libtorch_cpu.so;\
               remedy:link a libtorch 2.11.0 to `libtorch` beside this plugin, as DIST.txt of a distribution shows, or run \
               `cargo xtask torch` in the source tree"
);
