//! A run on disk and as a process: its folder, checkpoints, logs and receipt, its terminal output and its signals.
//!
//! Nothing here depends on what is trained: the training loop passes in steps, numbers and a closure that writes a
//! checkpoint's files, and learns whether they are safely stored.

pub mod breadcrumb;
pub mod checkpoint;
pub mod disk;
pub mod end;
pub mod events;
pub mod file_lock;
pub mod folder;
pub mod jsonl;
pub mod progress;
pub mod receipt;
pub mod removal;
pub mod signals;
pub mod study_file;
pub mod supervise;

pub use breadcrumb::Breadcrumb;
pub use checkpoint::{Checkpoint, Checkpoints, Saved};
pub use folder::RunFolder;
pub use jsonl::JsonLines;
pub use progress::Progress;
pub use receipt::Receipt;
pub use signals::{AnswerInterrupt, Interrupt};

#[cfg(test)]
mod tests {
    //! Runs this test binary again as another process, for what can only be tested with a whole process.

    use std::process::Command;
    use std::sync::{Arc, LazyLock, atomic::AtomicBool};
    use std::thread;
    use std::time::{Duration, Instant};

    use signal_hook::{consts::SIGINT, flag};

    /// A shell that starts tests in the background makes them ignore Ctrl-C, and every child process too. A signal
    /// that has a handler here is reset to its default in child processes; the handler does the default action.
    static HEED_CTRL_C: LazyLock<()> = LazyLock::new(|| {
        flag::register_conditional_default(SIGINT, Arc::new(AtomicBool::new(true))).unwrap();
    });

    /// The variable that marks a process as the other process of a test, and defines what it does.
    pub(super) const PART: &str = "TELOS_TEST_PART";

    /// Whether `done` becomes true within two minutes; checks again after each `pause`.
    pub(super) fn wait_until(pause: Duration, mut done: impl FnMut() -> bool) -> bool {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(120) {
            if done() {
                return true;
            }
            thread::sleep(pause);
        }
        false
    }

    /// A command that runs only the test `name` of this binary, as `part`.
    pub(super) fn as_process(name: &str, part: &str) -> Command {
        if self::part().is_none() {
            LazyLock::force(&HEED_CTRL_C);
        }
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", name, "--include-ignored", "--nocapture", "--test-threads=1"]).env(PART, part);
        command
    }

    /// The part that this process plays, if it is such a process.
    pub(super) fn part() -> Option<String> {
        std::env::var(PART).ok()
    }
}
