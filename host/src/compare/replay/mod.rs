//! Replays one step of a backend and compares every operation with the f64 reference, to find the first one that
//! differs.

pub mod audit;

use plugin_api::{backend::Session, manifest::kind};
use plugin_api_load::Library;
use serde::Serialize;

use super::{
    backend_run::{Entry, Opened, one_line, take_step},
    deaths::mark::Work,
};
use crate::{
    data::{PackedBatch, Sequence, TrainingData, batches::pack::pack},
    error::{Error, Result},
    objectives::micro_batch::unpack,
    runs::breadcrumb,
    train::learner::Learner,
};
use audit::{Audited, Verdict};

/// Id of the backend that the others are compared with.
pub const REFERENCE: &str = "reference";

/// Floating-point operations that a replayed step may have, at 6 per token and parameter: about 20 seconds of the
/// reference's plain loops.
const BUDGET: f64 = 1e11;

/// The replayed step of one backend.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Replay {
    /// The step, counted from 1.
    pub step: u64,
    /// How many of its positions were replayed.
    pub tokens: u64,
    /// The number of its positions.
    pub tokens_of_step: u64,
    /// The result; `None` if the step was not replayed.
    pub verdict: Option<Verdict>,
    /// Why it was not replayed.
    pub skipped: Option<String>,
}

impl Replay {
    /// Returns a step that is not replayed, with the reason.
    pub fn skipped(step: u64, why: impl Into<String>) -> Replay {
        Replay { step, tokens: 0, tokens_of_step: 0, verdict: None, skipped: Some(why.into()) }
    }
}

/// Loads the reference's library.
///
/// # Errors
/// Those of the registry if it is not installed.
pub fn library(entry: &Entry) -> Result<Library> {
    breadcrumb::within(REFERENCE, "open", || entry.setup.registry.load(kind::BACKEND, REFERENCE))
}

/// Trains a backend from the initial weights up to `step` (counted from 1) and replays that step. Any failure only
/// leaves the step unreplayed: the comparison itself is complete by then.
pub fn replay(entry: &Entry, reference: &Library, step: u64, data: &TrainingData, tag: u16) -> Replay {
    let options = plugin_api::backend::SessionOptions { tag: tag + 1, ..Default::default() };
    entry.mark.of(Work::Replay).begin(step);
    let audited = breadcrumb::within(REFERENCE, "session", || reference.session(&options))
        .map_err(Error::from)
        .and_then(|reference| audit(entry, Box::new(reference), step, data, tag));
    audited.unwrap_or_else(|error| Replay::skipped(step, one_line(&error)))
}

fn audit(entry: &Entry, reference: Box<dyn Session>, step: u64, data: &TrainingData, tag: u16) -> Result<Replay> {
    let mark = entry.mark.of(Work::Replay);
    let (session, audit) = Audited::wrap(entry.setup.session(tag)?, reference, entry.dtype());
    let mut opened = entry.open(session, data)?;
    let Opened { learner, steps: total, .. } = &mut opened;
    for earlier in 0..step - 1 {
        take_step(learner, earlier, *total, &mark)?;
    }
    let marker = mark.begin(step);
    let window = learner.window(step - 1, &marker)?;
    let tokens_of_step = window.iter().map(PackedBatch::len).sum::<usize>() as u64;
    let window = affordable(window, learner)?;
    audit.replay(true);
    let (_, gradient) = learner.gradient(&window, &marker)?;
    if gradient.finite {
        learner.update(learner.learning_rate(step - 1, *total), step)?;
    }
    audit.replay(false);
    let tokens = window.iter().map(PackedBatch::len).sum::<usize>() as u64;
    Ok(Replay { step, tokens, tokens_of_step, verdict: Some(audit.verdict()), skipped: None })
}

/// The part of a window that the reference computes in reasonable time: all of it, or else the beginning of its
/// first micro-batch.
fn affordable(window: Vec<PackedBatch>, learner: &Learner) -> Result<Vec<PackedBatch>> {
    let most = (BUDGET / (6.0 * learner.model.layout().count().max(1) as f64)).max(2.0) as usize;
    let tokens: usize = window.iter().map(PackedBatch::len).sum();
    match window.first() {
        Some(first) if tokens > most => Ok(vec![pack(&beginning(unpack(first), most))?]),
        _ => Ok(window),
    }
}

/// The first sequences that have at most `most` positions in total, the last of them truncated; at least one
/// sequence.
fn beginning(sequences: Vec<Sequence>, most: usize) -> Vec<Sequence> {
    let mut left = most;
    let mut kept = Vec::new();
    for mut sequence in sequences {
        let length = sequence.positions().min(left);
        if length == 0 {
            break;
        }
        left -= length;
        sequence.ids.truncate(length + 1);
        sequence.supervised.truncate(length + 1);
        let positions = sequence.positions();
        for (name, values) in &mut sequence.per_token {
            values.truncate(positions * sequence.widths.get(name).copied().unwrap_or(1));
        }
        kept.push(sequence);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(tokens: u32) -> Sequence {
        let ids: Vec<u32> = (0..tokens).collect();
        Sequence { supervised: vec![true; ids.len()], ids, ..Default::default() }
    }

    /// Catches a truncation that counts tokens instead of positions, drops the flags, or leaves a sequence without
    /// a target.
    #[test]
    fn the_last_sequence_is_truncated_to_fit() {
        let lengths = |most| -> Vec<usize> {
            let kept = beginning(vec![sequence(6), sequence(4)], most);
            assert!(kept.iter().all(|s| s.ids.len() == s.supervised.len()));
            kept.iter().map(Sequence::positions).collect()
        };
        assert_eq!(lengths(100), [5, 3]);
        assert_eq!(lengths(7), [5, 2]);
        assert_eq!(lengths(5), [5]);
        assert_eq!(lengths(3), [3]);
    }
}
