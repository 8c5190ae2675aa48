//! Rows made of a model's own answers to an experiment's prompts: preference pairs for `telos pairs`, and answers for `telos answers`.

mod draw;
pub mod pairs;
pub mod rows;
pub mod rows_file;

pub use draw::Wanted;
