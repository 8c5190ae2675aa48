//! How keys of an experiment are declared: [`table!`] declares a TOML table as written, and each of its keys with form, default,
//! example and meaning; [`words!`] declares a value that is one of several words.
//!
//! This module defines no key. A table is declared in the module that owns it, so that a key is declared in one place. The modules
//! [`tree`], [`mistake`] and [`notes`] are what the rules between the keys of a table need: where each value was written, and the
//! list to which a rule adds what is wrong.

pub mod form;
mod key;
pub mod mistake;
pub mod notes;
mod table;
pub mod tree;
mod words;

pub use form::Form;
pub use key::Key;
pub(crate) use table::table;
pub use table::{Literal, Table, count, joined};
pub(crate) use words::words;
