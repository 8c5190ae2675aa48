//! The processor's own kernels, forward and backward, over the memory of candle's tensors.
//!
//! This file turns views into matrices and says which kernel runs; one sibling per family of operations holds the work.

pub mod attention;
pub mod attention_backward;
pub mod decode;
pub mod elementwise;
pub mod gemm;
pub mod head;
pub mod isa;
pub mod linear;
pub mod math;
pub mod norm;
pub mod operand;
pub mod optimizer;
pub mod parallel;
pub mod rotary;
pub mod rows;
pub mod sample;

use crate::{check, storage::Storage};
use operand::{Mat, MatMut};
use parallel::Parallel;
use plugin_api::{
    Error, Result,
    backend::{Pool, View, ops},
};

/// What the kernels of a session keep between calls.
pub struct Context {
    /// Threads and their scratch.
    pub par: Parallel,
    /// Partial sums, reused.
    pub partials: Vec<f32>,
    /// Logits of one chunk of tokens, reused.
    pub logits: Vec<f32>,
    /// Tasks of variable-length attention, reused.
    pub tasks: Vec<attention::Task>,
}

impl Context {
    /// With `threads` threads and the instructions of `isa`.
    ///
    /// # Errors
    /// Where they cannot be started.
    pub fn new(threads: usize, isa: isa::Isa) -> Result<Self> {
        Ok(Context { par: Parallel::new(threads, isa)?, partials: Vec::new(), logits: Vec::new(), tasks: Vec::new() })
    }

    /// Gives scratch back.
    pub fn trim(&mut self) {
        (self.partials, self.logits, self.tasks) = (Vec::new(), Vec::new(), Vec::new());
        self.par.trim();
    }
}

/// A session's buffers and its context, for the length of one operation.
pub struct Kernels<'a> {
    /// Buffers.
    pub pool: &'a mut Pool<Storage>,
    /// Threads and scratch.
    pub cx: &'a mut Context,
}

impl Kernels<'_> {
    fn address(&self, view: &View) -> Result<*mut u8> {
        let storage = self.pool.check(view)?;
        let memory = storage.memory().ok_or_else(|| Error::internal("kernels: a buffer outside this computer"))?;
        let size = view.dtype.size().unwrap_or(1);
        Ok(memory.as_ptr().wrapping_add(view.offset as usize * size))
    }

    /// A float operand to read.
    fn input(&self, view: &View) -> Result<Mat> {
        check::f32(view)?;
        let ptr = self.address(view)?;
        Ok(Mat::new(ptr.cast(), view.rows as usize, view.cols as usize, view.row_stride as usize))
    }

    /// A float operand to write; counts as a write.
    fn output(&mut self, view: &View) -> Result<MatMut> {
        check::f32(view)?;
        let ptr = self.address(view)?;
        self.pool.written(view.buffer)?;
        Ok(MatMut::new(ptr.cast(), view.rows as usize, view.cols as usize, view.row_stride as usize))
    }

    fn input_opt(&self, view: &Option<View>) -> Result<Option<Mat>> {
        view.as_ref().map(|view| self.input(view)).transpose()
    }

    fn output_opt(&mut self, view: &Option<View>) -> Result<Option<MatMut>> {
        view.as_ref().map(|view| self.output(view)).transpose()
    }

    /// Integers to read. They stay valid during the operation: nothing frees a buffer meanwhile, and the alias rules keep
    /// outputs apart.
    fn ints<'b>(&self, view: &View) -> Result<&'b [i32]> {
        let ptr: *const i32 = self.address(view)?.cast_const().cast();
        // SAFETY: the view is one row inside a live i32 buffer that outlives the operation; operations that write i32
        // write other buffers or other elements (alias rules).
        Ok(unsafe { std::slice::from_raw_parts(ptr, view.cols as usize) })
    }

    /// Integers to write.
    fn ints_mut<'b>(&mut self, view: &View) -> Result<&'b mut [i32]> {
        let ptr: *mut i32 = self.address(view)?.cast();
        self.pool.written(view.buffer)?;
        // SAFETY: as in `ints`; the alias rules make it the only reference.
        Ok(unsafe { std::slice::from_raw_parts_mut(ptr, view.cols as usize) })
    }
}

/// Declares which function runs an operation.
macro_rules! route {
    ($($method:ident: $Op:ident => $path:path,)*) => {
        impl ops::Ops for Kernels<'_> {
            fn nop(&mut self, _: &ops::Nop) -> Result<()> {
                Ok(())
            }
            $(fn $method(&mut self, op: &ops::$Op) -> Result<()> {
                $path(self, op)
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
    rotary: Rotary => rotary::rotate,
    attention: Attention => attention::forward,
    attention_backward: AttentionBackward => attention_backward::backward,
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
