//! Attention: over packed sequences, forward and backward, and over cached keys and values.

pub mod backward;
pub mod decode;
pub mod forward;
pub mod task;

super::context::kernels! {
    AttentionOps:
    rotary Rotary [x] => super::rotary::rotate,
    attention Attention [q] => forward::forward,
    attention_backward AttentionBackward [q] => backward::backward,
    decode_attention DecodeAttention [q] => decode::attention,
}
