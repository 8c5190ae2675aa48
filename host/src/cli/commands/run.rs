//! `telos run`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Args;
use serde::Serialize;
use serde_json::{Map, Value};
use signal_hook::consts::SIGXFSZ;

use crate::{
    cli::{out::check_own, print},
    config::{Draft, Override, Pipeline, Plan, Study, schema},
    error::{Error, Result},
    pipeline::{self, Event, Selection},
    plugins::Pinning,
    report::{Report, page, record::is_run},
    runs::{
        Interrupt,
        events::Events,
        folder::{PIPELINE_FILE, REPORT_FILE, is_report},
        progress::{Show, Watch},
        receipt::pin_commits,
        study_file::StudyFile,
    },
    setup::loading::open_draft,
    study,
    train::{End, trainer::Trainer},
};

/// Run an experiment, a pipeline or a study.
///
/// Writes into runs/NAME, which must not exist yet. Ctrl-C and SIGTERM finish the step, save and exit with code 130; --resume
/// continues from there, bit for bit. The stages of a pipeline are runs in runs/NAME/STAGE. A file with [sweep] is a study: its runs
/// are in runs/NAME/RUN, one that fails does not stop the others, and --resume runs what is not done.
#[derive(Debug, Args)]
pub struct Run {
    /// The experiment, pipeline or study, a TOML file.
    #[arg(required_unless_present = "help_keys")]
    file: Option<PathBuf>,
    /// Overrides any key: --set train.steps=100 --set data.path=corpus.txt --set objective.0.weight=0.5; of one stage of a
    /// pipeline: --set stage.sft.train.steps=100 (the longest matching stage name is used; quotes select one: 'stage."a".b').
    #[arg(long, value_name = "KEY=VALUE", value_parser = Override::parse)]
    set: Vec<Override>,
    /// Continue the run of this name from its last checkpoint.
    #[arg(long)]
    resume: bool,
    /// With --resume: accept data files whose rows were corrected since the run began. No row may be added, removed or moved. The
    /// receipt records the change.
    #[arg(long, requires = "resume")]
    fixed_rows: bool,
    /// Rerun this stage of a pipeline and those after it; those before it must be done. Earlier runs of these stages are
    /// kept as STAGE.1, STAGE.2 and so on.
    #[arg(long, value_name = "STAGE", conflicts_with = "only")]
    from: Option<String>,
    /// Rerun this stage of a pipeline alone; the stages that it refers to must be done. Its earlier run is kept in the same way.
    #[arg(long, value_name = "STAGE")]
    only: Option<String>,
    /// Train with N seeds, that of the file and those that follow it: a study, with a summary over seeds.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000), conflicts_with_all = ["from", "only"])]
    seeds: Option<u64>,
    /// Runs of a study that train at the same time; they share the threads. Never changes the result of a backend that gives the same
    /// bits with any number of threads.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=256))]
    jobs: Option<u64>,
    /// Save and end with code 0 after this step of an experiment; --resume continues with the same bits.
    #[arg(long, value_name = "STEP")]
    pause_after: Option<u64>,
    /// Refuse a run that does not report this metric: a study passes each metric by which it compares runs, and the key that names it.
    #[arg(long, value_name = "KEY=METRIC", value_parser = compared, hide = true)]
    compared_by: Vec<(String, String)>,
    /// Name of the run, instead of the experiment's.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Accept plugins whose bytes changed since plugins.lock was written, and pin the new bytes.
    #[arg(long)]
    update_lock: bool,
    /// While developing a plugin: accept plugins whose bytes differ from the pinned ones and record them in the receipt, pin
    /// nothing, and replace the run's folder if telos created it and it has no checkpoint.
    #[arg(long, conflicts_with = "update_lock")]
    dev: bool,
    /// Train even if an objective breaks a law on the first batch; the receipt records it. Objectives whose bytes are new are
    /// checked once: some cotangents against finite differences, the batch split in two, a gradient that is 0 or not a number, and
    /// the expectations that they declare.
    #[arg(long)]
    unproved: bool,
    /// Print events as they happen, each a line of JSON: start, step, eval, sample, alert, note, checkpoint, and end, whose
    /// content is the summary, or error. Those of a pipeline's stages name the stage; its last line is the end of the pipeline.
    #[arg(long)]
    json: bool,
    /// Draw the curve of this metric on a terminal, instead of that of the loss.
    #[arg(long, value_name = "METRIC", conflicts_with = "json")]
    watch: Option<String>,
    /// Explain every key of an experiment and exit.
    #[arg(long)]
    help_keys: bool,
}

