//! Ctrl-C and similar signals: the first one requests that the run finish its step and save, the second ends the
//! process at once.
//!
//! The loop polls [`Interrupt::requested`] between steps and decides what finishing means. `signal-hook` is used
//! instead of `ctrlc` because it lets us choose the signals to listen to: under `nohup` a hang-up must stay
//! ignored.

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::error::{Error, Result};

/// Signals within this time are one request: Ctrl-C reaches this process both from the terminal and through the
/// supervising parent, and a batch system signals all processes of a job.
const TOGETHER: Duration = Duration::from_millis(800);

/// Whether the user requested that the run stop. Clones share the flag.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    requested: Arc<AtomicBool>,
}

impl Interrupt {
    /// Listens for Ctrl-C, termination and hang-up from now on. At the first, `print` is called with a line for the
    /// user; a second one ends the process with code 130 at once, without cleaning up: checkpoints stay intact.
    ///
    /// # Errors
    /// The system refuses the handlers or the thread that waits for them.
    pub fn listen(print: impl Fn(&str) + Send + 'static) -> Result<Self> {
        let failed = |cause: io::Error| Error::run("cannot listen for Ctrl-C").with_cause(cause);
        let mut signals = Signals::new(endings()).map_err(failed)?;
        let interrupt = Self::default();
        let requested = interrupt.requested.clone();
        let wait = move || {
            let mut first: Option<Instant> = None;
            for _ in signals.forever() {
                match first {
                    None => {
                        first = Some(Instant::now());
                        requested.store(true, Ordering::SeqCst);
                        print("finishing the step, then saving; press Ctrl-C again to stop at once");
                    }
                    Some(first) if first.elapsed() < TOGETHER => {}
                    // Not std's exit: that runs destructors while other threads still compute.
                    Some(_) => signal_hook::low_level::exit(130),
                }
            }
        };
        thread::Builder::new().name("signals".to_owned()).spawn(wait).map_err(failed)?;
        Ok(interrupt)
    }

    /// Whether to finish and save now.
    pub fn requested(&self) -> bool {
        self.requested.load(Ordering::SeqCst)
    }

    /// Requests a stop from within the program.
    pub fn request(&self) {
        self.requested.store(true, Ordering::SeqCst);
    }
}

/// Ctrl-C in a conversation: it ends the answer that is being written. Clones share their flags.
#[derive(Debug, Clone, Default)]
pub struct AnswerInterrupt {
    answering: Arc<AtomicBool>,
    requested: Arc<AtomicBool>,
    /// Whether Ctrl-C was pressed since the last answer while none was being written.
    hinted: Arc<AtomicBool>,
}

impl AnswerInterrupt {
    /// Listens for signals from now on. Ctrl-C during an answer requests its end, and a second one ends the process, as does
    /// one while no answer is being written, if it follows another such one; at the first, `idle` is called. Termination and
    /// hang-up end the process at once. The process then ends with code 130.
    ///
    /// # Errors
    /// The system refuses the handlers or the thread that waits for them.
    pub fn listen(idle: impl Fn() + Send + 'static) -> Result<Self> {
        let failed = |cause: io::Error| Error::run("cannot listen for Ctrl-C").with_cause(cause);
        let mut signals = Signals::new(endings()).map_err(failed)?;
        let interrupt = Self::default();
        let Self { answering, requested, hinted } = interrupt.clone();
        let wait = move || {
            let mut last: Option<Instant> = None;
            for signal in signals.forever() {
                if signal == SIGINT && last.is_some_and(|last| last.elapsed() < TOGETHER) {
                    continue;
                }
                last = Some(Instant::now());
                if signal != SIGINT {
                    signal_hook::low_level::exit(130);
                }
                if answering.load(Ordering::SeqCst) {
                    if requested.swap(true, Ordering::SeqCst) {
                        signal_hook::low_level::exit(130);
                    }
                } else if hinted.swap(true, Ordering::SeqCst) {
                    signal_hook::low_level::exit(130);
                } else {
                    idle();
                }
            }
        };
        thread::Builder::new().name("signals".to_owned()).spawn(wait).map_err(failed)?;
        Ok(interrupt)
    }

    /// Call it when an answer begins.
    pub fn answer_begins(&self) {
        self.requested.store(false, Ordering::SeqCst);
        self.hinted.store(false, Ordering::SeqCst);
        self.answering.store(true, Ordering::SeqCst);
    }

