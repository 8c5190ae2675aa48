use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{documents, references};
use crate::data::error::DataError;
use crate::data::tokenizer::{END_OF_TEXT, Tokenizer};

fn reference(name: &str) -> (Tokenizer, Value) {
    let folder = references().join("tokenizer").join(name);
    let cases = fs::read(folder.join("cases.json")).unwrap();
    (Tokenizer::open(&folder).unwrap(), serde_json::from_slice(&cases).unwrap())
}

fn ids(case: &Value) -> Vec<u32> {
    serde_json::from_value(case["ids"].clone()).unwrap()
}

#[test]
fn ids_tokens_places_and_texts_match_the_reference() {
    for name in ["gpt2", "split"] {
        let (tokenizer, reference) = reference(name);
        let cases = reference["cases"].as_array().unwrap();
        assert!(!cases.is_empty());
        for case in cases {
            let text = case["text"].as_str().unwrap();
            let made = tokenizer.encode_with_offsets(text).unwrap();
            assert_eq!(made.ids, ids(case), "{name}: {text:?}");
            assert_eq!(tokenizer.encode(text).unwrap(), ids(case), "{name}: {text:?}");
            assert_eq!(serde_json::to_value(&made.tokens).unwrap(), case["tokens"], "{name}: {text:?}");
            // Catches places counted in bytes.
            assert_eq!(serde_json::to_value(&made.offsets).unwrap(), case["offsets"], "{name}: {text:?}");
            for (key, skip) in [("decoded", false), ("decoded_skip_special", true)] {
                assert_eq!(tokenizer.decode(&ids(case), skip).unwrap(), case[key], "{name}: {text:?}");
            }
        }
        for case in reference["partial_decodes"].as_array().unwrap() {
            assert_eq!(tokenizer.decode(&ids(case), false).unwrap(), case["decoded"], "{name}");
        }
        assert_eq!(Value::from(tokenizer.vocab_size()), reference["vocab_size"]);
        let eos = reference["special_tokens"]["eos_token"].as_str().unwrap();
        assert_eq!(tokenizer.eos(), tokenizer.id(eos), "{name}");
    }
}

/// Catches a stream that shows half a character, loses the last one, or drops a leading space.
#[test]
fn a_stream_shows_what_decoding_at_once_shows() {
    for name in ["gpt2", "split"] {
        let (tokenizer, reference) = reference(name);
        let cases = ["cases", "partial_decodes"].map(|key| reference[key].as_array().unwrap());
        for case in cases.into_iter().flatten() {
            let mut stream = tokenizer.stream(false);
            let mut text = String::new();
            for id in ids(case) {
                text.push_str(&stream.push(id).unwrap());
                assert!(case["decoded"].as_str().unwrap().starts_with(&text), "{name}: {text:?} of {case}");
            }
            text.push_str(&stream.finish().unwrap());
            assert_eq!(text, case["decoded"], "{name}");
        }
    }
}

#[test]
fn a_stream_of_random_bytes_ends_like_decoding_at_once() {
    let tokenizer = Tokenizer::bytes().unwrap();
    let mut rng = telos_random::Rng::new(&[1]);
    for length in 0..200 {
        let ids: Vec<u32> = (0..length % 40).map(|_| rng.below(257) as u32).collect();
        let mut stream = tokenizer.stream(false);
        let mut text: String = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
        text.push_str(&stream.finish().unwrap());
        assert_eq!(text, tokenizer.decode(&ids, false).unwrap(), "{ids:?}");
    }
}

