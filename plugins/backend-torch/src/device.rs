//! The device of a session, and opening libtorch's CUDA half if a session requests it.
//!
//! The plugin links only libtorch_cpu and libc10, so that one file works on machines with and without a GPU. libtorch looks for
//! its CUDA half once and remembers the result, so the half is opened before anything looks for it.

use plugin_api::{Code, Error, Result};
use std::{
    path::{Path, PathBuf},
    sync::Mutex,
};
use tch::Device;

const CUDA_HALF: &str = "libtorch_cuda.so";

/// The device with that name.
///
/// # Errors
/// `DEVICE` naming the available devices and the remedy.
pub fn find(name: &str) -> Result<Device> {
    match name.split_once(':').unwrap_or((name, "")) {
        ("cpu", "") => Ok(Device::Cpu),
        ("cuda", index) => cuda(name, index),
        ("metal", _) => {
            Err(refuse("torch does not offer metal; use the candle backend (`plugin = \"candle\"`)".into()))
        }
        _ => Err(refuse(format!("device `{name}` is unknown; torch supports cpu, cuda:0, cuda:1 ..."))),
    }
}

fn refuse(text: String) -> Error {
    Error::new(Code::DEVICE, format!("open: {text}"))
}

fn cuda(name: &str, index: &str) -> Result<Device> {
    let index: usize = match index {
        "" => 0,
        digits => digits
            .parse()
            .map_err(|_| refuse(format!("device `{name}` has no number; torch supports cuda:0, cuda:1 ...")))?,
    };
    open_cuda_half(name)?;
    let count = usize::try_from(tch::Cuda::device_count()).unwrap_or(0);
    match count {
        _ if index < count => Ok(Device::Cuda(index)),
        0 => Err(refuse(format!("{name}: libtorch finds no CUDA device here; use `device = \"cpu\"`"))),
        _ => Err(refuse(format!("{name} is not available; this machine has cuda:0 to cuda:{}", count - 1))),
    }
}

/// Opens libtorch_cuda for the whole process, once.
fn open_cuda_half(name: &str) -> Result<()> {
    static OPENED: Mutex<bool> = Mutex::new(false);
    let mut opened = OPENED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if *opened {
        return Ok(());
    }
    // The library takes seconds to open, and cannot be used without a driver.
    if !["/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg"].iter().any(|node| Path::new(node).exists()) {
        return Err(refuse(format!("{name}: there is no NVIDIA driver on this machine; use `device = \"cpu\"`")));
    }
    let mut reasons = Vec::new();
    for candidate in candidates() {
        match open(&candidate) {
            Ok(()) => {
                *opened = true;
                return Ok(());
            }
            Err(e) => reasons.push(e.to_string()),
        }
    }
    Err(refuse(format!(
        "{name}: {CUDA_HALF} of libtorch 2.11.0 cannot be opened ({}); install PyTorch 2.11.0 with CUDA and run `cargo \
         xtask torch` again",
        reasons.join("; ")
    )))
}

/// First next to the loaded libtorch_cpu, with links followed (CUDA's own libraries are found from there), then by name.
fn candidates() -> Vec<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let half = maps.lines().filter_map(|line| line.find('/').map(|at| Path::new(&line[at..])));
    let beside =
        half.filter(|path| path.ends_with("libtorch_cpu.so")).map(|path| path.with_file_name(CUDA_HALF)).next();
    beside.filter(|path| path.exists()).into_iter().chain([PathBuf::from(CUDA_HALF)]).collect()
}

fn open(path: &Path) -> std::result::Result<(), libloading::Error> {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
    // SAFETY: opening runs the initialisers of one of libtorch's libraries, which register its CUDA kernels; it is never closed,
    // because those kernels stay registered.
    unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) }.map(std::mem::forget)
}
