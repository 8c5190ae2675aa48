//! The forward pass: embedding, layers, last norm, over a packed batch.
//!
//! A layer is computed by filling in all activations that do not exist yet. The backward pass calls the same code on the kept
//! ones, so a recomputed activation has the same bits as the first one.

use plugin_api::abi::DType;
use plugin_api::backend::ops::{
    Activation, Attention, Axpy, Copy, DecodeAttention, Embedding, Glu, MaskKind, Norm, Rotary,
};

use super::activations::{Activations, BatchView, DeviceBatch, Forward, Keep, Kept, Tape};
use super::cache::{Fill, KvCache};
use super::head_norms::UnnormedHeads;
use crate::device::Tensor;
use crate::error::{Error, Result};
use crate::families::family::Mlp;
use crate::model::loaded::{Layer, Model};
use crate::model::params::NormRef;

/// What a query attends to.
pub(super) enum Attend<'a> {
    /// Its own sequence in the batch.
    Packed,
    /// Its own sequence in the batch; keys and values are written to the cache.
    Prefill(&'a KvCache, &'a [Fill]),
    /// Its slot of the cache; keys and values are appended. One token per row.
    Decode { cache: &'a KvCache, slots: &'a Tensor, lengths: &'a Tensor },
}

/// What all layers of a pass share.
pub(super) struct Pass<'a> {
    pub batch: &'a DeviceBatch,
    pub attend: &'a Attend<'a>,
    pub kept: Kept,
    /// Whether to compute statistics that only the backward pass reads.
    pub backward: bool,
    /// Whether this is the backward pass, which reads activations but not a layer's output.
    pub recompute: bool,
}

/// The residual stream as two summands, `residual + branch`, which the next norm adds.
struct Pending {
    residual: Tensor,
    branch: Option<Tensor>,
}

impl Model {
    /// Runs the decoder over a packed batch.
    ///
    /// # Errors
    /// A batch that contradicts itself or the model; errors of the backend.
    pub fn forward(&self, batch: BatchView<'_>, keep: Keep) -> Result<Forward> {
        let batch = self.upload_batch(batch)?;
        let (hidden, tape) = self.run(&batch, keep, &Attend::Packed)?;
        Ok(Forward { batch, hidden, tape })
    }

    pub(super) fn upload_batch(&self, batch: BatchView<'_>) -> Result<DeviceBatch> {
        self.check_batch(batch)?;
        let reads_prompts = self.config.mask() == MaskKind::PREFIX;
        Ok(DeviceBatch {
            prompts: reads_prompts.then(|| self.device.ints(batch.prompts)).transpose()?,
            tokens: batch.tokens.len() as u64,
            ids: self.device.ints(batch.tokens)?,
            positions: self.device.ints(batch.positions)?,
            offsets: self.device.ints(batch.offsets)?,
        })
    }

    fn check_batch(&self, batch: BatchView<'_>) -> Result<()> {
        let (tokens, config) = (batch.tokens.len(), &self.config);
        let fail = |what: String| Err(Error::run(format!("forward: {what}")));
        if batch.positions.len() != tokens {
            return fail(format!("{tokens} tokens and {} positions", batch.positions.len()));
        }
        let ends = (batch.offsets.first().copied(), batch.offsets.last().copied());
        let ascending = batch.offsets.windows(2).all(|pair| pair[0] <= pair[1]);
        if ends.0 != Some(0) || ends.1.map(|end| end as usize) != Some(tokens) || !ascending {
            return fail(format!("offsets must ascend from 0 to {tokens}, the number of tokens"));
        }
        let sequences = batch.offsets.len() - 1;
        if self.config.mask() == MaskKind::PREFIX && batch.prompts.len() != sequences {
            return fail(format!("{} lengths of prompts for {sequences} sequences", batch.prompts.len()));
        }
        let outside = |values: &[i32], limit: u64| values.iter().find(|v| **v < 0 || **v as u64 >= limit).copied();
        if let Some(id) = outside(batch.tokens, config.vocab) {
            return fail(format!("token id {id} is outside the vocabulary of {}", config.vocab));
        }
        if let Some(position) = outside(batch.positions, config.context) {
            return fail(format!("position {position} is outside the context length of {}", config.context));
        }
        Ok(())
    }

