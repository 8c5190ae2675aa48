//! The table of operations and their functions.

mod activation;
mod attention;
mod data;
mod decode;
mod embed;
mod head;
mod linear;
mod norm;
mod optim;
mod rotary;
mod sample;

use crate::Reference;
use plugin_api::{
    Result,
    backend::ops::{
        Activation, ActivationBackward, AdamW, Attention, AttentionBackward, Axpy, Cast, Copy, DecodeAttention,
        Embedding, EmbeddingBackward, Fill, GatherRows, GlobalNorm, Glu, GluBackward, HeadBackward, HeadFused,
        HeadStats, Linear, LinearBackwardInput, LinearBackwardWeight, Nop, Norm, NormBackward, Ops, Rotary, Sample,
        Scale, ScatterAddRows,
    },
};

macro_rules! table {
    ($($method:ident $Op:ident => $function:path,)*) => {
        impl Ops for Reference {
            $(fn $method(&mut self, op: &$Op) -> Result<()> {
                $function(self, op)
            })*
        }
    };
}

table! {
    nop Nop => data::nop,
    fill Fill => data::fill,
    copy Copy => data::copy,
    cast Cast => data::cast,
    axpy Axpy => data::axpy,
    scale Scale => data::scale,
    embedding Embedding => embed::forward,
    embedding_backward EmbeddingBackward => embed::backward,
    norm Norm => norm::forward,
    norm_backward NormBackward => norm::backward,
    linear Linear => linear::forward,
    linear_backward_input LinearBackwardInput => linear::backward_input,
    linear_backward_weight LinearBackwardWeight => linear::backward_weight,
    rotary Rotary => rotary::rotate,
    attention Attention => attention::forward,
    attention_backward AttentionBackward => attention::backward,
    activation Activation => activation::forward,
    activation_backward ActivationBackward => activation::backward,
    glu Glu => activation::glu,
    glu_backward GluBackward => activation::glu_backward,
    head_stats HeadStats => head::stats,
    head_backward HeadBackward => head::backward,
    head_fused HeadFused => head::fused,
    decode_attention DecodeAttention => decode::attention,
    sample Sample => sample::sample,
    global_norm GlobalNorm => optim::global_norm,
    adamw AdamW => optim::adamw,
    gather_rows GatherRows => data::gather_rows,
    scatter_add_rows ScatterAddRows => data::scatter_add_rows,
}
