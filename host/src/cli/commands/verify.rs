//! `telos plugins verify`.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use plugin_api::manifest::kind;
use plugin_api_load::PluginInfo;
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::{
    cli::{args::up_to, print},
    config::Override,
    device::open::threads,
    error::{Error, Result},
    plugins::Registry,
    runs::{receipt::PluginUse, supervise},
    verify::{
        self, Request, Verification, job,
        law_job::DrawnColumn,
        laws::{self, LawRequest, LawVerification},
    },
};

/// Default of --limit.
const LIMIT: u64 = 300;

/// Check a backend, an objective or a reward against the laws that every plugin of its kind must satisfy.
///
/// A backend is compared with the f64 reference: every operation, forward and backward, over a table of shapes; the operations and
/// types it claims to support; wrong calls; repeatability; memory. For an objective: cotangents against finite differences, sums
/// over any split, order, masks, empty batches, normalisers, state, declarations and results, under its default options and with
/// one option changed at a time. For a reward: repeatability, independence of the other samples, columns, empty and unusual text. A
/// broken law is shown with the smallest input that breaks it. Each operation or law is checked in its own process, so that a
/// crash or a hang is one failed line. Exits with 0 if every check passes and with 1 if one fails.
#[derive(Debug, Args)]
pub struct Verify {
    /// Id of a plugin, or the file of its library.
    #[arg(value_name = "ID|PATH")]
    target: String,
    /// Device of a backend: cpu, metal, cuda:0. Default: cpu.
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// Compute type of a backend. Default: every type that it supports.
    #[arg(long, value_name = "TYPE", value_parser = ["f32", "bf16", "f64"])]
    dtype: Option<String>,
    #[command(flatten)]
    inputs: Inputs,
    /// An operation of a backend, or `session` for the checks outside any operation; a law of an objective or reward. May be given
    /// several times. Default: everything.
    #[arg(long, value_name = "OP|LAW")]
    only: Vec<String>,
    /// Threads of a backend; 0 means all cores.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = up_to::<4096>)]
    threads: usize,
    /// Print the whole report as JSON: every check with its numbers.
    #[arg(long)]
    json: bool,
}

/// What a plugin is verified with, besides its defaults.
#[derive(Debug, Clone, Args)]
pub struct Inputs {
    /// Seconds that one operation or law may take before it counts as hanging.
    #[arg(long, value_name = "SECONDS", default_value_t = LIMIT, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// An option of the plugin; may be given several times: --option path=generic. Options of an objective or reward that are not
    /// given are varied one at a time.
    #[arg(long, value_name = "KEY=VALUE", value_parser = option)]
    option: Vec<String>,
    /// A numeric column of the data that an objective reads, with its range: margin=0.0..2.0, or level=1..5 for whole numbers. May be
    /// given several times; the values of other columns that it reads are between 0.5 and 2.
    #[arg(long, value_name = "NAME=LOW..HIGH", value_parser = DrawnColumn::parse)]
    column: Vec<DrawnColumn>,
    /// Vocabulary size, for an objective that composes sequences with token ids of its own. Default: 50.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    vocabulary: Option<u32>,
    /// A prompt that the reward accepts; may be given several times. Default: an arithmetic question.
    #[arg(long, value_name = "TEXT")]
    prompt: Vec<String>,
}

/// Refuses text that does not have the form `key=value`; its meaning is checked in the process that loads the
/// plugin.
fn option(text: &str) -> Result<String, String> {
    Override::option(text).map(|_| text.to_owned())
}

pub(in crate::cli) fn execute(args: Verify, folders: Vec<PathBuf>) -> Result<()> {
    let registry = Registry::discover(&folders);
    let info = verify::find(&registry, &args.target)?;
    refuse_unused(&args, &info)?;
    verified(args, &info, &registry, true, None).map(drop)
}

