//! Runs the same experiment on several backends and compares speed, operations, memory and results.
//!
//! | file | job |
//! |---|---|
//! | [`spec`] | the notation of a backend on the command line |
//! | [`compared_experiment`](mod@compared_experiment) | the experiment with its own `[backend]`, before a compared backend replaces it |
//! | [`backend_run`] | the run of one backend |
//! | [`deaths`] | backends that ended the process |
//! | [`rollout_times`] | the speed of rollouts |
//! | [`rounds`] | running the backends in turns, and timing |
//! | [`peak`] | the highest speed of a backend's matrix product |
//! | [`agreement`] | differences by step, and the tolerance |
//! | [`cuts`] | the first window cut into different numbers of micro-batches |
//! | [`noise_floor`] | the noise floor: a backend's difference from itself with one weight moved |
//! | [`replay`] | one step in which the reference repeats every operation |
//! | [`report`] | the results as values for JSON, as text tables, as a page, and the losses as SVG |
//!
//! Every backend starts from the same bits, sees the same batches and does the same steps as a run
//! (`train::learner`). Nothing is written except the plot and the page.

pub mod agreement;
pub mod backend_run;
pub mod compared_experiment;
pub mod cuts;
pub mod deaths;
pub mod noise_floor;
pub mod peak;
pub mod replay;
pub mod report;
pub mod rollout_times;
pub mod rounds;
pub mod spec;
pub mod stats;

use std::path::PathBuf;

use crate::{
    config::{Draft, Override},
    data::TrainingData,
    error::{Error, Result},
    runs::{Progress, breadcrumb},
};
use agreement::{Agreement, Tolerance};
use backend_run::{BackendRun, Entry, Failure, FinishedRun};
use compared_experiment::ComparedExperiment;
use cuts::Cuts;
use deaths::{
    Death,
    mark::{Mark, Work},
};
use noise_floor::NoiseFloor;
use plugin_api_load::Library;
use replay::{REFERENCE, Replay};
use report::{BackendReport, Comparison};
use spec::Spec;

/// What to compare.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The experiment's file.
    pub file: PathBuf,
    /// Overrides in order.
    pub overrides: Vec<Override>,
    /// Where to look for plugins.
    pub plugin_folders: Vec<PathBuf>,
    /// The backends; each is compared with the first one that completes a step.
    pub backends: Vec<Spec>,
    /// Steps compared; at least 2.
    pub steps: u64,
    /// Rounds that the timed steps are divided into; at least 1.
    pub rounds: u64,
    /// Whether to measure the noise floor, and on which backend: the first if none is named.
    pub noise_floor: Option<Option<Spec>>,
    /// Numbers of micro-batches into which the first window is cut; none: not measured.
    pub cuts: Vec<usize>,
    /// Whether to replay a step with the reference backend.
    pub replay: bool,
    /// What ended earlier processes; it is not done again, and the failure is reported.
    pub deaths: Vec<Death>,
}

impl Request {
    /// How an earlier process was ended by this backend in this work.
    fn death(&self, backend: Option<usize>, work: Work) -> Option<&Failure> {
        self.deaths.iter().find(|death| death.is(backend, work)).map(|death| &death.failure)
    }

    fn label(&self, backend: usize) -> String {
        spec::label(&self.backends, backend)
    }

    /// The works that are left out because a backend ended the process in them.
    fn ended(&self) -> Vec<String> {
        let one = |death: &Death| {
            let of = death.backend.map_or_else(String::new, |index| format!("{}: ", self.label(index)));
            (death.work != Work::Steps).then(|| format!("{of}{}", death.work.noun()))
        };
        self.deaths.iter().filter_map(one).collect()
    }
}

/// Each session tags its handles. Compared backends have the tags 1, 2, 3 ...; later sessions (noise floor, replay) start here.
const LATER_TAGS: u16 = 0x1000;

/// The tags of the sessions in which the first window is cut start here.
const CUT_TAGS: u16 = 0x2000;

