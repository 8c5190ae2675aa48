//! The device-independent path: every operation as candle's tensor operations, with explicit backward formulas. It uses neither
//! autograd nor candle's fused operations, so that nothing depends on what is fused for a device.
//!
//! This file maps operations to functions; `context` converts views to tensors and back. It is not optimised for speed, and passes
//! the same suite as the kernels.

mod attention;
mod context;
mod decode;
mod elementwise;
mod head;
mod linear;
mod norm;
mod optimizer;
mod rows;
mod sample;

pub use context::Generic;

use crate::storage::candle_error;
use context::Fault;
use plugin_api::{Result, backend::ops};

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
