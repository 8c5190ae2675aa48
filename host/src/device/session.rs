//! An open session and the dtype that it computes in.

use std::{cell::RefCell, rc::Rc};

use plugin_api::abi::{Call, DType, Memory};
use plugin_api::backend::{Op, Session, ops::CATALOGUE};

use super::operation_times::{OperationTime, OperationTimes};
use crate::error::{Error, Result};

/// An open session and the dtype it computes in. Clones share the session.
#[derive(Clone)]
pub struct Device(pub(super) Rc<Inner>);

pub(super) struct Inner {
    pub(super) session: RefCell<Box<dyn Session>>,
    compute: DType,
    times: OperationTimes,
}

impl Device {
    /// Creates a device that computes in `compute` on `session`.
    ///
    /// # Errors
    /// A request error if the backend lacks a mandatory operation in that dtype.
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
        Ok(Device(Rc::new(Inner { session: RefCell::new(session), compute, times: OperationTimes::default() })))
    }

    /// The dtype of weights and activations in the forward and backward pass.
    pub fn compute(&self) -> DType {
        self.0.compute
    }

    /// The dtype of master weights, gradients, moments and statistics.
    pub fn accumulator(&self) -> DType {
        self.0.compute.accumulator()
    }

    /// Whether `other` is the same session, so that one operation may read buffers of both.
    pub fn same(&self, other: &Device) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    /// Runs one operation.
    ///
    /// # Errors
    /// Errors of the backend, with the names of operation and operand.
    pub fn call<O: Op>(&self, op: &O) -> Result<()> {
        Ok(op.with_call(|call| self.0.times.measure(O::SPEC, || self.0.session.borrow_mut().invoke(call)))?)
    }

    /// Measures the time of every operation from now on, by the host's clock.
    pub fn time_operations(&self) {
        self.0.times.begin();
    }

    /// Takes the times of the operations since the last time; empty without [`Device::time_operations`].
    pub fn take_operation_times(&self) -> Vec<OperationTime> {
        self.0.times.take()
    }

    /// Whether the session has an operation for `dtype`, by the operation's number in the catalogue.
    pub(super) fn supports(&self, op: u32, dtype: DType) -> bool {
        self.0.session.borrow().supports(op, dtype)
    }

    /// Bytes of scratch memory that a call needs in addition to its operands.
    pub(super) fn workspace(&self, call: &Call<'_>) -> u64 {
        self.0.session.borrow().workspace(call)
    }

    /// The memory that the session holds.
    pub fn memory(&self) -> Memory {
        self.0.session.borrow().memory()
    }

    /// Returns cached memory to the device.
    pub fn trim(&self) {
        self.0.session.borrow_mut().trim();
    }

    /// Waits for all work.
    ///
    /// # Errors
    /// Errors of the work.
    pub fn sync(&self) -> Result<()> {
        Ok(self.0.session.borrow_mut().sync()?)
    }
}
