//! A run's folder: the paths of its files, and the lock that lets only one process at a time write them.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::disk::{self, is_unfinished};
use super::end::END_FILE;
use super::file_lock::{Denied, FileLock, HELD, is_same};
use crate::error::{Error, Result};
use crate::track::holds_only_events;
use crate::{files, html};

pub(crate) const LOCK: &str = ".lock";
/// The file of pinned plugins, in the folder of all runs.
pub const PLUGINS_LOCK: &str = "plugins.lock";
/// How long to wait for a lock: one of a process that is just being killed is released in a moment.
const PATIENCE: Duration = Duration::from_secs(2);
/// The folder of checkpoints in that of a run.
pub const CHECKPOINTS: &str = "checkpoints";
/// The files of a run besides its checkpoints.
const FILES: [&str; 10] = [
    "experiment.toml",
    "receipt.json",
    "rows.txt",
    "metrics.jsonl",
    "timing.jsonl",
    "samples.jsonl",
    "histograms.jsonl",
    "about.json",
    END_FILE,
    REPORT_FILE,
];
/// The folder of event files for TensorBoard in that of a run.
pub const TENSORBOARD: &str = "tensorboard";
/// How the names of files begin in which programs beside a run keep what they have sent to a tracker: `.track-NAME.json`.
const TRACKERS: &str = ".track-";
/// The page that `telos report` writes by default, in the folder of a run or a pipeline.
pub const REPORT_FILE: &str = "report.html";
/// How the titles of these pages begin.
pub const REPORT_TITLE: &str = "telos report: ";
/// The resolved pipeline, in the pipeline's folder.
pub const PIPELINE_FILE: &str = "pipeline.toml";

/// The plan of a study, in the study's folder.
pub const STUDY_FILE: &str = "study.json";
/// The experiments of a study's stages and runs, in the study's folder.
pub const EXPERIMENTS: &str = "experiments";
/// What the stages and runs of a study printed, in the study's folder.
pub const LOGS: &str = "logs";
/// Whether a file is a page of `telos report`, and not one of the user with its name.
pub fn is_report(bytes: &[u8]) -> bool {
    html::title_of(bytes).is_some_and(|title| title.starts_with(REPORT_TITLE))
}

/// The file or folder of telos with this name, ignoring case, in the folder of a run, a pipeline or all runs;
/// `None` if there is none.
pub fn own_file(name: &str) -> Option<&'static str> {
    let pipelines = [PIPELINE_FILE, PLUGINS_LOCK, STUDY_FILE, EXPERIMENTS, LOGS];
    let all = FILES.into_iter().chain([CHECKPOINTS, TENSORBOARD]).chain(pipelines);
    all.into_iter().find(|own| own.eq_ignore_ascii_case(name))
}

/// What to do with an earlier run of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Replace it only if it ended before its first step was done, since there is nothing to resume.
    Keep,
    /// Replace it if it has no checkpoint.
    ReplaceUnsaved,
}

/// A run's folder that only this process writes. The system releases the lock when the process ends, for whatever
/// reason.
///
/// The folder is held open, and its files are accessed through it. So if the folder is moved during a run, the run
/// continues in it, and another run that is created under its old name is not touched.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    name: String,
    /// Whether to remove the folder again if nothing was put into it.
    created: bool,
    /// Released before the folder is closed, since a file that replaces the lock is accessed through the folder.
    lock: FileLock,
    held: Held,
}

/// An open folder.
#[derive(Debug)]
struct Held {
    folder: File,
    /// A path that leads to it even if it is moved; the path by which it was opened, if the system has no such
    /// paths.
    access_path: PathBuf,
}

impl Held {
    fn open(path: &Path) -> io::Result<Held> {
        let folder = File::open(path)?;
        let access_path = disk::descriptor_path(&folder)
            .filter(|access_path| is_same(&folder, access_path))
            .unwrap_or_else(|| path.to_owned());
        Ok(Held { folder, access_path })
    }
}

impl RunFolder {
    /// Creates the folder of a new run. Call it after everything else was checked. If nothing is written into the
    /// folder, it is removed when this value is dropped.
    ///
    /// # Errors
    /// A wrong request if the name is not a valid folder name or the folder has content that may not be replaced; a
    /// failed run if the folder cannot be created or another process writes it.
    pub fn create(runs: &Path, name: &str, existing: Existing) -> Result<Self> {
        check_name(name)?;
        let path = runs.join(name);
        // Checked before anything is created, and again under the lock.
        refuse_content(&path, name, existing)?;
        refuse_within_a_run(&path)?;
        fs::create_dir_all(&path)
            .map_err(|cause| Error::run(format!("cannot create {}", path.display())).with_cause(cause))?;
        let (held, lock) = open_and_lock(&path)?;
        let run = Self { path, name: name.to_owned(), created: true, held, lock };
        refuse_content(&run.path, name, existing)?;
        clear(&run.path)?;
        // Its name, and that of its pipeline.
        let above = run.path.ancestors().skip(1).take(run.name.split('/').count());
        above.filter(|above| !above.as_os_str().is_empty()).try_for_each(disk::sync_folder)?;
        Ok(run)
    }

