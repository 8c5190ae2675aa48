//! The models other than the policy: a frozen reference, which may track the policy, a frozen teacher, a model that reads answers
//! behind other prompts, and a separate critic.

pub mod attention;
pub mod critic;
mod lengths;
pub mod reference;
mod reference_cache;
pub(crate) mod reference_pass;
mod rows_with_reference;

use std::path::Path;

use plugin_api::{
    backend::ops::{Axpy, Copy, Scale},
    manifest::DataKind,
};

use super::step::models::{CriticModel, Models};
use crate::{
    config::{
        Mistakes,
        experiment::{Context, Follow, Model as ModelSource, POLICY, SELF, SHARED},
    },
    device::Device,
    error::{Error, Result},
    model::{Model, ModelConfig, Outputs, params::Table},
    objectives::{Objectives, reads::Frozen},
    optimizer::{self, kind::Gradient, moments},
    setup::Setup,
};
use critic::{CRITIC, Critic};
use reference::{REFERENCE, Reference};

/// The models other than the policy.
#[derive(Default)]
pub struct Roles {
    /// The reference model; absent if no objective reads one.
    pub reference: Option<Reference>,
    /// The teacher; absent if no objective reads one.
    pub teacher: Option<Model>,
    /// The model that reads the same answers behind other prompts; absent if no objective reads one.
    pub context: Option<ContextModel>,
    /// The critic; absent if no objective reads one, or if it shares the policy's trunk.
    pub critic: Option<Critic>,
}

/// The model of the role `context`.
pub enum ContextModel {
    /// The policy, with its current weights.
    Policy,
    /// A frozen model.
    Frozen(Box<Model>),
}

/// Returns the policy's outputs: those of a language model, of a reward model, or of a language model with a value head on its
/// trunk.
pub fn policy_outputs(setup: &Setup, objectives: &Objectives) -> Outputs {
    let needs = objectives.needs();
    let shared = needs.critic && setup.experiment().critic.as_ref().is_some_and(|critic| critic.from == SHARED);
    Outputs { tokens: needs.tokens, scalar: needs.score || needs.token_score || shared }
}

/// Writes into the policy's config what the run makes of it: its attention mask, and whether it scores the segments of answers.
pub fn describe(config: &mut ModelConfig, setup: &Setup, objectives: &Objectives) {
    config.attention = objectives.attention().clone();
    let separator = || setup.experiment().data.source().separator().to_owned();
    config.segment_separator = objectives.needs().token_score.then(separator);
}

impl Roles {
    /// Refuses tables and keys that no objective reads.
    pub fn check_keys(setup: &Setup, objectives: &Objectives, mistakes: &mut Mistakes) {
        let (experiment, needs) = (setup.experiment(), objectives.needs());
        for (key, given, read, what) in [
            ("reference", experiment.reference.is_some(), needs.reference, "the statistic `reference.logp`"),
            ("teacher", experiment.teacher.is_some(), needs.teacher, "a statistic such as `teacher.kl`"),
            ("context", experiment.context.is_some(), needs.context, "a statistic such as `context.kl`"),
            ("critic", experiment.critic.is_some(), needs.critic, "the statistic `critic.value`"),
            ("rollout", experiment.rollout.is_some(), needs.rollouts, "prompts that the policy answers"),
        ] {
            if given && !read && mistakes.are_free(&[key]) {
                mistakes.refuse(key, format!("unused: no objective reads a {key} ({what}); leave [{key}] out"));
            }
        }
        for (key, given, read, remedy) in [
            ("teacher", experiment.teacher.is_some(), needs.teacher, "[teacher] with from = \"runs/large\""),
            ("context", experiment.context.is_some(), needs.context, "[context] with prompt = \"prompt_with_hint\""),
        ] {
            if read && !given && mistakes.are_free(&[key]) {
                let (first, of) = objectives.reader_of(key);
                mistakes.refuse(key, format!("missing: objective \"{first}\" reads {of}; for example {remedy}"));
            }
        }
        let own = experiment.reference.as_ref().is_none_or(|table| table.from == SELF && table.adapter.is_none());
        if needs.reference && own && experiment.model.has_adapter() && mistakes.are_free(&["reference"]) {
            let (first, _) = objectives.reader_of("reference");
            let key = if experiment.reference.is_some() { "reference.adapter" } else { "reference" };
            mistakes.refuse(
                key,
                format!(
                    "missing: the policy is an adapter, and objective \"{first}\" reads a reference; say which one: [reference] with adapter = \
                     \"off\" (the weights of model.from alone) or adapter = \"start\" (a frozen copy of the adapter that the run starts from, \
                     such as that of an SFT stage)"
                ),
            );
        }
        if needs.context && setup.data_kind() == DataKind::TEXT.as_str() && mistakes.are_free(&["context"]) {
            let why =
                "running text has no prompts that others could replace; choose an objective that learns from rows";
            mistakes.refuse("context", why);
        }
        // The whole vocabulary leaves nothing for the tail, whose logarithm would be infinite.
        let most = setup.config.vocab - u64::from(objectives.reads_tail());
        if let Some(candidates) = objectives.candidates().filter(|ids| ids.count > most)
            && mistakes.are_free(&["objective"])
        {
            let (count, vocab) = (candidates.count, setup.config.vocab);
            let reader = objectives.iter().find(|active| active.requirements.candidates.is_some());
            let (id, table) = reader.map_or(("", 0), |active| (active.id.as_str(), active.table));
            let why = format!(
                "objective \"{id}\" reads {count} candidates per token of a vocabulary of {vocab} ids; at most {most} are possible"
            );
            mistakes.refuse(&setup.loaded.option_key(table, |_, value| value.as_u64() == Some(count)), why);
        }
        for (key, given) in
            [("eval.generate", experiment.eval.generate.is_some()), ("sample.prompts", experiment.sample.is_some())]
        {
            if given && !needs.tokens && mistakes.are_free(&[key]) {
                mistakes.refuse(key, "unused: a reward model scores answers and does not generate any; leave it out");
            }
        }
        attention::check(setup, objectives, mistakes);
    }

