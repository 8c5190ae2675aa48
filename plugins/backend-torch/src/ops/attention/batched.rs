//! Attention in plain products over padded batches of sequences, with few launches however many sequences there are.
//!
//! A batch's queries, keys and values are gathered, padded to its longest sequence, by one indexing each; a place beyond its
//! sequence repeats the sequence's last row, so that no number of another sequence is read. Hidden scores, those of padding among
//! them, become minus infinity. The results of all batches are joined, and one selection of rows brings them back into the packed
//! order: padding is never selected, nothing is added twice, and the same call gives the same bits.

use super::{
    blocks,
    grouping::{Limits, group},
    plan::{Plan, cap_slope, score_budget},
};
use crate::{
    TorchSession,
    fault::{Attempt, Done},
    storage::{row_stride, to},
};
use plugin_api::backend::{
    View,
    ops::{Attention, AttentionBackward, MaskKind},
};
use std::ops::Range;
use tch::{Kind, Tensor};

/// Scores of a batch that may be padding to any degree.
const FREE_CPU: i64 = 1 << 12;
const FREE_DEVICE: i64 = 1 << 20;

/// Maximum number of elements of all masks that are kept for the next layer.
const MASKS: i64 = 1 << 24;

/// Sequences that are computed together.
struct Batch {
    sequences: i64,
    /// Tokens of the longest one.
    longest: i64,
    /// The packed row of each place, `[sequences, 1, longest]`.
    rows: Tensor,
    /// The sequences' lengths, `[sequences, 1, 1, 1]`; `None` if all are equal.
    lengths: Option<Tensor>,
    /// Their prefix lengths, alike; `None` for other masks.
    prefix: Option<Tensor>,
    /// `[sequences or 1, 1, longest, longest]`, true where a key is hidden from a query; absent until it is needed.
    hidden: Option<Tensor>,
}

/// A call's sequences as batches. The same for all layers, forward and backward.
pub struct Batches {
    batches: Vec<Batch>,
    /// The places of the joined batches by packed row; 0 for rows of sequences that are computed alone.
    back: Tensor,
    /// Sequences computed alone, as in the plan.
    alone: Vec<(Range<i64>, i64)>,
    /// `0..heads` and `0..kv_heads`, each `[1, n, 1]`.
    heads: [Tensor; 2],
    keeps_masks: bool,
}

impl Batches {
    fn of(s: &TorchSession, plan: &Plan, tokens: i64) -> Attempt<Batches> {
        let length = |at: usize| plan.sequences[at].0.end - plan.sequences[at].0.start;
        let lengths: Vec<i64> = (0..plan.sequences.len()).map(length).collect();
        let free = if s.on_cpu() { FREE_CPU } else { FREE_DEVICE };
        let groups = group(&lengths, Limits { heads: plan.heads(), most: score_budget(s), free });
        // All integers go to the device in one piece: per batch its rows, lengths and prefixes; then the way back.
        let (mut integers, mut back, mut place) = (Vec::new(), vec![0; tokens as usize], 0);
        for members in &groups.padded {
            let longest = lengths[members[0]];
            for (tokens, _) in members.iter().map(|&at| &plan.sequences[at]) {
                integers.extend((tokens.start..tokens.start + longest).map(|row| row.min(tokens.end - 1)));
                for (row, place) in tokens.clone().zip(place..) {
                    back[row as usize] = place;
                }
                place += longest;
            }
            integers.extend(members.iter().map(|&at| lengths[at]));
            integers.extend(members.iter().map(|&at| plan.sequences[at].1));
        }
        integers.extend_from_slice(&back);
        let integers = s.upload_indices(&integers)?;
        let mut first = 0;
        let mut next = |count: i64| {
            first += count;
            integers.f_narrow(0, first - count, count)
        };
        let mut batches = Vec::new();
        for members in &groups.padded {
            let (sequences, longest) = (members.len() as i64, lengths[members[0]]);
            let rows = next(sequences * longest)?.f_view([sequences, 1, longest])?;
            let per_sequence = [sequences, 1, 1, 1];
            let (own, prefix) = (next(sequences)?.f_view(per_sequence)?, next(sequences)?.f_view(per_sequence)?);
            let ragged = members.iter().any(|&at| lengths[at] != longest);
            let is_prefix = plan.mask == MaskKind::PREFIX;
            batches.push(Batch {
                sequences,
                longest,
                rows,
                lengths: ragged.then_some(own),
                prefix: is_prefix.then_some(prefix),
                hidden: None,
            });
        }
        let count = |n: i64| Tensor::f_arange(n, (Kind::Int64, s.device()))?.f_view([1, n, 1]);
        Ok(Batches {
            back: next(tokens)?,
            alone: groups.alone.iter().map(|&at| plan.sequences[at].clone()).collect(),
            heads: [count(plan.heads())?, count(plan.kv_heads)?],
            keeps_masks: batches.iter().map(|b| b.sequences * b.longest * b.longest).sum::<i64>() <= MASKS,
            batches,
        })
    }

