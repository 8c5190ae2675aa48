//! The parent process of a run. It reports by name what cannot be caught within a process (a segmentation fault, a
//! stack overflow, the system's out-of-memory killer), and says how to continue.
//!
//! The parent only waits: it passes signals on, dies with the child and not before it, and reads the
//! [`Breadcrumb`](super::breadcrumb::Breadcrumb) if the child is killed.

use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus};

use rustix::process::{Pid, Signal, getppid, kill_process, test_kill_process};
use signal_hook::consts::{
    SIGABRT, SIGBUS, SIGCHLD, SIGFPE, SIGHUP, SIGILL, SIGINT, SIGKILL, SIGQUIT, SIGSEGV, SIGTERM, SIGXCPU,
};
use signal_hook::iterator::Signals;

use super::breadcrumb::{self, Trace};
use super::end::{Ending, RunEnd};
use super::folder::{CHECKPOINTS, RunFolder};
use super::{checkpoint, signals};
use crate::error::{Error, Result};

/// The variable that passes the supervising process's number to the child.
const PARENT: &str = "TELOS_PARENT";

/// What this process has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Start the run as a child and wait: [`run_supervised`].
    Supervisor,
    /// Do the work.
    Worker,
}

/// Determines what this process has to do. A worker is tied to its parent: it is killed if the parent dies for any
/// reason.
///
/// # Errors
/// The parent has already ended.
pub fn role() -> Result<Role> {
    let named = env::var(PARENT).ok().and_then(|text| text.parse().ok()).and_then(Pid::from_raw);
    let Some(named) = named else { return Ok(Role::Supervisor) };
    if getppid() == Some(named) {
        die_with_parent(named)?;
        // It may have died before the notification was requested.
        if getppid() == Some(named) {
            return Ok(Role::Worker);
        }
    } else if test_kill_process(named).is_ok() {
        // A run started from within a run inherits the variable, but the parent it names is another one.
        return Ok(Role::Supervisor);
    }
    Err(Error::run("the supervising process was killed"))
}

#[cfg(target_os = "linux")]
fn die_with_parent(_parent: Pid) -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|cause| Error::run("cannot tie the run to its supervising process").with_cause(io::Error::from(cause)))
}

/// On other systems there is no such notification, so a thread polls.
#[cfg(not(target_os = "linux"))]
fn die_with_parent(parent: Pid) -> Result<()> {
    let watch = move || {
        while getppid() == Some(parent) {
            std::thread::sleep(std::time::Duration::from_secs(1));
        }
        signal_hook::low_level::exit(1);
    };
    let spawned = std::thread::Builder::new().name("parent".to_owned()).spawn(watch);
    spawned.map(|_| ()).map_err(|cause| Error::run("cannot watch the supervising process").with_cause(cause))
}

/// Runs this program again with `args` (the first is the program's name) as a [`Role::Worker`] and waits for it.
/// Returns its exit code; if it was killed, reports by what, where, and how to continue.
///
/// Call it on the main thread: the child dies with the thread that started it.
///
/// # Errors
/// The child cannot be started.
pub fn run_supervised(args: &[OsString]) -> Result<ExitCode> {
    Ok(Supervision::begin()?.wait_for(again(args)?)?.report(args))
}

/// The command that runs this program again with `args`, of which the first is the program's name.
///
/// # Errors
/// The program's file is unknown.
pub fn again(args: &[OsString]) -> Result<Command> {
    let mut command = env::current_exe().map(Command::new).map_err(cannot_start)?;
    command.args(args.get(1..).unwrap_or_default());
    Ok(command)
}

/// How a worker ended.
pub struct Ended {
    status: ExitStatus,
    trace: Trace,
    /// Whether the user asked it to end.
    stopped: bool,
}

/// A worker that was ended in a part of its work that can be left out.
pub struct Death {
    /// The part, see [`breadcrumb::part`].
    pub part: u64,
    /// The plugin that was called; empty if the host itself ran.
    pub plugin: String,
    /// The step that it was in; 0 if before the first one.
    pub step: u64,
    /// What ended it, and where.
    pub message: String,
    /// Whether SIGKILL ended it.
    pub killed: bool,
}

impl Ended {
    /// Reports what the worker could not report itself, and returns the exit code for the whole command.
    pub fn report(&self, args: &[OsString]) -> ExitCode {
        report(self.status, &self.trace, args)
    }

    /// What the worker could not report itself, which is also recorded in its run, and the exit code of the whole command.
    pub fn settle(&self, args: &[OsString]) -> (Option<Error>, u8) {
        settle(self.status, &self.trace, args)
    }

