//! Tests that an untrusted `tokenizer.json` cannot do harm.

mod hostile;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::folder::Folder;
use super::{Tokenizer, made};
use crate::data::error::{DataError, Result};

/// The name of the file in errors.
const NAME: &str = "downloaded/tokenizer.json";
/// Texts to encode: empty, plain, of several scripts, with special tokens, controls, spaces, and long.
const TEXTS: [&str; 8] = [
    "",
    "a",
    "Hello, world! 12345",
    "héllo wörld ▁ 日本語 👩‍👩‍👧",
    "<s>[CLS] a </s>[SEP]<unk>",
    "\u{0}\u{7f}\u{feff}\u{202e}\u{301}",
    "   \n\t\r\n  ",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab",
];

/// Small files for each kind of model and each kind of step.
pub fn files() -> Vec<Value> {
    let added = |id: u32, content: &str| json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true});
    let file = |added: Vec<Value>, steps: [Value; 4], model: Value| {
        let [normalizer, pre_tokenizer, post_processor, decoder] = steps;
        json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": normalizer,
            "pre_tokenizer": pre_tokenizer, "post_processor": post_processor, "decoder": decoder, "model": model})
    };
    let template = |first: &str, id: u32| {
        json!({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": first, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {first: {"id": first, "ids": [id], "tokens": [first]}}})
    };
    let bytes: Value = serde_json::from_slice(&made::bytes_json().unwrap()).unwrap();
    let bpe = json!({"type": "BPE", "dropout": 0.1, "unk_token": "<unk>", "continuing_subword_prefix": null, "end_of_word_suffix": "</w>",
        "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
        "vocab": {"<unk>": 0, "a": 1, "b": 2, "ab": 3, "ab</w>": 4, "<0x61>": 5, "b</w>": 6, "a</w>": 7}, "merges": [["a", "b"], ["a", "b</w>"]]});
    let split = json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": "\\p{L}+| ?[^\\s\\p{L}]+|\\s+"}, "behavior": "Isolated", "invert": false},
        {"type": "Digits", "individual_digits": true}, {"type": "Punctuation", "behavior": "Contiguous"}, {"type": "FixedLength", "length": 5}]});
    // A map of 256 empty units, with a text that no unit refers to.
    let no_change = format!("AAQA{}AAB4AA==", "A".repeat(341 * 4));
    let normalizers = json!({"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Strip", "strip_left": true, "strip_right": true},
        {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}, {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}, {"type": "Precompiled", "precompiled_charsmap": no_change}]});
    let unigram = json!({"type": "Unigram", "unk_id": 0, "byte_fallback": true,
        "vocab": [["<unk>", 0.0], ["<s>", 0.0], ["▁", -2.0], ["a", -3.0], ["▁a", -2.5], ["b", -3.5], ["ab", -4.0], ["<0x61>", -9.0]]});
    let wordpiece = json!({"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
        "vocab": {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3, "##a": 4, "##b": 5, "hello": 6}});
    let bert = json!({"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true});
    let decoders = json!({"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
        {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]});
    let ctc = json!({"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": true});
    let words = json!({"type": "WordLevel", "unk_token": "<unk>", "vocab": {"<unk>": 0, "a": 1, "Hello": 2, ",": 3}});
    vec![
        bytes,
        file(
            vec![added(0, "<unk>")],
            [Value::Null, split, Value::Null, json!({"type": "BPEDecoder", "suffix": "</w>"})],
            bpe,
        ),
        file(
            vec![added(0, "<unk>"), added(1, "<s>")],
            [
                normalizers,
                json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true}),
                template("<s>", 1),
                decoders,
            ],
            unigram,
        ),
        file(
            vec![added(1, "[CLS]"), added(2, "[SEP]")],
            [
                bert,
                json!({"type": "BertPreTokenizer"}),
                template("[CLS]", 1),
                json!({"type": "WordPiece", "prefix": "##", "cleanup": true}),
            ],
            wordpiece,
        ),
        file(
            vec![],
            [
                json!({"type": "Lowercase"}),
                json!({"type": "Whitespace"}),
                json!({"type": "RobertaProcessing", "sep": ["<unk>", 0], "cls": ["a", 1], "trim_offsets": true, "add_prefix_space": true}),
                ctc,
            ],
            words,
        ),
    ]
}

/// Opens a file and uses it in every way.
pub fn used(json: Vec<u8>) -> Result<Vec<Vec<u32>>> {
    let tokenizer = Tokenizer::new(Folder { name: NAME.into(), json, other_files: BTreeMap::new(), read: Vec::new() })?;
    let all = tokenizer.encode_many(TEXTS.to_vec())?;
    tokenizer.encode_placed(TEXTS.to_vec())?;
    for (text, ids) in TEXTS.iter().zip(&all) {
        tokenizer.encode_input(text)?;
        tokenizer.encode_with_offsets(text)?;
        tokenizer.decode(ids, true)?;
        let mut stream = tokenizer.stream(false);
        for id in ids {
            stream.push(*id)?;
        }
        stream.finish()?;
    }
    tokenizer.decode(&[0, 1, 2, 3, 255, 256, 257, u32::MAX], false)?;
    let ids = (0..300).chain([u32::MAX]);
    ids.for_each(|id| drop((tokenizer.token(id), tokenizer.is_special(id))));
    Ok(all)
}

/// The outcome for a file; checks that every error names the file.
pub fn outcome(json: Vec<u8>) -> Result<&'static str, String> {
    match used(json) {
        Ok(_) => Ok("used"),
        Err(DataError::Tokenizer { name, what, source }) if name == NAME && !what.is_empty() => {
            let stopped = what.contains("stopped with");
            Ok(if stopped {
                "stopped the library"
            } else if source.is_some() {
                "refused by the library"
            } else {
                "refused"
            })
        }
        Err(other) => Err(format!("an error without the file's name: {other}")),
    }
}
