//! The current rollout: which of its answers come next, and its file in a checkpoint.

use std::{fs, path::Path, sync::Arc};

use plugin_api::batch::names;
use serde::{Deserialize, Serialize};
use telos_random::Rng;

use crate::{
    data::{Sequence, Window},
    error::{Error, Result},
    files,
};

/// Its file in a checkpoint.
const FILE: &str = "rollout.json";

/// Separates the random stream of orders from all others with the same seed.
const ORDER: u64 = 0x0D3E;

/// The current rollout.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    /// Rollouts drawn, this one included.
    pub(super) drawn: u64,
    /// Its answers with everything that was measured of them; answers to one prompt are neighbours.
    #[serde(with = "shared")]
    pub(super) sequences: Arc<Vec<Sequence>>,
    /// Completed passes over the rollout.
    pub(super) epoch: usize,
    /// Prompts of the current pass that were learned from.
    pub(super) taken: usize,
}

/// Serializes sequences that two states share as if each state owned them.
mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::data::Sequence;

    pub fn serialize<S: Serializer>(sequences: &Arc<Vec<Sequence>>, to: S) -> Result<S::Ok, S::Error> {
        sequences.as_slice().serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<Vec<Sequence>>, D::Error> {
        Vec::deserialize(from).map(Arc::new)
    }
}

/// How many answers a rollout drew and kept; only for objectives that keep or request.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Selection {
    /// Prompts drawn.
    pub(super) prompts: usize,
    /// Answers drawn.
    pub(super) answers: usize,
    /// Answers kept.
    pub(super) kept: usize,
    /// Rollouts before it of which no answer was kept.
    pub(super) skipped: u64,
}

impl Selection {
    /// Returns the metrics of the step that reports the rollout.
    pub(super) fn metrics(self) -> [(String, f64); 3] {
        let share = self.kept as f64 / self.answers.max(1) as f64;
        let all = [("prompts", self.prompts as f64), ("kept", share), ("skipped", self.skipped as f64)];
        all.map(|(name, value)| (format!("answers/{name}"), value))
    }
}

impl State {
    /// Returns the answers to the next `prompts` prompts, in the current pass's order; after `epochs` passes nothing is left.
    ///
    /// # Errors
    /// No answer has a token to learn from.
    pub(super) fn next_window(&mut self, seed: u64, prompts: usize, epochs: usize) -> Result<Window> {
        let groups: Vec<&[Sequence]> = self.sequences.chunk_by(|a, b| group(a) == group(b)).collect();
        let mut order: Vec<usize> = (0..groups.len()).collect();
        Rng::new(&[seed, ORDER, self.drawn, self.epoch as u64]).shuffle(&mut order);
        let chosen = order.iter().skip(self.taken).take(prompts);
        let window = Window::new(chosen.flat_map(|index| groups[*index].iter().cloned()).collect())?;
        let count = groups.len();
        self.taken += prompts;
        if self.taken >= count {
            (self.epoch, self.taken) = (self.epoch + 1, 0);
        }
        if self.epoch >= epochs {
            self.sequences = Arc::default();
        }
        Ok(window)
    }

    /// Writes it into the folder of a checkpoint.
    ///
    /// # Errors
    /// Errors of the file system.
    pub(super) fn save(&self, folder: &Path) -> Result<()> {
        let path = folder.join(FILE);
        let failed = |e: Box<dyn std::error::Error + Send + Sync>| {
            Error::run(format!("cannot write {}", path.display())).with_cause(e)
        };
        let text = serde_json::to_vec(self).map_err(|e| failed(e.into()))?;
        fs::write(&path, text).map_err(|e| failed(e.into()))
    }

    /// Reads it from the folder of a checkpoint.
    ///
    /// # Errors
    /// A request error that names the file.
    pub(super) fn read(folder: &Path) -> Result<State> {
        let path = folder.join(FILE);
        let failed = |e: Box<dyn std::error::Error + Send + Sync>| {
            Error::request(format!("cannot read {}", path.display())).with_cause(e)
        };
        let text = files::read(&path).map_err(|e| failed(e.into()))?;
        serde_json::from_slice(&text).map_err(|e| failed(e.into()))
    }
}

fn group(sequence: &Sequence) -> Option<u64> {
    sequence.per_sequence.get(names::GROUP).map(|group| group.to_bits())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a renamed field of a sequence: a run that was interrupted in the middle of a rollout could not be resumed.
    #[test]
    fn the_rollout_of_an_earlier_version_is_read_and_written_back_alike() {
        let text = r#"{"drawn":1,"sequences":[{"ids":[1,2],"supervised":[false,true],"columns":{"margin":0.5},"row":3,"numbers":{"group":3.0},"tokens":{"old_logp":[-1.5]},"reads_last":false}],"epoch":0,"taken":1}"#;
        let state: State = serde_json::from_str(text).unwrap();
        assert_eq!(state.sequences[0].per_sequence["group"], 3.0);
        assert_eq!(state.sequences[0].per_token["old_logp"], [-1.5]);
        assert_eq!(serde_json::to_string(&state).unwrap(), text);
    }
}
