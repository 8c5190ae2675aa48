//! What answers and figures were made with, and the summary in which this is written beside them.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::{
    error::{Error, Result},
    runs::disk::write_durably,
    train::run::provenance::model_source,
};

/// Returns what identifies a model: the sha256 of its weights.
///
/// # Errors
/// Weights that cannot be read.
pub fn of_model(folder: &Path) -> Result<Value> {
    Ok(json!({"weights_sha256": model_source(Some(folder))?.sha256}))
}

/// Returns the path of the summary of a file: `answers.summary.json` for `answers.jsonl`.
pub fn summary_path(of: &Path) -> PathBuf {
    of.with_extension("summary.json")
}

/// Writes the settings and, once they are known, the figures.
///
/// # Errors
/// The file cannot be written.
pub fn write_summary(path: &Path, settings: &Map<String, Value>, figures: Option<Value>) -> Result<()> {
    let summary = json!({
        "telos": env!("CARGO_PKG_VERSION"),
        "settings": settings,
        "figures": figures,
    });
    let text = serde_json::to_string_pretty(&summary)
        .map_err(|cause| Error::run("cannot write the summary as JSON").with_cause(cause))?;
    write_durably(path, (text + "\n").as_bytes())
}