    /// Removes everything that was written of a run that this process began, so that it can be started again under
    /// its name. A run with a checkpoint stays, and so does one that was resumed. Returns whether it was removed.
    pub fn discard(&mut self) -> bool {
        let access_path = &self.held.access_path;
        // Another run may have been created under the name of a folder that was moved.
        let is_ours = is_same(&self.held.folder, &self.path);
        self.created && is_ours && is_replaceable(access_path, Existing::ReplaceUnsaved) && clear(access_path).is_ok()
    }

    /// Removes the folder `path` of a run whose process ended before its first step. A run with a step, a
    /// checkpoint or a file of the user stays, and so does one that another process writes. Returns whether it was
    /// removed.
    pub fn discard_unstarted(path: &Path) -> bool {
        let Some(name) = path.file_name().map(|name| name.to_string_lossy().into_owned()) else { return false };
        if !is_replaceable(path, Existing::Keep) {
            return false;
        }
        let Ok((held, lock)) = open_and_lock(path) else { return false };
        // Dropped at the end, which removes the empty folder.
        let run = Self { path: path.to_owned(), name, created: true, held, lock };
        is_replaceable(path, Existing::Keep) && clear(&run.path).is_ok()
    }

    /// Removes the run in the folder `path`, with its checkpoints, if `check` accepts it under the run's lock.
    ///
    /// # Errors
    /// A failed run if another process writes it, or if it cannot be removed; the error of `check`.
    pub(super) fn remove(path: &Path, check: impl FnOnce() -> Result<()>) -> Result<()> {
        let (held, lock) = open_and_lock(path)?;
        check()?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Dropped at the end, which removes the empty folder.
        let run = Self { path: path.to_owned(), name, created: true, held, lock };
        clear(&run.path)
    }

    /// Opens the folder of an earlier run, to resume it.
    ///
    /// # Errors
    /// A wrong request if there is no such run; a failed run if another process writes it.
    pub fn open(runs: &Path, name: &str) -> Result<Self> {
        check_name(name)?;
        let path = runs.join(name);
        if !path.is_dir() {
            let error = Error::request(format!("there is no run {name:?} in {} to resume", runs.display()));
            return Err(error.with_hint(known_runs(runs, name)));
        }
        if !path.join("experiment.toml").is_file() {
            let message = format!("{} is not a run that can be resumed: it has no experiment.toml", path.display());
            return Err(Error::request(message).with_hint(match is_empty(&path) {
                true => "start it without --resume".to_owned(),
                false => format!(
                    "restore the file, or copy what you need from {}, remove it and start the run without --resume",
                    path.display()
                ),
            }));
        }
        let (held, lock) = open_and_lock(&path)?;
        // Left by a process that was killed while writing.
        disk::remove_unfinished(&held.access_path)?;
        Ok(Self { path, name: name.to_owned(), created: false, held, lock })
    }

    /// Checks that the folder is still at the path by which it was opened. Returns its current path if it was
    /// moved.
    ///
    /// # Errors
    /// It was removed; or it was moved and the system has no path that leads to an open folder.
    pub fn moved(&self) -> Result<Option<PathBuf>> {
        if is_same(&self.held.folder, &self.path) {
            return Ok(None);
        }
        let is_gone = self.held.folder.metadata().is_ok_and(|meta| meta.nlink() == 0);
        if is_gone || self.held.access_path == self.path || !is_same(&self.held.folder, &self.held.access_path) {
            let message = format!("the folder of the run was removed or moved during the run: {}", self.path.display());
            return Err(Error::run(message).with_hint("move it back, then continue with --resume"));
        }
        Ok(Some(disk::shown(&self.held.access_path)))
    }

    /// A note for the user about the lock.
    pub fn note(&self) -> Option<String> {
        self.lock.note()
    }

    /// The folder's path as the user named it; use the methods below to access its files.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The run's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A path that leads to the folder even if it is moved.
    pub fn access_path(&self) -> &Path {
        &self.held.access_path
    }

