//! Finds every error that can be found before the first stage trains: in all stages' keys, plugins, devices and
//! data.
//!
//! A stage that starts from one that has not run yet is checked with that stage's tokenizer and shape.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use super::folder::Task;
use crate::{
    config::{
        Loaded, Pipeline,
        pipeline::{StageModel, Which},
    },
    error::{Error, Kind, Result, refusal_text},
    model::{
        ModelConfig,
        adapter::Shape,
        params::{Layout, Table},
    },
    objectives::Objectives,
    optimizer::groups::check_groups,
    plugins::Pinning,
    setup::{
        Setup,
        loading::Plugins,
        named::{AdapterStart, NamedModel, PendingAdapter, PendingModels},
    },
    train::{
        auxiliary::AuxiliaryObjective,
        dry_run::try_metric_names,
        roles::{Roles, describe, policy_outputs},
        rollout::{Rollouts, rewards::Rewards},
    },
};

/// A stage whose own keys are valid.
pub struct StagePlan {
    /// Its experiment.
    pub loaded: Loaded,
    /// Its plugins.
    pub plugins: Plugins,
}

/// Reads all stages and loads their plugins.
///
/// # Errors
/// One request error with every mistake of every stage; or a plugin that changed or cannot be loaded.
pub fn read(pipeline: &Pipeline, folders: &[PathBuf], pinning: Pinning) -> Result<Vec<StagePlan>> {
    let mut drafts: Vec<_> = (0..pipeline.stages().len()).map(|index| pipeline.draft(index)).collect();
    let plugins = drafts.iter_mut().map(|draft| Plugins::load(draft, folders, pinning));
    let mut plugins = plugins.collect::<Result<Vec<Plugins>>>()?;
    let loaded = pipeline.finish(drafts)?;
    // A plugin that is not there leaves its options unchecked, so that a finished stage would seem to have changed.
    plugins.iter_mut().zip(&loaded).try_for_each(|(plugins, loaded)| plugins.check_loaded(loaded))?;
    for (index, stage) in pipeline.stages().iter().enumerate() {
        for input in &stage.inputs {
            let (name, checkpoint) = (&pipeline.stages()[input.stage].name, &loaded[input.stage].experiment.checkpoint);
            let why = match input.which {
                Which::Best if checkpoint.best.is_none() => {
                    "keeps no best checkpoint; set eval.every in that stage (and checkpoint.best, if it has no default), or leave /best out"
                }
                Which::Merged if !checkpoint.merged => {
                    "merges no adapter; set checkpoint.merged = true in that stage, or leave /merged out"
                }
                _ => continue,
            };
            return Err(loaded[index].refuse(&input.key, format!("stage `{name}` {why}")));
        }
    }
    Ok(loaded.into_iter().zip(plugins).map(|(loaded, plugins)| StagePlan { loaded, plugins }).collect())
}

/// Prepares the stages that will run as far as is possible without training: data, devices, objectives.
///
/// # Errors
/// One request error with the errors of all stages.
pub fn try_out(pipeline: &Pipeline, stages: Vec<StagePlan>, tasks: &[Task]) -> Result<()> {
    let will_run = |index: usize| tasks[index].resumes().is_some();
    let wanted = |index: usize| will_run(index);
    each(pipeline, stages, wanted, will_run, |_, setup| {
        let mut mistakes = setup.take_mistakes();
        let device = setup.device_or_mistakes(&mut mistakes)?;
        let mut objectives = setup.objectives_or_mistakes(&mut mistakes)?;
        let mut opened = None;
        if let Some(objectives) = &objectives {
            let outputs = policy_outputs(setup, objectives);
            mistakes.check(setup.start_key(), setup.check_start(outputs))?;
            let layout = Layout::new(&ModelConfig { outputs, ..setup.config.clone() })?;
            let scalar = outputs.scalar.then_some(setup.config.dim);
            let shape = |start: &AdapterStart| Shape::new(&layout, &start.settings(&setup.config)?, scalar);
            let adapter =
                mistakes.check("model.lora.targets", setup.adapter.as_ref().map(shape).transpose())?.flatten();
            let adapter = adapter.map(|shape| shape.table);
            let learned: &Table = adapter.as_ref().unwrap_or(&layout);
            Roles::check_keys(setup, objectives, &mut mistakes);
            Rollouts::check_keys(setup, objectives, &mut mistakes);
            if let Some(device) = &device {
                opened = Roles::open(setup, device, objectives, None, &mut mistakes)?;
            }
            if let Some(roles) = &opened {
                let groups = check_groups(&roles.learning(learned), &setup.experiment().train.optimizer.groups);
                mistakes.check("train.optimizer.groups", groups)?;
            }
        }
        if let Some(device) = &device {
            let rewards = Rewards::open(setup, device, &mut mistakes)?;
            if let (Some(rewards), Some(objectives)) = (rewards, &objectives) {
                rewards.check_arrays(setup, objectives, &mut mistakes);
            }
        }
        let data = setup.data_or_mistakes(true, &mut mistakes)?;
        if let (Some(roles), Some(objectives), Some(data)) = (&opened, &mut objectives, &data) {
            roles.check_lengths(setup, objectives, data, &mut mistakes);
        }
        if let Some(data) = data.as_ref().filter(|_| mistakes.are_free(&["train.batch"])) {
            mistakes.check("train.batch", setup.batcher(data))?;
        }
        AuxiliaryObjective::all(setup, &mut mistakes)?;
        mistakes.check("sample.prompts", setup.check_samples())?;
        // Saved with the model, so that a later stage finds it there.
        if let Some(template) = data.as_ref().and_then(|data| data.chat_template.as_ref()) {
            setup.tokenizer.set_chat_template(template);
        }
        mistakes.finish()?;
        data.map(drop).ok_or_else(|| Error::run("the data was not read"))
    })
    .map(|_| ())
}

