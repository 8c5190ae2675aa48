//! Log-probabilities of several ids per token, their backward pass, and the most probable ids.

use plugin_api::abi::{DType, View};
use plugin_api::backend::ops::{HeadCandidates, HeadCandidatesBackward, HeadTopk};

use super::rows::HeadRows;
use crate::device::{Buffer, Tensor};
use crate::error::{Error, Result};
use crate::model::loaded::Model;

/// Ids whose log-probabilities are computed.
#[derive(Debug, Clone, Copy)]
pub struct CandidateRequest<'a> {
    /// Rows of the hidden states; `None`: all.
    pub rows: Option<&'a [i32]>,
    /// K ids for each of the M rows, one row's ids after the other's, `[M, K]`. The ids of a row are distinct.
    pub ids: &'a [i32],
    /// Ids per row, K.
    pub count: usize,
    /// Divides the logits.
    pub temperature: f64,
    /// Also compute the tail.
    pub tail: bool,
}

/// Log-probabilities of K ids for each of M rows, with what the backward pass needs.
pub struct CandidateLogps {
    /// Of every id, `[M, K]` in the order of the request.
    pub logps: Vec<f64>,
    /// Per row the logarithm of the probability of all other ids, if requested; minus infinity if K is the whole vocabulary.
    pub tail: Option<Vec<f64>>,
    rows: HeadRows,
    ids: Tensor,
    temperature: f64,
    lse: Tensor,
    tail_table: Option<Tensor>,
}

/// Derivatives of the loss with respect to [`CandidateLogps`]; absent: zero.
#[derive(Debug, Clone, Copy, Default)]
pub struct CandidateCotangents<'a> {
    /// Cotangents of `logps`, `[M, K]`.
    pub logps: Option<&'a [f64]>,
    /// Cotangents of `tail`, `[M]`.
    pub tail: Option<&'a [f64]>,
}

/// The number of most probable ids to find.
#[derive(Debug, Clone, Copy)]
pub struct TopIdsRequest<'a> {
    /// Rows of the hidden states; `None`: all.
    pub rows: Option<&'a [i32]>,
    /// Ids per row, K, at most the vocabulary.
    pub count: usize,
    /// Divides the logits.
    pub temperature: f64,
    /// Also compute the tail.
    pub tail: bool,
}

/// The K most probable ids of M rows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TopIds {
    /// `[M, K]`, the most probable first in each row; of equally probable ids the lowest first.
    pub ids: Vec<i32>,
    /// Their log-probabilities, `[M, K]`.
    pub logps: Vec<f64>,
    /// Per row the logarithm of the probability of all other ids, if requested.
    pub tail: Option<Vec<f64>>,
}

impl Model {
    /// Computes the log-probabilities of the given ids from last hidden states. No buffer of `[M, V]` is allocated.
    ///
    /// # Errors
    /// Another number of ids than K per row, an id outside the vocabulary or twice in a row, a row that does not exist; errors
    /// of the backend.
    pub fn candidates(&self, hidden: &Tensor, request: &CandidateRequest<'_>) -> Result<CandidateLogps> {
        let rows = self.head_rows(hidden, request.rows)?;
        let (tokens, count) = (rows.x.row_count(), request.count as u64);
        if tokens.checked_mul(count) != Some(request.ids.len() as u64) {
            let found = format!("{} ids for {tokens} tokens with {count} candidates", request.ids.len());
            return Err(Error::run(format!("candidates: {found} each")));
        }
        let ids = self.device.tensor_of(DType::I32, tokens, count)?;
        ids.buffer().upload_i32(0, request.ids)?;
        let accumulator = self.device.accumulator();
        let logp = self.device.tensor_of(accumulator, tokens, count)?;
        let lse = self.device.tensor_of(accumulator, 1, tokens)?;
        let tail = request.tail.then(|| self.device.tensor_of(accumulator, 1, tokens)).transpose()?;
        self.device.call(&HeadCandidates {
            x: rows.x.view(),
            w: self.weight(self.layout.head),
            ids: ids.view(),
            logp: logp.view(),
            tail: view(&tail),
            lse: Some(lse.view()),
            temperature: request.temperature,
            softcap: self.config.logit_cap,
            ..HeadCandidates::default()
        })?;
        Ok(CandidateLogps {
            logps: logp.to_vec()?,
            tail: tail.as_ref().map(Tensor::to_vec).transpose()?,
            rows,
            ids,
            temperature: request.temperature,
            lse,
            tail_table: tail,
        })
    }

