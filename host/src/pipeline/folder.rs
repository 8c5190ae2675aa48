//! A pipeline's folder: which stages are done, which are to be resumed, and where earlier runs of a stage are
//! moved.
//!
//! `runs/PIPELINE/STAGE` is a run like any other; `runs/PIPELINE/pipeline.toml` is the resolved pipeline, itself a
//! valid pipeline file. Before a stage is rerun from its beginning, the earlier run is moved to
//! `runs/PIPELINE/STAGE.1`, or `.2` and so on.

use std::ffi::OsStr;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::selection::Selection;
use crate::{
    config::{Experiment, Pipeline},
    error::{Error, Result},
    runs::{
        Receipt, RunFolder,
        checkpoint::{Checkpoint, Checkpoints, find::is_tidy, latest},
        disk::{holds_unfinished, is_unfinished, remove_abandoned, sync_folder, write_durably},
        folder::{CHECKPOINTS, Existing, PIPELINE_FILE, REPORT_FILE, is_empty, is_replaceable},
    },
    setup::named::model_folder,
    train::run::{
        provenance::model_source,
        resume::{Changed, changed},
        state::TrainState,
    },
};

/// What to do with a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Skip it: it was not requested.
    Nothing,
    /// Skip it: its run is complete.
    Done,
    /// Run it for the first time.
    New,
    /// Run it again from its beginning; the earlier run is moved aside.
    Rerun,
    /// Resume the run that was begun.
    Resume,
}

impl Task {
    /// `None` if the stage is not run; else whether it resumes a run that was begun.
    pub fn resumes(self) -> Option<bool> {
        match self {
            Task::Nothing | Task::Done => None,
            Task::New | Task::Rerun => Some(false),
            Task::Resume => Some(true),
        }
    }
}

/// The progress of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Absent,
    Begun,
    Ended,
}

fn state(folder: &Path) -> Result<State> {
    if !folder.join("experiment.toml").is_file() {
        return Ok(State::Absent);
    }
    match latest(&folder.join(CHECKPOINTS))? {
        Some(checkpoint) if TrainState::read(&checkpoint.path)?.ended => Ok(State::Ended),
        _ => Ok(State::Begun),
    }
}

/// Removes unfinished files and repairs LATEST and BEST after a killed process: in the pipeline's folder, in the stages to
/// resume, and in the source stages of the stages to run. Returns one line for each stage whose LATEST did not name an intact
/// checkpoint.
///
/// # Errors
/// The stage name is unknown, or the file system failed.
pub fn tidy(pipeline: &Pipeline, selection: &Selection, resume: bool) -> Result<Vec<String>> {
    let folder = pipeline.folder();
    if folder.is_dir() {
        remove_abandoned(&folder)?;
    }
    let mut lines = Vec::new();
    if resume && !folder.join(PIPELINE_FILE).is_file() && has_begun(pipeline) {
        lines.push(format!("{} is missing and is written again", folder.join(PIPELINE_FILE).display()));
    }
    let (wanted, needed) = stages_of(pipeline, selection)?;
    for index in (0..pipeline.stages().len()).filter(|index| needed.contains(index) || resume && wanted.contains(index))
    {
        let own = pipeline.stage_folder(index);
        let checkpoints = own.join(CHECKPOINTS);
        if !own.join("experiment.toml").is_file() || is_tidy(&checkpoints) && !holds_unfinished(&own) {
            continue;
        }
        // A folder that another process is using is left to that process. Damaged files are refused where they are
        // used.
        let Ok(run) = RunFolder::open(pipeline.runs_dir(), &pipeline.run_name(index)) else { continue };
        let Ok(found) = latest(&checkpoints) else { continue };
        lines.extend(found.as_ref().and_then(Checkpoint::stand_in));
        // How many checkpoints are kept only matters at the next save.
        Checkpoints::new(&run, usize::MAX, found.map(|found| found.step))?;
    }
    Ok(lines)
}

/// The stages that a selection runs, and the stages that must be done before it.
fn stages_of(pipeline: &Pipeline, selection: &Selection) -> Result<(Range<usize>, Vec<usize>)> {
    Ok(match selection {
        Selection::All => (0..pipeline.stages().len(), Vec::new()),
        Selection::From(name) => {
            let at = pipeline.position(name)?;
            (at..pipeline.stages().len(), (0..at).collect())
        }
        Selection::Only(name) => {
            let at = pipeline.position(name)?;
            (at..at + 1, pipeline.stages()[at].inputs.iter().map(|input| input.stage).collect())
        }
    })
}

/// Whether the run in `folder` is complete.
///
/// # Errors
/// None of its checkpoints is intact.
pub fn has_ended(folder: &Path) -> Result<bool> {
    Ok(state(folder)? == State::Ended)
}

