//! Backward of attention: probabilities are recomputed from the saved log-sum-exp, a block at a time.
//!
//! One task is one key-value head of one sequence with all its queries, so that two tasks never write the same elements of the keys'
//! and values' cotangents.

use super::{
    forward::{PAD, padded, visible},
    task::{KEYS, QUERIES, Task, list, pairs},
};
use crate::check::{self, AttentionShape};
use crate::kernels::{
    context::Kernels,
    primitives::{
        element::{Element, is_f32, store_row},
        gemm::{Product, Start, block, block_len, plain, transposed},
        isa::Isa,
        math::{dot, exp_nonpositive, tanh},
        operand::{Mat, MatMut},
    },
};
use plugin_api::{Result, backend::ops::AttentionBackward};

/// With `p = exp(score - lse)` and `delta = dy . y`: `dv += p^T dy`, `ds = p (dy v^T - delta)` through cap and scale,
/// `dq += ds k`, `dk += ds^T q`.
pub fn backward<E: Element>(s: &mut Kernels<'_>, op: &AttentionBackward) -> Result<()> {
    let name = "attention_backward";
    let shape =
        AttentionShape::new(name, op.heads, op.kv_heads, op.head_dim, op.scale, op.mask, op.window, op.softcap)?;
    let (q, k, v): (Mat<E>, Mat<E>, Mat<E>) = (s.input(&op.q)?, s.input(&op.k)?, s.input(&op.v)?);
    let (y, lse, dy): (Mat<E>, Mat, Mat<E>) = (s.input(&op.y)?, s.input(&op.lse)?, s.input(&op.dy)?);
    let offsets = s.ints(&op.offsets)?;
    let prefix = op.prefix.as_ref().map(|prefix| s.ints(prefix)).transpose()?;
    check::offsets(name, offsets, q.rows)?;
    check::prefix(name, op.mask, prefix)?;
    let (dq, dk, dv): (MatMut<E>, MatMut<E>, MatMut<E>) = (s.output(&op.dq)?, s.output(&op.dk)?, s.output(&op.dv)?);
    list(&mut s.cx.tasks, offsets, prefix, shape.kv_heads, usize::MAX);
    let tasks = &s.cx.tasks;
    let par = &s.cx.par;
    let work = pairs(tasks, usize::MAX) * shape.group() * shape.head_dim / 8;
    let isa = par.isa();
    let longest = tasks.iter().map(|task| task.len).max().unwrap_or(0);
    let len = backward_scratch::<E>(isa, shape.head_dim, longest);
    par.run_scratch(tasks.len(), work, len, |t, scratch| {
        let task = tasks[t];
        let d = shape.head_dim;
        let sums = |lines: usize| if is_f32::<E>() { 0 } else { lines * d };
        let (scratch, rest) = scratch.split_at_mut(QUERIES * (2 * KEYS + 1));
        let (of_keys, rest) = rest.split_at_mut(sums(longest));
        let (of_values, rest) = rest.split_at_mut(sums(longest));
        let (of_queries, product) = rest.split_at_mut(sums(QUERIES));
        let keys = |m: Mat<E>| m.block(task.start, task.len, task.head * d, d);
        let keys_mut = |m: MatMut<E>| m.block(task.start, task.len, task.head * d, d);
        let (stored_dk, stored_dv) = (keys_mut(dk), keys_mut(dv));
        let dk = stored_dk.as_f32().unwrap_or_else(|| MatMut::over(of_keys, task.len, d));
        let dv = stored_dv.as_f32().unwrap_or_else(|| MatMut::over(of_values, task.len, d));
        // SAFETY: this task's own rows and columns.
        (0..task.len).for_each(|r| unsafe {
            dk.row(r).fill(0.0);
            dv.row(r).fill(0.0);
        });
        for head in task.head * shape.group()..(task.head + 1) * shape.group() {
            let queries = |m: Mat<E>| m.block(task.start, task.len, head * d, d);
            let heads = Heads {
                q: queries(q),
                k: keys(k),
                v: keys(v),
                y: queries(y),
                dy: queries(dy),
                lse: lse.block(task.start, task.len, head, 1),
                dq: dq.block(task.start, task.len, head * d, d),
                dk,
                dv,
            };
            for first in (0..task.len).step_by(QUERIES) {
                par.wide(
                    #[inline(always)]
                    || query_block(isa, &shape, &task, &heads, first, scratch, of_queries, product),
                );
            }
        }
        if !is_f32::<E>() {
            par.wide(
                #[inline(always)]
                || {
                    for r in 0..task.len {
                        // SAFETY: this task's own rows and columns.
                        unsafe {
                            store_row(stored_dk.row(r), dk.row(r));
                            store_row(stored_dv.row(r), dv.row(r));
                        }
                    }
                },
            );
        }
    });
    Ok(())
}

/// Floats of a task's scratch: scores and their cotangents of a block, each query's `delta`; for bf16 the results in f32 and the
/// products'. `longest` is the length of the longest sequence.
pub fn backward_scratch<E: Element>(isa: &Isa, head_dim: usize, longest: usize) -> usize {
    let own = QUERIES * (2 * KEYS + 1);
    let stored = if is_f32::<E>() { 0 } else { (2 * longest + QUERIES) * head_dim };
    let shapes = [(QUERIES, KEYS, head_dim), (QUERIES, head_dim, KEYS), (KEYS, head_dim, QUERIES)];
    let product = shapes.map(|(m, n, k)| block_len::<E, f32>(isa, m, n, k)).into_iter().max().unwrap_or(0);
    own + stored + product
}

