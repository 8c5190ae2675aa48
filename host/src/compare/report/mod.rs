//! The results of a comparison, as the values written to JSON; [`tables`] prints them as text, [`plot`] draws the losses, [`page`]
//! writes both as HTML.

pub mod page;
pub mod plot;
pub mod tables;

use std::path::PathBuf;

use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    agreement::{Agreement, Curve},
    backend_run::{Entry, Failure, FinishedRun},
    cuts::Cuts,
    noise_floor::NoiseFloor,
    peak::Peak,
    replay::Replay,
    rounds::Measured,
    spec::Spec,
    stats::Spread,
};
use crate::{
    config::experiment,
    device::{open::threads, profile::Cost},
};

/// A whole comparison.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Comparison {
    /// The experiment's name.
    pub name: String,
    /// Steps compared.
    pub steps: u64,
    /// Rounds in which they were timed, after one warm-up step.
    pub rounds: u64,
    /// Parameters of the model.
    pub parameters: u64,
    /// The backends in the order in which they were named; each is compared with the first one that has done a step.
    pub backends: Vec<BackendReport>,
    /// The noise floor: what moving one weight changes.
    #[serde(rename = "yardstick")]
    pub noise_floor: Option<NoiseFloor>,
    /// Work that was left out because a backend ended the process in it: `BACKEND: WORK`.
    pub ended: Vec<String>,
    /// The plot's file.
    pub plot: Option<PathBuf>,
    /// The page's file.
    pub page: Option<PathBuf>,
}

/// One backend.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct BackendReport {
    /// Its spec on the command line.
    pub backend: String,
    /// Id of the plugin.
    pub plugin: String,
    /// Its version; empty if the backend ended the process, like the next field.
    pub version: String,
    /// sha256 of its file.
    pub sha256: String,
    /// Device.
    pub device: String,
    /// Compute type.
    pub dtype: String,
    /// Threads.
    pub threads: usize,
    /// The plugin's options, with every default filled in; none if the backend ended the process.
    pub options: Map<String, Value>,
    /// Where it failed.
    pub failure: Option<Failure>,
    /// Positions of a step, on average.
    pub tokens_per_step: Option<f64>,
    /// Positions per second, by round, without timing the operations.
    pub tokens_per_second: Option<Spread>,
    /// Whether these are the speeds of whole rollouts: sampling, and the steps that learn from the answers. `None`: nothing is sampled.
    pub whole_rollouts: Option<bool>,
    /// Median seconds per step.
    pub seconds_per_step: Option<f64>,
    /// Floating-point operations of all products, in 1e9 per second, at the median speed.
    pub gflops: Option<f64>,
    /// Speed of the fastest product, in 1e9 operations per second.
    pub peak_gflops: Option<f64>,
    /// That product: its operation, its size and the compute type. Or else the operation of a step, or the step, that was faster
    /// than every product; or why no peak was measured.
    pub peak_product: Option<String>,
    /// Speed of a step as a share of that peak.
    pub share_of_peak: Option<f64>,
    /// Most bytes in live buffers.
    pub memory_peak_bytes: u64,
    /// Operations by name, the most expensive first, from separate steps in which each operation is waited for.
    pub operations: Vec<Operation>,
    /// Share of those steps' time outside operations: the host, the objective, transfers.
    pub outside_share: Option<f64>,
    /// Loss and gradient norm by step.
    pub curve: Curve,
    /// Comparison with the first backend that has done a step; `None` for that one.
    pub agreement: Option<Agreement>,
    /// The first step, counted from 1, on another batch than that of the backend it is compared with, because other answers were
    /// sampled. From there on nothing is compared.
    pub other_batch: Option<u64>,
    /// A step replayed on the reference.
    pub replay: Option<Replay>,
    /// The first window cut into different numbers of micro-batches.
    pub cuts: Option<Cuts>,
}

/// The cost of an operation in a step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Operation {
    /// Its name.
    pub name: &'static str,
    /// Calls per step.
    pub calls: f64,
    /// Seconds per step.
    pub seconds: f64,
    /// Share of the step's time.
    pub share: f64,
    /// Floating-point operations per second, in 1e9; `None` if it contains no product.
    pub gflops: Option<f64>,
    /// Share of the measured peak.
    pub share_of_peak: Option<f64>,
}

