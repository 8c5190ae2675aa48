//! `tokenizer.json` and `tokenizer_config.json` from the metadata of a GGUF file: byte-level BPE with merges, or sentencepiece BPE
//! with scores.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::header::{self, Gguf, unusable};
use super::splitting;
use crate::data::error::{DataError, Result};
use crate::data::tokenizer::sentencepiece::{self, Piece, PieceKind, Pieces};

const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";
const SCORES: &str = "tokenizer.ggml.scores";
const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TEMPLATE: &str = "tokenizer.chat_template";

/// Returns `tokenizer.json` and `tokenizer_config.json`.
///
/// # Errors
/// A kind of tokenizer that is not read; keys that are missing, of a wrong type, or contradict each other.
pub(super) fn json(file: &Gguf) -> Result<[Value; 2]> {
    let tokens = file.optional_texts(TOKENS)?.ok_or_else(|| file.wrong(TOKENS, "a list of texts"))?;
    let kinds = kinds(file, tokens.len())?;
    let mut json = match file.optional_text(MODEL)? {
        Some("gpt2") => byte_level(file, tokens, &kinds)?,
        Some("llama") => with_scores(file, tokens, &kinds)?,
        _ => return Err(refused(file, MODEL, "\"gpt2\" (byte-level BPE) and \"llama\" (sentencepiece BPE) are read")),
    };
    let named = |of: &str| -> Result<Option<&String>> {
        let key = format!("tokenizer.ggml.{of}_token_id");
        let Some(id) = file.optional_size(&key)? else { return Ok(None) };
        let token = usize::try_from(id).ok().and_then(|id| tokens.get(id));
        token.map(Some).ok_or_else(|| file.wrong(&key, &format!("the id of one of {} tokens", tokens.len())))
    };
    let mut config = Map::new();
    config.insert("tokenizer_class".into(), json!("PreTrainedTokenizerFast"));
    for (key, of) in [
        ("bos_token", "bos"),
        ("eos_token", "eos"),
        ("unk_token", "unknown"),
        ("pad_token", "padding"),
        ("sep_token", "seperator"),
    ] {
        if let Some(token) = named(of)? {
            config.insert(key.into(), json!(token));
        }
    }
    // A file that names no such token and does not say that one is added has none.
    let default = named("bos")?.is_some()
        && match file.optional_text(MODEL)? {
            Some("llama") => true,
            _ => file.optional_text(PRE)?.is_some_and(splitting::begins_with_bos),
        };
    let adds_bos = file.optional_flag("tokenizer.ggml.add_bos_token")?.unwrap_or(default);
    config.insert("add_bos_token".into(), json!(adds_bos));
    config.insert("add_eos_token".into(), json!(false));
    config.insert("clean_up_tokenization_spaces".into(), json!(false));
    if let Some(template) = templates(file)? {
        config.insert("chat_template".into(), template);
    }
    if adds_bos && let Some(bos) = named("bos")? {
        let id = file.size("tokenizer.ggml.bos_token_id")?;
        json["post_processor"] = json!({
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": bos, "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {bos: {"id": bos, "ids": [id], "tokens": [bos]}},
        });
    }
    Ok([json, Value::Object(config)])
}

/// The chat template, or a list of all if there are several.
fn templates(file: &Gguf) -> Result<Option<Value>> {
    let default = file.optional_text(TEMPLATE)?;
    let names = file.optional_texts("tokenizer.chat_templates")?.unwrap_or_default();
    if names.is_empty() {
        return Ok(default.map(|template| json!(template)));
    }
    let mut all: Vec<Value> =
        default.map(|template| json!({"name": "default", "template": template})).into_iter().collect();
    for name in names {
        let key = format!("{TEMPLATE}.{name}");
        let template = file.optional_text(&key)?.ok_or_else(|| file.wrong(&key, "a text"))?;
        all.push(json!({"name": name, "template": template}));
    }
    Ok(Some(json!(all)))
}

