//! The experiment's objectives: what they read, what they compose and prepare, and their losses.

pub mod active;
#[cfg(test)]
mod array_tests;
pub mod batch_arrays;
pub mod clock;
pub mod compose;
pub mod micro_batch;
pub mod prepared_arrays;
pub mod reads;

use plugin_api::{
    batch::{Batch, names},
    contract::{self, Limits},
    manifest::{AttentionMask, Candidates, DataKind, Divergence},
    objective::{Loss, role_of},
};

use crate::{
    data::{PackedBatch, Window},
    error::{Error, Result},
    model::Statistics,
    runs::breadcrumb::{self, CrashMarker},
};
use active::{Active, broken, failed};
use batch_arrays::{data_arrays, join_batches};
use clock::Clock;
use compose::{rows_of, sequences_of};
use micro_batch::{MicroBatchRange, join};
use prepared_arrays::{PreparedArrays, borrowed};
use reads::{Frozen, RoleReads};

/// Which models the objectives need, and which of the policy's outputs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// Any statistic of the language-model head; a reward model or a critic has no such head.
    pub tokens: bool,
    /// The scalar head's score of a sequence.
    pub score: bool,
    /// The scalar head's scores of tokens.
    pub token_score: bool,
    /// A statistic of the frozen reference.
    pub reference: bool,
    /// More of the reference than its log-probabilities of the targets, so that it runs in every step.
    pub reference_in_step: bool,
    /// A statistic of the teacher.
    pub teacher: bool,
    /// A statistic of the model that reads the same answers behind other prompts.
    pub context: bool,
    /// A critic's values.
    pub critic: bool,
    /// Rollouts: rows are prompts, and the policy answers them first.
    pub rollouts: bool,
}

impl Needs {
    /// Whether an objective reads at the end of a sequence, so that its last token is read too.
    pub fn reads_last(self) -> bool {
        self.score || self.token_score || self.critic
    }

