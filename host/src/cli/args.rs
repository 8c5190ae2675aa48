//! Arguments that several commands share.

use std::path::PathBuf;

use clap::Args;

use crate::inference::saved_model::BackendChoice;

/// The backend, for commands without an experiment.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct BackendArgs {
    /// Id of the backend plugin.
    #[arg(long, value_name = "ID", default_value = "candle")]
    pub backend: String,
    /// Device, as the backend names it: cpu, metal, cuda:0.
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub device: String,
    /// Compute type.
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = ["f32", "bf16", "f64"])]
    pub dtype: String,
    /// Threads; 0 means all cores. Never changes the result.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = up_to::<4096>)]
    pub threads: usize,
}

impl BackendArgs {
    /// Converts the arguments to the library's type.
    pub(super) fn choice(&self, folders: Vec<PathBuf>) -> BackendChoice {
        BackendChoice {
            plugin: self.backend.clone(),
            device: self.device.clone(),
            dtype: self.dtype.clone(),
            threads: self.threads,
            folders,
        }
    }
}

/// An integer from 0 to `MOST`.
pub(super) fn up_to<const MOST: usize>(text: &str) -> Result<usize, String> {
    let valid = text.parse().ok().filter(|number| *number <= MOST);
    valid.ok_or_else(|| format!("expected an integer from 0 to {MOST}"))
}
