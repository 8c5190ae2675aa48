//! Marks which backend of a comparison does what, so that a death of the process is attributed to it.

use serde::{Deserialize, Serialize};

use crate::{
    compare::spec::Spec,
    runs::{
        Breadcrumb,
        breadcrumb::{self, CrashMarker},
    },
};

/// What a backend does in a comparison. All but the steps can be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Work {
    /// Opening, the compared steps, and closing.
    Steps,
    /// Measuring the peak.
    Peak,
    /// The run with one weight moved.
    Yardstick,
    /// Replaying a step on the reference.
    Replay,
    /// Cutting the first window.
    Cuts,
}

impl Work {
    const ALL: [Work; 5] = [Work::Steps, Work::Peak, Work::Yardstick, Work::Replay, Work::Cuts];

    /// What a comparison lacks without it.
    pub fn noun(self) -> &'static str {
        match self {
            Work::Steps => "steps",
            Work::Peak => "peak",
            Work::Yardstick => "yardstick",
            Work::Replay => "replay",
            Work::Cuts => "cuts",
        }
    }
}

/// Marks the work of one backend.
#[derive(Debug, Clone)]
pub struct Mark {
    /// Its index among the compared backends; `None`: it is not one of them.
    pub backend: Option<usize>,
    /// Id of the plugin.
    pub plugin: String,
    /// What it does.
    pub work: Work,
}

impl Mark {
    /// The mark for the backend of `spec`.
    pub fn new(spec: &Spec, backend: Option<usize>, work: Work) -> Mark {
        Mark { backend, plugin: spec.plugin().to_owned(), work }
    }

    /// The mark of other work.
    pub fn of(&self, work: Work) -> Mark {
        Mark { work, ..self.clone() }
    }

    /// Marks that the backend works from here on, in `step` (counted from 1; 0 before the first one). Returns the marker for its calls.
    pub fn begin(&self, step: u64) -> CrashMarker {
        breadcrumb::part(part(self.backend, self.work));
        let marker = CrashMarker::new(Breadcrumb::from_env(), &self.plugin);
        marker.step(step);
        marker.host();
        marker
    }
}

/// The number of a backend's work as a part of the whole, from 1 on.
fn part(backend: Option<usize>, work: Work) -> u64 {
    let backend = backend.map_or(0, |index| index as u64 + 1);
    1 + backend * Work::ALL.len() as u64 + work as u64
}

/// Returns the backend and the work that have this number.
pub fn of_part(part: u64) -> Option<(Option<usize>, Work)> {
    let number = usize::try_from(part.checked_sub(1)?).ok()?;
    let works = Work::ALL.len();
    Some(((number / works).checked_sub(1), Work::ALL[number % works]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches two works with one number, and a number that is read as another work or that means no part.
    #[test]
    fn every_work_of_every_backend_has_its_own_number() {
        for backend in [None, Some(0), Some(1), Some(65_534)] {
            for work in Work::ALL {
                assert_ne!(part(backend, work), 0);
                assert_eq!(of_part(part(backend, work)), Some((backend, work)));
            }
        }
        assert_eq!(of_part(0), None);
    }
}
