//! Successive halving (Jamieson and Talwalkar 2016): which arms of a rung continue. What decides is read from the logs of the runs, so
//! a study that is resumed decides as before.

use std::path::Path;

use crate::{
    report::record::{RunRecord, state::State},
    runs::end::Ending,
};

/// The last value of a metric after step 0, and its step; `None` if there is none that is finite.
pub fn last(folder: &Path, metric: &str) -> Option<(u64, f64)> {
    last_up_to(&RunRecord::read(folder).ok()?, metric, u64::MAX)
}

/// The last value of a metric up to and including the rung of `steps` steps; `None` for a run that has not trained so far, for
/// example because it failed. One that ended as planned before it, such as by early stopping, counts.
pub fn score(folder: &Path, metric: &str, steps: u64) -> Option<f64> {
    let run = RunRecord::read(folder).ok()?;
    let has_ended = match &run.state {
        State::Complete => true,
        State::Ended(end) => matches!(end.ending, Ending::Done | Ending::Early),
        State::Running | State::Lost => false,
    };
    let counts = run.step >= steps || has_ended;
    last_up_to(&run, metric, steps).filter(|_| counts).map(|(_, value)| value)
}

/// The value at step 0 is that of the untrained model.
fn last_up_to(run: &RunRecord, metric: &str, step: u64) -> Option<(u64, f64)> {
    let (at, value) = run.metrics.get(metric)?.iter().rfind(|(at, _)| *at > 0.0 && *at <= step as f64)?;
    // A value that is not finite is not replaced by an earlier one: the arm has diverged.
    value.is_finite().then_some((*at as u64, *value))
}

/// The mean of the values of an arm's runs; `None` if one is missing, so that an arm of which a run failed does not continue.
pub fn mean(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let values = values.collect::<Option<Vec<f64>>>()?;
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The positions of the best 1/factor of the scores, rounded up, in their order; an arm without a score never continues. The first of
/// equal ones is preferred.
pub fn survivors(scores: &[Option<f64>], factor: u64, larger_is_better: bool) -> Vec<usize> {
    let mut ranked: Vec<(usize, f64)> =
        scores.iter().enumerate().filter_map(|(at, score)| Some((at, (*score)?))).collect();
    ranked.sort_by(|a, b| if larger_is_better { b.1.total_cmp(&a.1) } else { a.1.total_cmp(&b.1) });
    ranked.truncate(scores.len().div_ceil(usize::try_from(factor).unwrap_or(usize::MAX)));
    let mut kept: Vec<usize> = ranked.into_iter().map(|(at, _)| at).collect();
    kept.sort_unstable();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runs::end::RunEnd;

    /// Catches a sort in the wrong direction, a rung that keeps one too few or too many, and an arm that failed and continues.
    #[test]
    fn the_best_part_of_a_rung_continues() {
        let scores = [Some(3.0), Some(1.0), None, Some(2.0), Some(5.0)];
        assert_eq!(survivors(&scores, 2, false), [0, 1, 3]);
        assert_eq!(survivors(&scores, 3, true), [0, 4]);
        assert_eq!(survivors(&scores, 10, false), [1]);
        assert_eq!(survivors(&[None, None, Some(1.0)], 1, false), [2]);
        assert_eq!(survivors(&[Some(1.0), Some(1.0)], 2, true), [0]);
    }

    /// Catches a mean over the seeds that did not fail, which would favour an arm whose bad seeds fail.
    #[test]
    fn an_arm_with_a_failed_run_has_no_score() {
        assert_eq!(mean([Some(1.0), Some(2.0)].into_iter()), Some(1.5));
        assert_eq!(mean([Some(1.0), None].into_iter()), None);
        assert_eq!(mean([].into_iter()), None);
    }

    /// Catches a value from after the rung, by which a study that is resumed would decide otherwise than before, that of the
    /// untrained model, and an arm that failed or diverged before the rung and continues by an early value.
    #[test]
    fn only_values_up_to_the_rung_count() {
        let folder = tempfile::tempdir().unwrap();
        let lines = [(0, 3.0), (4, 2.0), (8, 1.0)].map(|(step, loss)| {
            format!(
                "{{\"step\":{step},\"kind\":\"train\",\"loss\":1}}\n{{\"step\":{step},\"kind\":\"eval\",\"eval/loss\":{loss}}}\n"
            )
        });
        let diverged = "{\"step\":6,\"kind\":\"eval\",\"eval/loss\":null}\n";
        let lines = [&lines[0], &lines[1], diverged, &lines[2]];
        std::fs::write(folder.path().join("metrics.jsonl"), lines.concat()).unwrap();
        let at = |step| score(folder.path(), "eval/loss", step);
        assert_eq!((at(3), at(4), at(5), at(7), at(8)), (None, Some(2.0), Some(2.0), None, Some(1.0)));
        assert_eq!((score(folder.path(), "eval/other", 8), last(folder.path(), "eval/loss")), (None, Some((8, 1.0))));
        // It has not reached this rung, until it is known that it ended as planned.
        assert_eq!(at(16), None);
        RunEnd::now(Ending::Failed, 8).write(folder.path()).unwrap();
        assert_eq!(at(16), None);
        RunEnd::now(Ending::Early, 8).write(folder.path()).unwrap();
        assert_eq!(at(16), Some(1.0));
    }
}
