//! What a checkpoint contains in addition to the weights: the moments and the place in the run, enough to resume bit for bit.

use std::{fs, io, path::Path};

use serde::{Deserialize, Serialize};

use crate::{
    data::BatcherState,
    error::{Error, Result},
    files,
    runs::{disk::shown, jsonl::Lines},
};

/// Name of the file with the place in the run.
pub const TRAINER: &str = "trainer.json";

/// The place in the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainState {
    /// Steps done.
    pub step: u64,
    /// Steps of the whole run.
    pub total: u64,
    /// Updates applied: steps minus refused ones.
    pub updates: u64,
    /// Non-finite steps in a row.
    pub bad_steps: u64,
    /// Non-finite steps in total.
    pub refused: u64,
    /// Positions computed in training.
    pub tokens: u64,
    /// Best value of `checkpoint.best` so far.
    pub best: Option<f64>,
    /// Step of that value, whose checkpoint is the best one.
    pub best_step: Option<u64>,
    /// Best value so far for early stopping.
    pub early_best: Option<f64>,
    /// Evaluations since that value.
    pub evaluations_without_gain: u64,
    /// Held-out loss before training.
    pub loss_before: Option<f64>,
    /// Step and held-out loss of the latest evaluation; no loss if only answers were evaluated.
    pub evaluated: Option<(u64, Option<f64>)>,
    /// Step of the latest samples.
    pub sampled: Option<u64>,
    /// Whether the run stopped before its last step: by early stopping, or because an objective requested it.
    pub stopped: bool,
    /// Whether the run has ended.
    pub ended: bool,
    /// Place in the data order.
    pub data: BatcherState,
    /// Place in the text of each objective that has its own.
    #[serde(rename = "beside", default, skip_serializing_if = "Vec::is_empty")]
    pub auxiliary: Vec<BatcherState>,
    /// The parts of metrics.jsonl and samples.jsonl that belong to these steps. Checkpoints of earlier versions have the number
    /// of bytes of metrics.jsonl, timing.jsonl and samples.jsonl.
    #[serde(rename = "lines", deserialize_with = "logs")]
    pub logs: Logs,
    /// State of each objective, in hexadecimal: checkpoints of earlier versions store it here, later ones in separate files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    objectives: Vec<String>,
}

/// The parts of the logs that belong to a checkpoint.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logs {
    /// The part of metrics.jsonl.
    pub metrics: Lines,
    /// The part of samples.jsonl.
    pub samples: Lines,
}

fn logs<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Logs, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Earlier([u64; 3]),
        Now(Logs),
    }
    let lines = |bytes| Lines { bytes, sha256: None };
    Ok(match Either::deserialize(from)? {
        Either::Now(logs) => logs,
        Either::Earlier([metrics, _, samples]) => Logs { metrics: lines(metrics), samples: lines(samples) },
    })
}

impl TrainState {
    /// Creates the state of a run before its first step.
    pub fn new(total: u64, data: BatcherState) -> Self {
        TrainState {
            step: 0,
            total,
            updates: 0,
            bad_steps: 0,
            refused: 0,
            tokens: 0,
            best: None,
            best_step: None,
            early_best: None,
            evaluations_without_gain: 0,
            loss_before: None,
            evaluated: None,
            sampled: None,
            stopped: false,
            ended: false,
            data,
            auxiliary: Vec::new(),
            logs: Logs::default(),
            objectives: Vec::new(),
        }
    }

    /// Reads it from a checkpoint.
    ///
    /// # Errors
    /// A request error that names the file.
    pub fn read(folder: &Path) -> Result<TrainState> {
        let path = folder.join(TRAINER);
        let refuse = |e: Box<dyn std::error::Error + Send + Sync>| {
            Error::request(format!("cannot read {}", path.display()))
                .with_cause(e)
                .with_hint("resume needs a checkpoint of a run of this version of telos")
        };
        let bytes = files::read(&path).map_err(|e| refuse(e.into()))?;
        serde_json::from_slice(&bytes).map_err(|e| refuse(e.into()))
    }

