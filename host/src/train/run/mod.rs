//! A run from its first file to its summary: how it is opened and resumed, what a checkpoint contains, what is logged, and what
//! its receipt records.

pub mod about;
pub mod digest;
pub(crate) mod open;
pub mod operations;
mod optional_log;
pub(crate) mod provenance;
pub mod records;
pub(crate) mod resume;
mod row_hashes;
pub mod state;
pub mod summary;

/// What to do instead of resuming a run.
pub(in crate::train) const ANOTHER_RUN: &str =
    "start another run with --name (model.from, or model.adapter for an adapter, can name this run)";
