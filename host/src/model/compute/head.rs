//! The language-model head: statistics per token, their backward pass, and both in one pass if the cotangents are known.
//!
//! Only the requested tokens (the supervised ones) pass the head. The temperature divides the logits for all statistics.

mod candidates;
mod divergence;
mod rows;

pub use candidates::{CandidateCotangents, CandidateLogps, CandidateRequest, TopIds, TopIdsRequest};
pub use divergence::{DivergenceRequest, Divergences};

use plugin_api::abi::{DType, View};
use plugin_api::backend::ops::{GatherRows, HeadBackward, HeadFused, Linear};

use super::activations::Forward;
use crate::device::{Buffer, Tensor};
use crate::error::{Error, Result};
use crate::model::loaded::Model;
use rows::HeadRows;

/// Statistics to compute in addition to the log-probability of the target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Log-sum-exp of the logits.
    pub lse: bool,
    /// Entropy in nats.
    pub entropy: bool,
    /// Mean of the logits.
    pub mean_logit: bool,
    /// Id of the largest logit.
    pub top1: bool,
}

impl Statistics {
    /// The statistics that have a gradient. This file is the only one of the host that names them one by one.
    pub const DIFFERENTIABLE: [&'static str; 4] = ["logp", "lse", "entropy", "mean_logit"];
    /// The one that has none: whether the target has the largest logit.
    pub const TOP1: &'static str = "top1";

    /// All statistics of the head by name.
    pub fn names() -> impl Iterator<Item = &'static str> {
        Self::DIFFERENTIABLE.into_iter().chain([Self::TOP1])
    }

    /// Requests the statistics whose names are `wanted`.
    pub fn of(wanted: impl Fn(&str) -> bool) -> Self {
        Statistics {
            lse: wanted("lse"),
            entropy: wanted("entropy"),
            mean_logit: wanted("mean_logit"),
            top1: wanted(Self::TOP1),
        }
    }

    /// Whether any is requested.
    pub fn any(&self) -> bool {
        *self != Statistics::default()
    }

    /// Whether the statistic of this name is computed.
    pub fn has(&self, name: &str) -> bool {
        match name {
            "logp" => true,
            "lse" => self.lse,
            "entropy" => self.entropy,
            "mean_logit" => self.mean_logit,
            _ => self.top1 && name == Self::TOP1,
        }
    }
}

/// Tokens and statistics to compute in the head.
#[derive(Debug, Clone, Copy)]
pub struct HeadRequest<'a> {
    /// Target ids of all N tokens of the batch; those of tokens that do not pass the head are not read.
    pub targets: &'a [i32],
    /// Tokens that pass the head, ascending; `None`: all. Every result has one entry per such token.
    pub rows: Option<&'a [i32]>,
    /// Divides the logits.
    pub temperature: f64,
    /// Statistics beyond `logp`.
    pub statistics: Statistics,
    /// Keep the logits, `[M, V]`, for the backward pass instead of recomputing them.
    pub keep_logits: bool,
}

impl<'a> HeadRequest<'a> {
    /// Requests the log-probabilities of all targets at temperature 1.
    pub fn new(targets: &'a [i32]) -> Self {
        HeadRequest { targets, rows: None, temperature: 1.0, statistics: Statistics::default(), keep_logits: false }
    }
}

/// Statistics of the M tokens that passed the head.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HeadStats {
    /// Log-probability of the target.
    pub logp: Vec<f64>,
    /// Log-sum-exp of the logits, if requested.
    pub lse: Option<Vec<f64>>,
    /// Entropy in nats, if requested.
    pub entropy: Option<Vec<f64>>,
    /// Mean of the logits, if requested.
    pub mean_logit: Option<Vec<f64>>,
    /// Id of the largest logit, if requested.
    pub top1: Option<Vec<i32>>,
}

