//! The building blocks of every kernel: instruction sets, threads, matrices in memory, products and functions of numbers.

#[cfg(target_arch = "x86_64")]
mod avx512;
pub mod bf16;
pub mod element;
pub mod factor;
mod few;
pub mod gemm;
pub mod isa;
mod lines;
pub mod math;
pub mod operand;
pub mod parallel;
mod pool;
mod single;
