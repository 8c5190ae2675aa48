//! The device-independent path: every operation as candle's tensor operations, with explicit backward formulas. It uses neither
//! autograd nor candle's fused operations, so that nothing depends on what is fused for a device.
//!
//! `context` converts views to tensors and back, and a file per family of operations computes them. It is not optimised for speed,
//! and passes the same suite as the kernels.

mod attention;
mod context;
mod decode;
mod elementwise;
mod head;
mod linear;
mod norm;
mod optimizer;
mod rows;
mod sample;

pub use context::Generic;
