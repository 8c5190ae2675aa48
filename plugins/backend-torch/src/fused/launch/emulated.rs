//! The kernels on the processor, for tests: `src/kernels/emulated.cpp`.

use super::error::{KernelError, Outcome};
use std::ffi::{CStr, CString, c_char, c_void};

unsafe extern "C" {
    fn telos_emulated_launch(
        name: *const c_char,
        storage: i32,
        blocks: u32,
        threads: u32,
        params: *const c_void,
    ) -> *const c_char;
    #[cfg(test)]
    fn telos_emulated_size(name: *const c_char) -> u64;
}

/// Runs a kernel to its end.
///
/// # Safety
/// As `Kernels::launch`; `params` points to the kernel's parameters.
///
/// # Errors
/// A kernel that does not exist, and threads that do not meet at a barrier.
pub unsafe fn launch(
    kernel: &'static str,
    storage: i32,
    (blocks, threads): (u32, u32),
    params: *const c_void,
) -> Outcome {
    let failed = |text: String| KernelError::Launch { kernel, text };
    let name = CString::new(kernel).map_err(|why| failed(why.to_string()))?;
    // SAFETY: the name is a C string, and the caller vouches for the parameters.
    let message = unsafe { telos_emulated_launch(name.as_ptr(), storage, blocks, threads, params) };
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: a message that is not null is a constant C string.
    Err(failed(unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned()))
}

/// The size of a kernel's parameters in bytes.
#[cfg(test)]
pub fn size(kernel: &str) -> u64 {
    let name = CString::new(kernel).expect("names have no 0 byte");
    // SAFETY: a C string that is only read.
    unsafe { telos_emulated_size(name.as_ptr()) }
}
