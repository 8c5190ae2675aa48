//! The commands.

pub(super) mod answers;
pub mod chat;
pub mod check;
pub mod compare;
pub mod convert;
pub mod data;
pub mod eval;
pub mod generate;
pub(super) mod pairs;
pub mod plugins;
pub mod reports;
pub mod run;
pub mod tokenizer;
pub mod verify;
