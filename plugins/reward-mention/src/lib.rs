//! Mentioning a word, the earlier the better: a minimal task for a real language model.
//!
//! ```text
//! score = max(0, 1 - n / within)   n = words before the first mention; 0 where there is none
//! ```
//!
//! A mention is one of `words` as a whole word in upper or lower case; "dogs" does not mention "dog".

use plugin_api::prelude::*;
use regex::{Regex, RegexBuilder};

options! {
    /// Options of the mention reward.
    pub struct Config {
        /// Words or phrases, of which one must be mentioned; at least one.
        words: Vec<String> = Vec::new();
        /// Number of words of the completion after which a mention scores 0.
        within: i64 = 20, from 1;
    }
}

/// The reward for an early mention of one of the words.
pub struct Mention {
    pattern: Regex,
    within: f64,
}

impl RewardPlugin for Mention {
    type Options = Config;

    fn manifest() -> RewardManifest {
        RewardManifest {
            summary: "How early the completion mentions one of some words, from 0 to 1".into(),
            ..Default::default()
        }
    }

    fn create(config: Config) -> Result<Self> {
        let refuse = |why: &str| Error::new(Code::OPTION, format!("option `words`: {why}"));
        if config.words.is_empty() {
            return Err(refuse("is empty; for example words = [\"dog\", \"cat\"]"));
        }
        if config.words.iter().any(|word| word.trim().is_empty()) {
            return Err(refuse("contains an empty word, which every text mentions"));
        }
        let words: Vec<String> = config.words.iter().map(|word| regex::escape(word.trim())).collect();
        // `\b` cannot be used, because a word may begin or end with a punctuation character.
        let pattern = format!(r"(?:^|[^\w])((?:{}))(?:[^\w]|$)", words.join("|"));
        let pattern = RegexBuilder::new(&pattern).case_insensitive(true).build().map_err(|e| refuse(&e.to_string()))?;
        Ok(Mention { pattern, within: config.within as f64 })
    }
}

impl Reward for Mention {
    fn score(&self, samples: &[Sample]) -> Result<Vec<f64>> {
        Ok(samples.iter().map(|sample| self.earliness(&sample.completion)).collect())
    }
}

impl Mention {
    fn earliness(&self, text: &str) -> f64 {
        let Some(start) = self.pattern.captures(text).and_then(|found| Some(found.get(1)?.start())) else { return 0.0 };
        // A punctuation character before the mention, as in `"Dog`, is not a word.
        let before = text[..start].split_whitespace().filter(|word| word.chars().any(char::is_alphanumeric)).count();
        (1.0 - before as f64 / self.within).max(0.0)
    }
}

export_reward!("mention", Mention);
