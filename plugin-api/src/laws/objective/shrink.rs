//! The smallest window that still breaks a law: fewer sequences first, then fewer tokens of each.

use super::{Case, Fault, Outcome, sequences};
use crate::{
    Result,
    batch::{Batch, Scope, names},
    export::guard,
};

/// What is left of a window: sequences by their number, and of each its last tokens.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cut {
    sequences: Vec<usize>,
    lengths: Vec<usize>,
}

impl Cut {
    fn whole(window: &Batch<'_>) -> Result<Self> {
        let lengths: Vec<usize> = window.offsets()?.windows(2).map(|w| w[1] - w[0]).collect();
        Ok(Self { sequences: (0..lengths.len()).collect(), lengths })
    }

    /// The part of `window`.
    pub(super) fn of(&self, window: &Batch<'_>) -> Result<Batch<'static>> {
        sequences::last_tokens(&sequences::select(window, &self.sequences)?, &self.lengths)
    }

    fn without(&self, unit: &[usize]) -> Self {
        let kept: Vec<usize> = (0..self.sequences.len()).filter(|i| !unit.contains(&self.sequences[*i])).collect();
        Self {
            sequences: kept.iter().map(|i| self.sequences[*i]).collect(),
            lengths: kept.iter().map(|i| self.lengths[*i]).collect(),
        }
    }

    fn shorter(&self, sequence: usize) -> Self {
        let mut lengths = self.lengths.clone();
        lengths[sequence] -= 1;
        Self { lengths, ..self.clone() }
    }
}

/// The fault of the smallest window that breaks `law` in the same way, and the window in words; the first fault where no
/// single window breaks it.
pub(super) fn smallest(
    case: &Case<'_>,
    name: &str,
    law: &dyn Fn(&Case<'_>) -> Outcome,
    first: Fault,
) -> (Fault, Option<String>) {
    let broken = |draw: u64, cut: Option<Cut>| {
        let smaller = case.only(draw, cut);
        let outcome = guard::catch("", name, || Ok(law(&smaller)));
        let fault = match outcome {
            Ok(outcome) => outcome.err()?,
            Err(panic) => Fault::from(panic.to_string()),
        };
        (kind(&fault) == kind(&first)).then_some(fault)
    };
    let Some((draw, mut fault)) = case.windows().find_map(|draw| Some((draw, broken(draw, None)?))) else {
        return (first, None);
    };
    let found = (|| {
        let window = case.only(draw, None).data(draw);
        let mut cut = Cut::whole(&window).ok()?;
        for unit in sequences::units(&window).ok()? {
            let fewer = cut.without(&unit);
            if !fewer.sequences.is_empty()
                && let Some(same) = broken(draw, Some(fewer.clone()))
            {
                (cut, fault) = (fewer, same);
            }
        }
        for sequence in 0..cut.sequences.len() {
            while cut.lengths[sequence] > 1
                && let Some(same) = broken(draw, Some(cut.shorter(sequence)))
            {
                (cut, fault) = (cut.shorter(sequence), same);
            }
        }
        Some(cut)
    })();
    let Some(cut) = found else { return (fault, None) };
    if let Some(shown) = fault.at.clone() {
        return (fault, Some(shown));
    }
    let smaller = case.only(draw, Some(cut));
    let ready = guard::catch("", "prepare", || smaller.ready(draw).map(|(_, batch)| batch));
    let window = ready.unwrap_or_else(|_| smaller.data(draw));
    (fault, Some(describe(&window)))
}

/// What a fault says before its first number: a smaller window must break the law in the same way.
fn kind(fault: &Fault) -> &str {
    fault.text.split(|c: char| c.is_ascii_digit()).next().unwrap_or_default()
}

/// Numbers of an array that are shown.
const SHOWN: usize = 12;

/// A window in one line: lengths, then every array with what it holds.
pub(super) fn describe(window: &Batch<'_>) -> String {
    let offsets = window.offsets().unwrap_or_default();
    let lengths: Vec<String> = offsets.windows(2).map(|w| (w[1] - w[0]).to_string()).collect();
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    let mut text = match lengths.as_slice() {
        [] => "no sequence".to_owned(),
        [one] => format!("1 sequence of {one} token{}", if one == "1" { "" } else { "s" }),
        all => format!("{} sequence{} of {} tokens", all.len(), plural(all.len()), all.join(", ")),
    };
    let told = |name: &str| ![names::OFFSETS, names::TARGET, names::POSITION].contains(&name);
    for array in window.arrays().iter().filter(|a| told(&a.name) && a.scope != Scope(0)) {
        let numbers: Vec<String> = array.data.iter().take(SHOWN).map(|x| short(*x)).collect();
        let more = array.data.len().saturating_sub(SHOWN);
        let more = if more > 0 { format!(", {more} more") } else { String::new() };
        text.push_str(&format!("; {} [{}{more}]", array.name, numbers.join(", ")));
    }
    text
}

/// Four digits are enough to build the case again.
fn short(x: f64) -> String {
    if x == x.trunc() && x.abs() < 1e6 { format!("{x}") } else { format!("{x:.4}") }
}
