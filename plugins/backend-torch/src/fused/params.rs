//! The parameters of the kernels, field by field as the structs in `src/kernels/`. Pointers are addresses on the session's device;
//! 0 is null.

/// The parameters of a kernel.
///
/// # Safety
/// The type has the layout of the kernel's parameter struct.
pub unsafe trait Params {}

macro_rules! params {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy)]
        pub struct $name { $(pub $field: $type,)* }
        // SAFETY: `repr(C)`, with the fields of the struct of that name in `src/kernels/`; a test compares the sizes.
        unsafe impl Params for $name {}
    )*};
}

params! {
    /// Of `norm.cu`.
    NormForward {
        x: usize, residual: usize, weight: usize, bias: usize, y: usize, sum: usize, stats: usize,
        x_stride: i64, residual_stride: i64, y_stride: i64, sum_stride: i64, stats_stride: i64,
        eps: f64, offset: f64, cols: i32, layer: i32,
    }
    /// Of `norm.cu`.
    NormBackward {
        x: usize, stats: usize, dy: usize, weight: usize, dsum: usize, dx: usize, parts: usize,
        x_stride: i64, stats_stride: i64, dy_stride: i64, dsum_stride: i64, dx_stride: i64,
        offset: f64, rows: i64, rows_per_block: i64, cols: i32, layer: i32,
    }
    /// Of `norm.cu`.
    ColumnSums { parts: usize, to: usize, count: i32, cols: i32, }
    /// Of `activation.cu`.
    Pointwise {
        a: usize, b: usize, c: usize, first: usize, second: usize,
        a_stride: i64, b_stride: i64, c_stride: i64, first_stride: i64, second_stride: i64,
        packs: u64, packs_per_row: u64, kind: i32, wide: i32,
    }
    /// Of `rotary.cu`.
    Rotary {
        x: usize, y: usize, positions: usize, cos: usize, sin: usize,
        x_stride: i64, y_stride: i64, cos_stride: i64, sin_stride: i64,
        units: u64, units_per_head: u64, rotating: u64,
        heads: i32, head_dim: i32, pairs: i32, interleaved: i32, inverse: i32, wide: i32,
    }
    /// Of `head.cu`.
    Shape {
        raw: usize, bias: usize, raw_stride: i64, inner: f64, outer: f64, vocab: u64, capped: i32, wide: i32,
    }
    /// Of `head.cu`.
    HeadStats {
        shape: Shape, targets: usize, logp: usize, lse: usize, entropy: usize, mean_logit: usize, top1: usize,
        logits: usize, logits_stride: i64,
    }
    /// Of `head.cu`.
    HeadCotangent {
        shape: Shape, dz: usize, dz_stride: i64, targets: usize, lse: usize, entropy: usize,
        dlogp: usize, dlse: usize, dmean_logit: usize, dentropy: usize, factor: f64, pieces: u64, ready: i32,
    }
    /// Of `optimizer.cu`.
    NormParts { x: usize, parts: usize, count: u64, per_block: u64, wide: i32, }
    /// Of `optimizer.cu`.
    NormTotal { parts: usize, norm: usize, count: u64, }
    /// Of `optimizer.cu`.
    AdamW {
        params: usize, grads: usize, m: usize, v: usize, norm: usize, bounds: usize, hyper: usize, shadow: usize,
        hyper_stride: i64, rest1: f64, beta2: f64, rest2: f64, eps: f64, clip: f64, correction1: f64, root2: f64,
        count: u64, segments: i32, shadow_storage: i32,
    }
}
