//! Hands the compiler's version and the target to the receipt of a run.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("--version").output();
    let version = output.ok().and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
    let version = if version.trim().is_empty() { "rustc of unknown version" } else { version.trim() };
    println!("cargo::rustc-env=TELOS_RUSTC={version}");
    println!("cargo::rustc-env=TELOS_TARGET={}", env::var("TARGET").unwrap_or_default());
}
