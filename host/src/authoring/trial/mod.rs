//! An objective beside the nearest known one, in the quickstart world: the same start, data, seeds and steps.
//!
//! [`needs`] reads what both objectives need, [`experiment`] has the pipeline, [`refusal`] explains why one cannot be
//! trained, [`pace`] chooses its length by a short run of it, [`folder`] replaces an earlier trial, and [`figures`]
//! reads the result.

pub mod experiment;
pub mod figures;
pub mod folder;
pub mod needs;
pub mod pace;
mod refusal;

use std::path::{Path, PathBuf};

use plugin_api::manifest::kind;

use crate::{
    config::{Override, Pipeline, Plan},
    error::{Error, Result},
    pipeline::{self, Event, Selection, check::check, report::PipelineSummary},
    plot,
    plugins::{Pinning, Registry},
    runs::{Interrupt, progress::Show},
};
use experiment::{Length, Recipe, Stages};
use figures::Trial;
use folder::{EXPERIMENT, HEAD, PICTURE, TrialFolder};
use needs::Needs;

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
    /// Keys of the tried objective's stage, its options among them.
    pub sets: Vec<Override>,
    /// Where to look for plugins.
    pub folders: Vec<PathBuf>,
    /// How progress is shown.
    pub show: Show,
}

/// How a failed or interrupted trial continues.
const AGAIN: &str = "start the trial again";

/// Trains both objectives, draws their curves and returns the table. An earlier trial in the same folder is replaced.
///
/// # Errors
/// A request error: an unknown objective, one of a kind of data that the quickstart world lacks, nothing to compare it
/// with, an objective that cannot be trained with its options, a folder that is not a trial's. Failures of the runs.
pub fn run(request: &Request, interrupt: &Interrupt, note: &mut dyn FnMut(&str)) -> Result<Trial> {
    let registry = Registry::discover(&request.folders);
    let needs = Needs::read(&registry, &request.id, &request.sets)?;
    let data = needs.data.clone();
    let recipe = experiment::recipe(&needs).ok_or_else(|| {
        Error::request(format!(
            "the quickstart world has no data of the kind `{data}`, which `{}` learns from",
            request.id
        ))
        .with_hint("write an experiment with data of your own, and use telos run")
    })?;
    let (against, known) = against(request, &recipe, &registry, &needs)?;
    let out = request.out.clone().unwrap_or_else(|| Path::new("runs").join(format!("try-{}", request.id)));
    let folder = TrialFolder::new(&out)?;
    let scratch = tempfile::tempdir().map_err(|e| Error::run("cannot make a temporary folder").with_cause(e))?;
    let probe = Probe { request, recipe: &recipe, folder: scratch.path() };
    let (stages, alone) = probe.checked(&against, [known, needs])?;

    note(&format!("{} beside {against}, on {data} data; a short run measures this machine", request.id));
    if let Some(why) = alone {
        note(&format!("each is trained alone, since a second objective cannot be measured beside both: {why}"));
    }
    let length = probe.length(&stages, interrupt)?;
    let steps = format!("{} steps each", length.steps);
    let before = match (&stages.start, &stages.teacher) {
        (Some(_), Some(_)) => format!(", after {0} steps for their start and {0} for a teacher", length.start),
        (Some(_), None) => format!(", after {} steps for their start", length.start),
        (None, Some(_)) => format!(", after {} steps for a teacher", length.start),
        (None, None) => String::new(),
    };
    note(&format!("{steps}{before}: about {} s by that measurement", request.seconds));

    let text = stages.text(&recipe, &folder.name, &folder.runs_dir, length);
    let (id, seconds) = (&request.id, request.seconds);
    let run_again = format!("telos run {}/{EXPERIMENT} --name NAME --dev", out.display());
    let sets: String = overrides(request, &recipe, &stages).iter().map(|set| format!(" --set '{set}'")).collect();
    let head = format!(
        "{HEAD}{id} --against {against} --seconds {seconds}\n# {steps}{before}. \
         Edit it and run it again under another name:\n\
         #   {run_again}{sets}\n"
    );
    folder.replace(&format!("{head}{text}"))?;
    let file = out.join(EXPERIMENT);
    let pipeline = pipeline_of(&file.display().to_string(), &text, &overrides(request, &recipe, &stages))?;
    let summary = train(&pipeline, request, interrupt, request.show, note)?;
    let picture = out.join(PICTURE);
    let trial = Trial::read(&data, &recipe, &stages, &summary, &out)?;
    plot::write(&trial.panels(id, &against), &picture)?;
    Ok(trial)
}

