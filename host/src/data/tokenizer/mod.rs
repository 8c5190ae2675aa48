//! Tokenizers: bytes, any `tokenizer.json`, and a new one trained on text. The `tokenizers` library does the work;
//! this module decides which special tokens are used and keeps a model folder's files unchanged.
//!
//! | file | job |
//! |---|---|
//! | `folder` | which files of a folder are read |
//! | `special` | special and added tokens, as transformers reads them |
//! | [`templates`] | chat templates by name |
//! | `made` | the tokenizers made here: bytes, and one trained on text |
//! | `bounds` | limits on a file, checked before the library reads it |
//! | [`encode`] | text to ids and back |
//! | [`stream`] | decoding token by token |
//! | `library` | calls of the library, whose panics become errors |
//!
//! A BPE file may request `dropout`: random merges are then left out, so that the same text becomes other tokens
//! each time. It is never used, in training either, and a note says so. With it, two runs of one experiment would
//! learn from different tokens, and so would a run and its resumed part. The token cache would also keep one random
//! result for all epochs, which defeats the method. A file's truncation and padding are not used either: the
//! experiment sets the lengths.

mod bounds;
pub mod encode;
mod folder;
mod library;
mod made;
mod special;
pub mod stream;
pub mod templates;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use tokenizers::{AddedToken, ModelWrapper};

use super::document::Document;
use super::error::{DataError, Result};
use super::source::Source;
use folder::{CONFIG, Folder, JSON, TEMPLATE};
use special::Special;
use templates::{DEFAULT, Found};

pub use made::END_OF_TEXT;

/// End-of-text tokens looked for in the vocabulary if no file names one.
const USUAL_ENDS: [&str; 3] = [END_OF_TEXT, "</s>", "<|end_of_text|>"];

/// A tokenizer with its special tokens. Settings of the file that training cannot use are switched off: truncation,
/// padding, dropout.
#[derive(Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    name: String,
    /// The bytes of tokenizer.json, as read or as created.
    json: Vec<u8>,
    /// The other files to save with it, as read or as created.
    beside: BTreeMap<String, Vec<u8>>,
    /// The files that it was read from.
    read: Vec<Source>,
    /// The texts of named special tokens by key.
    named: BTreeMap<String, String>,
    templates: BTreeMap<String, Found>,
    bos: Option<u32>,
    /// The end-of-text token that the folder names.
    eos: Option<u32>,
    /// A usual end-of-text token that the vocabulary has.
    usual_eos: Option<u32>,
    /// Ids that end an answer according to the model's folder; see [`Tokenizer::ends`].
    model_ends: Vec<u32>,
    /// The number of tokens that the model has rows for, if smaller than the vocabulary.
    limit: Option<u32>,
    /// Whether every input of the model begins with `bos`.
    adds_bos: bool,
    vocab_size: usize,
    one_byte_each: bool,
    sha256: String,
    notes: Vec<String>,
}

impl Tokenizer {
    /// One token per byte, id = byte, and [`END_OF_TEXT`] as 256: a byte-level BPE without merges, so that it is
    /// saved as a `tokenizer.json` like any other.
    pub fn bytes() -> Result<Tokenizer> {
        let json = library::run("bytes", "it cannot be built", made::bytes_json)?;
        Tokenizer::new(Folder { name: "bytes".into(), json, beside: made::beside(), read: Vec::new() })
    }

    /// Opens a `tokenizer.json`, or a folder that contains one, with the other files of the folder: special tokens,
    /// added tokens and chat templates are read from the same places as in transformers.
    ///
    /// # Errors
    /// A file that is missing, unreadable, a Git LFS pointer or not what its name says; a special token that is not
    /// in the vocabulary.
    pub fn open(path: &Path) -> Result<Tokenizer> {
        Tokenizer::new(Folder::read(path)?)
    }

    /// Trains a byte-level BPE of at most `vocab_size` tokens (fewer if the text has too few pairs to merge), with
    /// [`END_OF_TEXT`] as id 0. Words are split as GPT-2 splits them.
    pub fn train(documents: &[Document], vocab_size: usize) -> Result<Tokenizer> {
        if vocab_size < made::LEAST_VOCABULARY {
            return Err(DataError::VocabularyTooSmall { asked: vocab_size, least: made::LEAST_VOCABULARY });
        }
        let json = library::run("in training", "training failed", || made::trained_json(documents, vocab_size))?;
        Tokenizer::new(Folder { name: "in training".into(), json, beside: made::beside(), read: Vec::new() })
    }

