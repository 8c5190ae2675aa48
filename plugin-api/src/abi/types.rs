//! The plain-data types that cross the boundary on every call, with stable layout.
//!
//! No type here is a Rust enum. They are integers with constants, so that a value from a newer minor version is a valid value and
//! not undefined behaviour.

use abi_stable::{
    StableAbi,
    std_types::{RResult, RSlice, RStr, RString, RVec},
};
use std::fmt;

/// Element type of a buffer.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DType(pub u32);

impl DType {
    /// 32-bit float.
    pub const F32: DType = DType(1);
    /// bfloat16.
    pub const BF16: DType = DType(2);
    /// 64-bit float (the reference backend's only compute type).
    pub const F64: DType = DType(3);
    /// 32-bit signed integer: token ids, positions, offsets.
    pub const I32: DType = DType(4);

    /// Every dtype of this minor with its name.
    pub const ALL: &'static [(DType, &'static str)] =
        &[(DType::F32, "f32"), (DType::BF16, "bf16"), (DType::F64, "f64"), (DType::I32, "i32")];

    /// Bytes per element; `None` for a dtype that this minor version does not know.
    pub fn size(self) -> Option<usize> {
        match self {
            DType::F32 | DType::I32 => Some(4),
            DType::BF16 => Some(2),
            DType::F64 => Some(8),
            _ => None,
        }
    }

    /// Whether it is a float type.
    pub fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::BF16 | DType::F64)
    }

    /// The type in which sums over this type are kept: f32 for f32 and bf16, f64 for f64.
    pub fn accumulator(self) -> DType {
        if self == DType::BF16 { DType::F32 } else { self }
    }

    /// The dtype of that name.
    pub fn from_name(name: &str) -> Option<DType> {
        DType::ALL.iter().find(|(_, n)| *n == name).map(|(d, _)| *d)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match DType::ALL.iter().find(|(d, _)| d == self) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "dtype {}", self.0),
        }
    }
}

impl fmt::Debug for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An opaque, generational name of a buffer: 16 bits of session, 24 of generation, 24 of slot. 0 is no buffer.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Handle(pub u64);

impl Handle {
    /// The handle of no buffer.
    pub const NONE: Handle = Handle(0);
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{}.{}", self.0 >> 48, self.0 & 0xff_ffff, (self.0 >> 24) & 0xff_ffff)
    }
}

/// A matrix inside a buffer: `rows` x `cols` elements that start `offset` elements after the buffer's start, with rows
/// `row_stride` elements apart.
///
/// Every operand of every operation is such a view; a vector is a matrix of one row.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Hash)]
pub struct View {
    /// The buffer.
    pub buffer: Handle,
    /// Elements before the first one.
    pub offset: u64,
    /// Number of rows.
    pub rows: u64,
    /// Number of columns; elements of a row are adjacent.
    pub cols: u64,
    /// Elements from one row's start to the next.
    pub row_stride: u64,
    /// Element type; must be the buffer's.
    pub dtype: DType,
    /// Always 0; keeps the layout free of padding.
    pub reserved: u32,
}

impl View {
    /// The absent operand.
    pub const NONE: View =
        View { buffer: Handle::NONE, offset: 0, rows: 0, cols: 0, row_stride: 0, dtype: DType(0), reserved: 0 };

    /// A dense matrix at the start of a buffer.
    pub const fn dense(buffer: Handle, dtype: DType, rows: u64, cols: u64) -> View {
        View { buffer, offset: 0, rows, cols, row_stride: cols, dtype, reserved: 0 }
    }

    /// Whether this is the absent operand.
    pub fn is_none(&self) -> bool {
        self.buffer == Handle::NONE
    }

    /// Number of elements; the largest number if that overflows.
    pub fn len(&self) -> u64 {
        self.rows.saturating_mul(self.cols)
    }

    /// Whether it holds no element.
    pub fn is_empty(&self) -> bool {
        self.rows == 0 || self.cols == 0
    }

    /// Whether its elements are adjacent in memory.
    pub fn is_dense(&self) -> bool {
        self.rows <= 1 || self.row_stride == self.cols
    }

