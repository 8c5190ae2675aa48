//! A study's folder: its plan, its lock, and what is left to do.
//!
//! `runs/STUDY/RUN` is a run like any other; `experiments/RUN.toml` is its experiment, with which it can be run alone, and
//! `logs/RUN.log` is what it printed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Map;

use crate::{
    config::{Experiment, Pipeline, Study, sweep::Halving},
    error::{Error, Result},
    pipeline::folder::{Task, has_ended},
    runs::{
        checkpoint::latest,
        disk::{remove_unfinished, write_durably},
        file_lock::{Denied, FileLock},
        folder::{CHECKPOINTS, EXPERIMENTS, LOCK, LOGS, is_empty},
        study_file::{ArmPlan, RunPlan, Rungs, StudyFile},
    },
    train::run::resume::changed,
};

/// How long to wait for the lock of a process that is just being killed.
const PATIENCE: Duration = Duration::from_secs(2);

/// A study's folder that only this process writes.
pub struct StudyFolder {
    path: PathBuf,
    file: StudyFile,
    _lock: FileLock,
}

impl StudyFolder {
    /// Creates or opens the folder, and writes the plan and the experiments. Call it after everything else was checked.
    ///
    /// # Errors
    /// Another process runs the study, or the file system failed.
    pub fn open(pipeline: &Pipeline, mut file: StudyFile, experiments: &[Experiment]) -> Result<StudyFolder> {
        let path = pipeline.folder();
        let create = |folder: &Path| {
            fs::create_dir_all(folder)
                .map_err(|cause| Error::run(format!("cannot create {}", folder.display())).with_cause(cause))
        };
        create(&path)?;
        let failed = |cause: io::Error| Error::run(format!("cannot lock {}", path.display())).with_cause(cause);
        let lock = FileLock::take(&path.join(LOCK), PATIENCE).map_err(|denied| match denied {
            Denied::Failed(cause) => failed(cause),
            Denied::Taken(owner) => Error::run(format!("{owner} is running the study in {}", path.display()))
                .with_hint("wait until it has ended, stop it, or choose another name with --name"),
        })?;
        // Left by a process that was killed while writing.
        remove_unfinished(&path)?;
        if let Some(earlier) = StudyFile::read(&path)? {
            let is_planned = |name: &String| file.stages.contains(name) || file.runs().any(|run| run.name == *name);
            file.failed = earlier.failed.into_iter().filter(|(name, _)| is_planned(name)).collect();
        }
        for folder in [EXPERIMENTS, LOGS] {
            create(&path.join(folder))?;
        }
        remove_unfinished(&path.join(EXPERIMENTS))?;
        for (stage, experiment) in pipeline.stages().iter().zip(experiments) {
            write_durably(&experiment_file(pipeline, &stage.name), experiment.to_toml()?.as_bytes())?;
        }
        file.write(&path)?;
        Ok(StudyFolder { path, file, _lock: lock })
    }

    /// Records that a stage or run failed.
    ///
    /// # Errors
    /// The file system's.
    pub fn failed(&mut self, name: &str, why: &str) -> Result<()> {
        self.file.failed.insert(name.to_owned(), why.to_owned());
        self.file.write(&self.path)
    }

    /// Records that a stage or run did not fail, or no longer.
    ///
    /// # Errors
    /// The file system's.
    pub fn succeeded(&mut self, name: &str) -> Result<()> {
        match self.file.failed.remove(name) {
            Some(_) => self.file.write(&self.path),
            None => Ok(()),
        }
    }

    /// Why a stage or run failed.
    pub fn why(&self, name: &str) -> Option<&str> {
        self.file.failed.get(name).map(String::as_str)
    }

    /// The plan, and what failed.
    pub fn plan(&self) -> &StudyFile {
        &self.file
    }
}

/// The experiment of a stage or run as a file.
pub fn experiment_file(pipeline: &Pipeline, name: &str) -> PathBuf {
    pipeline.folder().join(EXPERIMENTS).join(format!("{name}.toml"))
}

/// What a stage or run printed.
pub fn log_file(pipeline: &Pipeline, name: &str) -> PathBuf {
    pipeline.folder().join(LOGS).join(format!("{name}.log"))
}

