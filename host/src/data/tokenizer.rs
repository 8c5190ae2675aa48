//! Tokenizers: bytes, any `tokenizer.json`, and a new one trained on text. The `tokenizers` library does the work; this
//! file decides which special tokens count and keeps a model folder's files as they were.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, ModelWrapper, PreTokenizerWrapper};

use super::{DataError, Document, Result, StreamDecoder};

/// The one special token of the tokenizers made here: it ends every document.
pub const END_OF_TEXT: &str = "<|endoftext|>";
const JSON: &str = "tokenizer.json";
const CONFIG: &str = "tokenizer_config.json";
/// Files of a model folder that belong to its tokenizer and are handed on unread.
const SIDECARS: [&str; 3] = ["special_tokens_map.json", "added_tokens.json", TEMPLATE];
/// The chat template of a model folder; it goes before the one in `tokenizer_config.json`.
const TEMPLATE: &str = "chat_template.jinja";
/// End-of-text tokens taken from the vocabulary where no configuration names one.
const USUAL_ENDS: [&str; 3] = [END_OF_TEXT, "</s>", "<|end_of_text|>"];
/// 256 bytes and [`END_OF_TEXT`].
const LEAST_VOCABULARY: usize = 257;

/// A tokenizer with its special tokens. Truncation and padding that a file may ask for are switched off.
#[derive(Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    name: String,
    /// The bytes of tokenizer.json, as read or as made.
    json: Vec<u8>,
    /// The files to save beside it, as read or as made.
    beside: BTreeMap<String, Vec<u8>>,
    bos: Option<u32>,
    eos: Option<u32>,
    /// Whether every input of the model begins with `bos`.
    adds_bos: bool,
    vocab_size: usize,
    one_byte_each: bool,
}

/// Text cut into tokens, with each token's place in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Token ids.
    pub ids: Vec<u32>,
    /// The tokens as the vocabulary spells them.
    pub tokens: Vec<String>,
    /// First code point and one past the last, in code points of the text. Tokens that share a character share its place.
    pub offsets: Vec<(usize, usize)>,
}

/// A text's tokens and their places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Token ids.
    pub ids: Vec<u32>,
    /// As in [`Encoded`].
    pub offsets: Vec<(usize, usize)>,
}

impl Tokenizer {
    /// One token per byte, id = byte, and [`END_OF_TEXT`] as 256: a byte-level BPE without merges, so that it saves as a
    /// `tokenizer.json` like any other.
    pub fn bytes() -> Result<Tokenizer> {
        let fault = fault("bytes", "it cannot be built");
        let (json, config) = (bytes_json().map_err(fault)?, own_config());
        Tokenizer::new("bytes".into(), json, BTreeMap::from([(CONFIG.into(), config)]))
    }

    /// A `tokenizer.json`, or a folder that holds one. `tokenizer_config.json` beside it, where there is one, names the
    /// special tokens.
    ///
    /// # Errors
    /// A file that is missing, unreadable or not of the tokenizers library; a special token that is not in the vocabulary.
    pub fn open(path: &Path) -> Result<Tokenizer> {
        let file = if path.is_dir() { path.join(JSON) } else { path.to_owned() };
        if !file.exists() {
            return Err(DataError::Missing(file));
        }
        let json = fs::read(&file).map_err(DataError::io("read", &file))?;
        let folder = file.parent().unwrap_or(Path::new("."));
        let mut beside = BTreeMap::new();
        for name in SIDECARS.into_iter().chain([CONFIG]) {
            let path = folder.join(name);
            if path.is_file() {
                beside.insert(name.to_owned(), fs::read(&path).map_err(DataError::io("read", &path))?);
            }
        }
        Tokenizer::new(file.display().to_string(), json, beside)
    }

    /// Trains a byte-level BPE of at most `vocab_size` tokens (fewer where the text has too few pairs to merge), with
    /// [`END_OF_TEXT`] as id 0. Words are split as GPT-2 splits them.
    pub fn train(documents: &[Document], vocab_size: usize) -> Result<Tokenizer> {
        if vocab_size < LEAST_VOCABULARY {
            return Err(DataError::VocabularyTooSmall { asked: vocab_size, least: LEAST_VOCABULARY });
        }
        let json = trained_json(documents, vocab_size).map_err(fault("in training", "training failed"))?;
        Tokenizer::new("in training".into(), json, BTreeMap::from([(CONFIG.into(), own_config())]))
    }