    /// Adds the head's gradient to `grads`, and its part of the cotangent of the last hidden states, `[N, D]`, to `dhidden`, or
    /// to zeros if `dhidden` is `None`. Returns the sum.
    ///
    /// # Errors
    /// Cotangents of another length than the log-probabilities, or of the tail if it was not requested; errors of the backend.
    pub fn candidates_backward(
        &self,
        candidates: CandidateLogps,
        cotangents: &CandidateCotangents<'_>,
        dhidden: Option<Tensor>,
        grads: &Buffer,
    ) -> Result<Tensor> {
        let CandidateLogps { logps, rows, ids, temperature, lse, tail_table, .. } = candidates;
        if cotangents.tail.is_some() && tail_table.is_none() {
            return Err(Error::run("candidates: a cotangent of the tail, which was not requested"));
        }
        let tokens = rows.x.row_count();
        let given = |name: &str, values: Option<&[f64]>, length: usize, shape: (u64, u64)| {
            let Some(values) = values else { return Ok(None) };
            if values.len() != length {
                return Err(Error::run(format!("candidates: {} cotangents of {name} for {length}", values.len())));
            }
            let tensor = self.device.tensor_of(self.device.accumulator(), shape.0, shape.1)?;
            tensor.buffer().upload(0, values)?;
            Ok(Some(tensor))
        };
        let dlogp = given("log-probabilities", cotangents.logps, logps.len(), (tokens, ids.column_count()))?;
        let dtail = given("the tail", cotangents.tail, tokens as usize, (1, tokens))?;
        let dx = self.device.tensor(tokens, self.config.dim)?;
        self.device.call(&HeadCandidatesBackward {
            x: rows.x.view(),
            w: self.weight(self.layout.head),
            ids: ids.view(),
            lse: lse.view(),
            tail: dtail.as_ref().and(view(&tail_table)),
            dlogp: view(&dlogp),
            dtail: view(&dtail),
            dx: dx.view(),
            dw: self.gradient(self.layout.head, grads),
            temperature,
            softcap: self.config.logit_cap,
            ..HeadCandidatesBackward::default()
        })?;
        self.head_rows_backward(&rows, dx, dhidden)
    }

    /// Finds the K most probable ids of each row. No buffer of `[M, V]` is allocated.
    ///
    /// # Errors
    /// More ids than the vocabulary has, a row that does not exist; errors of the backend.
    pub fn top_ids(&self, hidden: &Tensor, request: &TopIdsRequest<'_>) -> Result<TopIds> {
        if request.count as u64 > self.config.vocab {
            let message = format!("top ids: {} of a vocabulary of {}", request.count, self.config.vocab);
            return Err(Error::run(message));
        }
        let rows = self.head_rows(hidden, request.rows)?;
        let (tokens, count) = (rows.x.row_count(), request.count as u64);
        let ids = self.device.tensor_of(DType::I32, tokens, count)?;
        let accumulator = self.device.accumulator();
        let logp = self.device.tensor_of(accumulator, tokens, count)?;
        let tail = request.tail.then(|| self.device.tensor_of(accumulator, 1, tokens)).transpose()?;
        self.device.call(&HeadTopk {
            x: rows.x.view(),
            w: self.weight(self.layout.head),
            ids: ids.view(),
            logp: logp.view(),
            tail: view(&tail),
            temperature: request.temperature,
            softcap: self.config.logit_cap,
            ..HeadTopk::default()
        })?;
        let tail = tail.as_ref().map(Tensor::to_vec).transpose()?;
        Ok(TopIds { ids: ids.to_ints()?, logps: logp.to_vec()?, tail })
    }
}

fn view(tensor: &Option<Tensor>) -> Option<View> {
    tensor.as_ref().map(Tensor::view)
}
