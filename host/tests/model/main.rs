//! The decoder on real backends, compared with transformers' numbers, finite differences and itself.

mod agreement;
mod folders;
mod generation;
mod gradients;
mod heads;
mod invariants;
mod lora;
mod masks;
mod muon;
mod objectives;
mod oracles;
mod support;
mod trajectories;
