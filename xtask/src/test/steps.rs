//! The steps of `cargo xtask test`: how each ended and how long it took.

use crate::errors::Result;
use std::time::{Duration, Instant};

/// The outcome of a successful step.
pub enum Outcome {
    Passed,
    /// With a note.
    Noted(String),
    Skipped(String),
}

/// Steps done so far, with their times.
#[derive(Default)]
pub struct Steps {
    done: Vec<(String, Duration, Outcome)>,
}

impl Steps {
    /// Runs a step; prints its name before and its time after.
    pub fn step(&mut self, name: &str, work: impl FnOnce() -> Result<Outcome>) -> Result<()> {
        eprintln!("== {name}");
        let start = Instant::now();
        let outcome =
            work().map_err(|why| format!("step `{name}` failed after {}: {why}", seconds(start.elapsed())))?;
        if let Outcome::Skipped(why) = &outcome {
            eprintln!("   skipped: {why}");
        }
        self.done.push((name.to_owned(), start.elapsed(), outcome));
        Ok(())
    }

    /// Prints every step with its time and note.
    pub fn summary(&self) {
        eprintln!("== summary");
        for (name, time, outcome) in &self.done {
            let note = match outcome {
                Outcome::Passed => String::new(),
                Outcome::Noted(note) => note.clone(),
                Outcome::Skipped(why) => format!("skipped: {why}"),
            };
            eprintln!("   {name:<28} {:>8}  {note}", seconds(*time));
        }
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
