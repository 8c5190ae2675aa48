//! `[train.schedule]`: the learning rate over the run. Its formulas are in `train/optimizer/schedule.rs`.

use std::ops::Bound::Included;

use serde::{Deserialize, Serialize};

use super::length::Length;
use crate::keys::notes::Notes;
use crate::keys::{Form, table, words};

words! {
    /// Shape of a schedule.
    #[derive(Default)]
    pub enum ScheduleKind {
        /// Constant at the peak.
        #[default]
        Constant = "constant",
        /// Linear decay to the floor.
        Linear = "linear",
        /// Half a cosine, down to the floor.
        Cosine = "cosine",
        /// Warm-up, stable, linear decay to the floor.
        Wsd = "wsd",
        /// The square root of warm-up over step.
        InverseSqrt = "inverse_sqrt",
    }
}

impl ScheduleKind {
    /// Whether the rate falls to `min_lr_ratio`.
    fn has_floor(self) -> bool {
        self != ScheduleKind::Constant
    }

    /// Whether the last phase is `decay`.
    fn has_decay(self) -> bool {
        self == ScheduleKind::Wsd
    }

    /// Whether the rate after the warm-up depends on the length of the run. Where it does not, a longer run keeps the rates of a
    /// shorter one.
    pub fn depends_on_length(self) -> bool {
        !matches!(self, ScheduleKind::Constant | ScheduleKind::InverseSqrt)
    }
}

table! {
    /// learning rate over the run: a word, or a table with the keys below
    pub struct Written at "train.schedule": Form::WordOrTable(ScheduleKind::WORDS), default "\"constant\"",
        example "cosine" {
        /// constant, linear (to the floor), cosine (to the floor), wsd (warm-up, stable, linear decay), inverse_sqrt
        /// (root of warm-up over step)
        kind: ScheduleKind, Form::Word(ScheduleKind::WORDS), default "\"constant\"", example "cosine";
        /// linear warm-up from 0: steps (integer) or fraction of the run (number below 1)
        warmup: Span, Form::Span, default "0", example 0.1;
        /// floor as a fraction of lr (linear, cosine, wsd, inverse_sqrt)
        min_lr_ratio: f64 = 0.0, Form::Float(Included(0.0), Included(1.0)), example 0.1;
        /// length of the last phase of wsd: steps or fraction
        decay: Span, Form::Span, default "0.2", example 0.2;
    }
}

/// Learning rate over the run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Schedule {
    /// Its shape.
    pub kind: ScheduleKind,
    /// Linear warm-up from 0.
    pub warmup: Span,
    /// Floor as a fraction of lr; absent for constant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_lr_ratio: Option<f64>,
    /// Length of the last phase of wsd; absent for the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decay: Option<Span>,
}

/// A number of steps.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Span {
    /// This many steps.
    Steps(u64),
    /// A fraction of all steps, above 0 and below 1.
    Fraction(f64),
}

impl Span {
    /// The number of steps, out of `total`; a fraction is rounded to the nearest step.
    pub fn steps(self, total: u64) -> u64 {
        match self {
            Span::Steps(steps) => steps,
            Span::Fraction(part) => (part * total as f64).round() as u64,
        }
    }
}

/// Resolves `[train.schedule]`; `short` is `train.warmup`.
pub fn resolve(written: Written, short: Option<Span>, length: Length, notes: &mut Notes<'_>) -> Schedule {
    if written.warmup.is_some() && short.is_some() {
        notes.refuse("train.warmup", "contradicts train.schedule.warmup: give one of them");
    }
    let kind = written.kind.unwrap_or_default();
    if !kind.has_floor() && !notes.reported("train.schedule.kind") {
        notes.unused("train.schedule.min_lr_ratio", &written.min_lr_ratio, "a constant schedule has no floor");
    }
    if !kind.has_decay() && !notes.reported("train.schedule.kind") {
        notes.unused("train.schedule.decay", &written.decay, "only kind = \"wsd\" has a decay phase");
    }
    let warmup = written.warmup.or(short).unwrap_or(Span::Steps(0));
    let decay = kind.has_decay().then(|| written.decay.unwrap_or(Span::Fraction(0.2)));
    let key = if written.warmup.is_some() || short.is_none() { "train.schedule.warmup" } else { "train.warmup" };
    check_phases(key, warmup, decay, length, notes);
    let min_lr_ratio = kind.has_floor().then(|| written.min_lr_ratio());
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
