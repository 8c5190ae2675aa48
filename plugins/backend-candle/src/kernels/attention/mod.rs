//! Attention: over packed sequences, forward and backward, and over cached keys and values.

pub mod backward;
pub mod decode;
pub mod forward;
pub mod task;

plugin_api::operations! {
    AttentionOps for super::Kernels<'_>:
    rotary Rotary => super::rotary::rotate,
    attention Attention => forward::forward,
    attention_backward AttentionBackward => backward::backward,
    decode_attention DecodeAttention => decode::attention,
}
