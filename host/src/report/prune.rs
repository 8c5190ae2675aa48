//! `telos runs prune`: which runs are removed, and why others stay.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Serialize;

use super::listing::{Brief, Listing, age, bytes};
use crate::{
    error::{Error, Result},
    files,
    runs::{
        folder::{EXPERIMENTS, PIPELINE_FILE},
        removal::{self, foreign_entries, is_own_of_pipeline},
        study_file::StudyFile,
    },
};

/// What is to be removed.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The folder of all runs.
    pub folder: PathBuf,
    /// The states of runs to remove.
    pub states: Vec<String>,
    /// Only runs whose logs are at least so old.
    pub older_than: Duration,
}

/// What a request removes. A pipeline is removed as a whole.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pruning {
    /// Whether it was done.
    pub removed: bool,
    /// The runs and pipelines that are removed.
    pub runs: Vec<Removal>,
    /// Those that were asked for and stay, with the reason.
    pub kept: Vec<(String, String)>,
}

/// A run or pipeline that is removed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Removal {
    /// Its name.
    pub run: String,
    /// Its states, in the order of its stages' names.
    pub states: Vec<&'static str>,
    /// Seconds since its logs were written.
    pub age_s: u64,
    /// Bytes of its files.
    pub bytes: u64,
}

impl Pruning {
    /// Finds what `request` removes; changes nothing.
    ///
    /// # Errors
    /// A request error if the folder cannot be read.
    pub fn plan(request: &Request) -> Result<Pruning> {
        let mut units: BTreeMap<String, Vec<Brief>> = BTreeMap::new();
        for brief in Listing::read(&request.folder)?.runs {
            let unit = brief.run.split('/').next().unwrap_or(&brief.run).to_owned();
            units.entry(unit).or_default().push(brief);
        }
        let is_asked = |brief: &Brief| request.states.iter().any(|state| state == brief.state);
        let is_old = |brief: &Brief| brief.age_s >= request.older_than.as_secs();
        let asked = |runs: &[Brief]| runs.iter().any(is_asked) && runs.iter().all(is_old);
        let mut chosen: BTreeSet<&str> =
            units.iter().filter(|(_, runs)| asked(runs)).map(|(unit, _)| unit.as_str()).collect();
        let mut kept = Vec::new();
        // Whatever stays keeps the models that it begins at, which may keep others.
        loop {
            let why = |unit: &str| {
                let staying = || units.keys().map(String::as_str).filter(|other| !chosen.contains(other));
                why_kept(request, unit, &units[unit], &is_asked).or_else(|| {
                    let user = staying().find(|other| uses(&request.folder, other, unit))?;
                    Some(format!("{user} begins at one of its models"))
                })
            };
            let Some((unit, why)) = chosen.iter().find_map(|unit| Some((*unit, why(unit)?))) else { break };
            chosen.remove(unit);
            kept.push((unit.to_owned(), why));
        }
        let removal = |unit: &str| Removal {
            run: unit.to_owned(),
            states: units[unit].iter().map(|brief| brief.state).collect(),
            age_s: units[unit].iter().map(|brief| brief.age_s).min().unwrap_or(0),
            bytes: units[unit].iter().map(|brief| brief.bytes).sum(),
        };
        kept.sort();
        Ok(Pruning { removed: false, runs: chosen.into_iter().map(removal).collect(), kept })
    }

    /// Removes what was planned. A run that cannot be removed stays and is named among the kept ones.
    pub fn carry_out(mut self, folder: &Path) -> Pruning {
        let mut removed = Vec::new();
        for removal in self.runs {
            match remove(&folder.join(&removal.run)) {
                Ok(()) => removed.push(removal),
                Err(error) => self.kept.push((removal.run, error.message().to_owned())),
            }
        }
        Pruning { removed: true, runs: removed, kept: self.kept }
    }
}

/// The runs in the folder of a run or a pipeline.
fn runs_of(folder: &Path) -> Vec<PathBuf> {
    if !folder.join(PIPELINE_FILE).is_file() {
        return vec![folder.to_owned()];
    }
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut runs: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    runs.sort();
    runs
}

