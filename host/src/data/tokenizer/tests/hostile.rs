//! Files that make the library panic, use up all memory or never finish, and random changes of valid files.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{files, outcome, used};
use crate::data::error::DataError;
use crate::data::fuzz::{self, NUMBERS, Random};

/// Changes of the file with this number: the place, the new value, and a part of the error that names the reason;
/// "" if the file may also be usable.
fn changes() -> Vec<(usize, &'static str, Value, &'static str)> {
    let nested = (0..60).fold(json!({"type": "NFC"}), |inner, _| json!({"type": "Sequence", "normalizers": [inner]}));
    let untagged = (0..60).fold(json!({}), |inner, _| json!({"normalizers": [inner]}));
    let deep = (0..60).fold(json!({"type": "Fuse"}), |inner, _| json!({"type": "Sequence", "decoders": [inner]}));
    let missing = json!({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<gone>", "type_id": 0}}], "pair": [], "special_tokens": {}});
    let outside = |id: u64| {
        json!({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [], "special_tokens": {"x": {"id": "x", "ids": [id], "tokens": ["x"]}}})
    };
    let regex = |pattern: &str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
    vec![
        (2, "/normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "!"}), "stopped"),
        (2, "/normalizer", json!({"type": "Precompiled", "precompiled_charsmap": ""}), "stopped"),
        (2, "/normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "/////w=="}), "stopped"),
        (2, "/normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "BAAAAP////8="}), ""),
        (2, "/normalizer", json!({"type": "Precompiled"}), ""),
        (2, "/normalizer", nested, "nests"),
        (2, "/normalizer", untagged, "nests"),
        (2, "/decoder", deep, "nests"),
        (2, "/normalizer", json!({"type": "Replace", "pattern": {"String": ""}, "content": "xx"}), ""),
        (2, "/normalizer", json!({"type": "Replace", "pattern": {"Regex": ""}, "content": "xx"}), ""),
        (2, "/normalizer", json!({"type": "Replace", "pattern": {"Regex": "(((((((((("}, "content": "xx"}), ""),
        (
            2,
            "/normalizer",
            json!({"type": "Sequence", "normalizers": vec![json!({"type": "ByteLevel"}); 40]}),
            "times as long",
        ),
        (
            2,
            "/normalizer",
            json!({"type": "Sequence", "normalizers": vec![json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}); 40]}),
            "times as long",
        ),
        (1, "/pre_tokenizer", regex("(a*)*b(a*)*c"), ""),
        (1, "/pre_tokenizer", regex("(?:a?){64}a{64}b"), ""),
        (1, "/pre_tokenizer", regex("(x+x+)+y|(a|a)*b(a|a)*$"), ""),
        (1, "/pre_tokenizer", regex("(?<=a"), ""),
        (1, "/pre_tokenizer", regex("a{100000}{100000}"), ""),
        (1, "/pre_tokenizer", regex(&"(".repeat(100_000)), ""),
        (1, "/pre_tokenizer", regex(""), ""),
        (1, "/pre_tokenizer", json!({"type": "FixedLength", "length": 0}), ""),
        (1, "/pre_tokenizer", json!({"type": "FixedLength", "length": u64::MAX}), ""),
        (
            1,
            "/pre_tokenizer",
            json!({"type": "Sequence", "pretokenizers": vec![json!({"type": "WhitespaceSplit"}); 2000]}),
            "steps",
        ),
        (2, "/post_processor", missing.clone(), ""),
        (2, "/post_processor", json!({"type": "Sequence", "processors": [missing]}), ""),
        (2, "/post_processor", outside(4_294_967_295), "not in the vocabulary"),
        (2, "/post_processor", outside(500), "not in the vocabulary"),
        (2, "/post_processor", outside(1 << 40), "cannot be read"),
        (
            4,
            "/post_processor",
            json!({"type": "BertProcessing", "sep": ["x", 900], "cls": ["y", 901]}),
            "not in the vocabulary",
        ),
        (1, "/model/vocab/a", json!(4_294_967_296u64), "limit"),
        (1, "/model/vocab/a", json!(4_294_967_295u64), "limit"),
        (1, "/model/vocab/a", json!(20_000_000), "limit"),
        (1, "/model/vocab/a", json!(-1), "cannot be read"),
        (1, "/model/vocab/a", json!("1"), "cannot be read"),
        (1, "/model/vocab", json!({}), ""),
        (1, "/model/merges", json!([["a", "a"]]), "cannot be read"),
        (1, "/model/merges", json!([["a", "b"], ["b", "a"], ["ab", "ab"]]), "cannot be read"),
        (1, "/model/merges", json!(["a b", "ab", "a  b"]), "cannot be read"),
        (1, "/model/continuing_subword_prefix", json!("#######"), ""),
        (1, "/model/continuing_subword_prefix", json!("é"), ""),
        (1, "/model/end_of_word_suffix", json!("x".repeat(100_000)), ""),
        (1, "/model/unk_token", json!("gone"), ""),
        (1, "/model/dropout", json!(7.5), "cannot be read"),
        (1, "/model/dropout", json!(1.0), ""),
        (2, "/model/unk_id", json!(99), ""),
        (2, "/model/unk_id", json!(null), ""),
        (2, "/model/vocab", json!([]), ""),
        (2, "/model/vocab", json!([["", 0.0], ["", 0.0]]), ""),
        (2, "/model/vocab", json!([["a", 1e308], ["b", -1e308], ["ab", 1e308]]), ""),
        (3, "/model/max_input_chars_per_word", json!(u64::MAX), ""),
        (3, "/model/continuing_subword_prefix", json!("a".repeat(100_000)), ""),
        (3, "/model/unk_token", json!("gone"), ""),
        (4, "/model/unk_token", json!("gone"), ""),
        (2, "/decoder/decoders/3/start", json!(u64::MAX), ""),
        (2, "/decoder/decoders/3/stop", json!(u64::MAX), ""),
        (2, "/decoder/decoders/3/start", json!(1000), ""),
        (4, "/decoder/pad_token", json!(""), ""),
        (0, "/added_tokens/0/id", json!(4_294_967_295u64), "limit"),
        (0, "/added_tokens/0/id", json!(5), ""),
        (0, "/added_tokens/0/content", json!(""), ""),
        (0, "/truncation", json!({"direction": "Right", "max_length": 0, "strategy": "LongestFirst", "stride": 9}), ""),
        (
            0,
            "/padding",
            json!({"strategy": {"Fixed": 1_000_000_000_000u64}, "direction": "Left", "pad_to_multiple_of": 0, "pad_id": 0, "pad_type_id": 0, "pad_token": "x"}),
            "",
        ),
    ]
}

/// Catches a panic of the library that is passed on, a file that is not refused before it uses up all memory or
/// time, and an error without the file's name.
#[test]
fn gotcha_63_hostile_tokenizers_end_with_a_named_error() {
    let files = files();
    let mut wrong = Vec::new();
    for file in &files {
        let found = outcome(file.to_string().into_bytes());
        assert_eq!(found, Ok("used"), "{file}");
    }
    for (number, place, value, part) in changes() {
        let mut file = files[number].clone();
        let title = format!("{number}{place} = {}", value.to_string().chars().take(120).collect::<String>());
        match (file.pointer_mut(place), place.rsplit_once('/')) {
            (Some(old), _) => *old = value,
            (None, Some((above, key))) => file.pointer_mut(above).unwrap()[key] = value,
            (None, None) => unreachable!(),
        }
        let start = Instant::now();
        let bytes = file.to_string().into_bytes();
        let named = outcome(bytes.clone());
        let right = match used(bytes) {
            Ok(_) => part.is_empty(),
            Err(DataError::Tokenizer { what, .. }) => what.contains(part),
            Err(_) => false,
        };
        if !right || named.is_err() || start.elapsed() > Duration::from_secs(300) {
            wrong.push(format!("{title}: {named:?} after {:?}", start.elapsed()));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// Catches an id that is refused although it is never used: one that a post-processor adds after a text.
#[test]
fn an_unknown_id_after_a_text_is_skipped() {
    let mut file = files()[2].clone();
    file["post_processor"] = json!({"type": "TemplateProcessing", "pair": [],
        "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "a", "type_id": 0}}, {"SpecialToken": {"id": "x", "type_id": 0}}],
        "special_tokens": {"x": {"id": "x", "ids": [500], "tokens": ["x"]}, "a": {"id": "a", "ids": [1], "tokens": ["a"]}}});
    assert_eq!(outcome(file.to_string().into_bytes()), Ok("used"));
}

/// Catches a hint that advises to give what was given: a tokenizer.json.
#[test]
fn the_hint_of_a_limit_does_not_name_another_kind_of_file() {
    let mut file = files()[2].clone();
    let hint = |file: &Value| used(file.to_string().into_bytes()).unwrap_err().hint().unwrap();
    file["normalizer"] = json!({"type": "Precompiled", "precompiled_charsmap": "!"});
    assert!(hint(&file).starts_with("correct the file"), "{}", hint(&file));
    file["normalizer"] = json!({"pattern": {"Regex": "."}, "content": "a".repeat(2000)});
    assert!(hint(&file).starts_with("correct the file"), "{}", hint(&file));
    assert!(hint(&json!([1])).contains("tokenizers library"));
}

/// Catches a file's dropout, truncation or padding that affects encoding, in any call.
#[test]
fn gotcha_64_truncation_padding_and_dropout_of_a_file_change_no_ids() {
    for file in files() {
        let ids = |file: &Value| used(file.to_string().into_bytes()).unwrap();
        let plain = ids(&file);
        let mut configured = file;
        configured["truncation"] =
            json!({"direction": "Left", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
        configured["padding"] = json!({"strategy": {"Fixed": 99}, "direction": "Left", "pad_to_multiple_of": 8, "pad_id": 0, "pad_type_id": 0, "pad_token": "x"});
        if configured["model"]["type"] == "BPE" {
            configured["model"]["dropout"] = json!(0.9);
        }
        for key in ["alpha", "nbest_size", "nbest"] {
            configured["model"][key] = json!(0.5);
        }
        for _ in 0..5 {
            assert_eq!(ids(&configured), plain);
        }
    }
}

/// Replaces, removes, copies or nests one value of a file.
fn change(random: &mut Random, file: &mut Value, donor: &Value) {
    let place = |random: &mut Random, value: &Value| {
        let mut all = Vec::new();
        places(value, String::new(), &mut all);
        random.choice(&all).clone()
    };
    // The deeper of two places: a change near the root makes most files unreadable.
    let at = [place(random, file), place(random, file)]
        .into_iter()
        .max_by_key(|at| at.matches('/').count())
        .unwrap_or_default();
    // Mostly a value of the same key, so that the file keeps its shape.
    let key = |place: &str| place.rsplit_once('/').map(|(_, key)| key.to_owned());
    let from = (0..30).map(|_| place(random, donor)).find(|from| key(from) == key(&at)).unwrap_or_else(|| at.clone());
    let new = match random.below(16) {
        0 => serde_json::from_str(NUMBERS[random.below(NUMBERS.len())]).unwrap_or(Value::Null),
        1 => random
            .choice(&[
                Value::Null,
                json!(""),
                json!([]),
                json!({}),
                json!(true),
                json!("\u{0}"),
                json!("é"),
                json!("a".repeat(9999)),
            ])
            .clone(),
        2 => {
            let patterns = ["", "(", "(a*)*b", "\\p{L}+", ".", "^", "$", "\\G", "(?=a)", "a|", "[^\\s]{0,99}", "(?i)ß"];
            json!({"Regex": random.choice(&patterns)})
        }
        3 => {
            let key = *random.choice(&["normalizers", "pretokenizers", "processors", "decoders"]);
            json!({"type": "Sequence", key: [donor.pointer(&from).cloned(), file.pointer(&at).cloned()]})
        }
        _ => donor.pointer(&from).cloned().unwrap_or(Value::Null),
    };
    if let Some(value) = file.pointer_mut(&at) {
        *value = new;
    }
}

fn places(value: &Value, at: String, all: &mut Vec<String>) {
    match value {
        Value::Array(items) => {
            items.iter().enumerate().take(20).for_each(|(key, item)| places(item, format!("{at}/{key}"), all))
        }
        // Keys with characters of a path are left alone.
        Value::Object(map) => {
            let plain = map.iter().filter(|(key, _)| !key.contains(['/', '~'])).take(20);
            plain.for_each(|(key, item)| places(item, format!("{at}/{key}"), all));
        }
        _ => {}
    }
    all.push(at);
}

/// Catches a panic, an abort or a file that never finishes among changed files.
#[test]
fn gotcha_63_changed_tokenizers_are_used_or_refused() {
    let files = files();
    let bytes: Vec<Vec<u8>> = files.iter().map(|file| file.to_string().into_bytes()).collect();
    let words = [
        "null",
        "{}",
        "[]",
        "\"type\":",
        "\"Sequence\"",
        "\"Regex\":",
        "\\u0000",
        "1e999",
        ",",
        "\"ids\":[9]",
        "\"special\":true",
    ];
    fuzz::run("tokenizers", if cfg!(debug_assertions) { 500 } else { 2000 }, move |random| {
        if random.below(4) == 0 {
            return outcome(fuzz::mutated(random, &bytes, &words));
        }
        let mut file = random.choice(&files).clone();
        for _ in 0..1 + random.below(3) {
            let donor = random.choice(&files).clone();
            change(random, &mut file, &donor);
        }
        outcome(file.to_string().into_bytes())
    });
}
