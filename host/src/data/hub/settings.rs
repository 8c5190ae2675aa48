//! Where the hub and its cache are, from the environment variables of the Python library `huggingface_hub`.

use std::env;
use std::path::PathBuf;

use crate::data::error::{DataError, Result};

/// The settings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The cache: HF_HUB_CACHE, else `hub` in HF_HOME, else `~/.cache/huggingface/hub`.
    pub cache: PathBuf,
    /// The address: HF_ENDPOINT, else the public hub.
    pub endpoint: String,
    /// HF_TOKEN, else the token that `hf auth login` stored.
    pub token: Option<String>,
    /// HF_HUB_OFFLINE: nothing is downloaded, and the cache is used as it is.
    pub offline: bool,
}

impl Settings {
    /// Reads the environment.
    ///
    /// # Errors
    /// The cache has no place: none of the variables nor HOME is set.
    pub fn from_env() -> Result<Settings> {
        let set = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let home = set("HF_HOME").map(PathBuf::from).or_else(|| {
            let cache =
                set("XDG_CACHE_HOME").map(PathBuf::from).or_else(|| Some(PathBuf::from(set("HOME")?).join(".cache")));
            Some(cache?.join("huggingface"))
        });
        let cache = set("HF_HUB_CACHE").map(PathBuf::from).or_else(|| Some(home?.join("hub")));
        let cache = cache.ok_or_else(|| DataError::Unusable {
            path: "HF_HOME".into(),
            what: "the cache of the Hugging Face hub has no place: neither HF_HUB_CACHE, HF_HOME nor HOME is set"
                .into(),
            remedy: "set HF_HOME to a folder".into(),
            source: None,
        })?;
        let is_true = |value: String| matches!(value.to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE");
        let endpoint = set("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        Ok(Settings {
            // hf-hub wants absolute paths.
            cache: std::path::absolute(&cache).unwrap_or(cache),
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token: set("HF_TOKEN"),
            offline: set("HF_HUB_OFFLINE").or_else(|| set("TRANSFORMERS_OFFLINE")).is_some_and(is_true),
        })
    }
}