/// What telos did not write in a run or pipeline.
fn foreign(folder: &Path) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    if folder.join(PIPELINE_FILE).is_file() {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let files = entries.filter(|entry| !entry.path().is_dir() && !is_own_of_pipeline(entry));
        found.extend(files.map(|entry| entry.file_name().to_string_lossy().into_owned()));
    }
    for run in runs_of(folder) {
        let within = run.strip_prefix(folder).unwrap_or(&run).to_owned();
        found.extend(foreign_entries(&run).into_iter().map(|name| within.join(name).display().to_string()));
    }
    found
}

/// Why a run or pipeline that was asked for stays, whatever the others are.
fn why_kept(request: &Request, unit: &str, runs: &[Brief], is_asked: &dyn Fn(&Brief) -> bool) -> Option<String> {
    let folder = request.folder.join(unit);
    if StudyFile::is_in(&folder) {
        return Some("it is a study: remove its folder yourself".to_owned());
    }
    // Stages that ended as planned go with the one that died.
    let may_go = |brief: &Brief| is_asked(brief) || ["done", "stopped early", "paused"].contains(&brief.state);
    if let Some(other) = runs.iter().find(|brief| brief.state == "running" || !may_go(brief)) {
        return Some(format!("{} is {}", other.run, other.state));
    }
    foreign(&folder).first().map(|name| format!("it holds {name}, which telos did not write"))
}

/// Whether a file of the unit `other` names a path in `unit`. Paths are compared by the names of their folders, so a run of the same
/// name elsewhere counts too: better a run too many than a model too few.
fn uses(folder: &Path, other: &str, unit: &str) -> bool {
    let folder = folder.join(other);
    let entries = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let of_runs = [folder.clone()].into_iter().chain(entries(&folder)).map(|path| path.join("experiment.toml"));
    let files = of_runs.chain([folder.join(PIPELINE_FILE)]).chain(entries(&folder.join(EXPERIMENTS)));
    let parts = [format!("/{unit}/"), format!("/{unit}\""), format!("\"{unit}/")];
    let names = |text: String| parts.iter().any(|part| text.contains(part.as_str()));
    files.filter(|file| file.is_file()).any(|file| files::read_to_string(&file).is_ok_and(names))
}

fn remove(folder: &Path) -> Result<()> {
    if !folder.join(PIPELINE_FILE).is_file() {
        return removal::remove(folder);
    }
    runs_of(folder).iter().try_for_each(|run| removal::remove(run))?;
    let failed = |cause| Error::run(format!("cannot remove {}", folder.display())).with_cause(cause);
    // The pipeline's file last: it is what identifies the folder.
    let entries = fs::read_dir(folder).map_err(failed)?.flatten().filter(is_own_of_pipeline);
    let (last, first): (Vec<_>, Vec<_>) = entries.partition(|entry| entry.file_name() == PIPELINE_FILE);
    first.iter().chain(&last).try_for_each(|entry| fs::remove_file(entry.path())).map_err(failed)?;
    fs::remove_dir(folder).map_err(failed)
}

