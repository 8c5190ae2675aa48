//! `generation_config.json`: the ids that end an answer are read, and the file is saved unchanged. Its other keys are defaults
//! of sampling, which experiments and commands set themselves.

use serde_json::{Value, json};

use super::config::ModelConfig;
use super::keys::Reader;
use super::keys::read_text;
use crate::data::Inputs;
use crate::error::{Error, Result};

/// File name of the generation defaults.
pub const GENERATION_FILE: &str = "generation_config.json";

impl ModelConfig {
    /// Reads the folder's `generation_config.json`, if it exists: its end ids are added to those of `config.json`.
    ///
    /// # Errors
    /// A request error that names file, key and value.
    pub(super) fn add_generation(&mut self, inputs: &mut Inputs) -> Result<()> {
        if !inputs.has(GENERATION_FILE) {
            return Ok(());
        }
        let file = inputs.path(GENERATION_FILE).display().to_string();
        let text = read_text(inputs, GENERATION_FILE)?;
        let value: Value = serde_json::from_str(&text)
            .map_err(|cause| Error::request(format!("{file}: not valid JSON")).with_cause(cause))?;
        let Value::Object(map) = value else {
            return Err(Error::request(format!("{file}: expected a JSON object")));
        };
        let ends = Reader { file: &file, map: &map }.ids("eos_token_id", self.vocab, &mut self.notes)?;
        let new: Vec<u32> = ends.into_iter().filter(|id| !self.eos.contains(id)).collect();
        self.eos.extend(new);
        self.generation = Some(text);
        Ok(())
    }

    /// Returns the text of `generation_config.json`: as it was read, or a new one with the ids of `config.json`.
    pub(in crate::model) fn generation_json(&self) -> String {
        let ids = || {
            json!({
                "_from_model_config": true,
                "bos_token_id": self.bos,
                "eos_token_id": self.eos_json(),
                "pad_token_id": self.pad,
            })
        };
        self.generation.clone().unwrap_or_else(|| format!("{:#}\n", ids()))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const CONFIG: &str = r#"{"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": 32,
        "eos_token_id": [3, 5]}"#;

    fn with(generation: &str) -> Result<ModelConfig> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("config.json"), CONFIG).unwrap();
        fs::write(folder.path().join(GENERATION_FILE), generation).unwrap();
        ModelConfig::from_folder(folder.path())
    }

    /// Catches end ids of this file that are ignored, end ids of config.json that it replaces, and a list of one.
    #[test]
    fn gotcha_46_its_ends_join_those_of_config_json() {
        for (ids, ends) in [
            ("7", vec![3, 5, 7]),
            ("[5, 9, 7]", vec![3, 5, 9, 7]),
            ("[3]", vec![3, 5]),
            ("null", vec![3, 5]),
            ("[]", vec![3, 5]),
        ] {
            let config = with(&format!(r#"{{"eos_token_id": {ids}, "temperature": 0.6}}"#)).unwrap();
            assert_eq!(config.eos, ends, "{ids}");
            assert!(config.notes.is_empty(), "{:?}", config.notes);
        }
        assert_eq!(with("{}").unwrap().eos, [3, 5]);
    }

    /// Catches an id outside the vocabulary, which a backend would read outside the head, and one that is dropped without a
    /// note.
    #[test]
    fn an_end_outside_the_vocabulary_is_ignored_with_a_note() {
        let config = with(r#"{"eos_token_id": [31, 32, 99999999999]}"#).unwrap();
        assert_eq!(config.eos, [3, 5, 31]);
        assert_eq!(config.notes.len(), 2);
        assert!(
            config.notes[0].contains("generation_config.json") && config.notes[0].contains("32"),
            "{:?}",
            config.notes
        );
    }

    /// Catches a file that is rewritten: other keys, their order, white space and numbers must stay unchanged.
    #[test]
    fn gotcha_46_it_is_saved_as_it_was_read() {
        let text = "{\n \"top_p\": 0.95,\n   \"eos_token_id\": [5, 9], \"transformers_version\": \"4.37.0\"}";
        assert_eq!(with(text).unwrap().generation_json(), text);
        let own = ModelConfig::parse(CONFIG, "c").unwrap().generation_json();
        let own: Value = serde_json::from_str(&own).unwrap();
        assert_eq!(own["eos_token_id"], json!([3, 5]));
    }

    /// Catches an unreadable file that is treated as absent.
    #[test]
    fn an_unreadable_file_is_refused_by_name() {
        for (text, part) in [
            ("{", "not valid JSON"),
            ("[1]", "JSON object"),
            (r#"{"eos_token_id": "</s>"}"#, "eos_token_id"),
            ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer"),
        ] {
            let error = with(text).unwrap_err();
            assert!(error.message().contains(GENERATION_FILE) && error.message().contains(part), "{error:?}");
            assert_eq!(error.exit_code(), 2);
        }
    }
}