    /// Whether a statistic of this frozen role is read.
    pub fn frozen(self, role: Frozen) -> bool {
        match role {
            Frozen::Reference => self.reference,
            Frozen::Teacher => self.teacher,
            Frozen::Context => self.context,
        }
    }
}

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

    /// Whether all cotangents are known before the head runs.
    pub fn linear(&self) -> bool {
        let needs = self.needs();
        let alone = needs.tokens && !needs.score && !needs.token_score && !needs.critic && !needs.rollouts;
        let in_step = needs.reference_in_step || needs.teacher || needs.context || self.reads(None).of_candidates();
        alone && !in_step && self.0.iter().all(|a| a.requirements.linear && !a.couples() && !a.reads("entropy"))
    }

    /// Returns which models and outputs the objectives need.
    pub fn needs(&self) -> Needs {
        let any = |name: &str| self.0.iter().any(|a| a.reads(name));
        let (policy, [reference, teacher, context]) =
            (self.reads(None), Frozen::ALL.map(|role| (self.reads(Some(role)), self.candidates_from(role))));
        let compares = [reference.0, teacher.0, context.0].iter().any(|reads| reads.kl);
        let own_ids = self.candidates().is_some_and(|candidates| candidates.from == reads::POLICY);
        let beyond_logp = RoleReads { head: false, ..reference.0 }.any() || reference.0.statistics.any() || reference.1;
        Needs {
            tokens: policy.any() || compares || own_ids,
            score: any(names::SCORE),
            token_score: any(names::TOKEN_SCORE),
            reference: reference.0.any() || reference.1,
            reference_in_step: beyond_logp,
            teacher: teacher.0.any() || teacher.1,
            context: context.0.any() || context.1,
            critic: any(names::CRITIC_VALUE) || any(names::CRITIC_VALUE_END),
            rollouts: self.0.iter().any(|a| a.manifest.data == DataKind::PROMPT),
        }
    }

    /// Whether any objective requires the statistic of this name.
    pub fn requires(&self, statistic: &str) -> bool {
        self.0.iter().any(|active| active.reads(statistic))
    }

    /// Whether all answers to a prompt must be in one micro-batch.
    pub fn whole_groups(&self) -> bool {
        self.0.iter().any(|active| active.requirements.whole_groups)
    }

    /// Returns what the objectives read of a frozen role; `None`: of the policy.
    pub fn reads(&self, role: Option<Frozen>) -> RoleReads {
        let any = |name: &str| self.0.iter().any(|active| active.reads(name));
        match role {
            None => RoleReads::of(any),
            Some(role) => RoleReads::of(|base| any(&role.statistic(base))),
        }
    }

    /// Returns which divergence the statistics `ROLE.kl` are.
    pub fn divergence(&self) -> Option<Divergence> {
        self.0.iter().find_map(|active| active.requirements.divergence)
    }

    /// Returns which ids the statistics `candidates` and `tail` are about.
    pub fn candidates(&self) -> Option<&Candidates> {
        self.0.iter().find_map(|active| active.requirements.candidates.as_ref())
    }

    /// Returns the first objective that reads this role, and what it reads; empty if none does.
    pub fn reader_of(&self, role: &str) -> (String, String) {
        let read = |active: &Active| {
            let own = active.requirements.statistics.iter().find(|name| role_of(name).0 == role);
            let from = active.requirements.candidates.as_ref().filter(|candidates| candidates.from == role);
            let what = own.map(|name| format!("`{name}`")).or(from.map(|_| "candidates of that role".to_owned()))?;
            Some((active.id.clone(), what))
        };
        self.0.iter().find_map(read).unwrap_or_default()
    }

    /// Whether the candidates are the ids that this role finds most probable.
    fn candidates_from(&self, role: Frozen) -> bool {
        self.candidates().is_some_and(|candidates| candidates.from == role.name())
    }

    /// Whether any loss couples the whole window.
    pub fn coupled(&self) -> bool {
        self.0.iter().any(Active::couples)
    }

    /// Returns the statistics that the head must compute. The largest logit is always included, since every run reports token
    /// accuracy.
    pub fn statistics(&self) -> Statistics {
        let read = Statistics::of(|name| self.0.iter().any(|a| a.reads(name)));
        Statistics { top1: true, ..read }
    }

    /// Returns the window with the sequences that an objective composes from its rows; unchanged if no objective composes.
    ///
    /// # Errors
    /// Errors of plugins, with the plugin's name; an objective that composes although it is not the only one, since all
    /// objectives share the data.
    pub fn compose(&self, window: Window, seed: u64, marker: &CrashMarker) -> Result<Window> {
        let mut composed = None;
        for active in &self.0 {
            marker.objective(&active.id, "compose");
            let rows = rows_of(window.sequences(), &active.manifest.data);
            let composed_now = active.instance.compose(&rows, seed).map_err(|e| failed(&active.id, "compose", e))?;
            marker.host();
            let Some(batch) = composed_now else {
                if active.requirements.composed_candidates().is_some() {
                    return Err(Error::run(format!(
                        "objective \"{}\", call `compose`: it returned no sequences, but its requirements name candidates from \
                         `compose`, which come with them",
                        active.id
                    )));
                }
                continue;
            };
            if self.0.len() > 1 {
                return Err(Error::request(format!(
                    "objective \"{}\" composes its own sequences, which is only possible if it is the only objective",
                    active.id
                )));
            }
            if self.needs().context {
                return Err(Error::request(format!(
                    "objective \"{}\" composes its own sequences, which have no other prompt to read `context` behind",
                    active.id
                )));
            }
            let limits = Limits { candidates: active.requirements.composed_candidates(), ..self.2 };
            contract::composed(&rows, &batch, limits).map_err(|why| {
                let rows = batch.get("row").unwrap_or_default().iter().map(|row| *row as u64).collect::<Vec<_>>();
                broken(&active.id, "compose", why, &rows)
            })?;
            let window = Window::new(sequences_of(&batch)?);
            composed = Some(
                window.map_err(|e| Error::from(e).context(format!("objective \"{}\", call `compose`", active.id)))?,
            );
        }
        self.with_last_read(composed.unwrap_or(window))
    }

    /// Sets `reads_last` on every sequence of the window if an objective needs it. Composed sequences do not have it set.
    fn with_last_read(&self, window: Window) -> Result<Window> {
        if !self.needs().reads_last() || window.sequences().iter().all(|sequence| sequence.reads_last) {
            return Ok(window);
        }
        let mut sequences = window.sequences().to_vec();
        sequences.iter_mut().for_each(|sequence| sequence.reads_last = true);
        Ok(Window::new(sequences)?)
    }

    /// Whether an objective's `prepare` reads the statistics of the whole window.
    pub fn reads_window(&self) -> bool {
        self.0.iter().any(|active| active.requirements.window_statistics)
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

#[cfg(test)]
mod tests {
    use plugin_api::{
        manifest::{ObjectiveManifest, Requirements},
        objective::Objective,
    };

    use super::*;
    use crate::data::Sequence;
    use plugin_api::batch::Scope;

    /// Composes the reverse of every row.
    struct Backwards;

    impl Objective for Backwards {
        fn compose(&self, rows: &Batch<'_>, _: u64) -> plugin_api::Result<Option<Batch<'static>>> {
            let (tokens, offsets) = (rows.get("token")?, rows.offsets()?);
            let turned: Vec<f64> =
                offsets.windows(2).flat_map(|w| tokens[w[0]..w[1]].iter().rev().copied().collect::<Vec<_>>()).collect();
            let mask = vec![1.0; turned.len()];
            let same = |name: &str| rows.get(name).map(<[f64]>::to_vec);
            let batch = Batch::new()
                .with(names::OFFSETS, Scope::BATCH, same(names::OFFSETS)?)
                .with("row", Scope::SEQUENCE, same("row")?)
                .with("token", Scope::TOKEN, turned)
                .with(names::MASK, Scope::TOKEN, mask);
            Ok(Some(batch))
        }

        fn loss(&self, _: &Batch<'_>) -> plugin_api::Result<Loss> {
            Ok(Loss::new())
        }
    }

    fn objectives(count: usize) -> Objectives {
        let active = || {
            let manifest = ObjectiveManifest::default();
            Active::new("backwards", 1.0, String::new(), manifest, Box::new(Backwards), "text").unwrap()
        };
        Objectives::new((0..count).map(|_| active()).collect()).unwrap()
    }

    fn window() -> Window {
        let ids = [vec![1, 2, 3], vec![4, 5]];
        let sequence = |(row, ids): (usize, &Vec<u32>)| Sequence {
            ids: ids.clone(),
            supervised: vec![true; ids.len()],
            row: row as u64,
            ..Default::default()
        };
        Window::new(ids.iter().enumerate().map(sequence).collect()).unwrap()
    }

    /// Catches a host that ignores the sequences that an objective composes.
    #[test]
    fn an_objective_that_composes_receives_its_own_sequences() {
        let marker = CrashMarker::default();
        let composed = objectives(1).compose(window(), 7, &marker).unwrap();
        let ids: Vec<_> = composed.sequences().iter().map(|s| s.ids.clone()).collect();
        assert_eq!(ids, [vec![3, 2, 1], vec![5, 4]]);
    }

    /// Catches composed sequences whose last token is not read, so that a score is computed one token too early.
    #[test]
    fn composed_sequences_are_read_to_their_end_if_an_objective_reads_scores() {
        let mut objectives = objectives(1);
        let read = |objectives: &Objectives| {
            let composed = objectives.compose(window(), 7, &CrashMarker::default()).unwrap();
            composed.sequences().iter().map(|sequence| sequence.reads_last).collect::<Vec<_>>()
        };
        assert_eq!(read(&objectives), [false, false]);
        objectives.0[0].requirements = Requirements::reading(["score"]);
        assert_eq!(read(&objectives), [true, true]);
    }

    #[test]
    fn two_objectives_cannot_compose_the_same_rows() {
        let error = objectives(2).compose(window(), 7, &CrashMarker::default()).unwrap_err();
        assert!(error.message().contains("the only objective"), "{}", error.report());
    }
}