    /// Refuses an objective with its own text that reads another model than the policy, since only rows have those.
    pub fn check_own_text(own_text: &Objectives, key: &str, mistakes: &mut Mistakes) {
        let needs = own_text.needs();
        let others = [
            ("reference", needs.reference),
            ("teacher", needs.teacher),
            ("context", needs.context),
            ("critic", needs.critic),
        ];
        for (role, _) in others.into_iter().filter(|(_, read)| *read) {
            if mistakes.are_free(&[key]) {
                let why = format!(
                    "reads a {role}, which an objective with its own text does not have; use it alone, on rows"
                );
                mistakes.refuse(key, why);
            }
        }
    }

    /// Opens the models other than the policy, from the run's `checkpoint` if it contains them. `None` after mistakes, such as a
    /// folder without a fitting model, which are collected.
    ///
    /// # Errors
    /// Failures that are not mistakes, such as a lack of memory.
    pub fn open(
        setup: &Setup,
        device: &Device,
        objectives: &Objectives,
        checkpoint: Option<&Path>,
        mistakes: &mut Mistakes,
    ) -> Result<Option<Roles>> {
        let (experiment, needs) = (setup.experiment(), objectives.needs());
        let reference = needs.reference.then(|| Reference::open(setup, device, checkpoint)).transpose();
        let reference = mistakes.check("reference", reference)?;
        let read = objectives.reads(Some(Frozen::Reference));
        let compared = read.kl || read.of_candidates();
        let vocab = reference.as_ref().and_then(|role| Some(role.as_ref()?.model.as_ref()?.config().vocab));
        if let Some(vocab) = vocab.filter(|vocab| compared && *vocab != setup.config.vocab) {
            let own = setup.config.vocab;
            let why = format!("a vocabulary of {vocab} ids, the policy's has {own}; they are compared id by id");
            mistakes.refuse("reference.from", why);
        }
        let teacher = experiment.teacher.as_ref().filter(|_| needs.teacher);
        let teacher = teacher.map(|table| frozen_role(setup, "teacher.from", device, &table.from)).transpose();
        let teacher = mistakes.check("teacher", teacher)?;
        let context = experiment.context.as_ref().filter(|_| needs.context);
        let context =
            mistakes.check("context", context.map(|table| context_model(setup, device, table)).transpose())?;
        let create = |layout: &Table| optimizer::create(device, layout, &experiment.train.optimizer);
        let critic = needs.critic.then(|| Critic::open(setup, device, checkpoint, create)).transpose();
        let critic = mistakes.check("critic", critic)?;
        let (Some(mut reference), Some(teacher), Some(context), Some(critic)) = (reference, teacher, context, critic)
        else {
            return Ok(None);
        };
        let mut critic = critic.flatten();
        // Both are like the policy; other models read a sequence with the mask that they were trained with.
        let of_reference = reference.iter_mut().filter_map(|reference| reference.model.as_mut());
        let of_critic = critic.iter_mut().map(|critic| &mut critic.model);
        let models = of_reference.map(|model| ("reference.from", model));
        for (key, model) in models.chain(of_critic.map(|model| ("critic.from", model))) {
            attention::check_role(key, &model.config().attention, objectives, mistakes);
            model.config_mut().attention = objectives.attention().clone();
            model.config_mut().segment_separator = None;
        }
        if let (Some(critic), Some(checkpoint)) = (&critic, checkpoint) {
            moments::read_moments(critic.optimizer.as_ref(), &checkpoint.join(CRITIC))?;
        }
        Ok(Some(Roles { reference, teacher, context, critic }))
    }

