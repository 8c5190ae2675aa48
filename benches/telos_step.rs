//! `telos-step`: training steps of Telos on request, so that they can be timed in turn with those of other programs.
//!
//! Line protocol: after `ready`, each line `go N` on standard input is answered by the time of N steps, as a JSON object on
//! standard output. `peers/pytorch.py` has the same protocol; `peers/README.md` describes both.

use std::{
    io::{self, BufRead, Write},
    path::PathBuf,
    process::ExitCode,
    time::Instant,
};

use clap::Parser;
use serde_json::{Value, json};
use telos::{
    cli::folders,
    config::Override,
    device::open::{dtype, threads},
    error::{Error, Result},
};
use telos_benches::{Spec, Training, setup};

/// Trains an experiment's model on random tokens, N steps for each line `go N`.
#[derive(Parser)]
#[command(name = "telos-step", version, max_term_width = 100)]
struct Cli {
    /// The experiment: model, batch, optimizer.
    file: PathBuf,
    /// The backend: ID[:DEVICE][@DTYPE][?OPTION=VALUE[&OPTION=VALUE]...].
    #[arg(long, default_value = "candle", value_parser = Spec::parse)]
    backend: Spec,
    /// Overrides a key of the experiment.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = Override::parse)]
    sets: Vec<Override>,
    /// A folder to search for plugins, before TELOS_PLUGINS and the folder `plugins` next to this program.
    #[arg(long = "plugins", value_name = "DIR")]
    plugins: Vec<PathBuf>,
}

fn main() -> ExitCode {
    match serve(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprint!("{}", error.report());
            // If the reader has ended, the error cannot be reported.
            _ = answer(&json!({ "error": error.report().trim_end() }));
            ExitCode::from(error.exit_code())
        }
    }
}

fn serve(cli: &Cli) -> Result<()> {
    let folders = folders::search(&cli.plugins);
    let setup = setup(&cli.file, &cli.backend, &cli.sets, &folders)?;
    let mut training = Training::open(&setup, false)?;
    let backend = &setup.experiment().backend;
    // The first step fills the pools; it is not timed.
    let first = training.step()?;
    training.sync()?;
    let (parameters, multiplied) = training.parameters();
    answer(&json!({
        "ready": true,
        "program": format!("telos {}", env!("CARGO_PKG_VERSION")),
        "label": cli.backend.to_string(),
        "device": backend.device,
        "dtype": dtype(backend.dtype).to_string(),
        "threads": threads(backend.threads),
        "parameters": parameters,
        "parameters_multiplied": multiplied,
        "flops_per_token": training.flops_per_token(),
        "tokens_per_step": training.tokens(),
        "sequences": training.sequences(),
        "first_loss": first.loss,
        "first_grad_norm": first.grad_norm,
    }))?;
    for line in io::stdin().lock().lines() {
        let line = line.map_err(|e| Error::run(format!("standard input: {e}")))?;
        let steps = line.strip_prefix("go ").and_then(|n| n.trim().parse::<u64>().ok()).filter(|n| *n > 0);
        let steps = steps.ok_or_else(|| Error::request(format!("`{line}` is not `go N`")))?;
        let start = Instant::now();
        let mut last = first;
        for _ in 0..steps {
            last = training.step()?;
        }
        training.sync()?;
        let seconds = start.elapsed().as_secs_f64();
        answer(&json!({
            "steps": steps,
            "seconds": seconds,
            "loss": last.loss,
            "grad_norm": last.grad_norm,
            "peak_buffers": training.memory().peak,
            "peak_resident": peak_resident(),
        }))?;
    }
    Ok(())
}

fn answer(object: &Value) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{object}").and_then(|()| out.flush()).map_err(|e| Error::run(format!("standard output: {e}")))
}

/// The most memory that this process has held, in bytes; null if the system does not report it.
fn peak_resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}
