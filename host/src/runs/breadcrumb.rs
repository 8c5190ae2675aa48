//! Records what the run is doing, in a file that the supervising parent reads if the process dies.
//!
//! Each record is one write of a few hundred bytes, without allocation, into a small file that stays in the
//! system's memory: cheap enough for every call into a plugin. The system has the bytes when the call returns, so
//! they survive any death of the process. On Linux the file is not on a disk; elsewhere it is in the temporary
//! folder.

use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

/// The environment variable that passes the file's path to the child.
const ENV: &str = "TELOS_BREADCRUMB";
/// The name of the file in memory.
#[cfg(target_os = "linux")]
const NAME: &str = "telos-breadcrumb";

const PLUGIN: usize = 64;
const CALL: usize = 56;
/// Plugin, call and step, in this order, names padded with zeros.
const RECORD: usize = PLUGIN + CALL + 8;
/// The longest path that is recorded.
const FOLDER: usize = 4096;
/// Where the worker records that it has ended by itself: 1, and its exit code.
const FINISHED: usize = RECORD + FOLDER;
/// Where the number of the part of the work lies.
const PART: usize = FINISHED + 2;

/// Writes what the run is about to do. Clones write to the same file.
#[derive(Debug, Clone, Default)]
pub struct Breadcrumb {
    file: Option<Arc<File>>,
}

/// The content of a breadcrumb.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Trace {
    /// The plugin that was running; empty if the host itself was.
    pub(super) plugin: String,
    pub(super) call: String,
    pub(super) step: u64,
    /// The run's folder, once it is known.
    pub(super) run: Option<PathBuf>,
    /// The exit code with which the worker ended by itself; `None` if something else ended it before.
    pub(super) finished: Option<u8>,
    /// The part of the work that it was in, see [`part`].
    pub(super) part: u64,
}

impl Breadcrumb {
    /// The breadcrumb that the supervising parent reads. Without such a parent, writes are ignored and cost
    /// nothing.
    ///
    /// The first call in a process removes the file's name, if it has one. Both ends have the file open by then, so
    /// nothing is left in the temporary folder whichever process is killed.
    pub fn from_env() -> Self {
        static OURS: OnceLock<Breadcrumb> = OnceLock::new();
        let open = || {
            let path = PathBuf::from(std::env::var_os(ENV)?);
            let in_memory = path.starts_with("/proc");
            if in_memory && !is_ours(&path) {
                return None;
            }
            let file = OpenOptions::new().write(true).open(&path).ok()?;
            match in_memory {
                true => keep_from_children(&path),
                false => _ = std::fs::remove_file(&path),
            }
            Some(Arc::new(file))
        };
        OURS.get_or_init(|| Self { file: open() }).clone()
    }

    /// Records that `plugin` is about to run `call` in `step`; the names are truncated to 64 and 56 bytes.
    pub fn set(&self, plugin: &str, call: &str, step: u64) {
        let Some(file) = &self.file else { return };
        let mut record = [0; RECORD];
        let (text, number) = record.split_at_mut(PLUGIN + CALL);
        text.copy_from_slice(&names(plugin, call));
        number.copy_from_slice(&step.to_le_bytes());
        // Only a report needs it, so a failed write does not stop a run.
        _ = file.write_all_at(&record, 0);
    }

    /// Records that the host itself is running in `step`, so that its errors are not blamed on a plugin.
    pub fn clear(&self, step: u64) {
        self.set("", "", step);
    }

    /// Records that `plugin` is about to run `call`, in the step that was recorded last.
    fn call(&self, plugin: &str, call: &str) {
        let Some(file) = &self.file else { return };
        _ = file.write_all_at(&names(plugin, call), 0);
    }

    /// Records that the process ends by itself, with this exit code. A process that ends without this record was
    /// ended by a plugin.
    pub fn finish(&self, code: u8) {
        let Some(file) = &self.file else { return };
        _ = file.write_all_at(&[1, code], FINISHED as u64);
    }

    /// Records the run's folder, which has the checkpoints.
    pub fn set_run(&self, folder: &Path) {
        let Some(file) = &self.file else { return };
        let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf());
        let mut bytes = folder.as_os_str().as_bytes().to_vec();
        bytes.resize(FOLDER, 0);
        _ = file.write_all_at(&bytes, RECORD as u64);
    }
}

