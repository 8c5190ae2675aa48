//! `[train]`: length, batch, optimizer and schedule.

pub mod batch;
pub mod length;

use std::ops::Bound::{Excluded, Included};

use serde::Serialize;

use crate::keys::notes::Notes;
use crate::keys::{Form, table, words};
use crate::optimizer::schedule::{self, Schedule, Span};
use crate::optimizer::{self, Settings};
use batch::Batch;
use length::Length;

table! {
    /// length, batch, optimizer and schedule of the training
    pub struct Written at "train": Form::Table, example { steps = 500 } {
        /// number of optimizer steps; give either this or epochs; 0: the model is only evaluated
        steps: u64, Form::ANY_INT, example 500;
        /// number of passes over the training data, each row once per pass; the last step of a pass may be short; give either
        /// this or steps
        epochs: f64, Form::Float(Excluded(0.0), Included(1e9)), example 1;
        batch in Option<batch::Written>;
        /// the most tokens computed at a time, to save memory; a longer sequence, and more answers to one prompt that the
        /// objective reads together, are computed alone; changes nothing but the last digits of results
        micro_batch_tokens: usize, Form::POSITIVE_INT,
            default "16384; on the processor fewer if the activations to keep would exceed 512 MiB", example 2048;
        optimizer in optimizer::Written;
        schedule in schedule::Written;
        /// short for train.schedule.warmup
        warmup: Span, Form::Span, default "0", example 0.1;
        /// length of training sequences from a step on, as [step, tokens]
        context_schedule: Vec<(u64, usize)>, Form::Lengths, default "the model's context length for all steps",
            example [[0, 128], [300, 256]];
        /// which activations are recomputed in the backward pass instead of kept; never changes the result
        recompute: Recompute, Form::Word(Recompute::WORDS), default "\"none\"", example "auto";
        /// number of consecutive steps with a non-finite loss or gradient after which the run stops; such steps do not update the
        /// weights
        max_bad_steps: u64 = 5, Form::Int(1, 1_000_000), example 5;
    }
}

/// `[train]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Train {
    /// The length of the run.
    #[serde(flatten)]
    pub length: Length,
    /// How much data one optimizer step reads.
    pub batch: Batch,
    /// The most tokens in one micro-batch; `None`: chosen by the size of the models.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub micro_batch_tokens: Option<usize>,
    /// Context length by step, ascending from step 0; absent: the model's context length for all steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_schedule: Option<Vec<(u64, usize)>>,
    /// Which activations are recomputed.
    pub recompute: Recompute,
    /// Number of consecutive non-finite steps after which the run stops.
    pub max_bad_steps: u64,
    /// The optimizer.
    pub optimizer: Settings,
    /// Learning rate over the run.
    pub schedule: Schedule,
}

words! {
    /// Which activations are recomputed in the backward pass.
    #[derive(Default)]
    pub enum Recompute {
        /// None: all are kept.
        #[default]
        None = "none",
        /// Those that are cheap to compute.
        Auto = "auto",
        /// All that can be recomputed.
        All = "all",
    }
}

/// Resolves `[train]`; `context` is the model's, if it is known.
pub fn resolve(written: Written, context: Option<usize>, notes: &mut Notes<'_>) -> Train {
    let length = length::resolve(written.steps, written.epochs, notes);
    let longest = longest(&written.context_schedule, context, length, notes);
    let max_bad_steps = written.max_bad_steps();
    let steps = match length {
        Length::Steps(steps) => Some(steps),
        Length::Epochs(_) => None,
    };
    Train {
        length,
        batch: batch::resolve(written.batch, longest, length, notes),
        micro_batch_tokens: batch::micro_batch_tokens(written.micro_batch_tokens, longest, notes),
        optimizer: optimizer::resolve(written.optimizer, steps != Some(0), notes),
        schedule: schedule::resolve(written.schedule, written.warmup, steps, notes),
        context_schedule: written.context_schedule,
        recompute: written.recompute.unwrap_or_default(),
        max_bad_steps,
    }
}

/// Checks the context schedule; returns the longest training sequence, as far as it is known.
fn longest(
    lengths: &Option<Vec<(u64, usize)>>,
    context: Option<usize>,
    length: Length,
    notes: &mut Notes<'_>,
) -> Option<usize> {
    const KEY: &str = "train.context_schedule";
    let Some(lengths) = lengths else {
        return context.filter(|context| *context != usize::MAX);
    };
    if let Length::Epochs(_) = length {
        let why = "contradicts train.epochs: changing the sequence length starts a new epoch; give train.steps instead";
        notes.refuse(KEY, why);
    }
    if lengths.first().is_some_and(|(step, _)| *step != 0) {
        notes.refuse(&format!("{KEY}.0"), "the first step must be 0; for example [[0, 128], [300, 256]]");
    }
    for (index, pair) in lengths.windows(2).enumerate() {
        if pair[1].0 <= pair[0].0 {
            let message = format!("step {} does not come after step {}", pair[1].0, pair[0].0);
            notes.refuse(&format!("{KEY}.{}", index + 1), message);
        }
    }
    for (index, (step, tokens)) in lengths.iter().enumerate() {
        if let Some(context) = context.filter(|context| tokens > context) {
            let message = format!("{tokens} tokens are longer than the model's context length of {context}");
            notes.refuse(&format!("{KEY}.{index}"), message);
        }
        if *tokens < 2 {
            notes.refuse(&format!("{KEY}.{index}"), "a sequence needs at least 2 tokens");
        }
        if let Length::Steps(steps) = length
            && index > 0
            && *step >= steps
        {
            notes.refuse(&format!("{KEY}.{index}"), format!("unused: step {step} is never reached in {steps} steps"));
        }
    }
    lengths.iter().map(|(_, tokens)| *tokens).max()
}
