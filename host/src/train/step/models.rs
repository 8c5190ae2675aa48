//! The models of a step: the policy that learns, and those that it is compared with. The statistics of the frozen ones, and those
//! that compare the policy with them: divergences, and the log-probabilities of candidate ids.
//!
//! A frozen model reads the micro-batch that the policy reads, `context` the same answers behind other prompts. All statistics
//! are those of the supervised targets, which are the same for all models, in the same order.

use std::collections::BTreeMap;

use plugin_api::{
    batch::{Array, Batch, Scope, names},
    manifest::Candidates,
};

use crate::{
    data::PackedBatch,
    device::{Buffer, Tensor},
    error::{Error, Result},
    model::{
        CandidateCotangents, CandidateLogps, CandidateRequest, DivergenceRequest, Divergences, Forward, HeadRequest,
        Keep, Model, TopIds, TopIdsRequest,
    },
    objectives::{
        Objectives,
        batch_arrays::{gathered, spread, spread_wide, supervised_rows},
        micro_batch::{behind_other_prompts, view},
        reads::{CANDIDATES, Frozen, KL, POLICY, RoleReads, TAIL},
    },
};

/// The policy and the other models.
#[derive(Clone, Copy)]
pub struct Models<'a> {
    /// The model that learns.
    pub policy: &'a Model,
    /// The frozen reference; absent if no objective reads one, and if its log-probabilities were computed before the first
    /// step.
    pub reference: Option<&'a Model>,
    /// The frozen teacher; absent if no objective reads one.
    pub teacher: Option<&'a Model>,
    /// The model that reads the same answers behind other prompts, which may be the policy; absent if no objective reads one.
    pub context: Option<&'a Model>,
    /// A separate value model; absent if no objective reads values, and if they come from the policy's own scalar head.
    pub critic: Option<CriticModel<'a>>,
}

impl<'a> Models<'a> {
    /// Returns the model of a frozen role.
    ///
    /// # Errors
    /// It is missing.
    pub fn frozen(&self, role: Frozen) -> Result<&'a Model> {
        let model = match role {
            Frozen::Reference => self.reference,
            Frozen::Teacher => self.teacher,
            Frozen::Context => self.context,
        };
        model.ok_or_else(|| Error::run(format!("the {} model is missing", role.name())))
    }
}

/// A value model and where its gradient goes.
#[derive(Clone, Copy)]
pub struct CriticModel<'a> {
    /// The model.
    pub model: &'a Model,
    /// The gradient to add to, flat.
    pub grads: &'a Buffer,
}

/// What the backward pass of the policy needs of its comparisons with frozen models.
#[derive(Default)]
pub struct Comparisons {
    divergences: Vec<(Frozen, Divergences)>,
    candidates: Option<CandidateLogps>,
}

/// Ids per token whose log-probabilities are read.
struct Ids {
    /// `[M, K]`.
    ids: Vec<i32>,
    /// K.
    count: usize,
    /// The log-probabilities that the role gave them from which they come, if they come from one.
    found: Option<(String, TopIds)>,
}

/// One micro-batch in which the policy is compared with frozen models.
pub(super) struct Comparing<'a> {
    pub models: Models<'a>,
    pub objectives: &'a Objectives,
    pub packed: &'a PackedBatch,
    /// The supervised tokens.
    pub rows: &'a [i32],
}