/// Runs the comparison. A backend that fails is reported, and the others continue.
///
/// # Errors
/// Request errors, before anything runs.
pub fn compare(request: &Request, progress: &Progress) -> Result<Comparison> {
    if request.backends.is_empty() {
        return Err(Error::request("no backend is named").with_hint("--backends candle"));
    }
    let experiment = compared_experiment(request)?;
    let entries = entries(request, &experiment)?;
    let pair = request.noise_floor.as_ref().map(|spec| noise_floor_run(spec.as_ref(), request, &experiment));
    let pair = pair.transpose()?;
    breadcrumb::part(0);
    // If every compared backend has ended a process, the noise floor's may still run.
    let of_noise_floor = pair.as_ref().and_then(NoiseFloorRun::entry);
    let Some(first) = entries.first().or(of_noise_floor) else {
        let noise_floor = pair.and_then(NoiseFloorRun::failed);
        return Ok(Comparison { noise_floor, ..comparison(request, &experiment, Vec::new()) });
    };
    let data = first.setup.data(false)?;
    let mut runs = open(request, &entries, &data)?;
    let parameters = runs.iter().find_map(|run| run.learner().map(|l| l.model.layout().count()));

    let measured = rounds::run(&mut runs, request.steps, request.rounds, progress);
    // The sessions end here: what follows opens its own.
    let runs: Vec<FinishedRun> = runs.into_iter().map(FinishedRun::from).collect();
    let agreements = agreements(&entries, &runs);
    let noise_floor =
        pair.map(|pair| measure_noise_floor(&pair, request, &entries, &runs, &data, progress)).transpose()?;
    let replays = replays(request, &entries, &runs, &agreements, &data, progress);
    let cuts = cuts_of(request, &entries, &runs, &data, progress);
    breadcrumb::part(0);

    let other_batches = other_batches(&runs);
    let reports = entries.iter().zip(runs).zip(measured).zip(agreements).zip(replays).zip(cuts).zip(other_batches);
    let reports = reports.map(|((((((entry, run), measured), agreement), replay), cuts), other_batch)| {
        let mut report = BackendReport::new(entry, run, measured);
        if let Some(failure) = request.death(entry.mark.backend, Work::Peak) {
            report.peak_product = Some(format!("not measured: {}", failure.message));
        }
        BackendReport { agreement, other_batch, replay, cuts, ..report }
    });
    let reports = reports.collect();
    Ok(Comparison { parameters: parameters.unwrap_or(0), noise_floor, ..comparison(request, &experiment, reports) })
}

/// The comparison of all backends in their order: `reports` are those of the backends that ran.
fn comparison(request: &Request, experiment: &ComparedExperiment<'_>, reports: Vec<BackendReport>) -> Comparison {
    let mut reports = reports.into_iter();
    let one = |(index, spec): (usize, &Spec)| match request.death(Some(index), Work::Steps) {
        Some(failure) => Some(BackendReport::dead(spec, request.label(index), &experiment.backend, failure)),
        None => reports.next(),
    };
    Comparison {
        name: experiment.name.clone(),
        steps: request.steps,
        rounds: request.rounds.min(request.steps - 1),
        ended: request.ended(),
        backends: request.backends.iter().enumerate().filter_map(one).collect(),
        ..Comparison::default()
    }
}

fn compared_experiment(request: &Request) -> Result<ComparedExperiment<'_>> {
    let draft = Draft::read(&request.file, &request.overrides)?;
    let (Some(backend), Some(name)) = (draft.backend().cloned(), draft.name().map(str::to_owned)) else {
        return Err(draft.finish().err().unwrap_or_else(|| Error::request("the experiment cannot be read")));
    };
    let Request { file, overrides, plugin_folders, .. } = request;
    Ok(ComparedExperiment { name, file, overrides, plugin_folders, backend })
}

/// Checks every backend before the first one opens a device; those that ended an earlier process are left out.
fn entries(request: &Request, experiment: &ComparedExperiment<'_>) -> Result<Vec<Entry>> {
    let alive = |(index, _): &(usize, &Spec)| request.death(Some(*index), Work::Steps).is_none();
    let entry = |(index, spec): (usize, &Spec)| {
        Entry::new(spec, Mark::new(spec, Some(index), Work::Steps), request.label(index), experiment)
    };
    request.backends.iter().enumerate().filter(alive).map(entry).collect()
}

fn open(request: &Request, entries: &[Entry], data: &TrainingData) -> Result<Vec<BackendRun>> {
    let one = |(tag, entry): (u16, &Entry)| {
        let measures_peak = request.death(entry.mark.backend, Work::Peak).is_none();
        let mut run = BackendRun::open(entry, tag, data)?;
        run.measures_peak = measures_peak;
        Ok(run)
    };
    (1_u16..).zip(entries).map(one).collect()
}

/// The first step of each backend on another batch than that of the first one that has done a step.
fn other_batches(runs: &[FinishedRun]) -> Vec<Option<u64>> {
    let base = runs.iter().find(|run| !run.curve.loss.is_empty());
    runs.iter().map(|run| base.and_then(|base| base.curve.other_batch(&run.curve))).collect()
}

/// Each backend compared with the first one that has done a step; `None` for that one, and if they have no batch in common.
fn agreements(entries: &[Entry], runs: &[FinishedRun]) -> Vec<Option<Agreement>> {
    let Some(base) = runs.iter().position(|run| !run.curve.loss.is_empty()) else {
        return runs.iter().map(|_| None).collect();
    };
    let compared = |index: usize| {
        let tolerance = Tolerance::of(entries[base].dtype(), entries[index].dtype());
        Agreement::of(&entries[base].label, &runs[base].curve, &runs[index].curve, tolerance)
    };
    (0..runs.len()).map(|index| if index == base { None } else { compared(index) }).collect()
}

/// The run that measures the noise floor.
enum NoiseFloorRun {
    /// On this backend.
    Of(Box<Entry>),
    /// Not done, because it ended an earlier process.
    Failed(NoiseFloor),
}

