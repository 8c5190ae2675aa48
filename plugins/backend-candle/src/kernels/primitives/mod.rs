//! The building blocks of every kernel: instruction sets, threads, matrices in memory, products and functions of numbers.

pub mod bf16;
pub mod element;
pub mod factor;
mod few;
pub mod gemm;
pub mod isa;
mod lines;
pub mod math;
pub mod operand;
mod packed;
pub mod parallel;
mod pool;
mod single;
