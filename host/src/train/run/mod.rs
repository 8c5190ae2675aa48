//! A run from its first file to its summary: how it is opened and resumed, what a checkpoint holds, what is written down, and
//! what it is made of.

pub(crate) mod open;
pub(crate) mod provenance;
pub mod records;
pub(crate) mod resume;
mod row_hashes;
pub mod state;
pub mod summary;
