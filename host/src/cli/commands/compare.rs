//! `telos compare`.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;

use crate::cli::out::{check_drawing, check_own};
use crate::cli::print;
use crate::compare::{
    self,
    deaths::{self, Death, mark::Work},
    report::{Comparison, page, plot},
    spec::{self, Spec},
};
use crate::config::Override;
use crate::error::{Error, Result};
use crate::runs::{
    Progress,
    progress::Show,
    supervise::{self, Supervision},
};

// The text is printed as help, in which brackets are not links.
#[allow(rustdoc::broken_intra_doc_links)]
/// Run the same experiment on several backends and compare speed, operations, memory and results.
///
/// A backend is written ID[:DEVICE][@DTYPE][?OPTION=VALUE[&OPTION=VALUE]...]: candle, torch:cuda:0@bf16,
/// 'candle?path=generic', reference. Parts that are left out are taken from the experiment. The other backends are
/// compared with the first one that does a step; the same one may be named twice.
///
/// All start from the same bits and read the same batches, in one process, in turns, round by round; nothing is
/// written under runs/. If the objective learns from sampled answers, each backend samples its own, and is compared as long as they
/// are the same. After one step of warm-up the steps are timed. Then every operation of five more steps is
/// timed separately. The peak, of which shares are given, is the fastest of products of several sizes, or the operation of a step
/// that is faster. The first step whose loss (gradient norm) differs by more
/// than 1e-6 (1e-5) relative (a loss below 1: absolute), or 5e-3 (5e-2) where one of the two computes in bf16, is replayed: the f64 reference
/// computes every operation again on the same inputs. The first operation is reported whose error exceeds ten times
/// (four times in bf16) the limit of the operation laws: sums over real inputs cancel more than those over the
/// random inputs of the laws. Later steps always drift apart by rounding; --yardstick measures how far rounding alone drives them apart.
///
/// If a backend ends the process, for example by a crash, the comparison starts again without it, and its failure is reported. So it
/// does if memory runs out: all models are in one process, and the backend that needed the last of it counts as failed.
///
/// Exit codes: 1 if a backend failed or ended the process; differences between backends are results, not failures.
#[derive(Debug, Args)]
pub struct Compare {
    /// The experiment, a TOML file.
    file: PathBuf,
    /// The backends, separated by commas.
    #[arg(long, value_name = "SPEC,...", required = true, value_delimiter = ',', value_parser = Spec::parse)]
    backends: Vec<Spec>,
    /// Number of optimizer steps to compare.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(2..=1_000_000))]
    steps: u64,
    /// Rounds that the timed steps are divided into.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    rounds: u64,
    /// Overrides any key, as in `telos run`.
    #[arg(long, value_name = "KEY=VALUE", value_parser = Override::parse)]
    set: Vec<Override>,
    /// Also run a backend (--yardstick=SPEC; by default the first) with one weight moved by one unit in the last place.
    #[arg(long = "yardstick", value_name = "SPEC", num_args = 0..=1, require_equals = true, value_parser = Spec::parse)]
    noise_floor: Option<Option<Spec>>,
    /// Also cut the first window into these numbers of micro-batches: loss and gradient norm must stay the same.
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..))]
    cuts: Vec<u16>,
    /// Do not replay a step on the reference.
    #[arg(long)]
    no_replay: bool,
    /// Draw the losses into this file, SVG or PNG by its ending [default: compare-NAME.svg].
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Do not write the plot of the losses.
    #[arg(long, conflicts_with = "plot")]
    no_plot: bool,
    /// Also write the tables and the plot into this file, one page that opens in a browser.
    #[arg(long, value_name = "FILE.html")]
    html: Option<PathBuf>,
    /// Print everything as JSON.
    #[arg(long)]
    json: bool,
}

