//! Rust's side of `shim.cpp`: functions of libtorch that tch leaves out.

use crate::fault::{Attempt, Fault};
use plugin_api::{Code, Error, Result};
use std::ffi::{CStr, c_char, c_void};
use tch::Tensor;

/// `at::Tensor`, by the name in tch's own pointers.
type Raw = torch_sys::C_tensor;

unsafe extern "C" {
    fn telos_torch_compiled() -> u64;
    fn telos_torch_loaded() -> u64;
    fn telos_torch_free(message: *mut c_char);
    fn telos_torch_adamw(
        tensors: *mut *mut Raw,
        count: i64,
        beta1: f64,
        beta2: f64,
        eps: f64,
        lr: f64,
        decay: f64,
        clip: f64,
        step: f64,
    ) -> *mut c_char;
    fn telos_torch_packed_attention(
        q: *const Raw,
        k: *const Raw,
        v: *const Raw,
        bounds: *const Raw,
        longest: i64,
        causal: bool,
        window: i64,
        scale: f64,
        y: *mut *mut Raw,
        lse: *mut *mut Raw,
    ) -> *mut c_char;
    fn telos_torch_packed_attention_backward(
        dy: *const Raw,
        q: *const Raw,
        k: *const Raw,
        v: *const Raw,
        y: *const Raw,
        lse: *const Raw,
        bounds: *const Raw,
        longest: i64,
        causal: bool,
        window: i64,
        scale: f64,
        d: *mut *mut Raw,
    ) -> *mut c_char;
    fn telos_torch_norm_backward(
        dy: *const Raw,
        x: *const Raw,
        mean: *const Raw,
        rstd: *const Raw,
        weight: *const Raw,
        dx: *mut *mut Raw,
    ) -> *mut c_char;
    fn telos_torch_squares(x: *const Raw, sum: *mut f64) -> *mut c_char;
    fn telos_torch_configure(tf32: bool, deterministic: bool) -> *mut c_char;
    fn telos_torch_synchronize(device: i64) -> *mut c_char;
    fn telos_torch_current_stream(device: i64, stream: *mut *mut c_void) -> *mut c_char;
    fn telos_torch_trim() -> *mut c_char;
    fn telos_torch_cpu_capability() -> *const c_char;
}

/// The instruction set of libtorch's own kernels on the processor, by libtorch's names: `DEFAULT`, `AVX2`, `AVX512`. oneDNN and
/// MKL, which compute products, choose theirs themselves.
pub fn cpu_capability() -> String {
    // SAFETY: it takes nothing and returns a C string that is never freed.
    unsafe { CStr::from_ptr(telos_torch_cpu_capability()) }.to_string_lossy().into_owned()
}

/// `2.11.0` of libtorch's packed version.
fn dotted(version: u64) -> String {
    let byte = |shift: u32| (version >> shift) & 0xff;
    format!("{}.{}.{}", byte(56), byte(48), byte(40))
}

/// Checks that the loaded libtorch is the one with which this plugin was compiled: its C++ classes change from version to version,
/// and a mismatch may not fail at once.
///
/// # Errors
/// `LAYOUT` naming both versions and the remedy.
pub fn check_version() -> Result<()> {
    // SAFETY: neither takes anything, and both return a constant.
    let (compiled, loaded) = unsafe { (telos_torch_compiled(), telos_torch_loaded()) };
    let (compiled, loaded) = (dotted(compiled), dotted(loaded));
    if compiled == loaded {
        return Ok(());
    }
    let remedy = "link that one to `libtorch` beside this plugin, as DIST.txt of a distribution shows, or run `cargo xtask torch` in \
                  the source tree";
    Err(Error::new(Code::LAYOUT, format!("libtorch {loaded} is loaded, this plugin needs {compiled}; {remedy}")))
}

/// Converts the shim's return value.
pub(crate) fn outcome(message: *mut c_char) -> Attempt {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: a message that is not null is a C string of the shim, which is freed on the next line.
    let text = unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned();
    // SAFETY: as above; it is not used again.
    unsafe { telos_torch_free(message) };
    Err(Fault::Torch(text))
}

/// The parameters of one AdamW step.
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

/// One AdamW step in place for pieces with the same rates: each has parameters, gradients, first and second moments, contiguous,
/// of one length, all f32 or all f64.
///
/// # Errors
/// libtorch's errors.
pub fn adamw(pieces: &mut [[Tensor; 4]], s: AdamWStep) -> Attempt {
    let count = pieces.len();
    let mut tensors = vec![std::ptr::null_mut(); 4 * count];
    for (i, piece) in pieces.iter_mut().enumerate() {
        for (kind, tensor) in piece.iter_mut().enumerate() {
            tensors[kind * count + i] = tensor.as_mut_ptr();
        }
    }
    let step = s.step as f64;
    // SAFETY: `tensors` points to four live tensors per piece, which are borrowed for this call; the shim keeps nothing.
    outcome(unsafe {
        telos_torch_adamw(tensors.as_mut_ptr(), count as i64, s.beta1, s.beta2, s.eps, s.lr, s.decay, s.clip, step)
    })
}

/// The parameters of attention of packed sequences, besides its tensors.
#[derive(Clone, Copy, Debug)]
pub struct PackedPlan {
    /// Tokens of the longest sequence.
    pub longest: i64,
    /// Whether a token sees only itself and those before it.
    pub causal: bool,
    /// Sliding window; 0: none.
    pub window: i64,
    /// Factor of the scores.
    pub scale: f64,
}

