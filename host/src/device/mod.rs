//! The host's view of a backend session: buffers that free themselves, typed calls, transfers with conversion.
//!
//! Knows no model and no plugin loading: it is given an open [`Session`] (a loaded library, a linked one, or a layer
//! such as [`profile`] around either) and a compute dtype. The backend checks every call against the catalogue.

pub mod open;
pub mod profile;
pub mod sizes;
mod tensor;
mod transfer;

pub use tensor::{Buffer, Tensor, columns, rows};

use std::{cell::RefCell, rc::Rc};

use plugin_api::abi::{Call, DType, Memory};
use plugin_api::backend::{Op, Session, ops::CATALOGUE};

use crate::error::{Error, Result};

/// An open session and the dtype it computes in. Clones share the session.
#[derive(Clone)]
pub struct Device(Rc<Inner>);

struct Inner {
    session: RefCell<Box<dyn Session>>,
    compute: DType,
}

impl Device {
    /// A device that computes in `compute` on `session`.
    ///
    /// # Errors
    /// A request error where the backend lacks a mandatory operation in that dtype.
    pub fn new(session: Box<dyn Session>, compute: DType) -> Result<Device> {
        let missing: Vec<&str> = CATALOGUE
            .iter()
            .filter(|spec| spec.mandatory && !session.supports(spec.id, compute))
            .map(|spec| spec.name)
            .collect();
        if !missing.is_empty() {
            let message = format!("the backend does not compute in {compute}: it lacks {}", missing.join(", "));
            return Err(Error::request(message).with_hint("choose another backend.dtype"));
        }
        Ok(Device(Rc::new(Inner { session: RefCell::new(session), compute })))
    }

    /// The dtype of weights and activations in the forward and backward pass.
    pub fn compute(&self) -> DType {
        self.0.compute
    }

    /// The dtype of master weights, gradients, moments and statistics.
    pub fn accumulator(&self) -> DType {
        self.0.compute.accumulator()
    }

    /// Runs one operation.
    ///
    /// # Errors
    /// Whatever the backend refuses, named by operation and operand.
    pub fn call<O: Op>(&self, op: &O) -> Result<()> {
        Ok(op.with_call(|call| self.0.session.borrow_mut().invoke(call))?)
    }

    /// A buffer of `elements`, content undefined.
    ///
    /// # Errors
    /// The device is out of memory or lacks the dtype.
    pub fn buffer(&self, dtype: DType, elements: u64) -> Result<Buffer> {
        let handle = self.0.session.borrow_mut().alloc(dtype, elements)?;
        Ok(Buffer::new(self.clone(), handle, dtype, elements))
    }

    /// A `[rows, cols]` matrix of the compute dtype, content undefined.
    ///
    /// # Errors
    /// As [`Device::buffer`].
    pub fn tensor(&self, rows: u64, cols: u64) -> Result<Tensor> {
        self.tensor_of(self.compute(), rows, cols)
    }

    /// A `[rows, cols]` matrix of `dtype`, content undefined.
    ///
    /// # Errors
    /// As [`Device::buffer`].
    pub fn tensor_of(&self, dtype: DType, rows: u64, cols: u64) -> Result<Tensor> {
        let elements =
            rows.checked_mul(cols).ok_or_else(|| Error::run(format!("a tensor of {rows} x {cols} is too large")))?;
        Ok(Tensor::new(self.buffer(dtype, elements)?, rows, cols))
    }

    /// The vector `[1, values.len()]` of i32.
    ///
    /// # Errors
    /// As [`Device::buffer`].
    pub fn ints(&self, values: &[i32]) -> Result<Tensor> {
        let tensor = self.tensor_of(DType::I32, 1, values.len() as u64)?;
        tensor.buffer().upload_i32(0, values)?;
        Ok(tensor)
    }

    /// The vector `[1, values.len()]` in the accumulator dtype.
    ///
    /// # Errors
    /// As [`Device::buffer`].
    pub fn floats(&self, values: &[f64]) -> Result<Tensor> {
        let tensor = self.tensor_of(self.accumulator(), 1, values.len() as u64)?;
        tensor.buffer().upload(0, values)?;
        Ok(tensor)
    }

    /// Whether the session has an operation for `dtype`, by the operation's number in the catalogue.
    pub(super) fn supports(&self, op: u32, dtype: DType) -> bool {
        self.0.session.borrow().supports(op, dtype)
    }

    /// Bytes of scratch memory that a call takes beside its operands.
    pub(super) fn workspace(&self, call: &Call<'_>) -> u64 {
        self.0.session.borrow().workspace(call)
    }

    /// What memory the session holds.
    pub fn memory(&self) -> Memory {
        self.0.session.borrow().memory()
    }

    /// Gives cached memory back to the device.
    pub fn trim(&self) {
        self.0.session.borrow_mut().trim();
    }

    /// Waits for all work.
    ///
    /// # Errors
    /// What the work failed with.
    pub fn sync(&self) -> Result<()> {
        Ok(self.0.session.borrow_mut().sync()?)
    }
}
