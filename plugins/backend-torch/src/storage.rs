//! One buffer: a flat tensor; and how dtypes and views of the contract become libtorch's.

use crate::fault::{Attempt, Fault};
use plugin_api::{
    Code, Error, Result,
    backend::{self, DType, View},
};
use tch::{Device, Kind, Tensor};

/// A buffer's memory: one dimension, its length the capacity. Integers lie in this computer's memory whatever the
/// device, because every index is checked before it is used.
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

/// libtorch's name of a dtype.
pub fn kind(dtype: DType) -> Option<Kind> {
    match dtype {
        DType::F32 => Some(Kind::Float),
        DType::BF16 => Some(Kind::BFloat16),
        DType::F64 => Some(Kind::Double),
        DType::I32 => Some(Kind::Int),
        _ => None,
    }
}

/// What a float type accumulates in.
pub fn accumulator(kind: Kind) -> Kind {
    if kind == Kind::BFloat16 { Kind::Float } else { kind }
}

/// A size of the contract as one of libtorch's.
///
/// # Errors
/// `SHAPE` beyond `i64`.
pub fn size(value: u64) -> Attempt<i64> {
    i64::try_from(value).map_err(|_| Error::new(Code::SHAPE, format!("{value} is beyond any tensor")).into())
}

/// The distance between a view's rows, that of a dense matrix where there is only one row.
///
/// # Errors
/// As [`size`].
pub fn row_stride(view: &View) -> Attempt<i64> {
    size(if view.rows > 1 { view.row_stride } else { view.cols })
}

/// `tensor` in another float type, itself where it has that type already.
///
/// # Errors
/// What libtorch answers.
pub fn to(tensor: &Tensor, kind: Kind) -> Attempt<Tensor> {
    Ok(tensor.f_to_kind(kind)?)
}
