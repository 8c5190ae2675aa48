//! Finds an intact checkpoint; changes nothing, so any process may do it while a run continues.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::manifest::{MANIFEST, Manifest};
use crate::error::{Error, Result};
use crate::files;
use crate::runs::disk::shown;
use crate::runs::folder::{CHECKPOINTS, PIPELINE_FILE};

/// Names the checkpoint to resume from.
pub const LATEST: &str = "LATEST";
/// Names the best checkpoint by the experiment's metric.
pub const BEST: &str = "BEST";

/// Folder in a checkpoint with the adapter merged into its base.
pub const MERGED: &str = "merged";

/// An intact checkpoint: every byte of it was read and agrees with its manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Optimizer steps done.
    pub step: u64,
    /// Its folder.
    pub path: PathBuf,
    /// Its files.
    pub manifest: Manifest,
    /// If it is not the requested one, why not; shown to the user.
    pub note: Option<String>,
}

impl Checkpoint {
    /// The note, with the checkpoint that is used instead.
    pub fn stand_in(&self) -> Option<String> {
        Some(format!("{}; using {} instead", self.note.as_ref()?, step_name(self.step)))
    }
}

/// Returns the checkpoint that `LATEST` in `folder` (a run's `checkpoints/`) names. If that one or `LATEST` itself
/// is missing or damaged, returns the newest intact one with a note about it. `None` if there are no checkpoints.
///
/// # Errors
/// There are checkpoints and none is intact; lists what is wrong with each.
pub fn latest(folder: &Path) -> Result<Option<Checkpoint>> {
    find(folder, LATEST)
}

/// As [`latest`], for the best one: falls back to the newest of those that were the best when they were saved.
///
/// # Errors
/// As for [`latest`].
pub fn best(folder: &Path) -> Result<Option<Checkpoint>> {
    find(folder, BEST)
}

/// Compares the model folder `folder`, which the user named, with the manifest in it. Checks a folder
/// if its name is a checkpoint's or if it has a Telos manifest; accepts any other folder without a check.
///
/// # Errors
/// A request error that names what differs.
pub fn verify_named(folder: &Path) -> Result<()> {
    verify_those(folder, |_| true)
}

/// As [`verify_named`], if only a tokenizer is read: weights and moments, which take long to read, are not checked.
///
/// # Errors
/// As for [`verify_named`].
pub fn verify_tokenizer(folder: &Path) -> Result<()> {
    verify_those(folder, |path| !path.ends_with(".safetensors"))
}

/// Whether [`verify_named`] compares the files of `folder`, so that none of them can be edited.
pub fn is_verified(folder: &Path) -> bool {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let is_checkpoint = parse_step(name.strip_prefix(REPLACED).unwrap_or(&name)).is_some();
    is_checkpoint || files::read(&folder.join(MANIFEST)).is_ok_and(|bytes| Manifest::is_telos(&bytes))
}

fn verify_those(folder: &Path, is_included: impl Fn(&str) -> bool) -> Result<()> {
    if !is_verified(folder) {
        return Ok(());
    }
    Manifest::verify_those(folder, is_included).map(|_| ()).map_err(|why| {
        let message = format!("the checkpoint {} differs from what was saved: {why}", folder.display());
        Error::request(message).with_hint(format!(
            "use another checkpoint; if you changed it yourself, copy it under another name without {MANIFEST} and name the \
             copy"
        ))
    })
}

fn find(folder: &Path, pointer: &str) -> Result<Option<Checkpoint>> {
    let entries = entries(folder)?;
    let mut named = read_pointer(folder, pointer);
    if pointer == BEST
        && let Ok(written) = named
    {
        // If a process was killed after it wrote LATEST and before it wrote BEST, BEST is out of date. The manifests are not.
        named = Ok(written.max(newest_best(folder, &entries)));
    }
    let mut problems = Vec::new();
    match &named {
        Ok(Some(step)) => match entries.iter().find(|entry| entry.step == *step) {
            Some(entry) => match entry.verify() {
                Ok(manifest) => return Ok(Some(entry.checkpoint(manifest, None))),
                Err(why) => problems.push(format!("{pointer} names {}, but {why}", step_name(*step))),
            },
            None => problems.push(format!("{pointer} names {}, which does not exist", step_name(*step))),
        },
        Ok(None) if pointer == BEST || entries.is_empty() => {}
        Ok(None) => problems.push(format!("there is no {pointer}")),
        Err(why) => problems.push(why.clone()),
    }
    for entry in &entries {
        if named == Ok(Some(entry.step)) {
            continue;
        }
        match entry.verify() {
            Ok(manifest) if pointer == LATEST || manifest.best => {
                let why = problems.join("; ");
                let note = format!("{}: {why}", shown(folder).display());
                return Ok(Some(entry.checkpoint(manifest, (!why.is_empty()).then_some(note))));
            }
            Ok(_) => {}
            Err(why) => problems.push(format!("{}: {why}", step_name(entry.step))),
        }
    }
    if entries.is_empty() || (pointer == BEST && problems.is_empty()) {
        return Ok(None);
    }
    Err(Error::request(format!("no checkpoint in {} is intact", shown(folder).display()))
        .with_details(problems)
        .with_hint(
            "use another run or model; to train it again, start a run under another name: telos run FILE --name NAME",
        ))
}

