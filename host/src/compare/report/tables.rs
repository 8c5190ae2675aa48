//! A comparison as sections of a table and lines, with one column per backend where backends are compared. [`super::page`] writes the
//! same sections as HTML.

use std::fmt;

use super::{BackendReport, Comparison};
use crate::compare::agreement::Largest;
use crate::compare::replay::Replay;
use crate::compare::replay::audit::{Finding, Verdict};
use crate::decimals::counted;

/// A part of the report.
#[derive(Debug, Default)]
pub(super) struct Section {
    /// Its title; empty for the first one.
    pub(super) title: String,
    /// A table; its first row has the names of the columns.
    pub(super) rows: Vec<Vec<String>>,
    /// Lines below the table.
    pub(super) lines: Vec<String>,
}

impl Comparison {
    /// What is compared.
    pub(super) fn headline(&self) -> String {
        let tokens = self.backends.iter().filter_map(|b| b.tokens_per_step).fold(0.0, f64::max);
        format!(
            "{}: {} steps of {tokens:.0} tokens, timed in {}; {} parameters",
            self.name,
            self.steps,
            counted(self.rounds as usize, "round"),
            self.parameters
        )
    }

    /// The sections that have content.
    pub(super) fn sections(&self) -> Vec<Section> {
        let all = [
            figures(self),
            operations(self),
            agreement(self),
            noise_floor(self),
            cuts(self),
            replays(self),
            failures(self),
        ];
        all.into_iter().filter(|section| !section.rows.is_empty() || !section.lines.is_empty()).collect()
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.headline())?;
        for Section { title, rows, lines } in self.sections() {
            writeln!(f)?;
            if !title.is_empty() {
                writeln!(f, "{title}\n")?;
            }
            grid(f, &rows)?;
            lines.iter().try_for_each(|line| writeln!(f, "{line}"))?;
        }
        for (name, file) in [("losses", &self.plot), ("page", &self.page)] {
            if let Some(file) = file {
                writeln!(f, "\n{name}: {}", file.display())?;
            }
        }
        Ok(())
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

fn place_of(step: u64) -> String {
    if step == 0 { "before step 1".to_owned() } else { format!("at step {step}") }
}

/// A row of one cell per backend.
fn row(all: &Comparison, name: &str, cell: impl Fn(&BackendReport) -> Option<String>) -> Vec<String> {
    let cells = all.backends.iter().map(|backend| cell(backend).unwrap_or_else(|| "-".into()));
    std::iter::once(name.to_owned()).chain(cells).collect()
}

fn figures(all: &Comparison) -> Section {
    let percent = |share: f64| format!("{:.0} %", 100.0 * share);
    let rows = vec![
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
        row(all, "GFLOP/s of the peak", |b| b.peak_gflops.map(|g| format!("{g:.1}"))),
        row(all, "peak memory, MiB", |b| {
            (b.failure.is_none()).then(|| format!("{:.1}", b.memory_peak_bytes as f64 / f64::from(1 << 20)))
        }),
        row(all, "loss of the first step", |b| b.curve.loss.first().map(|loss| format!("{loss:.6}"))),
        row(all, "loss of the last step", |b| b.curve.loss.last().map(|loss| format!("{loss:.6}"))),
        row(all, "failed", |b| b.failure.as_ref().map(|failure| place_of(failure.step))),
    ];
    let rows = rows.into_iter().filter(|cells| cells.iter().skip(1).any(|cell| cell != "-")).collect();
    let peak = |b: &BackendReport| Some(format!("peak of {}: {}", b.backend, b.peak_product.as_ref()?));
    let peaks: Vec<String> = all.backends.iter().filter_map(peak).collect();
    let lines: Vec<String> = sampling(all).into_iter().chain(peaks).collect();
    let lines = if lines.is_empty() { lines } else { [vec![String::new()], lines].concat() };
    Section { title: String::new(), rows, lines }
}

/// What speeds contain if answers are sampled.
fn sampling(all: &Comparison) -> Vec<String> {
    let is = |whole| all.backends.iter().any(|b| b.whole_rollouts == Some(whole));
    let whole = "answers are sampled: the speeds are those of whole rollouts after the first, one of each rollout";
    let parts = "answers are sampled, and no rollout after the first is whole in these steps: the speed has too little or too \
                 much sampling in it; raise --steps";
    [is(true).then_some(whole), is(false).then_some(parts)].into_iter().flatten().map(str::to_owned).collect()
}

fn operations(all: &Comparison) -> Section {
    let mut names: Vec<&str> = Vec::new();
    for operation in all.backends.iter().flat_map(|b| &b.operations) {
        if !names.contains(&operation.name) {
            names.push(operation.name);
        }
    }
    if names.is_empty() {
        return Section::default();
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
    let title =
        "time of a step by operation: ms, share, GFLOP/s, share of the peak (synchronised after each operation)";
    Section { title: title.into(), rows, lines: Vec::new() }
}

fn agreement(all: &Comparison) -> Section {
    let compared: Vec<_> = all.backends.iter().filter_map(|b| Some((&b.backend, b.agreement.as_ref()?))).collect();
    let mut lines: Vec<String> = all.backends.iter().filter_map(other_batch).collect();
    let Some((_, first)) = compared.first() else { return Section { lines, ..Section::default() } };
    if all.backends.iter().all(|b| b.curve.grad_norm.iter().all(|norm| *norm == 0.0)) {
        lines.push("the gradient was 0 in every step: nothing was trained, and the agreement says nothing".to_owned());
    }
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
    let drifted = compared.iter().any(|(_, own)| own.first_beyond.is_some_and(|step| step > 1));
    if drifted && all.noise_floor.is_none() {
        let remark =
            "(from step 2 on the weights differ by rounding; --yardstick measures how much that changes the loss)";
        lines.push(remark.to_owned());
    }
    Section {
        title: format!("difference from {} by step, relative; of a loss below 1, absolute", first.with),
        rows,
        lines,
    }
}

fn other_batch(backend: &BackendReport) -> Option<String> {
    let step = backend.other_batch?;
    Some(format!("{} sampled other answers from step {step} on, so these steps are not compared", backend.backend))
}

fn largest(of: Largest) -> String {
    format!("{:.1e} at step {}", of.difference, of.step)
}

fn noise_floor(all: &Comparison) -> Section {
    let Some(own) = &all.noise_floor else { return Section::default() };
    let mut lines: Vec<String> = Vec::new();
    if let Some(failure) = &own.failure {
        lines.push(format!("yardstick: {} failed {}: {}", own.backend, place_of(failure.step), failure.message));
    }
    if let Some(loss) = own.loss {
        lines.push(format!(
            "yardstick: {} with {} moved by one unit in the last place of its type: largest loss difference {}",
            own.backend,
            own.weight,
            largest(loss)
        ));
        let times = |backend: &BackendReport| {
            let times = backend.agreement.as_ref()?.loss.difference / loss.difference;
            Some(format!("  {}: {times:.2} times that", backend.backend))
        };
        match loss.difference > 0.0 {
            true => lines.extend(all.backends.iter().filter_map(times)),
            false => lines.push("  it changed no loss, so it is no measure of the others".to_owned()),
        }
    }
    Section { lines, ..Section::default() }
}

fn cuts(all: &Comparison) -> Section {
    let cut: Vec<_> = all.backends.iter().filter_map(|b| Some((&b.backend, b.cuts.as_ref()?))).collect();
    if cut.is_empty() {
        return Section::default();
    }
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
    let line = |(backend, own): (&String, &super::Cuts)| {
        if let Some(failure) = &own.failure {
            return format!("{backend}: cutting the window failed: {failure}");
        }
        let verdict = match own.agree() {
            Ok(true) => "equal up to rounding".to_owned(),
            Ok(false) => "THEY DEPEND ON THE CUT".to_owned(),
            Err(why) => format!("not compared, because {why}"),
        };
        format!(
            "{backend}: {verdict}: largest differences {:.1e} of {:.0e} and {:.1e} of {:.0e}; at most {} micro-batches",
            own.difference.loss, own.tolerance.loss, own.difference.grad_norm, own.tolerance.grad_norm, own.most
        )
    };
    Section {
        title: "the first window, cut into micro-batches: loss and gradient norm must not depend on the cut".into(),
        rows,
        lines: cut.into_iter().map(line).collect(),
    }
}

fn replays(all: &Comparison) -> Section {
    let replayed = all.backends.iter().filter_map(|b| Some((&b.backend, b.replay.as_ref()?)));
    let lines = |(backend, replay): (&String, &Replay)| match (&replay.verdict, &replay.skipped) {
        (Some(verdict), _) => self::verdict(backend, replay, verdict),
        (None, why) => vec![format!("{backend}: not replayed: {}", why.as_deref().unwrap_or("unknown"))],
    };
    let lines: Vec<String> = replayed.flat_map(lines).collect();
    Section {
        title: "operations against the f64 reference, each on the backend's own inputs".into(),
        lines,
        ..Section::default()
    }
}

fn verdict(backend: &str, replay: &Replay, verdict: &Verdict) -> Vec<String> {
    let part = if replay.tokens < replay.tokens_of_step {
        format!(
            " (its first {} of {} tokens: the rest would take the reference too long)",
            replay.tokens, replay.tokens_of_step
        )
    } else {
        String::new()
    };
    let found = match &verdict.first {
        None => "all within their limits".to_owned(),
        Some(_) => format!("{} beyond their limits: {}", verdict.beyond, verdict.beyond_names.join(", ")),
    };
    let mut lines =
        vec![format!("{backend}: step {}{part}: {} operations replayed, {found}", replay.step, verdict.operations)];
    lines.extend(verdict.first.iter().map(|first| format!("  first:   {}", place(first))));
    lines.extend(verdict.largest.iter().map(|largest| format!("  largest: {}", place(largest))));
    lines.extend(verdict.skipped.iter().map(|skipped| format!("  not replayed: {skipped}")));
    lines
}

fn place(of: &Finding) -> String {
    let Finding { operation, ordinal, operand, row, column, expected, found, error, limit } = of;
    format!(
        "{operation}, operation {ordinal} of the step: {operand}[{row}, {column}]: expected {expected:e}, found {found:e}, \
         error {error:.1e} of {limit:.0e}"
    )
}

fn failures(all: &Comparison) -> Section {
    let line = |backend: &BackendReport| {
        let failure = backend.failure.as_ref()?;
        Some(format!("{} failed {}: {}", backend.backend, place_of(failure.step), failure.message))
    };
    Section { lines: all.backends.iter().filter_map(line).collect(), ..Section::default() }
}
