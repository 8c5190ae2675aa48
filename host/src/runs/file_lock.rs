//! A lock on a file that only one process holds at a time. The system releases it when the process ends, for
//! whatever reason.
//!
//! Some network disks do not support locks. There a second file, `NAME.held`, replaces the lock: only one process
//! can create it, and it contains the machine's name and the process's number. If the process is killed the file
//! stays, and the next process on that machine removes it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use super::disk::shown;
use crate::files;

/// Suffix of the file that replaces a lock.
pub(super) const HELD: &str = ".held";
/// How long to wait between two attempts to take a lock.
const PAUSE: Duration = Duration::from_millis(100);

/// A lock that this process holds.
#[derive(Debug)]
pub struct FileLock {
    _file: File,
    /// The file that replaces the lock on a disk without locks.
    held: Option<PathBuf>,
}

/// Why a lock was not obtained.
#[derive(Debug)]
pub enum Denied {
    /// Another process holds it: `process 12`, with the machine if it is known.
    Taken(String),
    /// The file system's error.
    Failed(io::Error),
}

impl From<io::Error> for Denied {
    fn from(error: io::Error) -> Self {
        Denied::Failed(error)
    }
}

impl FileLock {
    /// Takes the lock at `path`, which is created if missing, and writes the process's number into it, for the
    /// messages of other processes. Waits up to `patience` for a process that holds it.
    ///
    /// # Errors
    /// See [`Denied`].
    pub fn take(path: &Path, patience: Duration) -> Result<FileLock, Denied> {
        Self::take_by(File::try_lock, path, patience)
    }

    fn take_by(
        try_lock: impl Fn(&File) -> Result<(), TryLockError>,
        path: &Path,
        patience: Duration,
    ) -> Result<FileLock, Denied> {
        let last = Instant::now() + patience;
        loop {
            // NFS requires the file to be opened for writing.
            let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
            let owner = match try_lock(&file) {
                // The file's folder may have been removed since it was opened.
                Ok(()) if !is_same(&file, path) => continue,
                Ok(()) => {
                    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()))?;
                    return Ok(FileLock { _file: file, held: None });
                }
                Err(TryLockError::Error(error)) if has_no_locks(&error) => match create_held(path)? {
                    Ok(held) => return Ok(FileLock { _file: file, held: Some(held) }),
                    Err(owner) => owner,
                },
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(TryLockError::Error(error)) => return Err(error.into()),
                Err(TryLockError::WouldBlock) => fs::read_to_string(path).unwrap_or_default(),
            };
            if Instant::now() >= last {
                let owner = owner.trim();
                let named = if owner.is_empty() { "another process".to_owned() } else { format!("process {owner}") };
                return Err(Denied::Taken(named));
            }
            thread::sleep(PAUSE);
        }
    }

    /// The note for the user on a disk without locks.
    pub fn note(&self) -> Option<String> {
        let held = self.held.as_ref()?;
        Some(format!("this disk does not support file locks; {} is used instead", shown(held).display()))
    }
}

impl FileLock {
    /// Removes the file that replaces a lock; the lock itself is released when this value is dropped.
    pub(super) fn remove_held(&mut self) {
        if let Some(held) = self.held.take() {
            _ = fs::remove_file(&held);
            OURS.lock().unwrap_or_else(PoisonError::into_inner).retain(|own| *own != shown(&held));
        }
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        self.remove_held();
    }
}

