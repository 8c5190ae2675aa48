//! Checkpoints that are either intact or absent: saving, rotating, and cleaning up after a killed process.
//!
//! The steps of a save: create a temporary folder; write and sync the caller's files; write the hashed manifest
//! last; rename the folder; sync its parent; read everything again from the disk and compare. Only then is `LATEST`
//! updated, and that commits the save: a failure before it puts everything back as it was; after it the new
//! checkpoint is the one to resume from. Then `BEST` is updated and old checkpoints are removed. The content of the
//! files is the caller's; [`mod@find`] reads without changing anything.

#[cfg(test)]
pub(super) mod faults;
pub mod find;
pub mod manifest;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};

use find::{BEST, LATEST, REPLACED, entries, names, parse_step, read_pointer, replaced_name, step_name};
pub use find::{Checkpoint, best, latest};
use manifest::{MANIFEST, Manifest};

use super::disk::{Disk, UNFINISHED, shown};
use super::folder::RunFolder;
use crate::error::{Error, Result};
use crate::files;

/// Prefix of what is being removed: it is renamed first, so that a half-removed folder never has a checkpoint's
/// name.
const REMOVED: &str = ".removed-";

/// What `folder`, a run's folder of checkpoints, holds besides checkpoints, their pointers and what an interrupted save left: names
/// below it, in alphabetical order. A checkpoint without a valid manifest is among them.
pub fn foreign(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_folder = entry.path().is_dir();
        let step = name.strip_prefix(REPLACED).unwrap_or(&name);
        if is_folder && parse_step(step).is_some() {
            match manifest::foreign_files(&entry.path()) {
                Some(files) => found.extend(files.into_iter().map(|file| format!("{name}/{file}"))),
                None => found.push(name),
            }
        } else if !(name.starts_with(UNFINISHED)
            || name.starts_with(REMOVED)
            || !is_folder && [LATEST, BEST].contains(&&*name))
        {
            found.push(name);
        }
    }
    found.sort();
    found
}

/// The checkpoints of a run that this process writes.
#[derive(Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    keep: usize,
    disk: Disk,
}

/// A checkpoint that is safely on the disk and that `LATEST` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// Optimizer steps done.
    pub step: u64,
    /// Its folder.
    pub path: PathBuf,
    /// Size in bytes of all its files, without the manifest.
    pub bytes: u64,
    /// What failed after the commit, such as removing an old checkpoint; tried again at the next save.
    pub warnings: Vec<String>,
}

/// How far a save has got, which decides how it is undone.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reached {
    Nothing,
    /// The new folder has its final name.
    Renamed,
    /// `LATEST` names it.
    Committed,
}

impl Checkpoints {
    /// Opens the checkpoints of `run` for writing and cleans up what a killed process left. Afterwards `LATEST`
    /// names `from`, the step of the checkpoint that [`latest`] has found. Each save keeps the `keep` (at least 1)
    /// newest ones, and the best one. Creates nothing before the first save.
    ///
    /// # Errors
    /// The folder cannot be read or cleaned up.
    pub fn new(run: &RunFolder, keep: usize, from: Option<u64>) -> Result<Self> {
        Self::at(run.checkpoints(), keep, Disk::default(), from)
    }

    fn at(folder: PathBuf, keep: usize, disk: Disk, from: Option<u64>) -> Result<Self> {
        let checkpoints = Self { folder, keep: keep.max(1), disk };
        checkpoints
            .tidy(from)
            .map_err(|error| error.context(format!("cannot clean up {}", shown(&checkpoints.folder).display())))?;
        Ok(checkpoints)
    }

    /// The checkpoint to resume from; see [`find::latest`].
    ///
    /// # Errors
    /// There are checkpoints and none is intact.
    pub fn latest(&self) -> Result<Option<Checkpoint>> {
        latest(&self.folder)
    }

    /// The best checkpoint; see [`find::best`].
    ///
    /// # Errors
    /// There are best checkpoints and none is intact.
    pub fn best(&self) -> Result<Option<Checkpoint>> {
        best(&self.folder)
    }