/// Verifies a plugin with these inputs and prints the result, unless `quiet`. Returns the hash of the bytes that were verified.
///
/// # Errors
/// As for `telos plugins verify`; a failed run that names the broken laws.
pub(super) fn with_inputs(info: &PluginInfo, inputs: Inputs, registry: &Registry, quiet: bool) -> Result<String> {
    let args = Verify {
        target: info.id.clone(),
        device: None,
        dtype: None,
        inputs,
        only: Vec::new(),
        threads: 0,
        json: false,
    };
    refuse_unused(&args, info)?;
    let limit = args.inputs.limit;
    let begun = Mutex::new(BTreeSet::new());
    let spoken = |name: &str| {
        if begun.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned()) {
            print::err(&format!("checking {name}, for at most {limit} s\n"));
        }
    };
    verified(args, info, registry, !quiet, Some(&spoken))
}

/// Verifies a plugin and prints the result if `shown`. Returns the hash of the bytes that were verified.
/// With `spoken`, every operation or law that begins is passed to it; otherwise a bar shows them on a terminal.
fn verified(
    args: Verify,
    info: &PluginInfo,
    registry: &Registry,
    shown: bool,
    spoken: Option<&(dyn Fn(&str) + Sync)>,
) -> Result<String> {
    let json = args.json;
    let limit = Duration::from_secs(args.inputs.limit);
    let bar = if spoken.is_some() { ProgressBar::hidden() } else { bar() };
    let report = |done: usize, of: usize, name: &str| {
        if let Some(spoken) = spoken {
            spoken(name);
        }
        bar.set_length(of as u64);
        bar.set_position(done as u64);
        bar.set_message(name.to_owned());
    };
    if info.kind == kind::BACKEND {
        let request = Request {
            device: args.device.unwrap_or_else(|| "cpu".to_owned()),
            dtype: args.dtype,
            options: args.inputs.option,
            only: args.only,
            threads: threads(args.threads),
            limit,
        };
        let verified = verify::verify(&request, registry, info, &report);
        bar.finish_and_clear();
        let verification = verified?;
        if shown {
            print::result(&verification, json)?;
        }
        return if verification.passed { Ok(verification.backend.sha256) } else { Err(refusal(&verification)) };
    }
    let Verify { only, inputs: Inputs { option: options, column: columns, prompt: prompts, vocabulary, .. }, .. } =
        args;
    let request = LawRequest { options, only, columns, prompts, vocabulary, limit };
    let verified = laws::verify(&request, info, &report);
    bar.finish_and_clear();
    let verification = verified?;
    if shown {
        print::result(&verification, json)?;
    }
    if verification.passed { Ok(verification.plugin.sha256) } else { Err(broken_laws(&verification)) }
}

/// Refuses flags that are for plugins of another kind.
fn refuse_unused(args: &Verify, info: &PluginInfo) -> Result<()> {
    let is_backend = info.kind == kind::BACKEND;
    let given = [
        ("--device", !is_backend && args.device.is_some(), "backends"),
        ("--dtype", !is_backend && args.dtype.is_some(), "backends"),
        ("--threads", !is_backend && args.threads != 0, "backends"),
        ("--column", is_backend && !args.inputs.column.is_empty(), "objectives"),
        ("--vocabulary", info.kind != kind::OBJECTIVE && args.inputs.vocabulary.is_some(), "objectives"),
        ("--prompt", is_backend && !args.inputs.prompt.is_empty(), "rewards"),
    ];
    match given.iter().find(|(_, unused, _)| *unused) {
        None => Ok(()),
        Some((flag, _, kinds)) => {
            Err(Error::request(format!("{flag} is for {kinds}, and `{}` is of kind {}", info.id, info.kind))
                .with_hint(format!("leave out {flag}")))
        }
    }
}

fn broken_laws(verification: &LawVerification) -> Error {
    let failed = verification.laws.iter().filter(|law| !law.passed);
    let names: Vec<&str> = failed.map(|law| law.name.as_str()).collect();
    let PluginUse { kind, id, .. } = &verification.plugin;
    Error::run(format!("{kind} `{id}` breaks laws: {}", names.join(", ")))
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

/// Does the job of the child process.
pub(in crate::cli) fn group(folder: &Path) -> Result<()> {
    // Ends if the parent ends, for whatever reason.
    supervise::role()?;
    // A backend that crashes leaves a line in the report, and no core dump on the disk.
    _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    job::perform(folder)
}
