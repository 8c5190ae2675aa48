//! Attention: the plan, the paths that run it, and attention over cached keys and values.

pub mod decode;
mod flash;
mod packed;
mod plain;
mod plan;

pub use plain::{backward, forward};
pub use plan::{cap_, cap_slope};

plugin_api::operations! {
    AttentionOps for crate::TorchSession:
    rotary Rotary => super::rotary::rotate,
    attention Attention => forward,
    attention_backward AttentionBackward => backward,
    decode_attention DecodeAttention => decode::attention,
}
