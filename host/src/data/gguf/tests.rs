//! GGUF files: what their metadata becomes, and damaged ones.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::sample::{Put, Sample, llama};
use super::{Gguf, at, folder_files};
use crate::data::error::{DataError, Result};
use crate::data::fuzz;
use crate::data::tokenizer::Tokenizer;

fn written(bytes: &[u8]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("model.gguf"), bytes).unwrap();
    folder
}

fn files(path: &Path) -> Result<Vec<(&'static str, Vec<u8>)>> {
    folder_files(&Gguf::open(path)?.0)
}

fn json_of(sample: &Sample, name: &str) -> Value {
    let folder = written(&sample.bytes());
    let files = files(&folder.path().join("model.gguf")).unwrap();
    let (_, bytes) = files.iter().find(|(own, _)| *own == name).unwrap();
    serde_json::from_slice(bytes).unwrap()
}

fn refusal(sample: &Sample) -> String {
    let folder = written(&sample.bytes());
    let error = files(&folder.path().join("model.gguf")).unwrap_err();
    format!("{error}; {}", error.hint().unwrap_or_default())
}

/// Catches keys that are read from other keys, a head width that is derived although it is given, and ends of turns that do not
/// end an answer.
#[test]
fn metadata_become_config_json() {
    let config = json_of(&llama(), "config.json");
    let expected = [
        ("model_type", json!("llama")),
        ("vocab_size", json!(10)),
        ("hidden_size", json!(4)),
        ("intermediate_size", json!(6)),
        ("num_hidden_layers", json!(1)),
        ("num_attention_heads", json!(2)),
        ("num_key_value_heads", json!(1)),
        ("head_dim", json!(4)),
        ("max_position_embeddings", json!(16)),
        ("rms_norm_eps", json!(1e-5)),
        ("rope_theta", json!(500_000.0)),
        ("tie_word_embeddings", json!(true)),
        ("attention_bias", json!(false)),
        ("eos_token_id", json!(0)),
    ];
    for (key, value) in expected {
        assert_eq!(config[key], value, "{key}");
    }
    assert_eq!(json_of(&llama(), "generation_config.json")["eos_token_id"], json!([0, 1]));
    let untied = llama().counted("output.weight", &[10, 4]);
    assert_eq!(json_of(&untied, "config.json")["tie_word_embeddings"], json!(false));
}

/// Catches factors of Llama 3 that are dropped, which changes what a model computes, and others that are taken for them.
#[test]
fn rotary_factors_become_the_scaling_of_llama_3() {
    let with = |values: [f32; 2]| {
        let bytes: Vec<u8> = values.into_iter().flat_map(f32::to_le_bytes).collect();
        llama().tensor("rope_freqs.weight", &[2], super::quants::F32, &bytes)
    };
    let scaling = &json_of(&with([1.0, 8.0]), "config.json")["rope_scaling"];
    assert_eq!((&scaling["rope_type"], &scaling["factor"]), (&json!("llama3"), &json!(8.0)));
    assert!(refusal(&with([8.0, 1.0])).contains("rope_freqs.weight"));
}

/// Catches merges, special tokens, a beginning-of-text token or a template that are lost, and fillers of the vocabulary that become
/// tokens.
#[test]
fn metadata_become_a_tokenizer() {
    let folder = written(&llama().bytes());
    for path in [folder.path().to_owned(), folder.path().join("model.gguf")] {
        let tokenizer = Tokenizer::open(&path).unwrap();
        assert_eq!(tokenizer.encode("ab ab1<|turn|>").unwrap(), [6, 7, 8, 1]);
        assert_eq!(tokenizer.encode_input("a").unwrap(), [1, 2]);
        assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(1), Some(0)));
        assert_eq!(tokenizer.vocab_size(), 9);
        assert_eq!(tokenizer.chat_template(), Some("{{ messages[0]['content'] }}"));
    }
}

