//! What answers and figures were made with, and the file in which this is written: the summary.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::{
    data::source::Source,
    error::{Error, Result},
    inference::saved_model::Opened,
    model::adapter::config::base_of,
    runs::disk::write_durably,
    train::run::provenance::model_source,
};

/// Returns what identifies a model: the sha256 of its weights, of those of its base if it is an adapter, and of the other files that
/// were read.
///
/// # Errors
/// Weights that cannot be read.
pub fn of_model(opened: &Opened) -> Result<Value> {
    let base = base_of(&opened.folder)?;
    let of_base = (base != opened.folder).then(|| model_source(Some(&base))).transpose()?;
    Ok(json!({
        "weights_sha256": model_source(Some(&opened.folder))?.sha256,
        "base_weights_sha256": of_base.and_then(|source| source.sha256),
        "files": hashes(&opened.model.config().files),
        "tokenizer_sha256": opened.tokenizer.hash(),
        "tokenizer_files": hashes(opened.tokenizer.read_from()),
    }))
}

fn hashes(files: &[Source]) -> Vec<&str> {
    files.iter().map(|file| file.sha256.as_str()).collect()
}

/// Returns the path of the summary of a file: `answers.summary.json` for `answers.jsonl`; of a name with another ending, all of the
/// name and `.summary.json`.
pub fn summary_path(of: &Path) -> PathBuf {
    let is_lines = of.extension().is_some_and(|ending| ending == "jsonl");
    let mut path = if is_lines { of.with_extension("") } else { of.to_owned() }.into_os_string();
    path.push(".summary.json");
    path.into()
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches two files of answers with one summary.
    #[test]
    fn every_file_has_a_summary_of_its_own() {
        for (file, summary) in [
            ("a/b.jsonl", "a/b.summary.json"),
            ("a/b.json", "a/b.json.summary.json"),
            ("answers-0.5", "answers-0.5.summary.json"),
            ("answers-0.7", "answers-0.7.summary.json"),
        ] {
            assert_eq!(summary_path(Path::new(file)), Path::new(summary));
        }
    }
}
