//! Special and added tokens as transformers 5 reads them from a tokenizer's folder. The rules, in its order:
//!
//! - `tokenizer_config.json` names special tokens. If it has `added_tokens_decoder`, that lists the added tokens,
//!   and `special_tokens_map.json` and `added_tokens.json` are not used. Otherwise `special_tokens_map.json` takes
//!   precedence over the configuration, and the added tokens are those of `added_tokens.json` and of
//!   `tokenizer.json`.
//! - Tokens of the decoder that `tokenizer.json` does not have, or has with other flags, are added in the order of
//!   their ids; then named special tokens that are not added tokens yet; then those of `extra_special_tokens`
//!   (before transformers 5: `additional_special_tokens`). A token of the vocabulary keeps its id, a new one gets
//!   the next free id.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};
use tokenizers::AddedToken;

use super::folder::{ADDED_TOKENS, CONFIG, SPECIAL_TOKENS, object, unusable};
use crate::data::error::Result;

/// Special tokens that every tokenizer may have; others end in `_token` too.
pub(super) const NAMED: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// The special and added tokens of a folder.
#[derive(Debug, Default)]
pub(super) struct Special {
    /// Tokens to add to those of `tokenizer.json`, in order.
    pub add: Vec<AddedToken>,
    /// Texts of the named special tokens, by key.
    pub named: BTreeMap<String, String>,
    /// The id that `added_tokens_decoder` or `added_tokens.json` gives a token.
    pub ids: Vec<(u32, String)>,
}

impl Special {
    /// Reads the files beside a tokenizer whose `tokenizer.json` has the added tokens `own`.
    ///
    /// # Errors
    /// A file that is not a JSON object, or an entry that is not a token, with file and key.
    pub fn read(
        tokenizer: &str,
        other_files: &BTreeMap<String, Vec<u8>>,
        config: &Map<String, Value>,
        own: &BTreeMap<u32, AddedToken>,
    ) -> Result<Special> {
        let in_config = |what: String| unusable(tokenizer, CONFIG, what, None);
        let in_map = |what: String| unusable(tokenizer, SPECIAL_TOKENS, what, None);
        // Read in any case, so that errors in them are reported.
        let map = object(tokenizer, other_files, SPECIAL_TOKENS)?;
        let added = object(tokenizer, other_files, ADDED_TOKENS)?;
        let mut named = Tokens::default();
        named.read(config).map_err(in_config)?;
        let mut decoder = BTreeMap::new();
        if let Some(value) = config.get("added_tokens_decoder") {
            decoder = decoder_tokens(value).map_err(in_config)?;
        } else {
            named.read(&map).map_err(in_map)?;
            for (text, id) in &added {
                let what = || format!("`{text}` is {id}, expected a token id");
                let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
                let id = id.ok_or_else(|| unusable(tokenizer, ADDED_TOKENS, what(), None))?;
                decoder.insert(id, AddedToken::from(text.clone(), named.texts().any(|own| own == text)));
            }
            decoder.extend(own.iter().map(|(id, token)| (*id, token.clone())));
        }
        Ok(named.with(decoder, own))
    }
}

/// Special tokens by key, and those without a key.
struct Tokens {
    named: BTreeMap<String, AddedToken>,
    /// The keys, in the order in which new tokens get their ids.
    order: Vec<String>,
    extra: Vec<AddedToken>,
}

impl Default for Tokens {
    fn default() -> Self {
        Tokens { named: BTreeMap::new(), order: NAMED.map(str::to_owned).to_vec(), extra: Vec::new() }
    }
}