/// Whether another file handle holds the lock at `path`. The lock is shared for a moment to find out: a process that wants it waits
/// for that moment.
pub fn is_held(path: &Path) -> bool {
    let held = with_ending(path, HELD);
    if held.exists() {
        return !is_left_over(&held, &fs::read_to_string(&held).unwrap_or_default());
    }
    // A file that cannot be opened is not locked by a process of this user.
    files::open(path).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// The machine's name, as it stands in the files that replace locks.
fn machine() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Whether the process that `owner`, the text of the file `held`, names is dead: one of this machine that does not exist, or an
/// earlier one with our number.
fn is_left_over(held: &Path, owner: &str) -> bool {
    let (process, place) = owner.trim().split_once(" on ").unwrap_or_default();
    let is_own = process.parse() == Ok(std::process::id());
    let is_ours = is_own && OURS.lock().unwrap_or_else(PoisonError::into_inner).contains(&shown(held));
    let process = process.parse().ok().and_then(Pid::from_raw);
    let is_dead = process.is_some_and(|process| test_kill_process(process) == Err(Errno::SRCH));
    place == machine() && (is_dead || is_own && !is_ours)
}

/// The files that replace locks of this process. They are recorded because a process that is restarted in a
/// container may have the same number as the one that was killed there.
static OURS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Whether `path` names the open `file`.
pub fn is_same(file: &File, path: &Path) -> bool {
    let numbers = |meta: fs::Metadata| (meta.dev(), meta.ino());
    matches!((file.metadata().map(numbers), fs::metadata(path).map(numbers)), (Ok(a), Ok(b)) if a == b)
}

/// Whether the error means that the disk does not support locks.
fn has_no_locks(error: &io::Error) -> bool {
    let none = [Errno::NOLCK, Errno::NOTSUP, Errno::OPNOTSUPP, Errno::NOSYS];
    error.kind() == io::ErrorKind::Unsupported
        || none.iter().any(|errno| Some(errno.raw_os_error()) == error.raw_os_error())
}

/// Creates `path` with `.held` appended, or returns which process has created it before.
fn create_held(path: &Path) -> io::Result<Result<PathBuf, String>> {
    let held = with_ending(path, HELD);
    let machine = machine();
    loop {
        match create_with_content(&held, &with_ending(path, &format!(".new-{}", std::process::id())), &machine) {
            Ok(()) => {
                OURS.lock().unwrap_or_else(PoisonError::into_inner).push(shown(&held));
                return Ok(Ok(held));
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        let owner = fs::read_to_string(&held).unwrap_or_default();
        if !is_left_over(&held, &owner) {
            let file = shown(&held);
            return Ok(Err(format!(
                "{} (named by {}; remove that file if the process has ended)",
                owner.trim(),
                file.display()
            )));
        }
        // Two processes may reach this point at once: only one of them can move the file away.
        let aside = held.with_extension(format!("gone-{}", std::process::id()));
        if fs::rename(&held, &aside).is_ok() {
            if fs::read_to_string(&aside).unwrap_or_default() != owner {
                // The file belonged to a process that was faster.
                fs::rename(&aside, &held)?;
                return Ok(Err(fs::read_to_string(&held).unwrap_or_default()));
            }
            _ = fs::remove_file(&aside);
        }
    }
}

/// Creates the file `held` with its content, in one step: without content it would not show which process holds it.
fn create_with_content(held: &Path, new: &Path, machine: &str) -> io::Result<()> {
    fs::write(new, format!("{} on {machine}\n", std::process::id()))?;
    let put = match fs::hard_link(new, held) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            // For a disk without hard links.
            let mut file = OpenOptions::new().write(true).create_new(true).open(held)?;
            writeln!(file, "{} on {machine}", std::process::id())
        }
        put => put,
    };
    _ = fs::remove_file(new);
    put
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without_locks(_: &File) -> Result<(), TryLockError> {
        Err(TryLockError::Error(Errno::OPNOTSUPP.into()))
    }

    /// Catches a disk without locks that lets two processes through, and a lock that outlives its process or its
    /// holder.
    #[test]
    fn a_disk_without_locks_admits_one_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".lock");
        let take = || FileLock::take_by(without_locks, &path, Duration::ZERO);
        let first = take().unwrap();
        assert!(first.note().unwrap().contains(".lock.held"), "{first:?}");
        let Err(Denied::Taken(owner)) = take() else { panic!("two hold it") };
        assert!(is_held(&path));
        assert!(owner.contains(&format!("process {} on ", std::process::id())), "{owner}");
        drop(first);
        drop(take().unwrap());
        // Left by a killed process of this machine, and by one of another machine.
        let mut dead = std::process::Command::new("true").spawn().unwrap();
        dead.wait().unwrap();
        let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
        fs::write(folder.path().join(".lock.held"), format!("{} on {machine}\n", dead.id())).unwrap();
        assert!(!is_held(&path));
        drop(take().unwrap());
        // Left by a process with our number: that of a container that was restarted.
        fs::write(folder.path().join(".lock.held"), format!("{} on {machine}\n", std::process::id())).unwrap();
        drop(take().unwrap());
        fs::write(folder.path().join(".lock.held"), format!("{} on elsewhere\n", dead.id())).unwrap();
        assert!(is_held(&path));
        let Err(Denied::Taken(owner)) = take() else { panic!("another machine's lock was taken") };
        assert!(owner.contains("elsewhere") && owner.contains(".lock.held"), "{owner}");
    }

    /// Catches an error of the disk that is treated as missing support for locks.
    #[test]
    fn other_lock_errors_are_returned() {
        let folder = tempfile::tempdir().unwrap();
        let fails = |_: &File| Err(TryLockError::Error(Errno::IO.into()));
        let denied = FileLock::take_by(fails, &folder.path().join(".lock"), Duration::ZERO);
        assert!(matches!(denied, Err(Denied::Failed(_))), "{denied:?}");
    }
}
