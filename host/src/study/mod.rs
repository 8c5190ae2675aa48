//! A study: many runs of one file, each an ordinary run in a process of its own, so that one that fails or crashes stops no other.
//!
//! Everything that can be refused is refused for all runs before the first one trains. [`folder`] holds the study's folder and
//! decides what is left to do, [`jobs`] starts the processes, [`rungs`] stops bad arms early. The stages before the runs are run
//! once. What was measured is read from the folders of the runs, by [`crate::report::study`].

mod folder;
mod jobs;
mod rungs;

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::{
    config::{
        Experiment, Study,
        sweep::{Halving, table::Method},
    },
    error::{Error, Result},
    pipeline::{folder::Task, plan},
    report::{health::short, study::StudyRecord},
    runs::{Interrupt, folder::LOGS, study_file::StudyFile},
    train::run::open::CleanupGuard,
};
use folder::StudyFolder;
pub use jobs::Options;
use jobs::{Job, Launch, Outcome};

/// How `telos run` continues.
const RESUME: &str = "continue with the same command and --resume";

/// Runs what is not done. Returns the study's record; if runs failed or the user stopped it, also that error.
///
/// # Errors
/// Request errors of every stage and run, before anything is written; a stage that the runs need has failed.
pub fn run(
    study: &Study,
    options: &Options,
    interrupt: &Interrupt,
    note: &(dyn Fn(&str) + Sync),
) -> Result<(StudyRecord, Option<Error>)> {
    let pipeline = &study.pipeline;
    let stages = plan::read(pipeline, &options.plugin_folders, options.pinning)?;
    let experiments: Vec<Experiment> = stages.iter().map(|stage| stage.loaded.experiment.clone()).collect();
    let (_, runs) = experiments.split_at(study.stages());
    let halving = study.check(runs)?;
    let file = folder::plan_of(study, runs, halving.as_ref());
    folder::check(pipeline, &file, options.resume)?;
    let tasks = folder::to_do(pipeline, &experiments)?;
    let mut uncertain = CleanupGuard::new(pipeline.runs_dir());
    plan::try_out(pipeline, stages, &tasks)?;
    let compared = study.compared_by(halving.as_ref());
    // Each run refuses a metric that it does not report; that of the first run, before anything is written or trained.
    if tasks.iter().any(|task| task.resumes().is_some()) && !compared.is_empty() {
        let stages = plan::read(pipeline, &options.plugin_folders, options.pinning)?;
        plan::try_metrics(pipeline, stages, &tasks, study.stages(), &compared)?;
    }
    uncertain.keep();

    let folder = StudyFolder::open(pipeline, file, &experiments)?;
    if let Some(text) = study.note() {
        note(&format!("note: {text}"));
    }
    let names: Vec<&str> = pipeline.stages().iter().map(|stage| stage.name.as_str()).collect();
    let session = Session {
        study,
        options,
        interrupt,
        note,
        folder: Mutex::new(folder),
        experiments: &experiments,
        names,
        compared,
    };
    let first = study.stages();
    note(&session.heading(&tasks[first..]));
    for (index, task) in tasks[..first].iter().enumerate() {
        let name = session.names[index];
        if task.resumes().is_none() {
            note(&format!("stage {name}: already done"));
            continue;
        }
        note(&format!("== stage {} of {first}: {name}", index + 1));
        session.train(&[index], 1, None)?;
        session.stage_is_done(name)?;
    }
    let without_value = match &halving {
        None => {
            session.train(&(first..experiments.len()).collect::<Vec<_>>(), options.jobs, None)?;
            None
        }
        Some(halving) => session.halve(halving)?,
    };
    let failed = session.failed().or(without_value);
    let record = StudyRecord::read(&pipeline.folder())?;
    let (complete, all) = record.progress();
    let stopped = (interrupt.requested() && complete < all)
        .then(|| Error::interrupted("the study was stopped").with_hint(RESUME));
    Ok((record, stopped.or(failed)))
}

