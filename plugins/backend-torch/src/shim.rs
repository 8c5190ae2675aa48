//! Rust's side of `shim.cpp`: what tch leaves out of libtorch.

use crate::fault::{Attempt, Fault};
use plugin_api::{Code, Error, Result};
use std::ffi::{CStr, c_char};
use tch::Tensor;

/// `at::Tensor`, as tch's own pointers name it.
type Raw = torch_sys::C_tensor;

unsafe extern "C" {
    fn telos_torch_compiled() -> u64;
    fn telos_torch_loaded() -> u64;
    fn telos_torch_free(message: *mut c_char);
    fn telos_torch_adamw(
        p: *mut Raw,
        g: *const Raw,
        m: *mut Raw,
        v: *mut Raw,
        beta1: f64,
        beta2: f64,
        eps: f64,
        lr: f64,
        decay: f64,
        clip: f64,
        step: f64,
    ) -> *mut c_char;
    fn telos_torch_squares(x: *const Raw, sum: *mut f64) -> *mut c_char;
    fn telos_torch_configure(tf32: bool, deterministic: bool) -> *mut c_char;
    fn telos_torch_synchronize(device: i64) -> *mut c_char;
    fn telos_torch_trim() -> *mut c_char;
}

/// `2.11.0` of libtorch's packed version.
fn dotted(version: u64) -> String {
    let byte = |shift: u32| (version >> shift) & 0xff;
    format!("{}.{}.{}", byte(56), byte(48), byte(40))
}

/// That the libtorch which is loaded is the one this plugin was compiled with: its C++ classes change from version to
/// version, and what does not fit need not fail at once.
///
/// # Errors
/// `LAYOUT` naming both versions and the remedy.
pub fn check_version() -> Result<()> {
    // SAFETY: neither takes anything, and both answer a constant.
    let (compiled, loaded) = unsafe { (telos_torch_compiled(), telos_torch_loaded()) };
    let (compiled, loaded) = (dotted(compiled), dotted(loaded));
    if compiled == loaded {
        return Ok(());
    }
    let remedy = "`cargo xtask torch` finds or fetches the right one";
    Err(Error::new(Code::LAYOUT, format!("libtorch {loaded} is loaded, this plugin needs {compiled}; {remedy}")))
}

/// Takes the shim's answer.
fn outcome(message: *mut c_char) -> Attempt {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: a message that is not null is a C string of the shim's, ours until it is given back on the next line.
    let text = unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned();
    // SAFETY: as above; it is not used again.
    unsafe { telos_torch_free(message) };
    Err(Fault::Torch(text))
}

/// What one AdamW step of one piece needs.
#[derive(Clone, Copy, Debug)]
pub struct AdamWStep {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the denominator.
    pub eps: f64,
    /// Learning rate.
    pub lr: f64,
    /// Decoupled weight decay.
    pub decay: f64,
    /// Factor of the gradients.
    pub clip: f64,
    /// Number of this step, from 1.
    pub step: i64,
}

/// One AdamW step in place; four contiguous tensors of one length, all f32 or all f64.
///
/// # Errors
/// What libtorch answers.
pub fn adamw(p: &mut Tensor, g: &Tensor, m: &mut Tensor, v: &mut Tensor, s: AdamWStep) -> Attempt {
    // SAFETY: the pointers name live tensors; the shim only reads `g` and keeps nothing.
    outcome(unsafe {
        telos_torch_adamw(
            p.as_mut_ptr(),
            g.as_ptr(),
            m.as_mut_ptr(),
            v.as_mut_ptr(),
            s.beta1,
            s.beta2,
            s.eps,
            s.lr,
            s.decay,
            s.clip,
            s.step as f64,
        )
    })
}

/// The sum of squares of a contiguous f32 or f64 tensor on the processor, summed in f64 in fixed pieces.
///
/// # Errors
/// What libtorch answers.
pub fn squares(x: &Tensor) -> Attempt<f64> {
    let mut sum = 0.0;
    // SAFETY: `x` is a live tensor that is only read, `sum` a number of ours.
    outcome(unsafe { telos_torch_squares(x.as_ptr(), &mut sum) })?;
    Ok(sum)
}

/// Sets libtorch's process-wide switches.
///
/// # Errors
/// What libtorch answers.
pub fn configure(tf32: bool, deterministic: bool) -> Attempt {
    // SAFETY: takes two flags and keeps none of our memory.
    outcome(unsafe { telos_torch_configure(tf32, deterministic) })
}

/// Waits for all work on CUDA device `index`.
///
/// # Errors
/// What that work failed with.
pub fn synchronize(index: usize) -> Attempt {
    // SAFETY: takes a number.
    outcome(unsafe { telos_torch_synchronize(index as i64) })
}

/// Gives the CUDA memory that libtorch caches back to the device.
///
/// # Errors
/// What libtorch answers.
pub fn trim() -> Attempt {
    // SAFETY: takes nothing.
    outcome(unsafe { telos_torch_trim() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches bytes taken in the wrong order, and a check that refuses the very libtorch it was compiled with.
    #[test]
    fn a_packed_version_reads_from_the_top() {
        assert_eq!(dotted(0x020b_0100_0000_0000), "2.11.1");
        check_version().unwrap();
    }
}
