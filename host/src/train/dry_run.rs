//! A dry run for `telos check`: everything a run does up to its first update, on a small batch, without writing files.

use std::{fmt, time::Instant};

use plugin_api::batch::names;
use serde::Serialize;

use super::{
    eval::{checks, expectations},
    learner::{FirstWindow, Learner},
    memory::estimate,
    notices,
    opening::{self, Opened},
    quick_laws,
};
use crate::{
    data::{PackedBatch, Sequence, Tokenizer, pack::together, rows::RowCounts},
    decimals::fixed,
    error::{Error, Result},
    objectives::micro_batch::unpack,
    runs::breadcrumb::CrashMarker,
    setup::Setup,
};

/// Approximate limit of the positions computed, so that a check is quick.
const TRIED: usize = 1024;

/// Results of a dry run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Findings {
    /// The run's name.
    pub name: String,
    /// Parameters of the model.
    pub parameters: u64,
    /// How many of them are trained, if an adapter is trained in place of the weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trained_parameters: Option<u64>,
    /// Tokens to train on.
    pub train_tokens: u64,
    /// Positions to evaluate on.
    pub held_out_tokens: u64,
    /// Optimizer steps.
    pub steps: u64,
    /// Positions of the first window; with rollouts an estimate.
    pub tokens_per_step: usize,
    /// Micro-batches of the first window.
    pub micro_batches: usize,
    /// Positions of the first window that were computed, for loss, gradient norm and time.
    pub tried_tokens: usize,
    /// Loss of these positions before any update.
    pub loss: f64,
    /// Their gradient norm.
    pub grad_norm: f64,
    /// Positions of the largest micro-batch. It is counted, not computed; a run computes it before step 1.
    pub largest_micro_batch_tokens: usize,
    /// Peak bytes of device buffers.
    pub memory_peak_bytes: u64,
    /// The phase of the run in which the peak occurs.
    pub memory_peak_in: &'static str,
    /// Bytes of device buffers that are held all the time: weights, gradients, moments, models other than the policy.
    pub memory_held_bytes: u64,
    /// Peak bytes of the whole process; absent if the system does not report a process's memory.
    pub process_peak_bytes: Option<u64>,
    /// Seconds of one step: the measured time, scaled from the positions computed to those of the window.
    pub seconds_per_step: f64,
    /// Seconds of the whole training without evaluations and checkpoints.
    pub seconds: f64,
    /// How many rows were kept and dropped; absent for running text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<RowCounts>,
    /// Warnings: expectations of the objectives that the first window misses, a gradient of exactly 0, plugins that are not the
    /// pinned ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The first row of the first window as the model reads it (both answers of a pair), supervised tokens in brackets; absent
    /// for running text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub example: Option<String>,
}

/// Opens everything that a run needs and checks the names of the metrics that it is to report.
///
/// # Errors
/// Everything that would stop the run before its first step.
pub fn try_metric_names(setup: &mut Setup) -> Result<()> {
    let mut mistakes = setup.take_mistakes();
    let device = setup.device_or_mistakes(&mut mistakes)?;
    let data = setup.data_or_mistakes(true, &mut mistakes)?;
    let mut opened = opening::open_or_mistakes(setup, device.as_ref(), data, None, false, &mut mistakes)?;
    checks::finish(setup, opened.as_mut().map(Opened::parts), true, mistakes).map(|_| ())
}

/// Reads the data, builds the model, computes a small batch of the longest rows and the first window or its beginning, and
/// estimates the memory of the run.
///
/// # Errors
/// Everything that would stop the run.
pub fn dry_run(setup: &mut Setup) -> Result<Findings> {
    let marker = CrashMarker::default();
    let mut mistakes = setup.take_mistakes();
    let setup = &*setup;
    let device = setup.device_or_mistakes(&mut mistakes)?;
    let data = setup.data_or_mistakes(false, &mut mistakes)?;
    let mut opened = opening::open_or_mistakes(setup, device.as_ref(), data, None, false, &mut mistakes)?;
    let evaluated = checks::finish(setup, opened.as_mut().map(Opened::parts), true, mistakes)?;
    let Some(Opened { mut learner, data, steps, .. }) = opened else {
        return Err(Error::run("the models were not opened"));
    };
    let device = learner.device.clone();
    learner.try_batch(TRIED, &marker)?;
    let memory = estimate::estimate(setup, &mut learner, &data, &evaluated, &marker)?;

    let start = Instant::now();
    let FirstWindow { micro_batches, positions, parts } = learner.first_window(4 * TRIED, &marker)?;
    let drawn = start.elapsed();
    let tables = quick_laws::to_check(setup, true);
    let Learner { model, roles, objectives, auxiliary, .. } = &mut learner;
    let mut proofs = quick_laws::proofs(setup, roles.models(model), objectives, &micro_batches, &tables, &marker)?;
    for one in auxiliary {
        let window = one.peek()?;
        proofs.extend(quick_laws::proofs(setup, roles.models(model), &mut one.objectives, &window, &tables, &marker)?);
    }
    quick_laws::refusal(&proofs).map_or(Ok(()), Err)?;
    let start = Instant::now();
    let tried: usize = micro_batches.iter().map(PackedBatch::len).sum();
    let (out, gradient) = learner.gradient(&micro_batches, &marker)?;
    device.sync()?;
    let computed = (drawn + start.elapsed()).as_secs_f64() * positions as f64 / tried.max(1) as f64;
    // At a rate of 0 no weight changes.
    let start = Instant::now();
    if out.loss.is_finite() && gradient.finite {
        let Learner { model, optimizer, grads, .. } = &mut learner;
        optimizer.update(model.learned().params, model.learned().shadow, grads, 0.0)?;
        device.sync()?;
    }
    let seconds_per_step = computed + start.elapsed().as_secs_f64();
    let example = match (data.rows.is_some(), micro_batches.first()) {
        (true, Some(first)) => Some(marked(first, &setup.tokenizer)?),
        _ => None,
    };
    let mut first = vec![("loss".to_owned(), out.loss)];
    first.extend(out.metrics);
    let mut notes: Vec<String> = learner.model.config().notes.clone();
    notes.extend(setup.tokenizer.notes());
    notes.extend(notices::at_start(setup.experiment(), &learner.objectives, &learner.batcher, learner.context(0))?);
    let vocab = setup.model_folder.is_none().then_some(setup.config.vocab);
    notes.extend(expectations::all_missed(&learner.objectives, &first, vocab));
    notes.extend(quick_laws::uncompared(&proofs));
    if gradient.norm == 0.0 {
        notes.push("the gradient of the first window is exactly 0: nothing is learned from it".to_owned());
    }
    notes.extend(setup.lock.unpinned().iter().map(|line| format!("--dev: not the pinned plugin: {line}")));
    Ok(Findings {
        name: setup.experiment().name.clone(),
        parameters: learner.model.count().0,
        trained_parameters: learner.model.adapter().map(|_| learner.model.count().1),
        train_tokens: data.train.tokens(),
        held_out_tokens: evaluated.held_out.iter().map(|b| b.len() as u64).sum(),
        steps,
        tokens_per_step: positions,
        micro_batches: parts,
        tried_tokens: tried,
        loss: out.loss,
        grad_norm: gradient.norm,
        largest_micro_batch_tokens: memory.largest_micro_batch,
        memory_peak_bytes: memory.peak,
        memory_peak_in: memory.peak_in,
        memory_held_bytes: memory.held,
        process_peak_bytes: memory.process_peak,
        seconds_per_step,
        seconds: seconds_per_step * steps as f64,
        rows: data.rows,
        notes,
        example,
    })
}

