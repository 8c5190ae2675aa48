//! `[train]`: length, batch, optimizer and schedule, and the rules between them.

use crate::config::experiment::*;
use crate::config::written;
use crate::keys::notes::Notes;

/// Default of `train.micro_batch_tokens`.
const MICRO_BATCH_TOKENS: usize = 16384;

/// `[train]`; `context` is the model's, if it is known.
pub fn train(written: written::Train, context: Option<usize>, notes: &mut Notes<'_>) -> Train {
    let length = match (written.steps, written.epochs) {
        (Some(_), Some(_)) => {
            notes.refuse("train.epochs", "contradicts train.steps: give one of them");
            Length::Steps(0)
        }
        (Some(steps), None) => Length::Steps(steps),
        (None, Some(epochs)) => Length::Epochs(epochs),
        (None, None) => {
            if !notes.reported("train.epochs") {
                notes.missing("train.steps", "how long? give steps = 500 or epochs = 1");
            }
            Length::Steps(u64::MAX)
        }
    };
    let longest = longest(&written.context_schedule, context, length, notes);
    Train {
        length,
        batch: batch(written.batch, longest, length, notes),
        micro_batch_tokens: micro_batch_tokens(written.micro_batch_tokens, longest, notes),
        optimizer: optimizer(written.optimizer, length, notes),
        schedule: schedule(written.schedule, written.warmup, length, notes),
        context_schedule: written.context_schedule,
        recompute: written.recompute.unwrap_or(Recompute::None),
        max_bad_steps: written.max_bad_steps.unwrap_or(5),
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
        let why = "contradicts train.epochs: text that is cut to another length begins a new epoch; give train.steps";
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
            let message = format!("{tokens} tokens are longer than the model's context of {context}");
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

fn batch(written: Option<written::Batch>, longest: Option<usize>, length: Length, notes: &mut Notes<'_>) -> Batch {
    const EXAMPLE: &str = "for example batch = { tokens = 8192 } or batch = { sequences = 12 }";
    let Some(written) = written else {
        if length == Length::Steps(0) {
            return Batch::Tokens(MICRO_BATCH_TOKENS.max(longest.unwrap_or(1)));
        }
        notes.missing("train.batch", &format!("what does one step see? {EXAMPLE}"));
        return Batch::Tokens(0);
    };
    let given = [
        ("tokens", written.tokens.map(Batch::Tokens)),
        ("sequences", written.sequences.map(Batch::Sequences)),
        ("pairs", written.pairs.map(Batch::Pairs)),
        ("prompts", written.prompts.map(Batch::Prompts)),
    ];
    let mut given = given.into_iter().filter_map(|(name, batch)| Some((name, batch?)));
    let Some((first, batch)) = given.next() else {
        notes.missing("train.batch", EXAMPLE);
        return Batch::Tokens(0);
    };
    for (name, _) in given {
        let why = format!("contradicts train.batch.{first}: give one of them");
        notes.refuse(&format!("train.batch.{name}"), why);
    }
    if let Batch::Tokens(tokens) = batch
        && let Some(longest) = longest.filter(|longest| *longest > tokens)
    {
        let message = format!("{tokens} tokens hold no sequence of {longest}; raise it, or shorten the sequences");
        notes.refuse("train.batch.tokens", message);
    }
    batch
}

fn micro_batch_tokens(written: Option<usize>, longest: Option<usize>, notes: &mut Notes<'_>) -> usize {
    let longest = longest.unwrap_or(1);
    if let Some(tokens) = written.filter(|tokens| *tokens < longest) {
        let message = format!("{tokens} tokens hold no sequence of {longest}; raise it to {longest} or more");
        notes.refuse("train.micro_batch_tokens", message);
    }
    written.unwrap_or(MICRO_BATCH_TOKENS.max(longest))
}

fn optimizer(written: written::Optimizer, length: Length, notes: &mut Notes<'_>) -> Optimizer {
    // Without a step the rate is not used, so any value will do.
    let lr = written.lr.or((length == Length::Steps(0)).then_some(1e-3));
    if lr.is_none() {
        notes.missing("train.optimizer.lr", "the learning rate has no default; for example lr = 3e-4");
    }
    let mut groups = Vec::new();
    for (index, group) in written.groups.into_iter().enumerate() {
        let key = format!("train.optimizer.groups.{index}");
        match group.pattern.as_deref().map(glob::Pattern::new) {
            Some(Err(error)) => {
                notes.refuse(&format!("{key}.match"), format!("no glob: {error}; for example \"*embed*\""))
            }
            Some(Ok(_)) if group.lr_scale.is_none() && group.weight_decay.is_none() => {
                notes.refuse(&key, "unused: the group sets neither lr_scale nor weight_decay");
            }
            Some(Ok(_)) => {}
            None => notes.missing(&format!("{key}.match"), "which parameters? for example match = \"*embed*\""),
        }
        groups.push(Group {
            pattern: group.pattern.unwrap_or_default(),
            lr_scale: group.lr_scale.unwrap_or(1.0),
            weight_decay: group.weight_decay,
        });
    }
    let kind = written.kind.unwrap_or_default();
    let betas = match kind {
        OptimizerKind::Adamw => [0.9, 0.95],
        OptimizerKind::Muon => [0.95, 0.95],
    };
    Optimizer {
        kind,
        lr: lr.unwrap_or(0.0),
        betas: written.betas.unwrap_or(betas),
        eps: written.eps.unwrap_or(1e-8),
        weight_decay: written.weight_decay.unwrap_or(0.0),
        clip: written.clip.unwrap_or(1.0),
        groups,
    }
}

fn schedule(written: written::Schedule, short: Option<Span>, length: Length, notes: &mut Notes<'_>) -> Schedule {
    use ScheduleKind::{Constant, Wsd};
    if written.warmup.is_some() && short.is_some() {
        notes.refuse("train.warmup", "contradicts train.schedule.warmup: give one of them");
    }
    let kind = written.kind.unwrap_or_default();
    if kind == Constant && !notes.reported("train.schedule.kind") {
        notes.unused("train.schedule.min_lr_ratio", &written.min_lr_ratio, "a constant schedule has no floor");
    }
    if kind != Wsd && !notes.reported("train.schedule.kind") {
        notes.unused("train.schedule.decay", &written.decay, "only kind = \"wsd\" has a decay phase");
    }
    let warmup = written.warmup.or(short).unwrap_or(Span::Steps(0));
    let decay = (kind == Wsd).then(|| written.decay.unwrap_or(Span::Fraction(0.2)));
    let key = if written.warmup.is_some() || short.is_none() { "train.schedule.warmup" } else { "train.warmup" };
    check_phases(key, warmup, decay, length, notes);
    let min_lr_ratio = (kind != Constant).then(|| written.min_lr_ratio.unwrap_or(0.0));
    Schedule { kind, warmup, min_lr_ratio, decay }
}

/// Checks that warm-up and decay fit into the run.
fn check_phases(key: &str, warmup: Span, decay: Option<Span>, length: Length, notes: &mut Notes<'_>) {
    let decay = decay.unwrap_or(Span::Steps(0));
    if let (Span::Fraction(a), Span::Fraction(b)) = (warmup, decay)
        && a + b > 1.0
    {
        notes.refuse(key, format!("warm-up {a} and decay {b} are more than the whole run"));
        return;
    }
    let Length::Steps(steps) = length else { return };
    let (a, b) = (warmup.steps(steps), decay.steps(steps));
    if steps > 0 && a.saturating_add(b) > steps {
        let told = |span: Span, count: u64| match span {
            Span::Steps(_) => count.to_string(),
            Span::Fraction(part) => format!("{count} ({part} of the run)"),
        };
        let (warmup, decay) = (told(warmup, a), told(decay, b));
        let what = if b > 0 {
            format!("{warmup} steps of warm-up and {decay} of decay do")
        } else {
            format!("{warmup} steps of warm-up do")
        };
        notes.refuse(key, format!("{what} not fit into {steps} steps"));
    }
}
