//! A run's folder: where its files are, and that one process at a time writes them.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::error::{Error, Result};

const LOCK: &str = ".lock";

/// A run's folder that this process alone writes. The system gives the lock back when the process ends, however it ends.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    name: String,
    /// Whether to take the folder away again if nothing was put into it.
    created: bool,
    _lock: File,
}

impl RunFolder {
    /// Makes the folder of a new run. Call it after everything else was checked; if nothing is written into it, it is
    /// gone again when this value is dropped.
    ///
    /// # Errors
    /// A wrong request where the name is no folder's name or the folder has content; a failed run where the folder
    /// cannot be made or another process writes it.
    pub fn create(runs: &Path, name: &str) -> Result<Self> {
        check_name(name)?;
        let path = runs.join(name);
        // Asked before anything is created, and again under the lock.
        refuse_content(&path, name)?;
        refuse_within_a_run(&path)?;
        fs::create_dir_all(&path)
            .map_err(|cause| Error::run(format!("cannot create {}", path.display())).with_cause(cause))?;
        let lock = lock(&path)?;
        let run = Self { path, name: name.to_owned(), created: true, _lock: lock };
        refuse_content(&run.path, name)?;
        Ok(run)
    }

    /// Opens the folder of an earlier run, to go on with it.
    ///
    /// # Errors
    /// A wrong request where there is no such run; a failed run where another process writes it.
    pub fn open(runs: &Path, name: &str) -> Result<Self> {
        check_name(name)?;
        let path = runs.join(name);
        if !path.is_dir() {
            let error = Error::request(format!("there is no run {name:?} in {} to resume", runs.display()));
            return Err(error.with_hint(known_runs(runs, name)));
        }
        if !path.join("experiment.toml").is_file() {
            return Err(Error::request(format!(
                "{} is not a run that can be resumed: it has no experiment.toml",
                path.display()
            ))
            .with_hint("start it without --resume"));
        }
        let lock = lock(&path)?;
        Ok(Self { path, name: name.to_owned(), created: false, _lock: lock })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The run's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The resolved experiment, defaults included.
    pub fn experiment(&self) -> PathBuf {
        self.path.join("experiment.toml")
    }

    /// What made the result; see [`super::receipt`].
    pub fn receipt(&self) -> PathBuf {
        self.path.join("receipt.json")
    }

    /// One object a line, the same bits every time.
    pub fn metrics(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// One object a line, what may differ between two equal runs.
    pub fn timing(&self) -> PathBuf {
        self.path.join("timing.jsonl")
    }

    /// Generations over time.
    pub fn samples(&self) -> PathBuf {
        self.path.join("samples.jsonl")
    }

    /// The folder of checkpoints; see [`super::checkpoint`].
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        if self.created && is_empty(&self.path) {
            _ = fs::remove_file(self.path.join(LOCK));
            _ = fs::remove_dir(&self.path);
            // Only if we were the first and only run in it: a folder with anything in it stays.
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
    // A stage's run lies in its pipeline's folder.
    let (folder, within) = name.split_once('/').unwrap_or((name, "x"));
    if wrong(folder) || wrong(within) {
        return Err(Error::request(format!("{name:?} cannot be the name of a run"))
            .with_hint("use a folder's name without slashes that does not begin with a dot, such as --name my-run"));
    }
    Ok(())
}

/// Only the folder of a pipeline holds runs.
fn refuse_within_a_run(path: &Path) -> Result<()> {
    let Some(above) = path.parent().filter(|above| above.join("experiment.toml").is_file()) else { return Ok(()) };
    Err(Error::request(format!("{} is a run; no other run can lie in it", above.display()))
        .with_hint("choose another name by --name"))
}

fn refuse_content(path: &Path, name: &str) -> Result<()> {
    if !path.exists() || is_empty(path) {
        return Ok(());
    }
    Err(Error::request(format!("the run {name:?} exists already: {}", path.display())).with_hint(format!(
        "go on with it by --resume, choose another name by --name, or remove {} first",
        path.display()
    )))
}

/// Whether the folder holds nothing but our lock.
fn is_empty(path: &Path) -> bool {
    fs::read_dir(path).is_ok_and(|mut entries| entries.all(|entry| entry.is_ok_and(|entry| entry.file_name() == LOCK)))
}

fn known_runs(runs: &Path, name: &str) -> String {
    let is_run = |path: &Path| path.join("experiment.toml").is_file();
    let entries = fs::read_dir(runs).into_iter().flatten().flatten().filter(|entry| is_run(&entry.path()));
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    let near = names.iter().max_by(|a, b| strsim::jaro_winkler(a, name).total_cmp(&strsim::jaro_winkler(b, name)));
    match near {
        Some(near) => format!("the nearest name there is {near:?}; to start a new run leave --resume out"),
        None => "leave --resume out to start the run".to_owned(),
    }
}

/// Takes the lock of the run in `path`, and writes our process's number into it for whoever asks.
///
/// A lock of a process that was killed is free; one that is being killed right now gets a moment to be so.
fn lock(path: &Path) -> Result<File> {
    let lock_path = path.join(LOCK);
    let failed = |cause: io::Error| Error::run(format!("cannot lock {}", lock_path.display())).with_cause(cause);
    for attempt in 0.. {
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&lock_path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) if !is_same(&file, &lock_path) => continue,
            Ok(()) => {
                file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
                return Ok(file);
            }
            // Some network filesystems have no locks; the run is worth more than the warning.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
            Err(TryLockError::WouldBlock) if attempt < 20 => thread::sleep(Duration::from_millis(100)),
            Err(TryLockError::WouldBlock) => break,
        }
    }
    let owner = fs::read_to_string(&lock_path).unwrap_or_default();
    let owner = if owner.trim().is_empty() { "another process" } else { &format!("process {}", owner.trim()) };
    Err(Error::run(format!("{owner} is writing the run in {}", path.display()))
        .with_hint("wait until it has ended, stop it, or choose another name by --name"))
}

/// Whether `path` still names `file`: its folder may have been removed between opening and locking.
fn is_same(file: &File, path: &Path) -> bool {
    let numbers = |meta: fs::Metadata| (meta.dev(), meta.ino());
    matches!((file.metadata().map(numbers), fs::metadata(path).map(numbers)), (Ok(a), Ok(b)) if a == b)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;

    use super::super::tests::{as_process, part};
    use super::*;
    use crate::error::Kind;

    /// Catches a folder that stays behind although nothing came of the run.
    #[test]
    fn a_new_folder_into_which_nothing_was_written_is_gone_again() {
        let base = tempfile::tempdir().unwrap();
        let runs = base.path().join("runs");
        let run = RunFolder::create(&runs, "a").unwrap();
        assert!(run.path().is_dir());
        drop(run);
        assert!(!runs.exists());
        let run = RunFolder::create(&runs, "a").unwrap();
        fs::write(run.experiment(), "").unwrap();
        drop(run);
        assert!(runs.join("a/experiment.toml").exists());
    }

    /// Catches an overwritten run, a refusal without remedies, and one that makes or removes anything.
    #[test]
    fn a_run_that_exists_is_refused_with_its_remedies_and_left_alone() {
        let base = tempfile::tempdir().unwrap();
        fs::create_dir(base.path().join("a")).unwrap();
        fs::write(base.path().join("a/file"), "mine").unwrap();
        let error = RunFolder::create(base.path(), "a").unwrap_err();
        assert_eq!(error.kind(), Kind::Request);
        let hint = error.hint().unwrap();
        assert!(hint.contains("--resume") && hint.contains("--name") && hint.contains("remove"), "{hint}");
        assert_eq!(fs::read_dir(base.path().join("a")).unwrap().count(), 1);
    }

    /// Catches names that reach outside the folder of runs.
    #[test]
    fn a_name_that_is_a_path_is_refused() {
        let base = tempfile::tempdir().unwrap();
        for name in ["", ".", "..", "../x", "a/b/c", "a/", "a/..", "../a", "/x", ".hidden", "a\nb"] {
            assert_eq!(RunFolder::create(base.path(), name).unwrap_err().kind(), Kind::Request, "{name:?}");
            assert_eq!(RunFolder::open(base.path(), name).unwrap_err().kind(), Kind::Request, "{name:?}");
        }
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 0);
    }