/// Whether the stage's run is complete with the current experiment.
///
/// # Errors
/// None of its checkpoints is intact.
pub fn is_done(pipeline: &Pipeline, index: usize, experiment: &Experiment) -> Result<bool> {
    let folder = pipeline.stage_folder(index);
    Ok(has_ended(&folder)? && changed(&folder, experiment).is_ok_and(|changed| !changed.length))
}

/// Decides what to do with each stage. A stage replaces its earlier run if that run completed no step; with `dev`, also if
/// that run has no checkpoint.
///
/// # Errors
/// A request error if the pipeline exists and no option selects what to do with it, or if it does not exist and is
/// to be resumed; if a required stage is not done, or the experiment of a stage that was begun has changed.
pub fn to_do(
    pipeline: &Pipeline,
    experiments: &[Experiment],
    selection: &Selection,
    resume: bool,
    dev: bool,
) -> Result<Vec<Task>> {
    let folder = pipeline.folder();
    let count = experiments.len();
    let (wanted, needed) = stages_of(pipeline, selection)?;
    if folder.join("experiment.toml").is_file() {
        return Err(Error::request(format!("{} is the folder of a run, not of a pipeline", folder.display()))
            .with_hint("choose another name with --name"));
    }
    if resume && !folder.join(PIPELINE_FILE).is_file() && !has_begun(pipeline) {
        return Err(Error::request(format!("there is no pipeline {} to resume", folder.display()))
            .with_hint("leave --resume out to start it"));
    }
    if !resume && *selection == Selection::All {
        refuse_content(pipeline, dev)?;
    }
    for index in needed {
        let name = &pipeline.stages()[index].name;
        if state(&pipeline.stage_folder(index))? != State::Ended {
            return Err(Error::request(format!("stage \"{name}\" must be done first"))
                .with_hint(format!("continue with --resume alone, or begin with --from {name}")));
        }
        finished(pipeline, index, &experiments[index])?;
    }
    (0..count)
        .map(|index| {
            if !wanted.contains(&index) {
                return Ok(Task::Nothing);
            }
            let own = pipeline.stage_folder(index);
            if !resume {
                let existing = if dev { Existing::ReplaceUnsaved } else { Existing::Keep };
                let replaced = is_replaceable(&own, existing) || is_empty(&own);
                return Ok(if own.exists() && !replaced { Task::Rerun } else { Task::New });
            }
            let state = state(&own)?;
            Ok(match state {
                State::Absent => Task::New,
                State::Begun => {
                    unchanged(pipeline, index, &experiments[index])?;
                    Task::Resume
                }
                State::Ended if index + 1 == count && unchanged(pipeline, index, &experiments[index])?.length => {
                    Task::Resume
                }
                State::Ended => {
                    finished(pipeline, index, &experiments[index])?;
                    Task::Done
                }
            })
        })
        .collect()
}

/// Whether any stage of the pipeline has a run.
fn has_begun(pipeline: &Pipeline) -> bool {
    (0..pipeline.stages().len()).any(|index| pipeline.stage_folder(index).join("experiment.toml").is_file())
}

fn refuse_content(pipeline: &Pipeline, dev: bool) -> Result<()> {
    let folder = pipeline.folder();
    let existing = if dev { Existing::ReplaceUnsaved } else { Existing::Keep };
    let mut entries = fs::read_dir(&folder).into_iter().flatten().flatten();
    let is_free = |path: &Path| is_replaceable(path, existing) || is_empty(path);
    let is_ours = |name: &OsStr| [PIPELINE_FILE, REPORT_FILE].iter().any(|own| name == *own) || is_unfinished(name);
    if entries.all(|entry| is_ours(&entry.file_name()) || is_free(&entry.path())) {
        return Ok(());
    }
    Err(Error::request(format!("the pipeline \"{}\" exists already: {}", pipeline.name(), folder.display())).with_hint(
        "continue it with --resume, rerun it from a stage with --from STAGE, or choose another name with --name",
    ))
}

/// Returns the changes of a stage's experiment since it began.
///
/// # Errors
/// A request error if one of the changes is not allowed.
fn unchanged(pipeline: &Pipeline, index: usize, experiment: &Experiment) -> Result<Changed> {
    changed(&pipeline.stage_folder(index), experiment).map_err(|error| has_changed(pipeline, index, error))
}

/// Refuses a different length for a finished stage, unless it is the last one.
fn finished(pipeline: &Pipeline, index: usize, experiment: &Experiment) -> Result<()> {
    let changed = unchanged(pipeline, index, experiment)?;
    if !changed.length {
        return Ok(());
    }
    let why = "its length differs: a finished stage can be extended only if it is the last of the pipeline";
    Err(has_changed(pipeline, index, Error::request(why).with_details(changed.as_written)))
}

fn has_changed(pipeline: &Pipeline, index: usize, error: Error) -> Error {
    let name = &pipeline.stages()[index].name;
    error.context(format!("stage \"{name}\" has changed since it was begun")).with_hint(format!(
        "restore it, rerun it and the stages after it with --from {name}, or choose another name with --name"
    ))
}