impl fmt::Display for Pruning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Removal { run, states, age_s, bytes: size } in &self.runs {
            let mut words = states.clone();
            words.dedup();
            writeln!(f, "{run}: {}, {} old, {}", words.join(", "), age(*age_s), bytes(*size))?;
        }
        for (run, why) in &self.kept {
            writeln!(f, "{run} stays: {why}")?;
        }
        let (count, size) = (self.runs.len(), bytes(self.runs.iter().map(|run| run.bytes).sum()));
        let noun = if count == 1 { "run" } else { "runs" };
        match (count, self.removed) {
            (0, _) => write!(f, "nothing is removed"),
            (_, true) => write!(f, "removed {count} {noun}, {size}"),
            (_, false) => write!(f, "{count} {noun}, {size}: nothing is removed yet; add --yes to remove them"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runs::{
        end::{Ending, RunEnd},
        file_lock::FileLock,
    };

    fn runs() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let run = |name: &str, text: &str, ending: Option<Ending>| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.join("checkpoints")).unwrap();
            fs::write(path.join("checkpoints/LATEST"), "step-00000001").unwrap();
            fs::write(path.join("experiment.toml"), text).unwrap();
            if let Some(ending) = ending {
                RunEnd::now(ending, 1).write(&path).unwrap();
            }
        };
        run("done", "from = \"runs/base\"", Some(Ending::Done));
        for (name, text) in
            [("base", ""), ("dead", ""), ("mine", "from = \"../runs/first/best\""), ("inner", ""), ("first", "")]
        {
            run(name, text, Some(Ending::Failed));
        }
        run("lost", "", None);
        run("running", "", None);
        fs::write(folder.path().join("mine/notes.txt"), "mine").unwrap();
        fs::write(folder.path().join("inner/checkpoints/model.gguf"), "mine").unwrap();
        run("events", "", Some(Ending::Failed));
        fs::create_dir(folder.path().join("events/tensorboard")).unwrap();
        fs::write(folder.path().join("events/tensorboard/mine.txt"), "mine").unwrap();
        fs::write(folder.path().join("notes.txt"), "mine").unwrap();
        fs::create_dir(folder.path().join("pipe")).unwrap();
        fs::write(folder.path().join("pipe/pipeline.toml"), "").unwrap();
        run("pipe/a", "", Some(Ending::Early));
        run("pipe/b", "", Some(Ending::Crashed));
        run("study/a", "", Some(Ending::Failed));
        fs::write(folder.path().join("study/study.json"), "{}").unwrap();
        folder
    }

    fn request(folder: &Path, states: &[&str], older_than: Duration) -> Request {
        let states = states.iter().map(|state| (*state).to_owned()).collect();
        Request { folder: folder.to_owned(), states, older_than }
    }

    /// Catches a run that is removed although it is in use, holds a file of the user, or is where another one begins; a pipeline that
    /// loses a part; and a plan that changes anything.
    #[test]
    fn dead_runs_are_removed_and_nothing_else() {
        let folder = runs();
        let _lock = FileLock::take(&folder.path().join("running/.lock"), Duration::ZERO).unwrap();
        let all = request(folder.path(), &["failed", "crashed", "lost", "running"], Duration::ZERO);
        let plan = Pruning::plan(&all).unwrap();
        let names = |pruning: &Pruning| pruning.runs.iter().map(|run| run.run.clone()).collect::<Vec<_>>();
        let mut kept: Vec<String> = plan.kept.iter().map(|(run, _)| run.clone()).collect();
        kept.sort();
        assert_eq!(kept, ["base", "events", "first", "inner", "mine", "running", "study"], "{plan}");
        assert!(
            plan.to_string().contains("done begins at one of its models") && plan.to_string().contains("notes.txt")
        );
        let expected = ["dead", "lost", "pipe"];
        assert_eq!(names(&plan), expected);
        assert!(folder.path().join("dead/experiment.toml").exists());
        let done = plan.carry_out(folder.path());
        assert_eq!(names(&done), expected);
        for gone in expected {
            assert!(!folder.path().join(gone).exists(), "{gone}");
        }
        for stays in [
            "done",
            "base",
            "first",
            "study/a",
            "mine/notes.txt",
            "inner/checkpoints/model.gguf",
            "running",
            "notes.txt",
        ] {
            assert!(folder.path().join(stays).exists(), "{stays}");
        }
    }

    /// Catches an age or a state that is ignored.
    #[test]
    fn only_what_was_asked_for_is_planned() {
        let folder = runs();
        let plan = |states: &[&str], age| Pruning::plan(&request(folder.path(), states, age)).unwrap().runs.len();
        assert_eq!(plan(&["failed"], Duration::from_secs(3600)), 0);
        assert_eq!(plan(&["interrupted"], Duration::ZERO), 0);
        assert!(plan(&["failed"], Duration::ZERO) >= 1);
    }

    /// Catches a pipeline that is removed though one of its stages is newer, an age that is not that of the newest stage, and a run
    /// that stays because another one has a name that begins like its own.
    #[test]
    fn a_pipeline_is_as_old_as_its_newest_stage() {
        let folder = runs();
        let old = std::time::SystemTime::now() - Duration::from_secs(7200);
        let file = fs::File::options().append(true).open(folder.path().join("pipe/a/experiment.toml")).unwrap();
        file.set_modified(old).unwrap();
        fs::write(folder.path().join("done/experiment.toml"), "from = \"runs/deadly/best\"").unwrap();
        let plan = |age| Pruning::plan(&request(folder.path(), &["failed", "crashed"], age)).unwrap();
        assert!(plan(Duration::from_secs(3600)).runs.is_empty());
        let all = plan(Duration::ZERO);
        let of = |name: &str| all.runs.iter().find(|removal| removal.run == name);
        assert!(of("pipe").is_some_and(|pipe| pipe.age_s < 3600), "{all}");
        assert!(of("dead").is_some(), "{all}");
    }
}
