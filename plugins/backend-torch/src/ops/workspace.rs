//! Scratch memory of a call: an estimate from its shapes.

use super::head::{LOGITS_CPU, LOGITS_DEVICE};
use plugin_api::backend::{
    Call, Op,
    ops::{
        Attention, AttentionBackward, HeadBackward, HeadCandidates, HeadCandidatesBackward, HeadDivergence,
        HeadDivergenceBackward, HeadFused, HeadStats, HeadTopk,
    },
};

/// The call as operation `O`, if that is what it is.
fn decoded<O: Op>(call: &Call<'_>) -> Option<O> {
    if call.op == O::SPEC.id { O::decode(call).ok() } else { None }
}

/// Bytes of intermediate tensors: several times the largest operand, and chunks of scores or logits if there are any.
pub fn bytes(call: &Call<'_>, on_cpu: bool) -> u64 {
    let operands = call.inputs.iter().chain(call.outputs.iter());
    let largest = operands.map(|view| view.rows.saturating_mul(view.cols)).max().unwrap_or(0);
    let budget = (if on_cpu { LOGITS_CPU } else { LOGITS_DEVICE }) as u64;
    let logits = |tokens: u64, vocabulary: u64| tokens.saturating_mul(vocabulary).min(budget.max(vocabulary));
    let scores =
        |heads: i64, tokens: u64| (heads.max(0) as u64).saturating_mul(tokens).saturating_mul(tokens).min(budget);
    let extra = if let Some(op) = decoded::<HeadStats>(call) {
        2 * logits(op.x.rows, op.w.rows)
    } else if let Some(op) = decoded::<HeadBackward>(call) {
        4 * logits(op.x.rows, op.w.rows)
    } else if let Some(op) = decoded::<HeadFused>(call) {
        3 * logits(op.x.rows, op.w.rows)
    } else if let Some(op) = decoded::<HeadDivergence>(call) {
        8 * logits(op.x.rows, op.w.rows)
    } else if let Some(op) = decoded::<HeadDivergenceBackward>(call) {
        8 * logits(op.x.rows, op.w.rows)
    } else if let Some(op) = decoded::<HeadCandidates>(call) {
        4 * logits(op.x.rows, op.w.rows)
    } else if let Some(op) = decoded::<HeadCandidatesBackward>(call) {
        6 * logits(op.x.rows, op.w.rows)
    } else if let Some(op) = decoded::<HeadTopk>(call) {
        // Counts of equal logits are 64 bits wide.
        8 * logits(op.x.rows, op.w.rows)
    } else if let Some(op) = decoded::<Attention>(call) {
        2 * scores(op.heads, op.q.rows)
    } else if let Some(op) = decoded::<AttentionBackward>(call) {
        4 * scores(op.heads, op.q.rows)
    } else {
        0
    };
    largest.saturating_mul(4).saturating_add(extra).saturating_mul(4)
}