/// Checks that `stage` reports metrics, each given with the key that names it. Models of stages that have not run are replaced by
/// fresh weights of their shapes.
///
/// # Errors
/// One request error with every metric that the stage does not report.
pub fn try_metrics(
    pipeline: &Pipeline,
    stages: Vec<StagePlan>,
    tasks: &[Task],
    stage: usize,
    metrics: &[(String, String)],
) -> Result<()> {
    let will_run = |index: usize| tasks[index].resumes().is_some();
    let wanted = |index: usize| index == stage || (index < stage && will_run(index));
    each(pipeline, stages, wanted, will_run, |index, setup| {
        if index < stage {
            return Ok(());
        }
        setup.compared_by = metrics.to_vec();
        try_metric_names(setup)
    })
    .map(|_| ())
}

/// Prepares the `wanted` stages in order and calls the function on each. A model from a stage that `awaits`
/// replaces a model folder. A stage that fails leaves the shape of its model, so that those after it are checked too; if
/// that shape is not known, a stage that uses the model is skipped.
///
/// # Errors
/// The errors of all stages, combined into one.
pub fn each<T>(
    pipeline: &Pipeline,
    stages: Vec<StagePlan>,
    wanted: impl Fn(usize) -> bool,
    awaits: impl Fn(usize) -> bool,
    mut attempt: impl FnMut(usize, &mut Setup) -> Result<T>,
) -> Result<Vec<T>> {
    let (mut awaited, mut found, mut errors) = (PendingModels::new(), Vec::new(), Vec::new());
    // Stages whose objectives were refused, so that it is not known whether their models score or write.
    let mut unknown = BTreeSet::new();
    for (index, stage) in stages.into_iter().enumerate().filter(|(index, _)| wanted(*index)) {
        let missing = |stage: usize| awaits(stage) && !awaited.contains_key(&pipeline.stage_folder(stage));
        let inputs = &pipeline.stages()[index].inputs;
        let may_be_none =
            |input: &StageModel| unknown.contains(&input.stage) && !LANGUAGE_MODELS.contains(&input.key.as_str());
        if inputs.iter().any(|input| missing(input.stage) || may_be_none(input)) {
            continue;
        }
        let mut setup = match stage.plugins.prepare(stage.loaded, &awaited) {
            Ok(setup) => setup,
            Err(error) => {
                errors.push((index, error));
                continue;
            }
        };
        let failed = match attempt(index, &mut setup) {
            Ok(tried) => {
                found.push(tried);
                false
            }
            // Nothing more can be learned from a plugin that fails.
            Err(error) if error.kind() != Kind::Request => {
                errors.push((index, error));
                continue;
            }
            Err(error) => {
                errors.push((index, error));
                true
            }
        };
        if awaits(index) {
            let objectives = match failed {
                true => setup.objectives().ok(),
                false => Some(setup.objectives()?),
            };
            if objectives.is_none() {
                unknown.insert(index);
            }
            match produced_model(setup, objectives.as_ref()) {
                Ok(model) => _ = awaited.insert(pipeline.stage_folder(index), model),
                // Reported by the attempt.
                Err(_) if failed => {}
                Err(error) => errors.push((index, error)),
            }
        }
    }
    match errors.len() {
        0 => Ok(found),
        _ => Err(combined(pipeline, errors)),
    }
}

/// Keys that name a language model.
const LANGUAGE_MODELS: [&str; 4] = ["model.from", "reference.from", "teacher.from", "context.from"];

/// The model that a stage will produce; without its objectives, one like that which it starts from.
///
/// # Errors
/// A request error for an adapter that cannot be read.
fn produced_model(setup: Setup, objectives: Option<&Objectives>) -> Result<Arc<NamedModel>> {
    let mut config = setup.config.clone();
    if let Some(objectives) = objectives {
        config.outputs = policy_outputs(&setup, objectives);
        // The model's score statistics are measured when it is evaluated; until then any values will do.
        if config.outputs.scalar && setup.experiment().data.source().holds_out() {
            config.scores = Some((0.0, 1.0));
        }
        describe(&mut config, &setup, objectives);
    }
    let settings = setup.adapter.as_ref().map(|start| start.settings(&setup.config)).transpose()?;
    let adapter =
        settings.map(|settings| PendingAdapter::of(&setup.experiment().model, setup.model_folder.as_deref(), settings));
    Ok(Arc::new(NamedModel { folder: None, tokenizer: setup.tokenizer, config, adapter }))
}

/// Combines the errors of several stages into one.
fn combined(pipeline: &Pipeline, mut errors: Vec<(usize, Error)>) -> Error {
    let name = |index: usize| &pipeline.stages()[index].name;
    if errors.len() == 1 {
        let (index, error) = errors.remove(0);
        return error.context(format!("stage \"{}\" cannot run", name(index)));
    }
    let kind = errors.iter().map(|(_, error)| error.kind()).next().unwrap_or(Kind::Request);
    let lines = errors.iter().map(|(index, error)| format!("stage \"{}\": {}", name(*index), refusal_text(error)));
    Error::new(kind, format!("{} stages cannot run", errors.len())).with_details(lines)
}
