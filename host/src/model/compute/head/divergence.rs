//! The divergence between the distributions of this model and another one, per token, and its backward pass.
//!
//! The two models may have read different sequences (the other one another prompt), so each has its own list of rows.

use plugin_api::backend::ops::{HeadDivergence, HeadDivergenceBackward};
use plugin_api::manifest::Divergence;

use super::rows::HeadRows;
use crate::device::{Buffer, Tensor};
use crate::error::{Error, Result};
use crate::model::loaded::Model;

/// Tokens whose distributions are compared.
#[derive(Debug, Clone, Copy)]
pub struct DivergenceRequest<'a> {
    /// Rows of this model's hidden states; `None`: all.
    pub rows: Option<&'a [i32]>,
    /// Rows of the other model's hidden states, of the same number: row m of one list is compared with row m of the other;
    /// `None`: all.
    pub other_rows: Option<&'a [i32]>,
    /// Which divergence, and the temperature of both models.
    pub divergence: Divergence,
}

/// Divergences of M pairs of rows, with what the backward pass needs.
pub struct Divergences {
    /// The divergence of each pair, in nats, in the order of the rows.
    pub kl: Vec<f64>,
    rows: HeadRows,
    other: HeadRows,
    divergence: Divergence,
    /// `kl`, `lse` and `lse2`, a row each.
    table: Tensor,
}

impl Model {
    /// Computes the divergence between this model's distributions, p, and those of `other`, q, from the last hidden states of
    /// both. No buffer of `[M, V]` is allocated.
    ///
    /// # Errors
    /// Models on different devices or with different vocabularies, lists of rows of different lengths, a row that does not
    /// exist, a weight outside 0..=1 or a temperature that is not positive; errors of the backend.
    pub fn divergence(
        &self,
        hidden: &Tensor,
        other: &Model,
        other_hidden: &Tensor,
        request: &DivergenceRequest<'_>,
    ) -> Result<Divergences> {
        if self.config.vocab != other.config.vocab {
            let found = format!("{} and {}", self.config.vocab, other.config.vocab);
            return Err(Error::run(format!(
                "divergence: the models have vocabularies of {found} ids, expected the same"
            )));
        }
        if !self.device.same(&other.device) {
            return Err(Error::run("divergence: the models are on different devices"));
        }
        let (rows, theirs) =
            (self.head_rows(hidden, request.rows)?, other.head_rows(other_hidden, request.other_rows)?);
        let count = rows.x.row_count();
        if theirs.x.row_count() != count {
            let found = format!("{count} rows of one model and {} of the other", theirs.x.row_count());
            return Err(Error::run(format!("divergence: {found}, expected the same number")));
        }
        let table = self.device.tensor_of(self.device.accumulator(), 3, count)?;
        self.device.call(&HeadDivergence {
            x: rows.x.view(),
            w: self.weight(self.layout.head),
            x2: theirs.x.view(),
            w2: other.weight(other.layout.head),
            kl: table.rows(0..1),
            lse: Some(table.rows(1..2)),
            lse2: Some(table.rows(2..3)),
            weight: request.divergence.weight,
            temperature: request.divergence.temperature,
            softcap: self.config.logit_cap,
            softcap2: other.config.logit_cap,
            ..HeadDivergence::default()
        })?;
        let kl = table.buffer().download(0, count)?;
        Ok(Divergences { kl, rows, other: theirs, divergence: request.divergence, table })
    }

    /// Adds the head's gradient to `grads`, given a cotangent per divergence, and its part of the cotangent of this model's
    /// last hidden states, `[N, D]`, to `dhidden`, or to zeros if `dhidden` is `None`. Returns the sum. `other` is the model of
    /// [`Model::divergence`], with the same weights; it has no gradient.
    ///
    /// # Errors
    /// Another number of cotangents than divergences; errors of the backend.
    pub fn divergence_backward(
        &self,
        divergences: Divergences,
        other: &Model,
        cotangents: &[f64],
        dhidden: Option<Tensor>,
        grads: &Buffer,
    ) -> Result<Tensor> {
        let Divergences { kl, rows, other: theirs, divergence, table } = divergences;
        if cotangents.len() != kl.len() {
            return Err(Error::run(format!("divergence: {} cotangents for {} tokens", cotangents.len(), kl.len())));
        }
        let dkl = self.device.floats(cotangents)?;
        let dx = self.device.tensor(kl.len() as u64, self.config.dim)?;
        self.device.call(&HeadDivergenceBackward {
            x: rows.x.view(),
            w: self.weight(self.layout.head),
            x2: theirs.x.view(),
            w2: other.weight(other.layout.head),
            lse: table.rows(1..2),
            lse2: table.rows(2..3),
            dkl: dkl.view(),
            dx: dx.view(),
            dw: self.gradient(self.layout.head, grads),
            weight: divergence.weight,
            temperature: divergence.temperature,
            softcap: self.config.logit_cap,
            softcap2: other.config.logit_cap,
            ..HeadDivergenceBackward::default()
        })?;
        self.head_rows_backward(&rows, dx, dhidden)
    }
}
