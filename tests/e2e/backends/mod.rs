//! The same experiment on several backends, and libtorch.

mod across_backends;
mod candle;
mod compare;
#[cfg(target_os = "linux")]
mod torch;
