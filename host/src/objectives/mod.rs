//! The experiment's objectives: what they read, what they compose and prepare, and their losses.

pub mod active;
#[cfg(test)]
mod array_tests;
pub mod batch_arrays;
pub mod clock;
pub mod compose;
#[cfg(test)]
mod compose_tests;
pub mod micro_batch;
pub mod needs;
pub mod prepared_arrays;
pub mod reads;
mod required;

use plugin_api::{
    batch::Batch,
    contract::{self, Limits},
    manifest::AttentionMask,
    objective::Loss,
};

use crate::{
    data::PackedBatch,
    error::{Error, Result},
    runs::breadcrumb::{self, CrashMarker},
};
use active::{Active, broken, failed};
use batch_arrays::{data_arrays, join_batches};
use clock::Clock;
use micro_batch::{MicroBatchRange, join};
use prepared_arrays::{PreparedArrays, borrowed};

/// All objectives of an experiment, the temperature that divides the logits for all their statistics, the limits of the sequences
/// that they compose, and the optimizer step that their calls belong to.
pub struct Objectives(Vec<Active>, f64, Limits, Clock);

impl Objectives {
    /// Combines the objectives of an experiment, at least one; they must use the same temperature and attention mask.
    ///
    /// # Errors
    /// A request error if two of them use different temperatures or attention masks.
    pub fn new(all: Vec<Active>) -> Result<Objectives> {
        let first = all.first().ok_or_else(|| Error::request("an experiment needs an objective"))?;
        let temperature = first.requirements.temperature;
        if let Some(other) = all.iter().find(|a| a.requirements.temperature != temperature) {
            return Err(Error::request(format!(
                "objectives \"{}\" and \"{}\" read their statistics at different temperatures, {temperature} and {}",
                first.id, other.id, other.requirements.temperature
            )));
        }
        same("divergences", &all, |active| active.requirements.divergence.as_ref())?;
        same("candidates", &all, |active| active.requirements.candidates.as_ref())?;
        same("attention masks", &all, |active| Some(&active.requirements.attention))?;
        let limits = Limits { vocab: u64::from(u32::MAX) + 1, longest: usize::MAX, candidates: None };
        Ok(Objectives(all, temperature, limits, Clock::default()))
    }

    /// Sets the vocabulary and context that composed sequences must fit; others are refused.
    pub fn limit(&mut self, vocab: u64, context: usize) {
        // If the last token is only predicted, it needs no position.
        let longest = context.saturating_add(usize::from(!self.needs().reads_last()));
        self.2 = Limits { vocab, longest, candidates: None };
    }

    /// Sets the optimizer step that the following calls belong to.
    pub fn set_clock(&mut self, clock: Clock) {
        self.3 = clock;
    }

