//! The kernels for the processor, forward and backward, over the memory of candle's tensors.
//!
//! This file maps operations to kernels; `context` converts views to matrices, `primitives` holds what the kernels are built from,
//! and one file or folder per family of operations holds the kernels.

pub mod attention;
pub mod context;
pub mod elementwise;
pub mod head;
pub mod linear;
pub mod norm;
pub mod optimizer;
pub mod primitives;
pub mod rotary;
pub mod rows;
pub mod sample;

use attention::{backward, decode, forward};
pub use context::{Context, Kernels};
use plugin_api::{Result, backend::ops};
pub use primitives::isa;

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
    attention: Attention => forward::forward,
    attention_backward: AttentionBackward => backward::backward,
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