    fn new(files: Folder) -> Result<Tokenizer> {
        let Folder { name, json, beside, read } = files;
        bounds::check(&name, &json)?;
        let inner = library::run(&name, "it cannot be read", || {
            let mut inner = tokenizers::Tokenizer::from_bytes(&json)?;
            inner.with_truncation(None)?;
            inner.with_padding(None);
            Ok(inner)
        })?;
        let config = folder::object(&name, &beside, CONFIG)?;
        let own: BTreeMap<u32, AddedToken> = inner.get_added_tokens_decoder().into_iter().collect();
        let special = Special::read(&name, &beside, &config, &own)?;
        let templates = templates::read(&name, &beside, &config)?;
        let mut made = Tokenizer {
            one_byte_each: made::bytes_json().is_ok_and(|bytes| bytes == json),
            sha256: super::cache::hex(&Sha256::digest(&json)),
            inner,
            name,
            json,
            beside,
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
                    "{}: it asks for dropout {:?}, which would cut the same text into other tokens each time: dropout is switched off, \
                     in training too",
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
                    "{}: the files beside it give \"{text}\" the id {id}; it gets {own}, as in transformers",
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
        self.sha256 = super::cache::hex(&Sha256::digest(format!("{} {what}", self.sha256)));
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
        // A post-processor that only adds an end-of-text token must not be taken for one that adds a
        // beginning-of-text token.
        let leading =
            empty.get_ids().first().copied().filter(|&id| special && (Some(id) == self.bos || Some(id) != eos));
        self.bos = self.bos.or(leading);
        self.adds_bos = match config.get("add_bos_token").and_then(Value::as_bool) {
            Some(told) => told,
            None => leading.is_some() && leading == self.bos,
        };
        if self.adds_bos && self.bos.is_none() {
            let what = "add_bos_token is set, but no bos_token is named".into();
            return Err(DataError::Tokenizer { name: self.name.clone(), what, source: None });
        }
        Ok(())
    }

    /// Applies what the model's folder says: `ends`, the ids that end an answer according to its config.json and
    /// generation_config.json, and `rows`, the number of tokens for which its embedding has a row. A text that
    /// contains a token beyond these is refused.
    ///
    /// # Errors
    /// A tokenizer that begins every input with a token for which the model has no row.
    pub fn fit_to_model(&mut self, ends: &[u32], rows: u64) -> Result<()> {
        self.limit = u32::try_from(rows).ok().filter(|rows| (*rows as usize) < self.vocab_size);
        self.model_ends = ends.to_vec();
        self.within_model(self.prefix().as_slice())
    }

    /// The files that it was read from, by their path in its folder; empty if it was made here.
    pub fn read_from(&self) -> &[Source] {
        &self.read
    }

    /// Its file, or "bytes".
    pub fn name(&self) -> &str {
        &self.name
    }

    /// One more than the largest token id: the smallest vocabulary size that a model may have.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The token that ends a document, and an answer without an end of its own: the one that the tokenizer's folder
    /// names, else the first that the model's folder names, else a usual one that the vocabulary has.
    pub fn eos(&self) -> Option<u32> {
        self.eos.or(self.model_ends.first().copied()).or(self.usual_eos)
    }

    /// Whether `id` ends an answer: it is [`Tokenizer::eos`], or the model's folder names it as an end. Generation,
    /// evaluation, rewards and data all use this set.
    pub fn is_end(&self, id: u32) -> bool {
        self.eos() == Some(id) || self.model_ends.contains(&id)
    }

    /// All ids that end an answer, [`Tokenizer::eos`] first.
    pub fn ends(&self) -> Vec<u32> {
        let mut ends: Vec<u32> = self.eos().into_iter().collect();
        ends.extend(self.model_ends.iter().filter(|id| Some(**id) != self.eos()));
        ends
    }

    /// Whether `id` is not part of an answer's text: a special token, or one that ends answers.
    pub fn is_special(&self, id: u32) -> bool {
        // Decided by its text, as the library does when it skips special tokens: a token that tokenizer.json calls
        // special stays special, whatever other files say.
        let added = self.inner.get_added_vocabulary();
        let token = added.get_added_tokens_decoder().get(&id);
        token.is_some_and(|token| added.is_special_token(&token.content)) || self.is_end(id)
    }

    /// The text of an answer's tokens before the first one that ends it, without special tokens.
    pub fn answer_text(&self, ids: &[u32]) -> Result<String> {
        let end = ids.iter().position(|id| self.is_end(*id)).unwrap_or(ids.len());
        self.decode(&ids[..end], true)
    }

    /// Refuses ids for which the model has no row.
    ///
    /// # Errors
    /// The first of `ids` beyond the model's vocabulary, with its text.
    pub fn within_model(&self, ids: &[u32]) -> Result<()> {
        let Some(rows) = self.limit else { return Ok(()) };
        match ids.iter().find(|id| **id >= rows) {
            None => Ok(()),
            Some(id) => Err(DataError::OutsideModel { token: self.token(*id).unwrap_or_default(), id: *id, rows }),
        }
    }

    /// Whether ordinary tokens, and not only added ones, lie beyond a model's `rows`.
    pub fn has_words_beyond(&self, rows: u64) -> bool {
        self.inner.get_vocab(false).values().any(|id| u64::from(*id) >= rows)
    }

    /// Notes for the user about guesses, and about settings of the files that are not followed.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = self.notes.clone();
        let guessed = self.eos().filter(|_| self.eos.is_none() && self.model_ends.is_empty());
        notes.extend(guessed.map(|id| {
            let token = self.token(id).unwrap_or_default();
            format!("{}: no file names an end-of-text token: \"{token}\" of the vocabulary is taken", self.name)
        }));
        if let Some(rows) = self.limit {
            notes.push(format!(
                "{} has {} tokens, the model's vocabulary {rows}: text that holds one of the others is refused",
                self.name, self.vocab_size
            ));
        }
        notes
    }

