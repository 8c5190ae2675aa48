//! Tokenizers of sentencepiece of the BPE kind, as tokenizer.json: the same tokens as transformers' converter makes of them.
//!
//! Sentencepiece merges the pair whose result has the best score. A tokenizer.json lists pairs in their order instead: every
//! pair of tokens whose concatenation is a token, by descending score.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// The longest token in bytes: the pairs of a token are tried one by one.
const LONGEST: usize = 1024;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PieceKind {
    /// Part of texts.
    Normal,
    /// Stands for what has no token.
    Unknown,
    /// Never made from text.
    Control,
    /// Found in texts before anything is merged.
    UserDefined,
    /// Never used.
    Unused,
    /// A byte, `<0x0A>`.
    Byte,
}

impl PieceKind {
    /// By sentencepiece's number, which GGUF files use too.
    pub fn of(number: u64) -> Option<PieceKind> {
        Some(match number {
            1 => PieceKind::Normal,
            2 => PieceKind::Unknown,
            3 => PieceKind::Control,
            4 => PieceKind::UserDefined,
            5 => PieceKind::Unused,
            6 => PieceKind::Byte,
            _ => return None,
        })
    }
}

/// A token.
#[derive(Debug, Clone)]
pub struct Piece {
    /// Its text, with U+2581 for spaces.
    pub text: String,
    /// Its score; the greatest is merged first.
    pub score: f64,
    /// What it is.
    pub kind: PieceKind,
}

/// A tokenizer.
pub struct Pieces {
    /// Every token, by id.
    pub pieces: Vec<Piece>,
    /// Whether a space is put before a text.
    pub adds_space: bool,
}

impl Pieces {
    /// Returns the tokenizer.json.
    ///
    /// # Errors
    /// A token that occurs twice or is too long; no unknown token.
    pub fn json(&self) -> Result<Value, String> {
        let mut vocabulary = BTreeMap::new();
        for (id, piece) in self.pieces.iter().enumerate() {
            if piece.text.len() > LONGEST {
                return Err(format!("token {id} has {} bytes; the limit is {LONGEST}", piece.text.len()));
            }
            if let Some(first) = vocabulary.insert(piece.text.as_str(), id) {
                return Err(format!("\"{}\" occurs twice, as token {first} and as token {id}", piece.text));
            }
            if !piece.score.is_finite() {
                return Err(format!("the score of token {id} is {}", piece.score));
            }
        }
        let unknown = self.pieces.iter().find(|piece| piece.kind == PieceKind::Unknown);
        let unknown = unknown.ok_or("no token is of the unknown kind")?;
        let replace = |from: &str, to: &str| json!({"type": "Replace", "pattern": {"String": from}, "content": to});
        let spaces = replace(" ", "\u{2581}");
        let normalizer = match self.adds_space {
            true => json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u{2581}"}, spaces]}),
            false => spaces,
        };
        let mut decoders = vec![replace("\u{2581}", " "), json!({"type": "ByteFallback"}), json!({"type": "Fuse"})];
        if self.adds_space {
            decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
        }
        let bytes = self.pieces.iter().filter(|piece| piece.kind == PieceKind::Byte).count() == 256;
        let merges = self.merges(&vocabulary);
        let ids: Map<String, Value> =
            self.pieces.iter().enumerate().map(|(id, p)| (p.text.clone(), json!(id))).collect();
        Ok(json!({
            "version": "1.0", "truncation": null, "padding": null,
            "added_tokens": added_tokens(self.pieces.iter().map(|piece| (piece.text.as_str(), piece.kind))),
            "normalizer": normalizer, "pre_tokenizer": null, "post_processor": null,
            "decoder": {"type": "Sequence", "decoders": decoders},
            "model": {
                "type": "BPE", "dropout": null, "unk_token": unknown.text, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": bytes, "ignore_merges": false,
                "vocab": ids, "merges": merges,
            },
        }))
    }

    /// Every pair of tokens whose concatenation is a token: by the score of the result, then by the length of the first, the
    /// greatest first. Equal ones keep the order of their results.
    fn merges(&self, vocabulary: &BTreeMap<&str, usize>) -> Vec<[&str; 2]> {
        let mut merges = Vec::new();
        for piece in &self.pieces {
            let splits = piece.text.char_indices().skip(1).map(|(at, _)| piece.text.split_at(at)).enumerate();
            let known =
                splits.filter(|(_, (left, right))| vocabulary.contains_key(left) && vocabulary.contains_key(right));
            merges.extend(known.map(|(length, (left, right))| (piece.score, length, [left, right])));
        }
        merges.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)));
        merges.into_iter().map(|(_, _, pair)| pair).collect()
    }
}

/// Returns `added_tokens` of tokenizer.json: the tokens that are found in a text before it is split.
pub fn added_tokens<'a>(tokens: impl Iterator<Item = (&'a str, PieceKind)>) -> Vec<Value> {
    let added = |(id, (text, kind)): (usize, (&str, PieceKind))| {
        let special = match kind {
            PieceKind::Control | PieceKind::Unknown => true,
            PieceKind::UserDefined => false,
            _ => return None,
        };
        let filled = !text.is_empty();
        filled.then(|| {
            json!({"id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": special})
        })
    };
    tokens.enumerate().filter_map(added).collect()
}