/// A tensor created by the shim.
///
/// # Safety
/// `raw` is null or a tensor of the shim that has no other owner.
unsafe fn owned(raw: *mut Raw) -> Attempt<Tensor> {
    if raw.is_null() {
        return Err(Fault::Torch("no tensor was returned".into()));
    }
    // SAFETY: guaranteed by the caller.
    Ok(unsafe { Tensor::from_ptr(raw) })
}

/// `(y, lse)` of attention within packed sequences on CUDA: `[tokens, heads, head_dim]` and `[heads, tokens]`. `bounds` are
/// the sequences' offsets as i32 on the device.
///
/// # Errors
/// libtorch's errors.
pub fn packed_attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    bounds: &Tensor,
    plan: PackedPlan,
) -> Attempt<(Tensor, Tensor)> {
    let (mut y, mut lse) = (std::ptr::null_mut(), std::ptr::null_mut());
    let PackedPlan { longest, causal, window, scale } = plan;
    let [q, k, v, bounds] = [q, k, v, bounds].map(Tensor::as_ptr);
    // SAFETY: live tensors that are only read, and two local pointers for the returned tensors.
    outcome(unsafe {
        telos_torch_packed_attention(q, k, v, bounds, longest, causal, window, scale, &mut y, &mut lse)
    })?;
    // SAFETY: the shim created both for this call.
    unsafe { Ok((owned(y)?, owned(lse)?)) }
}

/// Cotangents of `q`, `k` and `v` from `[dy, q, k, v, y]` and the forward's `lse`.
///
/// # Errors
/// libtorch's errors.
pub fn packed_attention_backward(
    tensors: [&Tensor; 5],
    lse: &Tensor,
    bounds: &Tensor,
    plan: PackedPlan,
) -> Attempt<(Tensor, Tensor, Tensor)> {
    let mut d = [std::ptr::null_mut(); 3];
    let PackedPlan { longest, causal, window, scale } = plan;
    let ([dy, q, k, v, y], lse, bounds) = (tensors.map(Tensor::as_ptr), lse.as_ptr(), bounds.as_ptr());
    let into = d.as_mut_ptr();
    // SAFETY: live tensors that are only read, and three local pointers for the returned tensors.
    outcome(unsafe {
        telos_torch_packed_attention_backward(dy, q, k, v, y, lse, bounds, longest, causal, window, scale, into)
    })?;
    let [dq, dk, dv] = d;
    // SAFETY: the shim created all three for this call.
    unsafe { Ok((owned(dq)?, owned(dk)?, owned(dv)?)) }
}

/// The input's cotangent of layer norm (with `mean`) or RMS norm (without); statistics are contiguous, one per row.
///
/// # Errors
/// libtorch's errors.
pub fn norm_backward(
    dy: &Tensor,
    x: &Tensor,
    mean: Option<&Tensor>,
    rstd: &Tensor,
    weight: Option<&Tensor>,
) -> Attempt<Tensor> {
    let mut dx = std::ptr::null_mut();
    let (dy, x, rstd) = (dy.as_ptr(), x.as_ptr(), rstd.as_ptr());
    let [mean, weight] = [mean, weight].map(|t| t.map_or(std::ptr::null(), Tensor::as_ptr));
    // SAFETY: live tensors that are only read, null for absent ones, and a local pointer for the returned tensor.
    outcome(unsafe { telos_torch_norm_backward(dy, x, mean, rstd, weight, &mut dx) })?;
    // SAFETY: the shim created it for this call.
    unsafe { owned(dx) }
}

/// The sum of squares of a contiguous f32 or f64 tensor on the processor, summed in f64 in fixed pieces.
///
/// # Errors
/// libtorch's errors.
pub fn squares(x: &Tensor) -> Attempt<f64> {
    let mut sum = 0.0;
    // SAFETY: `x` is a live tensor that is only read, `sum` a local variable.
    outcome(unsafe { telos_torch_squares(x.as_ptr(), &mut sum) })?;
    Ok(sum)
}

/// Sets libtorch's process-wide switches.
///
/// # Errors
/// libtorch's errors.
pub fn configure(tf32: bool, deterministic: bool) -> Attempt {
    // SAFETY: takes two flags and keeps no pointer.
    outcome(unsafe { telos_torch_configure(tf32, deterministic) })
}

/// Waits for all work on CUDA device `index`.
///
/// # Errors
/// The error of that work.
pub fn synchronize(index: usize) -> Attempt {
    // SAFETY: takes a number.
    outcome(unsafe { telos_torch_synchronize(index as i64) })
}

/// libtorch's current CUDA stream on device `index` in this thread: a `CUstream`, null for the default one.
///
/// # Errors
/// libtorch's errors.
pub fn current_stream(index: usize) -> Attempt<*mut c_void> {
    let mut stream = std::ptr::null_mut();
    // SAFETY: takes a number, and a local variable for the handle, which libtorch keeps.
    outcome(unsafe { telos_torch_current_stream(index as i64, &mut stream) })?;
    Ok(stream)
}

/// Gives the CUDA memory that libtorch caches back to the device.
///
/// # Errors
/// libtorch's errors.
pub fn trim() -> Attempt {
    // SAFETY: takes nothing.
    outcome(unsafe { telos_torch_trim() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches bytes read in the wrong order, and a check that refuses the libtorch with which it was compiled.
    #[test]
    fn a_packed_version_reads_from_the_top() {
        assert_eq!(dotted(0x020b_0100_0000_0000), "2.11.1");
        check_version().unwrap();
    }
}
