//! Sets the configuration `telos_data` if `TELOS_DATA` names the folder of real data, so that the test runner lists the tests of
//! [`real_data`](e2e/real_data/mod.rs) as ignored otherwise; `telos_chromium` if Chromium is installed, for the tests that open
//! reports in a browser; and `telos_tensorboard` if `python3` has TensorBoard, or finds it in the folder that `TELOS_TENSORBOARD`
//! names.

use std::{path::Path, process::Command};

/// Where Chromium is looked for.
const CHROMIUM: [&str; 3] = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=TELOS_DATA");
    println!("cargo::rustc-check-cfg=cfg(telos_data)");
    if std::env::var_os("TELOS_DATA").is_some_and(|folder| !folder.is_empty()) {
        println!("cargo::rustc-cfg=telos_data");
    }
    println!("cargo::rustc-check-cfg=cfg(telos_chromium)");
    // A path that does not exist would make every build run this again.
    println!("cargo::rerun-if-changed=/usr/bin");
    let found = CHROMIUM.into_iter().find(|path| Path::new(path).exists());
    if found.is_some() {
        println!("cargo::rustc-cfg=telos_chromium");
    }
    println!("cargo::rustc-env=TELOS_CHROMIUM={}", found.unwrap_or("chromium"));
    println!("cargo::rerun-if-env-changed=TELOS_TENSORBOARD");
    println!("cargo::rustc-check-cfg=cfg(telos_tensorboard)");
    let folder = std::env::var("TELOS_TENSORBOARD").unwrap_or_default();
    let mut python = Command::new("python3");
    python.args(["-c", "import tensorboard.backend.event_processing.event_accumulator"]).env("PYTHONPATH", &folder);
    if python.output().is_ok_and(|output| output.status.success()) {
        println!("cargo::rustc-cfg=telos_tensorboard");
    }
    println!("cargo::rustc-env=TELOS_TENSORBOARD_PATH={folder}");
}
