//! Sets the configuration `telos_data` if `TELOS_DATA` names the folder of real data, so that the test runner lists the tests of
//! [`real_data`](e2e/real_data/mod.rs) as ignored otherwise; `telos_chromium` if Chromium is installed and starts, for the tests that
//! open reports in a browser; and `telos_tensorboard` if `python3` has TensorBoard, or finds it in the folder that `TELOS_TENSORBOARD`
//! names.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use chromium::chromium;

#[path = "e2e/reports/chromium.rs"]
mod chromium;

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
    println!("cargo::rerun-if-changed=e2e/reports/chromium.rs");
    let found = CHROMIUM.into_iter().find(|path| Path::new(path).exists() && starts(path));
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

/// How long Chromium may take to print an empty page: minutes on a loaded machine that starts it for the first time.
const LONGEST_START: Duration = Duration::from_secs(120);

/// Whether the program prints a page. One that is only a note of a package manager, or that a container does not let start, would fail
/// tests that are not about it; a warning says so.
fn starts(program: &str) -> bool {
    let folder = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("chromium");
    let printed = folder.join("printed");
    let run = || {
        fs::create_dir_all(&folder)?;
        let mut command = chromium(program, &folder);
        command.arg("data:text/html,<b>it+starts</b>").stdout(fs::File::create(&printed)?).stderr(Stdio::null());
        let (mut child, start) = (command.spawn()?, Instant::now());
        while child.try_wait()?.is_none() {
            if start.elapsed() > LONGEST_START {
                child.kill()?;
                child.wait()?;
                break;
            }
            thread::sleep(Duration::from_millis(50));
        }
        fs::read_to_string(&printed)
    };
    let starts = run().is_ok_and(|text| text.contains("it+starts"));
    _ = fs::remove_dir_all(&folder);
    if !starts {
        println!("cargo::warning={program} does not start: tests in a browser are ignored");
    }
    starts
}