    /// Runs `work` with the batches of the plan, which are kept for the next call with the same sequences.
    fn with(
        s: &TorchSession,
        plan: &Plan,
        [offsets, prefix]: [Option<&View>; 2],
        tokens: i64,
        work: impl FnOnce(&mut Batches) -> Attempt,
    ) -> Attempt {
        let prefix = prefix.filter(|_| plan.mask == MaskKind::PREFIX);
        let operands: Vec<&View> = offsets.into_iter().chain(prefix).collect();
        let key = s.derivation("attention", &operands, vec![plan.heads(), plan.kv_heads, plan.mask.0, plan.window])?;
        let mut batches = match s.take_derived(&key) {
            Some(batches) => batches,
            None => Batches::of(s, plan, tokens)?,
        };
        work(&mut batches)?;
        if !batches.keeps_masks {
            batches.batches.iter_mut().for_each(|batch| batch.hidden = None);
        }
        s.keep_derived(key, batches);
        Ok(())
    }

    /// Writes the joined results of the batches, `[places, columns]` each, to an operand in the packed order.
    fn write(&self, s: &TorchSession, view: &View, results: &[Tensor]) -> Attempt {
        let joined = match results {
            [] => return Ok(()),
            [one] => one.shallow_clone(),
            several => Tensor::f_cat(several, 0)?,
        };
        let y = s.at(view)?;
        to(&joined, y.f_kind()?)?.f_index_select_out(&y, 0, &self.back).done()
    }
}

impl Batch {
    /// The batch's rows of `x [tokens, heads, ...]` as `[sequences, heads, longest, ...]`.
    fn gather(&self, x: &Tensor, heads: &Tensor) -> Attempt<Tensor> {
        Ok(x.f_index(&[Some(&self.rows), Some(heads)])?)
    }

    /// A gathered query- or key-like operand as `[sequences kv_heads, group, longest, head_dim]`.
    fn by_key_head(&self, plan: &Plan, x: &Tensor, heads: &Tensor) -> Attempt<Tensor> {
        let size = [self.sequences * plan.kv_heads, -1, self.longest, plan.head_dim];
        Ok(self.gather(x, heads)?.f_view(size)?)
    }

    /// `x`, which has `heads` for each sequence and `width` numbers for each place, as `[places, heads width]`.
    fn by_place(&self, x: &Tensor, heads: i64, width: i64) -> Attempt<Tensor> {
        let apart = x.f_reshape([self.sequences, heads, self.longest, width])?.f_transpose(1, 2)?;
        Ok(apart.f_reshape([self.sequences * self.longest, heads * width])?)
    }

    /// Hides the scores `[sequences kv_heads, group, longest, longest]` of keys that the query does not see, and all of padding.
    fn hide(&mut self, s: &TorchSession, plan: &Plan, scores: &Tensor) -> Attempt {
        if self.hidden.is_none() {
            self.hidden = self.mask(s, plan)?;
        }
        if let Some(hidden) = &self.hidden {
            let mut scores = scores.f_view([self.sequences, plan.heads(), self.longest, self.longest])?;
            scores.f_masked_fill_(hidden, f64::NEG_INFINITY).done()?;
        }
        Ok(())
    }

    /// Which scores are hidden; `None` if none are.
    fn mask(&self, s: &TorchSession, plan: &Plan) -> Attempt<Option<Tensor>> {
        let place = Tensor::f_arange(self.longest, (Kind::Int64, s.device()))?;
        let (i, j) = (place.f_view([1, 1, -1, 1])?, place.f_view([1, 1, 1, -1])?);
        let mut hidden: Option<Tensor> = None;
        let mut hide = |more: Tensor| -> Attempt {
            hidden = Some(match hidden.take() {
                Some(before) => before.f_logical_or(&more)?,
                None => more,
            });
            Ok(())
        };
        if plan.mask != MaskKind::BIDIRECTIONAL {
            let later = j.f_gt_tensor(&i)?;
            hide(match &self.prefix {
                Some(prefix) => later.f_logical_and(&j.f_ge_tensor(prefix)?)?,
                None => later,
            })?;
        }
        if plan.window > 0 {
            hide(j.f_le_tensor(&i.f_sub_scalar(plan.window)?)?)?;
        }
        if let Some(lengths) = &self.lengths {
            hide(j.f_ge_tensor(lengths)?)?;
            // A query of padding then sees nothing: it adds nothing to the cotangents of keys and values.
            hide(i.f_ge_tensor(lengths)?)?;
        }
        Ok(hidden)
    }
}

/// An operand as `[tokens, heads, head_dim]`, in the accumulator.
fn operand(s: &TorchSession, plan: &Plan, view: &View, heads: i64, acc: Kind) -> Attempt<Tensor> {
    let size = [view.rows as i64, heads, plan.head_dim];
    to(&s.shaped(view, &size, &[row_stride(view)?, plan.head_dim, 1], 0)?, acc)
}

