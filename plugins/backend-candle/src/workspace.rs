//! The operations that a session supports and the scratch memory they need, for both paths.

use crate::kernels;
use plugin_api::backend::{
    Call, DType, Op,
    ops::{
        self, Attention, AttentionBackward, DecodeAttention, HeadBackward, HeadCandidates, HeadCandidatesBackward,
        HeadDivergence, HeadDivergenceBackward, HeadFused, HeadStats, HeadTopk, Norm, NormBackward, Sample,
    },
};

/// Whether an operation exists for a compute dtype: all of them for f32; for bf16 those that move data, and those that use only
/// its accumulators. Nop and cast have no compute dtype, so they exist for all; a buffer that candle cannot hold is refused when
/// it is allocated.
pub fn supports(op: u32, dtype: DType) -> bool {
    let any = [ops::Nop::SPEC.id, ops::Cast::SPEC.id];
    let bf16 = [ops::Fill::SPEC.id, ops::Copy::SPEC.id, ops::GlobalNorm::SPEC.id, ops::AdamW::SPEC.id];
    let known = ops::CATALOGUE.iter().any(|spec| spec.id == op);
    let here = dtype == DType::F32 || any.contains(&op) || (dtype == DType::BF16 && bf16.contains(&op));
    known && dtype.is_float() && here
}

/// The call as operation `O`, if that is what it is.
fn decoded<O: Op>(call: &Call<'_>) -> Option<O> {
    if call.op == O::SPEC.id { O::decode(call).ok() } else { None }
}

/// Bytes of the kernels' scratch memory for a call; scratch per thread is counted once.
pub fn kernels(call: &Call<'_>) -> u64 {
    let block = (kernels::attention::task::QUERIES * kernels::attention::task::KEYS) as u64;
    let chunk =
        |rows: u64, vocabulary: u64| rows.min(kernels::head::chunk_tokens(vocabulary as usize) as u64) * vocabulary;
    let elements = if let Some(op) = decoded::<HeadStats>(call) {
        if op.logits.is_some() { 0 } else { chunk(op.x.rows, op.w.rows) }
    } else if let Some(op) = decoded::<HeadBackward>(call) {
        chunk(op.x.rows, op.w.rows)
    } else if let Some(op) = decoded::<HeadFused>(call) {
        chunk(op.x.rows, op.w.rows)
    } else if let Some(op) = decoded::<HeadDivergence>(call) {
        2 * chunk(op.x.rows, op.w.rows)
    } else if let Some(op) = decoded::<HeadDivergenceBackward>(call) {
        2 * chunk(op.x.rows, op.w.rows)
    } else if let Some(op) = decoded::<HeadCandidates>(call) {
        chunk(op.x.rows, op.w.rows) + op.ids.cols
    } else if let Some(op) = decoded::<HeadCandidatesBackward>(call) {
        chunk(op.x.rows, op.w.rows) + 2 * op.ids.cols
    } else if let Some(op) = decoded::<HeadTopk>(call) {
        // Per id a logit and the id, and the id once more.
        chunk(op.x.rows, op.w.rows) + 6 * op.ids.cols
    } else if decoded::<Attention>(call).is_some() {
        block
    } else if decoded::<AttentionBackward>(call).is_some() {
        2 * block
    } else if let Some(op) = decoded::<DecodeAttention>(call) {
        op.capacity.max(0) as u64
    } else if let Some(op) = decoded::<Norm>(call) {
        3 * op.x.cols
    } else if let Some(op) = decoded::<NormBackward>(call) {
        (3 + 2 * 64) * op.x.cols
    } else if let Some(op) = decoded::<Sample>(call) {
        2 * op.logits.cols
    } else {
        0
    };
    4 * elements
}

/// Bytes of intermediate tensors on the device-independent path: several times its largest operand, and scores or logits if there
/// are any.
pub fn generic(call: &Call<'_>) -> u64 {
    let largest = call.inputs.iter().chain(call.outputs.iter()).map(|view| view.len()).max().unwrap_or(0);
    let chunk =
        |rows: u64, vocabulary: u64| rows.min(kernels::head::chunk_tokens(vocabulary as usize) as u64) * vocabulary;
    let extra = if let Some(op) = decoded::<Attention>(call) {
        2 * op.heads.max(0) as u64 * op.q.rows * op.q.rows
    } else if let Some(op) = decoded::<AttentionBackward>(call) {
        4 * op.heads.max(0) as u64 * op.q.rows * op.q.rows
    } else if let Some(op) = decoded::<HeadFused>(call) {
        4 * chunk(op.x.rows, op.w.rows)
    } else if let Some(op) = decoded::<HeadDivergence>(call) {
        10 * chunk(op.x.rows, op.w.rows)
    } else if let Some(op) = decoded::<HeadDivergenceBackward>(call) {
        12 * chunk(op.x.rows, op.w.rows)
    } else if let Some(op) = decoded::<HeadCandidates>(call) {
        6 * chunk(op.x.rows, op.w.rows)
    } else if let Some(op) = decoded::<HeadCandidatesBackward>(call) {
        8 * chunk(op.x.rows, op.w.rows)
    } else if let Some(op) = decoded::<HeadTopk>(call) {
        6 * chunk(op.x.rows, op.w.rows)
    } else {
        0
    };
    4 * (4 * largest + extra)
}
