//! What a reader of a run's curves has to know and cannot compute from its logs: `about.json` in the run's folder.
//!
//! Times and the processor's name differ between equal runs, so this file is not part of what makes two runs the same.

use std::{fs, path::Path};

use plugin_api::manifest::{MetricSpec, TermSpec};
use serde::{Deserialize, Serialize};

use crate::{
    error::Result,
    model::Model,
    objectives::active::Active,
    runs::{
        disk::{read_json, write_json},
        end::seconds_since_1970,
    },
};

/// Name of the file.
pub const ABOUT_FILE: &str = "about.json";

/// What a run is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct About {
    /// Parameters of the model, those of an adapter included.
    pub parameters: u64,
    /// How many of them are trained.
    pub trained_parameters: u64,
    /// Estimated floating-point operations of forward and backward for a token of the policy: 6 for each weight of a matrix (Kaplan
    /// et al. 2020, arXiv 2001.08361, section 2.1), and causal attention over half the context. Other models, sampling and
    /// evaluations are not counted.
    pub flops_per_token: f64,
    /// The processor's name, as the system reports it.
    pub processor: String,
    /// How many threads the processor can run at a time.
    pub cores: usize,
    /// When a process began to train the run, in seconds since 1970, and the step after which it began.
    pub starts: Vec<Start>,
    /// The metrics that the objectives declare, by their names in metrics.jsonl.
    pub metrics: Vec<MetricSpec>,
    /// The terms of the losses in the same way; the reduction of each is the mean.
    pub terms: Vec<TermSpec>,
}

/// One process's beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Seconds since 1970.
    pub at: u64,
    /// Steps done before.
    pub step: u64,
}

impl About {
    /// Describes a run that trains `model` by `objectives` in sequences of at most `context` tokens.
    pub fn new<'a>(model: &Model, objectives: impl Iterator<Item = &'a Active>, context: usize) -> About {
        let (parameters, trained_parameters) = model.count();
        let mut about = About {
            parameters,
            trained_parameters,
            flops_per_token: flops_per_token(model, context),
            processor: processor(),
            cores: std::thread::available_parallelism().map_or(1, Into::into),
            ..About::default()
        };
        for active in objectives {
            let named = |name: &str| format!("{}{name}", active.prefix);
            let metrics = active.manifest.metrics.iter();
            about.metrics.extend(metrics.map(|spec| MetricSpec { name: named(&spec.name), ..spec.clone() }));
            let terms = active.manifest.terms.iter();
            about.terms.extend(terms.map(|spec| TermSpec { name: named(&spec.name), ..spec.clone() }));
        }
        about
    }

    /// Writes the file into `folder`, with the starts of earlier processes, and a new one after `step`.
    ///
    /// # Errors
    /// The path and the system's error.
    pub fn write(mut self, folder: &Path, step: u64) -> Result<()> {
        // Starts of a damaged file are not worth refusing a run.
        self.starts = About::read(folder).ok().flatten().unwrap_or_default().starts;
        self.starts.retain(|start| start.step <= step && step > 0);
        self.starts.push(Start { at: seconds_since_1970(), step });
        write_json(&folder.join(ABOUT_FILE), &self)
    }

    /// Reads the file in `folder`; `None` if there is none, as in runs of earlier versions.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn read(folder: &Path) -> Result<Option<About>> {
        read_json(&folder.join(ABOUT_FILE))
    }
}

/// See [`About::flops_per_token`].
fn flops_per_token(model: &Model, context: usize) -> f64 {
    let config = model.config();
    let embedding = if config.tied { 0 } else { config.vocab * config.dim };
    let weights = model.count().0.saturating_sub(embedding) as f64;
    let attention = config.layers as f64 * (config.heads * config.head_dim) as f64 * context as f64;
    6.0 * weights + 6.0 * attention
}

/// The processor's name; that of its kind where the system has no list of processors.
fn processor() -> String {
    let list = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = list.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches starts that are lost on a resume, and those of a run that was replaced or of steps that are computed again.
    #[test]
    fn starts_of_a_resumed_run_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let steps = || -> Vec<u64> {
            About::read(folder.path()).unwrap().unwrap().starts.iter().map(|start| start.step).collect()
        };
        for (step, expected) in [(0, vec![0]), (8, vec![0, 8]), (4, vec![0, 4]), (6, vec![0, 4, 6]), (0, vec![0])] {
            About::default().write(folder.path(), step).unwrap();
            assert_eq!(steps(), expected, "after a start at {step}");
        }
    }
}