/// Whether `folder` needs no cleanup after a killed process, according to names and manifests: nothing is unfinished,
/// and `LATEST` and `BEST` name what they should.
pub fn is_tidy(folder: &Path) -> bool {
    let (Ok(names), Ok(entries)) = (names(folder), entries(folder)) else { return false };
    let is_known = |name: &String| name == LATEST || name == BEST || !name.starts_with('.');
    let latest = read_pointer(folder, LATEST);
    let points = match &latest {
        Ok(Some(step)) => entries.iter().any(|entry| entry.step == *step),
        Ok(None) => entries.is_empty(),
        Err(_) => false,
    };
    points
        && names.iter().all(is_known)
        && read_pointer(folder, BEST).is_ok_and(|best| best >= newest_best(folder, &entries))
}

/// The newest checkpoint, up to the one that `LATEST` names, that was the best when it was saved.
fn newest_best(folder: &Path, entries: &[Entry]) -> Option<u64> {
    let latest = read_pointer(folder, LATEST).ok().flatten();
    let mut up_to_latest = entries.iter().filter(|entry| latest.is_none_or(|latest| entry.step <= latest));
    up_to_latest.find(|entry| Manifest::read(&entry.path).is_ok_and(|manifest| manifest.best)).map(|entry| entry.step)
}

/// A folder that may be a checkpoint.
pub(super) struct Entry {
    pub(super) step: u64,
    pub(super) path: PathBuf,
}

impl Entry {
    fn verify(&self) -> Result<Manifest, String> {
        let manifest = Manifest::verify(&self.path)?;
        if manifest.step == self.step {
            Ok(manifest)
        } else {
            Err(format!("its manifest is that of step {}", manifest.step))
        }
    }

    fn checkpoint(&self, manifest: Manifest, note: Option<String>) -> Checkpoint {
        Checkpoint { step: self.step, path: self.path.clone(), manifest, note }
    }
}

/// Folders that may be checkpoints, newest first by step (never by a file's date: clocks go backwards, copies get
/// new dates).
///
/// A checkpoint that was moved aside to be replaced is included as long as no other has taken its place.
pub(super) fn entries(folder: &Path) -> Result<Vec<Entry>> {
    let names = names(folder)?;
    let steps = names.iter().filter_map(|name| parse_step(name));
    let mut found: Vec<Entry> = steps.map(|step| Entry { step, path: folder.join(step_name(step)) }).collect();
    for step in names.iter().filter_map(|name| parse_step(name.strip_prefix(REPLACED)?)) {
        if !found.iter().any(|entry| entry.step == step) {
            found.push(Entry { step, path: folder.join(replaced_name(step)) });
        }
    }
    found.sort_by_key(|entry| std::cmp::Reverse(entry.step));
    Ok(found)
}

/// Names of all entries of `folder`; none if it does not exist.
pub(super) fn names(folder: &Path) -> Result<Vec<String>> {
    let failed = |cause| Error::run(format!("cannot list {}", shown(folder).display())).with_cause(cause);
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(failed)?.file_name().into_string().ok());
    }
    names.sort();
    Ok(names)
}

/// Returns the stages in the folder of a pipeline, sorted by name: the runs in it that have checkpoints. `None` if there are none, or
/// if the folder is not a pipeline's.
pub fn stages(folder: &Path) -> Option<Vec<String>> {
    if !folder.join(PIPELINE_FILE).is_file() {
        return None;
    }
    let entries = fs::read_dir(folder).ok()?.filter_map(std::result::Result::ok).map(|entry| entry.path());
    let runs = entries.filter(|stage| stage.join(CHECKPOINTS).is_dir());
    let mut stages: Vec<String> = runs.map(|stage| stage.display().to_string()).collect();
    stages.sort();
    (!stages.is_empty()).then_some(stages)
}

/// The step that a pointer file names; `None` if the file is missing, and a reason if it is damaged.
pub(super) fn read_pointer(folder: &Path, pointer: &str) -> Result<Option<u64>, String> {
    match files::read_to_string(&folder.join(pointer)) {
        Ok(text) => parse_step(text.trim_end()).map(Some).ok_or_else(|| format!("{pointer} is damaged")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{pointer} cannot be read: {error}")),
    }
}

/// Prefix of a checkpoint moved aside while another of the same step takes its place.
pub(super) const REPLACED: &str = ".replaced-";

/// Name of a checkpoint's folder.
pub(super) fn step_name(step: u64) -> String {
    format!("step-{step:08}")
}

pub(super) fn replaced_name(step: u64) -> String {
    format!("{REPLACED}{}", step_name(step))
}

/// The step in a folder's name, if it is exactly a name of ours.
pub(super) fn parse_step(name: &str) -> Option<u64> {
    let step = name.strip_prefix("step-")?.parse().ok()?;
    (step_name(step) == name).then_some(step)
}