    /// Saves the checkpoint of `step`; `write` puts its files into the folder that it is given. A checkpoint of the
    /// same step is replaced. Checkpoints of later steps, which were written before the run was resumed from an
    /// earlier step, are removed.
    ///
    /// Anything outside its folder that a checkpoint refers to (such as a position in a log) must be durable
    /// before.
    ///
    /// # Errors
    /// What could not be written or the error of `write`, and which checkpoint is still intact. That checkpoint and
    /// `LATEST` are unchanged, and nothing is left over.
    pub fn save(&self, step: u64, best: bool, write: impl FnOnce(&Path) -> Result<()>) -> Result<Saved> {
        let temporary = self.folder.join(format!("{UNFINISHED}{}-{}", step_name(step), std::process::id()));
        let mut reached = Reached::Nothing;
        let done = self
            .fill(&temporary, step, best, write)
            .and_then(|manifest| self.publish(&temporary, &manifest, &mut reached).map(|()| manifest));
        match done {
            Ok(manifest) => Ok(Saved {
                step,
                path: self.folder.join(step_name(step)),
                bytes: manifest.files.iter().map(|file| file.bytes).sum(),
                warnings: self.after_commit(step),
            }),
            Err(error) => {
                self.undo(&temporary, step, reached);
                Err(self.explain(step, error))
            }
        }
    }

    /// Fills the temporary folder durably, with the manifest last.
    fn fill(&self, to: &Path, step: u64, best: bool, write: impl FnOnce(&Path) -> Result<()>) -> Result<Manifest> {
        // What this process left after an earlier attempt must not become part of this one.
        self.disk.remove(to)?;
        self.disk.make_folder(to)?;
        write(to)?;
        let manifest = Manifest::of(to, step, best)?;
        for file in &manifest.files {
            self.disk.sync(&to.join(&file.path))?;
        }
        self.disk.write(&to.join(MANIFEST), &manifest.to_bytes())?;
        manifest::folders_below(to).iter().try_for_each(|folder| self.disk.sync(folder))?;
        Ok(manifest)
    }

    /// Gives the folder its final name, checks its content on the disk, and lets `LATEST` name it.
    fn publish(&self, from: &Path, manifest: &Manifest, reached: &mut Reached) -> Result<()> {
        let place = self.folder.join(step_name(manifest.step));
        if place.exists() {
            let aside = self.folder.join(replaced_name(manifest.step));
            self.disk.remove(&aside)?;
            self.disk.rename(&place, &aside)?;
        }
        self.disk.rename(from, &place)?;
        *reached = Reached::Renamed;
        self.disk.sync(&self.folder)?;
        let read = Manifest::verify(&place).and_then(|read| {
            if read == *manifest { Ok(()) } else { Err(format!("{MANIFEST} is not the one written")) }
        });
        read.map_err(|why| Error::run(format!("{} reads back differently: {why}", shown(&place).display())))?;
        if let (Ok(None), Some(run)) = (read_pointer(&self.folder, LATEST), self.folder.parent()) {
            // For the first checkpoint, the name of the folder of checkpoints is new, too.
            self.disk.sync(run)?;
        }
        self.point(LATEST, manifest.step)?;
        *reached = Reached::Committed;
        self.disk.sync(&self.folder)
    }

    /// Puts everything back as it was before a failed save; what cannot be put back is found at the next start.
    fn undo(&self, temporary: &Path, step: u64, reached: Reached) {
        if reached == Reached::Committed {
            return;
        }
        let (place, aside) = (self.folder.join(step_name(step)), self.folder.join(replaced_name(step)));
        if reached == Reached::Renamed {
            _ = self.discard(&place);
        }
        if aside.exists() && !place.exists() {
            _ = self.disk.rename(&aside, &place);
        }
        _ = self.disk.remove(temporary);
        _ = self.disk.sync(&self.folder);
    }

    /// The steps after a commit: removes the checkpoint that was replaced, updates `BEST`, removes old ones.
    /// Returns what failed.
    fn after_commit(&self, step: u64) -> Vec<String> {
        let tasks = [
            self.disk.remove(&self.folder.join(replaced_name(step))),
            // Rotation finds the best checkpoint by BEST's rule and not from its file, so the order of these two
            // does not matter.
            self.point_to_best(step),
            self.check_best(),
            self.rotate(step),
            self.disk.sync(&self.folder),
        ];
        let mut warnings: Vec<String> = tasks.into_iter().filter_map(|task| Some(one_line(&task.err()?))).collect();
        warnings.dedup();
        warnings
    }

    /// Removes all but the `keep` newest up to `step` and the best one. Never removes the one just written,
    /// whatever the clock shows, because the order is by step. If a manifest cannot be read, its checkpoint may be
    /// the best, so all stay.
    fn rotate(&self, step: u64) -> Result<()> {
        let entries = entries(&self.folder)?;
        let best = self.newest_best(step)?;
        let newest = entries.iter().map(|entry| entry.step).filter(|other| *other <= step).take(self.keep);
        let keep: Vec<u64> = newest.chain(best).chain([step]).collect();
        entries.iter().filter(|entry| !keep.contains(&entry.step)).try_for_each(|entry| self.discard(&entry.path))
    }

