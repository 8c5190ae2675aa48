//! `telos plot`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cli::{out::check_drawing, print};
use crate::error::Result;
use crate::plot;
use crate::report::{
    Report,
    figure::{self, Axis, Request},
};

/// Draw one metric of several runs into an SVG or PNG file, for a paper or a slide.
///
/// Runs that differ only in their seed become one curve: the mean, in a band of one standard deviation on each side. All other runs
/// have a curve each, named by the options in which they differ.
#[derive(Debug, Args)]
pub struct PlotArgs {
    /// Folders of runs or pipelines; of a pipeline, the stages that have the metric are drawn.
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The metric, as in metrics.jsonl: loss, eval/loss, reward/model; or tokens_per_s.
    #[arg(long, value_name = "NAME", default_value = "loss")]
    metric: String,
    /// The horizontal axis.
    #[arg(long, value_enum, default_value_t = AxisArg::Step)]
    axis: AxisArg,
    /// Weight of the past in an exponential moving average; 0 draws the values themselves.
    #[arg(long, value_name = "S", default_value_t = 0.0, value_parser = smoothing)]
    smooth: f64,
    /// Only this stage of pipelines.
    #[arg(long, value_name = "STAGE")]
    stage: Option<String>,
    /// The file to write; its ending, .svg or .png, decides the format [default: METRIC.svg, with - for /].
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// What the horizontal axis counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AxisArg {
    /// Optimizer steps.
    Step,
    /// Tokens trained on.
    Tokens,
    /// Seconds of steps and evaluations.
    Seconds,
    /// Estimated floating-point operations of training.
    Flops,
}

fn smoothing(text: &str) -> Result<f64, String> {
    let valid = text.parse().ok().filter(|number| (0.0..1.0).contains(number));
    valid.ok_or_else(|| "expected a number from 0 to below 1".to_owned())
}

pub(in crate::cli) fn execute(args: PlotArgs) -> Result<()> {
    let PlotArgs { runs, metric, axis, smooth, stage, out } = args;
    let path = out.unwrap_or_else(|| PathBuf::from(format!("{}.svg", metric.replace('/', "-"))));
    check_drawing("--out", &path)?;
    let axis = match axis {
        AxisArg::Step => Axis::Step,
        AxisArg::Tokens => Axis::Tokens,
        AxisArg::Seconds => Axis::Seconds,
        AxisArg::Flops => Axis::Flops,
    };
    let report = Report::read(&runs)?;
    let panel = figure::panel(&report, &Request { metric, axis, smooth, stage })?;
    plot::write(&[panel], &path)?;
    report.left_out().for_each(|line| print::err(&format!("note: {line}\n")));
    print::out(&format!("{}\n", path.display()))
}
