//! How an operation is described, encoded, decoded and checked: the machinery behind [`super::ops`].
//!
//! `spec` defines what a description consists of, `check` compares a call with its description, and `generate` has the macros. One
//! description generates the struct that both ends use: the host fills it and calls [`Op::with_call`]; the backend gets it
//! from [`Op::decode`], with operand count, dtypes, shapes and attribute names already checked.

pub(super) mod check;
mod generate;
pub(super) mod spec;

pub use check::{check, overlap, product, read_attr, within};
pub(crate) use generate::{attr_enum, catalogue};
pub use spec::{AttrSpec, AttrValue, Class, Op, OpSpec, OperandSpec, Usage};
