//! Checks a pipeline without training: each stage's dry run, as far as possible before the stages it depends on
//! have run.

use std::{fmt, path::PathBuf};

use serde::Serialize;

use super::{folder::is_done, plan};
use crate::config::Pipeline;
use crate::error::Result;
use crate::plugins::Pinning;
use crate::train::dry_run::{Findings, dry_run};

/// The findings of all stages' dry runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PipelineFindings {
    /// The pipeline's name.
    pub name: String,
    /// The stages in order.
    pub stages: Vec<StageFindings>,
}

/// The findings of one stage's dry run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StageFindings {
    /// Its name.
    pub stage: String,
    /// The findings.
    #[serde(flatten)]
    pub findings: Findings,
    /// What cannot be checked before earlier stages have run.
    pub not_checked: Vec<String>,
}

/// Checks every stage; those from `runs.0` on must report the metrics `runs.1`, each given with the key that names it.
///
/// # Errors
/// Every error that would stop any of the stages, combined into one.
pub fn check(
    pipeline: &Pipeline,
    plugin_folders: &[PathBuf],
    pinning: Pinning,
    runs: (usize, &[(String, String)]),
) -> Result<PipelineFindings> {
    let stages = plan::read(pipeline, plugin_folders, pinning)?;
    let done = stages.iter().enumerate().map(|(index, stage)| is_done(pipeline, index, &stage.loaded.experiment));
    let done = done.collect::<Result<Vec<bool>>>()?;
    let stages = plan::each(
        pipeline,
        stages,
        |_| true,
        |index| !done[index],
        |index, setup| {
            let stage = &pipeline.stages()[index];
            let not_run = stage.inputs.iter().filter(|input| !done[input.stage]);
            let not_checked = not_run.map(|input| {
                let name = &pipeline.stages()[input.stage].name;
                let instead = match input.key.as_str() {
                    "model.from" => "fresh weights of its shape were used instead, so the first loss has no meaning",
                    "model.adapter" => "a fresh adapter of its shape was used instead",
                    _ => "it was not checked",
                };
                format!("{} is stage \"{name}\", which has not run yet: {instead}", input.key)
            });
            let not_checked = not_checked.collect();
            if index >= runs.0 {
                setup.compared_by = runs.1.to_vec();
            }
            Ok(StageFindings { stage: stage.name.clone(), findings: dry_run(setup)?, not_checked })
        },
    )?;
    Ok(PipelineFindings { name: pipeline.name().to_owned(), stages })
}

impl fmt::Display for PipelineFindings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, stage) in self.stages.iter().enumerate() {
            writeln!(f, "== stage {} of {}: {}", index + 1, self.stages.len(), stage.stage)?;
            writeln!(f, "{}", stage.findings)?;
            for note in &stage.not_checked {
                writeln!(f, "not checked       {note}")?;
            }
        }
        let seconds: f64 = self.stages.iter().map(|stage| stage.findings.seconds).sum();
        write!(f, "pipeline \"{}\" is in order; about {seconds:.0} s in total without evaluation", self.name)
    }
}