pub(in crate::cli) fn execute(args: Compare, plugin_folders: Vec<PathBuf>) -> Result<()> {
    let Compare { file, backends, steps, rounds, set, noise_floor, cuts, no_replay, plot, no_plot, html, json } = args;
    plot.as_deref().map_or(Ok(()), |plot| check_drawing("--plot", plot))?;
    html.as_deref().map_or(Ok(()), check_html)?;
    check_cuts(&cuts)?;
    let progress = Progress::new(0, steps, &if json { Show::Quiet } else { Show::Auto }.into());
    let request = compare::Request {
        file,
        overrides: set,
        plugin_folders,
        backends,
        steps,
        rounds,
        noise_floor,
        cuts: cuts.into_iter().map(usize::from).collect(),
        replay: !no_replay,
        deaths: deaths::earlier(),
    };
    let compared = compare::compare(&request, &progress);
    progress.finish();
    let mut comparison = compared?;
    let drawn = if no_plot { Ok(()) } else { draw(&mut comparison, plot) };
    let written = html.map_or(Ok(()), |path| write_page(&mut comparison, path));
    print::result(&comparison, json)?;
    drawn?;
    written?;
    failures(&comparison)
}

/// Refuses cuts of which there is only one.
fn check_cuts(cuts: &[u16]) -> Result<()> {
    match cuts {
        [first, rest @ ..] if rest.iter().all(|cut| cut == first) => {
            let message = format!("--cuts {first}: one number of micro-batches is compared with nothing");
            Err(Error::request(message).with_hint("name at least two numbers, such as --cuts 1,2,4"))
        }
        _ => Ok(()),
    }
}

/// Runs the comparison, which `args` asks for, in a child process; if a backend ends that process, runs it again without what the
/// backend did there.
///
/// # Errors
/// The child cannot be started.
pub(in crate::cli) fn supervise(compare: &Compare, args: &[OsString]) -> Result<ExitCode> {
    let yardstick = compare.noise_floor.as_ref().and_then(|named| named.as_ref().or(compare.backends.first()));
    let mut supervision = Supervision::begin()?;
    let mut died: Vec<Death> = Vec::new();
    loop {
        let mut command = supervise::again(args)?;
        deaths::pass(&died, &mut command);
        let ended = supervision.wait_for(command)?;
        match Death::of(&ended, &compare.backends, yardstick) {
            Some(death) if died.iter().all(|earlier| !earlier.is(death.backend, death.work)) => {
                let named = match death.backend {
                    Some(index) => spec::label(&compare.backends, index),
                    None => yardstick.map_or_else(String::new, ToString::to_string),
                };
                let left_out = if death.work == Work::Steps { "it" } else { death.work.noun() };
                let message = &death.failure.message;
                print::err(&format!("note: {named}: {message}: the comparison starts again without {left_out}\n"));
                died.push(death);
            }
            _ => return Ok(ended.report(args)),
        }
    }
}

fn check_html(html: &Path) -> Result<()> {
    if html.extension().is_none_or(|extension| extension != "html") {
        let message = format!("--html: {} is not a name of a page", html.display());
        return Err(Error::request(message).with_hint("name a file that ends in .html"));
    }
    check_own("--html", html, "the page of a comparison", page::is_page)
}

fn draw(comparison: &mut Comparison, plot: Option<PathBuf>) -> Result<()> {
    let plot = plot.unwrap_or_else(|| format!("compare-{}.svg", comparison.name.replace('/', "-")).into());
    plot::write(comparison, &plot)?;
    comparison.plot = Some(plot);
    Ok(())
}

fn write_page(comparison: &mut Comparison, path: PathBuf) -> Result<()> {
    page::write(comparison, &path)?;
    comparison.page = Some(path);
    Ok(())
}

/// Returns an error if a backend failed; its message is already in the report.
fn failures(comparison: &Comparison) -> Result<()> {
    let failed = comparison.backends.iter().filter(|backend| backend.failure.is_some());
    let failed: Vec<&str> = failed.map(|backend| backend.backend.as_str()).collect();
    if !failed.is_empty() {
        return Err(Error::run(format!("these backends failed: {}", failed.join(", "))));
    }
    match comparison.ended.is_empty() {
        true => Ok(()),
        false => Err(Error::run(format!("a backend ended the process: {}", comparison.ended.join(", ")))),
    }
}
