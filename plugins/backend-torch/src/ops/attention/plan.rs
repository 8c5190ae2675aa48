//! The description of an attention call, for all paths: heads, mask, window, sequences, and operands by head.

use crate::{
    TorchSession,
    fault::{Attempt, Done, require},
    storage::row_stride,
};
use plugin_api::backend::{View, ops::MaskKind};
use std::ops::Range;
use tch::Tensor;

/// The checked description of an attention call.
pub struct Plan {
    /// Key-value heads.
    pub kv_heads: i64,
    /// Query heads per key-value head.
    pub group: i64,
    /// Width of a head.
    pub head_dim: i64,
    /// Factor of the scores.
    pub scale: f64,
    /// Cap of the scores; 0: none.
    pub softcap: f64,
    /// Which keys are visible.
    pub mask: MaskKind,
    /// Sliding window; 0: none.
    pub window: i64,
    /// Each sequence that has tokens, with its prefix length.
    pub sequences: Vec<(Range<i64>, i64)>,
}

impl Plan {
    /// Query heads.
    pub fn heads(&self) -> i64 {
        self.kv_heads * self.group
    }

    /// Rows `tokens` of a query-like operand as `[kv_heads, group, tokens, head_dim]`.
    pub fn queries(&self, s: &TorchSession, view: &View, tokens: &Range<i64>) -> Attempt<Tensor> {
        let (d, rows) = (self.head_dim, row_stride(view)?);
        let size = [self.kv_heads, self.group, tokens.end - tokens.start, d];
        s.shaped(view, &size, &[self.group * d, d, rows, 1], tokens.start * rows)
    }

    /// Rows `tokens` of a key-like operand as `[kv_heads, group, tokens, head_dim]`, shared along the group.
    pub fn keys(&self, s: &TorchSession, view: &View, tokens: &Range<i64>, group: i64) -> Attempt<Tensor> {
        let (d, rows) = (self.head_dim, row_stride(view)?);
        let size = [self.kv_heads, group, tokens.end - tokens.start, d];
        s.shaped(view, &size, &[d, 0, rows, 1], tokens.start * rows)
    }

    /// Rows `tokens` of a value per token and head, as `[kv_heads, group, tokens]`.
    pub fn per_head(&self, s: &TorchSession, view: &View, tokens: &Range<i64>) -> Attempt<Tensor> {
        let rows = row_stride(view)?;
        let size = [self.kv_heads, self.group, tokens.end - tokens.start];
        s.shaped(view, &size, &[self.group, 1, rows], tokens.start * rows)
    }

    /// Capped scores `[batch, group, queries, keys]` of `q [batch, group, queries, head_dim]` and `k [batch, 1, keys, head_dim]`,
    /// hidden ones included; the batch is key-value heads, of one sequence or of several.
    pub fn scores(&self, q: &Tensor, k: &Tensor) -> Attempt<Tensor> {
        let mut scores = self.product(q, &k.f_transpose(2, 3)?)?.f_mul_scalar_(self.scale)?;
        cap_(&mut scores, self.softcap)?;
        Ok(scores)
    }

    /// `a [batch, group, rows, n] b [batch, 1, n, m]`: one product per batch.
    pub fn product(&self, a: &Tensor, b: &Tensor) -> Attempt<Tensor> {
        let (batch, rows, n) = (a.size()[0], a.size()[2], a.size()[3]);
        let flat = a.f_reshape([batch, self.group * rows, n])?;
        Ok(flat.f_bmm(&b.f_squeeze_dim(1)?)?.f_view([batch, self.group, rows, b.size()[3]])?)
    }

    /// `sum over group and rows of a [batch, group, rows, n]^T b [batch, group, rows, m]`.
    pub fn gathered(&self, a: &Tensor, b: &Tensor) -> Attempt<Tensor> {
        let flat = |t: &Tensor| t.f_reshape([t.size()[0], self.group * t.size()[2], t.size()[3]]);
        Ok(flat(a)?.f_transpose(1, 2)?.f_bmm(&flat(b)?)?)
    }
}

/// Maximum number of scores at a time in plain products.
pub fn score_budget(s: &TorchSession) -> i64 {
    if s.on_cpu() { 1 << 22 } else { 1 << 26 }
}

/// Refuses head counts that do not divide and negative windows.
pub fn check_heads(op: &str, heads: i64, kv_heads: i64, head_dim: i64, window: i64) -> Attempt {
    require(heads > 0 && kv_heads > 0 && head_dim > 0 && heads % kv_heads == 0, op, || {
        format!("{heads} heads of width {head_dim} cannot share {kv_heads} key-value heads")
    })?;
    require(window >= 0, op, || format!("window {window} is negative"))
}

/// `softcap tanh(scores / softcap)` in place, if there is a cap.
pub fn cap_(scores: &mut Tensor, softcap: f64) -> Attempt {
    if softcap > 0.0 {
        scores.f_div_scalar_(softcap)?.f_tanh_()?.f_mul_scalar_(softcap).done()?;
    }
    Ok(())
}

/// The derivative of the cap, from capped scores; `None` if there is no cap.
pub fn cap_slope(capped: &Tensor, softcap: f64) -> Attempt<Option<Tensor>> {
    if softcap <= 0.0 {
        return Ok(None);
    }
    Ok(Some(capped.f_div_scalar(softcap)?.f_square_()?.f_neg_()?.f_add_scalar_(1.0)?))
}