impl BackendReport {
    /// The report of a backend that ended the process: its plugin is not opened again.
    pub(super) fn dead(spec: &Spec, label: String, written: &experiment::Backend, failure: &Failure) -> BackendReport {
        let (device, dtype) = spec.device_and_dtype(written);
        BackendReport {
            backend: label,
            plugin: spec.plugin().to_owned(),
            device,
            dtype,
            threads: threads(spec.threads().unwrap_or(written.threads)),
            failure: Some(failure.clone()),
            ..BackendReport::default()
        }
    }

    /// A report without what is compared with other backends, replayed or cut.
    pub(super) fn new(entry: &Entry, run: FinishedRun, measured: Measured) -> BackendReport {
        let own = &entry.setup.experiment().backend;
        let used = entry.setup.plugins.first();
        let speed = Spread::of(measured.tokens_per_second.clone());
        let steps = run.curve.loss.len();
        let tokens_per_step = (steps > 0).then(|| run.tokens as f64 / steps as f64);
        let seconds = speed.as_ref().zip(tokens_per_step).map(|(speed, tokens)| tokens / speed.median);
        let profiled = measured.profiled_seconds;
        let inside = measured.costs.values().map(|cost| cost.nanoseconds as f64 / 1e9).sum::<f64>();
        let flops = measured.costs.values().map(|cost| cost.flops).sum::<f64>();
        let flops_per_token = (profiled > 0.0).then(|| flops / measured.profiled_tokens.max(1) as f64);
        let gflops = speed.as_ref().zip(flops_per_token).map(|(speed, flops)| flops * speed.median / 1e9);
        let peak = peak(&measured, gflops);
        let peak_gflops = peak.as_ref().map(|peak| peak.flops / 1e9);
        BackendReport {
            backend: entry.label.clone(),
            plugin: own.plugin.clone(),
            version: used.map_or_else(String::new, |plugin| plugin.version.clone()),
            sha256: used.map_or_else(String::new, |plugin| plugin.sha256.clone()),
            device: own.device.clone(),
            dtype: entry.dtype().to_string(),
            threads: threads(own.threads),
            options: own.options.clone(),
            failure: run.failure,
            tokens_per_step,
            tokens_per_second: speed,
            whole_rollouts: measured.whole_rollouts,
            seconds_per_step: seconds,
            gflops,
            peak_gflops,
            peak_product: peak.map(|peak| peak.product),
            share_of_peak: gflops.zip(peak_gflops).map(|(step, peak)| step / peak),
            memory_peak_bytes: measured.memory_peak,
            operations: operations(&measured, peak_gflops),
            outside_share: (profiled > 0.0).then(|| (1.0 - inside / profiled).max(0.0)),
            curve: run.curve,
            agreement: None,
            other_batch: None,
            replay: None,
            cuts: None,
        }
    }
}

/// The highest speed that was seen: that of the measured products, or else of an operation of a step, or of a whole step.
fn peak(measured: &Measured, gflops_of_step: Option<f64>) -> Option<Peak> {
    let rate = |cost: &Cost| cost.flops * 1e9 / cost.nanoseconds.max(1) as f64;
    let costs = measured.costs.iter();
    let operations = costs.map(|(name, cost)| Peak { flops: rate(cost), product: format!("{name} of a step") });
    let step = gflops_of_step.map(|gflops| Peak { flops: gflops * 1e9, product: "a whole step".into() });
    let measured = measured.peak.clone()?;
    Some(operations.chain(step).fold(measured, Peak::faster))
}

/// Costs per step, the most expensive first.
fn operations(measured: &Measured, peak_gflops: Option<f64>) -> Vec<Operation> {
    let steps = measured.profiled_steps.max(1) as f64;
    let one = |(name, cost): (&&'static str, &Cost)| {
        let seconds = cost.nanoseconds as f64 / 1e9;
        let gflops = (cost.flops > 0.0 && seconds > 0.0).then(|| cost.flops / seconds / 1e9);
        Operation {
            name,
            calls: cost.calls as f64 / steps,
            seconds: seconds / steps,
            share: seconds / measured.profiled_seconds,
            gflops,
            share_of_peak: gflops.zip(peak_gflops).map(|(own, peak)| own / peak),
        }
    };
    // A backend that failed here has completed no step to divide by.
    if measured.profiled_seconds == 0.0 {
        return Vec::new();
    }
    let mut all: Vec<Operation> = measured.costs.iter().map(one).collect();
    all.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    all
}
