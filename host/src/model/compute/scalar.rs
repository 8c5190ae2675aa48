//! The scalar head: one number per position, which is a reward model's score or a critic's value.
//!
//! It is a linear layer with one output and without bias (`score.weight`, as in transformers' `...ForSequenceClassification`
//! with one label), computed from the last hidden states in f32 or better, whatever the trunk's dtype.

use plugin_api::abi::View;
use plugin_api::backend::ops::{Axpy, Cast, Fill, Linear, LinearBackwardInput, LinearBackwardWeight};

use super::activations::Forward;
use crate::device::{Buffer, Tensor};
use crate::error::{Error, Result};
use crate::model::adapter::Adapter;
use crate::model::loaded::Model;

impl Model {
    /// Returns the scalar head's output at every position, N numbers.
    ///
    /// # Errors
    /// The model has no scalar head; errors of the backend.
    pub fn scalars(&self, forward: &Forward) -> Result<Vec<f64>> {
        let x = self.accumulated(&forward.hidden)?;
        let y = self.device.tensor_of(self.device.accumulator(), x.row_count(), 1)?;
        self.device.call(&Linear { x: x.view(), w: self.scalar_weight()?, bias: None, y: y.view() })?;
        y.to_vec()
    }

    /// Adds the scalar head's gradient to `grads`, given the cotangents of its N numbers, and its part of the cotangent of the
    /// last hidden states to `dhidden`, or to zeros if `dhidden` is `None`. Returns the sum.
    ///
    /// # Errors
    /// Another number of cotangents than positions; errors of the backend.
    pub fn scalars_backward(
        &self,
        forward: &Forward,
        cotangents: &[f64],
        dhidden: Option<Tensor>,
        grads: &Buffer,
    ) -> Result<Tensor> {
        let rows = forward.hidden.row_count();
        if cotangents.len() as u64 != rows {
            return Err(Error::run(format!("scalar head: {} cotangents for {rows} positions", cotangents.len())));
        }
        let x = self.accumulated(&forward.hidden)?;
        let dy = self.device.tensor_of(self.device.accumulator(), rows, 1)?;
        dy.buffer().upload(0, cotangents)?;
        if let Some(dw) = self.scalar_gradient(grads)? {
            self.device.call(&LinearBackwardWeight { x: x.view(), dy: dy.view(), dw, dbias: None })?;
        }
        let dx = x;
        let w = self.scalar_weight()?;
        let Some(sum) = dhidden else {
            self.device.call(&LinearBackwardInput { dy: dy.view(), w, dx: dx.view(), accumulate: false })?;
            return self.computed(dx);
        };
        if self.mixed() {
            self.device.call(&LinearBackwardInput { dy: dy.view(), w, dx: dx.view(), accumulate: false })?;
            let own = self.computed(dx)?;
            self.device.call(&Axpy { x: own.view(), y: sum.view(), alpha: 1.0 })?;
        } else {
            self.device.call(&LinearBackwardInput { dy: dy.view(), w, dx: sum.view(), accumulate: true })?;
        }
        Ok(sum)
    }

    /// Returns a zero cotangent of the last hidden states: for a model none of whose statistics affects the loss.
    ///
    /// # Errors
    /// Errors of the backend.
    pub fn no_cotangent(&self, forward: &Forward) -> Result<Tensor> {
        let zero = self.device.tensor(forward.hidden.row_count(), self.config.dim)?;
        self.device.call(&Fill { x: zero.view(), value: 0.0 })?;
        Ok(zero)
    }

    fn mixed(&self) -> bool {
        self.device.compute() != self.device.accumulator()
    }

    /// Returns the gradient's view of the head if it is trainable.
    fn scalar_gradient(&self, grads: &Buffer) -> Result<Option<View>> {
        if let Some(head) = self.adapter.as_ref().and_then(Adapter::scalar) {
            return Ok(Some(head.view(grads)));
        }
        Ok(self.gradient(self.layout.scalar.ok_or_else(none)?, grads))
    }

    /// Returns the head's master weight: the adapter's own, if there is one.
    fn scalar_weight(&self) -> Result<View> {
        if let Some((adapter, head)) = self.adapter.as_ref().and_then(|adapter| Some((adapter, adapter.scalar()?))) {
            return Ok(head.view(adapter.params()));
        }
        let index = self.layout.scalar.ok_or_else(none)?;
        Ok(self.layout.parameters()[index].view(&self.params))
    }

    /// Returns a copy in the accumulator dtype.
    fn accumulated(&self, x: &Tensor) -> Result<Tensor> {
        let copy = self.device.tensor_of(self.device.accumulator(), x.row_count(), x.column_count())?;
        self.cast(x, &copy)?;
        Ok(copy)
    }

    /// Returns `x` in the compute dtype.
    fn computed(&self, x: Tensor) -> Result<Tensor> {
        if !self.mixed() {
            return Ok(x);
        }
        let copy = self.device.tensor(x.row_count(), x.column_count())?;
        self.cast(&x, &copy)?;
        Ok(copy)
    }

    fn cast(&self, x: &Tensor, y: &Tensor) -> Result<()> {
        self.device.call(&Cast { x: x.view(), y: y.view() })
    }
}

fn none() -> Error {
    Error::run("the model has no scalar head")
}
