//! Softmax attention inside packed sequences, by blocks of queries and keys with a running maximum and sum (Dao et al. 2022), so
//! that only the scores of one block exist at a time.

use super::task::{KEYS, QUERIES, Task, list, pairs};
use crate::check::{self, AttentionShape};
use crate::kernels::{
    context::Kernels,
    primitives::{
        element::{Element, is_f32, store_row},
        gemm::{Product, Start, block, block_len, plain, transposed},
        isa::Isa,
        math::{add_scaled, dot, exp_nonpositive, larger, tanh, tree, tree_max},
        operand::{Mat, MatMut},
    },
};
use plugin_api::{Result, backend::ops::Attention};

/// `y = softmax(cap(scale q k^T)) v` over each query's visible keys.
pub fn forward<E: Element>(s: &mut Kernels<'_>, op: &Attention) -> Result<()> {
    let name = "attention";
    let shape =
        AttentionShape::new(name, op.heads, op.kv_heads, op.head_dim, op.scale, op.mask, op.window, op.softcap)?;
    let (q, k, v): (Mat<E>, Mat<E>, Mat<E>) = (s.input(&op.q)?, s.input(&op.k)?, s.input(&op.v)?);
    let offsets = s.ints(&op.offsets)?;
    let prefix = op.prefix.as_ref().map(|prefix| s.ints(prefix)).transpose()?;
    check::offsets(name, offsets, q.rows)?;
    check::prefix(name, op.mask, prefix)?;
    let (y, lse): (MatMut<E>, Option<MatMut>) = (s.output(&op.y)?, s.output_opt(&op.lse)?);
    list(&mut s.cx.tasks, offsets, prefix, shape.heads, QUERIES);
    let tasks = &s.cx.tasks;
    let par = &s.cx.par;
    let work = pairs(tasks, QUERIES) * shape.head_dim / 20;
    let isa = par.isa();
    let len = forward_scratch::<E>(isa, shape.head_dim);
    par.run_scratch(tasks.len(), work, len, |t, scratch| {
        let task = tasks[t];
        let (d, rows) = (shape.head_dim, QUERIES.min(task.len - task.query));
        let kv = task.head / shape.group() * d;
        let heads = Heads {
            q: q.block(task.start + task.query, rows, task.head * d, d),
            k: k.block(task.start, task.len, kv, d),
            v: v.block(task.start, task.len, kv, d),
            y: y.block(task.start + task.query, rows, task.head * d, d),
            lse: lse.map(|lse| lse.block(task.start + task.query, rows, task.head, 1)),
        };
        par.wide(
            #[inline(always)]
            || query_block(isa, &shape, &task, &heads, scratch),
        );
    });
    Ok(())
}

/// One head's part of the operands: a block of queries, all keys of the sequence.
struct Heads<E> {
    q: Mat<E>,
    k: Mat<E>,
    v: Mat<E>,
    y: MatMut<E>,
    lse: Option<MatMut>,
}

/// Floats of a task's scratch: the scores of a block, each query's maximum and sum; for bf16 the results in f32 and the products'.
pub fn forward_scratch<E: Element>(isa: &Isa, head_dim: usize) -> usize {
    let sums = if is_f32::<E>() { 0 } else { QUERIES * head_dim };
    let product = |n: usize, k: usize| block_len::<E, f32>(isa, QUERIES, n, k);
    QUERIES * (KEYS + 2) + sums + product(KEYS, head_dim).max(product(head_dim, KEYS))
}

#[inline(always)]
fn query_block<E: Element>(isa: &Isa, shape: &AttentionShape, task: &Task, heads: &Heads<E>, scratch: &mut [f32]) {
    let (rows, d) = (heads.q.rows, heads.q.cols);
    let (scores, state) = scratch.split_at_mut(QUERIES * KEYS);
    let (largest, state) = state.split_at_mut(QUERIES);
    let (total, rest) = state.split_at_mut(QUERIES);
    let (sums, product) = rest.split_at_mut(if is_f32::<E>() { 0 } else { QUERIES * d });
    let y = heads.y.as_f32().unwrap_or_else(|| MatMut::over(sums, rows, d));
    largest.fill(f32::NEG_INFINITY);
    total.fill(0.0);
    let (from, _) = shape.visible(task.query, task.len, task.prefix);
    let (_, to) = shape.visible(task.query + rows - 1, task.len, task.prefix);
    for first in (from..to).step_by(KEYS) {
        let keys = KEYS.min(to - first);
        let s = padded(scores, rows, keys);
        let k = heads.k.block(first, keys, 0, heads.k.cols);
        let v = heads.v.block(first, keys, 0, heads.v.cols);
        // SAFETY: `s` is this task's scratch, `y` its own rows and columns; inputs are only read.
        unsafe {
            let (a, b, alpha) = (plain(heads.q), transposed(k), shape.scale);
            block(isa, product, Product { c: s, a, b, alpha, start: Start::Zero });
            for r in 0..rows {
                let (a, b) = shape.visible(task.query + r, task.len, task.prefix);
                let (a, b) = (a.clamp(first, first + keys) - first, b.clamp(first, first + keys) - first);
                if shape.softcap > 0.0 {
                    cap(s.row(r), shape.softcap);
                }
                let rescale = soften(visible(s, r, a, b), &mut largest[r], &mut total[r]);
                if first > from && rescale != 1.0 {
                    y.row(r).iter_mut().for_each(|y| *y *= rescale);
                }
            }
            let start = if first > from { Start::Accumulate } else { Start::Zero };
            block(isa, product, Product { c: y, a: plain(s.as_mat()), b: plain(v), alpha: 1.0, start });
        }
    }
    for r in 0..rows {
        let inverse = 1.0 / total[r];
        // SAFETY: as above.
        unsafe {
            y.row(r).iter_mut().for_each(|y| *y *= inverse);
            if !is_f32::<E>() {
                store_row(heads.y.row(r), y.row(r));
            }
            if let Some(lse) = heads.lse {
                lse.row(r)[0] = largest[r] + total[r].ln();
            }
        }
    }
}

