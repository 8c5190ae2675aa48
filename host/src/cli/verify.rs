//! `telos plugins verify`.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rustix::process::{Resource, Rlimit, setrlimit};

use super::print;
use crate::config::Override;
use crate::error::{Error, Result};
use crate::runs::supervise;
use crate::train::setup::threads;
use crate::verify::{self, Request, Verification, job};

/// Hold a backend against the f64 reference by the laws that every backend must satisfy.
///
/// Every operation, forward and backward, over a table of shapes; what it says of its support; wrong calls; repeatability;
/// memory. Each operation is checked in a process of its own, so that a crash or a hang is one failed line. Exits with 0
/// when every check passes and with 1 when one fails.
#[derive(Debug, Args)]
pub struct Verify {
    /// Id of a backend plugin, or the file of its library.
    #[arg(value_name = "ID|PATH")]
    target: String,
    /// Device, in the backend's words: cpu, metal, cuda:0.
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: String,
    /// Type of the computation; without it, every one that the backend offers.
    #[arg(long, value_name = "TYPE", value_parser = ["f32", "bf16", "f64"])]
    dtype: Option<String>,
    /// An option of the backend; may be given several times: --option path=generic.
    #[arg(long, value_name = "KEY=VALUE", value_parser = option)]
    option: Vec<String>,
    /// An operation, or `session` for what belongs to none; may be given several times. Without it, everything.
    #[arg(long, value_name = "OP")]
    only: Vec<String>,
    /// Threads; 0 means all cores.
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
    /// Seconds that one operation may take before it counts as hanging.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// Print the whole report as JSON: every check with its numbers.
    #[arg(long)]
    json: bool,
}

/// Refuses what has not the form `key=value`; its meaning is for the process that knows the plugin's options.
fn option(text: &str) -> Result<String, String> {
    Override::option(text).map(|_| text.to_owned())
}

pub(super) fn execute(args: Verify, folders: Vec<PathBuf>) -> Result<()> {
    let request = Request {
        target: args.target,
        device: args.device,
        dtype: args.dtype,
        options: args.option,
        only: args.only,
        threads: threads(args.threads),
        limit: Duration::from_secs(args.limit),
        folders,
    };
    let bar = bar();
    let verified = verify::verify(&request, &|done, of, name| {
        bar.set_length(of as u64);
        bar.set_position(done as u64);
        bar.set_message(name.to_owned());
    });
    bar.finish_and_clear();
    let verification = verified?;
    print::result(&verification, args.json)?;
    if verification.passed { Ok(()) } else { Err(refusal(&verification)) }
}

/// A bar on a terminal, nothing elsewhere: the work is short and its result is a table.
fn bar() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style =
        ProgressStyle::with_template("{bar:24} {pos}/{len}  {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr()).with_style(style)
}

fn refusal(verification: &Verification) -> Error {
    let failed = verification.groups.iter().filter(|group| !group.passed);
    let mut names: Vec<&str> = failed.map(|group| group.name.as_str()).collect();
    names.dedup();
    Error::run(format!("backend `{}` breaks laws: {}", verification.backend.id, names.join(", ")))
}

/// The child's side.
pub(super) fn group(folder: &Path) -> Result<()> {
    // Ends with the parent, whatever ends that.
    supervise::role()?;
    // A backend that crashes leaves a line in the report and no image of its memory on the disk.
    _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    job::perform(folder)
}