/// Records which plugin call is in progress and in which step, so that the supervisor can name both after a crash.
#[derive(Debug)]
pub struct CrashMarker {
    breadcrumb: Breadcrumb,
    backend: String,
    step: Cell<u64>,
}

impl Default for CrashMarker {
    /// A marker for work outside a run, such as a dry run.
    fn default() -> CrashMarker {
        CrashMarker::new(Breadcrumb::from_env(), "")
    }
}

impl CrashMarker {
    /// A marker for a run on the backend plugin `backend`.
    pub fn new(breadcrumb: Breadcrumb, backend: &str) -> CrashMarker {
        CrashMarker { breadcrumb, backend: backend.to_owned(), step: Cell::new(0) }
    }

    /// Records the run's folder.
    pub fn run(&self, folder: &Path) {
        self.breadcrumb.set_run(folder);
    }

    /// Sets the step that later marks name.
    pub fn step(&self, step: u64) {
        self.step.set(step);
    }

    /// Marks that the objective `id` is about to run `call`.
    pub fn objective(&self, id: &str, call: &str) {
        self.breadcrumb.set(id, call, self.step.get());
    }

    /// Marks that the backend is about to run `call`.
    pub fn backend(&self, call: &str) {
        self.breadcrumb.set(&self.backend, call, self.step.get());
    }

    /// Marks that the host itself runs.
    pub fn host(&self) {
        self.breadcrumb.clear(self.step.get());
    }
}

fn names(plugin: &str, call: &str) -> [u8; PLUGIN + CALL] {
    let mut names = [0; PLUGIN + CALL];
    let (first, second) = names.split_at_mut(PLUGIN);
    for (to, from) in [(first, plugin), (second, call)] {
        to.iter_mut().zip(from.as_bytes()).for_each(|(to, from)| *to = *from);
    }
    names
}

/// Records the number of the part of the work that begins. 0: the work that follows is no part, and cannot be left out.
pub fn part(number: u64) {
    let Some(file) = Breadcrumb::from_env().file else { return };
    _ = file.write_all_at(&number.to_le_bytes(), PART as u64);
}

/// Runs `work`, which is `call` of `plugin`, and records it, so that the supervising parent can name both if the
/// process dies meanwhile.
pub fn within<R>(plugin: &str, call: &str, work: impl FnOnce() -> R) -> R {
    entering(plugin, call);
    let done = work();
    left();
    done
}

/// Records that `plugin` is about to run `call`.
pub fn entering(plugin: &str, call: &str) {
    Breadcrumb::from_env().call(plugin, call);
}

/// Records that the host itself runs again.
pub fn left() {
    entering("", "");
}

/// Calls [`entering`] when it is dropped: as a field, before the fields below it are dropped.
#[derive(Debug)]
pub struct EnteringAtDrop {
    /// The plugin.
    pub plugin: String,
    /// Its call.
    pub call: &'static str,
}

impl Drop for EnteringAtDrop {
    fn drop(&mut self) {
        entering(&self.plugin, self.call);
    }
}

/// Calls [`left`] when it is dropped: as the last field, after all others are dropped.
#[derive(Debug)]
pub struct LeftAtDrop;

impl Drop for LeftAtDrop {
    fn drop(&mut self) {
        left();
    }
}

/// Creates the file for the process that `command` starts, and passes its path to that process. `None` if it can be
/// created neither in memory nor in a temporary folder: the run then continues, and a crash is reported without
/// plugin and step.
pub(super) fn offer(command: &mut Command) -> Option<Crumbs> {
    if let Some((file, path)) = in_memory() {
        command.env(ENV, path);
        return Some(Crumbs { file, _name: None });
    }
    let (file, name) = tempfile::Builder::new().prefix("telos-").tempfile().ok()?.into_parts();
    command.env(ENV, &name);
    Some(Crumbs { file, _name: Some(name) })
}

/// The supervising parent's end of the file.
pub(super) struct Crumbs {
    pub(super) file: File,
    /// Deleted at the end, unless the child has already done so.
    _name: Option<tempfile::TempPath>,
}

