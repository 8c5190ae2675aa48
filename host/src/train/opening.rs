//! Opens an experiment's learner: models, objectives, rewards and data order, all checked.

use std::path::Path;

use super::{
    auxiliary::AuxiliaryObjective,
    learner::Learner,
    memory::largest_rows::forward_tokens,
    roles::{
        self, Roles,
        attention::check_own_text,
        policy_outputs,
        reference_pass::{self, ReferencePass},
    },
    rollout::{Rollouts, rewards::Rewards},
};
use crate::{
    config::Mistakes,
    data::TrainingData,
    device::Device,
    error::{Error, Result},
    model::Model,
    objectives::Objectives,
    runs::breadcrumb,
    setup::Setup,
};

/// A learner with the data it learns from.
pub struct Opened {
    /// The model and everything that trains it.
    pub learner: Learner,
    /// The data as the models read it.
    pub data: TrainingData,
    /// Number of optimizer steps of the run.
    pub steps: u64,
    /// The pass in which a frozen reference scores rows before the first step.
    pub reference: Option<ReferencePass>,
}

impl Opened {
    /// Returns the learner and the data.
    pub fn parts(&mut self) -> (&mut Learner, &TrainingData) {
        (&mut self.learner, &self.data)
    }
}

/// Opens the experiment's models on `device`: from `checkpoint`, or with their initial weights if there is none. With `cached`, a
/// frozen reference can score all rows before the first step and keep the results in the runs folder; without `cached`, it runs in
/// every step.
///
/// # Errors
/// Request errors for data that the objectives cannot read and for unused keys; memory.
pub fn open(
    setup: &Setup,
    device: &Device,
    data: TrainingData,
    checkpoint: Option<&Path>,
    cached: bool,
) -> Result<Opened> {
    let mut mistakes = setup.loaded.mistakes();
    let opened = open_or_mistakes(setup, Some(device), Some(data), checkpoint, cached, &mut mistakes)?;
    mistakes.finish()?;
    opened.ok_or_else(|| Error::run("the models were not opened"))
}

/// As [`open`]; mistakes are collected. `None` if something is missing because of them, `device` or `data` for example. An opened
/// learner with mistakes serves to find more of them. After a mistake no weights are read from files, which may take minutes.
///
/// # Errors
/// Failures that are not mistakes.
pub fn open_or_mistakes(
    setup: &Setup,
    device: Option<&Device>,
    data: Option<TrainingData>,
    checkpoint: Option<&Path>,
    cached: bool,
    mistakes: &mut Mistakes,
) -> Result<Option<Opened>> {
    if !mistakes.are_free(&["backend"]) {
        return Ok(None);
    }
    let fits = mistakes.check("model", setup.check_model())?.is_some();
    if !objectives_are_free(setup, mistakes) {
        return Ok(None);
    }
    let Some(objectives) = setup.objectives_or_mistakes(mistakes)? else { return Ok(None) };
    Roles::check_keys(setup, &objectives, mistakes);
    Rollouts::check_keys(setup, &objectives, mistakes);
    let auxiliary = AuxiliaryObjective::all(setup, mistakes)?;
    for own in auxiliary.iter().flatten() {
        let table = own.objectives.iter().next().map_or(0, |active| active.table);
        let key = setup.loaded.key_of("objective", table);
        check_own_text(&objectives, &own.objectives, &key, mistakes);
        Roles::check_own_text(&own.objectives, &key, mistakes);
    }
    let reads_weights = setup.model_folder.is_some() || !setup.role_paths().is_empty() || checkpoint.is_some();
    let (Some(device), true) = (device, fits && (mistakes.are_none() || !reads_weights)) else { return Ok(None) };
    let roles = match mistakes.are_free(&["train.optimizer"]) {
        true => on_backend(setup, || Roles::open(setup, device, &objectives, checkpoint, mistakes))?,
        false => None,
    };
    if reads_weights && !mistakes.are_none() {
        return Ok(None);
    }
    let outputs = policy_outputs(setup, &objectives);
    let model = on_backend(setup, || setup.model(device, checkpoint, outputs)).map(|mut model| {
        roles::describe(model.config_mut(), setup, &objectives);
        model
    });
    let model = mistakes.check(setup.start_key(), model)?;
    let opened = match (data, model, roles) {
        (Some(data), Some(model), Some(roles)) => learner_of(setup, data, model, roles, objectives, cached, mistakes)?,
        _ => None,
    };
    let rewards = match mistakes.are_free(&["reward"]) {
        true => on_backend(setup, || Rewards::open(setup, device, mistakes))?,
        false => None,
    };
    let (Some(mut opened), Some(rewards), Some(auxiliary)) = (opened, rewards, auxiliary) else { return Ok(None) };
    let Opened { learner, data, steps, .. } = &mut opened;
    rewards.check_arrays(setup, &learner.objectives, mistakes);
    learner.rewards = rewards;
    learner.rewards.compute_at_most(forward_tokens(setup, &learner.objectives, &*data.train));
    learner.rollouts = Rollouts::open(setup, &learner.objectives, data);
    learner.auxiliary = auxiliary;
    learner.set_steps(*steps);
    setup.bases.drop_unused();
    Ok(Some(opened))
}

/// Runs `work`, which loads weights into the backend's session, and marks it as the backend's.
fn on_backend<R>(setup: &Setup, work: impl FnOnce() -> R) -> R {
    breadcrumb::within(&setup.experiment().backend.plugin, "load", work)
}

/// Creates the learner, without rewards, rollouts and objectives with their own text.
fn learner_of(
    setup: &Setup,
    data: TrainingData,
    model: Model,
    mut roles: Roles,
    mut objectives: Objectives,
    cached: bool,
    mistakes: &mut Mistakes,
) -> Result<Option<Opened>> {
    roles.check_lengths(setup, &mut objectives, &data, mistakes);
    let reference = reference_pass::open(setup, data, &objectives, roles.reference.as_mut(), cached);
    let Some((data, reference)) = mistakes.check("reference", reference)? else { return Ok(None) };
    if !mistakes.are_free(&["train.batch", "train.steps", "train.epochs"]) {
        return Ok(None);
    }
    let Some((batcher, steps)) = mistakes.check("train.batch", setup.batcher(&data))? else { return Ok(None) };
    let learner = on_backend(setup, || Learner::new(setup, model, roles, objectives, batcher));
    let Some(mut learner) = mistakes.check("train.optimizer.groups", learner)? else { return Ok(None) };
    if !cached {
        // Trial steps may read more than the data has: the data then begins again.
        learner.batcher.never_end();
    }
    Ok(Some(Opened { learner, data, steps, reference }))
}

/// Whether the objectives can be created: there is no mistake about their options.
fn objectives_are_free(setup: &Setup, mistakes: &Mistakes) -> bool {
    let keys = (0..setup.experiment().objective.len()).map(|index| setup.loaded.key_of("objective", index));
    keys.into_iter().all(|key| mistakes.are_free(&[&key]))
}