    /// The death of a worker in a part of its work; `None` if it ended by itself, outside any part, on a user's request, by a
    /// limit on processor time, or by a panic of the host.
    pub fn death(&self) -> Option<Death> {
        let Trace { plugin, part, step, finished, .. } = &self.trace;
        if self.stopped || *part == 0 || finished.is_some() || self.status.code() == Some(101) {
            return None;
        }
        if matches!(self.status.signal(), Some(SIGQUIT | SIGXCPU)) {
            return None;
        }
        match ending(self.status, &self.trace) {
            (Some(error), 1) => {
                let (plugin, message) = (plugin.clone(), error.message().to_owned());
                let killed = self.status.signal() == Some(SIGKILL);
                Some(Death { part: *part, plugin, step: *step, message, killed })
            }
            _ => None,
        }
    }
}

/// The size in bytes from which on glibc returns freed memory to the system. By default it rises with the sizes
/// that are freed. The buffers of a run, whose sizes keep changing, then fragment its heap: the process uses a
/// tenth more memory than it holds.
const MMAP_THRESHOLD: &str = "MALLOC_MMAP_THRESHOLD_";

/// Makes the process that `command` starts a [`Role::Worker`] of this one. It dies with the thread that starts it.
pub fn tie(command: &mut Command) -> &mut Command {
    command.env(PARENT, std::process::id().to_string())
}

fn cannot_start(cause: io::Error) -> Error {
    Error::run("cannot start the run's process").with_cause(cause)
}

/// Starts workers, one after another, and waits for them. A signal that comes between two of them is passed to the next one.
pub struct Supervision {
    signals: Signals,
}

impl Supervision {
    /// Begins before any worker exists, so that no signal is missed.
    ///
    /// # Errors
    /// Signals cannot be received.
    pub fn begin() -> Result<Supervision> {
        let mut listened = signals::endings();
        listened.push(SIGCHLD);
        Ok(Supervision { signals: Signals::new(listened).map_err(cannot_start)? })
    }

    /// Starts `command` as a [`Role::Worker`] and waits for it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn wait_for(&mut self, command: Command) -> Result<Ended> {
        wait_for(command, &mut self.signals)
    }
}

fn wait_for(mut command: Command, signals: &mut Signals) -> Result<Ended> {
    let crumbs = breadcrumb::offer(&mut command);
    tie(&mut command);
    if env::var_os(MMAP_THRESHOLD).is_none() {
        command.env(MMAP_THRESHOLD, "262144");
    }
    let mut child = command.spawn().map_err(cannot_start)?;
    let (status, stopped) = wait(&mut child, signals)?;
    let trace = match &crumbs {
        Some(crumbs) => breadcrumb::read(&crumbs.file).unwrap_or_default(),
        // There is no record of what it was doing; an exit code is then taken as a normal end.
        None => Trace { finished: status.code().and_then(|code| code.try_into().ok()), ..Trace::default() },
    };
    Ok(Ended { status, trace, stopped })
}

/// Waits for the child and passes every other signal on; returns whether there was one. From a terminal the child gets it twice,
/// and counts it once.
///
/// One thread does both, so a signal is never sent to a process that has already been waited for and whose number
/// another process may have by now.
fn wait(child: &mut Child, signals: &mut Signals) -> Result<(ExitStatus, bool)> {
    let mut stopped = false;
    for signal in signals.forever() {
        let pass = match signal {
            SIGINT => Signal::INT,
            SIGTERM => Signal::TERM,
            SIGHUP => Signal::HUP,
            _ => match child.try_wait() {
                Ok(None) => continue,
                Ok(Some(status)) => return Ok((status, stopped)),
                Err(cause) => return Err(Error::run("cannot wait for the run's process").with_cause(cause)),
            },
        };
        stopped = true;
        // It may already be dead; then the next signal reports its end.
        _ = kill_process(Pid::from_child(child), pass);
    }
    let status = child.wait().map_err(|cause| Error::run("cannot wait for the run's process").with_cause(cause))?;
    Ok((status, stopped))
}

/// What the child could not report itself, and the exit code for the whole command.
fn ending(status: ExitStatus, trace: &Trace) -> (Option<Error>, u8) {
    match (status.code(), status.signal()) {
        (Some(code), _) if trace.finished.map(i32::from) == Some(code) => (None, u8::try_from(code).unwrap_or(1)),
        // It was ended by a second Ctrl-C during a plugin's call: this reports an endless loop.
        (Some(130), _) if !trace.plugin.is_empty() => {
            (Some(Error::interrupted(format!("telos was stopped{}", place(trace)))), 130)
        }
        // A panic of the host, whose message is already printed; its exit code is not one that we document.
        (Some(101), _) => (Some(Error::run(format!("telos panicked{}", place(trace)))), 1),
        (Some(130), _) => (None, 130),
        // A plugin, or a library that it uses, has called `exit`, with any code.
        (Some(code), _) => {
            let ended = match trace.finished {
                Some(_) => "after its work was done".to_owned(),
                None => format!("before its work was done{}", place(trace)),
            };
            (Some(Error::run(format!("the telos process exited with code {code} {ended}"))), 1)
        }
        (None, Some(SIGINT | SIGTERM | SIGHUP)) => (Some(Error::interrupted("telos was stopped")), 130),
        (None, signal) => (Some(Error::run(format!("telos was ended by {}{}", name(signal), place(trace)))), 1),
    }
}