    /// Returns the models of a step whose policy is `policy`.
    pub fn models<'a>(&'a self, policy: &'a Model) -> Models<'a> {
        Models {
            policy,
            reference: self.reference.as_ref().and_then(|reference| reference.model.as_ref()),
            teacher: self.teacher.as_ref(),
            context: self.context.as_ref().map(|context| match context {
                ContextModel::Policy => policy,
                ContextModel::Frozen(model) => model,
            }),
            critic: self.critic.as_ref().map(|critic| CriticModel { model: &critic.model, grads: &critic.grads }),
        }
    }

    /// Returns whether the reference stays on the device for the whole run.
    pub fn reference_stays(&self) -> bool {
        self.reference.as_ref().is_some_and(|reference| reference.model.is_some() && !reference.dropped_early)
    }

    /// Returns the layouts of all models that learn: the policy's, and that of a separate critic.
    pub fn learning<'a>(&'a self, policy: &'a Table) -> Vec<&'a Table> {
        let critic = self.critic.as_ref().map(|critic| critic.model.learned().table);
        [policy].into_iter().chain(critic).collect()
    }

    /// Zeroes the critic's gradient.
    ///
    /// # Errors
    /// Errors of the backend.
    pub fn zero(&self) -> Result<()> {
        self.critic.as_ref().map_or(Ok(()), |critic| critic.model.zero(&critic.grads))
    }

    /// Measures the critic's gradient, if there is a critic.
    ///
    /// # Errors
    /// Errors of the backend.
    pub fn measure(&mut self) -> Result<Option<Gradient>> {
        self.critic.as_mut().map(|critic| critic.optimizer.measure(&critic.grads)).transpose()
    }

    /// Updates the critic, at the policy's learning rate `lr` times its own factor.
    ///
    /// # Errors
    /// Errors of the backend.
    pub fn update(&mut self, lr: f64) -> Result<()> {
        let Some(critic) = &mut self.critic else { return Ok(()) };
        let learned = critic.model.learned();
        critic.optimizer.update(learned.params, learned.shadow, &critic.grads, lr * critic.rate)
    }

    /// Updates the reference after step `step`, counted from 1, if it tracks the policy.
    ///
    /// # Errors
    /// Errors of the backend.
    pub fn update_reference(&self, policy: &Model, step: u64) -> Result<()> {
        let Some(Reference { model: Some(model), follow: Some(follow), .. }) = &self.reference else { return Ok(()) };
        let y = model.learned().params.view();
        let x = policy.learned().params.matrix(0, 1, y.cols);
        match follow {
            Follow::CopyEvery(steps) if step.is_multiple_of(*steps) => policy.device().call(&Copy { x, y })?,
            Follow::CopyEvery(_) => return Ok(()),
            Follow::Average(share) => {
                policy.device().call(&Scale { x: y, alpha: *share })?;
                policy.device().call(&Axpy { x, y, alpha: 1.0 - share })?;
            }
        }
        model.refresh_shadow()
    }

    /// Writes what a checkpoint needs to resume with the same models.
    ///
    /// # Errors
    /// Errors of the file system.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let make = |name: &str| {
            let own = folder.join(name);
            std::fs::create_dir(&own)
                .map(|()| own.clone())
                .map_err(|e| Error::run(format!("cannot create {}", own.display())).with_cause(e))
        };
        if let Some(Reference { model: Some(model), follow: Some(_), .. }) = &self.reference {
            model.save(&make(REFERENCE)?)?;
        }
        if let Some(critic) = &self.critic {
            let own = make(CRITIC)?;
            critic.model.save(&own)?;
            moments::write_moments(critic.optimizer.as_ref(), &own)?;
        }
        Ok(())
    }
}

/// Loads a frozen language model whose distributions are compared with the policy's, id by id.
fn frozen_role(setup: &Setup, key: &str, device: &Device, path: &str) -> Result<Model> {
    let model = setup.role_of_any_context(key, device, path, Outputs::TOKENS)?;
    let (own, policy) = (model.config().vocab, setup.config.vocab);
    if own != policy {
        let remedy = match setup.experiment().model {
            ModelSource::Shape(_) if own > policy => format!("set model.vocab = {own}"),
            _ => format!("name a model with {policy} ids"),
        };
        let why = format!(
            "{path} has a vocabulary of {own} ids, the policy's has {policy}; they are compared id by id, also those that no \
             text contains: {remedy}"
        );
        return Err(setup.loaded.refuse(key, why));
    }
    Ok(model)
}

/// Loads the model of the role `context`, unless it is the policy.
fn context_model(setup: &Setup, device: &Device, table: &Context) -> Result<ContextModel> {
    match table.from.as_str() {
        POLICY => Ok(ContextModel::Policy),
        path => frozen_role(setup, "context.from", device, path).map(|model| ContextModel::Frozen(Box::new(model))),
    }
}