/// Catches a byte table in another order, a missing byte, and word splitting that would split a text twice.
#[test]
fn bytes_are_their_own_ids_and_end_of_text_follows_them() {
    let tokenizer = Tokenizer::bytes().unwrap();
    assert_eq!((tokenizer.vocab_size(), tokenizer.eos(), tokenizer.prefix()), (257, Some(256), None));
    let text: String = (0..0x800).filter_map(char::from_u32).chain("  don't\r\n\t 😀 ".chars()).collect();
    let bytes: Vec<u32> = text.bytes().map(u32::from).collect();
    assert_eq!(tokenizer.encode(&text).unwrap(), bytes);
    assert_eq!(tokenizer.decode(&bytes, false).unwrap(), text);
    for byte in 0..256 {
        assert!(tokenizer.token(byte).is_some(), "no token for byte {byte}");
    }
    assert_eq!(tokenizer.encode("a<|endoftext|>b").unwrap(), [97, 256, 98]);
    assert_eq!(tokenizer.decode(&[97, 256, 98], true).unwrap(), "ab");
}

#[test]
fn a_saved_tokenizer_has_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    for tokenizer in [Tokenizer::bytes().unwrap(), reference("gpt2").0, reference("split").0] {
        tokenizer.save(folder.path()).unwrap();
        let again = Tokenizer::open(folder.path()).unwrap();
        assert!(tokenizer.files().eq(again.files()));
        assert_eq!(tokenizer.hash(), again.hash());
        assert_eq!((tokenizer.eos(), tokenizer.bos(), tokenizer.prefix()), (again.eos(), again.bos(), again.prefix()));
        assert_eq!(tokenizer.one_byte_each(), again.one_byte_each());
    }
    let given = fs::read(references().join("tokenizer/split/tokenizer.json")).unwrap();
    // Catches saving what the library would write instead of what was read.
    assert_eq!(fs::read(folder.path().join("tokenizer.json")).unwrap(), given);
    assert!(folder.path().join("chat_template.jinja").exists());
}

/// The reference has four special tokens and ours has one: the 40 merges must be the same.
#[test]
fn training_finds_the_merges_of_the_reference() {
    let folder = references().join("tokenizer").join("gpt2");
    let corpus = fs::read_to_string(folder.join("corpus.txt")).unwrap();
    let trained = Tokenizer::train(&documents(&[&corpus]), 297).unwrap();
    let merges = |tokenizer: &Tokenizer| -> Value {
        let (_, json) = tokenizer.files().next().unwrap();
        serde_json::from_slice::<Value>(json).unwrap()["model"]["merges"].clone()
    };
    assert_eq!(merges(&trained), merges(&reference("gpt2").0));
    assert_eq!((trained.vocab_size(), trained.eos()), (297, trained.id(END_OF_TEXT)));
    let text = "a naïve harbour\n\n  quiet 😀";
    assert_eq!(trained.decode(&trained.encode(text).unwrap(), false).unwrap(), text);
    assert_eq!(Tokenizer::train(&documents(&[&corpus]), 297).unwrap().hash(), trained.hash());
    assert!(matches!(Tokenizer::train(&documents(&[&corpus]), 256), Err(DataError::VocabularyTooSmall { .. })));
}

