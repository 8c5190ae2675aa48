//! Mistakes on a tape. Every error names the operation and both sides; the export layer converts them to the contract's error
//! type.

use super::kind::OpKind;

/// The first mistake made on a [`Tape`](super::Tape), kept there until a value or a gradient is requested.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TapeError {
    /// Two operands can be combined only when their shapes are equal or one of them is a scalar.
    #[error("`{op}`: shapes {left:?} and {right:?} do not agree")]
    Shape {
        /// The operation.
        op: OpKind,
        /// Shape of the operand the operation was called on.
        left: Vec<usize>,
        /// Shape of the other operand, or the shape that the operation requires.
        right: Vec<usize>,
    },
    /// A batch array whose length is not a multiple of its columns.
    #[error("array `{name}`: {length} values do not make rows of {columns}")]
    Ragged {
        /// The array.
        name: String,
        /// How many numbers it has.
        length: usize,
        /// How many a row should have.
        columns: usize,
    },
    /// The operation is not defined for this number of dimensions.
    #[error("`{op}` expects {expected}, found shape {found:?}")]
    Rank {
        /// The operation.
        op: OpKind,
        /// The expected operand, in words.
        expected: &'static str,
        /// The shape it was given.
        found: Vec<usize>,
    },
    /// An array that belongs to a variable (a mask, ids, sides) has another length than the variable.
    #[error("`{op}`: `{array}` has length {length}, the variable has shape {shape:?}")]
    Length {
        /// The operation.
        op: OpKind,
        /// The array's part in the operation.
        array: &'static str,
        /// Its length.
        length: usize,
        /// Shape of the variable.
        shape: Vec<usize>,
    },
    /// A mask holds another value than 0 and 1, or was built from masks of different lengths.
    #[error("`{op}`: not a mask of zeros and ones: {fault}")]
    Mask {
        /// The operation.
        op: OpKind,
        /// What is wrong and where.
        fault: String,
    },
    /// An entry of an id array is not an integer.
    #[error("`{op}`: `{array}`[{position}] = {found} is not an integer")]
    Id {
        /// The operation.
        op: OpKind,
        /// The array's part in the operation.
        array: &'static str,
        /// Its position in the array.
        position: usize,
        /// The entry as text.
        found: String,
    },
    /// An index lies outside its axis.
    #[error("`{op}`: index {index} at position {position} is outside 0..{length}")]
    Index {
        /// The operation.
        op: OpKind,
        /// Its position in the index array.
        position: usize,
        /// The index.
        index: i64,
        /// Length of the axis it points into.
        length: usize,
    },
    /// The sequence offsets are not `[0, ..., N]` in non-decreasing order.
    #[error("sequence offsets: {0}")]
    Offsets(String),
    /// A per-sequence operation on a tape made by `Tape::new`.
    #[error("`{op}` needs the sequences' offsets: make the tape with `Tape::with_offsets`")]
    NoOffsets {
        /// The operation.
        op: OpKind,
    },
    /// A pair must have exactly one chosen and one rejected sequence.
    #[error("`{op}`: pair {pair} has {chosen} chosen and {rejected} rejected sequences; it needs one of each")]
    Pair {
        /// The operation.
        op: OpKind,
        /// The pair's id.
        pair: i64,
        /// How many of its sequences are chosen.
        chosen: usize,
        /// How many are rejected.
        rejected: usize,
    },
    /// A side is neither [`CHOSEN`](super::CHOSEN) nor [`REJECTED`](super::REJECTED).
    #[error("`{op}`: side {side} at position {position} is neither 1 (chosen) nor 0 (rejected)")]
    Side {
        /// The operation.
        op: OpKind,
        /// Its position in the side array.
        position: usize,
        /// The value found.
        side: i64,
    },
    /// Bounds that are NaN or in the wrong order.
    #[error("`{op}`: bounds {low} and {high} enclose nothing")]
    Bounds {
        /// The operation.
        op: OpKind,
        /// Lower bound.
        low: f64,
        /// Upper bound.
        high: f64,
    },
    /// A variable of another tape.
    #[error("`{op}`: an operand belongs to another tape")]
    ForeignVar {
        /// The operation, or `backward`.
        op: &'static str,
    },
    /// Two inputs of one name: their gradients could not be distinguished.
    #[error("input `{0}` is declared twice")]
    DuplicateInput(String),
    /// A gradient, or a single number, was requested of a variable that is not a scalar.
    #[error("{wanted} needs a scalar, found shape {found:?}: sum it first")]
    NotScalar {
        /// What was requested.
        wanted: &'static str,
        /// Shape of the variable.
        found: Vec<usize>,
    },
}