fn report(status: ExitStatus, trace: &Trace, args: &[OsString]) -> ExitCode {
    let (error, code) = settle(status, trace, args);
    if let Some(error) = error {
        _ = io::stderr().lock().write_all(error.report().as_bytes());
    }
    ExitCode::from(code)
}

fn settle(status: ExitStatus, trace: &Trace, args: &[OsString]) -> (Option<Error>, u8) {
    let (error, code) = ending(status, trace);
    let error = error.map(|error| {
        match &trace.run {
            Some(run) if has_crashed(status) && !resumes(args) && RunFolder::discard_unstarted(run) => {
                error.with_details([format!("removed {}: the run ended before its first step", run.display())])
            }
            Some(run) => {
                let error = with_resume_command(error, run, args);
                // An end that is there was recorded by this run, or by another one that has its folder now.
                if trace.finished.is_none() && matches!(RunEnd::read(run), Ok(None)) {
                    // What ended the run is reported below in any case.
                    _ = RunEnd::of(&error, Ending::Crashed, trace.step.saturating_sub(1)).write(run);
                }
                error
            }
            None => error,
        }
    });
    if let (130, None, Some(run)) = (code, trace.finished, &trace.run)
        && matches!(RunEnd::read(run), Ok(None))
    {
        // A second Ctrl-C: the process that could not record it has ended at once.
        _ = RunEnd::now(Ending::Interrupted, trace.step.saturating_sub(1)).write(run);
    }
    (error, code)
}

/// Whether the process ended itself, by a crash, a panic or `exit`, and was not stopped from outside.
fn has_crashed(status: ExitStatus) -> bool {
    !matches!((status.code(), status.signal()), (Some(130), _) | (None, Some(SIGINT | SIGTERM | SIGHUP | SIGKILL)))
}

fn resumes(args: &[OsString]) -> bool {
    args.iter().any(|arg| arg == "--resume")
}

fn place(trace: &Trace) -> String {
    match trace {
        Trace { plugin, call, step, .. } if !plugin.is_empty() => {
            let step = if *step == 0 { "before step 1".to_owned() } else { format!("step {step}") };
            format!(" in plugin `{plugin}`, call `{call}`, {step}")
        }
        Trace { run: Some(_), step, .. } => format!(" in step {step}, outside any plugin"),
        Trace { part: 1.., step: 1.., .. } => format!(" in step {}, outside any plugin", trace.step),
        _ => " before the run began".to_owned(),
    }
}

/// A signal's name, and what it usually means.
pub fn name(signal: Option<i32>) -> String {
    let Some(number) = signal else { return "an unknown cause".to_owned() };
    let meaning = match number {
        SIGSEGV | SIGBUS => " (invalid memory access)",
        SIGABRT => " (abort: a stack overflow, a failed allocation, or a panic that could not be caught)",
        SIGKILL => " (killed from outside, or by the system because memory ran out)",
        SIGILL => " (an instruction that this processor does not have)",
        SIGFPE => " (integer division by zero)",
        _ => "",
    };
    match signal_hook::low_level::signal_name(number) {
        Some(name) => format!("{name}{meaning}"),
        None => format!("signal {number}"),
    }
}

/// Adds which checkpoint is intact and the command that resumes from it.
fn with_resume_command(error: Error, run: &Path, args: &[OsString]) -> Error {
    match checkpoint::latest(&run.join(CHECKPOINTS)) {
        Ok(Some(found)) => error
            .with_details(found.stand_in())
            .with_details([format!("the last checkpoint is {}", found.path.display())])
            .with_hint(format!("continue with: {}", resume_command(args))),
        Ok(None) => error
            .with_details(["there is no checkpoint yet"])
            .with_hint(format!("{} contains what was written", run.display())),
        Err(damaged) => error.with_details([damaged.to_string()]).with_details(damaged.details().to_vec()),
    }
}

/// The command line, quoted for a shell, with `--resume`.
fn resume_command(args: &[OsString]) -> String {
    let mut words: Vec<String> = args.iter().map(|arg| quoted(&arg.to_string_lossy())).collect();
    if let Some(program) = words.first_mut() {
        *program = "telos".to_owned();
    }
    if !words.iter().any(|word| word == "--resume") {
        words.push("--resume".to_owned());
    }
    words.join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
#[path = "supervise_tests.rs"]
mod tests;