/// Rows of scores are padded to a multiple of this many elements: a row may end at any key, but vectors should be whole.
pub const PAD: usize = 16;

/// A matrix of scores in scratch, rows padded.
pub fn padded(scratch: &mut [f32], rows: usize, keys: usize) -> MatMut {
    let stride = keys.next_multiple_of(PAD);
    let whole = MatMut::over(scratch, rows, stride);
    whole.block(0, rows, 0, keys)
}

/// The padded row `r` as vectors that cover `a..b`: scores outside `a..b` are minus infinity, and those outside the vectors 0.
///
/// # Safety
/// As [`MatMut::row`]; `scores` comes from [`padded`].
#[inline(always)]
pub unsafe fn visible<'a>(scores: MatMut, r: usize, a: usize, b: usize) -> &'a mut [[f32; PAD]] {
    // SAFETY: guaranteed by the caller.
    let row = unsafe { scores.span(r, 0, scores.stride) };
    if a >= b {
        row.fill(0.0);
        return &mut [];
    }
    let (from, to) = (a / PAD * PAD, b.next_multiple_of(PAD));
    row[..from].fill(0.0);
    row[to..].fill(0.0);
    row[from..a].fill(f32::NEG_INFINITY);
    row[b..to].fill(f32::NEG_INFINITY);
    row[from..to].as_chunks_mut::<PAD>().0
}

/// Turns scores into `exp(score - largest)`, updates the running maximum and sum, and returns the factor for earlier results.
#[inline(always)]
fn soften(seen: &mut [[f32; PAD]], largest: &mut f32, total: &mut f32) -> f32 {
    if seen.is_empty() {
        return 1.0;
    }
    let mut lanes = [*largest; PAD];
    for chunk in seen.iter() {
        for l in 0..PAD {
            lanes[l] = larger(chunk[l], lanes[l]);
        }
    }
    let top = tree_max(lanes);
    let rescale = exp_nonpositive(*largest - top);
    let mut sums = [0.0; PAD];
    for chunk in seen.iter_mut() {
        for l in 0..PAD {
            chunk[l] = exp_nonpositive(chunk[l] - top);
            sums[l] += chunk[l];
        }
    }
    *total = rescale.mul_add(*total, tree(sums));
    *largest = top;
    rescale
}

/// `s = cap tanh(s / cap)`.
#[inline(always)]
fn cap(scores: &mut [f32], softcap: f32) {
    scores.iter_mut().for_each(|s| *s = softcap * tanh(*s / softcap));
}

/// Attention of one query over the rows of a cache slot from row `from` on, for decoding. `sums` is scratch for a result in bf16.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "a query's part of everything")]
pub fn one_query<E: Element>(
    shape: &AttentionShape,
    q: &[E],
    k: Mat<E>,
    v: Mat<E>,
    from: usize,
    y: MatMut<E>,
    scores: &mut [f32],
    sums: &mut [f32],
) {
    let keys = k.rows - from;
    let scores = padded(scores, 1, keys);
    // SAFETY: this task's scratch.
    let row = unsafe { scores.row(0) };
    for (j, score) in row.iter_mut().enumerate() {
        // SAFETY: inside the slot; only this task uses its columns.
        *score = shape.scale * dot(q, unsafe { k.row(from + j) });
    }
    if shape.softcap > 0.0 {
        cap(row, shape.softcap);
    }
    let (mut largest, mut total) = (f32::NEG_INFINITY, 0.0);
    // SAFETY: as above.
    soften(unsafe { visible(scores, 0, 0, keys) }, &mut largest, &mut total);
    // SAFETY: only this task uses the query's columns of the result.
    let sums = unsafe { y.as_f32().unwrap_or_else(|| MatMut::over(sums, 1, y.cols)).row(0) };
    sums.fill(0.0);
    // SAFETY: as above.
    for (j, p) in unsafe { scores.row(0) }.iter().enumerate() {
        // SAFETY: as above.
        add_scaled(sums, *p, unsafe { v.row(from + j) });
    }
    let inverse = 1.0 / total;
    sums.iter_mut().for_each(|y| *y *= inverse);
    if !is_f32::<E>() {
        // SAFETY: as above.
        store_row(unsafe { y.row(0) }, sums);
    }
}
