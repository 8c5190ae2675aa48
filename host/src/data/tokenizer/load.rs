//! A tokenizer from the files of its folder: the library's own, special tokens, and settings that are switched off.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use tokenizers::{AddedToken, ModelWrapper};

use super::folder::{self, CONFIG, Folder};
use super::special::Special;
use super::{Tokenizer, bounds, library, made, templates};
use crate::data::cache::hex;
use crate::data::error::{DataError, Result};

/// End-of-text tokens looked for in the vocabulary if no file names one.
const USUAL_ENDS: [&str; 3] = [made::END_OF_TEXT, "</s>", "<|end_of_text|>"];

impl Tokenizer {
    /// Reads the files of a folder.
    pub(super) fn new(files: Folder) -> Result<Tokenizer> {
        let Folder { name, json, other_files, read } = files;
        bounds::check(&name, &json)?;
        let inner = library::run(&name, "it cannot be read", || {
            let mut inner = tokenizers::Tokenizer::from_bytes(&json)?;
            inner.with_truncation(None)?;
            inner.with_padding(None);
            Ok(inner)
        })?;
        let config = folder::object(&name, &other_files, CONFIG)?;
        let own: BTreeMap<u32, AddedToken> = inner.get_added_tokens_decoder().into_iter().collect();
        let special = Special::read(&name, &other_files, &config, &own)?;
        let templates = templates::read(&name, &other_files, &config)?;
        let mut made = Tokenizer {
            one_byte_each: made::bytes_json().is_ok_and(|bytes| bytes == json),
            sha256: hex(&Sha256::digest(&json)),
            inner,
            name,
            json,
            other_files,
            read,
            named: special.named.clone(),
            templates,
            bos: None,
            eos: None,
            usual_eos: None,
            model_ends: Vec::new(),
            limit: None,
            adds_bos: false,
            vocab_size: 0,
            notes: Vec::new(),
        };
        made.switch_dropout_off();
        made.add_tokens(special, &config)?;
        made.vocab_size = made.inner.get_vocab(true).values().max().map_or(0, |&id| id as usize + 1);
        if made.vocab_size == 0 {
            return Err(DataError::Tokenizer { name: made.name, what: "its vocabulary is empty".into(), source: None });
        }
        made.read_special_tokens(&config)?;
        Ok(made)
    }

    /// With dropout, the same text becomes other tokens each time: two runs of one experiment would learn from
    /// different tokens.
    fn switch_dropout_off(&mut self) {
        let model = match self.inner.get_model() {
            ModelWrapper::BPE(bpe) if bpe.dropout.is_some_and(|dropout| dropout > 0.0) => {
                self.notes.push(format!(
                    "{}: it sets dropout {:?}, which would give the same text different tokens each time: dropout is switched off, also in training",
                    self.name,
                    bpe.dropout.unwrap_or_default()
                ));
                let mut bpe = bpe.clone();
                bpe.dropout = None;
                ModelWrapper::BPE(bpe)
            }
            ModelWrapper::Unigram(unigram) if unigram.alpha.is_some() || unigram.nbest_size.is_some() => {
                self.notes.push(format!("{}: sampling of tokens is switched off", self.name));
                let mut unigram = unigram.clone();
                (unigram.alpha, unigram.nbest_size) = (None, None);
                ModelWrapper::Unigram(unigram)
            }
            _ => return,
        };
        self.inner.with_model(model);
        self.count_in_hash("dropout off");
    }

    /// Adds the tokens that are named only in files other than tokenizer.json.
    fn add_tokens(&mut self, special: Special, config: &Map<String, Value>) -> Result<()> {
        for key in ["eos_token", "bos_token"] {
            let Some(token) = special.named.get(key) else { continue };
            let named_elsewhere = || special.ids.iter().any(|(_, text)| text == token);
            if self.inner.token_to_id(token).is_none() && !named_elsewhere() {
                let what = format!("{key} is \"{token}\", which is not in the vocabulary");
                return Err(DataError::Tokenizer { name: self.name.clone(), what, source: None });
            }
        }
        if !special.add.is_empty() {
            special.add.iter().for_each(|token| self.count_in_hash(&format!("{token:?}")));
            let inner = &mut self.inner;
            library::run(&self.name, "its added tokens cannot be added", || inner.add_tokens(special.add))?;
        }
        for (id, text) in &special.ids {
            if let Some(own) = self.inner.token_to_id(text).filter(|own| own != id) {
                self.notes.push(format!(
                    "{}: the other files of its folder give \"{text}\" the id {id}; it gets {own}, as in transformers",
                    self.name
                ));
            }
        }
        if config.get("split_special_tokens").and_then(Value::as_bool) == Some(true) {
            self.inner.set_encode_special_tokens(true);
            self.count_in_hash("split special tokens");
        }
        Ok(())
    }

    /// Adds to [`Tokenizer::hash`] a change that makes the same tokenizer.json yield other tokens.
    fn count_in_hash(&mut self, what: &str) {
        self.sha256 = hex(&Sha256::digest(format!("{} {what}", self.sha256)));
    }

    /// The configuration takes precedence over what the post-processor of tokenizer.json would add.
    fn read_special_tokens(&mut self, config: &Map<String, Value>) -> Result<()> {
        let id = |key: &str| self.named.get(key).and_then(|token| self.inner.token_to_id(token));
        (self.eos, self.bos) = (id("eos_token"), id("bos_token"));
        self.usual_eos = USUAL_ENDS.into_iter().find_map(|token| self.inner.token_to_id(token));
        let eos = self.eos();
        let empty =
            library::run(&self.name, "it cannot encode with its post-processor", || self.inner.encode_fast("", true))?;
        // A token that it adds after a text is not used.
        if let Some(id) = empty.get_ids().first().filter(|id| self.inner.id_to_token(**id).is_none()) {
            let what = format!("its post-processor adds the token id {id}, which is not in the vocabulary");
            return Err(DataError::Tokenizer { name: self.name.clone(), what, source: None });
        }
        let special = empty.get_special_tokens_mask().first() == Some(&1);
        // A post-processor that only adds an end-of-text token must not be treated as one that adds a
        // beginning-of-text token.
        let leading =
            empty.get_ids().first().copied().filter(|&id| special && (Some(id) == self.bos || Some(id) != eos));
        self.bos = self.bos.or(leading);
        self.adds_bos = match config.get("add_bos_token").and_then(Value::as_bool) {
            Some(set) => set,
            None => leading.is_some() && leading == self.bos,
        };
        if self.adds_bos && self.bos.is_none() {
            let what = "add_bos_token is set, but no bos_token is named".into();
            return Err(DataError::Tokenizer { name: self.name.clone(), what, source: None });
        }
        Ok(())
    }
}
