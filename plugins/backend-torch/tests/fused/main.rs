//! The fused kernels, emulated on the processor, beside ATen's: shapes and values that the conformance suite lacks. The feature
//! `emulated-kernels` builds them; the conformance suite runs through them with `TELOS_TORCH_KERNELS=fused`.

#![cfg(feature = "emulated-kernels")]

mod head;
mod optimizer;
mod pointwise;
mod rows;
mod support;