    /// Runs the decoder; returns a tape only if something is kept for the backward pass.
    pub(super) fn run(&self, batch: &DeviceBatch, keep: Keep, attend: &Attend<'_>) -> Result<(Tensor, Option<Tape>)> {
        let backward = keep != Keep::Nothing;
        let pass = Pass { batch, attend, kept: Kept::from(keep), backward, recompute: false };
        let mut layers = Vec::with_capacity(if backward { self.layers.len() } else { 0 });
        let mut pending = Pending { residual: self.embed(batch)?, branch: None };
        for (index, layer) in self.layers.iter().enumerate() {
            let mut acts = Activations::default();
            let (stream, normed, stats) = self.add_norm(pending, layer.norms.before[0], backward)?;
            (acts.stream, acts.normed1, acts.stats1) = (Some(stream), normed, stats);
            self.fill_in(&pass, index, &mut acts)?;
            pending = self.project_down(&pass, layer, &mut acts)?;
            if backward {
                layers.push(acts);
            }
        }
        let (stream, hidden, stats) = self.add_norm(pending, Some(self.layout.norm), backward)?;
        let hidden = hidden.ok_or_else(|| missing("the last norm"))?;
        let tape = stats.map(|stats| Tape { layers, stream, stats });
        Ok((hidden, tape))
    }

    fn embed(&self, batch: &DeviceBatch) -> Result<Tensor> {
        let y = self.device.tensor(batch.tokens, self.config.dim)?;
        let position_table = self.layout.positions.map(|index| self.weight(index));
        self.device.call(&Embedding {
            ids: batch.ids.view(),
            table: self.weight(self.layout.embedding),
            positions: position_table.map(|_| batch.positions.view()),
            position_table,
            y: y.view(),
            scale: self.embedding_scale(),
        })?;
        Ok(y)
    }

    /// The factor of embeddings: 1, or the square root of their width, rounded as transformers does to the dtype that computes.
    pub(super) fn embedding_scale(&self) -> f64 {
        let root = (self.config.dim as f64).sqrt();
        match self.device.compute() {
            _ if !self.config.family.scaled_embedding => 1.0,
            // By way of f32, as torch converts a number.
            DType::BF16 => half::bf16::from_f32(root as f32).to_f64(),
            _ => f64::from(root as f32),
        }
    }

    /// Sums the stream and normalises it, if there is a norm. Returns stream, output, and statistics if requested.
    fn add_norm(
        &self,
        pending: Pending,
        norm: Option<NormRef>,
        with_stats: bool,
    ) -> Result<(Tensor, Option<Tensor>, Option<Tensor>)> {
        let Some(norm) = norm else { return Ok((self.add(pending)?, None, None)) };
        let Pending { residual, branch } = pending;
        let tokens = residual.row_count();
        let y = self.device.tensor(tokens, self.config.dim)?;
        let stats = with_stats.then(|| self.stats(tokens)).transpose()?;
        // The sum overwrites the branch: the backward pass does not read a linear layer's output.
        let (x, residual) = match branch {
            Some(branch) => (branch, Some(residual)),
            None => (residual, None),
        };
        self.device.call(&Norm {
            x: x.view(),
            residual: residual.as_ref().map(Tensor::view),
            sum: residual.as_ref().map(|_| x.view()),
            y: y.view(),
            stats: stats.as_ref().map(Tensor::view),
            ..self.norm_op(norm)
        })?;
        Ok((x, Some(y), stats))
    }

    /// Sums the stream; the sum overwrites the branch.
    fn add(&self, pending: Pending) -> Result<Tensor> {
        let Pending { residual, branch } = pending;
        let Some(branch) = branch else { return Ok(residual) };
        self.device.call(&Axpy { x: residual.view(), y: branch.view(), alpha: 1.0 })?;
        Ok(branch)
    }

