//! Prints a comparison as text tables, with one column per backend.

use std::fmt;

use super::{BackendReport, Comparison};
use crate::compare::agreement::Largest;
use crate::compare::noise_floor::NoiseFloor;
use crate::compare::replay::Replay;
use crate::compare::replay::audit::{Finding, Verdict};

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self;
        let tokens = all.backends.iter().filter_map(|b| b.tokens_per_step).fold(0.0, f64::max);
        writeln!(
            f,
            "{}: {} steps of {tokens:.0} tokens, timed in {} rounds; {} parameters\n",
            all.name, all.steps, all.rounds, all.parameters
        )?;
        grid(f, &figures(all))?;
        writeln!(
            f,
            "\ntime of a step by operation: ms, share, GFLOP/s, share of the peak (synchronised after each operation)\n"
        )?;
        grid(f, &operations(all))?;
        agreement(all, f)?;
        cuts(all, f)?;
        replays(all, f)?;
        failures(all, f)?;
        match &all.plot {
            Some(plot) => writeln!(f, "\nlosses: {}", plot.display()),
            None => Ok(()),
        }
    }
}

/// Pads rows to the widest cell of each column; aligns the first column left and the others right.
fn grid(f: &mut fmt::Formatter<'_>, rows: &[Vec<String>]) -> fmt::Result {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate();
        let padded = cells.map(|(column, (cell, &width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        writeln!(f, "{}", padded.collect::<Vec<_>>().join("   ").trim_end())?;
    }
    Ok(())
}

/// A row of one cell per backend.
fn row(all: &Comparison, name: &str, cell: impl Fn(&BackendReport) -> Option<String>) -> Vec<String> {
    let cells = all.backends.iter().map(|backend| cell(backend).unwrap_or_else(|| "-".into()));
    std::iter::once(name.to_owned()).chain(cells).collect()
}

fn figures(all: &Comparison) -> Vec<Vec<String>> {
    let percent = |share: f64| format!("{:.0} %", 100.0 * share);
    vec![
        row(all, "", |b| Some(b.backend.clone())),
        row(all, "device, type", |b| Some(format!("{} {}", b.device, b.dtype))),
        row(all, "threads", |b| Some(b.threads.to_string())),
        row(all, "tokens/s, median", |b| b.tokens_per_second.as_ref().map(|s| format!("{:.0}", s.median))),
        row(all, "  lowest to highest round", |b| {
            b.tokens_per_second.as_ref().map(|s| format!("{:.0} to {:.0}", s.min, s.max))
        }),
        row(all, "ms a step", |b| b.seconds_per_step.map(|s| format!("{:.2}", 1e3 * s))),
        row(all, "GFLOP/s of the step", |b| b.gflops.map(|g| format!("{g:.1}"))),
        row(all, "  share of the peak", |b| b.share_of_peak.map(percent)),
        row(all, "GFLOP/s of a large product", |b| b.peak_gflops.map(|g| format!("{g:.1}"))),
        row(all, "peak memory, MiB", |b| {
            (b.failure.is_none()).then(|| format!("{:.1}", b.memory_peak_bytes as f64 / f64::from(1 << 20)))
        }),
        row(all, "loss of the first step", |b| b.curve.loss.first().map(|loss| format!("{loss:.6}"))),
        row(all, "loss of the last step", |b| b.curve.loss.last().map(|loss| format!("{loss:.6}"))),
        row(all, "failed", |b| b.failure.as_ref().map(|failure| format!("at step {}", failure.step))),
    ]
    .into_iter()
    .filter(|cells| cells.iter().skip(1).any(|cell| cell != "-"))
    .collect()
}

fn operations(all: &Comparison) -> Vec<Vec<String>> {
    let mut names: Vec<&str> = Vec::new();
    for operation in all.backends.iter().flat_map(|b| &b.operations) {
        if !names.contains(&operation.name) {
            names.push(operation.name);
        }
    }
    let mut rows = vec![row(all, "", |b| Some(b.backend.clone()))];
    for name in names {
        rows.push(row(all, name, |b| {
            let own = b.operations.iter().find(|o| o.name == name)?;
            let time = format!("{:.2} {:>3.0} %", 1e3 * own.seconds, 100.0 * own.share);
            let of_peak = own.share_of_peak.map_or(String::new(), |share| format!("{:.0} %", 100.0 * share));
            let rate = own.gflops.map_or(String::new(), |gflops| format!("{gflops:.1}"));
            Some(format!("{time} {rate:>8} {of_peak:>5}"))
        }));
    }
    rows.push(row(all, "outside operations", |b| {
        b.outside_share.map(|share| format!("{:>3.0} % {:>8} {:>5}", 100.0 * share, "", ""))
    }));
    rows
}

fn agreement(all: &Comparison, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let compared: Vec<_> = all.backends.iter().filter_map(|b| Some((&b.backend, b.agreement.as_ref()?))).collect();
    if let Some((_, first)) = compared.first() {
        writeln!(f, "\ndifference from {} by step, relative\n", first.with)?;
        let heads = [
            "",
            "first loss",
            "first gradient norm",
            "largest loss",
            "largest gradient norm",
            "tolerance",
            "first step beyond",
        ];
        let mut rows = vec![heads.map(String::from).to_vec()];
        rows.extend(compared.iter().map(|(backend, own)| {
            let tolerance = format!("{:.0e}, {:.0e}", own.tolerance.loss, own.tolerance.grad_norm);
            let beyond = own.first_beyond.map_or("none".to_owned(), |step| step.to_string());
            let number = |difference: f64| format!("{difference:.1e}");
            let (loss, norm) = (largest(own.loss), largest(own.grad_norm));
            vec![(*backend).clone(), number(own.first_loss), number(own.first_grad_norm), loss, norm, tolerance, beyond]
        }));
        grid(f, &rows)?;
        let drifted = compared.iter().any(|(_, own)| own.first_beyond.is_some_and(|step| step > 1));
        if drifted && all.noise_floor.is_none() {
            writeln!(
                f,
                "(from step 2 on the weights differ by rounding; --yardstick measures how much that changes the loss)"
            )?;
        }
    }
    all.noise_floor.as_ref().map_or(Ok(()), |noise_floor| self::noise_floor(all, noise_floor, f))
}

fn largest(of: Largest) -> String {
    format!("{:.1e} at step {}", of.difference, of.step)
}

fn noise_floor(all: &Comparison, own: &NoiseFloor, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if let Some(failure) = &own.failure {
        writeln!(f, "\nyardstick: {} failed at step {}: {}", own.backend, failure.step, failure.message)?;
    }
    let Some(loss) = own.loss else { return Ok(()) };
    writeln!(
        f,
        "\nyardstick: {} with {} moved by one unit in the last place: largest loss difference {}",
        own.backend,
        own.weight,
        largest(loss)
    )?;
    for backend in &all.backends {
        if let Some(agreement) = &backend.agreement {
            let times = agreement.loss.difference / loss.difference;
            writeln!(f, "  {}: {times:.2} times that", backend.backend)?;
        }
    }
    Ok(())
}

fn cuts(all: &Comparison, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let cut: Vec<_> = all.backends.iter().filter_map(|b| Some((&b.backend, b.cuts.as_ref()?))).collect();
    if cut.is_empty() {
        return Ok(());
    }
    writeln!(f, "\nthe first window, cut into micro-batches: loss and gradient norm must not depend on the cut\n")?;
    let mut rows = vec![["", "micro-batches", "loss", "gradient norm"].map(String::from).to_vec()];
    for (backend, own) in &cut {
        rows.extend(own.cuts.iter().map(|one| {
            vec![
                (*backend).clone(),
                one.micro_batches.to_string(),
                format!("{:.9}", one.loss),
                format!("{:.9}", one.grad_norm),
            ]
        }));
    }
    grid(f, &rows)?;
    for (backend, own) in cut {
        if let Some(failure) = &own.failure {
            writeln!(f, "{backend}: cutting the window failed: {failure}")?;
            continue;
        }
        let verdict = match own.agree() {
            Ok(true) => "equal up to rounding".to_owned(),
            Ok(false) => "THEY DEPEND ON THE CUT".to_owned(),
            Err(why) => format!("not compared, because {why}"),
        };
        writeln!(
            f,
            "{backend}: {verdict}: largest differences {:.1e} of {:.0e} and {:.1e} of {:.0e}; at most {} micro-batches",
            own.difference.loss, own.tolerance.loss, own.difference.grad_norm, own.tolerance.grad_norm, own.most
        )?;
    }
    Ok(())
}

fn replays(all: &Comparison, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let replayed: Vec<_> = all.backends.iter().filter_map(|b| Some((&b.backend, b.replay.as_ref()?))).collect();
    if replayed.is_empty() {
        return Ok(());
    }
    writeln!(f, "\noperations against the f64 reference, each on the backend's own inputs\n")?;
    for (backend, replay) in replayed {
        match (&replay.verdict, &replay.skipped) {
            (Some(verdict), _) => self::verdict(backend, replay, verdict, f)?,
            (None, why) => writeln!(f, "{backend}: not replayed: {}", why.as_deref().unwrap_or("unknown"))?,
        }
    }
    Ok(())
}

fn verdict(backend: &str, replay: &Replay, verdict: &Verdict, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let part = if replay.tokens < replay.tokens_of_step {
        format!(
            " (its first {} of {} tokens: the rest would take the reference too long)",
            replay.tokens, replay.tokens_of_step
        )
    } else {
        String::new()
    };
    write!(f, "{backend}: step {}{part}: {} operations replayed, ", replay.step, verdict.operations)?;
    match &verdict.first {
        None => writeln!(f, "all within their limits")?,
        Some(first) => {
            let names = verdict.beyond_names.join(", ");
            writeln!(f, "{} beyond their limits: {names}", verdict.beyond)?;
            writeln!(f, "  first:   {}", place(first))?;
        }
    }
    if let Some(largest) = &verdict.largest {
        writeln!(f, "  largest: {}", place(largest))?;
    }
    for skipped in &verdict.skipped {
        writeln!(f, "  not replayed: {skipped}")?;
    }
    Ok(())
}

fn place(of: &Finding) -> String {
    let Finding { operation, ordinal, operand, row, column, expected, found, error, limit } = of;
    format!(
        "{operation}, operation {ordinal} of the step: {operand}[{row}, {column}]: expected {expected:e}, found {found:e}, \
         error {error:.1e} of {limit:.0e}"
    )
}

fn failures(all: &Comparison, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for backend in &all.backends {
        if let Some(failure) = &backend.failure {
            writeln!(f, "\n{} failed at step {}: {}", backend.backend, failure.step, failure.message)?;
        }
    }
    Ok(())
}