impl HeadStats {
    /// The values of a statistic with a gradient, if it was requested.
    pub fn get(&self, name: &str) -> Option<&[f64]> {
        match name {
            "logp" => Some(&self.logp),
            "lse" => self.lse.as_deref(),
            "entropy" => self.entropy.as_deref(),
            "mean_logit" => self.mean_logit.as_deref(),
            _ => None,
        }
    }
}

/// Derivatives of the loss with respect to each statistic; absent: zero.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cotangents<'a> {
    /// Cotangents of `logp`.
    pub logp: Option<&'a [f64]>,
    /// Cotangents of `lse`.
    pub lse: Option<&'a [f64]>,
    /// Cotangents of `mean_logit`.
    pub mean_logit: Option<&'a [f64]>,
    /// Cotangents of `entropy`; not in the one-pass form.
    pub entropy: Option<&'a [f64]>,
}

impl<'a> Cotangents<'a> {
    /// The cotangents that `given` has by the statistic's name.
    pub fn of(given: impl Fn(&str) -> Option<&'a [f64]>) -> Self {
        Cotangents {
            logp: given("logp"),
            lse: given("lse"),
            mean_logit: given("mean_logit"),
            entropy: given("entropy"),
        }
    }
}

/// Result of the head: the statistics, and what their backward pass needs.
pub struct Head {
    /// The statistics.
    pub stats: HeadStats,
    input: Input,
    temperature: f64,
    table: StatsTable,
    logits: Option<Tensor>,
}

/// The rows that pass the head, with their targets.
struct Input {
    rows: HeadRows,
    targets: Tensor,
}

/// Statistics on the device, one row each, so that one transfer copies all of them.
struct StatsTable {
    floats: Tensor,
    logp: View,
    lse: Option<View>,
    entropy: Option<View>,
    mean_logit: Option<View>,
    top1: Option<Tensor>,
}

/// Cotangents on the device, sent in one transfer; freed with `memory`.
struct DeviceCotangents {
    _memory: Tensor,
    logp: Option<View>,
    lse: Option<View>,
    mean_logit: Option<View>,
    entropy: Option<View>,
}

impl Model {
    /// Runs the head and copies the statistics to the host.
    ///
    /// # Errors
    /// Rows or targets that do not exist; errors of the backend.
    pub fn head_stats(&self, forward: &Forward, request: &HeadRequest<'_>) -> Result<Head> {
        let input = self.head_input(forward, request)?;
        let rows = input.rows.x.row_count();
        let wanted = Statistics { lse: true, ..request.statistics };
        let table = self.stats_table(rows, wanted)?;
        let logits = request.keep_logits.then(|| self.device.tensor(rows, self.config.vocab)).transpose()?;
        self.device.call(&plugin_api::backend::ops::HeadStats {
            x: input.rows.x.view(),
            w: self.weight(self.layout.head),
            targets: input.targets.view(),
            bias: None,
            logp: table.logp,
            lse: table.lse,
            entropy: table.entropy,
            mean_logit: table.mean_logit,
            top1: view(&table.top1),
            logits: view(&logits),
            temperature: request.temperature,
            softcap: self.config.logit_cap,
            ..Default::default()
        })?;
        let stats = table.download(request.statistics)?;
        Ok(Head { stats, input, temperature: request.temperature, table, logits })
    }

    /// Adds the head's gradient to `grads` and returns the cotangent of the last hidden states, `[N, D]`.
    ///
    /// # Errors
    /// Cotangents of another length than the statistics, or of the entropy if it was not requested.
    pub fn head_backward(&self, head: Head, cotangents: &Cotangents<'_>, grads: &Buffer) -> Result<Tensor> {
        let rows = head.input.rows.x.row_count();
        if cotangents.entropy.is_some() && head.table.entropy.is_none() {
            return Err(Error::run("head: a cotangent of the entropy, which was not requested"));
        }
        let given = self.upload_cotangents(cotangents, rows)?;
        let dx = self.device.tensor(rows, self.config.dim)?;
        self.device.call(&HeadBackward {
            x: head.input.rows.x.view(),
            w: self.weight(self.layout.head),
            targets: head.input.targets.view(),
            lse: head.table.lse.unwrap_or(View::NONE),
            bias: None,
            logits: view(&head.logits),
            entropy: given.entropy.and(head.table.entropy),
            dlogp: given.logp,
            dlse: given.lse,
            dmean_logit: given.mean_logit,
            dentropy: given.entropy,
            dx: dx.view(),
            dw: self.gradient(self.layout.head, grads),
            dbias: None,
            temperature: head.temperature,
            softcap: self.config.logit_cap,
            ..HeadBackward::default()
        })?;
        self.head_rows_backward(&head.input.rows, dx, None)
    }