    pub(super) fn norm_op(&self, norm: NormRef) -> Norm {
        Norm {
            weight: Some(self.weight(norm.weight)),
            bias: norm.bias.map(|bias| self.weight(bias)),
            kind: self.config.family.norm,
            eps: self.config.norm_eps,
            weight_offset: self.config.family.norm_offset,
            ..Norm::default()
        }
    }

    pub(super) fn stats(&self, tokens: u64) -> Result<Tensor> {
        self.device.tensor_of(self.device.accumulator(), tokens, 2)
    }

    /// Computes the missing activations of a layer up to its activation function, and frees those that are not kept as soon as
    /// they are no longer needed. The layer's input must exist.
    pub(super) fn fill_in(&self, pass: &Pass<'_>, index: usize, acts: &mut Activations) -> Result<()> {
        let (layer, kept, tokens) = (&self.layers[index], pass.kept, pass.batch.tokens);
        let stream = acts.stream.clone().ok_or_else(|| missing("a layer's input"))?;
        let learns = |projection| self.learns(projection);
        if acts.normed1.is_none() && layer.norms.before[0].is_some() && (acts.qkv.is_none() || learns(&layer.qkv)) {
            let pending = Pending { residual: stream.clone(), branch: None };
            let (_, normed, stats) = self.add_norm(pending, layer.norms.before[0], acts.stats1.is_none())?;
            acts.normed1 = normed;
            acts.stats1 = acts.stats1.take().or(stats);
        }
        if acts.qkv.is_none() {
            let input = acts.normed1.as_ref().unwrap_or(&stream);
            let (qkv, unnormed) = self.queries_keys_values(index, pass, input)?;
            (acts.qkv, acts.unnormed) = (Some(qkv), unnormed);
        }
        release(&mut acts.normed1, kept.normed && learns(&layer.qkv));
        if acts.attended.is_none() {
            let qkv = acts.qkv.as_ref().ok_or_else(|| missing("queries, keys and values"))?;
            let (attended, lse) = self.attend(pass, index, qkv)?;
            (acts.attended, acts.lse) = (Some(attended), lse);
        }
        release(&mut acts.qkv, kept.qkv);
        release(&mut acts.unnormed, kept.qkv);
        self.middle(pass, layer, acts, stream)?;
        release(&mut acts.stream, kept.stream);
        release(&mut acts.attended, kept.attended);
        release(&mut acts.lse, kept.attended);
        if acts.up.is_none() {
            let input = acts.normed2.as_ref().or(acts.middle.as_ref()).ok_or_else(|| missing("a norm"))?;
            let up = self.device.tensor(tokens, layer.up.outputs)?;
            self.project(&layer.up, input.view(), up.view())?;
            acts.up = Some(up);
        }
        release(&mut acts.normed2, kept.normed && learns(&layer.up));
        release(&mut acts.stats1, kept.stats);
        release(&mut acts.stats2, kept.stats);
        let reads_active = learns(&layer.down) || layer.norms.after[1].is_some();
        if acts.active.is_none() && (!pass.recompute || reads_active) {
            let up = acts.up.as_ref().ok_or_else(|| missing("the feed-forward block's input"))?;
            acts.active = Some(self.activate(up)?);
        }
        release(&mut acts.up, kept.up);
        if pass.recompute && acts.after[1].is_none() && layer.norms.after[1].is_some() {
            self.mlp_branch(pass, layer, acts)?;
        }
        Ok(())
    }

    /// Returns queries, keys and values, and what the backward pass of their norms reads.
    fn queries_keys_values(
        &self,
        index: usize,
        pass: &Pass<'_>,
        input: &Tensor,
    ) -> Result<(Tensor, Option<UnnormedHeads>)> {
        let layer = &self.layers[index];
        let qkv = self.device.tensor(pass.batch.tokens, layer.qkv.outputs)?;
        self.project(&layer.qkv, input.view(), qkv.view())?;
        let unnormed = match layer.norms.heads {
            Some(norms) => self.norm_heads(norms, &qkv, pass.backward)?,
            None => None,
        };
        self.rotate(index, &qkv, pass.batch, false)?;
        Ok((qkv, unnormed))
    }

