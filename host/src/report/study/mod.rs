//! A study as its folder tells it: the metric of each arm over its seeds, the best arm, and what failed.

pub mod page;
pub mod statistics;

use std::{fmt, path::Path, path::PathBuf};

use serde::{Serialize, Serializer};
use serde_json::Value;

use super::{
    health::short,
    record::{RunRecord, is_run, state::State},
    tables::Rows,
};
use crate::{
    config::experiment::MetricRule,
    error::{Error, Result},
    runs::{end::Ending, study_file::StudyFile},
};
use statistics::Estimate;

/// A study.
#[derive(Debug, Clone, Serialize)]
pub struct StudyRecord {
    /// Its folder.
    pub folder: PathBuf,
    /// Its plan, and what failed.
    #[serde(skip)]
    pub plan: StudyFile,
    /// What compares arms.
    #[serde(serialize_with = "as_text")]
    pub metric: MetricRule,
    /// The arms, the best first; those that are not compared last.
    pub arms: Vec<ArmRecord>,
    /// The best arm, if any is complete.
    pub best: Option<String>,
    /// A line for each stage and run that failed, with the values of its arm.
    pub failed: Vec<String>,
}

/// An arm.
#[derive(Debug, Clone, Serialize)]
pub struct ArmRecord {
    /// Its name.
    pub name: String,
    /// The keys that it sets, with their values.
    pub values: serde_json::Map<String, Value>,
    /// The metric over its runs: the complete ones, or, if there are none, those that were paused at a rung of successive halving.
    pub estimate: Option<Estimate>,
    /// Whether the estimate is of complete runs.
    pub complete: bool,
    /// The least number of steps of its runs that are in the estimate; without an estimate, the most of its runs.
    pub steps: u64,
    /// Its runs.
    pub runs: Vec<RunFigures>,
}

/// A run of an arm.
#[derive(Debug, Clone, Serialize)]
pub struct RunFigures {
    /// Its name.
    pub run: String,
    /// Its seed; absent: the experiment's own.
    pub seed: Option<i64>,
    /// Its state; `not begun` if it has no folder.
    pub state: &'static str,
    /// Steps done.
    pub steps: u64,
    /// The last value of the metric after step 0, if the run is complete or paused at a rung: an earlier value of a run that failed,
    /// or is still in progress, is not its result.
    pub value: Option<f64>,
    /// Whether the run is complete.
    pub complete: bool,
}

fn as_text<S: Serializer>(rule: &MetricRule, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_str(rule)
}

impl StudyRecord {
    /// Reads the study in `folder`.
    ///
    /// # Errors
    /// A request error if it is not a study, or its plan is damaged.
    pub fn read(folder: &Path) -> Result<StudyRecord> {
        let plan = StudyFile::read(folder)?
            .ok_or_else(|| Error::request(format!("{} is not the folder of a study", folder.display())))?;
        let metric = MetricRule::parse(&plan.metric).map_err(|message| {
            Error::request(format!("the metric in the plan of {} cannot be read: {message}", folder.display()))
        })?;
        let arms = plan.arms.iter().map(|arm| {
            let runs = arm.runs.iter().map(|run| figures(folder, &run.name, run.seed, &metric.metric));
            ArmRecord::of(arm.name.clone(), arm.values.clone(), runs.collect())
        });
        let mut arms: Vec<ArmRecord> = arms.collect();
        rank(&mut arms, metric.larger_is_better);
        let best = arms.first().filter(|arm| arm.complete).map(|arm| arm.name.clone());
        let failed = plan.failures();
        Ok(StudyRecord { folder: folder.to_owned(), plan, metric, arms, best, failed })
    }

    /// Number of runs that are complete, and of all.
    pub fn progress(&self) -> (usize, usize) {
        let runs = || self.arms.iter().flat_map(|arm| &arm.runs);
        (runs().filter(|run| run.complete).count(), runs().count())
    }

    /// The arms as a table, the best first.
    pub fn table(&self) -> Rows {
        let heads = ["arm", "n", &self.metric.metric, "95% CI", "steps", "runs"].map(str::to_owned).to_vec();
        let rows = self.arms.iter().map(|arm| {
            let of = |value: fn(&Estimate) -> String| arm.estimate.as_ref().map_or_else(|| "-".to_owned(), value);
            let interval = |estimate: &Estimate| match estimate.half_width {
                Some(_) => {
                    let (low, high) = estimate.interval();
                    format!("{} to {}", short(low), short(high))
                }
                None => "-".to_owned(),
            };
            vec![
                arm.name.clone(),
                of(|estimate| estimate.n.to_string()),
                of(|estimate| match estimate.half_width {
                    Some(half) => format!("{} ± {}", short(estimate.mean), short(half)),
                    None => short(estimate.mean),
                }),
                of(interval),
                arm.steps.to_string(),
                arm.states(),
            ]
        });
        std::iter::once(heads).chain(rows).collect()
    }