/// The request of `telos run`.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRequest {
    /// The experiment's file.
    pub file: PathBuf,
    /// Overrides in order, including `--name`.
    pub overrides: Vec<Override>,
    /// Whether to continue an existing run.
    pub resume: bool,
    /// Whether to accept rows that were corrected since the run began.
    pub fixed_rows: bool,
    /// Which stages of a pipeline.
    pub selection: Selection,
    /// The number of seeds of a study, instead of those of its file.
    pub seeds: Option<u64>,
    /// Runs of a study at the same time; `None`: one.
    pub jobs: Option<u64>,
    /// The step after which an experiment pauses.
    pub pause_after: Option<u64>,
    /// Metrics that an experiment must report, each with the key of a study that names it.
    pub compared_by: Vec<(String, String)>,
    /// Where to look for plugins.
    pub plugin_folders: Vec<PathBuf>,
    /// What to do about changed plugins.
    pub pinning: Pinning,
    /// Whether to train objectives that fail a law on the first batch.
    pub unproved: bool,
    /// Whether events and the summary are printed as JSON.
    pub json: bool,
    /// The metric whose curve is drawn on a terminal.
    pub watch: Option<String>,
}

fn compared(text: &str) -> Result<(String, String), String> {
    let (key, metric) = text.split_once('=').ok_or_else(|| "expected KEY=METRIC".to_owned())?;
    Ok((key.to_owned(), metric.to_owned()))
}

pub(in crate::cli) fn execute(args: Run, plugin_folders: Vec<PathBuf>) -> Result<()> {
    if args.help_keys {
        return print::out(&schema::reference());
    }
    perform(args.request(plugin_folders)?)
}

impl Run {
    /// Whether only an explanation is printed and nothing runs.
    pub(in crate::cli) fn only_explains(&self) -> bool {
        self.help_keys
    }

    pub(in crate::cli) fn request(self, plugin_folders: Vec<PathBuf>) -> Result<RunRequest> {
        let file = self
            .file
            .ok_or_else(|| Error::request("the file of the experiment is missing").with_hint("telos run FILE"))?;
        let mut overrides = self.set;
        overrides.extend(self.name.map(|name| Override::text("--name", "name", &name)));
        let selection = match (self.from, self.only) {
            (Some(stage), _) => Selection::From(stage),
            (None, Some(stage)) => Selection::Only(stage),
            (None, None) => Selection::All,
        };
        let pinning = match (self.update_lock, self.dev) {
            (_, true) => Pinning::Ignore,
            (true, false) => Pinning::Update,
            (false, false) => Pinning::Strict,
        };
        let Self { resume, fixed_rows, seeds, jobs, pause_after, compared_by, unproved, json, watch, .. } = self;
        Ok(RunRequest {
            file,
            overrides,
            resume,
            fixed_rows,
            selection,
            seeds,
            jobs,
            pause_after,
            compared_by,
            plugin_folders,
            pinning,
            unproved,
            json,
            watch,
        })
    }
}

/// Runs the experiment or pipeline and prints its summary.
fn perform(request: RunRequest) -> Result<()> {
    let interrupt = Interrupt::listen(|text| print::err(&format!("\n{text}\n")))?;
    // With this, a file that may not grow (`ulimit -f`) is an error like a full disk, and does not end the process.
    signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)))
        .map_err(|cause| Error::run("cannot listen for signals").with_cause(cause))?;
    let plan = Plan::read(&request.file, &request.overrides, request.seeds)?;
    request.check_options(&plan)?;
    match plan {
        Plan::Experiment(draft) => run_one(*draft, &request, &interrupt),
        Plan::Pipeline(all) => run_stages(&all, request, &interrupt),
        Plan::Study(all) => run_study(&all, request, &interrupt),
    }
}

impl RunRequest {
    /// Refuses options that have no effect for this kind of file.
    fn check_options(&self, plan: &Plan) -> Result<()> {
        let (kind, is_study) = match plan {
            Plan::Experiment(_) => ("an experiment without stages, not a pipeline", false),
            Plan::Pipeline(_) => ("a pipeline", false),
            Plan::Study(_) => ("a study", true),
        };
        let refuse =
            |hint: &str| Err(Error::request(format!("{} is {kind}", self.file.display())).with_hint(hint.to_owned()));
        if self.selection != Selection::All && !matches!(plan, Plan::Pipeline(_)) {
            return refuse("--from and --only are for pipelines");
        }
        if self.jobs.is_some() && !is_study {
            return refuse("--jobs is for studies: a file with [sweep], or --seeds N");
        }
        if self.watch.is_some() && is_study {
            return refuse("--watch is for a run or pipeline: each run of a study is a process of its own");
        }
        if self.pause_after.is_some() && !matches!(plan, Plan::Experiment(_)) {
            return refuse("--pause-after is for single experiments");
        }
        Ok(())
    }
}