    /// Computes statistics and backward pass in one pass, for cotangents that do not depend on the statistics. Returns the
    /// statistics, and the cotangent of the last hidden states, `[N, D]`.
    ///
    /// # Errors
    /// As [`Model::head_stats`] and [`Model::head_backward`]; a cotangent of the entropy is refused.
    pub fn head_fused(
        &self,
        forward: &Forward,
        request: &HeadRequest<'_>,
        cotangents: &Cotangents<'_>,
        grads: &Buffer,
    ) -> Result<(HeadStats, Tensor)> {
        if cotangents.entropy.is_some() {
            return Err(Error::run("head: the one-pass form takes no cotangent of the entropy"));
        }
        let input = self.head_input(forward, request)?;
        let rows = input.rows.x.row_count();
        let zeros = vec![0.0; if cotangents.logp.is_none() { rows as usize } else { 0 }];
        let given = Cotangents { logp: cotangents.logp.or(Some(&zeros)), ..*cotangents };
        let given = self.upload_cotangents(&given, rows)?;
        let table = self.stats_table(rows, request.statistics)?;
        let dx = self.device.tensor(rows, self.config.dim)?;
        self.device.call(&HeadFused {
            x: input.rows.x.view(),
            w: self.weight(self.layout.head),
            targets: input.targets.view(),
            dlogp: given.logp.unwrap_or(View::NONE),
            bias: None,
            dlse: given.lse,
            dmean_logit: given.mean_logit,
            logp: table.logp,
            dx: dx.view(),
            lse: table.lse,
            entropy: table.entropy,
            mean_logit: table.mean_logit,
            top1: view(&table.top1),
            dw: self.gradient(self.layout.head, grads),
            dbias: None,
            temperature: request.temperature,
            softcap: self.config.logit_cap,
            ..HeadFused::default()
        })?;
        let stats = table.download(request.statistics)?;
        Ok((stats, self.head_rows_backward(&input.rows, dx, None)?))
    }

