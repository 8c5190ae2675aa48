//! The operations that a session supports and the scratch memory they need, for both paths.

use crate::kernels::{
    Element,
    attention::{backward::backward_scratch, decode::decode_scratch, forward::forward_scratch},
    head::chunk_tokens,
    isa::Isa,
    optimizer::CHUNK,
    primitives::{element::is_f32, gemm::product_len},
};
use half::bf16;
use plugin_api::backend::{
    Call, DType, Op, View,
    ops::{
        self, Attention, AttentionBackward, DecodeAttention, EmbeddingBackward, GlobalNorm, HeadBackward,
        HeadCandidates, HeadCandidatesBackward, HeadDivergence, HeadDivergenceBackward, HeadFused, HeadStats, HeadTopk,
        Linear, LinearBackwardInput, LinearBackwardWeight, Norm, NormBackward, Sample, ScatterAddRows,
    },
};

/// Whether an operation exists for a compute dtype: all of them for f32 and bf16. Nop and cast have no compute dtype, so they exist
/// for all; a buffer that candle cannot hold is refused when it is allocated.
pub fn supports(op: u32, dtype: DType) -> bool {
    let any = [ops::Nop::SPEC.id, ops::Cast::SPEC.id];
    let known = ops::CATALOGUE.iter().any(|spec| spec.id == op);
    let here = [DType::F32, DType::BF16].contains(&dtype) || any.contains(&op);
    known && dtype.is_float() && here
}

/// The call as operation `O`, if that is what it is.
fn decoded<O: Op>(call: &Call<'_>) -> Option<O> {
    if call.op == O::SPEC.id { O::decode(call).ok() } else { None }
}

/// Bytes of the kernels' scratch memory for a call; scratch per thread is counted once.
pub fn kernels(call: &Call<'_>, isa: &Isa) -> u64 {
    // Accumulators are f32 in both compute dtypes.
    let halves = call.inputs.iter().chain(call.outputs).any(|view| view.dtype == DType::BF16);
    4 * if halves { floats::<bf16>(call, isa) } else { floats::<f32>(call, isa) }
}

/// Elements of scratch for the logits of a chunk of tokens.
fn chunk(rows: u64, vocabulary: u64) -> u64 {
    rows.min(chunk_tokens(vocabulary as usize) as u64) * vocabulary
}

/// Floats of scratch for a call that computes in `E`.
fn floats<E: Element>(call: &Call<'_>, isa: &Isa) -> u64 {
    let product = |m: u64, n: u64, k: u64| product_len::<E, E>(isa, m as usize, n as usize, k as usize) as u64;
    // With a result in f32.
    let sums = |m: u64, n: u64, k: u64| product_len::<E, f32>(isa, m as usize, n as usize, k as usize) as u64;
    // The products of a chunk of logits, forward and backward.
    let logits = |x: &View, w: &View, backward: bool| {
        let rows = x.rows.min(chunk_tokens(w.rows as usize) as u64);
        let gradients = product(rows, w.cols, w.rows).max(sums(w.rows, w.cols, rows));
        sums(rows, w.rows, w.cols).max(if backward { gradients } else { 0 })
    };
    let head = |x: &View, w: &View, backward: bool| chunk(x.rows, w.rows) + logits(x, w, backward);
    let wide = |rows: u64| if is_f32::<E>() { 0 } else { rows };
    if let Some(op) = decoded::<Linear>(call) {
        product(op.x.rows, op.w.rows, op.w.cols)
    } else if let Some(op) = decoded::<LinearBackwardInput>(call) {
        product(op.dy.rows, op.w.cols, op.w.rows)
    } else if let Some(op) = decoded::<LinearBackwardWeight>(call) {
        sums(op.dw.rows, op.dw.cols, op.x.rows)
    } else if let Some(op) = decoded::<HeadStats>(call) {
        let products = logits(&op.x, &op.w, false);
        if op.logits.is_some() && is_f32::<E>() { products } else { chunk(op.x.rows, op.w.rows) + products }
    } else if let Some(op) = decoded::<HeadBackward>(call) {
        head(&op.x, &op.w, true)
    } else if let Some(op) = decoded::<HeadFused>(call) {
        head(&op.x, &op.w, true)
    } else if let Some(op) = decoded::<HeadDivergence>(call) {
        2 * chunk(op.x.rows, op.w.rows) + logits(&op.x, &op.w, false).max(logits(&op.x2, &op.w2, false))
    } else if let Some(op) = decoded::<HeadDivergenceBackward>(call) {
        2 * chunk(op.x.rows, op.w.rows) + logits(&op.x, &op.w, true).max(logits(&op.x2, &op.w2, false))
    } else if let Some(op) = decoded::<HeadCandidates>(call) {
        head(&op.x, &op.w, false) + op.ids.cols
    } else if let Some(op) = decoded::<HeadCandidatesBackward>(call) {
        head(&op.x, &op.w, true) + 2 * op.ids.cols
    } else if let Some(op) = decoded::<HeadTopk>(call) {
        // Per id a logit and the id, and the id once more.
        head(&op.x, &op.w, false) + 6 * op.ids.cols
    } else if let Some(op) = decoded::<Attention>(call) {
        forward_scratch::<E>(isa, op.head_dim.max(0) as usize) as u64
    } else if let Some(op) = decoded::<AttentionBackward>(call) {
        // A sequence has at most all tokens.
        backward_scratch::<E>(isa, op.head_dim.max(0) as usize, op.q.rows as usize) as u64
    } else if let Some(op) = decoded::<DecodeAttention>(call) {
        decode_scratch::<E>(op.head_dim.max(0) as usize, op.capacity.max(0) as usize) as u64
    } else if let Some(op) = decoded::<Norm>(call) {
        3 * op.x.cols
    } else if let Some(op) = decoded::<NormBackward>(call) {
        (4 + 2 * 64) * op.x.cols
    } else if let Some(op) = decoded::<Sample>(call) {
        // Per token a weight and a key of eight bytes, and in bf16 the logit in f32.
        3 * op.logits.cols + wide(op.logits.cols)
    } else if let Some(op) = decoded::<EmbeddingBackward>(call) {
        // The order of the rows, of eight bytes each.
        2 * op.ids.cols
    } else if let Some(op) = decoded::<GlobalNorm>(call) {
        // A sum of eight bytes per chunk.
        2 * op.x.cols.div_ceil(CHUNK as u64)
    } else if let Some(op) = decoded::<ScatterAddRows>(call) {
        2 * op.index.cols
    } else {
        0
    }
}

/// Bytes of intermediate tensors on the device-independent path: several times its largest operand, and scores or logits if there
/// are any.
pub fn generic(call: &Call<'_>) -> u64 {
    let largest = call.inputs.iter().chain(call.outputs.iter()).map(|view| view.len()).max().unwrap_or(0);
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
