//! `[train.schedule]`: learning rate and context length as functions of the step. No state, so a resumed run has nothing to restore.

use std::{f64::consts::PI, ops::Bound::Included};

use serde::{Deserialize, Serialize};

use crate::keys::{Form, notes::Notes, table, words};

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

    /// Whether the rate after the warm-up depends on the length of the run. If it does not, a longer run keeps the rates of a
    /// shorter one.
    pub fn depends_on_length(self) -> bool {
        !matches!(self, ScheduleKind::Constant | ScheduleKind::InverseSqrt)
    }
}

table! {
    /// learning rate over the run: one of the words, or a table with the keys below
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

/// Returns the learning rate of a step as a fraction of the peak.
///
/// Steps count from 0 to `total - 1`. Warm-up rises linearly and reaches the peak at its last step, so that the first step
/// already learns. Afterwards, with `p` from 0 to below 1 over the rest: linear `1 - (1 - floor) p`; cosine
/// `floor + (1 - floor) (1 + cos(pi p)) / 2` (Loshchilov and Hutter 2017); wsd stays at 1 and falls linearly to the floor
/// over its last `decay` steps (Hu et al. 2024); inverse_sqrt is `sqrt(warmup / s)` at step `s`, counted from 1 (Vaswani et
/// al. 2017, equation 3; a warm-up of 0 counts as 1), at least the floor.
pub fn rate(schedule: &Schedule, step: u64, total: u64) -> f64 {
    let warmup = schedule.warmup.steps(total).min(total);
    if step < warmup {
        return (step + 1) as f64 / warmup as f64;
    }
    let floor = schedule.min_lr_ratio.unwrap_or(0.0);
    let fall = |start: u64| (step.saturating_sub(start)) as f64 / (total.saturating_sub(start)).max(1) as f64;
    match schedule.kind {
        ScheduleKind::Constant => 1.0,
        ScheduleKind::Linear => 1.0 - (1.0 - floor) * fall(warmup),
        ScheduleKind::Cosine => floor + (1.0 - floor) * 0.5 * (1.0 + (PI * fall(warmup)).cos()),
        ScheduleKind::InverseSqrt => (warmup.max(1) as f64 / (step + 1) as f64).sqrt().max(floor),
        ScheduleKind::Wsd => {
            let decay = schedule.decay.map_or(0, |span| span.steps(total));
            1.0 - (1.0 - floor) * fall(total.saturating_sub(decay).max(warmup))
        }
    }
}

/// Returns the context length of a step: that of the last entry at or before it, or the model's.
pub fn context_at(schedule: Option<&[(u64, usize)]>, step: u64, model_context: usize) -> usize {
    let entries = schedule.unwrap_or_default();
    entries.iter().take_while(|(from, _)| *from <= step).last().map_or(model_context, |(_, length)| *length)
}

/// Resolves `[train.schedule]`; `short` is `train.warmup`, `steps` the length of the run if it is given in
/// steps.
pub fn resolve(written: Written, short: Option<Span>, steps: Option<u64>, notes: &mut Notes<'_>) -> Schedule {
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
    check_phases(key, warmup, decay, steps, notes);
    let min_lr_ratio = kind.has_floor().then(|| written.min_lr_ratio());
    Schedule { kind, warmup, min_lr_ratio, decay }
}

/// Checks that warm-up and decay fit into the run.
fn check_phases(key: &str, warmup: Span, decay: Option<Span>, steps: Option<u64>, notes: &mut Notes<'_>) {
    let decay = decay.unwrap_or(Span::Steps(0));
    if let (Span::Fraction(a), Span::Fraction(b)) = (warmup, decay)
        && a + b > 1.0
    {
        notes.refuse(key, format!("warm-up {a} and decay {b} exceed the whole run"));
        return;
    }
    let Some(steps) = steps else { return };
    let (a, b) = (warmup.steps(steps), decay.steps(steps));
    if steps > 0 && a.saturating_add(b) > steps {
        let shown = |span: Span, count: u64| match span {
            Span::Steps(_) => count.to_string(),
            Span::Fraction(part) => format!("{count} ({part} of the run)"),
        };
        let (warmup, decay) = (shown(warmup, a), shown(decay, b));
        let what = if b > 0 {
            format!("{warmup} steps of warm-up and {decay} of decay do")
        } else {
            format!("{warmup} steps of warm-up do")
        };
        notes.refuse(key, format!("{what} not fit into {steps} steps"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(kind: ScheduleKind, warmup: u64, floor: f64, decay: Option<u64>) -> Schedule {
        Schedule { kind, warmup: Span::Steps(warmup), min_lr_ratio: Some(floor), decay: decay.map(Span::Steps) }
    }

    fn rates(s: &Schedule, total: u64) -> Vec<f64> {
        (0..total).map(|step| rate(s, step, total)).collect()
    }

    /// Catches a warm-up that starts at 0 (a wasted step) or overshoots, and a decay that begins before the peak.
    #[test]
    fn warm_up_reaches_the_peak_once_and_then_falls_to_the_floor() {
        for kind in [ScheduleKind::Linear, ScheduleKind::Cosine] {
            let all = rates(&schedule(kind, 4, 0.1, None), 1000);
            assert_eq!(all[..4], [0.25, 0.5, 0.75, 1.0]);
            assert_eq!(all[4], 1.0);
            assert!(all[4..].windows(2).all(|w| w[1] <= w[0]), "{kind:?}");
            assert!((all[999] - 0.1).abs() < 2e-3 && all[999] >= 0.1, "{kind:?} {}", all[999]);
        }
    }

    #[test]
    fn cosine_is_halfway_down_halfway_through() {
        let s = schedule(ScheduleKind::Cosine, 0, 0.0, None);
        assert!((rate(&s, 50, 100) - 0.5).abs() < 1e-12);
        assert!((rate(&s, 25, 100) - 0.5 * (1.0 + (PI / 4.0).cos())).abs() < 1e-12);
    }

    #[test]
    fn wsd_stays_at_the_peak_until_its_decay() {
        let all = rates(&schedule(ScheduleKind::Wsd, 2, 0.0, Some(4)), 10);
        assert_eq!(all, [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25]);
    }

    /// Catches a rate that does not begin at the peak after the warm-up, and one that depends on the length of the run.
    #[test]
    fn inverse_sqrt_falls_with_the_root_of_the_step_to_its_floor() {
        let all = rates(&schedule(ScheduleKind::InverseSqrt, 4, 0.2, None), 1000);
        assert_eq!((all[3], all[15], all[63], all[999]), (1.0, 0.5, 0.25, 0.2));
        assert_eq!(all[..50], rates(&schedule(ScheduleKind::InverseSqrt, 4, 0.2, None), 50));
        assert_eq!(rates(&schedule(ScheduleKind::InverseSqrt, 0, 0.0, None), 4)[3], 0.5);
    }

    #[test]
    fn a_warm_up_as_long_as_the_run_never_divides_by_zero() {
        for kind in [
            ScheduleKind::Constant,
            ScheduleKind::Linear,
            ScheduleKind::Cosine,
            ScheduleKind::Wsd,
            ScheduleKind::InverseSqrt,
        ] {
            assert!(rates(&schedule(kind, 10, 0.0, Some(3)), 5).iter().all(|r| r.is_finite()));
        }
    }

    #[test]
    fn context_follows_the_last_entry_at_or_before_the_step() {
        let entries = [(0, 64), (10, 128)];
        let at = |step| context_at(Some(&entries), step, 256);
        assert_eq!([at(0), at(9), at(10), at(99)], [64, 64, 128, 128]);
        assert_eq!(context_at(None, 5, 256), 256);
    }
}