    /// The resolved experiment, with every default filled in.
    pub fn experiment(&self) -> PathBuf {
        self.held.access_path.join("experiment.toml")
    }

    /// Everything that the result depends on; see [`super::receipt`].
    pub fn receipt(&self) -> PathBuf {
        self.held.access_path.join("receipt.json")
    }

    /// One object per line; two equal runs write the same bytes.
    pub fn metrics(&self) -> PathBuf {
        self.held.access_path.join("metrics.jsonl")
    }

    /// One object per line, for measurements that may differ between two equal runs.
    pub fn timing(&self) -> PathBuf {
        self.held.access_path.join("timing.jsonl")
    }

    /// Hashes of the rows that the run learns from; see [`crate::train`].
    pub fn rows(&self) -> PathBuf {
        self.held.access_path.join("rows.txt")
    }

    /// Samples of generated text over time.
    pub fn samples(&self) -> PathBuf {
        self.held.access_path.join("samples.jsonl")
    }

    /// Distributions of values over time; absent if there are none.
    pub fn histograms(&self) -> PathBuf {
        self.held.access_path.join("histograms.jsonl")
    }

    /// The folder of event files for TensorBoard; see [`crate::track`].
    pub fn tensorboard(&self) -> PathBuf {
        self.held.access_path.join(TENSORBOARD)
    }

    /// The folder of checkpoints; see [`super::checkpoint`].
    pub fn checkpoints(&self) -> PathBuf {
        self.held.access_path.join(CHECKPOINTS)
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        if self.created && is_same(&self.held.folder, &self.path) && is_empty(&self.path) {
            _ = disk::remove_unfinished(&self.held.access_path);
            self.lock.remove_held();
            _ = fs::remove_file(self.path.join(LOCK));
            _ = fs::remove_dir(&self.path);
            // Only if this was the first and only run in it: a folder that is not empty stays.
            for above in self.path.ancestors().skip(1).take(self.name.split('/').count()) {
                _ = fs::remove_dir(above);
            }
        }
    }
}

fn check_name(name: &str) -> Result<()> {
    let wrong = |name: &str| {
        name.is_empty() || name.starts_with('.') || name.contains(['/', '\\']) || name.contains(char::is_control)
    };
    // A stage's run is in its pipeline's folder.
    let (folder, within) = name.split_once('/').unwrap_or((name, "x"));
    if wrong(folder) || wrong(within) {
        return Err(Error::request(format!("{name:?} cannot be the name of a run"))
            .with_hint("use a folder's name without slashes that does not begin with a dot, such as --name my-run"));
    }
    Ok(())
}

/// Refuses a run inside another run's folder: only a pipeline's folder contains runs.
fn refuse_within_a_run(path: &Path) -> Result<()> {
    let Some(above) = path.parent().filter(|above| above.join("experiment.toml").is_file()) else { return Ok(()) };
    Err(Error::request(format!("{} is a run and cannot contain another run", above.display()))
        .with_hint("choose another name with --name"))
}

fn refuse_content(path: &Path, name: &str, existing: Existing) -> Result<()> {
    if !path.exists() || is_empty(path) || is_replaceable(path, existing) {
        return Ok(());
    }
    if !path.join(FILES[0]).is_file() {
        return Err(Error::request(format!(
            "{} has no experiment.toml and contains other files: it is not a run",
            path.display()
        ))
        .with_hint(format!(
            "choose another name with --name, or copy what you need from {} and remove it first",
            path.display()
        )));
    }
    let error = Error::request(format!("the run {name:?} exists already: {}", path.display()));
    let error = match existing {
        Existing::Keep => error,
        Existing::ReplaceUnsaved => {
            error.with_details(["--dev never replaces a folder with a checkpoint or a file of yours"])
        }
    };
    Err(error.with_hint(format!(
        "continue it with --resume, choose another name with --name, or remove {} first",
        path.display()
    )))
}

/// Whether the folder contains an earlier run that may be replaced, and nothing else.
///
/// Only files that telos itself writes are ever removed: any other file, and any checkpoint, keeps the folder.
pub(crate) fn is_replaceable(path: &Path, existing: Existing) -> bool {
    let Ok(mut entries) = fs::read_dir(path) else { return false };
    let known = |entry: io::Result<fs::DirEntry>| {
        entry.is_ok_and(|entry| match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            true if entry.file_name() == CHECKPOINTS => holds_no_checkpoint(&entry.path()),
            true => entry.file_name() == TENSORBOARD && holds_only_events(&entry.path()),
            false => is_own_file(&entry),
        })
    };
    let experiment = path.join(FILES[0]).is_file();
    experiment
        && entries.all(known)
        && (existing == Existing::ReplaceUnsaved || !has_steps(&path.join("metrics.jsonl")))
}

