//! `telos run`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Args;
use signal_hook::consts::SIGXFSZ;

use super::print;
use crate::config::{Override, schema};
use crate::error::{Error, Result};
use crate::runs::{Breadcrumb, Interrupt, progress::Show};
use crate::train::setup::prepare;
use crate::train::{End, Trainer};

/// Run an experiment.
///
/// Writes into runs/NAME, which must not exist yet. Ctrl-C finishes the step, saves and exits with code 130; --resume
/// goes on from there, bit for bit.
#[derive(Debug, Args)]
pub struct Run {
    /// The experiment, a TOML file.
    #[arg(required_unless_present = "help_keys")]
    file: Option<PathBuf>,
    /// Overrides any key: --set train.steps=100 --set data.path=corpus.txt --set objective.0.weight=0.5.
    #[arg(long, value_name = "KEY=VALUE", value_parser = Override::parse)]
    set: Vec<Override>,
    /// Go on with the run of this name from its last checkpoint.
    #[arg(long)]
    resume: bool,
    /// Name of the run, instead of the experiment's.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Accept plugins whose bytes changed since plugins.lock was written, and write them down.
    #[arg(long)]
    update_lock: bool,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
    /// Explain every key of an experiment, and stop.
    #[arg(long)]
    help_keys: bool,
}

/// What `telos run` asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRequest {
    /// The experiment's file.
    pub file: PathBuf,
    /// Overrides in order, `--name` among them.
    pub overrides: Vec<Override>,
    /// Whether to go on with an existing run.
    pub resume: bool,
    /// Where to look for plugins.
    pub plugin_folders: Vec<PathBuf>,
    /// Whether to accept changed plugins.
    pub update_lock: bool,
    /// Whether the summary is printed as JSON.
    pub json: bool,
}

pub(super) fn execute(args: Run, plugin_folders: Vec<PathBuf>) -> Result<()> {
    if args.help_keys {
        return print::out(&schema::reference());
    }
    perform(args.request(plugin_folders)?)
}

impl Run {
    /// Whether nothing will run.
    pub(super) fn only_explains(&self) -> bool {
        self.help_keys
    }

    pub(super) fn request(self, plugin_folders: Vec<PathBuf>) -> Result<RunRequest> {
        let file = self.file.ok_or_else(|| Error::request("which experiment?").with_hint("telos run FILE"))?;
        let mut overrides = self.set;
        overrides.extend(self.name.map(|name| Override::text("--name", "name", &name)));
        let Self { resume, update_lock, json, .. } = Self { set: Vec::new(), file: None, name: None, ..self };
        Ok(RunRequest { file, overrides, resume, plugin_folders, update_lock, json })
    }
}

/// Runs the experiment and prints its summary.
fn perform(request: RunRequest) -> Result<()> {
    // Takes its file's name away at once, so that nothing is left wherever the process is killed.
    _ = Breadcrumb::from_env();
    let interrupt = Interrupt::listen(|text| print::err(&format!("\n{text}\n")))?;
    // A file that may not grow (`ulimit -f`) is then an error like a full disk, and not the end of the process.
    signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)))
        .map_err(|cause| Error::run("cannot listen for signals").with_cause(cause))?;
    let prepared = prepare(&request.file, &request.overrides, &request.plugin_folders, request.update_lock)?;
    let mut trainer = Trainer::new(prepared, request.resume, if request.json { Show::Quiet } else { Show::Auto })?;
    if trainer.ended() {
        print::err("the run had come to its end: nothing is left to do\n");
        return print::result(&trainer.finished(), request.json);
    }
    let (end, summary) = trainer.run(&interrupt)?;
    print::result(&summary, request.json)?;
    if end == End::Interrupted {
        return Err(Error::interrupted(format!(
            "stopped after step {}, saved as {}",
            summary.steps, summary.checkpoint
        ))
        .with_hint("go on with the same command and --resume"));
    }
    Ok(())
}
