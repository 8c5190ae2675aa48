//! Disturbs one file call of a program: the layer in `layer.c`, compiled and preloaded.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use rustix::io::Errno;
use tempfile::TempDir;

/// The path of the compiled layer; built once per test program.
static LIBRARY: LazyLock<PathBuf> = LazyLock::new(compile);

/// Compiles the layer in the test program's folder, under a name of this process, and renames it.
fn compile() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/faults/layer.c");
    let own = std::env::current_exe().expect("a test has a file");
    let library = own.with_file_name("telos_test_layer.so");
    let fresh = own.with_file_name(format!("telos_test_layer-{}.so", std::process::id()));
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-U_FORTIFY_SOURCE"]);
    let output = cc.arg(source).arg("-o").arg(&fresh).arg("-ldl").output().expect("cc, which rustc links with, starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::rename(&fresh, &library).expect("the layer is in place");
    library
}

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Act {
    /// The process is killed before it.
    Kill,
    /// Half of a write is done, then the process is killed.
    Torn,
    /// It fails with the error that is usual for such a call.
    Fail,
    /// It is interrupted by a signal, and does nothing.
    Interrupt,
    /// Half of the bytes are transferred.
    Short,
    /// From this call on the disk is full.
    Full,
}

/// All acts.
pub const ACTS: [Act; 6] = [Act::Kill, Act::Torn, Act::Fail, Act::Interrupt, Act::Short, Act::Full];

impl Act {
    /// Its name in the results.
    pub fn name(self) -> &'static str {
        match self {
            Act::Kill => "killed before the call",
            Act::Torn => "killed in the middle of a write",
            Act::Fail => "the call fails",
            Act::Interrupt => "the call is interrupted",
            Act::Short => "half a read or write",
            Act::Full => "the disk is full from the call on",
        }
    }

    /// Whether it can happen to this call, and differs from the acts on the call before.
    pub fn applies_to(self, call: &Call) -> bool {
        let is = |kinds: &[&str]| kinds.contains(&call.kind.as_str());
        match self {
            // A kill before or after a call that changes nothing leaves the same files.
            Act::Kill => is(&["create", "write", "rename", "unlink", "rmdir", "mkdir", "truncate", "fsync"]),
            Act::Torn => is(&["write"]) && call.bytes > 1,
            Act::Fail => true,
            Act::Interrupt => is(&["open", "create", "read", "write", "fsync", "truncate", "flock"]),
            Act::Short => is(&["read", "write"]) && call.bytes > 1,
            Act::Full => is(&["create", "write", "rename", "mkdir"]),
        }
    }

    /// Whether it ends the worker process.
    pub fn kills(self) -> bool {
        matches!(self, Act::Kill | Act::Torn)
    }
}

/// A file call of an undisturbed program.
#[derive(Debug, Clone)]
pub struct Call {
    /// Its number, from 1.
    pub number: u64,
    /// `open`, `read`, `rename` and so on.
    pub kind: String,
    /// How many bytes it would transfer at most.
    pub bytes: u64,
    /// The path relative to the folder.
    pub path: String,
}

/// One disturbance.
#[derive(Debug, Clone)]
pub struct Fault {
    /// What happens.
    pub act: Act,
    /// To which call.
    pub call: Call,
}

impl Fault {
    /// The error of a failed call: no descriptor left, no memory to map, or an error of the device.
    fn error(&self) -> i32 {
        let error = match (self.act, self.call.kind.as_str()) {
            (Act::Interrupt, _) => Errno::INTR,
            (_, "open" | "create" | "opendir") => Errno::MFILE,
            (_, "mmap") => Errno::NOMEM,
            _ => Errno::IO,
        };
        error.raw_os_error()
    }
}

/// The layer, with a log of its own.
pub struct Layer {
    place: TempDir,
}

impl Layer {
    /// A layer with an empty log.
    pub fn new() -> Layer {
        Layer { place: super::scratch() }
    }

    fn log(&self) -> PathBuf {
        self.place.path().join("log")
    }

    fn load<'c>(&self, command: &'c mut Command, folder: &Path) -> &'c mut Command {
        _ = fs::remove_file(self.log());
        command
            .env("LD_PRELOAD", LIBRARY.as_path())
            .env("TELOS_FAULTS_FOLDER", folder)
            .env("TELOS_FAULTS_LOG", self.log())
    }

    /// Makes the layer log every file call below `folder`.
    pub fn trace<'c>(&self, command: &'c mut Command, folder: &Path) -> &'c mut Command {
        self.load(command, folder)
    }

    /// Makes the layer disturb one call below `folder`, counting only those on paths that contain `part`.
    pub fn disturb<'c>(&self, command: &'c mut Command, folder: &Path, part: &str, fault: &Fault) -> &'c mut Command {
        let act = match fault.act {
            Act::Kill => "kill",
            Act::Torn => "torn",
            Act::Fail | Act::Interrupt => "fail",
            Act::Short => "short",
            Act::Full => "full",
        };
        self.load(command, folder)
            .env("TELOS_FAULTS_QUIET", "1")
            .env("TELOS_FAULTS_PART", part)
            .env("TELOS_FAULTS_AT", fault.call.number.to_string())
            .env("TELOS_FAULTS_ACT", act)
            .env("TELOS_FAULTS_ERRNO", fault.error().to_string())
    }

    /// Makes the layer act in the supervising process, and not in the worker.
    pub fn in_parent(command: &mut Command) -> &mut Command {
        command.env("TELOS_FAULTS_PARENT", "1")
    }

    /// The calls of the program that was traced.
    pub fn calls(&self) -> Vec<Call> {
        let text = fs::read_to_string(self.log()).expect("the layer has logged");
        let call = |line: &str| {
            let mut words = line.splitn(4, ' ');
            let mut word = || words.next().unwrap_or_else(|| panic!("the layer has logged {line:?}"));
            let (number, kind, bytes, path) = (word(), word(), word(), word());
            let parsed = |text: &str| text.parse().unwrap_or_else(|e| panic!("{e} in {line:?}"));
            Call { number: parsed(number), kind: kind.to_owned(), bytes: parsed(bytes), path: path.to_owned() }
        };
        let mut calls: Vec<Call> = text.lines().map(call).collect();
        calls.sort_by_key(|call| call.number);
        calls
    }

    /// Kind and path of the first call that was disturbed, if the program reached it.
    pub fn hit(&self) -> Option<(String, String)> {
        let text = fs::read_to_string(self.log()).ok()?;
        let (kind, path) = text.lines().next()?.strip_prefix("hit ")?.split_once(' ')?;
        Some((kind.to_owned(), path.to_owned()))
    }
}