/// Moves the earlier runs of stages that are rerun from the beginning aside and writes `pipeline.toml`. Returns
/// what was moved.
///
/// # Errors
/// Another process writes one of the runs, or the file system failed.
pub fn make_room(pipeline: &Pipeline, experiments: &[Experiment], tasks: &[Task]) -> Result<Vec<String>> {
    let folder = pipeline.folder();
    fs::create_dir_all(&folder)
        .map_err(|cause| Error::run(format!("cannot create {}", folder.display())).with_cause(cause))?;
    folder.parent().filter(|above| !above.as_os_str().is_empty()).map_or(Ok(()), sync_folder)?;
    let mut moved = Vec::new();
    // The last stage moves first: after an interruption, each stage that remains still has its source stage.
    for (index, _) in tasks.iter().enumerate().rev().filter(|(_, task)| **task == Task::Rerun) {
        let (from, to) = (pipeline.stage_folder(index), move_aside(pipeline, index)?);
        moved.push(format!("the earlier run {} is now {}", from.display(), to.display()));
    }
    write_durably(&folder.join(PIPELINE_FILE), resolved(pipeline, experiments)?.as_bytes())?;
    Ok(moved)
}

/// Returns a line for each stage that used a model which its source stage no longer has, because the source stage
/// was rerun.
///
/// # Errors
/// Receipts or weights that cannot be read.
pub fn outdated(pipeline: &Pipeline) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for (index, stage) in pipeline.stages().iter().enumerate() {
        let receipt = pipeline.stage_folder(index).join("receipt.json");
        if !receipt.is_file() {
            continue;
        }
        let receipt = Receipt::read(&receipt)?;
        for input in &stage.inputs {
            let from = input.which.path(&pipeline.stage_folder(input.stage));
            // A stage that is being rerun has no checkpoint yet; the note appears once it has one.
            let (Ok(folder), Some(then)) = (model_folder(&from), receipt.model_of(&input.key)) else { continue };
            if then.sha256 != model_source(Some(&folder))?.sha256 {
                let (name, source) = (&stage.name, &pipeline.stages()[input.stage].name);
                let line = format!(
                    "note: stage \"{name}\" started from an earlier run of \"{source}\"; rerun it with --from {name}"
                );
                if !found.contains(&line) {
                    found.push(line);
                }
            }
        }
    }
    Ok(found)
}

fn move_aside(pipeline: &Pipeline, index: usize) -> Result<PathBuf> {
    let from = pipeline.stage_folder(index);
    // Locked, so that no other process writes to it meanwhile.
    let _lock = match from.join("experiment.toml").is_file() {
        true => Some(RunFolder::open(pipeline.runs_dir(), &pipeline.run_name(index))?),
        false => None,
    };
    let name = &pipeline.stages()[index].name;
    // A stage may itself have a name of this form.
    let is_stage = |name: &str| pipeline.stages().iter().any(|stage| stage.name == name);
    let names = (1..).map(|number| format!("{name}.{number}")).filter(|name| !is_stage(name));
    let free = names.map(|name| pipeline.folder().join(name)).find(|path| !path.exists());
    let to = free.ok_or_else(|| Error::run(format!("no name is left for {}", from.display())))?;
    fs::rename(&from, &to)
        .map_err(|cause| Error::run(format!("cannot move {} to {}", from.display(), to.display())).with_cause(cause))?;
    sync_folder(&pipeline.folder())?;
    Ok(to)
}

/// The pipeline with every default filled in, as text that parses to the same pipeline.
fn resolved(pipeline: &Pipeline, experiments: &[Experiment]) -> Result<String> {
    let failed = |cause: Box<dyn std::error::Error + Send + Sync>| {
        Error::run("cannot write the resolved pipeline as TOML").with_cause(cause)
    };
    let mut stages = Vec::new();
    for (stage, experiment) in pipeline.stages().iter().zip(experiments) {
        let mut value = serde_json::to_value(experiment).map_err(|cause| failed(cause.into()))?;
        if let Value::Object(keys) = &mut value {
            keys.insert("name".to_owned(), stage.name.as_str().into());
            keys.shift_remove("runs_dir");
        }
        for input in &stage.inputs {
            let name = format!("stage:{}{}", pipeline.stages()[input.stage].name, input.which.suffix());
            if let Some(value) = value.pointer_mut(&format!("/{}", input.key.replace('.', "/"))) {
                *value = name.into();
            }
        }
        stages.push(value);
    }
    let whole = Map::from_iter([
        ("name".to_owned(), pipeline.name().into()),
        ("runs_dir".to_owned(), pipeline.runs_dir().to_string_lossy().into()),
        ("stage".to_owned(), stages.into()),
    ]);
    toml::to_string(&whole).map_err(|cause| failed(cause.into()))
}