/// The plan of a study; `runs` are the experiments of its runs.
pub fn plan_of(study: &Study, runs: &[Experiment], halving: Option<&Halving>) -> StudyFile {
    let arm = |(at, arm): (usize, &crate::config::sweep::Arm)| ArmPlan {
        name: arm.name.clone(),
        values: arm.values.iter().cloned().collect::<Map<_, _>>(),
        runs: study
            .runs
            .iter()
            .filter(|run| run.arm == at)
            .map(|run| RunPlan { name: run.name.clone(), seed: run.seed })
            .collect(),
    };
    StudyFile {
        name: study.pipeline.name().to_owned(),
        method: study.method.word().to_owned(),
        metric: study.metric(runs).to_string(),
        keys: study.swept_keys(),
        stages: study.pipeline.stages()[..study.stages()].iter().map(|stage| stage.name.clone()).collect(),
        halving: halving.map(|halving| Rungs {
            steps: halving.rungs.clone(),
            factor: halving.factor,
            metric: halving.metric.to_string(),
        }),
        arms: study.arms.iter().enumerate().map(arm).collect(),
        failed: Default::default(),
    }
}

/// Checks whether the study may be started or resumed in its folder.
///
/// # Errors
/// A request error if it exists and is not to be resumed, or the reverse; if a run of the earlier plan that did not fail is no longer
/// in this one.
pub fn check(pipeline: &Pipeline, file: &StudyFile, resume: bool) -> Result<()> {
    let folder = pipeline.folder();
    let earlier = StudyFile::read(&folder)?;
    let Some(earlier) = earlier else {
        if resume {
            return Err(Error::request(format!("there is no study {} to resume", folder.display()))
                .with_hint("leave --resume out to start it"));
        }
        if folder.exists() && !is_empty(&folder) {
            return Err(Error::request(format!(
                "{} exists already and is not the folder of a study",
                folder.display()
            ))
            .with_hint("choose another name with --name, or remove the folder first"));
        }
        return Ok(());
    };
    if !resume {
        return Err(Error::request(format!("the study \"{}\" exists already: {}", pipeline.name(), folder.display()))
            .with_hint("continue it with --resume, or choose another name with --name"));
    }
    let missing = |name: &&str| !file.runs().any(|run| run.name == **name) && !earlier.failed.contains_key(*name);
    let gone: Vec<&str> = earlier.runs().map(|run| run.name.as_str()).filter(missing).collect();
    if !gone.is_empty() {
        return Err(Error::request(format!("{} runs of the study {} are no longer in its plan", gone.len(), folder.display()))
            .with_details(gone.iter().take(8).copied())
            .with_hint(
                "values and seeds may be added to a study, and those whose runs failed removed; restore the others, or choose another \
                 name with --name",
            ));
    }
    Ok(())
}

/// What to do with each stage and run.
///
/// # Errors
/// A request error for one whose experiment has changed since it was begun.
pub fn to_do(pipeline: &Pipeline, experiments: &[Experiment]) -> Result<Vec<Task>> {
    let each = pipeline.stages().iter().zip(experiments).enumerate();
    each.map(|(index, (stage, experiment))| task(&pipeline.stage_folder(index), experiment, &stage.name)).collect()
}

/// What to do with the stage or run in `folder`.
///
/// # Errors
/// A request error if its experiment has changed since it was begun.
pub fn task(folder: &Path, experiment: &Experiment, name: &str) -> Result<Task> {
    if !folder.join("experiment.toml").is_file() {
        return Ok(Task::New);
    }
    let changes = changed(folder, experiment).map_err(|error| {
        error
            .context(format!("\"{name}\" has changed since it was begun"))
            .with_hint("restore it, or choose another name with --name; values and seeds may be added to a study")
    })?;
    // A damaged run fails in its own process, and no other with it.
    Ok(if has_ended(folder).unwrap_or(false) && !changes.length { Task::Done } else { Task::Resume })
}

/// The step of the run's last checkpoint; 0 without one.
pub fn saved_step(folder: &Path) -> u64 {
    latest(&folder.join(CHECKPOINTS)).ok().flatten().map_or(0, |checkpoint| checkpoint.step)
}
