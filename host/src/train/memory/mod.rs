//! The memory of a run: counted without computing, and tried with the largest micro-batch before step 1.

pub mod estimate;
pub mod largest_rows;
pub mod process;
pub mod worst_batch;