/// The kind of each token: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
fn kinds(file: &Gguf, count: usize) -> Result<Vec<PieceKind>> {
    let Some(kinds) = file.optional_numbers(TYPES)? else { return Ok(vec![PieceKind::Normal; count]) };
    if kinds.len() != count {
        return Err(unusable(&file.path, format!("`{TYPES}` has {} entries for {count} tokens", kinds.len())));
    }
    let kind = |(id, number): (usize, &f64)| {
        PieceKind::of(*number as u64)
            .ok_or_else(|| unusable(&file.path, format!("`{TYPES}` has {number} for token {id}, expected 1 to 6")))
    };
    kinds.iter().enumerate().map(kind).collect()
}

/// Whether a token only fills a gap up to the model's vocabulary: the converter of llama.cpp makes these names.
fn is_filler(id: usize, token: &str, kind: PieceKind) -> bool {
    kind == PieceKind::Unused && token == format!("[PAD{id}]")
}

fn byte_level(file: &Gguf, tokens: &[String], kinds: &[PieceKind]) -> Result<Value> {
    let name = file.optional_text(PRE)?;
    let splitting = name.and_then(splitting::find).ok_or_else(|| {
        let known = format!("how its text is split into words is known for {}", splitting::NAMES.join(", "));
        refused(file, PRE, &known)
    })?;
    let mut vocabulary = BTreeMap::new();
    for (id, (token, kind)) in tokens.iter().zip(kinds).enumerate() {
        if is_filler(id, token, *kind) {
            continue;
        }
        if let Some(first) = vocabulary.insert(token.as_str(), id) {
            return Err(unusable(&file.path, format!("`{TOKENS}` has \"{token}\" twice, as {first} and as {id}")));
        }
    }
    let merges = file.optional_texts(MERGES)?.ok_or_else(|| file.wrong(MERGES, "a list of texts"))?;
    let merge = |(number, merge): (usize, &String)| match merge.split_once(' ') {
        Some((left, right)) if !left.is_empty() && !right.is_empty() && !right.contains(' ') => {
            Ok(json!([left, right]))
        }
        _ => Err(unusable(&file.path, format!("entry {number} of `{MERGES}` is {merge:?}, expected two tokens"))),
    };
    let merges: Vec<Value> = merges.iter().enumerate().map(merge).collect::<Result<_>>()?;
    Ok(json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": sentencepiece::added_tokens(tokens.iter().map(String::as_str).zip(kinds.iter().copied())),
        "normalizer": splitting.normalizer,
        "pre_tokenizer": splitting.pre_tokenizer,
        "post_processor": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": splitting.ignore_merges, "vocab": vocabulary, "merges": merges,
        },
    }))
}

fn with_scores(file: &Gguf, tokens: &[String], kinds: &[PieceKind]) -> Result<Value> {
    let scores = file.optional_numbers(SCORES)?.ok_or_else(|| file.wrong(SCORES, "a list of numbers"))?;
    if scores.len() != tokens.len() {
        return Err(unusable(
            &file.path,
            format!("`{SCORES}` has {} entries for {} tokens", scores.len(), tokens.len()),
        ));
    }
    if file.optional_flag("tokenizer.ggml.remove_extra_whitespaces")? == Some(true) {
        return Err(file.wrong("tokenizer.ggml.remove_extra_whitespaces", "false"));
    }
    let all = tokens.iter().zip(scores).zip(kinds);
    let pieces = all.map(|((text, score), kind)| Piece { text: text.clone(), score: *score, kind: *kind }).collect();
    let adds_space = file.optional_flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    Pieces { pieces, adds_space }.json().map_err(|what| unusable(&file.path, format!("its tokenizer: {what}")))
}

fn refused(file: &Gguf, key: &str, known: &str) -> DataError {
    let found = match file.metadata.get(key) {
        Some(header::Value::Text(name)) => format!("`{key}` is \"{name}\"; {known}"),
        _ => format!("`{key}` is missing; {known}"),
    };
    DataError::Unusable {
        path: file.path.clone(),
        what: found,
        remedy: "use a folder with the model's config.json, tokenizer.json and safetensors".into(),
        source: None,
    }
}
