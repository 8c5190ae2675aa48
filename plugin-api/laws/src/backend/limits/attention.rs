//! Attention, forward, backward and decoding. Probabilities and the cotangents of scores may be stored before a product.

use super::{
    bounded::{Bounded, attribute, dot, exact, log_sum_exp, sum},
    operands::{Formulas, Matrix, Operands, Outputs, Sums},
};
use plugin_api::{Result, backend::ops::MaskKind};
use std::ops::Range;

/// The operations of this file.
pub const FORMULAS: Formulas =
    &[("attention", forward), ("attention_backward", backward), ("decode_attention", decode)];

/// Heads, and how products become scores.
struct Heads {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    scale: Bounded,
    softcap: f64,
    window: usize,
}

impl Heads {
    fn of(o: &Operands<'_>) -> Result<Heads> {
        Ok(Heads {
            heads: o.size("heads")?,
            kv_heads: o.size("kv_heads")?,
            head_dim: o.size("head_dim")?,
            scale: o.factor("scale")?,
            softcap: o.number("softcap")?,
            window: o.size("window")?,
        })
    }

    /// The columns of query head `h`, and those of the key-value head that it reads.
    fn columns(&self, h: usize) -> (Range<usize>, Range<usize>) {
        let of = |h: usize| h * self.head_dim..(h + 1) * self.head_dim;
        (of(h), of(h / (self.heads / self.kv_heads)))
    }

    fn score(&self, q: &[Bounded], k: &[Bounded]) -> Bounded {
        // A kernel may scale the queries instead of the scores.
        cap((self.scale * dot(q, k)).rounded(1.0), self.softcap)
    }
}

/// `c tanh(s / c)` where c > 0, else s.
pub fn cap(score: Bounded, softcap: f64) -> Bounded {
    let cap = attribute(softcap);
    if softcap > 0.0 { cap * (score / cap).tanh() } else { score }
}

/// Derivative of [`cap`], from its value.
pub fn cap_slope(capped: Bounded, softcap: f64) -> Bounded {
    let cap = attribute(softcap);
    if softcap > 0.0 { sum([exact(1.0), -((capped / cap) * (capped / cap))]) } else { exact(1.0) }
}

/// Calls `f(token, visible tokens)` for every query of every sequence.
fn for_each_query(o: &Operands<'_>, window: usize, mut f: impl FnMut(usize, &[usize])) -> Result<()> {
    let mask = MaskKind(o.integer("mask")?);
    let prefix = if mask == MaskKind::PREFIX { o.integers("prefix")? } else { Vec::new() };
    for (s, tokens) in o.ranges("offsets")?.into_iter().enumerate() {
        for n in tokens.clone() {
            let sees = |&j: &usize| {
                let visible = match mask {
                    MaskKind::BIDIRECTIONAL => true,
                    MaskKind::PREFIX => j <= n || j - tokens.start < prefix[s],
                    _ => j <= n,
                };
                visible && (window == 0 || j + window > n)
            };
            f(n, &tokens.clone().filter(sees).collect::<Vec<_>>());
        }
    }
    Ok(())
}

/// `y = softmax(scores) v` over the keys at `rows`, and the log-sum-exp of the scores. A kernel may add up the same exponentials
/// that it stores for the product with the values.
fn attend(heads: &Heads, h: usize, q: &[Bounded], k: &Matrix, v: &Matrix, rows: &[usize]) -> (Vec<Bounded>, Bounded) {
    let (_, columns) = heads.columns(h);
    let scores: Vec<Bounded> = rows.iter().map(|&j| heads.score(q, &k.row(j)[columns.clone()])).collect();
    let lse = log_sum_exp(&scores, Bounded::stored);
    let mut y = Sums::new(1, heads.head_dim);
    for (&j, &score) in rows.iter().zip(&scores) {
        y.add(0, 0, (score - lse).exp().stored(), &v.row(j)[columns.clone()]);
    }
    (y.total().data, lse)
}