    /// What the table says, in sentences.
    pub fn sentences(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let better = if self.metric.larger_is_better { "larger" } else { "smaller" };
        match self.arms.first().filter(|arm| arm.complete) {
            Some(arm) => {
                let name = &arm.name;
                lines.push(format!("best by {} ({better} is better): {name}", self.metric.metric));
                let left_out = arm.runs.len() - arm.estimate.map_or(0, |estimate| estimate.n);
                if left_out > 0 {
                    let runs = arm.runs.len();
                    lines.push(format!("its mean leaves out {left_out} of its {runs} runs, which gave no result"));
                }
                let (low, high) = arm.estimate.map_or((f64::NAN, f64::NAN), |estimate| estimate.interval());
                let with_interval = |arm: &&ArmRecord| arm.complete && arm.estimate.is_some_and(|one| one.n > 1);
                let overlaps = |arm: &&ArmRecord| {
                    arm.estimate.is_some_and(|one| one.interval().0 <= high && one.interval().1 >= low)
                };
                let others = self.arms[1..].iter().filter(with_interval).filter(overlaps).count();
                match others {
                    0 => {}
                    1 => lines.push("the 95% interval of 1 other arm overlaps that of the best one".to_owned()),
                    _ => lines.push(format!("the 95% intervals of {others} other arms overlap that of the best one")),
                }
            }
            None if self.arms.iter().all(|arm| arm.estimate.is_none()) && self.progress().0 > 0 => {
                lines.push(format!(
                    "no complete run has a value of {} after step 0: set sweep.metric to a metric that is reported, and eval.every \
                     so that it is measured",
                    self.metric.metric
                ));
            }
            None => lines.push("no run is complete yet".to_owned()),
        }
        if self.arms.iter().any(|arm| arm.estimate.is_some_and(|one| one.n > 1)) {
            lines.push("mean ± half of the 95% confidence interval of the mean over n seeds (Student's t)".to_owned());
        }
        lines
    }
}

impl ArmRecord {
    fn of(name: String, values: serde_json::Map<String, Value>, runs: Vec<RunFigures>) -> ArmRecord {
        let measured = |complete: bool| {
            let own = runs.iter().filter(move |run| run.complete == complete);
            own.filter_map(|run| Some((run.steps, run.value?))).collect::<Vec<_>>()
        };
        let done = measured(true);
        let complete = !done.is_empty();
        let used = if complete { done } else { measured(false) };
        let most = runs.iter().map(|run| run.steps).max().unwrap_or(0);
        let steps = used.iter().map(|(steps, _)| *steps).min().unwrap_or(most);
        let values_of_runs: Vec<f64> = used.into_iter().map(|(_, value)| value).collect();
        ArmRecord { name, values, estimate: Estimate::of(&values_of_runs), complete, steps, runs }
    }

    /// How many of its runs are in which state: `3 done`, `2 done, 1 failed`.
    fn states(&self) -> String {
        let mut counts: Vec<(&str, usize)> = Vec::new();
        for run in &self.runs {
            match counts.iter_mut().find(|(state, _)| *state == run.state) {
                Some((_, count)) => *count += 1,
                None => counts.push((run.state, 1)),
            }
        }
        counts.iter().map(|(state, count)| format!("{count} {state}")).collect::<Vec<_>>().join(", ")
    }
}

/// Sorts complete arms by their mean, then those that were paused at a rung, the longest ones first.
fn rank(arms: &mut [ArmRecord], larger_is_better: bool) {
    arms.sort_by(|a, b| {
        let mean =
            |arm: &ArmRecord| arm.estimate.map_or(f64::NAN, |one| if larger_is_better { -one.mean } else { one.mean });
        let key = |arm: &ArmRecord| (!arm.complete, arm.estimate.is_none());
        let steps = |arm: &ArmRecord| if arm.complete { 0 } else { arm.steps };
        key(a).cmp(&key(b)).then(steps(b).cmp(&steps(a))).then(mean(a).total_cmp(&mean(b)))
    });
}