    /// Writes it into a checkpoint.
    ///
    /// # Errors
    /// Errors of the file system.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let text =
            serde_json::to_vec_pretty(self).map_err(|e| Error::run("cannot write the run's state").with_cause(e))?;
        write_file(&folder.join(TRAINER), &text)
    }

    /// Reads the states of `count` objectives from the checkpoint in `folder`; empty for those without a state.
    ///
    /// # Errors
    /// A request error that names the file.
    pub fn objectives(&self, folder: &Path, count: usize) -> Result<Vec<Vec<u8>>> {
        if !self.objectives.is_empty() {
            return self.objectives.iter().map(|text| from_hex(text)).collect();
        }
        let read = |index| {
            let path = folder.join(objective_file(index));
            match files::read(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
                read => read.map_err(|e| Error::request(format!("cannot read {}", path.display())).with_cause(e)),
            }
        };
        (0..count).map(read).collect()
    }
}

/// Writes the state of each objective that has one into a checkpoint.
///
/// # Errors
/// Errors of the file system.
pub fn write_objectives(states: &[Vec<u8>], folder: &Path) -> Result<()> {
    let with_state = states.iter().enumerate().filter(|(_, state)| !state.is_empty());
    with_state
        .map(|(index, state)| (folder.join(objective_file(index)), state))
        .try_for_each(|(p, s)| write_file(&p, s))
}

/// Returns the name of the file with the state of the objective at this index.
fn objective_file(index: usize) -> String {
    format!("objective.{index}.state")
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).map_err(|e| Error::run(format!("cannot write {}", shown(path).display())).with_cause(e))
}

/// Parses bytes from hexadecimal.
///
/// # Errors
/// Text that is not hexadecimal.
fn from_hex(text: &str) -> Result<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok());
    pairs
        .map(|pair| {
            // from_str_radix also accepts a sign.
            let digits = pair.filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()));
            digits.and_then(|p| u8::from_str_radix(p, 16).ok())
        })
        .collect::<Option<Vec<u8>>>()
        .ok_or_else(|| Error::request("the saved state of an objective is damaged"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beginning() -> TrainState {
        let data = BatcherState { epoch: 0, taken: 0, context: 0, sequences: 0, positions: 0, data: String::new() };
        TrainState::new(4, data)
    }

    /// Catches a checkpoint of an earlier version that no longer loads, or whose objectives lose their state.
    #[test]
    fn checkpoints_of_earlier_versions_are_read() {
        let now = serde_json::to_value(beginning()).unwrap();
        let mut earlier = now.clone();
        earlier["lines"] = serde_json::json!([12, 34, 56]);
        earlier["objectives"] = serde_json::json!(["", "00017f80ff"]);
        let state: TrainState = serde_json::from_value(earlier).unwrap();
        let bytes = (state.logs.metrics.bytes, state.logs.samples.bytes);
        assert_eq!((bytes, state.logs.metrics.sha256.is_none()), ((12, 56), true));
        let states = state.objectives(Path::new("/nowhere"), 2).unwrap();
        assert_eq!(states, [vec![], vec![0, 1, 0x7f, 0x80, 0xff]]);
        for bad in ["0", "0g", "+1"] {
            assert!(from_hex(bad).is_err(), "{bad}");
        }
        let again: TrainState = serde_json::from_value(now.clone()).unwrap();
        assert_eq!(serde_json::to_value(again).unwrap(), now);
    }

    /// Catches states that are exchanged, and an objective without a state that gets one.
    #[test]
    fn states_of_objectives_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let states = [vec![], vec![0, 255, 10], vec![]];
        write_objectives(&states, folder.path()).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(beginning().objectives(folder.path(), 3).unwrap(), states);
    }
}
