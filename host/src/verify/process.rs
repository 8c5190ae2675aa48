//! One job in a child process: started, waited for with patience, and its end told in words.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::job::{Answer, Work};
use crate::error::{Error, Result};
use crate::runs::supervise;

/// The hidden command of the child: `telos plugins verify-group FOLDER`.
pub const COMMAND: &str = "verify-group";

/// Between two looks at a child.
const LOOK: Duration = Duration::from_millis(10);
/// The most that a child may print: one that prints in an endless loop must not fill the disk.
const MOST_OUTPUT: u64 = 16 << 20;
/// Lines of a dead child's output that are repeated.
const LAST_LINES: usize = 3;

/// The folder through which parent and child talk.
#[derive(Debug, Clone)]
pub struct Folder(pub PathBuf);

impl Folder {
    /// The job.
    pub const JOB: &str = "job.json";
    /// The answer; there once the work is done.
    pub const ANSWER: &str = "answer.json";
    /// What the child was doing last.
    const REACHED: &str = "reached";
    /// Its standard output and error.
    const OUTPUT: &str = "output";

    /// Reads a file of the folder.
    pub fn read<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        let path = self.0.join(name);
        let failed = || Error::run(format!("cannot read {}", path.display()));
        let text = fs::read(&path).map_err(|cause| failed().with_cause(cause))?;
        serde_json::from_slice(&text).map_err(|cause| failed().with_cause(cause))
    }

    /// Writes a file of the folder, in one step.
    pub fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<()> {
        let (path, fresh) = (self.0.join(name), self.0.join("fresh"));
        let failed = || Error::run(format!("cannot write {}", path.display()));
        let text = serde_json::to_vec(value).map_err(|cause| failed().with_cause(cause))?;
        fs::write(&fresh, text).and_then(|()| fs::rename(&fresh, &path)).map_err(|cause| failed().with_cause(cause))
    }

    /// Leaves word of what is about to be done. Where that fails, a crash is told with less.
    pub fn reached(&self, what: &str) {
        _ = fs::write(self.0.join(Self::REACHED), what);
    }

    /// What the child was about to do last.
    pub fn last_reached(&self) -> Option<String> {
        fs::read_to_string(self.0.join(Self::REACHED)).ok().filter(|text| !text.is_empty())
    }

    /// The last lines that the child printed.
    fn last_words(&self) -> Vec<String> {
        let tail = || -> std::io::Result<Vec<u8>> {
            let mut file = File::open(self.0.join(Self::OUTPUT))?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(4096)))?;
            let mut bytes = Vec::new();
            file.take(4096).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let text = String::from_utf8_lossy(&tail().unwrap_or_default()).into_owned();
        let lines: Vec<String> = text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].to_vec()
    }
}

/// How a job ended.
#[derive(Debug)]
pub struct Ended<A = Answer> {
    /// What the child answered, where it lived to.
    pub answer: Option<A>,
    /// How it failed, where it did: before or after its answer.
    pub failure: Option<Failure>,
}

/// A child that did not end as it should.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// What it was doing.
    pub at: String,
    /// What became of it, and what it printed last.
    pub text: String,
    /// Whether the process ended by itself. Another one would take too long, or print too much, again.
    pub exited: bool,
}

/// Does `job` in a child process that may take `limit`.
///
/// # Errors
/// The child cannot be started.
pub fn run<A: DeserializeOwned>(job: &Work, limit: Duration) -> Result<Ended<A>> {
    let failed = |cause: std::io::Error| Error::run("cannot start a process to verify in").with_cause(cause);
    let place = tempfile::Builder::new().prefix("telos-verify-").tempdir().map_err(|cause| {
        let folder = std::env::temp_dir();
        Error::request(format!(
            "cannot make a folder in {}, through which the verifying processes talk",
            folder.display()
        ))
        .with_cause(cause)
        .with_hint("name a folder that can be written with TMPDIR")
    })?;
    let folder = Folder(place.path().to_owned());
    folder.write(Folder::JOB, job)?;
    let output = File::create(folder.0.join(Folder::OUTPUT)).map_err(failed)?;
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command.args(["plugins", COMMAND]).arg(&folder.0).stdin(Stdio::null());
    command.stdout(output.try_clone().map_err(failed)?).stderr(output.try_clone().map_err(failed)?);
    let mut child = supervise::tie(&mut command).spawn().map_err(failed)?;
    let end = wait(&mut child, &output, limit).map_err(failed)?;
    let answer: Option<A> = folder.read(Folder::ANSWER).ok();
    let failure = end.failure(answer.is_some()).map(|text| Failure {
        at: folder.last_reached().unwrap_or_else(|| job.beginning().to_owned()),
        text: folder.last_words().iter().fold(text, |text, line| format!("{text}\nit printed: {line}")),
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
    /// What was wrong with it, if anything was.
    fn failure(&self, answered: bool) -> Option<String> {
        let when = if answered { "after its report" } else { "before its report" };
        match self {
            End::TooLong(limit) => Some(format!("took more than {} s and was killed", limit.as_secs())),
            End::TooMuchOutput => Some(format!("printed more than {} MiB and was killed", MOST_OUTPUT >> 20)),
            End::Exited(status) if status.success() && answered => None,
            End::Exited(status) => Some(match status.code() {
                Some(code) => format!("ended the process with code {code} {when}"),
                None => format!("died of {} {when}", supervise::name(status.signal())),
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
            std::thread::sleep(LOOK);
            continue;
        };
        child.kill()?;
        child.wait()?;
        return Ok(end);
    }
}