fn figures(study: &Path, name: &str, seed: Option<i64>, metric: &str) -> RunFigures {
    let folder = study.join(name);
    let run = is_run(&folder).then(|| RunRecord::read(&folder).ok()).flatten();
    let Some(run) = run else {
        return RunFigures { run: name.to_owned(), seed, state: "not begun", steps: 0, value: None, complete: false };
    };
    let (complete, paused) = match &run.state {
        State::Complete => (true, false),
        State::Ended(end) => (matches!(end.ending, Ending::Done | Ending::Early), end.ending == Ending::Paused),
        State::Running | State::Lost => (false, false),
    };
    // A value that is not finite at the end is not replaced by an earlier one; that of step 0 is of the untrained model.
    let last = run.metrics.get(metric).and_then(|points| points.last()).filter(|(step, _)| *step > 0.0);
    let value = last.map(|(_, value)| *value).filter(|value| value.is_finite() && (complete || paused));
    RunFigures { run: name.to_owned(), seed, state: run.state.word(), steps: run.step, value, complete }
}

impl fmt::Display for StudyRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.table();
        let columns = rows.first().map_or(0, Vec::len);
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &rows {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            writeln!(f, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        for line in self.sentences() {
            writeln!(f, "{line}")?;
        }
        let (done, all) = self.progress();
        write!(f, "study {}: {done} of {all} runs complete", self.folder.display())?;
        match self.failed.len() {
            0 => Ok(()),
            failed => write!(f, ", {failed} failed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runs::end::RunEnd;
    use crate::runs::study_file::{ArmPlan, RunPlan};
    use serde_json::json;
    use std::fs;

    /// An arm's name, and the value and the end of its runs; `None` is a run without a folder.
    type Arm<'a> = (&'a str, [Option<(f64, Ending)>; 2]);

    /// A study of arms of two seeds.
    fn study(metric: &str, arms: &[Arm<'_>]) -> (tempfile::TempDir, StudyRecord) {
        let folder = tempfile::tempdir().unwrap();
        let plan = arms.iter().map(|(name, runs)| {
            let runs = runs.iter().enumerate().map(|(seed, run)| {
                let own = format!("{name},seed={seed}");
                if let Some((value, ending)) = run {
                    let at = folder.path().join(&own);
                    fs::create_dir(&at).unwrap();
                    fs::write(at.join("experiment.toml"), "[train]\nsteps = 8").unwrap();
                    let step = if *ending == Ending::Paused { 4 } else { 8 };
                    let value = if value.is_nan() { "null".to_owned() } else { value.to_string() };
                    let lines = format!("{{\"step\":{step},\"kind\":\"train\",\"loss\":1}}\n{{\"step\":{step},\"kind\":\"eval\",\"eval/loss\":{value}}}\n");
                    fs::write(at.join("metrics.jsonl"), format!("{{\"step\":0,\"kind\":\"eval\",\"eval/loss\":99}}\n{lines}")).unwrap();
                    RunEnd::now(*ending, step).write(&at).unwrap();
                }
                RunPlan { name: own, seed: Some(seed as i64) }
            });
            let values = json!({ "objective.beta": name }).as_object().unwrap().clone();
            ArmPlan { name: (*name).to_owned(), values, runs: runs.collect() }
        });
        let file = StudyFile {
            name: "s".into(),
            method: "grid".into(),
            metric: metric.into(),
            keys: vec!["objective.beta".into()],
            stages: Vec::new(),
            halving: None,
            arms: plan.collect(),
            failed: Default::default(),
        };
        file.write(folder.path()).unwrap();
        let record = StudyRecord::read(folder.path()).unwrap();
        (folder, record)
    }

    /// Catches a goal that is read backwards, a first value instead of the last, and a run that failed or diverged and is averaged.
    #[test]
    fn arms_are_ranked_by_the_mean_of_their_complete_runs() {
        let done = |value: f64| Some((value, Ending::Done));
        let arms = [
            ("a", [done(3.0), done(5.0)]),
            ("b", [done(2.0), Some((0.0, Ending::Failed))]),
            ("c", [done(f64::NAN), done(9.0)]),
            ("d", [None, None]),
        ];
        let (_folder, record) = study("min:eval/loss", &arms);
        let names: Vec<&str> = record.arms.iter().map(|arm| arm.name.as_str()).collect();
        assert_eq!((names, record.best.as_deref()), (vec!["b", "a", "c", "d"], Some("b")));
        let estimates: Vec<_> = record.arms.iter().map(|arm| arm.estimate.map(|one| (one.n, one.mean))).collect();
        assert_eq!(estimates, [Some((1, 2.0)), Some((2, 4.0)), Some((1, 9.0)), None]);
        assert!(record.arms[0].estimate.unwrap().half_width.is_none());
        assert_eq!((record.progress(), record.arms[0].states().as_str()), ((5, 8), "1 done, 1 failed"));
        let text = record.to_string();
        assert!(text.contains("best by eval/loss (smaller is better): b") && text.contains("2 not begun"), "{text}");
        assert_eq!(study("max:eval/loss", &arms).1.best.as_deref(), Some("c"));
        assert!(text.contains("its mean leaves out 1 of its 2 runs, which gave no result"), "{text}");
        assert!(study("max:eval/x", &arms).1.to_string().contains("no complete run has a value of eval/x"));
    }

    /// Catches an early value of a run that failed, crashed or was interrupted as its arm's result, also if no run of the arm has
    /// a better one, and the evaluation of the untrained model as that of a complete run.
    #[test]
    fn a_run_without_a_result_gives_its_arm_no_value() {
        let both = |value: f64, ending: Ending| [Some((value, ending)), Some((value, ending))];
        let arms = [
            ("failed", both(0.1, Ending::Failed)),
            ("crashed", both(0.2, Ending::Crashed)),
            ("interrupted", both(0.3, Ending::Interrupted)),
            ("untrained", both(0.4, Ending::Done)),
            ("a", both(5.0, Ending::Done)),
        ];
        let (folder, _) = study("min:eval/loss", &arms);
        for seed in 0..2 {
            let log = folder.path().join(format!("untrained,seed={seed}/metrics.jsonl"));
            fs::write(
                log,
                "{\"step\":0,\"kind\":\"eval\",\"eval/loss\":0.4}\n{\"step\":8,\"kind\":\"train\",\"loss\":1}\n",
            )
            .unwrap();
        }
        let record = StudyRecord::read(folder.path()).unwrap();
        assert_eq!(record.best.as_deref(), Some("a"));
        for arm in &record.arms[1..] {
            assert!(
                arm.estimate.is_none() && !arm.complete && arm.runs.iter().all(|run| run.value.is_none()),
                "{arm:?}"
            );
        }
        for row in &record.table()[2..] {
            assert_eq!(row[1..4], ["-", "-", "-"], "{row:?}");
        }
        let (_folder, none) = study("min:eval/loss", &arms[..3]);
        assert_eq!((none.best.as_deref(), none.sentences()), (None, vec!["no run is complete yet".to_owned()]));
    }

    /// Catches a figure of many arms that is left out of the page without a word.
    #[test]
    fn curves_that_are_too_many_are_counted_in_a_sentence() {
        let shown = |count: usize| {
            let names: Vec<String> = (0..count).map(|at| format!("a{at}")).collect();
            let arms: Vec<Arm<'_>> =
                names.iter().map(|name| (name.as_str(), [Some((1.0, Ending::Done)), None])).collect();
            let (folder, record) = study("min:eval/loss", &arms);
            page::section(&record, &crate::report::Report::read(&[folder.path().to_owned()]).unwrap())
        };
        let (few, many) = (shown(12), shown(13));
        assert!(few.contains("eval/loss over steps") && !few.contains("arms have curves"));
        assert!(!many.contains("eval/loss over steps") && many.contains("13 arms have curves of eval/loss"), "{many}");
    }

    /// Catches an arm that was stopped early and is ranked, or called the best, among those that were trained to the end.
    #[test]
    fn arms_that_were_stopped_early_come_after_complete_ones() {
        let both = |value: f64, ending: Ending| [Some((value, ending)), Some((value, ending))];
        let arms = [("a", both(1.0, Ending::Paused)), ("b", both(5.0, Ending::Done)), ("c", both(0.5, Ending::Paused))];
        let (_folder, record) = study("min:eval/loss", &arms);
        let names: Vec<(&str, u64)> = record.arms.iter().map(|arm| (arm.name.as_str(), arm.steps)).collect();
        assert_eq!((names, record.best.as_deref()), (vec![("b", 8), ("c", 4), ("a", 4)], Some("b")));
    }
}