    /// Returns the logits `[M, V]` of hidden states `[M, D]`.
    ///
    /// # Errors
    /// Errors of the backend.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        let y = self.device.tensor(hidden.row_count(), self.config.vocab)?;
        let (x, w) = (hidden.view(), self.weight(self.layout.head));
        if self.config.logit_cap == 0.0 {
            self.device.call(&Linear { x, w, bias: None, y: y.view() })?;
            return Ok(y);
        }
        // Only the head's own operations have a cap; what else this one computes is dropped.
        let rows = hidden.row_count();
        let targets = self.device.ints(&vec![0; rows as usize])?;
        let logp = self.device.tensor_of(self.device.accumulator(), 1, rows)?;
        self.device.call(&plugin_api::backend::ops::HeadStats {
            x,
            w,
            targets: targets.view(),
            logp: logp.view(),
            logits: Some(y.view()),
            softcap: self.config.logit_cap,
            ..Default::default()
        })?;
        Ok(y)
    }

    /// Returns the rows `index` of hidden states.
    ///
    /// # Errors
    /// A row that does not exist.
    pub fn gather(&self, hidden: &Tensor, index: &[i32]) -> Result<Tensor> {
        Ok(self.gathered(hidden, index)?.0)
    }

    /// The rows `index` of hidden states, and the index on the device.
    fn gathered(&self, hidden: &Tensor, index: &[i32]) -> Result<(Tensor, Tensor)> {
        let index = self.device.ints(index)?;
        let y = self.device.tensor(index.column_count(), hidden.column_count())?;
        self.device.call(&GatherRows { x: hidden.view(), index: index.view(), y: y.view() })?;
        Ok((y, index))
    }

    fn head_input(&self, forward: &Forward, request: &HeadRequest<'_>) -> Result<Input> {
        let tokens = forward.tokens();
        if request.targets.len() as u64 != tokens {
            return Err(Error::run(format!("head: {} targets for {tokens} tokens", request.targets.len())));
        }
        let targets = match request.rows {
            None => self.device.ints(request.targets)?,
            Some(rows) => {
                let target = |row: &i32| usize::try_from(*row).ok().and_then(|row| request.targets.get(row)).copied();
                let targets: Option<Vec<i32>> = rows.iter().map(target).collect();
                let outside = || Error::run(format!("head: a row outside the {tokens} tokens"));
                self.device.ints(&targets.ok_or_else(outside)?)?
            }
        };
        Ok(Input { rows: self.head_rows(&forward.hidden, request.rows)?, targets })
    }

    fn stats_table(&self, rows: u64, wanted: Statistics) -> Result<StatsTable> {
        let count = 1 + [wanted.lse, wanted.entropy, wanted.mean_logit].into_iter().filter(|w| *w).count() as u64;
        let floats = self.device.tensor_of(self.device.accumulator(), count, rows)?;
        let mut next = 0..count;
        let mut row = |wanted: bool| if wanted { next.next().map(|row| floats.rows(row..row + 1)) } else { None };
        Ok(StatsTable {
            logp: row(true).unwrap_or(View::NONE),
            lse: row(wanted.lse),
            entropy: row(wanted.entropy),
            mean_logit: row(wanted.mean_logit),
            top1: wanted.top1.then(|| self.device.tensor_of(DType::I32, 1, rows)).transpose()?,
            floats,
        })
    }

    fn upload_cotangents(&self, given: &Cotangents<'_>, rows: u64) -> Result<DeviceCotangents> {
        let columns =
            [("logp", given.logp), ("lse", given.lse), ("mean_logit", given.mean_logit), ("entropy", given.entropy)];
        let mut values: Vec<f64> = Vec::new();
        for (name, column) in columns {
            let Some(column) = column else { continue };
            if column.len() as u64 != rows {
                return Err(Error::run(format!("head: {} cotangents of {name} for {rows} tokens", column.len())));
            }
            values.extend(column);
        }
        let count = columns.iter().filter(|(_, column)| column.is_some()).count() as u64;
        let memory = self.device.tensor_of(self.device.accumulator(), count, rows)?;
        memory.buffer().upload(0, &values)?;
        let mut next = 0..count;
        let views = columns.map(|(_, column)| column.and_then(|_| next.next()).map(|row| memory.rows(row..row + 1)));
        let [logp, lse, mean_logit, entropy] = views;
        Ok(DeviceCotangents { logp, lse, mean_logit, entropy, _memory: memory })
    }
}

impl StatsTable {
    fn download(&self, wanted: Statistics) -> Result<HeadStats> {
        let values = self.floats.to_vec()?;
        let length = self.floats.column_count() as usize;
        let column = |view: View| values[view.offset as usize..view.offset as usize + length].to_vec();
        let optional = |wanted: bool, view: Option<View>| view.filter(|_| wanted).map(column);
        Ok(HeadStats {
            logp: column(self.logp),
            lse: optional(wanted.lse, self.lse),
            entropy: optional(wanted.entropy, self.entropy),
            mean_logit: optional(wanted.mean_logit, self.mean_logit),
            top1: self.top1.as_ref().map(Tensor::to_ints).transpose()?,
        })
    }
}

fn view(tensor: &Option<Tensor>) -> Option<View> {
    tensor.as_ref().map(Tensor::view)
}