    /// The element after the last one, relative to the buffer's start; `None` if that overflows.
    pub fn end(&self) -> Option<u64> {
        if self.rows == 0 || self.cols == 0 {
            return Some(self.offset);
        }
        (self.rows - 1).checked_mul(self.row_stride)?.checked_add(self.cols)?.checked_add(self.offset)
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_none() {
            return f.write_str("absent");
        }
        write!(f, "{}[{}, {}]@{:?}+{}", self.dtype, self.rows, self.cols, self.buffer, self.offset)?;
        if !self.is_dense() {
            write!(f, "/{}", self.row_stride)?;
        }
        Ok(())
    }
}

/// A named, tagged scalar attribute of an operation.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct Attr<'a> {
    /// The attribute's permanent name.
    pub name: RStr<'a>,
    /// How to read `bits`: one of the `Attr::*` kinds.
    pub kind: u32,
    /// Always 0.
    pub reserved: u32,
    /// The value's bits.
    pub bits: u64,
}

impl Attr<'_> {
    /// `bits` is an i64.
    pub const INT: u32 = 1;
    /// `bits` is an f64.
    pub const FLOAT: u32 = 2;
    /// `bits` is 0 or 1.
    pub const BOOL: u32 = 3;
}

/// One operation to carry out: what [`crate::backend::Session::invoke`] receives.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The operation's permanent id.
    pub op: u32,
    /// 1: a changed meaning gets a new operation.
    pub version: u32,
    /// Inputs in catalogue order, those of a later minor version last. Absent ones are [`View::NONE`]; at the end they may be left
    /// out, and there may be more absent ones than the receiver knows.
    pub inputs: RSlice<'a, View>,
    /// Outputs, as `inputs`.
    pub outputs: RSlice<'a, View>,
    /// Attributes, by name.
    pub attrs: RSlice<'a, Attr<'a>>,
}

/// The memory of a session, in bytes.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Held by live handles.
    pub in_use: u64,
    /// Freed, kept for reuse.
    pub cached: u64,
    /// The most `in_use` has been since the session opened.
    pub peak: u64,
    /// Live handles.
    pub handles: u64,
    /// Allocations that had to ask the device for new memory, since the session opened.
    pub fresh_allocations: u64,
    /// A field added to a plain struct by mistake, for the test that such a plugin is refused.
    #[cfg(feature = "other-layout")]
    pub surplus: u64,
}

/// A borrowed named array of f64: how batches go to a plugin.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct ArrayRef<'a> {
    /// The array's name.
    pub name: RStr<'a>,
    /// What its rows are: one of the [`crate::batch::Scope`] constants.
    pub scope: u32,
    /// 1 where a loss may return a cotangent for it.
    pub differentiable: u32,
    /// Rows (tokens, sequences ...).
    pub rows: u64,
    /// Values per row.
    pub cols: u64,
    /// `rows * cols` values, row-major.
    pub data: RSlice<'a, f64>,
}

/// An owned named array of f64: how results come back from a plugin.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct ArrayOwned {
    /// What the array belongs to, e.g. a term's name; empty for the result itself.
    pub owner: RString,
    /// The array's name.
    pub name: RString,
    /// What its rows are: one of the [`crate::batch::Scope`] constants.
    pub scope: u32,
    /// The kind of result: a constant of the call that returns it.
    pub role: u32,
    /// Rows.
    pub rows: u64,
    /// Values per row.
    pub cols: u64,
    /// `rows * cols` values, row-major.
    pub data: RVec<f64>,
}

/// An error as it crosses.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct AbiError {
    /// See [`crate::Code`].
    pub code: u32,
    /// See [`crate::Error::message`].
    pub message: RString,
    /// See [`crate::Error::plugin`].
    pub plugin: RString,
    /// See [`crate::Error::location`].
    pub location: RString,
}

impl From<crate::Error> for AbiError {
    fn from(e: crate::Error) -> Self {
        AbiError { code: e.code.0, message: e.message.into(), plugin: e.plugin.into(), location: e.location.into() }
    }
}

impl From<AbiError> for crate::Error {
    fn from(e: AbiError) -> Self {
        crate::Error {
            code: crate::Code(e.code),
            message: e.message.into(),
            plugin: e.plugin.into(),
            location: e.location.into(),
        }
    }
}

/// What every slot returns.
pub type Status = RResult<(), AbiError>;
