//! Successive halving (Jamieson and Talwalkar 2016): which arms of a rung continue. What decides is read from the logs of the runs, so
//! a study that is resumed decides as before.

use std::path::Path;

use crate::report::record::RunRecord;

/// The last value of a metric up to and including `step`, and its step; `None` if there is none that is finite.
pub fn value(folder: &Path, metric: &str, step: u64) -> Option<(u64, f64)> {
    let run = RunRecord::read(folder).ok()?;
    let points = run.metrics.get(metric)?;
    let (at, value) = points.iter().rfind(|(at, value)| *at <= step as f64 && value.is_finite())?;
    Some((*at as u64, *value))
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

    /// Catches a value from after the rung, by which a study that is resumed would decide otherwise than before.
    #[test]
    fn only_values_up_to_the_rung_count() {
        let folder = tempfile::tempdir().unwrap();
        let lines = [(0, 3.0), (4, 2.0), (8, 1.0)]
            .map(|(step, loss)| format!("{{\"step\":{step},\"kind\":\"eval\",\"eval/loss\":{loss}}}\n"));
        let diverged = "{\"step\":6,\"kind\":\"eval\",\"eval/loss\":null}\n";
        let lines = [&lines[0], &lines[1], diverged, &lines[2]];
        std::fs::write(folder.path().join("metrics.jsonl"), lines.concat()).unwrap();
        let at = |step| value(folder.path(), "eval/loss", step);
        assert_eq!((at(3), at(4), at(7), at(99)), (Some((0, 3.0)), Some((4, 2.0)), Some((4, 2.0)), Some((8, 1.0))));
        assert_eq!(value(folder.path(), "eval/other", 9), None);
    }
}