/// A file in memory, which a child inherits under this path.
#[cfg(target_os = "linux")]
fn in_memory() -> Option<(File, PathBuf)> {
    use std::os::fd::AsRawFd;
    let file = File::from(rustix::fs::memfd_create(NAME, rustix::fs::MemfdFlags::empty()).ok()?);
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    is_ours(&path).then_some((file, path))
}

#[cfg(not(target_os = "linux"))]
fn in_memory() -> Option<(File, PathBuf)> {
    None
}

/// Whether the descriptor is that of the file in memory: a grandchild process may have inherited only the variable,
/// and have another file under this number.
fn is_ours(path: &Path) -> bool {
    #[cfg(target_os = "linux")]
    return std::fs::read_link(path).is_ok_and(|to| to.to_string_lossy().starts_with(&format!("/memfd:{NAME}")));
    #[cfg(not(target_os = "linux"))]
    return path.exists();
}

/// Closes the inherited descriptor in every process that this one starts: it would write its own calls and its own end there.
#[cfg(target_os = "linux")]
fn keep_from_children(path: &Path) {
    use rustix::io::{FdFlags, fcntl_setfd};
    let number = path.file_name().and_then(|name| name.to_str()?.parse().ok());
    let Some(number) = number else { return };
    // SAFETY: the descriptor is open, as `is_ours` has found, and nothing in this process closes it.
    let inherited = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
    _ = fcntl_setfd(inherited, FdFlags::CLOEXEC);
}

#[cfg(not(target_os = "linux"))]
fn keep_from_children(_path: &Path) {}

/// Reads a breadcrumb; fields that were never written are empty.
pub(super) fn read(file: &File) -> io::Result<Trace> {
    let mut bytes = vec![0; PART + 8];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, filled as u64)? {
            0 => break,
            count => filled += count,
        }
    }
    let part = |from: usize, length: usize| {
        let part = bytes.get(from..from + length).unwrap_or_default();
        part.split(|byte| *byte == 0).next().unwrap_or_default()
    };
    let text = |from, length| String::from_utf8_lossy(part(from, length)).into_owned();
    let number =
        |from: usize| bytes.get(from..from + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
    let run = Some(part(RECORD, FOLDER)).filter(|run| !run.is_empty());
    Ok(Trace {
        plugin: text(0, PLUGIN),
        call: text(PLUGIN, CALL),
        step: number(PLUGIN + CALL),
        run: run.map(|run| PathBuf::from(std::ffi::OsStr::from_bytes(run))),
        finished: match bytes.get(FINISHED..) {
            Some([1, code, ..]) => Some(*code),
            _ => None,
        },
        part: number(PART),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a shorter name that keeps the tail of a longer one before it, and a run's folder that is
    /// overwritten.
    #[test]
    fn the_last_record_is_read_and_long_names_are_truncated() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(read(&file).unwrap(), Trace::default());
        let crumb = Breadcrumb { file: Some(Arc::new(file.try_clone().unwrap())) };
        crumb.set_run(Path::new("/runs/a"));
        crumb.set(&"long".repeat(50), "forward", 11);
        crumb.clone().set("candle", "loss", u64::MAX);
        let trace = |plugin: &str, call: &str, step| Trace {
            plugin: plugin.into(),
            call: call.into(),
            step,
            run: Some("/runs/a".into()),
            finished: None,
            part: 0,
        };
        assert_eq!(read(&file).unwrap(), trace("candle", "loss", u64::MAX));
        crumb.clear(13);
        assert_eq!(read(&file).unwrap(), trace("", "", 13));
        crumb.set(&"p".repeat(99), &"c".repeat(99), 14);
        assert_eq!(read(&file).unwrap(), trace(&"p".repeat(PLUGIN), &"c".repeat(CALL), 14));
        crumb.call("ce", "weigh");
        assert_eq!(read(&file).unwrap(), trace("ce", "weigh", 14), "the step stays");
        crumb.finish(0);
        assert_eq!(read(&file).unwrap(), Trace { finished: Some(0), ..trace("ce", "weigh", 14) });
        crumb.finish(130);
        let left = read(&file).unwrap();
        assert_eq!((left.finished, left.part), (Some(130), 0));
        file.write_all_at(&7_u64.to_le_bytes(), PART as u64).unwrap();
        assert_eq!(read(&file).unwrap(), Trace { part: 7, ..left });
    }
}