/// Catches prompts of Llama 3 and Mistral Nemo without their beginning-of-text token: llama.cpp adds it if the file does not say. A file
/// that names no such token is read without one.
#[test]
fn the_beginning_of_text_is_added_where_llama_cpp_adds_it() {
    let encoded = |pre: &str, says: bool, names: bool| {
        let mut bytes = llama().bytes();
        let mut rename = |from: &str, to: &str| {
            assert_eq!(from.len(), to.len());
            let at = bytes.windows(from.len()).position(|part| part == from.as_bytes()).unwrap();
            bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
        };
        rename("smollm", pre);
        if !says {
            rename("add_bos_token", "add_xyz_token");
        }
        if !names {
            rename("bos_token_id", "xyz_token_id");
        }
        let folder = written(&bytes);
        Tokenizer::open(folder.path()).unwrap().encode_input("a").unwrap()
    };
    for (pre, says, names, expected) in [
        ("llama3", false, true, &[1, 2][..]),
        ("tekken", false, true, &[1, 2]),
        ("smollm", true, true, &[1, 2]),
        ("smollm", false, true, &[2]),
        ("gpt-4o", false, true, &[2]),
        ("llama3", false, false, &[2]),
        ("tekken", false, false, &[2]),
    ] {
        assert_eq!(encoded(pre, says, names), expected, "{pre} {says} {names}");
    }
}

/// Catches pairs that are merged in another order than by their scores, and a space that is not put before a text.
#[test]
fn scores_become_merges() {
    let tokens = ["<unk>", "<s>", "</s>", "\u{2581}", "a", "b", "c", "ab", "bc", "\u{2581}a", "<0x0A>"];
    let with = |scores: [f32; 11], space: bool| {
        let mut file = Sample::default().put("general.architecture", Put::Text("llama"));
        for key in ["block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count"]
        {
            file = file.put(&format!("llama.{key}"), Put::U32(2));
        }
        file.put("tokenizer.ggml.model", Put::Text("llama"))
            .put("tokenizer.ggml.tokens", Put::Texts(&tokens))
            .put("tokenizer.ggml.scores", Put::Floats(&scores))
            .put("tokenizer.ggml.token_type", Put::Ints(&[2, 3, 3, 1, 1, 1, 1, 1, 1, 1, 6]))
            .put("tokenizer.ggml.bos_token_id", Put::U32(1))
            .put("tokenizer.ggml.eos_token_id", Put::U32(2))
            .put("tokenizer.ggml.add_space_prefix", Put::Bool(space))
            .counted("token_embd.weight", &[11, 2])
    };
    let encoded = |scores: [f32; 11], space: bool| {
        let folder = written(&with(scores, space).bytes());
        Tokenizer::open(folder.path()).unwrap().encode("abc").unwrap()
    };
    let scores = |ab: f32, bc: f32, space: f32| [0.0, 0.0, 0.0, -9.0, -9.0, -9.0, -9.0, ab, bc, space, 0.0];
    assert_eq!(encoded(scores(-1.0, -2.0, -3.0), false), [7, 6]);
    assert_eq!(encoded(scores(-2.0, -1.0, -3.0), false), [4, 8]);
    assert_eq!(encoded(scores(-2.0, -1.0, -3.0), true), [9, 8]);
    assert_eq!(encoded(scores(-1.0, -2.0, -3.0), true), [3, 7, 6]);
}