impl NoiseFloorRun {
    fn entry(&self) -> Option<&Entry> {
        match self {
            NoiseFloorRun::Of(entry) => Some(entry),
            NoiseFloorRun::Failed(_) => None,
        }
    }

    fn failed(self) -> Option<NoiseFloor> {
        match self {
            NoiseFloorRun::Of(_) => None,
            NoiseFloorRun::Failed(failed) => Some(failed),
        }
    }
}

fn noise_floor_run(
    spec: Option<&Spec>,
    request: &Request,
    experiment: &ComparedExperiment<'_>,
) -> Result<NoiseFloorRun> {
    let spec = spec.or(request.backends.first()).ok_or_else(|| Error::request("no backend is named"))?;
    let index = request.backends.iter().position(|other| other == spec);
    match request.death(index, Work::Steps).or(request.death(index, Work::Yardstick)) {
        Some(failure) => Ok(NoiseFloorRun::Failed(NoiseFloor::failed(spec.to_string(), failure.clone()))),
        None => {
            let mark = Mark::new(spec, index, Work::Yardstick);
            Ok(NoiseFloorRun::Of(Box::new(Entry::new(spec, mark, spec.to_string(), experiment)?)))
        }
    }
}

fn measure_noise_floor(
    run: &NoiseFloorRun,
    request: &Request,
    entries: &[Entry],
    runs: &[FinishedRun],
    data: &TrainingData,
    progress: &Progress,
) -> Result<NoiseFloor> {
    let entry = match run {
        NoiseFloorRun::Of(entry) => entry,
        NoiseFloorRun::Failed(failed) => return Ok(failed.clone()),
    };
    progress.message(&format!("yardstick: {} with one weight moved", entry.label));
    let is_same = |(other, _): &(&Entry, &FinishedRun)| entry.mark.backend == other.mark.backend;
    let known = entries.iter().zip(runs).find(is_same).map(|(_, run)| &run.curve);
    noise_floor::measure(entry, known, request.steps, data, LATER_TAGS)
}

/// Replays, for each backend, the first step whose difference exceeds the tolerance, or step 1 if there is none.
/// For the backend that the others are compared with, replays the earliest of those steps.
fn replays(
    request: &Request,
    entries: &[Entry],
    runs: &[FinishedRun],
    agreements: &[Option<Agreement>],
    data: &TrainingData,
    progress: &Progress,
) -> Vec<Option<Replay>> {
    if !request.replay {
        return entries.iter().map(|_| None).collect();
    }
    let beyond = |agreement: &Option<Agreement>| agreement.as_ref().and_then(|a| a.first_beyond);
    let earliest = agreements.iter().filter_map(beyond).min();
    let reference = entries.first().map(replay::library);
    let mut replays = Vec::new();
    for (index, (entry, run)) in entries.iter().zip(runs).enumerate() {
        let own = if agreements[index].is_some() { beyond(&agreements[index]) } else { earliest };
        let step = own.unwrap_or(1);
        let one = match &reference {
            _ if entry.setup.experiment().backend.plugin == REFERENCE => Replay::skipped(step, "it is the reference"),
            _ if run.failure.is_some() => Replay::skipped(step, "the backend failed"),
            _ if let Some(failure) = request.death(entry.mark.backend, Work::Replay) => {
                Replay::skipped(step, &failure.message)
            }
            None => Replay::skipped(step, "no backend"),
            Some(Err(error)) => Replay::skipped(step, backend_run::one_line(error)),
            Some(Ok(library)) => one_replay(entry, library, step, data, index, progress),
        };
        replays.push(Some(one));
    }
    replays
}

/// Cuts the first window, for each backend that has not failed.
fn cuts_of(
    request: &Request,
    entries: &[Entry],
    runs: &[FinishedRun],
    data: &TrainingData,
    progress: &Progress,
) -> Vec<Option<Cuts>> {
    let one = |(index, (entry, run)): (usize, (&Entry, &FinishedRun))| {
        if request.cuts.is_empty() || run.failure.is_some() {
            return None;
        }
        if let Some(failure) = request.death(entry.mark.backend, Work::Cuts) {
            let tolerance = Tolerance::of(entry.dtype(), entry.dtype());
            return Some(Cuts::failed(failure.message.clone(), tolerance));
        }
        progress.message(&format!("cutting the first window of {}", entry.label));
        Some(cuts::measure(entry, &request.cuts, data, CUT_TAGS + index as u16))
    };
    entries.iter().zip(runs).enumerate().map(one).collect()
}

fn one_replay(
    entry: &Entry,
    library: &Library,
    step: u64,
    data: &TrainingData,
    index: usize,
    progress: &Progress,
) -> Replay {
    progress.message(&format!("replaying step {step} of {} against the reference", entry.label));
    replay::replay(entry, library, step, data, LATER_TAGS + 2 + 2 * index as u16)
}
