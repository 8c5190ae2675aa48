//! Each law catches the mistake that it is for, and passes right objectives of every data kind.
//!
//! A row of a table is one mistake and the laws that it breaks; if any other law breaks, the test fails too.

mod attached;
mod compared;
mod composing;
mod faults;
mod host;
mod labelled;
mod lists;
mod paired;
mod quick;
mod requests;
mod rollouts;
mod tokens;
mod windows;

use super::{Generator, Laws};
use crate::Report;
use plugin_api::{
    Result,
    batch::Batch,
    manifest::{ObjectiveManifest, Requirements},
    objective::{Loss, Objective},
};
use std::collections::BTreeSet;

/// An objective without state, built for a test.
#[derive(Clone)]
struct Sketch {
    requirements: Requirements,
    loss: fn(&Batch<'_>) -> Result<Loss>,
    weigh: fn(&Batch<'_>) -> Result<Weights>,
}

type Weights = Vec<(String, f64)>;

impl Sketch {
    fn new(statistics: &[&str], linear: bool, loss: fn(&Batch<'_>) -> Result<Loss>) -> Self {
        let statistics = statistics.iter().map(|s| (*s).to_owned()).collect();
        let requirements = Requirements { statistics, linear, ..Default::default() };
        Self { requirements, loss, weigh: |_| Ok(Vec::new()) }
    }
}

impl Objective for Sketch {
    fn requirements(&self) -> Result<Requirements> {
        Ok(self.requirements.clone())
    }

    fn weigh(&self, batch: &Batch<'_>) -> Result<Weights> {
        (self.weigh)(batch)
    }

    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        (self.loss)(batch)
    }
}

/// The laws' report on `sketch`.
fn broken(manifest: ObjectiveManifest, sketch: Sketch) -> Report {
    let create = move |options: &_| {
        plugin_api::options::refuse_unknown(&[], options)?;
        Ok(sketch.clone())
    };
    Laws::new(manifest, create).with_generator(Generator::new(3)).verify()
}

#[track_caller]
fn check(mistake: &str, report: Report, expected: &[&str]) {
    assert_eq!(difference(mistake, &report, expected), None);
}

/// If other laws break than expected: which ones, and the whole report.
fn difference(mistake: &str, report: &Report, expected: &[&str]) -> Option<String> {
    let found: BTreeSet<&str> = report.failures().map(|line| line.group.as_str()).collect();
    let expected: BTreeSet<&str> = expected.iter().copied().collect();
    (found != expected).then(|| format!("{mistake}: expected {expected:?}, found {found:?}\n{report}"))
}
