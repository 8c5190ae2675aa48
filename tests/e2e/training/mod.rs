//! Training: keys of an experiment, objectives on text and rows, batches, threads, memory.

mod alerts;
mod large_files;
mod memory;
mod micro_batches;
mod options;
mod other_authors;
mod pass_at_k;
mod row_files;
mod sft;
mod threads;
mod without_rewards;