fn watch(request: &RunRequest) -> Watch {
    if !request.json {
        return Watch { metric: request.watch.clone(), ..Show::Auto.into() };
    }
    let print = |event: &Map<String, Value>| {
        // A failure to print must not end the run.
        _ = print::json(event);
    };
    Watch { events: Events::new(print), ..Show::Quiet.into() }
}

fn run_one(draft: Draft, request: &RunRequest, interrupt: &Interrupt) -> Result<()> {
    if let Some(folder) = draft.run_folder().filter(|_| request.resume) {
        pin_commits(&folder);
    }
    let mut setup = open_draft(draft, &request.plugin_folders, request.pinning)?;
    setup.accept_unproved = request.unproved;
    setup.accepts_fixed_rows = request.fixed_rows;
    setup.pause_after = request.pause_after;
    setup.compared_by.clone_from(&request.compared_by);
    let watch = watch(request);
    let mut trainer = Trainer::new(setup, request.resume, &watch)?;
    if let Some(text) = trainer.ended() {
        print::err(&format!("{text}\n"));
        return print_end(&trainer.finished(), &watch, request.json);
    }
    let outcome = trainer.run(interrupt);
    let folder = trainer.finished().folder;
    // Frees the model: the report needs memory too.
    drop(trainer);
    let (end, summary) = outcome.inspect_err(|_| write_report(&folder, request.json))?;
    if !request.json {
        print::result(&summary, false)?;
    }
    write_report(&folder, request.json);
    if end == End::Interrupted {
        return Err(Error::interrupted(format!(
            "stopped after step {}, saved as {}",
            summary.steps, summary.checkpoint
        ))
        .with_hint("continue with the same command and --resume"));
    }
    Ok(())
}

/// Prints the last result of a command: as text, or as its last event.
fn print_end<T: fmt::Display + Serialize>(summary: &T, watch: &Watch, json: bool) -> Result<()> {
    if json {
        watch.events.emit("end", summary);
        return Ok(());
    }
    print::result(summary, false)
}

fn run_stages(all: &Pipeline, request: RunRequest, interrupt: &Interrupt) -> Result<()> {
    let (watch, json) = (watch(&request), request.json);
    let RunRequest { selection, resume, fixed_rows, plugin_folders, pinning, unproved, .. } = request;
    let options = pipeline::Options {
        selection,
        resume,
        fixed_rows,
        plugin_folders,
        pinning,
        unproved,
        watch,
        again: pipeline::RESUME,
    };
    let (summary, stopped) = pipeline::run(all, &options, interrupt, &mut |event| match event {
        Event::Note(text) => {
            print::err(&format!("{text}\n"));
            Ok(())
        }
        Event::Stage(_) if json => Ok(()),
        Event::Stage(summary) => print::result(summary, false),
    })
    .inspect_err(|_| write_report(&all.folder(), json))?;
    print_end(&summary, &options.watch, json)?;
    write_report(&summary.folder, json);
    stopped.map_or(Ok(()), Err)
}

fn run_study(all: &Study, request: RunRequest, interrupt: &Interrupt) -> Result<()> {
    let RunRequest { resume, fixed_rows, jobs, plugin_folders, pinning, unproved, json, .. } = request;
    let jobs = jobs.map_or(1, |jobs| usize::try_from(jobs).unwrap_or(usize::MAX));
    let options = study::Options { resume, jobs, fixed_rows, plugin_folders, pinning, unproved };
    let (record, stopped) = study::run(all, &options, interrupt, &|text| print::err(&format!("{text}\n")))?;
    print::result(&record, json)?;
    write_report(&record.folder, json);
    stopped.map_or(Ok(()), Err)
}

/// Writes the report of a run, pipeline or study into its folder and prints the path. A run whose report cannot be written has not failed.
fn write_report(folder: &Path, json: bool) {
    // A run that failed before its first step leaves nothing.
    if !is_run(folder) && !folder.join(PIPELINE_FILE).is_file() && !StudyFile::is_in(folder) {
        return;
    }
    let path = folder.join(REPORT_FILE);
    let free = check_own("report", &path, "a page of telos report", is_report);
    let report = free.and_then(|()| Report::read(&[folder.to_owned()]));
    let written = report.and_then(|report| page::write(&report, &path));
    match written {
        Ok(()) if json => {}
        Ok(()) => _ = print::out(&format!("report {}\n", path.display())),
        Err(error) => print::err(&format!("note: no report was written: {}\n", error.message())),
    }
}
