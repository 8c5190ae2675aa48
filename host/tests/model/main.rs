//! The decoder on real backends, compared with transformers' numbers, finite differences and itself.

mod agreement;
mod dpo;
mod folders;
mod generation;
mod gradients;
mod heads;
mod invariants;
mod masks;
mod muon;
mod oracles;
mod roles;
mod support;
mod trajectories;
