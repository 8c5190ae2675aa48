//! Tokenizers: bytes, any `tokenizer.json`, and a new one trained on text. The `tokenizers` library does the work;
//! this module decides which special tokens are used and keeps a model folder's files unchanged.
//!
//! | file | job |
//! |---|---|
//! | `folder` | which files of a folder are read |
//! | `load` | a tokenizer from these files |
//! | `special` | special and added tokens, as transformers reads them |
//! | [`templates`] | chat templates by name |
//! | [`sentencepiece`] | a `tokenizer.json` from the tokens of sentencepiece |
//! | `made` | the tokenizers made here: bytes, and one trained on text |
//! | `bounds` | limits on a file, checked before the library reads it |
//! | [`encode`] | text to ids and back |
//! | `placed_cache` | tokens of rows, kept on disk from one run to the next |
//! | [`stream`] | decoding token by token |
//! | `library` | calls of the library, whose panics become errors |
//!
//! A BPE file may request `dropout`: random merges are then left out, so that the same text becomes other tokens
//! each time. It is never used, not even in training, and a note reports this. With it, two runs of one experiment
//! would learn from different tokens, and so would a run and its resumed part. The token cache would also keep one
//! random result for all epochs, which defeats the method. A file's truncation and padding are not used either: the
//! experiment sets the lengths.

mod bounds;
pub mod encode;
mod folder;
mod library;
mod load;
mod made;
mod placed_cache;
pub mod sentencepiece;
mod special;
pub mod stream;
pub mod templates;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::document::Document;
use super::error::{DataError, Result};
use super::source::Source;
use folder::{Folder, JSON, TEMPLATE};
use templates::{DEFAULT, Found};

pub use made::END_OF_TEXT;

/// A tokenizer with its special tokens. Settings of the file that training cannot use are switched off: truncation,
/// padding, dropout.
#[derive(Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    name: String,
    /// The bytes of tokenizer.json, as read or as created.
    json: Vec<u8>,
    /// The other files to save with it, as read or as created.
    other_files: BTreeMap<String, Vec<u8>>,
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
        Tokenizer::new(Folder { name: "bytes".into(), json, other_files: made::other_files(), read: Vec::new() })
    }

    /// Opens a `tokenizer.json`, or a folder that contains one, with the other files of the folder: special tokens,
    /// added tokens and chat templates are read from the same places as in transformers.
    ///
    /// # Errors
    /// A file that is missing, unreadable, a Git LFS pointer or of another kind than its name implies; a special token
    /// that is not in the vocabulary.
    pub fn open(path: &Path) -> Result<Tokenizer> {
        Tokenizer::new(Folder::read(path)?)
    }

    /// Trains a byte-level BPE of at most `vocab_size` tokens (fewer if the text has too few pairs to merge), with
    /// [`END_OF_TEXT`] as id 0. Words are split as GPT-2 splits them.
    pub fn train(documents: &[Document], vocab_size: usize) -> Result<Tokenizer> {
        if vocab_size < made::LEAST_VOCABULARY {
            return Err(DataError::VocabularyTooSmall { requested: vocab_size, least: made::LEAST_VOCABULARY });
        }
        let json = library::run("in training", "training failed", || made::trained_json(documents, vocab_size))?;
        Tokenizer::new(Folder { name: "in training".into(), json, other_files: made::other_files(), read: Vec::new() })
    }

    /// Applies settings of the model's folder: `ends`, the ids that end an answer according to its config.json and
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

    /// The token that ends a document, and an answer without its own end token: the one that the tokenizer's folder
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
        // Decided by its text, as the library does when it skips special tokens: a token that tokenizer.json marks as
        // special stays special, whatever other files contain.
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
            format!("{}: no file names an end-of-text token: \"{token}\" of the vocabulary is used", self.name)
        }));
        if let Some(rows) = self.limit {
            notes.push(format!(
                "{} has {} tokens, the model's vocabulary {rows}: text that contains one of the others is refused",
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
            self.other_files.insert(TEMPLATE.to_owned(), template.as_bytes().to_owned());
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
        let others = self.other_files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
        std::iter::once((JSON, self.json.as_slice())).chain(others)
    }
}
