//! Arguments that several commands share.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Map, Value};

use crate::{
    config::schema,
    error::{Error, Result},
    generate::GenerateOptions,
    inference::saved_model::BackendChoice,
    keys::mistake::suggestion,
};

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

    /// What a summary records: everything but the number of threads, which never changes a result.
    pub(super) fn settings(&self) -> Map<String, Value> {
        let settings = [("backend", &self.backend), ("device", &self.device), ("dtype", &self.dtype)];
        settings.map(|(name, value)| (name.to_owned(), Value::from(value.as_str()))).into_iter().collect()
    }
}

/// An integer from 0 to `MOST`.
pub(super) fn up_to<const MOST: usize>(text: &str) -> Result<usize, String> {
    let valid = text.parse().ok().filter(|number| *number <= MOST);
    valid.ok_or_else(|| format!("expected an integer from 0 to {MOST}"))
}

/// How tokens are drawn.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct SamplingArgs {
    /// Softmax temperature; 0 picks the most probable token.
    #[arg(long, value_name = "T", default_value_t = 1.0, allow_negative_numbers = true, value_parser = temperature)]
    pub temperature: f64,
    /// Draw from the smallest set of tokens with this probability; 1 means all.
    #[arg(long, value_name = "P", default_value_t = 1.0, value_parser = top_p)]
    pub top_p: f64,
    /// Draw from the K most probable tokens; 0 means all.
    #[arg(long, value_name = "K", default_value_t = 0, value_parser = up_to::<16_777_216>)]
    pub top_k: usize,
    /// Seed of sampling: the same seed gives the same text.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
}

impl SamplingArgs {
    /// Converts the arguments to the library's type.
    ///
    /// # Errors
    /// Options that have no effect together.
    pub(super) fn options(&self, max_tokens: usize) -> Result<GenerateOptions> {
        let SamplingArgs { temperature, top_p, top_k, seed } = *self;
        if temperature == 0.0 && (top_p < 1.0 || top_k > 0) {
            let message =
                "--top-p and --top-k are unused with --temperature 0, which always picks the most probable token";
            return Err(Error::request(message).with_hint("leave them out, or raise the temperature"));
        }
        Ok(GenerateOptions { max_tokens, temperature, top_p, top_k, seed })
    }
}

/// An integer from 1.
pub(super) fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|count| *count > 0).ok_or_else(|| "expected an integer from 1".to_owned())
}

fn temperature(text: &str) -> Result<f64, String> {
    let valid = text.parse().ok().filter(|number| (0.0..=100.0).contains(number));
    valid.ok_or_else(|| "expected a number from 0 to 100".to_owned())
}

fn top_p(text: &str) -> Result<f64, String> {
    let valid = text.parse().ok().filter(|number| *number > 0.0 && *number <= 1.0);
    valid.ok_or_else(|| "expected a number above 0 and at most 1".to_owned())
}

/// `KEY=NAME` as a pair.
pub(super) fn column(text: &str) -> Result<(String, String), String> {
    let (key, name) =
        text.split_once('=').ok_or_else(|| "expected KEY=NAME, for example answer=solution".to_owned())?;
    let (key, name) = (key.trim().to_owned(), name.trim().to_owned());
    let known = || schema::children("data.columns");
    if known().all(|known| known != key) {
        return Err(format!("`{key}` is not a column with a meaning; {}", suggestion(&key, known())));
    }
    Ok((key, name))
}
