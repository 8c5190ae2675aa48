//! How many steps fit into the given time: a short run of the same pipeline measures this machine.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::experiment::{EVALUATIONS, Length, MOST_START_STEPS, Recipe, Stages};
use crate::error::{Error, Result};

/// The short run.
pub const PROBE: Length = Length { start: 6, steps: 6, answers: 64 };
/// Held-out prompts that are answered in an evaluation of a trial.
const ANSWERS: u64 = 200;
/// The share of the time that the start may take.
const START_SHARE: f64 = 0.35;
/// The share of the time that the start and a teacher may take together.
const TEACHER_SHARE: f64 = 0.5;
/// The fewest steps, whatever the time.
const FEWEST: u64 = 12;
/// The fewest steps of the start: with less, the model answers nothing right, and no objective can be compared.
const FEWEST_START: u64 = 200;

/// Seconds of one step and of one evaluation.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Cost {
    step: f64,
    evaluation: f64,
}

/// The length of a trial that takes about `seconds`, by the times in the logs of the short run in `folder`.
///
/// # Errors
/// A log that cannot be read.
pub fn length(recipe: &Recipe, stages: &Stages, folder: &Path, seconds: u64) -> Result<Length> {
    let cost = |stage: &String| cost(&folder.join(stage).join("timing.jsonl"));
    let start = stages.start.iter().chain(&stages.teacher).map(cost).collect::<Result<Vec<Cost>>>()?;
    let runs = [cost(&stages.runs[0])?, cost(&stages.runs[1])?];
    let gold = stages.gold.iter().flatten().map(cost).collect::<Result<Vec<Cost>>>()?;
    // An evaluation that draws no answers is as long in the short run.
    let more = if stages.gold.is_some() || !stages.writes { 1.0 } else { MORE };
    Ok(fit(
        recipe.most_steps,
        &start,
        runs.map(|run| Cost { evaluation: more * run.evaluation, ..run }),
        &gold,
        seconds as f64,
    ))
}

/// How many times longer an evaluation of answers is than in the short run; in truth less, since they are drawn a few
/// at a time.
const MORE: f64 = ANSWERS as f64 / PROBE.answers as f64;

/// The length that fits, by the costs of the start and the teacher in the short run, of the two objectives in the trial, and of
/// measuring the true reward in the short run.
fn fit(most: u64, start: &[Cost], runs: [Cost; 2], gold: &[Cost], seconds: f64) -> Length {
    let mut left = seconds - gold.iter().map(|gold| MORE * gold.evaluation).sum::<f64>();
    let mut start_steps = 0;
    if !start.is_empty() {
        let evaluations = start.iter().map(|cost| 2.0 * MORE * cost.evaluation).sum::<f64>();
        let step = start.iter().map(|cost| cost.step).sum::<f64>();
        let share = if start.len() > 1 { TEACHER_SHARE } else { START_SHARE };
        let own = share * seconds - evaluations;
        start_steps = steps(own, step).clamp(FEWEST_START, MOST_START_STEPS);
        left -= evaluations + start_steps as f64 * step;
    }
    let evaluations = (EVALUATIONS + 1) as f64;
    left -= runs.iter().map(|run| evaluations * run.evaluation).sum::<f64>();
    let both = runs.iter().map(|run| run.step).sum::<f64>();
    // A multiple of the evaluations, so that the last one is at the end.
    let steps = steps(left, both).min(most) / EVALUATIONS * EVALUATIONS;
    Length { start: start_steps, steps, answers: ANSWERS }
}

/// Whole steps, at least the fewest; two digits, since the measured time has no more.
fn steps(seconds: f64, each: f64) -> u64 {
    let fitting = (seconds.max(0.0) / each.max(1e-9)).min(1e9) as u64;
    let unit = if fitting < 100 { 1 } else { 10u64.pow(fitting.ilog10() - 1) };
    (fitting / unit * unit).max(FEWEST)
}

/// The usual times of a run, without its first step, which allocates.
fn cost(timing: &Path) -> Result<Cost> {
    let text = fs::read_to_string(timing)
        .map_err(|cause| Error::run(format!("cannot read {}", timing.display())).with_cause(cause))?;
    let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let times = |kind: &str| -> Vec<f64> {
        lines.iter().filter(|line| line["kind"] == kind).map(|line| total(&line["seconds"])).collect()
    };
    // A rollout counts for its first step, so steps are averaged in pairs.
    let steps: Vec<f64> = times("train").windows(2).skip(1).map(|pair| (pair[0] + pair[1]) / 2.0).collect();
    Ok(Cost { step: median(steps), evaluation: median(times("eval")) })
}

/// The middle one, so that a moment in which the machine was busy does not count.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

fn total(seconds: &Value) -> f64 {
    match seconds {
        Value::Object(phases) => phases.values().filter_map(Value::as_f64).sum(),
        one => one.as_f64().unwrap_or(0.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Cost = Cost { step: 0.01, evaluation: 0.05 };

    /// Catches a length that takes longer than the given time, and one without a step on a slow machine.
    #[test]
    fn the_length_fits_the_time() {
        for (scale, seconds) in [(1.0, 60.0), (4.0, 60.0), (1.0, 20.0)] {
            let cost = Cost { step: scale * FAST.step, evaluation: scale * FAST.evaluation };
            let Length { start, steps, .. } = fit(10_000, &[cost], [cost, cost], &[cost], seconds);
            let evaluations = (2 + 1) as f64 * MORE + 2.0 * (EVALUATIONS + 1) as f64;
            let takes = (start + 2 * steps) as f64 * cost.step + evaluations * cost.evaluation;
            assert!(takes <= seconds && takes > 0.7 * seconds, "{scale} {seconds}: {takes}");
            assert_eq!(steps % EVALUATIONS, 0);
        }
        let slow = Cost { step: 100.0, evaluation: 100.0 };
        assert_eq!(fit(500, &[slow], [slow, slow], &[], 60.0).steps, FEWEST);
        assert_eq!(fit(120, &[], [FAST, FAST], &[], 60.0).steps, 120, "more than the world can teach");
    }
}
