//! End-to-end tests: the telos program with the plugins as they are built, in one test binary.
//!
//! `cargo xtask build` makes what they run. A new topic is a new module here; what modules share is in [`rig`] (programs and
//! answers), [`lab`] (runs) and [`kills`] (their ends before time). Tests run at the same time: each works in a folder of its own and sets no environment
//! variable of this process.

mod commands;
mod compare;
mod dist;
mod enforced;
mod failures;
#[cfg(target_os = "linux")]
mod faults;
mod field;
mod hostile;
mod kept;
mod kills;
mod lab;
mod laws;
mod loading;
mod memory;
mod micro;
mod minors;
mod objectives;
mod odd_files;
mod other_authors;
mod peers;
mod pipeline;
mod plugins;
mod ppo_plugin;
mod preference_plugins;
mod preferences;
mod quickstart;
mod real_data;
mod receipts;
mod resume;
mod rig;
mod road;
mod road_resume;
mod sft;
mod sizes;
mod threads;
#[cfg(target_os = "linux")]
mod torch;
mod verify;
mod watched;
