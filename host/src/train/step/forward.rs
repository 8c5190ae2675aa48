//! Runs the experiment's models on one packed batch: forward to the statistics that objectives read, and backward from their
//! cotangents.

use plugin_api::batch::{Batch, Scope, names};

use super::{
    cotangents::TokenCotangents,
    models::{Comparing, Comparisons, CriticModel, Models},
};
use crate::{
    data::PackedBatch,
    device::Buffer,
    error::Result,
    model::{Forward, Head, HeadRequest, Keep, Model},
    objectives::{
        Objectives,
        batch_arrays::{data_arrays, supervised_rows, with_statistics},
        micro_batch::{after_targets, at_ends, view},
        needs::Needs,
    },
};

/// The models of an experiment and the objectives that read their statistics.
#[derive(Clone, Copy)]
pub struct ForwardPass<'a> {
    /// The models.
    pub models: Models<'a>,
    /// The objectives that read the statistics.
    pub objectives: &'a Objectives,
}

/// A batch after the models' forward pass.
pub struct ForwardOutput {
    /// Its data and statistics.
    pub batch: Batch<'static>,
    forward: Forward,
    head: Option<Head>,
    critic: Option<Forward>,
    comparisons: Comparisons,
}

impl<'a> ForwardPass<'a> {
    /// Returns the statistics to compute in the language-model head, for the tokens `rows` of `packed`.
    pub fn request<'r>(&self, packed: &'r PackedBatch, rows: &'r [i32]) -> HeadRequest<'r> {
        HeadRequest {
            rows: (rows.len() < packed.len()).then_some(rows),
            temperature: self.objectives.temperature(),
            statistics: self.objectives.statistics(),
            ..HeadRequest::new(&packed.targets)
        }
    }

    /// Runs every model that an objective reads.
    ///
    /// # Errors
    /// Errors of the backend.
    pub fn run(&self, packed: &PackedBatch, keep: Keep) -> Result<ForwardOutput> {
        let (needs, rows) = (self.objectives.needs(), supervised_rows(packed));
        let forward = self.models.policy.forward(view(packed), keep)?;
        let head = match needs.tokens {
            true => Some(self.models.policy.head_stats(&forward, &self.request(packed, &rows))?),
            false => None,
        };
        let mut batch = match &head {
            Some(head) => with_statistics(packed, &rows, self.objectives.statistics(), Some(&head.stats))?,
            None => data_arrays(packed),
        };
        if needs.score || needs.token_score {
            let scalars = self.models.policy.scalars(&forward)?;
            if needs.score {
                batch = batch.with_statistic(names::SCORE, Scope::SEQUENCE, at_ends(packed, &scalars));
            }
            if needs.token_score {
                let scores = after_targets(packed, &scalars);
                batch = batch.with_statistic(names::TOKEN_SCORE, Scope::TOKEN, scores);
            }
        }
        let mut critic = None;
        if needs.critic {
            let own = self.models.critic.as_ref().map(|role| role.model.forward(view(packed), keep)).transpose()?;
            let values = match (&self.models.critic, &own) {
                (Some(role), Some(own)) => role.model.scalars(own)?,
                _ => self.models.policy.scalars(&forward)?,
            };
            let ends = at_ends(packed, &values);
            batch = batch.with_statistic(names::CRITIC_VALUE, Scope::TOKEN, values);
            batch = batch.with(names::CRITIC_VALUE_END, Scope::SEQUENCE, ends);
            critic = own;
        }
        let comparing = Comparing { models: self.models, objectives: self.objectives, packed, rows: &rows };
        let (batch, comparisons) = comparing.run(&forward, batch)?;
        batch.check()?;
        Ok(ForwardOutput { batch, forward, head, critic, comparisons })
    }

    /// Adds the gradients, given the cotangents of all statistics: the policy's to `grads`, a critic's to its own.
    ///
    /// # Errors
    /// Errors of the backend. The gradients are then undefined.
    pub fn backward(&self, ran: ForwardOutput, sums: &TokenCotangents, grads: &Buffer) -> Result<()> {
        let ForwardOutput { forward, head, critic, comparisons, batch: _ } = ran;
        let mut dhidden = match head {
            Some(_) if sums.is_only_compared() => None,
            Some(head) => Some(self.models.policy.head_backward(head, &sums.as_cotangents(), grads)?),
            None => None,
        };
        dhidden = comparisons.backward(&self.models, &sums.kl, sums.of_candidates(), dhidden, grads)?;
        let own = self.models.critic.as_ref().zip(critic);
        let shared = own.is_none().then_some(sums.value.as_deref()).flatten();
        for scalars in [sums.score.as_deref(), shared].into_iter().flatten() {
            dhidden = Some(self.models.policy.scalars_backward(&forward, scalars, dhidden, grads)?);
        }
        let dhidden = match dhidden {
            Some(dhidden) => dhidden,
            None => self.models.policy.no_cotangent(&forward)?,
        };
        self.models.policy.backward(forward, dhidden, grads)?;
        match (own, &sums.value) {
            (Some((CriticModel { model, grads }, forward)), Some(values)) => {
                let dhidden = model.scalars_backward(&forward, values, None, grads)?;
                model.backward(forward, dhidden, grads)
            }
            _ => Ok(()),
        }
    }

    /// Returns what the objectives need of the models.
    pub fn needs(&self) -> Needs {
        self.objectives.needs()
    }
}

/// Returns `model`'s log-probabilities of the targets at the tokens `rows`.
///
/// # Errors
/// Errors of the backend.
pub fn logps(model: &Model, packed: &PackedBatch, rows: &[i32], temperature: f64) -> Result<Vec<f64>> {
    let forward = model.forward(view(packed), Keep::Nothing)?;
    let rows = (rows.len() < packed.len()).then_some(rows);
    let request = HeadRequest { rows, temperature, ..HeadRequest::new(&packed.targets) };
    Ok(model.head_stats(&forward, &request)?.stats.logp)
}
