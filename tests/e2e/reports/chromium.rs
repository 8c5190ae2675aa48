//! How Chromium is started without a window, for the tests that open reports and for the build script that tries whether it starts.

use std::{
    path::Path,
    process::{Command, Stdio},
};

/// A command that loads the page named by its last argument, which the caller adds, and prints the document. Everything that Chromium
/// writes goes to `home`: it ends at once if it cannot write to the user's home.
pub fn chromium(program: &str, home: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--dump-dom"]);
    // Machines for tests may have little memory that processes can share, or none.
    command.args(["--disable-dev-shm-usage", "--enable-logging=stderr"]);
    command.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
    command.arg(format!("--user-data-dir={}", home.join("profile").display()));
    for variable in ["HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"] {
        command.env(variable, home);
    }
    command.stdin(Stdio::null());
    command
}
