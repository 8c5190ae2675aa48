//! A pipeline: stages in order, each its own run, which may start from the output of earlier stages.
//!
//! [`plan`] reports every error that can be found before the first stage trains, [`folder`] decides which stages
//! are done and where earlier runs are moved, [`report`] shows each stage's metrics before and after, [`check`]
//! checks without training.

pub mod check;
pub mod folder;
pub(crate) mod plan;
pub mod report;
mod selection;

use std::path::PathBuf;
use std::time::Instant;

use crate::{
    config::{Experiment, Pipeline},
    error::{Error, Kind, Result},
    plugins::Pinning,
    runs::{Interrupt, progress::Watch, receipt::pin_commits},
    setup::loading::open_draft,
    train::{
        End,
        run::{open::CleanupGuard, summary::Summary},
        trainer::Trainer,
    },
};
use folder::{Task, to_do};
use report::{PipelineSummary, StageFigures};
pub use selection::Selection;

/// How a pipeline is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which stages.
    pub selection: Selection,
    /// Whether to resume stages that have begun.
    pub resume: bool,
    /// Whether runs may resume with rows that were corrected since they began.
    pub fixed_rows: bool,
    /// Where to look for plugins.
    pub plugin_folders: Vec<PathBuf>,
    /// What to do about changed plugins. With [`Pinning::Ignore`], folders of runs without a checkpoint are replaced.
    pub pinning: Pinning,
    /// Whether to train objectives that fail a law on the first batch.
    pub unproved: bool,
    /// How the stages are watched.
    pub watch: Watch,
    /// What the user does to continue after a failure or an interruption.
    pub again: &'static str,
}

/// How `telos run` continues.
pub const RESUME: &str = "continue with the same command and --resume";

/// What is reported while a pipeline runs.
pub enum Event<'a> {
    /// A note for the user, such as a stage that begins or is skipped, or a run that was moved aside.
    Note(String),
    /// A stage has ended, or was interrupted.
    Stage(&'a Summary),
}

/// Runs the stages that are not done. If the user stops the pipeline, returns that error together with the summary
/// of what was done.
///
/// # Errors
/// Request errors for every stage before anything is written; later, the failure of a stage, which names the stage
/// and how to continue.
pub fn run(
    pipeline: &Pipeline,
    options: &Options,
    interrupt: &Interrupt,
    report: &mut dyn FnMut(Event<'_>) -> Result<()>,
) -> Result<(PipelineSummary, Option<Error>)> {
    let started = Instant::now();
    for note in folder::tidy(pipeline, &options.selection, options.resume)? {
        report(Event::Note(format!("note: {note}")))?;
    }
    let stages = plan::read(pipeline, &options.plugin_folders, options.pinning)?;
    let experiments: Vec<Experiment> = stages.iter().map(|stage| stage.loaded.experiment.clone()).collect();
    let dev = options.pinning == Pinning::Ignore;
    let tasks = to_do(pipeline, &experiments, &options.selection, options.resume, dev)?;
    let mut uncertain = CleanupGuard::new(pipeline.runs_dir());
    plan::try_out(pipeline, stages, &tasks)?;
    uncertain.keep();

    for note in folder::make_room(pipeline, &experiments, &tasks)? {
        report(Event::Note(note))?;
    }
    let mut stopped = None;
    for (index, task) in tasks.iter().enumerate() {
        if let Some(heading) = heading(pipeline, &experiments, index, *task) {
            report(Event::Note(heading))?;
        }
        let Some(resume) = task.resumes() else { continue };
        let summary = run_stage(pipeline, options, index, resume, interrupt)
            .map_err(|error| failed(error, pipeline, index, options.again))?;
        report(Event::Stage(&summary.1))?;
        stopped = interrupted(pipeline, &tasks, index, &summary, interrupt)
            .map(|message| Error::interrupted(message).with_hint(options.again));
        if stopped.is_some() {
            break;
        }
    }
    for note in if stopped.is_none() { folder::outdated(pipeline)? } else { Vec::new() } {
        report(Event::Note(note))?;
    }
    let mut stages = Vec::new();
    for (index, experiment) in experiments.iter().enumerate() {
        let name = &pipeline.stages()[index].name;
        match StageFigures::read(name, &pipeline.stage_folder(index), experiment) {
            Ok(figures) => stages.extend(figures),
            // A stage that was not requested may be damaged.
            Err(error) if tasks[index] == Task::Nothing => {
                report(Event::Note(format!("note: stage \"{name}\" is left out of the table: {error}")))?;
            }
            Err(error) => return Err(error),
        }
    }
    let ended = stages.len() == experiments.len() && stages.iter().all(|stage| stage.ended);
    let seconds = started.elapsed().as_secs_f64();
    Ok((
        PipelineSummary { name: pipeline.name().to_owned(), folder: pipeline.folder(), seconds, ended, stages },
        stopped,
    ))
}

fn heading(pipeline: &Pipeline, experiments: &[Experiment], index: usize, task: Task) -> Option<String> {
    let objectives = report::objectives(&experiments[index]);
    let name = &pipeline.stages()[index].name;
    let heading = format!("== stage {} of {}: {name} ({objectives})", index + 1, experiments.len());
    match task {
        Task::Nothing => None,
        Task::Done => Some(format!("{heading}: already done")),
        Task::New | Task::Rerun => Some(heading),
        Task::Resume => Some(format!("{heading}, resumed")),
    }
}

fn run_stage(
    pipeline: &Pipeline,
    options: &Options,
    index: usize,
    resume: bool,
    interrupt: &Interrupt,
) -> Result<(End, Summary)> {
    // Read again, now that the models it starts from exist.
    let draft = pipeline.draft(index);
    if let Some(folder) = draft.run_folder().filter(|_| resume) {
        pin_commits(&folder);
    }
    let mut setup = open_draft(draft, &options.plugin_folders, options.pinning)?;
    setup.accept_unproved = options.unproved;
    setup.accepts_fixed_rows = options.fixed_rows;
    let events = options.watch.events.of_stage(&pipeline.stages()[index].name);
    let mut trainer = Trainer::new(setup, resume, &Watch { events, ..options.watch.clone() })?;
    trainer.run(interrupt)
}

/// Adds the stage's name and how to continue to an error.
fn failed(error: Error, pipeline: &Pipeline, index: usize, again: &str) -> Error {
    let (name, count) = (&pipeline.stages()[index].name, pipeline.stages().len());
    let hint = match error.hint() {
        Some(hint) => format!("{hint}; then {again}"),
        None => format!("fix the cause, then {again}"),
    };
    let kind = if error.kind() == Kind::Request { "cannot run" } else { "failed" };
    error.context(format!("stage \"{name}\" ({} of {count}) {kind}", index + 1)).with_hint(hint)
}

/// Where the user stopped the pipeline, in or after stage `index`, if it was stopped.
fn interrupted(
    pipeline: &Pipeline,
    tasks: &[Task],
    index: usize,
    (end, summary): &(End, Summary),
    interrupt: &Interrupt,
) -> Option<String> {
    let name = &pipeline.stages()[index].name;
    let more = tasks[index + 1..].iter().any(|task| task.resumes().is_some());
    match end {
        End::Interrupted => {
            Some(format!("stopped in stage \"{name}\" after step {}, saved as {}", summary.steps, summary.checkpoint))
        }
        _ if more && interrupt.requested() => Some(format!("stopped after stage \"{name}\", which is done")),
        _ => None,
    }
}