/// The objective to compare with, and its needs.
fn against(request: &Request, recipe: &Recipe, registry: &Registry, needs: &Needs) -> Result<(String, Needs)> {
    let (id, data) = (&request.id, &needs.data);
    if let Some(named) = &request.against {
        let other = Needs::read(registry, named, &[])?;
        let refuse = |why: String| {
            Err(Error::request(format!("--against {named}: it {why}"))
                .with_hint(format!("name another objective of {data} data")))
        };
        return match () {
            () if named == id => refuse("is the objective itself".to_owned()),
            () if other.data != *data => refuse(format!("learns from {} data", other.data)),
            () if other.segments != needs.segments => refuse(format!("{}, and `{id}` does not", other.learns())),
            () => Ok((named.clone(), other)),
        };
    }
    let is_there = |known: &&&str| **known != id && registry.find(kind::OBJECTIVE, known).is_ok();
    let Some(known) = recipe.known.iter().find(is_there) else {
        let data = if needs.segments { "answers in segments".to_owned() } else { format!("{data} data") };
        return Err(Error::request(format!("there is no known objective of {data} to compare `{id}` with")).with_hint(
            format!("name one with --against ID, or train `{id}` alone by an experiment of its own: telos run FILE"),
        ));
    };
    Ok(((*known).to_owned(), Needs::read(registry, known, &[])?))
}

/// What is done before a trial, in a folder that is removed again.
struct Probe<'a> {
    request: &'a Request,
    recipe: &'a Recipe,
    folder: &'a Path,
}

impl Probe<'_> {
    /// The stages of a trial that passes all checks of `telos check`, and why a second objective is not measured beside
    /// both, if it could be with other objectives. Nothing is trained.
    fn checked(&self, against: &str, needs: [Needs; 2]) -> Result<(Stages, Option<String>)> {
        let id = &self.request.id;
        let stages = |measures| Stages::new(self.recipe, id, against, needs.clone(), measures);
        let with = stages(true);
        let Err(first) = self.check(&with) else { return Ok((with, None)) };
        if !with.measures {
            return Err(refusal::explained(id, &first));
        }
        let alone = stages(false);
        match self.check(&alone) {
            Ok(()) => Ok((alone, Some(refusal::reasons(&first).join("; ")))),
            Err(error) => Err(refusal::explained(id, &error)),
        }
    }

    fn check(&self, stages: &Stages) -> Result<()> {
        check(&self.pipeline(stages)?, &self.request.folders, Pinning::Ignore, (0, &[])).map(drop)
    }

    /// The length that fits the time, by a short run of the same pipeline.
    fn length(&self, stages: &Stages, interrupt: &Interrupt) -> Result<Length> {
        train(&self.pipeline(stages)?, self.request, interrupt, Show::Quiet, &mut |_| ())?;
        pace::length(self.recipe, stages, &self.folder.join(PROBE), self.request.seconds)
    }

    fn pipeline(&self, stages: &Stages) -> Result<Pipeline> {
        let text = stages.text(self.recipe, PROBE, &self.folder.to_string_lossy(), pace::PROBE);
        pipeline_of(EXPERIMENT, &text, &overrides(self.request, self.recipe, stages))
    }
}

/// Name of the short run.
const PROBE: &str = "probe";

/// What the user sets, for the tried objective's stage.
fn overrides(request: &Request, recipe: &Recipe, stages: &Stages) -> Vec<Override> {
    request.sets.iter().map(|set| set.at(&stages.key(recipe, set.path()))).collect()
}

fn pipeline_of(file: &str, text: &str, overrides: &[Override]) -> Result<Pipeline> {
    match Plan::parse(file, "try", text, overrides, None)? {
        Plan::Pipeline(pipeline) => Ok(pipeline),
        Plan::Experiment(_) | Plan::Study(_) => Err(Error::run(format!("{file} is not a pipeline"))),
    }
}

/// Runs a pipeline from its beginning. Plugins are not pinned: a trial is made while one is being written.
fn train(
    pipeline: &Pipeline,
    request: &Request,
    interrupt: &Interrupt,
    show: Show,
    note: &mut dyn FnMut(&str),
) -> Result<PipelineSummary> {
    let first = pipeline.stages().first().map(|stage| stage.name.clone()).unwrap_or_default();
    let options = pipeline::Options {
        // The folder holds the experiment, so it is not an empty one.
        selection: Selection::From(first),
        resume: false,
        fixed_rows: false,
        plugin_folders: request.folders.clone(),
        pinning: Pinning::Ignore,
        unproved: false,
        watch: show.into(),
        again: AGAIN,
    };
    let (summary, stopped) = pipeline::run(pipeline, &options, interrupt, &mut |event| {
        if let Event::Note(text) = event {
            note(&text);
        }
        Ok(())
    })?;
    match stopped {
        None => Ok(summary),
        Some(error) => Err(error),
    }
}
