//! One buffer: a flat candle tensor, and the address of its elements if they are in the host's memory.
//!
//! The only file that accesses candle's storage directly. The pool does everything about handles, reuse and views.

use candle_core::{CpuStorage, DType as CandleDType, Device, InplaceOp1, Layout, Tensor};
use half::bf16;
use plugin_api::{
    Code, Error, Result,
    backend::{self, DType},
};
use std::{cell::Cell, ptr::NonNull};

/// A buffer's memory.
pub struct Storage {
    tensor: Tensor,
    /// The first element, for a tensor in the host's memory.
    memory: Option<NonNull<u8>>,
}

// SAFETY: the pointer names memory that `tensor` owns, `Tensor` is Send, and a session is used by one thread at a time.
unsafe impl Send for Storage {}

impl Storage {
    /// The flat tensor; its length is the buffer's capacity, which may exceed the requested size.
    pub fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    /// The first byte. Valid for reads and writes of the whole capacity while this storage lives and no other code accesses the
    /// tensor.
    pub fn memory(&self) -> Option<NonNull<u8>> {
        self.memory
    }

    /// Copies `bytes` to the element at `offset`; the caller has checked that they fit.
    ///
    /// # Errors
    /// candle's errors.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        let size = self.tensor.dtype().size_in_bytes();
        debug_assert!(offset + bytes.len() / size <= self.tensor.elem_count());
        if let Some(memory) = self.memory {
            // SAFETY: the range lies inside the buffer (the caller's check), `bytes` is foreign to it, and no kernel runs
            // while the session is borrowed here.
            unsafe {
                memory.as_ptr().add(offset * size).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            }
            return Ok(());
        }
        let source = match self.tensor.dtype() {
            CandleDType::BF16 => {
                let values: Vec<bf16> = bytes.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]])).collect();
                Tensor::new(values, self.tensor.device())
            }
            _ => {
                let values: Vec<f32> =
                    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
                Tensor::new(values, self.tensor.device())
            }
        };
        source.and_then(|source| self.tensor.slice_set(&source, 0, offset)).map_err(|e| candle_error("upload", e))
    }

    /// Copies elements that start at `offset` into `bytes`; the caller has checked the range.
    ///
    /// # Errors
    /// candle's errors.
    pub fn read(&self, offset: usize, bytes: &mut [u8]) -> Result<()> {
        let size = self.tensor.dtype().size_in_bytes();
        debug_assert!(offset + bytes.len() / size <= self.tensor.elem_count());
        if let Some(memory) = self.memory {
            // SAFETY: as in `write`.
            unsafe {
                bytes.as_mut_ptr().copy_from_nonoverlapping(memory.as_ptr().add(offset * size), bytes.len());
            }
            return Ok(());
        }
        let wrap = |e| candle_error("download", e);
        let part = self.tensor.narrow(0, offset, bytes.len() / size).map_err(wrap)?;
        match self.tensor.dtype() {
            CandleDType::BF16 => {
                let values = part.to_vec1::<bf16>().map_err(wrap)?;
                bytes.chunks_exact_mut(2).zip(values).for_each(|(b, v)| b.copy_from_slice(&v.to_le_bytes()));
            }
            _ => {
                let values = part.to_vec1::<f32>().map_err(wrap)?;
                bytes.chunks_exact_mut(4).zip(values).for_each(|(b, v)| b.copy_from_slice(&v.to_le_bytes()));
            }
        }
        Ok(())
    }
}

impl backend::Storage for Storage {
    type Device = Device;

    /// Integers are always in the host's memory: the session checks every index before it is used, and the device-independent path
    /// creates the device's index tensors from them.
    fn allocate(device: &Device, dtype: DType, elements: u64) -> Result<Self> {
        let refuse = || Error::new(Code::OUT_OF_MEMORY, format!("alloc: {elements} elements of {dtype}"));
        let elements = usize::try_from(elements).map_err(|_| refuse())?;
        let on_cpu = matches!(device, Device::Cpu) || dtype == DType::I32;
        let tensor = match dtype {
            DType::F32 if on_cpu => Tensor::from_vec(zeros(elements, 0f32).ok_or_else(refuse)?, elements, &Device::Cpu),
            DType::BF16 if on_cpu => {
                Tensor::from_vec(zeros(elements, bf16::ZERO).ok_or_else(refuse)?, elements, &Device::Cpu)
            }
            DType::I32 => Tensor::from_vec(zeros(elements, 0i32).ok_or_else(refuse)?, elements, &Device::Cpu),
            DType::F32 => Tensor::zeros(elements, CandleDType::F32, device),
            DType::BF16 => Tensor::zeros(elements, CandleDType::BF16, device),
            other => {
                return Err(Error::new(Code::DTYPE, format!("alloc: candle supports f32, bf16 and i32, not {other}")));
            }
        }
        .map_err(|e| candle_error("alloc", e))?;
        let memory = if on_cpu { Some(first_byte(&tensor)?) } else { None };
        Ok(Storage { tensor, memory })
    }
}

/// Zeros, or `None` if memory has run out (`vec!` would abort the process).
fn zeros<T: Clone>(elements: usize, zero: T) -> Option<Vec<T>> {
    let mut values = Vec::new();
    values.try_reserve_exact(elements).ok()?;
    values.resize(elements, zero);
    Some(values)
}

/// Gets the address through candle's own exclusive access, so that writing through it is sound: the vector inside is never
/// resized, so it is not moved while the tensor lives.
fn first_byte(tensor: &Tensor) -> Result<NonNull<u8>> {
    struct Address(Cell<*mut u8>);

    impl InplaceOp1 for Address {
        fn name(&self) -> &'static str {
            "address"
        }

        fn cpu_fwd(&self, storage: &mut CpuStorage, _: &Layout) -> candle_core::Result<()> {
            match storage {
                CpuStorage::F32(values) => self.0.set(values.as_mut_ptr().cast()),
                CpuStorage::BF16(values) => self.0.set(values.as_mut_ptr().cast()),
                CpuStorage::I32(values) => self.0.set(values.as_mut_ptr().cast()),
                other => {
                    use candle_core::backend::BackendStorage;
                    return Err(candle_core::Error::UnsupportedDTypeForOp(other.dtype(), "address"));
                }
            }
            Ok(())
        }
    }

    let address = Address(Cell::new(std::ptr::null_mut()));
    tensor.inplace_op1(&address).map_err(|e| candle_error("alloc", e))?;
    NonNull::new(address.0.get()).ok_or_else(|| Error::internal("alloc: candle gave no address"))
}

/// An error of candle during `op`, with the matching code.
pub fn candle_error(op: &str, error: candle_core::Error) -> Error {
    let text = error.to_string();
    let lower = text.to_lowercase();
    let code = if lower.contains("out of memory") || lower.contains("failed to allocate") {
        Code::OUT_OF_MEMORY
    } else {
        Code::INTERNAL
    };
    // candle appends a backtrace on further lines if the environment requests one.
    Error::new(code, format!("{op}: candle: {}", text.lines().next().unwrap_or_default()))
}