    /// The beginning-of-text token, whether or not inputs begin with it; see [`Tokenizer::prefix`].
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that every input of the model begins with, if any: in training, in evaluation and in generation.
    pub fn prefix(&self) -> Option<u32> {
        self.bos.filter(|_| self.adds_bos)
    }

    /// Whether text may be cut at any character without changing its tokens.
    pub fn one_byte_each(&self) -> bool {
        self.one_byte_each
    }

    /// The text of a token, special or not.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of a token's exact text.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The chat template that came with the tokenizer; the one named "default" if there are several.
    pub fn chat_template(&self) -> Option<&str> {
        self.named_chat_template(DEFAULT)
    }

    /// The chat template of this name.
    pub fn named_chat_template(&self, name: &str) -> Option<&str> {
        self.templates.get(name).map(|found| found.text.as_str())
    }

    /// The origin of the chat template with this name, for error messages.
    pub fn chat_template_origin(&self, name: &str) -> Option<&str> {
        self.templates.get(name).map(|found| found.origin.as_str())
    }

    /// Names of the chat templates that came with the tokenizer, sorted.
    pub fn chat_template_names(&self) -> impl Iterator<Item = &str> {
        self.templates.keys().map(String::as_str)
    }

    /// Sets the tokenizer's default chat template, which is saved with it.
    pub fn set_chat_template(&mut self, template: &str) {
        if self.chat_template() != Some(template) {
            self.beside.insert(TEMPLATE.to_owned(), template.as_bytes().to_owned());
            self.templates.insert(DEFAULT.to_owned(), Found { text: template.to_owned(), origin: TEMPLATE.to_owned() });
        }
    }

    /// Names and texts of the special tokens, as chat templates use them.
    pub fn special_texts(&self) -> Vec<(&'static str, String)> {
        let known = |key: &str| match key {
            "eos_token" => self.eos().and_then(|id| self.token(id)),
            "bos_token" => self.bos.and_then(|id| self.token(id)),
            _ => None,
        };
        let text = |key: &str| self.named.get(key).cloned().or_else(|| known(key));
        special::NAMED.into_iter().filter_map(|key| Some((key, text(key)?))).collect()
    }

    /// The library's tokenizer, for calls through [`library::run`].
    fn inner(&self) -> &tokenizers::Tokenizer {
        &self.inner
    }

    /// Identifies how texts are tokenised, in hexadecimal: the sha256 of `tokenizer.json` and of what the other
    /// files change.
    pub fn hash(&self) -> String {
        self.sha256.clone()
    }

    /// Writes `tokenizer.json` and the other files into `folder`: exactly the bytes that were read, or new files
    /// that Python's `transformers` can load. Existing files are replaced.
    pub fn save(&self, folder: &Path) -> Result<Vec<PathBuf>> {
        let mut written = Vec::new();
        for (name, bytes) in self.files() {
            let path = folder.join(name);
            if let Some(own) = path.parent().filter(|own| *own != folder) {
                fs::create_dir_all(own).map_err(DataError::io("create", own))?;
            }
            fs::write(&path, bytes).map_err(DataError::io("write", &path))?;
            written.push(path);
        }
        Ok(written)
    }

    /// The files that [`Tokenizer::save`] writes: names and contents.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let beside = self.beside.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
        std::iter::once((JSON, self.json.as_slice())).chain(beside)
    }
}
