//! Runs one job in a child process: starts it, waits up to a limit, and describes how it ended.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use super::failure::Failure;
use super::folder::Folder;
use super::job::{Answer, Work};
use crate::error::{Error, Result};
use crate::runs::supervise;

/// The hidden command of the child: `telos plugins verify-group FOLDER`.
pub const COMMAND: &str = "verify-group";

/// Pause between two checks of a child.
const POLL: Duration = Duration::from_millis(10);
/// The most bytes that a child may print: one that prints in an endless loop must not fill the disk.
const MOST_OUTPUT: u64 = 16 << 20;

/// The variable that says how threads of OpenMP, which libtorch uses, wait for each other. By default they spin for milliseconds. Where
/// other programs need the cores, they then keep the thread that they wait for from running, and checks take several times as long.
/// Threads that sleep cost small operations half their speed, which no check measures.
const WAITING: &str = "OMP_WAIT_POLICY";

/// How a job ended.
#[derive(Debug)]
pub struct Ended<A = Answer> {
    /// The child's answer, if it gave one.
    pub answer: Option<A>,
    /// How it failed, if it did: before or after its answer.
    pub failure: Option<Failure>,
}

/// Does `job` in a child process with the time limit `limit`.
///
/// # Errors
/// The child cannot be started.
pub fn run<A: DeserializeOwned>(job: &Work, limit: Duration) -> Result<Ended<A>> {
    let failed = |cause: std::io::Error| Error::run("cannot start a process to verify in").with_cause(cause);
    let place = tempfile::Builder::new().prefix("telos-verify-").tempdir().map_err(|cause| {
        let folder = std::env::temp_dir();
        Error::request(format!(
            "cannot create a folder in {} for the files that the verifying processes exchange",
            folder.display()
        ))
        .with_cause(cause)
        .with_hint("set TMPDIR to a writable folder")
    })?;
    let folder = Folder(place.path().to_owned());
    folder.write(Folder::JOB, job)?;
    let output = File::create(folder.0.join(Folder::OUTPUT)).map_err(failed)?;
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command.args(["plugins", COMMAND]).arg(&folder.0).stdin(Stdio::null());
    command.stdout(output.try_clone().map_err(failed)?).stderr(output.try_clone().map_err(failed)?);
    if [WAITING, "GOMP_SPINCOUNT"].iter().all(|name| std::env::var_os(name).is_none()) {
        command.env(WAITING, "PASSIVE");
    }
    let mut child = supervise::tie(&mut command).spawn().map_err(failed)?;
    let end = wait(&mut child, &output, limit).map_err(failed)?;
    let answer: Option<A> = folder.read(Folder::ANSWER).ok();
    let failure = end.failure(answer.is_some()).map(|text| Failure {
        at: folder.last_reached().unwrap_or_else(|| job.beginning().to_owned()),
        text: folder.last_output().iter().fold(text, |text, line| format!("{text}\nit printed: {line}")),
        exited: matches!(end, End::Exited(_)),
    });
    Ok(Ended { answer, failure })
}

/// How a process ended.
enum End {
    Exited(ExitStatus),
    TooLong(Duration),
    TooMuchOutput,
}

impl End {
    /// What was wrong, if anything was.
    fn failure(&self, answered: bool) -> Option<String> {
        let when = if answered { "after its report" } else { "before its report" };
        match self {
            End::TooLong(limit) => Some(format!("took more than {} s and was killed", limit.as_secs())),
            End::TooMuchOutput => Some(format!("printed more than {} MiB and was killed", MOST_OUTPUT >> 20)),
            End::Exited(status) if status.success() && answered => None,
            End::Exited(status) => Some(match status.code() {
                Some(code) => format!("ended the process with code {code} {when}"),
                None => format!("the process was ended by {} {when}", supervise::name(status.signal())),
            }),
        }
    }
}

fn wait(child: &mut Child, output: &File, limit: Duration) -> std::io::Result<End> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(End::Exited(status));
        }
        let end = if start.elapsed() > limit {
            End::TooLong(limit)
        } else if output.metadata()?.len() > MOST_OUTPUT {
            End::TooMuchOutput
        } else {
            std::thread::sleep(POLL);
            continue;
        };
        child.kill()?;
        child.wait()?;
        return Ok(end);
    }
}
