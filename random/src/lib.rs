//! Random numbers that are the same on every machine, without a dependency.
//!
//! There is one generator, SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
//! [`SplitMix64`] starts from one seed: tests, laws and benches draw their inputs from it. [`Rng`] starts from a list of integers:
//! initial weights, data order, sampling and the quickstart world use it. A change of any function here changes every data set,
//! every data order and every initial weight.

mod keyed;
mod split_mix;

pub use keyed::Rng;
pub use split_mix::{GOLDEN_GAMMA, SplitMix64, mix, step};
