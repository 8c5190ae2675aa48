//! The device-independent path: every operation in candle's tensor operations, with explicit backward formulas. No
//! autograd, and none of candle's fused operations, so that nothing depends on what a device has fused.
//!
//! This file turns views into tensors and back, and says which function computes what. Speed is not its aim; the same
//! suite as the kernels' is.

mod attention;
mod decode;
mod elementwise;
mod head;
mod linear;
mod norm;
mod optimizer;
mod rows;
mod sample;

use crate::{
    check,
    storage::{Storage, candle_error},
};
use candle_core::Tensor;
use plugin_api::{
    Error, Result,
    backend::{Pool, View, ops},
};

/// A session's buffers, for the length of one operation.
pub struct Generic<'a> {
    /// Buffers.
    pub pool: &'a mut Pool<Storage>,
}

/// A failure of candle or of a check, before it is said which operation it befell.
pub enum Fault {
    /// candle's.
    Candle(candle_core::Error),
    /// Already worded.
    Worded(Error),
}

impl From<candle_core::Error> for Fault {
    fn from(e: candle_core::Error) -> Self {
        Fault::Candle(e)
    }
}

impl From<Error> for Fault {
    fn from(e: Error) -> Self {
        Fault::Worded(e)
    }
}

/// A step's result.
pub type Outcome<T = ()> = std::result::Result<T, Fault>;

impl Generic<'_> {
    /// A float operand as a contiguous `[rows, cols]` tensor. It may share the buffer's memory: results of candle's
    /// operations never do, so whoever writes it elsewhere copies it first.
    fn input(&self, view: &View) -> Outcome<Tensor> {
        check::f32(view)?;
        self.floats(view)
    }

    /// As [`Generic::input`], for any float type.
    fn floats(&self, view: &View) -> Outcome<Tensor> {
        let flat = self.pool.check(view)?.tensor();
        let [offset, rows, cols, stride] = [view.offset, view.rows, view.cols, view.row_stride].map(|v| v as usize);
        if view.is_empty() {
            return Ok(Tensor::zeros((rows, cols), flat.dtype(), flat.device())?);
        }
        if view.is_dense() {
            return Ok(flat.narrow(0, offset, rows * cols)?.reshape((rows, cols))?);
        }
        // The last row may end with the buffer, short of a whole stride.
        let before = flat.narrow(0, offset, (rows - 1) * stride)?.reshape((rows - 1, stride))?.narrow(1, 0, cols)?;
        let last = flat.narrow(0, offset + (rows - 1) * stride, cols)?.reshape((1, cols))?;
        Ok(Tensor::cat(&[before, last], 0)?)
    }

    fn input_opt(&self, view: &Option<View>) -> Outcome<Option<Tensor>> {
        view.as_ref().map(|view| self.input(view)).transpose()
    }

    /// Writes a tensor of as many elements, which shares no memory with the buffer; counts as a write.
    fn output(&mut self, view: &View, value: &Tensor) -> Outcome {
        let flat = self.pool.check(view)?.tensor();
        if !view.is_empty() {
            let [offset, rows, cols, stride] = [view.offset, view.rows, view.cols, view.row_stride].map(|v| v as usize);
            let value = value.to_dtype(flat.dtype())?.contiguous()?;
            if view.is_dense() {
                flat.slice_set(&value.flatten_all()?, 0, offset)?;
            } else {
                let value = value.reshape((rows, cols))?;
                flat.narrow(0, offset, (rows - 1) * stride)?.reshape((rows - 1, stride))?.slice_set(
                    &value.narrow(0, 0, rows - 1)?,
                    1,
                    0,
                )?;
                let last = value.narrow(0, rows - 1, 1)?.flatten_all()?;
                flat.slice_set(&last, 0, offset + (rows - 1) * stride)?;
            }
        }
        self.pool.written(view.buffer)?;
        Ok(())
    }

    fn output_opt(&mut self, view: &Option<View>, value: &Tensor) -> Outcome {
        view.as_ref().map_or(Ok(()), |view| self.output(view, value))
    }

    /// Adds to what the view holds.
    fn add(&mut self, view: &View, value: &Tensor) -> Outcome {
        let sum = (self.input(view)? + value)?;
        self.output(view, &sum)
    }

    /// Integers, which live in this computer's memory.
    fn ints(&self, view: &View) -> Result<Vec<i32>> {
        let storage = self.pool.check(view)?;
        let mut bytes = vec![0; view.cols as usize * 4];
        storage.read(view.offset as usize, &mut bytes)?;
        Ok(bytes.chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }

    fn output_ints(&mut self, view: &View, values: &[u32]) -> Outcome {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.pool.check(view)?.write(view.offset as usize, &bytes)?;
        self.pool.written(view.buffer)?;
        Ok(())
    }

    /// Checked indices as a tensor on the device.
    fn index(&self, ids: &[i32]) -> Outcome<Tensor> {
        let ids: Vec<u32> = ids.iter().map(|id| *id as u32).collect();
        let len = ids.len();
        Ok(Tensor::from_vec(ids, len, self.pool.device())?)
    }
}

/// Declares which function computes an operation.
macro_rules! route {
    ($($method:ident: $Op:ident => $path:path,)*) => {
        impl ops::Ops for Generic<'_> {
            fn nop(&mut self, _: &ops::Nop) -> Result<()> {
                Ok(())
            }
            $(fn $method(&mut self, op: &ops::$Op) -> Result<()> {
                $path(self, op).map_err(|fault| match fault {
                    Fault::Candle(e) => candle_error(stringify!($method), e),
                    Fault::Worded(e) => e,
                })
            })*
        }
    };
}

route! {
    fill: Fill => elementwise::fill,
    copy: Copy => elementwise::copy,
    cast: Cast => elementwise::cast,
    axpy: Axpy => elementwise::axpy,
    scale: Scale => elementwise::scale,
    embedding: Embedding => rows::embedding,
    embedding_backward: EmbeddingBackward => rows::embedding_backward,
    norm: Norm => norm::forward,
    norm_backward: NormBackward => norm::backward,
    linear: Linear => linear::forward,
    linear_backward_input: LinearBackwardInput => linear::backward_input,
    linear_backward_weight: LinearBackwardWeight => linear::backward_weight,
    rotary: Rotary => rows::rotary,
    attention: Attention => attention::forward,
    attention_backward: AttentionBackward => attention::backward,
    activation: Activation => elementwise::activation,
    activation_backward: ActivationBackward => elementwise::activation_backward,
    glu: Glu => elementwise::glu,
    glu_backward: GluBackward => elementwise::glu_backward,
    head_stats: HeadStats => head::stats,
    head_backward: HeadBackward => head::backward,
    head_fused: HeadFused => head::fused,
    decode_attention: DecodeAttention => decode::attention,
    sample: Sample => sample::sample,
    global_norm: GlobalNorm => optimizer::global_norm,
    adamw: AdamW => optimizer::adamw,
    gather_rows: GatherRows => rows::gather,
    scatter_add_rows: ScatterAddRows => rows::scatter_add,
}