/// One query head's part of the operands, all tokens of the sequence.
struct Heads<E> {
    q: Mat<E>,
    k: Mat<E>,
    v: Mat<E>,
    y: Mat<E>,
    dy: Mat<E>,
    lse: Mat,
    dq: MatMut<E>,
    dk: MatMut,
    dv: MatMut,
}

#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "a block's part of everything")]
fn query_block<E: Element>(
    isa: &Isa,
    shape: &AttentionShape,
    task: &Task,
    h: &Heads<E>,
    query: usize,
    scratch: &mut [f32],
    sums: &mut [f32],
    product: &mut [f32],
) {
    let rows = QUERIES.min(task.len - query);
    let (scores, rest) = scratch.split_at_mut(QUERIES * KEYS);
    let (dscores, delta) = rest.split_at_mut(QUERIES * KEYS);
    let part = |m: Mat<E>| m.block(query, rows, 0, m.cols);
    let (q, y, dy, lse) = (part(h.q), part(h.y), part(h.dy), h.lse.block(query, rows, 0, 1));
    let stored = h.dq.block(query, rows, 0, h.dq.cols);
    let dq = stored.as_f32().unwrap_or_else(|| MatMut::over(sums, rows, stored.cols));
    for (r, delta) in delta[..rows].iter_mut().enumerate() {
        // SAFETY: inputs are only read.
        *delta = unsafe { dot(y.row(r), dy.row(r)) };
    }
    let (from, _) = shape.visible(query, task.len, task.prefix);
    let (_, to) = shape.visible(query + rows - 1, task.len, task.prefix);
    for first in (from..to).step_by(KEYS) {
        let keys = KEYS.min(to - first);
        let (s, ds) = (padded(scores, rows, keys), padded(dscores, rows, keys));
        let (k, v) = (h.k.block(first, keys, 0, h.k.cols), h.v.block(first, keys, 0, h.v.cols));
        let (dk, dv) = (h.dk.block(first, keys, 0, k.cols), h.dv.block(first, keys, 0, v.cols));
        let start = if first > from { Start::Accumulate } else { Start::Zero };
        let (zero, accumulate) = (Start::Zero, Start::Accumulate);
        // SAFETY: `s` and `ds` are this task's scratch, the cotangents its own rows and columns; inputs are only read.
        unsafe {
            block(isa, product, Product { c: s, a: plain(q), b: transposed(k), alpha: shape.scale, start: zero });
            block(isa, product, Product { c: ds, a: plain(dy), b: transposed(v), alpha: 1.0, start: zero });
            for (r, delta) in delta[..rows].iter().enumerate() {
                let (a, b) = shape.visible(query + r, task.len, task.prefix);
                let (a, b) = (a.clamp(first, first + keys) - first, b.clamp(first, first + keys) - first);
                score_row(shape, s, ds, r, a, b, lse.row(r)[0], *delta);
            }
            let (p, dp) = (s.as_mat(), ds.as_mat());
            block(isa, product, Product { c: dv, a: transposed(p), b: plain(dy), alpha: 1.0, start: accumulate });
            block(isa, product, Product { c: dq, a: plain(dp), b: plain(k), alpha: 1.0, start });
            block(isa, product, Product { c: dk, a: transposed(dp), b: plain(q), alpha: 1.0, start: accumulate });
        }
    }
    if !is_f32::<E>() {
        // SAFETY: as above.
        (0..rows).for_each(|r| unsafe { store_row(stored.row(r), dq.row(r)) });
    }
}

/// Scores become probabilities, and `dy v^T` becomes the cotangent of `q k^T`; both are 0 outside `a..b`.
///
/// # Safety
/// As [`MatMut::row`]; both come from [`padded`], with one width.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "a row's part of everything")]
unsafe fn score_row(shape: &AttentionShape, s: MatMut, ds: MatMut, r: usize, a: usize, b: usize, lse: f32, delta: f32) {
    let cap = shape.softcap;
    if cap > 0.0 {
        // SAFETY: guaranteed by the caller.
        unsafe { s.row(r) }.iter_mut().for_each(|s| *s = cap * tanh(*s / cap));
    }
    // SAFETY: guaranteed by the caller.
    let (scores, cotangents) = unsafe { (visible(s, r, a, b), ds.span(r, 0, ds.stride)) };
    let from = if a < b { a / PAD * PAD } else { 0 };
    let to = from + scores.len() * PAD;
    cotangents[..from].fill(0.0);
    cotangents[to..].fill(0.0);
    // The derivative of the soft cap is 1 - (s bend)^2; without a cap it is 1.
    let bend = if cap > 0.0 { 1.0 / cap } else { 0.0 };
    for (s, ds) in scores.iter_mut().zip(cotangents[from..to].as_chunks_mut::<PAD>().0) {
        for l in 0..PAD {
            let p = exp_nonpositive(s[l] - lse);
            let t = s[l] * bend;
            let d = p * (ds[l] - delta) * (1.0 - t * t) * shape.scale;
            // Hidden positions stay 0, whatever `dy v^T` is there.
            ds[l] = if p == 0.0 { 0.0 } else { d };
            s[l] = p;
        }
    }
}
