//! Softmax attention within packed sequences: the plan, the paths that compute it, and attention over cached keys and values.
//!
//! Plain causal and bidirectional attention use libtorch's flash kernels ([`flash`] on the processor, [`packed`] on CUDA). Everything
//! else is plain products: sequences of similar lengths together ([`batched`]), long ones alone ([`blocks`]).

mod batched;
mod blocks;
pub mod decode;
mod flash;
mod grouping;
mod packed;
mod plan;
#[cfg(test)]
mod tests;

pub use plan::{cap_, cap_slope};

use crate::{
    TorchSession,
    fault::{Attempt, require},
    settings::AttentionPath,
    storage::accumulator,
};
use plan::{Plan, check_heads};
use plugin_api::backend::ops::{Attention, AttentionBackward, MaskKind};
use tch::Kind;

plugin_api::operations! {
    AttentionOps for crate::TorchSession:
    rotary Rotary => super::rotary::rotate,
    attention Attention => forward,
    attention_backward AttentionBackward => backward,
    decode_attention DecodeAttention => decode::attention,
}

macro_rules! plan {
    ($s:expr, $op:expr, $name:literal) => {{
        let (s, op) = (&*$s, $op);
        check_heads($name, op.heads, op.kv_heads, op.head_dim, op.window)?;
        if !MaskKind::ALL.iter().any(|(mask, _)| *mask == op.mask) {
            return Err(op.mask.unknown($name).into());
        }
        let is_prefix = op.mask == MaskKind::PREFIX;
        require(!is_prefix || op.prefix.is_some(), $name, || "mask PREFIX needs `prefix`".into())?;
        let ranges = s.ranges($name, "offsets", &op.offsets, op.q.rows)?;
        let prefix = match op.prefix.filter(|_| is_prefix) {
            Some(prefix) => s.ints(&prefix)?.to_vec(),
            None => vec![0; ranges.len()],
        };
        Plan {
            kv_heads: op.kv_heads,
            group: op.heads / op.kv_heads,
            head_dim: op.head_dim,
            scale: op.scale,
            softcap: op.softcap,
            mask: op.mask,
            window: op.window,
            sequences: ranges
                .into_iter()
                .zip(prefix.into_iter().map(i64::from))
                .filter(|(r, _)| !r.is_empty())
                .collect(),
        }
    }};
}

/// The code that computes a call.
enum Path {
    Flash,
    Packed,
    Batched,
    Blocks,
}

impl Path {
    fn of(s: &TorchSession, plan: &Plan, kind: Kind) -> Path {
        match s.attention_path() {
            AttentionPath::Batched => Path::Batched,
            AttentionPath::Blocks => Path::Blocks,
            AttentionPath::Fastest if flash::serves(s, plan) => Path::Flash,
            AttentionPath::Fastest if packed::serves(s, plan, kind) => Path::Packed,
            // There is nothing to launch on the processor, and a batch's scores do not fit in its caches.
            AttentionPath::Fastest if s.on_cpu() => Path::Blocks,
            AttentionPath::Fastest => Path::Batched,
        }
    }
}

/// `y = softmax(cap(scale q k^T)) v` over each query's visible keys.
pub fn forward(s: &mut TorchSession, op: &Attention) -> Attempt {
    let plan = plan!(s, op, "attention");
    let kind = s.at(&op.q)?.f_kind()?;
    let acc = accumulator(kind);
    match Path::of(s, &plan, kind) {
        Path::Flash => flash::forward(s, op, &plan),
        Path::Packed => packed::forward(s, op, &plan),
        Path::Batched => batched::forward(s, op, &plan, acc),
        Path::Blocks => plan.sequences.iter().try_for_each(|one| blocks::forward(s, op, &plan, acc, one)),
    }
}

/// The cotangents of `q`, `k` and `v`.
pub fn backward(s: &mut TorchSession, op: &AttentionBackward) -> Attempt {
    let plan = plan!(s, op, "attention_backward");
    let kind = s.at(&op.q)?.f_kind()?;
    let acc = accumulator(kind);
    match Path::of(s, &plan, kind) {
        Path::Flash => flash::backward(s, op, &plan),
        Path::Packed => packed::backward(s, op, &plan),
        Path::Batched => batched::backward(s, op, &plan, acc),
        Path::Blocks => plan.sequences.iter().try_for_each(|one| blocks::backward(s, op, &plan, acc, one)),
    }
}
