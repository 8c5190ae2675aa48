//! Words of the contract in whole runs: windows, roles, rollouts, steps of answers and attention masks.

mod roles;
mod rollouts;
mod steps_and_masks;
mod windows;
