//! What a description of an operation consists of.

use crate::{
    Result,
    abi::{Attr, Call},
};
use std::fmt::Debug;

/// The dtypes that an operand may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The operation's compute dtype: one float type for all `T` operands of a call.
    T,
    /// The accumulator of the compute dtype: f32 for f32 and bf16, f64 for f64.
    A,
    /// i32.
    I,
    /// Any float type, unrelated to the others.
    F,
}

/// How an operand is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// Read.
    Input,
    /// Overwritten; its old content does not matter.
    Output,
    /// Read and updated (accumulated into, or stepped in place).
    Update,
}

/// One operand of an operation.
#[derive(Debug, Clone, Copy)]
pub struct OperandSpec {
    /// Its permanent name.
    pub name: &'static str,
    /// Which dtypes it takes.
    pub class: Class,
    /// Rows and columns: a number, a symbol, `symbol + number`, or `_` for any size.
    pub dims: [&'static str; 2],
    /// Whether it may be omitted.
    pub optional: bool,
    /// Read, written or both.
    pub usage: Usage,
}

/// One attribute of an operation.
#[derive(Debug, Clone, Copy)]
pub struct AttrSpec {
    /// Its permanent name.
    pub name: &'static str,
    /// One of [`Attr::INT`], [`Attr::FLOAT`], [`Attr::BOOL`].
    pub kind: u32,
    /// The bits of its value where a call leaves it out.
    pub default: fn() -> u64,
}

/// One operation of the catalogue.
#[derive(Debug, Clone, Copy)]
pub struct OpSpec {
    /// Its permanent id.
    pub id: u32,
    /// Its permanent name.
    pub name: &'static str,
    /// The version of its meaning.
    pub version: u32,
    /// Whether every backend must implement it.
    pub mandatory: bool,
    /// Inputs: required ones first, then optional ones.
    pub inputs: &'static [OperandSpec],
    /// Outputs: required, optional, updated, optionally updated.
    pub outputs: &'static [OperandSpec],
    /// Attributes.
    pub attrs: &'static [AttrSpec],
    /// (output, input) pairs that may be the very same view.
    pub aliases: &'static [(&'static str, &'static str)],
}

/// An attribute's type.
pub trait AttrValue: Copy + Debug {
    /// One of the `Attr::*` kinds.
    const KIND: u32;
    /// To bits.
    fn to_bits(self) -> u64;
    /// From bits of the right kind.
    fn from_bits(bits: u64) -> Self;
}

impl AttrValue for i64 {
    const KIND: u32 = Attr::INT;
    fn to_bits(self) -> u64 {
        self as u64
    }
    fn from_bits(bits: u64) -> Self {
        bits as i64
    }
}

impl AttrValue for f64 {
    const KIND: u32 = Attr::FLOAT;
    fn to_bits(self) -> u64 {
        f64::to_bits(self)
    }
    fn from_bits(bits: u64) -> Self {
        f64::from_bits(bits)
    }
}

impl AttrValue for bool {
    const KIND: u32 = Attr::BOOL;
    fn to_bits(self) -> u64 {
        u64::from(self)
    }
    fn from_bits(bits: u64) -> Self {
        bits != 0
    }
}

/// A typed operation: one struct of the catalogue.
pub trait Op: Copy + Debug {
    /// Its description.
    const SPEC: &'static OpSpec;

    /// Encodes it and hands the call to `f`, without allocating.
    fn with_call<R>(&self, f: impl FnOnce(&Call<'_>) -> R) -> R;

    /// Decodes and checks a call: operand count, dtypes, shapes, attribute names and kinds.
    ///
    /// # Errors
    /// [`crate::Code::UNSUPPORTED`] for another version or an unknown attribute, [`crate::Code::SHAPE`], [`crate::Code::DTYPE`],
    /// [`crate::Code::INVALID_ARGUMENT`] for a missing operand.
    fn decode(call: &Call<'_>) -> Result<Self>;
}
