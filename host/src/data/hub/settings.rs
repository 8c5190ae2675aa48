//! Where the hub and its cache are, from the environment variables of the Python library `huggingface_hub`.

use std::path::PathBuf;
use std::{env, fs};

use crate::data::error::{DataError, Result};

/// The settings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The cache: HF_HUB_CACHE, else `hub` in HF_HOME, else `~/.cache/huggingface/hub`.
    pub cache: PathBuf,
    /// The address: HF_ENDPOINT, else the public hub.
    pub endpoint: String,
    /// HF_TOKEN, else the token that `hf auth login` stored: in the file HF_TOKEN_PATH, else `token` in HF_HOME.
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
        Settings::of(&|name| env::var(name).ok())
    }

    fn of(variable: &dyn Fn(&str) -> Option<String>) -> Result<Settings> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let home = set("HF_HOME").map(PathBuf::from).or_else(|| {
            let cache =
                set("XDG_CACHE_HOME").map(PathBuf::from).or_else(|| Some(PathBuf::from(set("HOME")?).join(".cache")));
            Some(cache?.join("huggingface"))
        });
        let token = set("HF_TOKEN_PATH").map(PathBuf::from).or_else(|| Some(home.as_ref()?.join("token")));
        let stored = || fs::read_to_string(token?).ok();
        let token =
            set("HF_TOKEN").or_else(stored).map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
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
            token,
            offline: set("HF_HUB_OFFLINE").or_else(|| set("TRANSFORMERS_OFFLINE")).is_some_and(is_true),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a token that is not sent because the cache is not in the folder of the token.
    #[test]
    fn the_stored_token_is_found_wherever_the_cache_is() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("token"), "stored\n").unwrap();
        fs::write(home.path().join("other"), "other").unwrap();
        let (folder, other) = (home.path().display().to_string(), home.path().join("other").display().to_string());
        let token = |given: &[(&str, &str)]| {
            let find = |name: &str| given.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned());
            Settings::of(&find).unwrap().token
        };
        assert_eq!(token(&[("HF_HOME", &folder), ("HF_HUB_CACHE", "/elsewhere")]).as_deref(), Some("stored"));
        assert_eq!(token(&[("HF_HOME", &folder), ("HF_TOKEN_PATH", &other)]).as_deref(), Some("other"));
        assert_eq!(token(&[("HF_HOME", &folder), ("HF_TOKEN", "given")]).as_deref(), Some("given"));
        assert_eq!(token(&[("HF_HUB_CACHE", "/elsewhere")]), None);
    }
}