    fn new(name: String, json: Vec<u8>, beside: BTreeMap<String, Vec<u8>>) -> Result<Tokenizer> {
        let mut inner = tokenizers::Tokenizer::from_bytes(&json).map_err(fault(&name, "it cannot be read"))?;
        inner.with_truncation(None).map_err(fault(&name, "its truncation cannot be switched off"))?;
        inner.with_padding(None);
        let vocab_size = inner.get_vocab(true).values().max().map_or(0, |&id| id as usize + 1);
        if vocab_size == 0 {
            return Err(DataError::Tokenizer { name, what: "its vocabulary is empty".into(), source: None });
        }
        let config = match beside.get(CONFIG) {
            Some(bytes) => serde_json::from_slice(bytes)
                .map_err(|error| fault(&name, "tokenizer_config.json is not JSON")(error.into()))?,
            None => json!({}),
        };
        let one_byte_each = bytes_json().is_ok_and(|bytes| bytes == json);
        let mut made =
            Tokenizer { inner, name, json, beside, bos: None, eos: None, adds_bos: false, vocab_size, one_byte_each };
        made.read_special_tokens(&config)?;
        Ok(made)
    }

    /// The configuration's word goes before what the post-processor of tokenizer.json would add.
    fn read_special_tokens(&mut self, config: &Value) -> Result<()> {
        self.eos = match self.special(config, "eos_token")? {
            None => USUAL_ENDS.into_iter().find_map(|token| self.inner.token_to_id(token)),
            named => named,
        };
        self.bos = self.special(config, "bos_token")?;
        let empty = self.inner.encode_fast("", true).map_err(fault(&self.name, "it cannot encode"))?;
        let special = empty.get_special_tokens_mask().first() == Some(&1);
        // A post-processor that only adds an end of text must not be taken for one that adds a beginning.
        let leading =
            empty.get_ids().first().copied().filter(|&id| special && (Some(id) == self.bos || Some(id) != self.eos));
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

    /// The id of a special token that the configuration names, as a string or as an object with `content`.
    fn special(&self, config: &Value, key: &str) -> Result<Option<u32>> {
        let value = config.get(key).unwrap_or(&Value::Null);
        let Some(token) = value.as_str().or_else(|| value.get("content").and_then(Value::as_str)) else {
            return Ok(None);
        };
        match self.inner.token_to_id(token) {
            Some(id) => Ok(Some(id)),
            None => {
                let what = format!("{key} is \"{token}\", which is not in the vocabulary");
                Err(DataError::Tokenizer { name: self.name.clone(), what, source: None })
            }
        }
    }

    /// Its file, or "bytes".
    pub fn name(&self) -> &str {
        &self.name
    }

    /// One more than the largest token id: what a model's vocabulary must at least hold.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The token that ends a document.
    pub fn eos(&self) -> Option<u32> {
        self.eos
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

    /// Token ids of `text` alone: nothing is added. Special tokens spelt out in the text are recognised.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, false).map_err(fault(&self.name, "it cannot encode"))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Token ids of `text` as an input of the model: with [`Tokenizer::prefix`] in front, once.
    pub fn encode_input(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = self.encode(text)?;
        if let Some(prefix) = self.prefix()
            && ids.first() != Some(&prefix)
        {
            ids.insert(0, prefix);
        }
        Ok(ids)
    }

    /// [`Tokenizer::encode`] for many texts, in parallel, in order.
    pub fn encode_many(&self, texts: Vec<&str>) -> Result<Vec<Vec<u32>>> {
        let encodings = self.inner.encode_batch_fast(texts, false).map_err(fault(&self.name, "it cannot encode"))?;
        Ok(encodings.iter().map(|encoding| encoding.get_ids().to_vec()).collect())
    }

    /// Token ids of many texts with the tokens' places, in parallel, in order.
    pub fn encode_placed(&self, texts: Vec<&str>) -> Result<Vec<Placed>> {
        let mut all = Vec::with_capacity(texts.len());
        // The library holds some hundred bytes a token while it works.
        for group in texts.chunks(1024) {
            let encodings = self.inner.encode_batch_char_offsets(group.to_vec(), false);
            let encodings = encodings.map_err(fault(&self.name, "it cannot encode"))?;
            all.extend(encodings.iter().map(|e| Placed { ids: e.get_ids().into(), offsets: e.get_offsets().into() }));
        }
        Ok(all)
    }

    /// The chat template that came with the tokenizer: `chat_template.jinja`, or that of `tokenizer_config.json`, of several
    /// the one called "default".
    pub fn chat_template(&self) -> Option<String> {
        if let Some(bytes) = self.beside.get(TEMPLATE) {
            return String::from_utf8(bytes.clone()).ok();
        }
        match self.config().get("chat_template")? {
            Value::String(template) => Some(template.clone()),
            Value::Array(several) => {
                let default = several.iter().find(|one| one.get("name").and_then(Value::as_str) == Some("default"))?;
                default.get("template")?.as_str().map(str::to_owned)
            }
            _ => None,
        }
    }

    /// Puts a chat template beside the tokenizer, to be saved with it.
    pub fn set_chat_template(&mut self, template: &str) {
        if self.chat_template().as_deref() != Some(template) {
            self.beside.insert(TEMPLATE.to_owned(), template.as_bytes().to_owned());
        }
    }

    /// Names and texts of the special tokens, as chat templates read them.
    pub fn special_texts(&self) -> Vec<(&'static str, String)> {
        let config = self.config();
        let written = |key: &str| {
            let value = config.get(key)?;
            value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_owned)
        };
        let known = |key: &str| match key {
            "eos_token" => self.eos.and_then(|id| self.token(id)),
            "bos_token" => self.bos.and_then(|id| self.token(id)),
            _ => None,
        };
        let names = ["bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token"];
        names.into_iter().filter_map(|name| Some((name, written(name).or_else(|| known(name))?))).collect()
    }

    fn config(&self) -> Value {
        let bytes = self.beside.get(CONFIG).map(Vec::as_slice).unwrap_or_default();
        serde_json::from_slice(bytes).unwrap_or_default()
    }

    /// Token ids of `text` with the tokens' spelling and places.
    pub fn encode_with_offsets(&self, text: &str) -> Result<Encoded> {
        let encoding = self.inner.encode_char_offsets(text, false).map_err(fault(&self.name, "it cannot encode"))?;
        Ok(Encoded {
            ids: encoding.get_ids().to_vec(),
            tokens: encoding.get_tokens().to_vec(),
            offsets: encoding.get_offsets().to_vec(),
        })
    }

    /// The text of `ids`. Bytes that make no character become U+FFFD; ids outside the vocabulary are left out.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        self.inner.decode(ids, skip_special).map_err(fault(&self.name, "it cannot decode"))
    }

