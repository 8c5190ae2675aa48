//! The memory of a run: an estimate without computing, and a trial of the largest micro-batch before step 1.

pub mod estimate;
pub mod largest_rows;
pub mod micro_batch;
pub mod process;
mod saving;
pub mod worst_batch;
