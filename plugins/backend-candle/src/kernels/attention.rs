//! Softmax attention inside packed sequences, by blocks of queries and keys with a running maximum and sum
//! (Dao et al. 2022), so that scores exist a block at a time.

use super::{
    Kernels,
    gemm::{Start, block, plain, transposed},
    math::{add_scaled, exp_nonpositive, max, sum, tanh},
    operand::{Mat, MatMut},
};
use crate::check::{self, AttentionShape};
use plugin_api::{Result, backend::ops::Attention};

/// Queries a block has.
pub const QUERIES: usize = 64;
/// Keys a block has.
pub const KEYS: usize = 128;

/// One piece of attention: some queries of one head of one sequence.
#[derive(Clone, Copy)]
pub struct Task {
    /// First token of the sequence.
    pub start: usize,
    /// Its tokens.
    pub len: usize,
    /// Its prefix length.
    pub prefix: usize,
    /// Query head, or key-value head in the backward.
    pub head: usize,
    /// First query, from the sequence's start.
    pub query: usize,
}

/// Lists tasks for `heads` heads: one per block of `queries` queries.
pub fn list(tasks: &mut Vec<Task>, offsets: &[i32], prefix: Option<&[i32]>, heads: usize, queries: usize) {
    tasks.clear();
    for (s, ends) in offsets.windows(2).enumerate() {
        let (start, len) = (ends[0] as usize, (ends[1] - ends[0]) as usize);
        let prefix = prefix.map_or(0, |prefix| prefix[s] as usize);
        for head in 0..heads {
            tasks.extend((0..len).step_by(queries).map(|query| Task { start, len, prefix, head, query }));
        }
    }
}

/// Multiply-adds of one product over all visible pairs, for the estimate of a run's length.
pub fn pairs(tasks: &[Task], queries: usize) -> usize {
    tasks.iter().map(|t| t.len * queries.min(t.len)).sum()
}

/// `y = softmax(cap(scale q k^T)) v` over each query's visible keys.
pub fn forward(s: &mut Kernels<'_>, op: &Attention) -> Result<()> {
    let name = "attention";
    let shape = AttentionShape::new(
        name, op.heads, op.kv_heads, op.head_dim, op.scale, op.mask, op.window, op.softcap,
    )?;
    let (q, k, v) = (s.input(&op.q)?, s.input(&op.k)?, s.input(&op.v)?);
    let offsets = s.ints(&op.offsets)?;
    let prefix = op.prefix.as_ref().map(|prefix| s.ints(prefix)).transpose()?;
    check::offsets(name, offsets, q.rows)?;
    check::prefix(name, op.mask, prefix)?;
    let (y, lse) = (s.output(&op.y)?, s.output_opt(&op.lse)?);
    list(&mut s.cx.tasks, offsets, prefix, shape.heads, QUERIES);
    let tasks = &s.cx.tasks;
    let par = &s.cx.par;
    let work = pairs(tasks, QUERIES) * shape.head_dim / 20;
    par.run_scratch(tasks.len(), work, QUERIES * (KEYS + 2), |t, scratch| {
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
            || query_block(&shape, &task, &heads, scratch),
        );
    });
    Ok(())
}

/// One head's part of the operands: a block of queries, all keys of the sequence.
struct Heads {
    q: Mat,
    k: Mat,
    v: Mat,
    y: MatMut,
    lse: Option<MatMut>,
}

#[inline(always)]
fn query_block(shape: &AttentionShape, task: &Task, heads: &Heads, scratch: &mut [f32]) {
    let rows = heads.q.rows;
    let (scores, state) = scratch.split_at_mut(QUERIES * KEYS);
    let (largest, total) = state.split_at_mut(QUERIES);
    largest.fill(f32::NEG_INFINITY);
    total.fill(0.0);
    let (from, _) = shape.visible(task.query, task.len, task.prefix);
    let (_, to) = shape.visible(task.query + rows - 1, task.len, task.prefix);
    for first in (from..to).step_by(KEYS) {
        let keys = KEYS.min(to - first);
        let s = MatMut::over(scores, rows, keys);
        let k = heads.k.block(first, keys, 0, heads.k.cols);
        let v = heads.v.block(first, keys, 0, heads.v.cols);
        // SAFETY: `s` is this task's scratch, `y` its own rows and columns; inputs are only read.
        unsafe {
            block(s, plain(heads.q), transposed(k), shape.scale, Start::Zero);
            for r in 0..rows {
                let (a, b) = shape.visible(task.query + r, task.len, task.prefix);
                let (a, b) = (a.clamp(first, first + keys) - first, b.clamp(first, first + keys) - first);
                let rescale = soften(s.row(r), a, b, shape.softcap, &mut largest[r], &mut total[r]);
                if first > from && rescale != 1.0 {
                    heads.y.row(r).iter_mut().for_each(|y| *y *= rescale);
                }
            }
            let start = if first > from { Start::Accumulate } else { Start::Zero };
            block(heads.y, plain(s.as_mat()), plain(v), 1.0, start);
        }
    }
    for r in 0..rows {
        let inverse = 1.0 / total[r];
        // SAFETY: as above.
        unsafe {
            heads.y.row(r).iter_mut().for_each(|y| *y *= inverse);
            if let Some(lse) = heads.lse {
                lse.row(r)[0] = largest[r] + total[r].ln();
            }
        }
    }
}

/// Turns the scores `a..b` of a row into `exp(score - largest)` and the others into 0, keeps the running maximum and sum,
/// and yields the factor that earlier results take.
#[inline(always)]
fn soften(row: &mut [f32], a: usize, b: usize, softcap: f32, largest: &mut f32, total: &mut f32) -> f32 {
    row[..a].fill(0.0);
    row[b..].fill(0.0);
    let seen = &mut row[a..b];
    if seen.is_empty() {
        return 1.0;
    }
    if softcap > 0.0 {
        seen.iter_mut().for_each(|s| *s = softcap * tanh(*s / softcap));
    }
    let top = max(seen).max(*largest);
    let rescale = exp_nonpositive(*largest - top);
    seen.iter_mut().for_each(|s| *s = exp_nonpositive(*s - top));
    *total = rescale.mul_add(*total, sum([seen], |[s]| s));
    *largest = top;
    rescale
}

/// Attention of one query over the first `keys` rows of a cache slot from `from` on, for decoding.
#[inline(always)]
pub fn one_query(
    shape: &AttentionShape,
    q: &[f32],
    k: Mat,
    v: Mat,
    from: usize,
    y: &mut [f32],
    scores: &mut [f32],
) {
    let scores = &mut scores[..k.rows - from];
    for (j, score) in scores.iter_mut().enumerate() {
        // SAFETY: inside the slot; only this task uses its columns.
        *score = shape.scale * super::math::dot(q, unsafe { k.row(from + j) });
    }
    let (mut largest, mut total) = (f32::NEG_INFINITY, 0.0);
    let keys = scores.len();
    soften(scores, 0, keys, shape.softcap, &mut largest, &mut total);
    y.fill(0.0);
    for (j, p) in scores.iter().enumerate() {
        // SAFETY: as above.
        add_scaled(y, *p, unsafe { v.row(from + j) });
    }
    let inverse = 1.0 / total;
    y.iter_mut().for_each(|y| *y *= inverse);
}
