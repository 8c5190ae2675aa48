//! Keeps standard output apart from what plugins print.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
};

unsafe extern "C" {
    fn dup2(from: i32, to: i32) -> i32;
}

/// Puts standard output aside and returns it: from here on descriptor 1, which plugins and the libraries they use print to,
/// leads to standard error. Call it before a library is opened.
///
/// # Errors
/// The process has no standard output or error, or the system has no descriptor left.
pub fn keep_stdout() -> io::Result<File> {
    // Both exist, or their copies could not be made.
    let kept: OwnedFd = io::stdout().as_fd().try_clone_to_owned()?;
    io::stderr().as_fd().try_clone_to_owned()?;
    // SAFETY: the call takes two numbers and touches no memory. It replaces what descriptor 1 refers to; `io::stdout` uses that
    // descriptor without owning it and only writes to it.
    match unsafe { dup2(2, 1) } {
        1 => Ok(kept.into()),
        _ => Err(io::Error::last_os_error()),
    }
}
