//! Runs all backends in one process, in rounds. The order rotates by one each round, so that other load on the
//! machine affects all of them equally.

use std::{collections::BTreeMap, thread, time::Duration};

use super::{
    backend_run::BackendRun,
    deaths::mark::Work,
    peak::{self, Peak},
};
use crate::{device::profile::Cost, runs::Progress};

/// Least number of steps per backend whose operations are timed, after the compared steps.
pub const PROFILED: u64 = 5;

/// Number of times the peak is measured.
const PEAK_PASSES: usize = 5;

/// The measurements of one backend.
#[derive(Debug, Clone, Default)]
pub struct Measured {
    /// Positions per second, by round; by rollout if answers are sampled and a rollout after the first is whole.
    pub tokens_per_second: Vec<f64>,
    /// Whether these are the speeds of whole rollouts; `None` if nothing is sampled.
    pub whole_rollouts: Option<bool>,
    /// Profiled steps.
    pub profiled_steps: u64,
    /// Costs of the operations of all profiled steps.
    pub costs: BTreeMap<&'static str, Cost>,
    /// Seconds of the profiled steps, including the time between operations.
    pub profiled_seconds: f64,
    /// Positions of the profiled steps.
    pub profiled_tokens: u64,
    /// Most bytes in live handles.
    pub memory_peak: u64,
    /// The fastest product.
    pub peak: Option<Peak>,
}

/// Runs all backends for `steps` steps. The first step is the warm-up; the others are timed, in at most `rounds`
/// rounds.
pub fn run(runs: &mut [BackendRun], steps: u64, rounds: u64, progress: &Progress) -> Vec<Measured> {
    let mut measured = vec![Measured::default(); runs.len()];
    in_turns(runs, 0, |_, run| _ = run.run_steps(1, true));
    let mut done = 1;
    for (round, count) in shares(steps - 1, rounds).into_iter().enumerate() {
        in_turns(runs, round, |index, run| {
            if let Some((tokens, seconds)) = run.run_steps(count, true) {
                measured[index].tokens_per_second.push(tokens as f64 / seconds.max(1e-9));
            }
        });
        done += count;
        report(runs, &measured, done, progress);
    }
    for (run, own) in runs.iter().zip(&mut measured) {
        own.whole_rollouts = run.rollouts.any().then(|| !run.rollouts.speeds().is_empty());
        if own.whole_rollouts == Some(true) {
            own.tokens_per_second = run.rollouts.speeds();
        }
    }
    // As many steps as whole rollouts have, so that sampling has its share of them.
    let profiled = |run: &BackendRun| PROFILED.next_multiple_of(run.rollouts.steps().unwrap_or(1).max(1));
    let profiled: Vec<u64> = runs.iter().map(profiled).collect();
    for pass in 0..profiled.iter().copied().max().unwrap_or(0) {
        in_turns(runs, pass as usize, |index, run| {
            if pass >= profiled[index] {
                return;
            }
            run.record.pause(false);
            if let Some((tokens, seconds)) = run.run_steps(1, false) {
                measured[index].profiled_steps += 1;
                measured[index].profiled_seconds += seconds;
                measured[index].profiled_tokens += tokens;
            }
            run.record.pause(true);
        });
    }
    for (run, own) in runs.iter().zip(&mut measured) {
        own.costs = run.record.costs();
        run.begin(Work::Steps).backend("memory");
        own.memory_peak = run.learner().map_or(0, |learner| learner.device.memory().peak);
    }
    for pass in 0..PEAK_PASSES {
        in_turns(runs, pass, |index, run| {
            if !run.measures_peak {
                return;
            }
            run.begin(Work::Peak).backend("peak");
            // A device whose memory the model fills has no room for the measurement.
            let found = run.learner().and_then(|learner| peak::measure(&learner.device).ok());
            measured[index].peak = measured[index].peak.take().into_iter().chain(found).reduce(Peak::faster);
        });
    }
    measured
}

/// Pause before a turn: after it, the waiting threads of another backend's library have gone to sleep.
const SETTLE: Duration = Duration::from_millis(30);

/// Calls `turn` for each backend, in the order of the round.
fn in_turns(runs: &mut [BackendRun], round: usize, mut turn: impl FnMut(usize, &mut BackendRun)) {
    let count = runs.len();
    for place in 0..count {
        let index = (place + round) % count;
        if count > 1 {
            thread::sleep(SETTLE);
        }
        turn(index, &mut runs[index]);
    }
}

/// Divides `steps` into at most `rounds` parts whose sizes differ by at most one; no part is empty.
fn shares(steps: u64, rounds: u64) -> Vec<u64> {
    let rounds = rounds.min(steps).max(1);
    (0..rounds).map(|round| steps * (round + 1) / rounds - steps * round / rounds).collect()
}

fn report(runs: &[BackendRun], measured: &[Measured], step: u64, progress: &Progress) {
    if let Some((run, own)) = runs.iter().zip(measured).find(|(run, _)| run.failure.is_none())
        && let (Some(loss), Some(speed)) = (run.curve.loss.last(), own.tokens_per_second.last())
    {
        progress.step(step, *loss, &[], *speed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches steps that are lost or done twice, and rounds without a step.
    #[test]
    fn every_step_is_in_one_round() {
        assert_eq!(shares(19, 5), [3, 4, 4, 4, 4]);
        assert_eq!(shares(2, 5), [1, 1]);
        assert_eq!(shares(7, 1), [7]);
        for (steps, rounds) in [(1, 1), (49, 5), (199, 7)] {
            assert_eq!(shares(steps, rounds).iter().sum::<u64>(), steps);
        }
    }
}