    /// Rotates a layer's queries and keys in place: their heads are adjacent.
    pub(super) fn rotate(&self, index: usize, qkv: &Tensor, batch: &DeviceBatch, inverse: bool) -> Result<()> {
        let Some(rotation) = self.rotary.layer(index) else { return Ok(()) };
        let heads = qkv.cols(0..self.config.query_width() + self.config.kv_width());
        self.device.call(&Rotary {
            x: heads,
            positions: batch.positions.view(),
            cos: rotation.cos.view(),
            sin: rotation.sin.view(),
            y: heads,
            head_dim: self.config.head_dim as i64,
            interleaved: false,
            inverse,
        })
    }

    fn attend(&self, pass: &Pass<'_>, index: usize, qkv: &Tensor) -> Result<(Tensor, Option<Tensor>)> {
        let (config, batch, attend) = (&self.config, pass.batch, pass.attend);
        let y = self.device.tensor(batch.tokens, config.query_width())?;
        let (q, k) = (config.query_width(), config.kv_width());
        let (queries, keys, values) = (qkv.cols(0..q), qkv.cols(q..q + k), qkv.cols(q + k..q + 2 * k));
        if let Attend::Decode { cache, slots, lengths } = attend {
            let (k_cache, v_cache) = cache.layer(index)?;
            self.device.call(&DecodeAttention {
                q: queries,
                k: keys,
                v: values,
                slots: slots.view(),
                lengths: lengths.view(),
                y: y.view(),
                k_cache,
                v_cache,
                heads: config.heads as i64,
                kv_heads: config.kv_heads as i64,
                head_dim: config.head_dim as i64,
                scale: config.attention_scale(),
                capacity: cache.capacity() as i64,
                window: config.window(index),
                softcap: config.score_cap,
            })?;
            return Ok((y, None));
        }
        let accumulator = self.device.accumulator();
        let lse = pass.backward.then(|| self.device.tensor_of(accumulator, batch.tokens, config.heads)).transpose()?;
        self.device.call(&Attention {
            q: queries,
            k: keys,
            v: values,
            offsets: batch.offsets.view(),
            prefix: batch.prompts.as_ref().map(Tensor::view),
            mask: config.mask(),
            window: config.window(index),
            y: y.view(),
            lse: lse.as_ref().map(Tensor::view),
            heads: config.heads as i64,
            kv_heads: config.kv_heads as i64,
            head_dim: config.head_dim as i64,
            scale: config.attention_scale(),
            softcap: config.score_cap,
        })?;
        if let Attend::Prefill(cache, fills) = attend {
            for (from, to) in cache.destinations(index, fills)? {
                for (source, target) in [(keys, to.0), (values, to.1)] {
                    self.device.call(&Copy { x: crate::device::rows(source, from.clone()), y: target })?;
                }
            }
        }
        Ok((y, lse))
    }

    /// Computes the stream after attention and the feed-forward block's input.
    fn middle(&self, pass: &Pass<'_>, layer: &Layer, acts: &mut Activations, stream: Tensor) -> Result<()> {
        let norm = layer.norms.before[1];
        let with_stats = pass.backward && acts.stats2.is_none();
        // Nothing reads the input again if its projection is known and no gradient needs it.
        let has_input = acts.normed2.is_some() || norm.is_none() || acts.up.is_some() && !self.learns(&layer.up);
        let pending = if self.config.parallel {
            if !pass.recompute {
                let branch = self.attention_branch(pass, layer, acts)?;
                acts.middle = Some(self.add(Pending { residual: stream.clone(), branch: Some(branch) })?);
            }
            Pending { residual: stream, branch: None }
        } else {
            match &acts.middle {
                Some(_) if has_input => return Ok(()),
                Some(middle) => Pending { residual: middle.clone(), branch: None },
                None => Pending { residual: stream, branch: Some(self.attention_branch(pass, layer, acts)?) },
            }
        };
        if self.config.parallel && has_input {
            return Ok(());
        }
        let (middle, normed, stats) = self.add_norm(pending, norm, with_stats)?;
        if !self.config.parallel {
            acts.middle = Some(middle);
        }
        acts.normed2 = normed;
        acts.stats2 = acts.stats2.take().or(stats);
        Ok(())
    }