impl Tokens {
    /// Adds the special tokens of `map`.
    fn read(&mut self, map: &Map<String, Value>) -> Result<(), String> {
        for (key, value) in map {
            let standard = NAMED.contains(&key.as_str());
            if !standard && !key.ends_with("_token") {
                continue;
            }
            match token(value) {
                Some(token) => self.name(key, token),
                None if value.is_null() => {
                    self.named.remove(key);
                }
                None if standard => {
                    return Err(format!("`{key}` is {value}, expected a token as text or as an object"));
                }
                // For example, `add_bos_token`: true.
                None => {}
            }
        }
        let empty = |value: &Value| {
            value.is_null()
                || value.as_array().is_some_and(Vec::is_empty)
                || value.as_object().is_some_and(Map::is_empty)
        };
        let extra = |key: &str| map.get(key).filter(|value| !empty(value));
        let (key, value) = match (extra("extra_special_tokens"), extra("additional_special_tokens")) {
            (Some(value), _) => ("extra_special_tokens", value),
            (None, Some(value)) => ("additional_special_tokens", value),
            (None, None) => return Ok(()),
        };
        let wrong = || format!("`{key}` is {value}, expected a list of tokens, or an object of names and tokens");
        match value {
            Value::Array(tokens) => {
                for value in tokens {
                    let token = token(value).ok_or_else(wrong)?;
                    if !self.extra.iter().any(|own| own.content == token.content) {
                        self.extra.push(token);
                    }
                }
            }
            Value::Object(tokens) => {
                for (key, value) in tokens {
                    self.name(key, token(value).ok_or_else(wrong)?);
                }
            }
            _ => return Err(wrong()),
        }
        Ok(())
    }

    fn name(&mut self, key: &str, token: AddedToken) {
        self.named.insert(key.to_owned(), token);
        if !self.order.iter().any(|known| known == key) {
            self.order.push(key.to_owned());
        }
    }

    fn texts(&self) -> impl Iterator<Item = &str> {
        self.named.values().chain(&self.extra).map(|token| token.content.as_str())
    }

    /// The tokens to add, in order.
    fn with(mut self, decoder: BTreeMap<u32, AddedToken>, own: &BTreeMap<u32, AddedToken>) -> Special {
        let flags: BTreeMap<&str, &AddedToken> =
            decoder.values().map(|token| (token.content.as_str(), token)).collect();
        for token in self.named.values_mut() {
            if let Some(flagged) = flags.get(token.content.as_str()) {
                *token = (*flagged).clone();
            }
        }
        let is_named = |text: &str| self.named.values().any(|token| token.content == text);
        let mut known: BTreeSet<String> = own.values().map(|token| token.content.clone()).collect();
        let mut add: Vec<AddedToken> = Vec::new();
        for token in decoder.values().filter(|token| !own.values().any(|own| own == *token)) {
            known.insert(token.content.clone());
            add.push(token.clone().special(token.special || is_named(&token.content)));
        }
        let named = self.order.iter().filter_map(|key| self.named.get(key));
        for token in named.chain(&self.extra).filter(|token| !token.content.is_empty()) {
            if known.insert(token.content.clone()) {
                add.push(token.clone().special(true));
            }
        }
        let filled = self.named.into_iter().filter(|(_, token)| !token.content.is_empty());
        let ids = decoder.iter().map(|(id, token)| (*id, token.content.clone())).collect();
        Special { add, named: filled.map(|(key, token)| (key, token.content)).collect(), ids }
    }
}

/// `added_tokens_decoder`: ids and tokens with their flags.
fn decoder_tokens(value: &Value) -> Result<BTreeMap<u32, AddedToken>, String> {
    let key = "added_tokens_decoder";
    let Value::Object(map) = value else {
        return Err(format!("`{key}` is {value}, expected an object of ids and tokens"));
    };
    let entry = |(id, value): (&String, &Value)| {
        let number = id.parse().map_err(|_| format!("`{key}` has the key \"{id}\", expected a token id"))?;
        let special = value.get("special").and_then(Value::as_bool).unwrap_or(false);
        let token = value.is_object().then(|| flagged(value, special)).flatten();
        Ok((number, token.ok_or_else(|| format!("`{key}.{id}` is {value}, expected an object with `content`"))?))
    };
    map.iter().map(entry).collect()
}

/// A special token: its text, or an object with `content` and flags.
fn token(value: &Value) -> Option<AddedToken> {
    match value {
        Value::String(text) => Some(AddedToken::from(text.clone(), true)),
        Value::Object(_) => flagged(value, true),
        _ => None,
    }
}

fn flagged(value: &Value, special: bool) -> Option<AddedToken> {
    let flag = |name: &str| value.get(name).and_then(Value::as_bool);
    let token = AddedToken::from(value.get("content")?.as_str()?, special);
    let normalized = flag("normalized").unwrap_or(token.normalized);
    let (lstrip, rstrip) = (flag("lstrip").unwrap_or(false), flag("rstrip").unwrap_or(false));
    let single_word = flag("single_word").unwrap_or(false);
    Some(token.normalized(normalized).lstrip(lstrip).rstrip(rstrip).single_word(single_word))
}
