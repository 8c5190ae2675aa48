//! A dry run for `telos check`: everything a run does up to its first update, with the largest batch, and nothing written.

use std::{fmt, time::Instant};

use plugin_api::batch::names;
use serde::Serialize;

use super::{
    arrays::unpack, exact::questions, expectations, held_out, learner::Opened, measured, notices, prove,
    setup::Prepared, trail::Trail,
};
use crate::{
    data::{PackedBatch, Sequence, Tokenizer, pack::together, rows::RowCounts},
    error::Result,
};

/// What a dry run found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Findings {
    /// The run's name.
    pub name: String,
    /// Parameters of the model.
    pub parameters: u64,
    /// Tokens to train on.
    pub train_tokens: u64,
    /// Positions to evaluate on.
    pub held_out_tokens: u64,
    /// Optimizer steps.
    pub steps: u64,
    /// Positions of the first window.
    pub tokens_per_step: usize,
    /// Micro-batches of the first window.
    pub micro_batches: usize,
    /// Loss of the first window before any update.
    pub loss: f64,
    /// Gradient norm of the first window.
    pub grad_norm: f64,
    /// Most device memory in use, with the largest micro-batch.
    pub memory_peak_bytes: u64,
    /// Seconds of one step, the second of two.
    pub seconds_per_step: f64,
    /// Seconds of the whole training, evaluation and checkpoints left out.
    pub seconds: f64,
    /// What became of the rows; absent for running text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<RowCounts>,
    /// What looks wrong: expectations of the objectives that the first window misses, a gradient of exactly 0, plugins that are
    /// not the pinned ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The first row of the first window as the model reads it (of a pair both answers), what is learned in brackets; absent for
    /// running text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub example: Option<String>,
}

/// Reads the data, builds the model, and goes through the largest micro-batch and the first window.
///
/// # Errors
/// Whatever would stop the run.
pub fn dry_run(prepared: &Prepared) -> Result<Findings> {
    let trail = Trail::default();
    let (device, _) = prepared.device(false)?;
    let Opened { mut learner, data, steps, .. } = prepared.learner(&device, prepared.data(false)?, None, false)?;
    prepared.check_samples()?;
    let held_out = held_out(prepared, &learner.objectives, &data)?;
    let most = prepared.experiment().eval.generate.unwrap_or(0);
    measured::check(prepared, &mut learner, &held_out, &questions(&*data.held_out, &prepared.tokenizer, most)?)?;
    learner.rehearse(&trail)?;

    let (mut found, mut example, mut first) = (None, None, Vec::new());
    let mut seconds_per_step = 0.0;
    for _ in 0..2 {
        let start = Instant::now();
        let micro_batches = learner.window(0, &trail)?;
        if found.is_none() {
            let new = prove::contradictions(prepared, &mut learner, &micro_batches, &prepared.unproved(), &trail)?;
            prove::refusal(&new).map_or(Ok(()), Err)?;
        }
        let (out, gradient) = learner.gradient(&micro_batches, &trail)?;
        device.sync()?;
        seconds_per_step = start.elapsed().as_secs_f64();
        if data.rows.is_some() && example.is_none() {
            example = micro_batches.first().map(|first| marked(first, &prepared.tokenizer)).transpose()?;
        }
        if first.is_empty() {
            first = vec![("loss".to_owned(), out.loss)];
            first.extend(out.metrics);
        }
        let positions = micro_batches.iter().map(PackedBatch::len).sum();
        found = found.or(Some((positions, micro_batches.len(), out.loss, gradient.norm)));
    }
    let (tokens_per_step, micro_batches, loss, grad_norm) = found.unwrap_or((0, 0, f64::NAN, f64::NAN));
    let mut notes = notices::at_start(prepared.experiment(), &learner.objectives);
    let vocab = prepared.model_folder.is_none().then_some(prepared.config.vocab);
    notes.extend(expectations::all_missed(&learner.objectives, &first, vocab));
    if grad_norm == 0.0 {
        notes.push("the gradient of the first window is exactly 0: nothing is learned from it".to_owned());
    }
    notes.extend(prepared.lock.unpinned().iter().map(|line| format!("--dev: not the pinned plugin: {line}")));
    Ok(Findings {
        name: prepared.experiment().name.clone(),
        parameters: learner.model.layout().count(),
        train_tokens: data.train.tokens(),
        held_out_tokens: held_out.iter().map(|b| b.len() as u64).sum(),
        steps,
        tokens_per_step,
        micro_batches,
        loss,
        grad_norm,
        memory_peak_bytes: device.memory().peak,
        seconds_per_step,
        seconds: seconds_per_step * steps as f64,
        rows: data.rows,
        notes,
        example,
    })
}

/// The first sequence of a batch as text, its supervised tokens between `⟦` and `⟧`; of a pair both, each named.
fn marked(packed: &PackedBatch, tokenizer: &Tokenizer) -> Result<String> {
    let sequences = unpack(packed);
    let first = sequences.chunk_by(together).next().unwrap_or_default();
    let line = |sequence: &Sequence| {
        let name = match sequence.numbers.get(names::SIDE) {
            Some(1.0) if first.len() == 2 => "chosen:   ",
            Some(_) if first.len() == 2 => "rejected: ",
            _ => "",
        };
        Ok(format!("{name}{}", marked_sequence(sequence, tokenizer)?))
    };
    Ok(first.iter().map(line).collect::<Result<Vec<_>>>()?.join("\n"))
}

fn marked_sequence(sequence: &Sequence, tokenizer: &Tokenizer) -> Result<String> {
    let mut text = String::new();
    let mut tokens = sequence.ids.iter().zip(&sequence.supervised).peekable();
    while let Some((id, supervised)) = tokens.next() {
        let mut run = vec![*id];
        while let Some((id, _)) = tokens.next_if(|(_, own)| *own == supervised) {
            run.push(*id);
        }
        let piece = tokenizer.decode(&run, false)?;
        text += &if *supervised { format!("⟦{piece}⟧") } else { piece };
    }
    Ok(text)
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = self.memory_peak_bytes as f64 / f64::from(1 << 20);
        writeln!(f, "experiment \"{}\" is in order", self.name)?;
        writeln!(f, "parameters        {}", self.parameters)?;
        writeln!(f, "training tokens   {}", self.train_tokens)?;
        writeln!(f, "held-out tokens   {}", self.held_out_tokens)?;
        writeln!(
            f,
            "steps             {} of {} tokens in {} micro-batches",
            self.steps, self.tokens_per_step, self.micro_batches
        )?;
        writeln!(f, "first loss        {:.4}, gradient norm {:.4}", self.loss, self.grad_norm)?;
        writeln!(f, "device memory     {mib:.1} MiB at most")?;
        write!(
            f,
            "time              {:.3} s a step, about {:.0} s in all without evaluation",
            self.seconds_per_step, self.seconds
        )?;
        if let Some(rows) = &self.rows {
            write!(f, "\ndata              {rows}")?;
        }
        for note in &self.notes {
            write!(f, "\nnote              {note}")?;
        }
        if let Some(example) = &self.example {
            write!(f, "\na row, and what is learned of it between ⟦ and ⟧:\n{example}")?;
        }
        Ok(())
    }
}