/// Catches an architecture, a key or a tokenizer that is not read and is ignored.
#[test]
fn what_is_not_read_is_refused_by_name() {
    let other = |key: &str, value: Put<'_>| refusal(&llama().put(key, value));
    for (found, part) in [
        (other("llama.expert_count", Put::U32(8)), "`llama.expert_count`"),
        (other("llama.attention.clamp_kqv", Put::F32(8.0)), "`llama.attention.clamp_kqv`"),
        (other("llama.rope.scaling.type", Put::Text("longrope")), "`llama.rope.scaling.type`"),
        (refusal(&Sample::default().put("general.architecture", Put::Text("mamba"))), "\"mamba\"; GGUF files of llama"),
        (refusal(&Sample::default()), "`general.architecture` is missing"),
        (refusal(&Sample::default().put("general.architecture", Put::U32(1))), "expected a text"),
    ] {
        assert!(found.contains(part), "{found}");
    }
    assert_eq!(json_of(&llama().put("llama.expert_count", Put::U32(0)), "config.json")["model_type"], json!("llama"));
    let renamed = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let mut bytes = llama().bytes();
        let at = bytes.windows(from.len()).position(|part| part == from.as_bytes()).unwrap();
        bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
        let folder = written(&bytes);
        files(&folder.path().join("model.gguf")).unwrap_err().to_string()
    };
    assert!(renamed("smollm", "smelly").contains("`tokenizer.ggml.pre` is \"smelly\""));
    assert!(renamed("gpt2", "bert").contains("`tokenizer.ggml.model` is \"bert\""));
}

/// Catches a folder whose GGUF file is taken although it is a folder in the Hugging Face layout, and one file of several that is
/// chosen by chance.
#[test]
fn a_folder_stands_for_its_only_gguf_file() {
    let folder = written(&llama().bytes());
    let file = folder.path().join("model.gguf");
    assert_eq!(at(folder.path()).unwrap(), Some(file.clone()));
    assert_eq!(at(&file).unwrap(), Some(file.clone()));
    assert_eq!(at(&folder.path().join("none.gguf")).unwrap(), None);
    fs::copy(&file, folder.path().join("other.GGUF")).unwrap();
    let error = at(folder.path()).unwrap_err().to_string();
    assert!(error.contains("2 GGUF files: model.gguf, other.GGUF"), "{error}");
    fs::write(folder.path().join("config.json"), "{}").unwrap();
    assert_eq!(at(folder.path()).unwrap(), None);
}

/// Catches lengths that are believed: memory for them would be reserved although the file is short.
#[test]
fn damaged_headers_are_refused_with_their_place() {
    let whole = llama().bytes();
    for length in 0..whole.len() {
        let folder = written(&whole[..length]);
        let path = folder.path().join("model.gguf");
        match files(&path) {
            Err(DataError::Unusable { path: named, what, .. }) => {
                assert_eq!(named, path);
                assert!(what.contains("byte"), "{length}: {what}");
            }
            other => panic!("{length}: {other:?}"),
        }
    }
    let with = |at: usize, value: u64| {
        let mut bytes = whole.clone();
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        let folder = written(&bytes);
        files(&folder.path().join("model.gguf")).unwrap_err().to_string()
    };
    // The numbers of tensors and keys, and the length of the first key.
    for (at, part) in [(8, "the number of tensors"), (16, "the number of keys"), (24, "the name of key 0")] {
        for value in [u64::MAX, 1 << 62, 1 << 40] {
            let found = with(at, value);
            assert!(found.contains(part) && found.contains("limit"), "{found}");
        }
    }
    let folder = written(b"not a GGUF file at all");
    let error = files(&folder.path().join("model.gguf")).unwrap_err().to_string();
    assert!(error.contains("does not begin with \"GGUF\""), "{error}");
}

/// Catches a panic, a hang or an error without the file's name among changed files.
#[test]
fn changed_files_are_used_or_refused() {
    let corpus = vec![llama().bytes()];
    let words = ["llama.", "tokenizer.ggml.", "\u{0}\u{0}\u{0}\u{0}", "\u{8}\u{0}\u{0}\u{0}", "gpt2", "blk.0."];
    fuzz::run("GGUF headers", if cfg!(debug_assertions) { 500 } else { 5000 }, move |random| {
        let folder = written(&fuzz::mutated(random, &corpus, &words));
        match Tokenizer::open(folder.path()) {
            Ok(_) => Ok("used"),
            Err(error) if error.to_string().contains("model.gguf") => Ok("refused"),
            Err(error) => Err(error.to_string()),
        }
    });
}
