//! A run on disk and as a process: its folder, checkpoints, logs and receipt, and what the terminal and the operating
//! system tell it.
//!
//! Nothing here knows what is trained: the training loop hands in steps, numbers and a closure that writes a
//! checkpoint's files, and gets back whether they are safe.

pub mod breadcrumb;
pub mod checkpoint;
pub mod disk;
pub mod file_lock;
pub mod folder;
pub mod jsonl;
pub mod progress;
pub mod receipt;
pub mod signals;
pub mod supervise;

pub use breadcrumb::Breadcrumb;
pub use checkpoint::{Checkpoint, Checkpoints, Saved};
pub use folder::RunFolder;
pub use jsonl::JsonLines;
pub use progress::Progress;
pub use receipt::Receipt;
pub use signals::Interrupt;

#[cfg(test)]
mod tests {
    //! Re-running this test binary as another process, for what only a whole process can show.

    use std::process::Command;
    use std::sync::{Arc, LazyLock, atomic::AtomicBool};
    use std::thread;
    use std::time::{Duration, Instant};

    use signal_hook::{consts::SIGINT, flag};

    /// A shell that starts tests in the background has them ignore Ctrl-C, and every process below them too. A signal that has a
    /// handler here is as usual in what is started from here; the handler does what is usual.
    static HEED_CTRL_C: LazyLock<()> = LazyLock::new(|| {
        flag::register_conditional_default(SIGINT, Arc::new(AtomicBool::new(true))).unwrap();
    });

    /// Says to a test that it is the other process, and what it shall do.
    pub(super) const PART: &str = "TELOS_TEST_PART";

    /// Whether `done` holds within two minutes; asks again after each `pause`.
    pub(super) fn happens(pause: Duration, mut done: impl FnMut() -> bool) -> bool {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(120) {
            if done() {
                return true;
            }
            thread::sleep(pause);
        }
        false
    }

    /// A command that runs the test `name` of this binary alone, as `part`.
    pub(super) fn as_process(name: &str, part: &str) -> Command {
        if self::part().is_none() {
            LazyLock::force(&HEED_CTRL_C);
        }
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", name, "--include-ignored", "--nocapture", "--test-threads=1"]).env(PART, part);
        command
    }

    /// The part this process shall play, if it is such a process.
    pub(super) fn part() -> Option<String> {
        std::env::var(PART).ok()
    }
}
