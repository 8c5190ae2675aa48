//! Shared by the end-to-end tests: the paths of the built programs, and how to run telos.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{Arc, LazyLock, atomic::AtomicBool},
};

use serde_json::Value;
use signal_hook::{consts::SIGINT, flag};

/// The folder of the built `telos`: TELOS_TEST_BIN, or the parent of this test's folder.
pub fn bin() -> PathBuf {
    let folder = env::var_os("TELOS_TEST_BIN").map(PathBuf::from).unwrap_or_else(|| {
        let own = env::current_exe().expect("a test has a file");
        own.parent().and_then(Path::parent).expect("a test lies in target/release/deps").to_owned()
    });
    assert!(folder.join("telos").is_file(), "no telos in {}: run `cargo xtask build`", folder.display());
    folder
}

/// The folder of the shipped plugins.
pub fn plugins() -> PathBuf {
    bin().join("plugins")
}

/// The folder of the plugins that only tests load.
pub fn test_plugins() -> PathBuf {
    bin().join("test-plugins")
}

/// The file of a plugin's crate: `library(&plugins(), "objective-ce")`.
pub fn library(folder: &Path, package: &str) -> PathBuf {
    let name = format!("{}{}{}", env::consts::DLL_PREFIX, package.replace('-', "_"), env::consts::DLL_SUFFIX);
    let path = folder.join(name);
    assert!(path.is_file(), "no {}: run `cargo xtask build`", path.display());
    path
}

/// A shell that starts tests in the background makes them and all their child processes ignore Ctrl-C, so that tests of Ctrl-C
/// would wait for ever. A signal that has a handler here has its default action in child processes; the handler performs the
/// default action.
static HEED_CTRL_C: LazyLock<()> = LazyLock::new(|| {
    flag::register_conditional_default(SIGINT, Arc::new(AtomicBool::new(true))).expect("a handler");
});

/// The built telos in a folder, without arguments.
pub fn telos(folder: &Path) -> Command {
    LazyLock::force(&HEED_CTRL_C);
    let mut command = Command::new(bin().join("telos"));
    clean(&mut command).current_dir(folder);
    command
}

/// Removes the environment variables that telos reads.
pub fn clean(command: &mut Command) -> &mut Command {
    command.env_remove("TELOS_PLUGINS").env_remove("TELOS_TEST_MARKER")
}

/// The output of a program.
#[derive(Debug)]
pub struct Answer {
    /// Exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Answer {
    /// Runs a command to its end.
    pub fn of(command: &mut Command) -> Answer {
        Answer::from_output(command.output().expect("the program starts"))
    }

    /// The output of a program that has ended.
    pub fn from_output(output: Output) -> Answer {
        let Output { status, stdout, stderr } = output;
        let text = |bytes| String::from_utf8(bytes).expect("telos speaks UTF-8");
        Answer { code: status.code(), out: text(stdout), err: text(stderr) }
    }

    /// Standard output as JSON, whatever the exit code.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {self:#?}"))
    }

    /// The last line of standard output as JSON: of events, the result.
    #[track_caller]
    pub fn last_event(&self) -> Value {
        let last = self.out.lines().last().unwrap_or_default();
        serde_json::from_str(last).unwrap_or_else(|e| panic!("{e}: {self:#?}"))
    }

    /// Fails unless the exit code is `code` and standard error contains every part.
    #[track_caller]
    pub fn refuses(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:#?}");
        for part in parts {
            assert!(self.err.contains(part), "`{part}` is missing in {self:#?}");
        }
    }

    /// Fails unless the exit code is 0; returns standard output.
    #[track_caller]
    pub fn succeeds(&self) -> &str {
        assert_eq!(self.code, Some(0), "{self:#?}");
        &self.out
    }
}
