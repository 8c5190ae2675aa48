//! The processes of a study: each stage and run is `telos run EXPERIMENT`, as a user would start it, and dies with this process.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use crate::{
    config::Experiment,
    device::open::threads,
    error::{Error, Result},
    plugins::Pinning,
    runs::{
        Interrupt,
        supervise::{Supervision, again},
    },
};

/// Exit code of a run that was interrupted.
const INTERRUPTED: u8 = 130;

/// How a study is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether to continue what was begun.
    pub resume: bool,
    /// Runs at the same time, among which the threads are divided.
    pub jobs: usize,
    /// Whether runs may resume with rows that were corrected since they began.
    pub fixed_rows: bool,
    /// Where to look for plugins.
    pub plugin_folders: Vec<PathBuf>,
    /// What to do about changed plugins.
    pub pinning: Pinning,
    /// Whether to train objectives that fail a law on the first batch.
    pub unproved: bool,
}

/// A run to be started.
pub struct Job {
    /// Its position.
    pub index: usize,
    /// Its experiment.
    pub file: PathBuf,
    /// Where its output goes.
    pub log: PathBuf,
    /// Whether it continues a run that was begun.
    pub resume: bool,
}

/// What all runs have in common.
pub struct Launch<'a> {
    /// The study's options.
    pub options: &'a Options,
    /// The step after which runs pause.
    pub pause: Option<u64>,
    /// How many run at the same time.
    pub jobs: usize,
    /// Metrics that the runs must report, each with the key that names it; empty for a stage.
    pub compared_by: &'a [(String, String)],
}

/// How a run ended.
pub struct Outcome {
    /// Why it failed, if it did.
    pub failure: Option<String>,
    /// Whether it was stopped by the user.
    pub interrupted: bool,
    /// Seconds that its process took.
    pub seconds: f64,
}

/// Runs all jobs, several at a time, and calls `ended` after each with the number of those that ended before. Starts no more after an
/// interruption.
///
/// # Errors
/// The first error of `ended`, or of a process that cannot be started; the other runs are finished first.
pub fn run_all(
    queue: &[Job],
    launch: &Launch<'_>,
    interrupt: &Interrupt,
    experiments: &[Experiment],
    ended: &(dyn Fn(usize, &Job, &Outcome) -> Result<()> + Sync),
) -> Result<()> {
    let (next, done, first_error) = (AtomicUsize::new(0), Mutex::new(0), Mutex::new(None));
    // A process dies with the thread that started it, so each thread waits for its own.
    let work = || {
        while let Some(job) = queue.get(next.fetch_add(1, Ordering::SeqCst)) {
            if interrupt.requested() {
                break;
            }
            let outcome = launch.run(job, &experiments[job.index], interrupt);
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            let told = match outcome {
                Ok(None) => break,
                Ok(Some(outcome)) => ended(*done, job, &outcome),
                Err(error) => Err(error),
            };
            *done += 1;
            if let Err(error) = told {
                first_error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                break;
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..launch.jobs {
            scope.spawn(work);
        }
    });
    first_error.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

impl Launch<'_> {
    /// Runs one job; `None` if the user stopped the study before it began.
    fn run(&self, job: &Job, experiment: &Experiment, interrupt: &Interrupt) -> Result<Option<Outcome>> {
        let args = self.args(job, experiment);
        let begun = Instant::now();
        let (log, start) = open_log(&job.log)?;
        let failed =
            |cause: std::io::Error| Error::run(format!("cannot write {}", job.log.display())).with_cause(cause);
        let mut command = again(&args)?;
        command.stdin(Stdio::null()).stdout(log.try_clone().map_err(failed)?).stderr(log);
        let mut supervision = Supervision::begin()?;
        // From here on a signal is passed to the process.
        if interrupt.requested() {
            return Ok(None);
        }
        let (error, code) = supervision.wait_for(command)?.settle(&args);
        if let Some(error) = &error {
            let mut log = OpenOptions::new().append(true).open(&job.log).map_err(failed)?;
            log.write_all(error.report().as_bytes()).map_err(failed)?;
        }
        let seconds = begun.elapsed().as_secs_f64();
        let interrupted = code == INTERRUPTED && interrupt.requested();
        let failure = (code != 0 && !interrupted).then(|| match error {
            Some(error) => error.message().to_owned(),
            None => reason(&job.log, start).unwrap_or_else(|| format!("exit code {code}")),
        });
        Ok(Some(Outcome { failure, interrupted, seconds }))
    }

    fn args(&self, job: &Job, experiment: &Experiment) -> Vec<OsString> {
        let mut args: Vec<OsString> = ["telos", "run"].map(OsString::from).to_vec();
        args.push(job.file.clone().into());
        let mut add = |words: &[&str]| args.extend(words.iter().map(OsString::from));
        if job.resume {
            add(&["--resume"]);
        }
        if job.resume && self.options.fixed_rows {
            add(&["--fixed-rows"]);
        }
        match self.options.pinning {
            Pinning::Strict => {}
            Pinning::Update => add(&["--update-lock"]),
            Pinning::Ignore => add(&["--dev"]),
        }
        if self.options.unproved {
            add(&["--unproved"]);
        }
        if let Some(step) = self.pause {
            add(&["--pause-after", &step.to_string()]);
        }
        for (key, metric) in self.compared_by {
            add(&["--compared-by", &format!("{key}={metric}")]);
        }
        if self.jobs > 1 {
            let share = (threads(experiment.backend.threads) / self.jobs).max(1);
            add(&["--set", &format!("backend.threads={share}")]);
        }
        for folder in &self.options.plugin_folders {
            args.push("--plugins".into());
            args.push(folder.clone().into());
        }
        args
    }
}

/// Opens a log at its end, and returns its length so far.
fn open_log(path: &Path) -> Result<(File, u64)> {
    let open = || {
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        let start = file.seek(SeekFrom::End(0))?;
        Ok((file, start))
    };
    open().map_err(|cause: std::io::Error| Error::run(format!("cannot write {}", path.display())).with_cause(cause))
}

/// The error that a process printed: the last one after `start` in its log, with the lines below it.
fn reason(log: &Path, start: u64) -> Option<String> {
    let bytes = fs::read(log).ok()?;
    let text = String::from_utf8_lossy(bytes.get(usize::try_from(start).ok()?..)?).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    let at = lines.iter().rposition(|line| line.starts_with("error: "))?;
    let below = lines[at + 1..].iter().take_while(|line| line.starts_with("  ")).take(4).map(|line| line.trim());
    let parts: Vec<&str> = std::iter::once(lines[at].trim_start_matches("error: ")).chain(below).collect();
    Some(parts.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches an error of an earlier attempt that is reported for this one, and an error that is cut at its first line.
    #[test]
    fn the_last_error_of_this_attempt_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.log");
        let old = "error: an old one\n";
        fs::write(&path, format!("{old}step 1\nerror: the data is gone\n  caused by: no file\nhelp: bring it back\n"))
            .unwrap();
        assert_eq!(reason(&path, old.len() as u64).as_deref(), Some("the data is gone; caused by: no file"));
        fs::write(&path, format!("{old}step 1\n")).unwrap();
        assert_eq!(reason(&path, old.len() as u64), None);
        assert_eq!(open_log(&path).unwrap().1, old.len() as u64 + 7);
    }
}