/// What to do about runs that failed. A value that is wrong fails again, so an arm that probably has one is named.
fn advice(plan: &StudyFile, logs: &Path) -> String {
    let retry = format!(
        "{RESUME}: it runs what is not done, the failed runs too; {} has what each run printed",
        logs.display()
    );
    let arms = plan.arms_that_fail();
    if arms.is_empty() {
        return format!("fix the cause, then {retry}");
    }
    let values: Vec<String> = arms.iter().map(|arm| arm.assignments()).collect();
    let is_drawn = [Method::Random, Method::LatinHypercube].iter().any(|method| method.word() == plan.method);
    let other = if is_drawn {
        "narrow the ranges in a study of another --name"
    } else if plan.can_be_removed(&arms) {
        "remove the values from [sweep] and resume"
    } else {
        "correct the file in a study of another --name, because other arms have these values too"
    };
    format!(
        "the cause is probably in these values, because all runs with them failed and no others did: {}. Resuming fails again \
         with them. Either {other}, or keep them: the other arms are compared without them. If the cause is elsewhere, fix it and \
         {retry}",
        values.join("; ")
    )
}

/// A study that runs. Stages and runs are named by their position in the pipeline.
struct Session<'a> {
    study: &'a Study,
    options: &'a Options,
    interrupt: &'a Interrupt,
    note: &'a (dyn Fn(&str) + Sync),
    folder: Mutex<StudyFolder>,
    experiments: &'a [Experiment],
    names: Vec<&'a str>,
    /// Metrics that all runs must report, each with its key.
    compared: Vec<(String, String)>,
}

