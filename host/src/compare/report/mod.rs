//! What a comparison found, as the values behind the JSON; [`tables`] shows them to people, [`plot`] draws the losses.

pub mod plot;
pub mod tables;

use std::path::PathBuf;

use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    agreement::{Agreement, Curve},
    lane::{Done, Entry, Failure},
    replay::Replay,
    rounds::{Measured, PROFILED},
    stats::Spread,
    yardstick::Yardstick,
};
use crate::device::{open::threads, profile::Cost};

/// A whole comparison.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The experiment's name.
    pub name: String,
    /// Steps compared.
    pub steps: u64,
    /// Rounds they were timed in, after one step of warm-up.
    pub rounds: u64,
    /// Parameters of the model.
    pub parameters: u64,
    /// The backends, the one that the others are held against first.
    pub backends: Vec<BackendReport>,
    /// What one moved weight does.
    pub yardstick: Option<Yardstick>,
    /// The plot's file.
    pub plot: Option<PathBuf>,
}

/// One backend.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BackendReport {
    /// As the command line names it.
    pub backend: String,
    /// Id of the plugin.
    pub plugin: String,
    /// Its version.
    pub version: String,
    /// Its bytes.
    pub sha256: String,
    /// Device.
    pub device: String,
    /// Compute type.
    pub dtype: String,
    /// Threads.
    pub threads: usize,
    /// The plugin's options, complete.
    pub options: Map<String, Value>,
    /// Where it failed.
    pub failure: Option<Failure>,
    /// Positions of a step, on average.
    pub tokens_per_step: Option<f64>,
    /// Positions a second by round, operations not timed.
    pub tokens_per_second: Option<Spread>,
    /// Seconds of a step at the median.
    pub seconds_per_step: Option<f64>,
    /// Floating-point operations of all products, in 1e9 a second at the median speed.
    pub gflops: Option<f64>,
    /// What a large product reaches, in 1e9 operations a second.
    pub peak_gflops: Option<f64>,
    /// The step's share of that.
    pub share_of_peak: Option<f64>,
    /// Most bytes in live buffers.
    pub memory_peak_bytes: u64,
    /// Operations by name, the dearest first, from steps of their own: each is waited for.
    pub operations: Vec<Operation>,
    /// Share of those steps that is no operation: the host, the objective, transfers.
    pub outside_share: Option<f64>,
    /// Loss and gradient norm by step.
    pub curve: Curve,
    /// Held against the first backend; none for that one.
    pub agreement: Option<Agreement>,
    /// A step replayed against the reference.
    pub replay: Option<Replay>,
}

/// What an operation costs in a step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Operation {
    /// Its name.
    pub name: &'static str,
    /// Calls a step.
    pub calls: f64,
    /// Seconds a step.
    pub seconds: f64,
    /// Share of the step.
    pub share: f64,
    /// Operations a second in 1e9; none where it holds no product.
    pub gflops: Option<f64>,
    /// Share of the measured peak.
    pub share_of_peak: Option<f64>,
}

impl BackendReport {
    pub(super) fn new(
        entry: &Entry,
        lane: Done,
        measured: Measured,
        agreement: Option<Agreement>,
        replay: Option<Replay>,
    ) -> BackendReport {
        let own = &entry.setup.experiment().backend;
        let used = entry.setup.plugins.first();
        let speed = Spread::of(measured.tokens_per_second.clone());
        let steps = lane.curve.loss.len();
        let tokens_per_step = (steps > 0).then(|| lane.tokens as f64 / steps as f64);
        let seconds = speed.as_ref().zip(tokens_per_step).map(|(speed, tokens)| tokens / speed.median);
        let profiled = measured.profiled_seconds;
        let inside = measured.costs.values().map(|cost| cost.nanoseconds as f64 / 1e9).sum::<f64>();
        let flops = measured.costs.values().map(|cost| cost.flops).sum::<f64>();
        let flops_per_token = (profiled > 0.0).then(|| flops / measured.profiled_tokens.max(1) as f64);
        let gflops = speed.as_ref().zip(flops_per_token).map(|(speed, flops)| flops * speed.median / 1e9);
        let peak_gflops = measured.peak.map(|peak| peak / 1e9);
        BackendReport {
            backend: entry.label.clone(),
            plugin: own.plugin.clone(),
            version: used.map_or_else(String::new, |plugin| plugin.version.clone()),
            sha256: used.map_or_else(String::new, |plugin| plugin.sha256.clone()),
            device: own.device.clone(),
            dtype: entry.dtype().to_string(),
            threads: threads(own.threads),
            options: own.options.clone(),
            failure: lane.failure,
            tokens_per_step,
            tokens_per_second: speed,
            seconds_per_step: seconds,
            gflops,
            peak_gflops,
            share_of_peak: gflops.zip(peak_gflops).map(|(step, peak)| step / peak),
            memory_peak_bytes: measured.memory_peak,
            operations: operations(&measured, peak_gflops),
            outside_share: (profiled > 0.0).then(|| (1.0 - inside / profiled).max(0.0)),
            curve: lane.curve,
            agreement,
            replay,
        }
    }
}

/// Costs a step, the dearest first.
fn operations(measured: &Measured, peak_gflops: Option<f64>) -> Vec<Operation> {
    let steps = PROFILED as f64;
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
    // A backend that failed here has no whole step to divide by.
    if measured.profiled_seconds == 0.0 {
        return Vec::new();
    }
    let mut all: Vec<Operation> = measured.costs.iter().map(one).collect();
    all.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    all
}
