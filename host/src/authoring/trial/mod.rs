//! An objective beside the nearest known one, in the quickstart world: the same start, data, seeds and steps.
//!
//! [`experiment`] has the pipeline, [`pace`] chooses its length by a short run of it, [`folder`] replaces an earlier
//! trial, and [`figures`] reads the result.

pub mod experiment;
pub mod figures;
pub mod folder;
pub mod pace;

use std::fs;
use std::path::{Path, PathBuf};

use plugin_api::manifest::{DataKind, kind};
use plugin_api_load::{Library, PluginInfo};

use crate::{
    config::Plan,
    error::{Error, Result},
    pipeline::{self, Event, Selection, report::PipelineSummary},
    plot,
    plugins::{Pinning, Registry},
    runs::{Interrupt, breadcrumb, progress::Show},
};
use experiment::{Length, Recipe, Stages};
use figures::Trial;
use folder::{EXPERIMENT, HEAD, PICTURE, TrialFolder};

/// What to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Id of the objective.
    pub id: String,
    /// The objective to compare it with; by default the nearest known one of its kind of data.
    pub against: Option<String>,
    /// The trial's folder; by default `runs/try-ID`.
    pub out: Option<PathBuf>,
    /// About how long it may take, in seconds.
    pub seconds: u64,
    /// Where to look for plugins.
    pub folders: Vec<PathBuf>,
    /// How progress is shown.
    pub show: Show,
}

/// Trains both objectives, draws their curves and returns the table. An earlier trial in the same folder is replaced.
///
/// # Errors
/// A request error: an unknown objective, one of a kind of data that the quickstart world lacks, nothing to compare it
/// with, an objective that cannot be trained with its default options, a folder that is not a trial's. Failures of the
/// runs.
pub fn run(request: &Request, interrupt: &Interrupt, note: &mut dyn FnMut(&str)) -> Result<Trial> {
    let registry = Registry::discover(&request.folders);
    let data = data_kind(objective(&registry, &request.id)?)?;
    let recipe = experiment::recipe(&data).ok_or_else(|| {
        Error::request(format!(
            "the quickstart world has no data of the kind `{data}`, which `{}` learns from",
            request.id
        ))
        .with_hint("write an experiment with data of your own, and use telos run")
    })?;
    let against = against(request, &recipe, &registry, &data)?;
    let out = request.out.clone().unwrap_or_else(|| Path::new("runs").join(format!("try-{}", request.id)));
    let folder = TrialFolder::new(&out)?;
    let stages = Stages::new(&recipe, &data, &request.id, &against);

    note(&format!("{} beside {against}, on {data} data; a short run measures this machine", request.id));
    let length = measured(request, &recipe, &stages, interrupt)?;
    let steps = format!("{} steps each", length.steps);
    let start =
        stages.start.as_ref().map_or(String::new(), |_| format!(", after {} steps for their start", length.start));
    note(&format!("{steps}{start}: about {} s by that measurement", request.seconds));

    let text = stages.text(&recipe, &folder.name, &folder.runs_dir, length);
    let (id, seconds) = (&request.id, request.seconds);
    let run_again = format!("telos run {}/{EXPERIMENT} --name NAME --dev", out.display());
    let head = format!(
        "{HEAD}{id} --against {against} --seconds {seconds}\n# {steps}{start}. \
         Edit it and run it again under another name:\n\
         #   {run_again}\n"
    );
    folder.replace(&format!("{head}{text}"))?;
    let file = out.join(EXPERIMENT);
    let summary = train(&file, request, interrupt, request.show, note)?;
    let picture = out.join(PICTURE);
    let trial = Trial::read(&data, &recipe, &stages, &summary, &out)?;
    plot::write(&trial.panels(id, &against), &picture)?;
    Ok(trial)
}

/// The objective of this id.
fn objective<'a>(registry: &'a Registry, id: &str) -> Result<&'a PluginInfo> {
    if let Ok(found) = registry.find_any(id)
        && let [only] = found.as_slice()
        && only.kind != kind::OBJECTIVE
    {
        let hint = match only.kind.as_str() {
            kind::BACKEND => format!("compare a backend with telos compare FILE --backends candle,{id}"),
            _ => "train with a reward by an experiment of your own: telos run FILE".to_owned(),
        };
        return Err(Error::request(format!("`{id}` is of kind {}, and only an objective can be tried", only.kind))
            .with_hint(hint));
    }
    registry.find(kind::OBJECTIVE, id)
}

/// The kind of data that an objective learns from.
fn data_kind(info: &PluginInfo) -> Result<DataKind> {
    let library = breadcrumb::within(&info.id, "open", || Library::load(info))?;
    Ok(breadcrumb::within(&info.id, "manifest", || library.objective_manifest())?.data)
}

/// The objective to compare with.
fn against(request: &Request, recipe: &Recipe, registry: &Registry, data: &DataKind) -> Result<String> {
    let id = &request.id;
    if let Some(named) = &request.against {
        let other = data_kind(registry.find(kind::OBJECTIVE, named)?)?;
        if named == id || other != *data {
            let why =
                if named == id { "is the objective itself".to_owned() } else { format!("learns from {other} data") };
            return Err(Error::request(format!("--against {named}: it {why}"))
                .with_hint(format!("name another objective of {data} data")));
        }
        return Ok(named.clone());
    }
    let is_there = |known: &&&str| **known != id && registry.find(kind::OBJECTIVE, known).is_ok();
    recipe.known.iter().find(is_there).map(|known| (*known).to_owned()).ok_or_else(|| {
        Error::request(format!("there is no known objective of {data} data to compare `{id}` with"))
            .with_hint("name one with --against ID")
    })
}

/// The length that fits the time, by a short run of the same pipeline in a folder that is removed again.
fn measured(request: &Request, recipe: &Recipe, stages: &Stages, interrupt: &Interrupt) -> Result<Length> {
    let failed = |cause: std::io::Error| Error::run("cannot write a temporary folder").with_cause(cause);
    let scratch = tempfile::tempdir().map_err(failed)?;
    let file = scratch.path().join(EXPERIMENT);
    let runs_dir = scratch.path().to_string_lossy().into_owned();
    fs::write(&file, stages.text(recipe, "probe", &runs_dir, pace::PROBE)).map_err(failed)?;
    train(&file, request, interrupt, Show::Quiet, &mut |_| ())?;
    pace::length(recipe, stages, &scratch.path().join("probe"), request.seconds)
}

/// Runs a pipeline from its beginning. Plugins are not pinned: a trial is made while one is being written.
fn train(
    file: &Path,
    request: &Request,
    interrupt: &Interrupt,
    show: Show,
    note: &mut dyn FnMut(&str),
) -> Result<PipelineSummary> {
    let Plan::Pipeline(pipeline) = Plan::read(file, &[])? else {
        return Err(Error::run(format!("{} is not a pipeline", file.display())));
    };
    let first = pipeline.stages().first().map(|stage| stage.name.clone()).unwrap_or_default();
    let options = pipeline::Options {
        // The folder holds the experiment, so it is not an empty one.
        selection: Selection::From(first),
        resume: false,
        fixed_rows: false,
        plugin_folders: request.folders.clone(),
        pinning: Pinning::Ignore,
        unproved: false,
        show,
    };
    let (summary, stopped) = pipeline::run(&pipeline, &options, interrupt, &mut |event| {
        if let Event::Note(text) = event {
            note(&text);
        }
        Ok(())
    })?;
    match stopped {
        None => Ok(summary),
        Some(error) => Err(error.with_hint(format!("telos run {} --resume", file.display()))),
    }
}