impl Session<'_> {
    fn heading(&self, tasks: &[Task]) -> String {
        let (arms, runs) = (self.study.arms.len(), tasks.len());
        let done = tasks.iter().filter(|task| task.resumes().is_none()).count();
        let jobs = self.options.jobs.min(runs.max(1));
        let at_a_time = if jobs > 1 { format!(", {jobs} at a time") } else { String::new() };
        let done = if done > 0 { format!(", {done} of them done already") } else { String::new() };
        let logs = self.study.pipeline.folder().join(LOGS);
        let name = self.study.pipeline.name();
        format!(
            "study \"{name}\": {arms} arms, {runs} runs{done}{at_a_time}; {} has what each run prints",
            logs.display()
        )
    }

    /// Trains those of the stages or runs that are not done, up to step `pause` if it is given.
    fn train(&self, wanted: &[usize], jobs: usize, pause: Option<u64>) -> Result<()> {
        let pipeline = &self.study.pipeline;
        let mut queue = Vec::new();
        for &index in wanted {
            let own = pipeline.stage_folder(index);
            let Some(resume) = folder::task(&own, &self.experiments[index], self.names[index])?.resumes() else {
                continue;
            };
            if pause.is_some_and(|pause| folder::saved_step(&own) >= pause) {
                continue;
            }
            let file = folder::experiment_file(pipeline, self.names[index]);
            let log = folder::log_file(pipeline, self.names[index]);
            queue.push(Job { index, file, log, resume });
        }
        let jobs = jobs.min(queue.len()).max(1);
        // A stage before the runs may report other metrics.
        let is_run = |index: &usize| *index >= self.study.stages();
        let compared_by = if wanted.iter().all(is_run) { &self.compared[..] } else { &[] };
        let launch = Launch { options: self.options, pause, jobs, compared_by };
        let count = queue.len();
        jobs::run_all(&queue, &launch, self.interrupt, self.experiments, &|at, job, outcome| {
            self.settle(at, count, job, outcome)
        })
    }

    /// Records and prints how a run ended.
    fn settle(&self, at: usize, count: usize, job: &Job, outcome: &Outcome) -> Result<()> {
        let name = self.names[job.index];
        let mut folder = self.folder.lock().unwrap_or_else(PoisonError::into_inner);
        let what = match &outcome.failure {
            Some(why) => {
                folder.failed(name, why)?;
                format!("failed: {why}")
            }
            None => {
                folder.succeeded(name)?;
                if outcome.interrupted { "interrupted, saved".to_owned() } else { self.measured(job.index) }
            }
        };
        (self.note)(&format!("[{}/{count}] {name}: {what} ({:.1} s)", at + 1, outcome.seconds));
        Ok(())
    }

    /// The last value of the study's metric, and the step.
    fn measured(&self, index: usize) -> String {
        let metric = self.study.metric(&self.experiments[self.study.stages()..]).metric;
        let value = rungs::last(&self.study.pipeline.stage_folder(index), &metric);
        value.map_or_else(|| "done".to_owned(), |(step, value)| format!("step {step}, {metric} {}", short(value)))
    }

    /// Stops if a stage that the runs need is not done.
    fn stage_is_done(&self, name: &str) -> Result<()> {
        if self.interrupt.requested() {
            return Err(Error::interrupted(format!("stopped in stage \"{name}\"")).with_hint(RESUME));
        }
        let folder = self.folder.lock().unwrap_or_else(PoisonError::into_inner);
        match folder.why(name) {
            None => Ok(()),
            Some(why) => Err(Error::run(format!("stage \"{name}\" failed, from which the runs of the study start"))
                .with_details([why.to_owned()])
                .with_hint(format!("fix the cause, then {RESUME}"))),
        }
    }

    /// The error of a study whose runs failed.
    fn failed(&self) -> Option<Error> {
        let folder = self.folder.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = folder.plan().failures();
        (!lines.is_empty()).then(|| {
            Error::run(format!("{} of {} runs failed", lines.len(), self.study.runs.len()))
                .with_details(lines)
                .with_hint(advice(folder.plan(), &self.study.pipeline.folder().join(LOGS)))
        })
    }

    /// Trains all arms up to the first rung, the best of them to the next one, and so on.
    /// Returns an error to report after the study's record if no arm can continue.
    fn halve(&self, halving: &Halving) -> Result<Option<Error>> {
        let first = self.study.stages();
        let mut alive: Vec<usize> = (0..self.study.arms.len()).collect();
        for (at, &steps) in halving.rungs.iter().enumerate() {
            let last = at + 1 == halving.rungs.len();
            let wanted = self.study.runs.iter().enumerate().filter(|(_, run)| alive.contains(&run.arm));
            let wanted: Vec<usize> = wanted.map(|(index, _)| first + index).collect();
            self.train(&wanted, self.options.jobs, (!last).then_some(steps))?;
            if self.interrupt.requested() || last {
                break;
            }
            let score = |arm: &usize| {
                let own = self.study.runs.iter().enumerate().filter(|(_, run)| run.arm == *arm);
                rungs::mean(own.map(|(index, _)| {
                    rungs::score(&self.study.pipeline.stage_folder(first + index), &halving.metric.metric, steps)
                }))
            };
            let scores: Vec<Option<f64>> = alive.iter().map(score).collect();
            let kept = rungs::survivors(&scores, halving.factor, halving.metric.larger_is_better);
            if kept.is_empty() {
                let metric = &halving.metric.metric;
                return Ok(Some(
                    Error::run(format!(
                        "no arm has a value of {metric} at the rung of {steps} steps, so none continues"
                    ))
                    .with_hint(
                        "see the logs and the curves of the runs: the metric was not reported, or was not finite",
                    ),
                ));
            }
            let names: Vec<&str> = kept.iter().map(|at| self.study.arms[alive[*at]].name.as_str()).collect();
            (self.note)(&format!(
                "rung of {steps} steps, {}: {} of {} arms continue: {}",
                halving.metric,
                kept.len(),
                alive.len(),
                names.join("; ")
            ));
            alive = kept.into_iter().map(|at| alive[at]).collect();
        }
        Ok(None)
    }
}
