//! End-to-end tests: the telos program with the plugins as built, in one test binary.
//!
//! `cargo xtask build` builds what they run. A new topic is a new module in the folder of its kind; [`support`] holds the shared
//! helpers. Tests run in parallel: each works in a folder of its own and sets no environment variable of this process.

mod answers;
mod authors;
mod backends;
mod contract;
#[cfg(target_os = "linux")]
mod faults;
mod field;
mod plugins;
mod preferences;
mod real_data;
mod refusals;
mod reports;
mod runs;
mod support;
mod training;