    /// Computes attention's output projection and its norm.
    fn attention_branch(&self, pass: &Pass<'_>, layer: &Layer, acts: &mut Activations) -> Result<Tensor> {
        let attended = acts.attended.as_ref().ok_or_else(|| missing("attention's output"))?;
        let branch = self.device.tensor(pass.batch.tokens, self.config.dim)?;
        self.project(&layer.output, attended.view(), branch.view())?;
        self.norm_after(pass, layer, acts, 0, branch)
    }

    /// Computes the feed-forward block's last projection and its norm.
    fn mlp_branch(&self, pass: &Pass<'_>, layer: &Layer, acts: &mut Activations) -> Result<Tensor> {
        let active = acts.active.as_ref().ok_or_else(|| missing("an activation"))?;
        let branch = self.device.tensor(pass.batch.tokens, self.config.dim)?;
        self.project(&layer.down, active.view(), branch.view())?;
        self.norm_after(pass, layer, acts, 1, branch)
    }

    /// Returns the output of attention (`which` 0) or of the feed-forward block (1) after its norm, if it has one.
    fn norm_after(
        &self,
        pass: &Pass<'_>,
        layer: &Layer,
        acts: &mut Activations,
        which: usize,
        branch: Tensor,
    ) -> Result<Tensor> {
        let Some(norm) = layer.norms.after[which] else { return Ok(branch) };
        let y = self.device.tensor(branch.row_count(), self.config.dim)?;
        let stats = pass.backward.then(|| self.stats(branch.row_count())).transpose()?;
        self.device.call(&Norm {
            x: branch.view(),
            y: y.view(),
            stats: stats.as_ref().map(Tensor::view),
            ..self.norm_op(norm)
        })?;
        acts.after[which] = Some(branch).filter(|_| pass.kept.middle);
        acts.after_stats[which] = stats.filter(|_| pass.kept.stats);
        Ok(y)
    }

    fn activate(&self, up: &Tensor) -> Result<Tensor> {
        let (config, kind) = (&self.config, self.config.activation_kind()?);
        let active = self.device.tensor(up.row_count(), config.hidden)?;
        match config.family.mlp {
            Mlp::Gated => self.device.call(&Glu {
                gate: up.cols(0..config.hidden),
                up: up.cols(config.hidden..2 * config.hidden),
                y: active.view(),
                kind,
            })?,
            Mlp::Plain => self.device.call(&Activation { x: up.view(), y: active.view(), kind })?,
        }
        Ok(active)
    }

    /// Computes the block's output, which the next norm adds to the stream.
    fn project_down(&self, pass: &Pass<'_>, layer: &Layer, acts: &mut Activations) -> Result<Pending> {
        let branch = self.mlp_branch(pass, layer, acts)?;
        release(&mut acts.active, pass.kept.active && self.learns(&layer.down));
        let residual = acts.middle.clone().ok_or_else(|| missing("the stream after attention"))?;
        release(&mut acts.middle, pass.kept.middle && !self.config.parallel);
        Ok(Pending { residual, branch: Some(branch) })
    }
}

fn release<T>(activation: &mut Option<T>, kept: bool) {
    if !kept {
        *activation = None;
    }
}

/// Error for a bug in this module: an activation was freed too early.
pub(super) fn missing(what: &str) -> Error {
    Error::run(format!("decoder: {what} is missing"))
}