    /// The best checkpoint: the newest one up to `limit` that was the best when saved, since each best one is
    /// better than those before it; or, if its manifest is damaged, the one that BEST names.
    fn newest_best(&self, limit: u64) -> Result<Option<u64>> {
        let named = read_pointer(&self.folder, BEST).ok().flatten();
        for entry in entries(&self.folder)?.into_iter().filter(|entry| entry.step <= limit) {
            match files::read(&entry.path.join(MANIFEST)) {
                Ok(bytes) => match Manifest::parse(&bytes) {
                    Ok(manifest) if manifest.best => return Ok(Some(entry.step)),
                    Ok(_) => {}
                    Err(_) if named == Some(entry.step) => return Ok(named),
                    Err(_) => {}
                },
                Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
                    if named == Some(entry.step) {
                        return Ok(named);
                    }
                }
                Err(cause) => {
                    let what =
                        format!("{MANIFEST} of {} cannot be read, and it may be the best one", step_name(entry.step));
                    return Err(Error::run(format!("{what}, so no checkpoint is removed")).with_cause(cause));
                }
            }
        }
        Ok(None)
    }

    /// Reports an error if the checkpoint that BEST names is damaged: it stays, in case the user can repair it.
    fn check_best(&self) -> Result<()> {
        let Ok(Some(step)) = read_pointer(&self.folder, BEST) else { return Ok(()) };
        let path = self.folder.join(step_name(step));
        Manifest::read(&path).map(|_| ()).map_err(|why| {
            let place = shown(&path);
            Error::run(format!("the best checkpoint, {}, is damaged and stays as it is: {why}", place.display()))
        })
    }

    fn point_to_best(&self, limit: u64) -> Result<()> {
        let best = self.newest_best(limit)?;
        match best {
            _ if read_pointer(&self.folder, BEST) == Ok(best) => Ok(()),
            Some(step) => self.point(BEST, step),
            None => self.disk.remove(&self.folder.join(BEST)),
        }
    }

    fn point(&self, pointer: &str, step: u64) -> Result<()> {
        self.disk.replace(&self.folder.join(pointer), format!("{}\n", step_name(step)).as_bytes())
    }

    fn discard(&self, path: &Path) -> Result<()> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let removed = self.folder.join(format!("{REMOVED}{name}"));
        self.disk.remove(&removed)?;
        self.disk.rename(path, &removed)?;
        self.disk.remove(&removed)
    }

    /// Removes what a killed process left half done, and puts back what it had moved aside.
    fn tidy(&self, from: Option<u64>) -> Result<()> {
        for name in names(&self.folder)? {
            let path = self.folder.join(&name);
            if let Some(step) = name.strip_prefix(REPLACED).and_then(parse_step) {
                let place = self.folder.join(step_name(step));
                if Manifest::verify(&place).is_ok() {
                    self.discard(&path)?;
                } else {
                    self.disk.remove(&place)?;
                    self.disk.rename(&path, &place)?;
                }
            } else if name.starts_with(UNFINISHED) || name.starts_with(REMOVED) {
                self.disk.remove(&path)?;
            }
        }
        let Some(from) = from else { return Ok(()) };
        if read_pointer(&self.folder, LATEST) != Ok(Some(from)) {
            self.point(LATEST, from)?;
            self.disk.sync(&self.folder)?;
        }
        // If BEST cannot be set, it stays as it is, and the next save reports why.
        _ = self.point_to_best(from);
        Ok(())
    }

    fn explain(&self, step: u64, error: Error) -> Error {
        let place = shown(&self.folder);
        let good = match read_pointer(&self.folder, LATEST) {
            Ok(Some(good)) => format!("the last good checkpoint is {}", place.join(step_name(good)).display()),
            _ => "there is no earlier checkpoint".to_owned(),
        };
        let folder = place.display();
        let hint = error.hint().map(str::to_owned);
        error.context(format!("the checkpoint of step {step} could not be saved")).with_details([good]).with_hint(
            hint.unwrap_or_else(|| {
                format!("make sure that {folder} is writable and its disk has free space, then continue with --resume")
            }),
        )
    }
}

/// An error and its causes in one line.
fn one_line(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