fn with_config(config: &str) -> Result<Tokenizer, DataError> {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(references().join("tokenizer/gpt2/tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    fs::write(folder.path().join("tokenizer_config.json"), config).unwrap();
    Tokenizer::open(folder.path())
}

#[test]
fn gotcha_03_the_beginning_token_occurs_once() {
    let config = r#"{"bos_token": {"content": "<|im_start|>", "special": true}, "eos_token": "<|im_end|>", "add_bos_token": true}"#;
    let tokenizer = with_config(config).unwrap();
    assert_eq!((tokenizer.prefix(), tokenizer.eos()), (Some(2), Some(3)));
    let plain = tokenizer.encode("hi").unwrap();
    assert_eq!(tokenizer.encode_input("hi").unwrap(), [&[2], plain.as_slice()].concat());
    // Catches a second one if the text already contains it.
    assert_eq!(tokenizer.encode_input("<|im_start|>hi").unwrap(), [&[2], plain.as_slice()].concat());
    let quiet = with_config(r#"{"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}"#).unwrap();
    assert_eq!((quiet.bos(), quiet.prefix()), (Some(2), None));
}

#[test]
fn wrong_tokenizer_files_are_named() {
    let message = with_config(r#"{"eos_token": "<stop>"}"#).err().unwrap().to_string();
    assert!(message.contains("<stop>") && message.contains("eos_token"), "{message}");
    assert!(with_config("{").err().unwrap().to_string().contains("tokenizer_config.json"));
    let message = Tokenizer::open(Path::new("no/such/tokenizer.json")).err().unwrap().to_string();
    assert!(message.contains("no/such/tokenizer.json"), "{message}");
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("tokenizer.json"), "{\"model\": 3}").unwrap();
    assert!(matches!(Tokenizer::open(folder.path()), Err(DataError::Tokenizer { .. })));
}

/// Catches a file's truncation and padding that are applied, which would silently truncate training text.
#[test]
fn truncation_and_padding_of_a_file_are_off() {
    let folder = tempfile::tempdir().unwrap();
    let given = fs::read(references().join("tokenizer/gpt2/tokenizer.json")).unwrap();
    let mut json: Value = serde_json::from_slice(&given).unwrap();
    json["truncation"] =
        serde_json::json!({"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0});
    json["padding"] = serde_json::json!({"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 1, "pad_type_id": 0, "pad_token": "<|pad|>"});
    fs::write(folder.path().join("tokenizer.json"), json.to_string()).unwrap();
    let ids = Tokenizer::open(folder.path()).unwrap().encode("the harbour was quiet").unwrap();
    assert_eq!(ids.len(), 17);
}

/// Catches the space at a seam that a preview loses, so that an answer with a space before it looks like one without; and the space
/// that a vocabulary of words puts before the text, shown as if the text had it.
#[test]
fn pieces_keep_the_space_where_they_meet() {
    let special = |id: u32, text: &str| {
        serde_json::json!({"id": id, "content": text, "special": true, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false})
    };
    let words = ["<unk>", "<s>", "</s>", "▁", "a", "b", "▁a", "▁b", "<0xC3>", "<0xA4>"];
    let vocabulary: serde_json::Map<String, Value> =
        words.iter().zip(0..).map(|(word, id)| ((*word).to_owned(), Value::from(id))).collect();
    let file = serde_json::json!({
        "version": "1.0", "added_tokens": [special(1, "<s>"), special(2, "</s>")],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": null, "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "vocab": vocabulary, "merges": ["▁ a", "▁ b"], "unk_token": "<unk>", "fuse_unk": true,
                  "byte_fallback": true}
    });
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("tokenizer.json"), file.to_string()).unwrap();
    let config = serde_json::json!({"bos_token": "<s>", "eos_token": "</s>"});
    fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    let tokenizer = Tokenizer::open(folder.path()).unwrap();
    let shown = |prompt: usize, ids: &[u32]| {
        let flags: Vec<bool> = (0..ids.len()).map(|at| at >= prompt).collect();
        let pieces = tokenizer.decode_pieces(ids, &flags).unwrap();
        pieces.iter().map(|(text, flag)| if *flag { format!("[{text}]") } else { text.clone() }).collect::<String>()
    };
    for (text, prompt, expected) in [
        ("a b", 1, "a[ b]"),
        ("a  b", 1, "a[  b]"),
        ("ab", 1, "a[b]"),
        ("b a", 0, "[b a]"),
        (" b", 0, "[ b]"),
        ("aä", 1, "a[ä]"),
    ] {
        let ids = tokenizer.encode(text).unwrap();
        assert_eq!(shown(prompt, &ids), expected, "{text:?}");
        let begun = [&[1], ids.as_slice(), &[2]].concat();
        let (first, rest) = expected.split_once('[').unwrap();
        let expected = format!("<s>{first}[{}</s>]", rest.trim_end_matches(']'));
        assert_eq!(shown(prompt + 1, &begun), expected, "{text:?}");
    }
}