    /// Catches a resume that makes a new run, or leaves the user to guess the name.
    #[test]
    fn resuming_a_run_that_is_not_there_names_the_nearest_one() {
        let base = tempfile::tempdir().unwrap();
        for name in ["shakespeare", "quickstart"] {
            let run = RunFolder::create(base.path(), name).unwrap();
            fs::write(run.experiment(), "").unwrap();
        }
        let error = RunFolder::open(base.path(), "quikstart").unwrap_err();
        assert_eq!(error.kind(), Kind::Request);
        assert!(error.hint().unwrap().contains("\"quickstart\""), "{error:?}");
        assert!(!base.path().join("quikstart").exists());
        RunFolder::open(base.path(), "quickstart").unwrap();
    }

    /// Catches two processes in one run, an error that does not say who the other is, and a lock that outlives kill -9.
    #[test]
    fn another_process_is_named_and_once_killed_no_longer_in_the_way() {
        if let Some(runs) = part() {
            let run = RunFolder::create(Path::new(&runs), "a").unwrap();
            fs::write(run.experiment(), "").unwrap();
            println!("locked");
            thread::sleep(Duration::from_secs(600));
            return;
        }
        let base = tempfile::tempdir().unwrap();
        let name = "runs::folder::tests::another_process_is_named_and_once_killed_no_longer_in_the_way";
        let mut other = as_process(name, base.path().to_str().unwrap()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(other.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("locked")));
        let error = RunFolder::open(base.path(), "a").unwrap_err();
        assert!(error.message().contains(&other.id().to_string()), "{error}");
        other.kill().unwrap();
        other.wait().unwrap();
        RunFolder::open(base.path(), "a").unwrap();
    }
}
