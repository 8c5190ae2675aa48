//! Training: keys of an experiment, objectives on text and rows, batches, threads, memory.

mod memory;
mod micro_batches;
mod options;
mod other_authors;
mod pass_at_k;
mod roles;
mod rollouts;
mod sft;
mod steps_and_masks;
mod threads;
mod windows;
mod without_rewards;
