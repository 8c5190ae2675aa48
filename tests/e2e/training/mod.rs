//! Training: keys of an experiment, objectives on text and rows, batches, threads, memory.

mod memory;
mod micro_batches;
mod options;
mod other_authors;
mod pass_at_k;
mod roles;
mod sft;
mod threads;
mod windows;
