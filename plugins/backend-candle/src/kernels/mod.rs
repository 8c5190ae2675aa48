//! The kernels for the processor, forward and backward, over the memory of candle's tensors.
//!
//! `context` converts views to matrices, `primitives` holds what the kernels are built from, and one file or folder per family of
//! operations holds the kernels and says which one runs an operation.

pub mod activation;
pub mod attention;
pub mod context;
pub mod elementwise;
pub mod head;
pub mod linear;
pub mod norm;
pub mod optimizer;
pub mod primitives;
pub mod rotary;
pub mod rows;
pub mod sample;

pub use context::{Context, Kernels};
pub use primitives::{element::Element, isa};