/// Whether telos wrote this file of a run's folder.
pub(super) fn is_own_file(entry: &fs::DirEntry) -> bool {
    let name = entry.file_name();
    let is_ours = |name: &OsStr| is_lock(name) || is_unfinished(name) || is_of_a_tracker(name);
    match entry.file_type().is_ok_and(|kind| kind.is_file()) {
        true if name == REPORT_FILE => files::read(&entry.path()).is_ok_and(|bytes| is_report(&bytes)),
        is_file => is_file && (is_ours(&name) || FILES.iter().any(|file| name == *file)),
    }
}

/// Whether the folder of checkpoints contains nothing except what an interrupted save left.
fn holds_no_checkpoint(path: &Path) -> bool {
    let unfinished = |entry: io::Result<fs::DirEntry>| entry.is_ok_and(|entry| is_unfinished(&entry.file_name()));
    fs::read_dir(path).is_ok_and(|mut entries| entries.all(unfinished))
}

/// Whether an optimizer step was done. A file that cannot be read counts as yes.
fn has_steps(metrics: &Path) -> bool {
    match files::read_to_string(metrics) {
        Ok(text) => text.lines().any(|line| line.contains("\"kind\":\"train\"")),
        Err(cause) => cause.kind() != io::ErrorKind::NotFound,
    }
}

/// Removes the files of a run, except its lock. Call it under the lock, if [`is_replaceable`] holds.
fn clear(path: &Path) -> Result<()> {
    let failed = |cause| Error::run(format!("cannot replace the run in {}", path.display())).with_cause(cause);
    let missing = |done: io::Result<()>| match done {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    };
    for folder in [CHECKPOINTS, TENSORBOARD] {
        missing(fs::remove_dir_all(path.join(folder))).map_err(failed)?;
    }
    for entry in fs::read_dir(path).map_err(failed)?.flatten() {
        if is_of_a_tracker(&entry.file_name()) {
            missing(fs::remove_file(entry.path())).map_err(failed)?;
        }
    }
    disk::remove_unfinished(path)?;
    // The experiment last, because it is what identifies the folder as a run.
    FILES.iter().rev().try_for_each(|file| missing(fs::remove_file(path.join(file)))).map_err(failed)
}

/// Whether this is the name of a file in which a program beside the run keeps what it has sent.
fn is_of_a_tracker(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| name.starts_with(TRACKERS) && name.ends_with(".json"))
}

/// Whether this is the name of the lock, or of the file that replaces it.
fn is_lock(name: &OsStr) -> bool {
    name == LOCK || name.to_str().and_then(|name| name.strip_suffix(HELD)) == Some(LOCK)
}

/// Whether the folder contains nothing except our lock and what a killed process left of its first file.
pub(crate) fn is_empty(path: &Path) -> bool {
    let nothing = |entry: io::Result<fs::DirEntry>| {
        entry.is_ok_and(|entry| is_lock(&entry.file_name()) || is_unfinished(&entry.file_name()))
    };
    fs::read_dir(path).is_ok_and(|mut entries| entries.all(nothing))
}

fn known_runs(runs: &Path, name: &str) -> String {
    let is_run = |path: &Path| path.join("experiment.toml").is_file();
    let entries = fs::read_dir(runs).into_iter().flatten().flatten().filter(|entry| is_run(&entry.path()));
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    let near = names.iter().max_by(|a, b| strsim::jaro_winkler(a, name).total_cmp(&strsim::jaro_winkler(b, name)));
    match near {
        Some(near) => format!("the most similar name of a run is {near:?}; to start a new run, leave --resume out"),
        None => "leave --resume out to start the run".to_owned(),
    }
}

/// Opens the folder of a run and takes its lock.
fn open_and_lock(path: &Path) -> Result<(Held, FileLock)> {
    let failed = |cause: io::Error| Error::run(format!("cannot lock {}", path.join(LOCK).display())).with_cause(cause);
    let held = Held::open(path).map_err(failed)?;
    match FileLock::take(&held.access_path.join(LOCK), PATIENCE) {
        Ok(lock) => Ok((held, lock)),
        Err(Denied::Failed(cause)) => Err(failed(cause)),
        Err(Denied::Taken(owner)) => Err(Error::run(format!("{owner} is writing the run in {}", path.display()))
            .with_hint("wait until it has ended, stop it, or choose another name with --name")),
    }
}

#[cfg(test)]
mod tests;
