//! Context of the kernels: a session's buffers as matrices, its threads and its scratch memory.

use super::{
    attention::task::Task,
    primitives::{
        element::Element,
        isa::Isa,
        operand::{Mat, MatMut},
        parallel::Parallel,
    },
};
use crate::{check, storage::Storage};
use plugin_api::{
    Error, Result,
    backend::{Pool, View},
};
use std::sync::atomic::AtomicU64;

/// Implements a group's trait as `plugin_api::operations!` does. A function with an operand in brackets is generic over the stored
/// number, which that operand's dtype decides; the operands of the same class have the same dtype, as the contract's checks ensure.
macro_rules! kernels {
    ($Group:ident: $($method:ident $Op:ident $([$of:ident])? => $($function:ident)::+,)*) => {
        impl plugin_api::backend::ops::$Group for $crate::kernels::Kernels<'_> {
            $(fn $method(&mut self, op: &plugin_api::backend::ops::$Op) -> plugin_api::Result<()> {
                $crate::kernels::context::kernels!(@call self op $([$of])? $($function)::+)
            })*
        }
    };
    (@call $s:ident $op:ident $($function:ident)::+) => {
        $($function)::+($s, $op)
    };
    (@call $s:ident $op:ident [$of:ident] $($function:ident)::+) => {
        match $op.$of.dtype {
            plugin_api::backend::DType::F32 => $($function)::+::<f32>($s, $op),
            plugin_api::backend::DType::BF16 => $($function)::+::<half::bf16>($s, $op),
            _ => Err($crate::check::unsupported(&$op.$of)),
        }
    };
}
pub(super) use kernels;

/// What a session's kernels keep between calls.
pub struct Context {
    /// Threads and their scratch.
    pub par: Parallel,
    /// Partial sums, reused.
    pub partials: Vec<f32>,
    /// Logits of one chunk of tokens, reused.
    pub logits: Vec<f32>,
    /// Tasks of variable-length attention, reused.
    pub tasks: Vec<Task>,
    /// Keys of what an operation sorts, reused.
    pub keys: Vec<u64>,
    /// Partial sums in f64, as bits, reused.
    pub sums: Vec<AtomicU64>,
}

impl Context {
    /// With `threads` threads and the instructions of `isa`.
    ///
    /// # Errors
    /// If they cannot be started.
    pub fn new(threads: usize, isa: Isa) -> Result<Self> {
        Ok(Context {
            par: Parallel::new(threads, isa)?,
            partials: Vec::new(),
            logits: Vec::new(),
            tasks: Vec::new(),
            keys: Vec::new(),
            sums: Vec::new(),
        })
    }

    /// Frees scratch memory. Each thread keeps what it needs for the ids of one token.
    pub fn trim(&mut self) {
        (self.partials, self.logits, self.tasks) = (Vec::new(), Vec::new(), Vec::new());
        (self.keys, self.sums) = (Vec::new(), Vec::new());
        self.par.trim();
    }
}

/// A matrix of integers to read.
#[derive(Clone, Copy)]
pub struct IntRows<'a> {
    values: &'a [i32],
    rows: usize,
    cols: usize,
    stride: usize,
}

impl<'a> IntRows<'a> {
    /// Row `r`.
    pub fn row(&self, r: usize) -> &'a [i32] {
        if self.cols == 0 { &[] } else { &self.values[r * self.stride..][..self.cols] }
    }

    /// All rows.
    pub fn iter(self) -> impl Iterator<Item = &'a [i32]> {
        (0..self.rows).map(move |r| self.row(r))
    }
}

/// A session's buffers and its context during one operation.
pub struct Kernels<'a> {
    /// Buffers.
    pub pool: &'a mut Pool<Storage>,
    /// Threads and scratch.
    pub cx: &'a mut Context,
}

impl Kernels<'_> {
    pub(super) fn address(&self, view: &View) -> Result<*mut u8> {
        let storage = self.pool.check(view)?;
        let memory =
            storage.memory().ok_or_else(|| Error::internal("kernels: a buffer outside this computer's memory"))?;
        let size = view.dtype.size().unwrap_or(1);
        Ok(memory.as_ptr().wrapping_add(view.offset as usize * size))
    }

    /// A float operand to read.
    pub(super) fn input<E: Element>(&self, view: &View) -> Result<Mat<E>> {
        check::is::<E>(view)?;
        let ptr = self.address(view)?;
        Ok(Mat::new(ptr.cast(), view.rows as usize, view.cols as usize, view.row_stride as usize))
    }

    /// A float operand to write; counts as a write.
    pub(super) fn output<E: Element>(&mut self, view: &View) -> Result<MatMut<E>> {
        check::is::<E>(view)?;
        let ptr = self.address(view)?;
        self.pool.written(view.buffer)?;
        Ok(MatMut::new(ptr.cast(), view.rows as usize, view.cols as usize, view.row_stride as usize))
    }

    pub(super) fn input_opt<E: Element>(&self, view: &Option<View>) -> Result<Option<Mat<E>>> {
        view.as_ref().map(|view| self.input(view)).transpose()
    }

    pub(super) fn output_opt<E: Element>(&mut self, view: &Option<View>) -> Result<Option<MatMut<E>>> {
        view.as_ref().map(|view| self.output(view)).transpose()
    }

    /// Integers to read. They stay valid during the operation: no buffer is freed meanwhile, and by the alias rules outputs do not
    /// overlap them.
    pub(super) fn ints<'b>(&self, view: &View) -> Result<&'b [i32]> {
        let ptr: *const i32 = self.address(view)?.cast_const().cast();
        // SAFETY: the view is one row inside a live i32 buffer that outlives the operation; operations that write i32
        // write other buffers or other elements (alias rules).
        Ok(unsafe { std::slice::from_raw_parts(ptr, view.cols as usize) })
    }

    /// Rows of integers to read, as [`Kernels::ints`].
    pub(super) fn int_rows<'b>(&self, view: &View) -> Result<IntRows<'b>> {
        let ptr: *const i32 = self.address(view)?.cast_const().cast();
        let [rows, cols, stride] = [view.rows, view.cols, view.row_stride].map(|size| size as usize);
        let len = if view.is_empty() { 0 } else { (rows - 1) * stride + cols };
        // SAFETY: from the first to the last element of a checked view; the rest as in `ints`.
        Ok(IntRows { values: unsafe { std::slice::from_raw_parts(ptr, len) }, rows, cols, stride })
    }

    /// The address of integers to write; counts as a write.
    pub(super) fn ints_start(&mut self, view: &View) -> Result<*mut i32> {
        let ptr = self.address(view)?.cast();
        self.pool.written(view.buffer)?;
        Ok(ptr)
    }

    /// Integers to write.
    pub(super) fn ints_mut<'b>(&mut self, view: &View) -> Result<&'b mut [i32]> {
        let ptr = self.ints_start(view)?;
        // SAFETY: as in `ints`; the alias rules make it the only reference.
        Ok(unsafe { std::slice::from_raw_parts_mut(ptr, view.cols as usize) })
    }
}
