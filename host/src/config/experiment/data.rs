//! The training data and the held-out data.

pub use crate::data::rows::columns::Columns;
pub use crate::data::rows::truncation::Truncation;
pub use crate::data::sources::{Data, HeldOut, Jsonl, Synthetic, Text};