    /// Call it when an answer has ended.
    pub fn answer_ended(&self) {
        self.answering.store(false, Ordering::SeqCst);
    }

    /// Whether to end the answer now.
    pub fn requested(&self) -> bool {
        self.requested.load(Ordering::SeqCst)
    }
}

/// The signals that end a run, except those that the parent process set to be ignored (`nohup`, a background job).
pub(super) fn endings() -> Vec<i32> {
    let ignored = ignored_signals();
    [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| ignored & (1 << (signal - 1)) == 0).collect()
}

/// Bit n-1 for signal n. Only Linux reports all of them without unsafe code; elsewhere none count as ignored.
fn ignored_signals() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};

    use rustix::process::{Pid, Signal, kill_process};

    use super::super::tests::{as_process, part, wait_until};
    use super::*;

    const NAME: &str = "runs::signals::tests::";

    /// Acts as a training loop: prints "ready", then polls; exits with 3 when a stop is requested, unless it is stuck.
    fn act_as_loop() -> bool {
        let Some(part) = part() else { return false };
        let interrupt = Interrupt::listen(|line| println!("{line}")).unwrap();
        println!("ready");
        while part == "stuck" || !interrupt.requested() {
            thread::sleep(Duration::from_millis(5));
        }
        println!("saved");
        std::process::exit(3);
    }

    fn start(command: &mut Command) -> (Child, impl Iterator<Item = String> + use<>) {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        assert!(lines.any(|line| line.ends_with("ready")));
        (child, lines)
    }

    fn send(child: &Child, signal: Signal) {
        _ = kill_process(Pid::from_child(child), signal);
    }

    /// Catches a handler that ends the process, listens to only one of the signals, or counts one key press twice.
    #[test]
    fn the_first_signal_lets_the_loop_finish_and_a_repeat_within_a_moment_is_ignored() {
        if act_as_loop() {
            return;
        }
        for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
            let name = "the_first_signal_lets_the_loop_finish_and_a_repeat_within_a_moment_is_ignored";
            let (mut child, mut lines) = start(&mut as_process(&format!("{NAME}{name}"), "loop"));
            send(&child, signal);
            send(&child, Signal::TERM);
            // A fast loop may end before the message is printed, so the test only waits for the loop's own output.
            assert!(lines.any(|line| line == "saved"));
            assert_eq!(child.wait().unwrap().code(), Some(3));
        }
    }

    /// Catches a second Ctrl-C that is lost while the loop hangs in a plugin, or a wrong exit code.
    #[test]
    fn a_second_signal_ends_a_stuck_process_with_130() {
        if act_as_loop() {
            return;
        }
        let name = "a_second_signal_ends_a_stuck_process_with_130";
        let (mut child, mut lines) = start(&mut as_process(&format!("{NAME}{name}"), "stuck"));
        send(&child, Signal::INT);
        assert!(lines.any(|line| line.contains("press Ctrl-C again")));
        let ended = wait_until(Duration::from_millis(50), || {
            let ended = child.try_wait().unwrap().is_some();
            if !ended {
                send(&child, Signal::INT);
            }
            ended
        });
        if !ended {
            child.kill().unwrap();
            panic!("the second signal does not end the process");
        }
        assert_eq!(child.wait().unwrap().code(), Some(130));
    }

    /// Catches a handler that overrides nohup: the run would end when the terminal closes.
    #[test]
    #[cfg(target_os = "linux")]
    fn a_hang_up_that_nohup_ignores_stays_ignored() {
        if act_as_loop() {
            return;
        }
        let name = format!("{NAME}a_hang_up_that_nohup_ignores_stays_ignored");
        let plain = as_process(&name, "loop");
        let mut command = Command::new("nohup");
        command.arg(plain.get_program()).args(plain.get_args()).env(super::super::tests::PART, "loop");
        let (mut child, mut lines) = start(command.stderr(Stdio::null()));
        send(&child, Signal::HUP);
        thread::sleep(Duration::from_millis(100));
        assert!(child.try_wait().unwrap().is_none());
        send(&child, Signal::INT);
        assert!(lines.any(|line| line == "saved"));
        assert_eq!(child.wait().unwrap().code(), Some(3));
    }
}