    /// Returns the batch that objective `index` gets in `weigh` and `loss`: `batch`, its part of what this objective prepared,
    /// and the step.
    pub fn given<'a>(
        &self,
        index: usize,
        batch: &'a Batch<'_>,
        joined: &PreparedArrays,
        part: MicroBatchRange,
    ) -> Batch<'a> {
        self.3.on(joined.with(index, batch, part))
    }

    /// Returns the arrays of a whole window or rollout that `prepare` gets: `whole` and the step.
    pub fn given_whole<'a>(&self, whole: &'a Batch<'_>) -> Batch<'a> {
        self.3.on(borrowed(whole))
    }

    /// Returns the attention mask that all objectives require.
    pub fn attention(&self) -> &AttentionMask {
        self.0.first().map_or(&AttentionMask::CAUSAL, |active| &active.requirements.attention)
    }

    /// Iterates over the objectives.
    pub fn iter(&self) -> impl Iterator<Item = &Active> {
        self.0.iter()
    }

    /// Iterates over the objectives mutably.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Active> {
        self.0.iter_mut()
    }

    /// Returns the factor on the terms of objective `index`.
    pub fn weight(&self, index: usize) -> f64 {
        self.0.get(index).map_or(0.0, |a| a.weight)
    }

    /// Returns the temperature that divides the logits for all statistics.
    pub fn temperature(&self) -> f64 {
        self.1
    }

    /// Sets the temperature of the statistics. With the temperature of the sampling, log-probabilities are those of the sampled
    /// answers.
    pub fn set_temperature(&mut self, temperature: f64) {
        self.1 = temperature;
    }

    /// Calls each objective's `prepare` with the whole window, before it is cut: with the data, and with the statistics of the
    /// micro-batches `read` if the objective requires those. Returns the arrays that are added to the micro-batches.
    ///
    /// # Errors
    /// Errors of plugins, with the plugin's name; arrays that [`contract::prepared`] refuses.
    pub fn prepare(
        &mut self,
        parts: &[PackedBatch],
        read: Option<&[Batch<'_>]>,
        marker: &CrashMarker,
    ) -> Result<PreparedArrays> {
        let packed = join(parts);
        let data = self.3.on(data_arrays(&packed));
        let with_statistics = read.map(|read| self.3.on(join_batches(read, &packed)));
        let mut answers = Vec::with_capacity(self.0.len());
        for active in &mut self.0 {
            let whole = with_statistics.as_ref().filter(|_| active.requirements.window_statistics).unwrap_or(&data);
            marker.objective(&active.id, "prepare");
            let own = active.instance.prepare(whole).map_err(|e| failed(&active.id, "prepare", e))?;
            marker.host();
            contract::prepared(whole, &own, false).map_err(|why| {
                let rows: Vec<u64> = parts.iter().flat_map(|part| part.rows.iter().copied()).collect();
                broken(&active.id, "prepare", why, &rows)
            })?;
            answers.push(own);
        }
        Ok(answers.into_iter().collect())
    }

    /// Runs `work` and restores the instances' states afterwards: for batches that are not trained on.
    ///
    /// # Errors
    /// Errors of `work` and of plugins.
    pub fn keeping_state<R>(&mut self, work: impl FnOnce(&mut Self) -> Result<R>) -> Result<R> {
        let states = self.states()?;
        let done = work(self)?;
        self.put_back(states)?;
        Ok(done)
    }

    /// Returns the instances' states, in order.
    ///
    /// # Errors
    /// Errors of plugins.
    pub fn states(&self) -> Result<Vec<Vec<u8>>> {
        let state = |active: &Active| breadcrumb::within(&active.id, "state", || active.instance.state());
        self.0.iter().map(|active| state(active).map_err(|e| failed(&active.id, "state", e))).collect()
    }

    /// Restores earlier states of the instances; an empty state is skipped.
    ///
    /// # Errors
    /// Errors of plugins; an instance that refuses a state it returned, or returns a different one afterwards: a resumed run
    /// would be a different run.
    pub fn put_back(&mut self, states: Vec<Vec<u8>>) -> Result<()> {
        for (active, state) in self.0.iter_mut().zip(states) {
            active.restore_exactly(&state)?;
        }
        Ok(())
    }

    /// Computes the losses of a batch with its statistics, in the order of the objectives; `rows` are the data rows of its
    /// sequences.
    ///
    /// # Errors
    /// Errors of plugins, with the plugin's name; losses that [`contract::loss`] refuses.
    pub fn losses(
        &self,
        batch: &Batch<'_>,
        joined: &PreparedArrays,
        part: MicroBatchRange,
        rows: &[u64],
        marker: &CrashMarker,
    ) -> Result<Vec<Loss>> {
        self.0
            .iter()
            .enumerate()
            .map(|(index, active)| {
                marker.objective(&active.id, "loss");
                let batch = self.given(index, batch, joined, part);
                let loss = active.instance.loss(&batch).map_err(|e| failed(&active.id, "loss", e))?;
                contract::loss(&active.manifest, &active.requirements, &batch, &loss)
                    .map_err(|why| broken(&active.id, "loss", why, rows))?;
                Ok(loss)
            })
            .collect()
    }
}

/// Checks that all objectives that require something of this kind require the same: all read one array.
fn same<'a, T: PartialEq + 'a>(what: &str, all: &'a [Active], of: impl Fn(&'a Active) -> Option<&'a T>) -> Result<()> {
    let mut required = all.iter().filter_map(|active| Some((&active.id, of(active)?)));
    let Some((first, own)) = required.next() else { return Ok(()) };
    match required.find(|(_, other)| *other != own) {
        Some((other, _)) => {
            Err(Error::request(format!("objectives \"{first}\" and \"{other}\" require different {what}")))
        }
        None => Ok(()),
    }
}