    /// Decodes a text token by token, holding back incomplete characters.
    pub fn stream(&self, skip_special: bool) -> StreamDecoder<'_> {
        StreamDecoder::new(&self.inner, skip_special)
    }

    /// sha256 of `tokenizer.json`, in hexadecimal.
    pub fn hash(&self) -> String {
        super::cache::hex(&Sha256::digest(&self.json))
    }

    /// Writes `tokenizer.json` and the files beside it into `folder`: the very bytes that were read, or new files that
    /// Python's `transformers` loads. A file that is already there is replaced.
    pub fn save(&self, folder: &Path) -> Result<Vec<PathBuf>> {
        let mut written = Vec::new();
        for (name, bytes) in self.files() {
            let path = folder.join(name);
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

/// A tokenizer's fault with the library's reason.
fn fault(name: &str, what: &str) -> impl FnOnce(tokenizers::Error) -> DataError {
    let (name, what) = (name.to_owned(), what.to_owned());
    move |source| DataError::Tokenizer { name, what, source: Some(source) }
}

/// The configuration of the tokenizers made here. No token is added by itself, so none is doubled.
fn own_config() -> Vec<u8> {
    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END_OF_TEXT,
        "add_bos_token": false,
        "add_eos_token": false,
        "clean_up_tokenization_spaces": false,
    });
    format!("{config:#}\n").into_bytes()
}

fn bytes_json() -> tokenizers::Result<Vec<u8>> {
    let characters = byte_characters();
    let vocabulary: [(String, u32); 256] = std::array::from_fn(|byte| (characters[byte].to_string(), byte as u32));
    let model = BPE::builder().vocab_and_merges(vocabulary, vec![]).build()?;
    let mut tokenizer = byte_level(model, false);
    tokenizer.add_special_tokens([AddedToken::from(END_OF_TEXT, true)])?;
    Ok(tokenizer.to_string(true)?.into_bytes())
}

fn trained_json(documents: &[Document], vocab_size: usize) -> tokenizers::Result<Vec<u8>> {
    let trainer = BpeTrainer::builder()
        .vocab_size(vocab_size)
        .show_progress(false)
        .special_tokens(vec![AddedToken::from(END_OF_TEXT, true)])
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let mut tokenizer = byte_level(BPE::default(), true);
    let mut wrapped = tokenizers::models::TrainerWrapper::from(trainer);
    tokenizer.train(&mut wrapped, documents.iter().map(|document| document.text.as_str()))?;
    Ok(tokenizer.to_string(true)?.into_bytes())
}

/// A byte-level tokenizer around `model`; `words` splits text into GPT-2's words first.
fn byte_level(model: BPE, words: bool) -> tokenizers::Tokenizer {
    let step = ByteLevel::new(false, false, words);
    let mut tokenizer = tokenizers::Tokenizer::new(ModelWrapper::from(model));
    tokenizer.with_pre_tokenizer(Some(PreTokenizerWrapper::from(step)));
    tokenizer.with_decoder(Some(step));
    tokenizer
}

/// The characters that stand for the bytes 0 to 255: a printable byte stands for itself, the others take the library's
/// remaining characters in order.
fn byte_characters() -> [char; 256] {
    let mut alphabet: Vec<char> = ByteLevel::alphabet().into_iter().collect();
    alphabet.sort_unstable();
    let mut others = alphabet.iter().copied().filter(|&character| u32::from(character) > 255);
    std::array::from_fn(|byte| {
        let itself = char::from(byte as u8);
        if alphabet.contains(&itself) { itself } else { others.next().unwrap_or(itself) }
    })
}