/// Returns the first sequence of a batch as text, its supervised tokens between `⟦` and `⟧`; for a pair both sequences with
/// their names.
fn marked(packed: &PackedBatch, tokenizer: &Tokenizer) -> Result<String> {
    let sequences = unpack(packed);
    let first = sequences.chunk_by(together).next().unwrap_or_default();
    let line = |sequence: &Sequence| {
        let name = match sequence.per_sequence.get(names::SIDE) {
            Some(1.0) if first.len() == 2 => "chosen:   ",
            Some(_) if first.len() == 2 => "rejected: ",
            _ => "",
        };
        Ok(format!("{name}{}", marked_sequence(sequence, tokenizer)?))
    };
    Ok(first.iter().map(line).collect::<Result<Vec<_>>>()?.join("\n"))
}

fn marked_sequence(sequence: &Sequence, tokenizer: &Tokenizer) -> Result<String> {
    let pieces = tokenizer.decode_pieces(&sequence.ids, &sequence.supervised)?;
    let shown = |(piece, supervised)| if supervised { format!("⟦{piece}⟧") } else { piece };
    Ok(pieces.into_iter().map(shown).collect())
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        writeln!(f, "experiment \"{}\" is in order", self.name)?;
        match self.trained_parameters {
            Some(trained) => {
                writeln!(f, "parameters        {}, {trained} of them trained: the adapter", self.parameters)?
            }
            None => writeln!(f, "parameters        {}", self.parameters)?,
        }
        writeln!(f, "training tokens   {}", self.train_tokens)?;
        writeln!(f, "held-out tokens   {}", self.held_out_tokens)?;
        writeln!(
            f,
            "steps             {} of {} tokens in {}",
            self.steps,
            self.tokens_per_step,
            match self.micro_batches {
                1 => "1 micro-batch".to_owned(),
                count => format!("{count} micro-batches"),
            }
        )?;
        let of = match self.tried_tokens < self.tokens_per_step {
            true => format!(", of its first {} tokens", self.tried_tokens),
            false => String::new(),
        };
        writeln!(f, "first loss        {}, gradient norm {:.4}{of}", fixed(self.loss, 4), self.grad_norm)?;
        writeln!(
            f,
            "device memory     {:.1} MiB of buffers at most, in {}; {:.1} MiB are held all the time",
            mib(self.memory_peak_bytes),
            self.memory_peak_in,
            mib(self.memory_held_bytes)
        )?;
        if let Some(bytes) = self.process_peak_bytes {
            writeln!(
                f,
                "process memory    {:.1} MiB at most, including the buffers if the device is the processor",
                mib(bytes)
            )?;
        }
        writeln!(
            f,
            "                  counted for the largest micro-batch, {} tokens, not computed; a run computes it before step 1",
            self.largest_micro_batch_tokens
        )?;
        let how = if of.is_empty() { "" } else { ", extrapolated from those tokens" };
        write!(
            f,
            "time              {:.3} s a step, about {:.0} s in all without evaluation{how}",
            self.seconds_per_step, self.seconds
        )?;
        if let Some(rows) = &self.rows {
            write!(f, "\ndata              {rows}")?;
        }
        for note in &self.notes {
            write!(f, "\nnote              {note}")?;
        }
        if let Some(example) = &self.example {
            write!(f, "\nfirst row, supervised tokens between ⟦ and ⟧:\n{example}")?;
        }
        Ok(())
    }
}