/// `y = softmax(cap(scale q k^T)) v` over each query's visible keys.
fn forward(o: &Operands<'_>) -> Result<Outputs> {
    let heads = Heads::of(o)?;
    let (q, k, v) = (o.matrix("q")?, o.matrix("k")?, o.matrix("v")?);
    let (mut y, mut lse) = (Matrix::zeros(q.rows, q.cols), Matrix::zeros(q.rows, heads.heads));
    for_each_query(o, heads.window, |n, keys| {
        for h in 0..heads.heads {
            let (columns, _) = heads.columns(h);
            let (attended, total) = attend(&heads, h, &q.row(n)[columns.clone()], &k, &v, keys);
            y.row_mut(n)[columns].copy_from_slice(&attended);
            lse.row_mut(n)[h] = total;
        }
    })?;
    Ok(vec![("y", y), ("lse", lse)])
}

/// With `p = exp(score - lse)` and `delta = dy . y`: `dv += p dy`, `dscore = p (dy . v - delta)`, then through the cap and
/// the product. A kernel may recompute `y` and `lse`, so both carry the rounding of what was saved.
fn backward(o: &Operands<'_>) -> Result<Outputs> {
    let heads = Heads::of(o)?;
    let (q, k, v, dy) = (o.matrix("q")?, o.matrix("k")?, o.matrix("v")?, o.matrix("dy")?);
    let y = o.matrix("y")?.map(Bounded::stored);
    let lse = o.matrix("lse")?.map(|lse| lse.rounded(1.0));
    let (mut dq, mut dk) = (Sums::new(q.rows, q.cols), Sums::new(k.rows, k.cols));
    let mut dv = Sums::new(v.rows, v.cols);
    for_each_query(o, heads.window, |n, keys| {
        for h in 0..heads.heads {
            let (columns, kv_columns) = heads.columns(h);
            let (q, dy) = (&q.row(n)[columns.clone()], &dy.row(n)[columns.clone()]);
            let delta = dot(dy, &y.row(n)[columns.clone()]);
            for &j in keys {
                let (k, v) = (&k.row(j)[kv_columns.clone()], &v.row(j)[kv_columns.clone()]);
                let score = heads.score(q, k);
                let p = (score - lse.row(n)[h]).exp();
                let dscore = p * sum([dot(dy, v), -delta]) * cap_slope(score, heads.softcap);
                let dproduct = (dscore * heads.scale).stored();
                dv.add(j, kv_columns.start, p.stored(), dy);
                dq.add(n, columns.start, dproduct, k);
                dk.add(j, kv_columns.start, dproduct, q);
            }
        }
    })?;
    Ok(vec![("dq", dq.total()), ("dk", dk.total()), ("dv", dv.total())])
}

/// Attention of one new token per row over its cache slot; the values stored in the cache are moved, not computed.
fn decode(o: &Operands<'_>) -> Result<Outputs> {
    let (heads, capacity) = (Heads::of(o)?, o.size("capacity")?);
    let (q, k, v) = (o.matrix("q")?, o.matrix("k")?, o.matrix("v")?);
    let (mut k_cache, mut v_cache) = (o.matrix("k_cache")?, o.matrix("v_cache")?);
    let mut y = Matrix::zeros(q.rows, q.cols);
    for (b, (slot, length)) in o.integers("slots")?.into_iter().zip(o.integers("lengths")?).enumerate() {
        let first = slot * capacity;
        k_cache.row_mut(first + length).copy_from_slice(k.row(b));
        v_cache.row_mut(first + length).copy_from_slice(v.row(b));
        let seen = if heads.window > 0 { heads.window.min(length + 1) } else { length + 1 };
        let keys: Vec<usize> = (first + length + 1 - seen..first + length + 1).collect();
        for h in 0..heads.heads {
            let (columns, _) = heads.columns(h);
            let (attended, _) = attend(&heads, h, &q.row(b)[columns.clone()], &k_cache, &v_cache, &keys);
            y.row_mut(b)[columns].copy_from_slice(&attended);
        }
    }
    Ok(vec![("y", y), ("k_cache", k_cache), ("v_cache", v_cache)])
}
