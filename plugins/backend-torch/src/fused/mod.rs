//! Fused CUDA kernels: one pass over memory where ATen takes several.
//!
//! The sources are in `src/kernels/`, and NVRTC compiles them at run time for the device. `launch/` compiles and starts them; the other
//! files are the operations, one file per family, each of which returns whether it computed the call. With the feature
//! `emulated-kernels`, which only tests use, the same sources run on the processor.

pub mod head;
pub mod launch;
pub mod norm;
pub mod optimizer;
mod params;
pub mod pointwise;
pub mod rotary;

use crate::{TorchSession, fault::Attempt, storage};
use launch::Kernels;
use plugin_api::{
    Code, Error, Result,
    backend::{DType, View},
};
use tch::Device;

/// The kernels of a device.
///
/// # Errors
/// `DEVICE` naming the missing library and the remedy, and on the processor that there are none.
pub fn open(device: Device) -> Result<Kernels> {
    Kernels::open(device).map_err(|why| Error::new(Code::DEVICE, format!("open: {why}")))
}

/// Threads of a block in kernels that compute element by element.
const BLOCK: u32 = 256;

/// The blocks that hold `count` threads of [`BLOCK`].
fn blocks_of(count: u64) -> u64 {
    count.div_ceil(u64::from(BLOCK))
}

/// Bytes of the widest access to memory.
const ACCESS: usize = 16;

/// Elements of `dtype` in [`ACCESS`] bytes.
fn wide(dtype: DType) -> u64 {
    (ACCESS / dtype.size().unwrap_or(1)) as u64
}

/// The address and the distance between rows of an operand; null and 0 for an absent one.
#[derive(Clone, Copy)]
struct Rows {
    address: usize,
    stride: i64,
    /// Whether every row starts at a multiple of [`ACCESS`] bytes.
    aligned: bool,
}

impl Rows {
    const ABSENT: Rows = Rows { address: 0, stride: 0, aligned: true };

    fn of(s: &TorchSession, view: &View) -> Attempt<Rows> {
        let (address, stride) = (s.address(view)?, storage::row_stride(view)?);
        Ok(Rows::at(address, stride, view.rows, view.dtype))
    }

    /// Rows of `dtype` at `address`, `stride` elements apart.
    fn at(address: usize, stride: i64, rows: u64, dtype: DType) -> Rows {
        let bytes = stride.unsigned_abs() as usize * dtype.size().unwrap_or(1);
        let aligned = address.is_multiple_of(ACCESS) && (rows <= 1 || bytes.is_multiple_of(ACCESS));
        Rows { address, stride, aligned }
    }

    fn optional(s: &TorchSession, view: &Option<View>) -> Attempt<Rows> {
        view.as_ref().map_or(Ok(Rows::ABSENT), |view| Rows::of(s, view))
    }
}

/// A number that a kernel holds in 32 bits.
fn small(value: u64, operation: &str) -> Attempt<i32> {
    i32::try_from(value).map_err(|_| {
        Error::new(Code::SHAPE, format!("{operation}: {value} exceeds the sizes of the fused kernels")).into()
    })
}