/// `y` and `lse` of every sequence.
pub fn forward(s: &TorchSession, op: &Attention, plan: &Plan, acc: Kind) -> Attempt {
    if plan.sequences.is_empty() {
        return Ok(());
    }
    let (heads, kv_heads) = (plan.heads(), plan.kv_heads);
    let of = |view: &View, heads: i64| operand(s, plan, view, heads, acc);
    let (q, k, v) = (of(&op.q, heads)?, of(&op.k, kv_heads)?, of(&op.v, kv_heads)?);
    Batches::with(s, plan, [Some(&op.offsets), op.prefix.as_ref()], op.q.rows as i64, |batches| {
        let [all_heads, key_heads] = batches.heads.each_ref().map(Tensor::shallow_clone);
        let (mut y, mut lse) = (Vec::new(), Vec::new());
        for batch in &mut batches.batches {
            let keys = batch.by_key_head(plan, &k, &key_heads)?;
            let scores = plan.scores(&batch.by_key_head(plan, &q, &all_heads)?, &keys)?;
            batch.hide(s, plan, &scores)?;
            let p = scores.f_softmax(-1, None)?;
            if op.lse.is_some() {
                // The largest probability is exp(largest score - lse).
                let largest = |t: &Tensor| t.f_amax([-1i64].as_slice(), true);
                lse.push(batch.by_place(&largest(&scores)?.f_sub_(&largest(&p)?.f_log_()?)?, heads, 1)?);
            }
            let values = batch.by_key_head(plan, &v, &key_heads)?;
            y.push(batch.by_place(&plan.product(&p, &values)?, heads, plan.head_dim)?);
        }
        batches.write(s, &op.y, &y)?;
        if let Some(view) = &op.lse {
            batches.write(s, view, &lse)?;
        }
        batches.alone.iter().try_for_each(|one| blocks::forward(s, op, plan, acc, one))
    })
}

/// `dq`, `dk` and `dv` of every sequence; the formula is at [`blocks::backward`].
pub fn backward(s: &TorchSession, op: &AttentionBackward, plan: &Plan, acc: Kind) -> Attempt {
    if plan.sequences.is_empty() {
        return Ok(());
    }
    let (heads, kv_heads) = (plan.heads(), plan.kv_heads);
    let of = |view: &View, heads: i64| operand(s, plan, view, heads, acc);
    let (q, k, v, dy) = (of(&op.q, heads)?, of(&op.k, kv_heads)?, of(&op.v, kv_heads)?, of(&op.dy, heads)?);
    let delta = dy.f_mul(&of(&op.y, heads)?)?.f_sum_dim_intlist([-1i64].as_slice(), true, None)?;
    let lse = s.at(&op.lse)?.f_unsqueeze(-1)?;
    Batches::with(s, plan, [Some(&op.offsets), op.prefix.as_ref()], op.q.rows as i64, |batches| {
        let [all_heads, key_heads] = batches.heads.each_ref().map(Tensor::shallow_clone);
        let [mut dq, mut dk, mut dv] = [(); 3].map(|()| Vec::new());
        for batch in &mut batches.batches {
            let queries = |x: &Tensor| batch.by_key_head(plan, x, &all_heads);
            let keys = |x: &Tensor| batch.by_key_head(plan, x, &key_heads);
            let column = |x: &Tensor| -> Attempt<Tensor> {
                let size = [batch.sequences * kv_heads, plan.group, batch.longest, 1];
                Ok(batch.gather(x, &all_heads)?.f_view(size)?)
            };
            let (q, dy, k, v) = (queries(&q)?, queries(&dy)?, keys(&k)?, keys(&v)?);
            let (lse, delta) = (column(&lse)?, column(&delta)?);
            let mut scores = plan.scores(&q, &k)?;
            let slope = cap_slope(&scores, plan.softcap)?;
            batch.hide(s, plan, &scores)?;
            let p = scores.f_sub_(&lse)?.f_exp_()?;
            dv.push(batch.by_place(&plan.gathered(&p, &dy)?, kv_heads, plan.head_dim)?);
            let mut dscores = plan.product(&dy, &v.f_transpose(2, 3)?)?.f_sub_(&delta)?.f_mul_(&p)?;
            if let Some(slope) = slope {
                dscores.f_mul_(&slope).done()?;
            }
            let dproduct = dscores.f_mul_scalar_(plan.scale)?;
            dq.push(batch.by_place(&plan.product(&dproduct, &k)?, heads, plan.head_dim)?);
            dk.push(batch.by_place(&plan.gathered(&dproduct, &q)?, kv_heads, plan.head_dim)?);
        }
        for (view, results) in [(&op.dq, dq), (&op.dk, dk), (&op.dv, dv)] {
            batches.write(s, view, &results)?;
        }
        batches.alone.iter().try_for_each(|one| blocks::backward(s, op, plan, acc, one))
    })
}