impl Comparing<'_> {
    /// Runs the frozen models that the objectives read, and returns the batch with their statistics.
    ///
    /// # Errors
    /// A model or other prompts that are missing; candidates that `compose` did not return; errors of the backend.
    pub(super) fn run(&self, policy: &Forward, batch: Batch<'static>) -> Result<(Batch<'static>, Comparisons)> {
        let (needs, own) = (self.objectives.needs(), self.objectives.reads(None));
        // Computed before the first step, or when the rollout was drawn.
        let known = |role: Frozen| {
            role == Frozen::Reference && !needs.reference_in_step && batch.find(names::REFERENCE_LOGP).is_some()
        };
        let mut roles: Vec<Frozen> =
            Frozen::ALL.into_iter().filter(|role| needs.frozen(*role) && !known(*role)).collect();
        let from = self.objectives.candidates().map(|candidates| candidates.from.as_str());
        // Its ids are read by the other models.
        roles.sort_by_key(|role| from != Some(role.name()));
        let mut ids = self.own_ids(policy, &batch)?;
        let (mut batch, mut kept) = (batch, Comparisons::default());
        for role in roles {
            batch = self.role(role, policy, batch, &mut ids, &mut kept)?;
        }
        let Some(ids) = ids else { return Ok((batch, kept)) };
        if own.of_candidates() {
            let found =
                self.models.policy.candidates(policy.hidden(), &self.request(&ids, own.tail, self.own_rows()))?;
            batch = self.with_candidates(batch, "", own, ids.count, &found.logps, found.tail.as_deref());
            kept.candidates = Some(found);
        }
        if ids.found.is_some() {
            batch = batch.with_array(self.array(names::CANDIDATE_IDS, false, ids.count, &floats(&ids.ids)));
        }
        Ok((batch, kept))
    }

    /// Adds the statistics of one role.
    fn role(
        &self,
        role: Frozen,
        policy: &Forward,
        mut batch: Batch<'static>,
        ids: &mut Option<Ids>,
        kept: &mut Comparisons,
    ) -> Result<Batch<'static>> {
        let (model, reads) = (self.models.frozen(role)?, self.objectives.reads(Some(role)));
        let other = (role == Frozen::Context).then(|| behind_other_prompts(self.packed)).transpose()?;
        let packed = other.as_ref().unwrap_or(self.packed);
        let all_rows = supervised_rows(packed);
        if all_rows.len() != self.rows.len() {
            return Err(Error::run(format!(
                "{} supervised tokens behind the other prompts, expected {}",
                all_rows.len(),
                self.rows.len()
            )));
        }
        let rows = (all_rows.len() < packed.len()).then_some(all_rows.as_slice());
        let forward = model.forward(view(packed), Keep::Nothing)?;
        if reads.head {
            let request = HeadRequest {
                rows,
                temperature: self.objectives.temperature(),
                statistics: reads.statistics,
                ..HeadRequest::new(&packed.targets)
            };
            let stats = model.head_stats(&forward, &request)?.stats;
            for name in crate::model::Statistics::DIFFERENTIABLE {
                if let Some(values) = stats.get(name) {
                    let values = spread(self.packed.len(), self.rows, values);
                    batch = batch.with(role.statistic(name), Scope::TOKEN, values);
                }
            }
        }
        if reads.kl {
            let divergence = self.objectives.divergence();
            let divergence = divergence.ok_or_else(|| Error::run("no objective says which divergence it reads"))?;
            let request = DivergenceRequest { rows: self.own_rows(), other_rows: rows, divergence };
            let found = self.models.policy.divergence(policy.hidden(), model, forward.hidden(), &request)?;
            let values = spread(self.packed.len(), self.rows, &found.kl);
            batch = batch.with_statistic(role.statistic(KL), Scope::TOKEN, values);
            kept.divergences.push((role, found));
        }
        let candidates = self.objectives.candidates().filter(|candidates| candidates.from == role.name());
        if let Some(candidates) = candidates {
            *ids = Some(self.top_ids(model, forward.hidden(), rows, candidates)?);
        }
        match ids {
            Some(ids) if reads.of_candidates() => self.candidates_of(role, model, &forward, rows, ids, reads, batch),
            _ => Ok(batch),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one call site; a struct would only rename them")]
    fn candidates_of(
        &self,
        role: Frozen,
        model: &Model,
        forward: &Forward,
        rows: Option<&[i32]>,
        ids: &Ids,
        reads: RoleReads,
        batch: Batch<'static>,
    ) -> Result<Batch<'static>> {
        let prefix = role.statistic("");
        if let Some((_, found)) = ids.found.as_ref().filter(|(from, _)| from == role.name()) {
            return Ok(self.with_candidates(batch, &prefix, reads, ids.count, &found.logps, found.tail.as_deref()));
        }
        let found = model.candidates(forward.hidden(), &self.request(ids, reads.tail, rows))?;
        Ok(self.with_candidates(batch, &prefix, reads, ids.count, &found.logps, found.tail.as_deref()))
    }

    /// The ids that do not come from a frozen role: those of `compose`, or the policy's own most probable ones.
    fn own_ids(&self, policy: &Forward, batch: &Batch<'_>) -> Result<Option<Ids>> {
        let Some(candidates) = self.objectives.candidates() else { return Ok(None) };
        if candidates.from == POLICY {
            return self.top_ids(self.models.policy, policy.hidden(), self.own_rows(), candidates).map(Some);
        }
        if candidates.from != Candidates::COMPOSED {
            return Ok(None);
        }
        let count = candidates.count as usize;
        let given = batch.find(names::CANDIDATE_IDS).filter(|array| array.cols == count).ok_or_else(|| {
            let name = names::CANDIDATE_IDS;
            Error::run(format!(
                "an objective reads {count} candidates of `compose`, which did not return `{name}` with {count} columns"
            ))
        })?;
        let ids = gathered(self.rows, count, &given.data).into_iter().map(|id| id as i32).collect();
        Ok(Some(Ids { ids, count, found: None }))
    }

    fn top_ids(&self, model: &Model, hidden: &Tensor, rows: Option<&[i32]>, candidates: &Candidates) -> Result<Ids> {
        let count = candidates.count as usize;
        let request = TopIdsRequest { rows, count, temperature: self.objectives.temperature(), tail: true };
        let found = model.top_ids(hidden, &request)?;
        Ok(Ids { ids: found.ids.clone(), count, found: Some((candidates.from.clone(), found)) })
    }

    fn request<'r>(&self, ids: &'r Ids, tail: bool, rows: Option<&'r [i32]>) -> CandidateRequest<'r> {
        CandidateRequest { rows, ids: &ids.ids, count: ids.count, temperature: self.objectives.temperature(), tail }
    }

    /// The policy's supervised rows; `None`: all.
    fn own_rows(&self) -> Option<&[i32]> {
        (self.rows.len() < self.packed.len()).then_some(self.rows)
    }

    fn with_candidates(
        &self,
        mut batch: Batch<'static>,
        prefix: &str,
        reads: RoleReads,
        count: usize,
        logps: &[f64],
        tail: Option<&[f64]>,
    ) -> Batch<'static> {
        let learns = prefix.is_empty();
        if reads.candidates {
            batch = batch.with_array(self.array(&format!("{prefix}{CANDIDATES}"), learns, count, logps));
        }
        match tail.filter(|_| reads.tail) {
            Some(tail) => batch.with_array(self.array(&format!("{prefix}{TAIL}"), learns, 1, tail)),
            None => batch,
        }
    }

    fn array(&self, name: &str, differentiable: bool, cols: usize, values: &[f64]) -> Array<'static> {
        let data = spread_wide(self.packed.len(), self.rows, cols, values);
        Array { name: name.to_owned().into(), scope: Scope::TOKEN, differentiable, cols, data: data.into() }
    }
}

impl Comparisons {
    /// Adds the gradients of the comparisons to `grads`, given the cotangents of the divergences and of the candidates. Returns
    /// `dhidden` with their part of the cotangent of the policy's last hidden states.
    ///
    /// # Errors
    /// Errors of the backend. The gradients are then undefined.
    pub(super) fn backward(
        self,
        models: &Models<'_>,
        kl: &BTreeMap<Frozen, Option<Vec<f64>>>,
        given: CandidateCotangents<'_>,
        mut dhidden: Option<Tensor>,
        grads: &Buffer,
    ) -> Result<Option<Tensor>> {
        for (role, divergences) in self.divergences {
            if let Some(Some(values)) = kl.get(&role) {
                let model = models.frozen(role)?;
                dhidden = Some(models.policy.divergence_backward(divergences, model, values, dhidden, grads)?);
            }
        }
        match self.candidates {
            Some(candidates) if given.logps.is_some() || given.tail.is_some() => {
                models.policy.candidates_backward(candidates, &given, dhidden, grads).map(Some)
            }
            _ => Ok(dhidden),
        }
    }
}

fn floats(ids: &[i32]) -> Vec<f64> {
    ids.iter().map(|id| f64::from(*id)).collect()
}
