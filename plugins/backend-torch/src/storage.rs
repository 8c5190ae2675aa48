//! One buffer: a flat tensor; and the conversion of the contract's dtypes and views to libtorch's.

use crate::fault::{Attempt, Fault};
use plugin_api::{
    Code, Error, Result,
    backend::{self, DType, View},
};
use tch::{Device, Kind, Tensor};

/// A buffer's memory: one dimension, whose length is the capacity. Integers are in the host's memory on every device, because
/// every index is checked before it is used.
pub struct Buffer(pub Tensor);

impl backend::Storage for Buffer {
    type Device = Device;

    fn allocate(device: &Device, dtype: DType, elements: u64) -> Result<Self> {
        let refused = || Error::new(Code::OUT_OF_MEMORY, format!("alloc: {elements} elements of {dtype}"));
        let elements = i64::try_from(elements).map_err(|_| refused())?;
        let kind = kind(dtype).ok_or_else(|| Error::new(Code::DTYPE, format!("alloc: torch has no {dtype}")))?;
        let device = if kind == Kind::Int { Device::Cpu } else { *device };
        Tensor::f_empty([elements], (kind, device)).map(Buffer).map_err(|e| Fault::from(e).named("alloc"))
    }
}

/// libtorch's name for a dtype.
pub fn kind(dtype: DType) -> Option<Kind> {
    match dtype {
        DType::F32 => Some(Kind::Float),
        DType::BF16 => Some(Kind::BFloat16),
        DType::F64 => Some(Kind::Double),
        DType::I32 => Some(Kind::Int),
        _ => None,
    }
}

/// The accumulator of a float type.
pub fn accumulator(kind: Kind) -> Kind {
    if kind == Kind::BFloat16 { Kind::Float } else { kind }
}

/// A size of the contract as one of libtorch.
///
/// # Errors
/// `SHAPE` beyond `i64`.
pub fn size(value: u64) -> Attempt<i64> {
    i64::try_from(value).map_err(|_| Error::new(Code::SHAPE, format!("{value} exceeds every tensor size")).into())
}

/// The distance between a view's rows; that of a dense matrix if there is only one row.
///
/// # Errors
/// As [`size`].
pub fn row_stride(view: &View) -> Attempt<i64> {
    size(if view.rows > 1 { view.row_stride } else { view.cols })
}

/// `tensor` in another float type; the same tensor if it has that type already.
///
/// # Errors
/// libtorch's errors.
pub fn to(tensor: &Tensor, kind: Kind) -> Attempt<Tensor> {
    Ok(tensor.f_to_kind(kind)?)
}
