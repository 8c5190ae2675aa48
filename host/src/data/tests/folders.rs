//! Odd tokenizer folders, read as transformers reads them: `tests/references/tokenizer/folders.json` has its results.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::rows::encoding::Case;
use crate::data::error::{DataError, Result};
use crate::data::rows::encode::Reads;
use crate::data::rows::write::template::plain;
use crate::data::rows::{ChatTemplate, RowKind};
use crate::data::tokenizer::Tokenizer;

fn reference() -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/references/tokenizer/folders.json");
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

/// The tokenizer of bytes as JSON.
fn bytes() -> Value {
    let tokenizer = Tokenizer::bytes().unwrap();
    let json = tokenizer.files().find(|(name, _)| *name == "tokenizer.json").map(|(_, bytes)| bytes.to_vec());
    serde_json::from_slice(&json.unwrap()).unwrap()
}

fn folder(tokenizer: &Value, files: impl IntoIterator<Item = (String, Vec<u8>)>) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    for (name, bytes) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    folder
}

/// The folder of a case.
fn folder_of(case: &Value) -> TempDir {
    let mut tokenizer = bytes();
    for (token, id) in case["vocabulary"].as_array().unwrap().iter().zip(256..) {
        tokenizer["model"]["vocab"][token.as_str().unwrap()] = json!(id);
    }
    tokenizer["added_tokens"] = case["added_tokens"].clone();
    tokenizer["post_processor"] = case["post_processor"].clone();
    let files = case["files"].as_object().unwrap().iter();
    let bytes = |content: &Value| content.as_str().map_or_else(|| content.to_string(), str::to_owned).into_bytes();
    folder(&tokenizer, files.map(|(name, content)| (name.clone(), bytes(content))))
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap_or_else(|e| panic!("{e}: {value}"))
}

/// Catches tokens of added_tokens_decoder, special_tokens_map.json or added_tokens.json that are encoded byte by
/// byte, read in another order of precedence, or given other ids or other flags; and special tokens that stay in an
/// answer's text.
#[test]
fn gotcha_47_added_and_special_tokens_are_those_of_transformers() {
    for case in reference()["cases"].as_array().unwrap() {
        let (name, folder) = (&case["name"], folder_of(case));
        let tokenizer = Tokenizer::open(folder.path()).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(json!(tokenizer.vocab_size()), case["size"], "{name}");
        assert_eq!(
            (json!(tokenizer.bos()), json!(tokenizer.eos())),
            (case["bos"].clone(), case["eos"].clone()),
            "{name}"
        );
        for text in case["texts"].as_array().unwrap() {
            let made = tokenizer.encode(text["text"].as_str().unwrap()).unwrap();
            assert_eq!(made, ids(&text["ids"]), "{name}: {text}");
            assert_eq!(tokenizer.decode(&made, true).unwrap(), text["without_special"], "{name}: {text}");
            // Catches a stream that shows what decoding at once leaves out.
            let mut stream = tokenizer.stream(true);
            let streamed: String = made.iter().map(|id| stream.push(*id).unwrap()).collect();
            assert_eq!(streamed + &stream.finish().unwrap(), text["without_special"], "{name}: {text}");
        }
        let input = &case["input"];
        assert_eq!(tokenizer.encode_input(input["text"].as_str().unwrap()).unwrap(), ids(&input["ids"]), "{name}");
        // Catches files that are lost when a model is saved: the saved tokenizer must read the same.
        let saved = tempfile::tempdir().unwrap();
        tokenizer.save(saved.path()).unwrap();
        let again = Tokenizer::open(saved.path()).unwrap();
        assert_eq!(again.hash(), tokenizer.hash(), "{name}");
        assert!(again.files().eq(tokenizer.files()), "{name}");
    }
}

/// Catches a template that is read from the wrong place, and a beginning-of-text token that the tokenizer puts in
/// front of what a template writes, once or twice: in rows, prompts and pairs.
#[test]
fn gotcha_51_rows_of_messages_are_the_tokens_of_apply_chat_template() {
    let reference = reference();
    let (messages, mut seen) = (&reference["messages"], 0);
    for case in reference["cases"].as_array().unwrap() {
        let (name, folder) = (&case["name"], folder_of(case));
        let tokenizer = Tokenizer::open(folder.path()).unwrap();
        let Some(expected) = case["chat"].get("ids").map(ids) else {
            assert_eq!(tokenizer.chat_template(), None, "{name}");
            continue;
        };
        seen += 1;
        let template = tokenizer.chat_template().unwrap_or_else(|| panic!("{name}: no template"));
        let encode = |kind, line: Value| {
            let template = Some(template);
            let case = Case {
                kind,
                tokenizer: &tokenizer,
                template,
                longest: 200,
                truncation: None,
                filter: Default::default(),
                reads: Reads::default(),
            };
            case.encode(&[line]).0.into_iter().map(|sequence| sequence.ids).collect::<Vec<_>>()
        };
        let eos = tokenizer.eos().unwrap();
        // Nothing after the end of the last answer is learned, so rows end there.
        let end = expected.iter().rposition(|id| *id == eos).unwrap() + 1;
        let whole = encode(RowKind::PromptCompletion, json!({"messages": messages}));
        assert_eq!(whole, [&expected[..end]], "{name}");
        let prompt = encode(RowKind::Prompt, json!({"prompt": [messages[0]]}));
        assert_eq!(prompt, [ids(&case["chat"]["prompt_ids"])], "{name}");
        let other = json!([{"role": "assistant", "content": "c"}]);
        let pair =
            encode(RowKind::Preference, json!({"prompt": [messages[0]], "chosen": [messages[1]], "rejected": other}));
        assert_eq!(pair[0], &expected[..end], "{name}");
        assert_eq!(pair[1][0], expected[0], "{name}");
    }
    assert!(seen >= 5, "{seen}");
}

/// Catches rows written without a template that lack the tokenizer's beginning-of-text token, and rows of the
/// template "plain", the default of a tokenizer without one, that begin differently from those.
#[test]
fn gotcha_51_rows_without_a_published_template_begin_like_texts() {
    let reference = reference();
    let case = reference["cases"].as_array().unwrap().iter().find(|case| case["name"] == "template_with_beginning");
    let folder = folder_of(case.unwrap());
    let tokenizer = Tokenizer::open(folder.path()).unwrap();
    let line = json!({"prompt": "q", "completion": "a"});
    let plain = plain(&tokenizer);
    for (template, expected) in [(None, vec![257, 113, 97, 258]), (Some(plain.as_str()), vec![257, 113, 10, 97, 258])] {
        let kind = RowKind::PromptCompletion;
        let case = Case {
            kind,
            tokenizer: &tokenizer,
            template,
            longest: 200,
            truncation: None,
            filter: Default::default(),
            reads: Reads::default(),
        };
        assert_eq!(case.encode(std::slice::from_ref(&line)).0[0].ids, expected, "{template:?}");
    }
    assert!(ChatTemplate::new(&plain, &tokenizer).unwrap().is_plain());
}

/// Catches an invalid file that is treated as missing. Transformers refuses each of them too.
#[test]
fn gotcha_47_files_that_transformers_refuses_are_refused_by_name() {
    for case in reference()["refused"].as_array().unwrap() {
        let files: Vec<(String, Vec<u8>)> = case["files"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, text)| (name.clone(), text.as_str().unwrap().chars().map(|c| c as u8).collect()))
            .collect();
        assert!(case["fault"].is_string(), "{case}");
        let guilty = files.last().unwrap().0.clone();
        let folder = folder(&bytes(), files);
        let error = Tokenizer::open(folder.path()).err().unwrap_or_else(|| panic!("{case}"));
        assert!(error.to_string().contains(&guilty), "{case}: {error}");
    }
}

/// Catches a broken link, a folder in place of a file, or a Git LFS pointer that is treated as a missing file.
#[test]
fn unreadable_tokenizer_files_are_refused_by_name() {
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n".to_vec();
    for name in ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"] {
        let folder = folder(&bytes(), [(name.to_owned(), pointer.clone())]);
        let error = Tokenizer::open(folder.path()).err().unwrap();
        assert!(error.to_string().contains(name) && error.to_string().contains("Git LFS pointer"), "{error}");
        assert!(error.hint().unwrap().contains("git lfs pull"));
        let path = folder.path().join(name);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let error = Tokenizer::open(folder.path()).err().unwrap();
        assert!(error.to_string().contains(name), "{error}");
        #[cfg(unix)]
        {
            fs::remove_dir(&path).unwrap();
            std::os::unix::fs::symlink("nowhere", &path).unwrap();
            let error = Tokenizer::open(folder.path()).err().unwrap();
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}

/// Catches a tokenizer in another format whose error only reports that tokenizer.json is missing.
#[test]
fn another_format_is_named_with_the_command_that_converts_it() {
    let folder = tempfile::tempdir().unwrap();
    let open = |path: &Path| {
        let error = Tokenizer::open(path).err().unwrap();
        format!("{error}; {}", error.hint().unwrap())
    };
    fs::write(folder.path().join("tokenizer.model"), b"\x0a\x0e").unwrap();
    for path in [folder.path().to_owned(), folder.path().join("tokenizer.model")] {
        let message = open(&path);
        assert!(message.contains("sentencepiece model") && message.contains("save_pretrained"), "{message}");
    }
    let message = open(Path::new("no-such-org/no-such-model"));
    assert!(message.contains("write hf:no-such-org/no-such-model"), "{message}");
}

/// Catches a BPE whose dropout stays active: the same text would become different tokens each time.
#[test]
fn gotcha_64_dropout_is_switched_off_and_reported() {
    let given = super::references().join("tokenizer/gpt2");
    let mut json: Value = serde_json::from_slice(&fs::read(given.join("tokenizer.json")).unwrap()).unwrap();
    let sure = Tokenizer::open(&given).unwrap();
    json["model"]["dropout"] = json!(0.5);
    let config = fs::read(given.join("tokenizer_config.json")).unwrap();
    let folder = folder(&json, [("tokenizer_config.json".to_owned(), config)]);
    let tokenizer = Tokenizer::open(folder.path()).unwrap();
    let text = "the harbour was quiet in the morning and the harbour was quiet at night";
    for _ in 0..20 {
        assert_eq!(tokenizer.encode(text).unwrap(), sure.encode(text).unwrap());
    }
    assert!(tokenizer.notes().iter().any(|note| note.contains("dropout 0.5")), "{:?}", tokenizer.notes());
    assert!(sure.notes().is_empty(), "{:?}", sure.notes());
}

/// The tokenizer of bytes with `<|a|>` as 257 and `<|b|>` as 258, fitted to a model that has rows for 258 tokens
/// and that ends answers at these ids too.
fn fitted(ends: &[u32]) -> Tokenizer {
    let config = json!({"eos_token": "<|endoftext|>", "extra_special_tokens": ["<|a|>", "<|b|>"]});
    let folder = folder(&bytes(), [("tokenizer_config.json".to_owned(), config.to_string().into_bytes())]);
    let mut tokenizer = Tokenizer::open(folder.path()).unwrap();
    tokenizer.fit_to_model(ends, 258).unwrap();
    tokenizer
}

/// Catches a tokenizer that is refused because of a token that no text contains, an id beyond the embedding that
/// reaches a backend, and a message without file and line.
#[test]
fn a_text_with_a_token_outside_the_model_is_refused() {
    let tokenizer = fitted(&[]);
    assert_eq!(tokenizer.encode("x<|a|>").unwrap(), [120, 257]);
    for refused in [
        tokenizer.encode("x<|b|>"),
        tokenizer.encode_input("<|b|>"),
        tokenizer.encode_many(vec!["<|b|>"]).map(drop_all),
    ] {
        assert!(matches!(refused, Err(DataError::OutsideModel { id: 258, rows: 258, .. })), "{refused:?}");
    }
    assert!(tokenizer.notes().iter().any(|note| note.contains("259 tokens")), "{:?}", tokenizer.notes());
    let kind = RowKind::PromptCompletion;
    let case = Case {
        kind,
        tokenizer: &tokenizer,
        template: None,
        longest: 99,
        truncation: None,
        filter: Default::default(),
        reads: Reads::default(),
    };
    let good = json!({"prompt": "q<|a|>", "completion": "a"});
    assert!(case.data(std::slice::from_ref(&good)).is_ok());
    let error = case.data(&[good, json!({"prompt": "q", "completion": "<|b|>"})]).err().unwrap().to_string();
    assert!(error.contains("rows.jsonl:2") && error.contains("<|b|>") && error.contains("258"), "{error}");
}

fn drop_all(_: Vec<Vec<u32>>) -> Vec<u32> {
    Vec::new()
}

/// Catches end tokens that only the model's folder names and that are ignored: an answer that continues after them,
/// a second end after a turn's own, and an answer's text that contains its end.
#[test]
fn gotcha_45_end_tokens_of_the_models_folder_end_answers() -> Result<()> {
    let tokenizer = fitted(&[257]);
    assert_eq!(tokenizer.ends(), [256, 257]);
    let kind = RowKind::PromptCompletion;
    let template = "{% for m in messages %}{{ m.content }}<|a|>\n{% endfor %}";
    let case = Case {
        kind,
        tokenizer: &tokenizer,
        template: Some(template),
        longest: 99,
        truncation: None,
        filter: Default::default(),
        reads: Reads::default(),
    };
    let (rows, _) = case.encode(&[json!({"prompt": "q", "completion": "yes"})]);
    let (q, yes) = (u32::from(b'q'), b"yes".map(u32::from));
    assert_eq!(rows[0].ids, [&[q, 257, 10], yes.as_slice(), &[257]].concat());
    assert_eq!(rows[0].supervised, [false, false, false, true, true, true, true]);
    // A row that no template ends gets the tokenizer's own end.
    let joined = Case { template: None, ..case };
    assert_eq!(joined.encode(&[json!({"prompt": "q", "completion": "yes"})]).0[0].ids.last(), Some(&256));
    assert_eq!(tokenizer.answer_text(&[&yes[..], &[257, 10, 256]].concat())?, "yes");
    assert_eq!(fitted(&[]).answer_text(&[&yes[..], &[257, 10, 256]].concat())?, "yes\n");
    Ok(())
}

/// Catches a guess that takes precedence over what the model's folder names, and a guess without a note.
#[test]
fn the_models_end_token_takes_precedence_over_a_usual_one() {
    let folder = folder(&bytes(), []);
    let mut tokenizer = Tokenizer::open(folder.path()).unwrap();
    assert_eq!((tokenizer.eos(), tokenizer.ends()), (Some(256), vec![256]));
    assert!(tokenizer.notes()[0].contains("<|endoftext|>"), "{:?}", tokenizer.notes());
    tokenizer.fit_to_model(&[10], 257).unwrap();
    assert_eq!((tokenizer.eos(), tokenizer.ends()), (Some(10), vec![10]));
    assert!(tokenizer.notes().is_empty() && !tokenizer.is_special(256 - 1), "{:?}", tokenizer.notes());
}

/// Catches a template that is missed because only the processor's file has it, and named templates that cannot be
/// selected.
#[test]
fn templates_are_found_by_name_and_in_the_processors_file() {
    let config = json!({"chat_template": [{"name": "rag", "template": "R"}, {"name": "tool_use", "template": "T"}]});
    let with = |name: &str, content: &Value| {
        let folder = folder(&bytes(), [(name.to_owned(), content.to_string().into_bytes())]);
        Tokenizer::open(folder.path()).unwrap()
    };
    let several = with("tokenizer_config.json", &config);
    assert_eq!(several.chat_template_names().collect::<Vec<_>>(), ["rag", "tool_use"]);
    assert_eq!((several.chat_template(), several.named_chat_template("rag")), (None, Some("R")));
    let processor = with("chat_template.json", &json!({"chat_template": "P"}));
    assert_eq!(processor.chat_template(), Some("P"));
    let object = with("tokenizer_config.json", &json!({"chat_template": {"default": "D", "rag": "R"}}));
    assert_eq!(object.chat_template(), Some("D"));
}

/// A tokenizer that adds `<s>`, with a template that does not write it: no row written by the template begins with
/// `<s>`; a row of a template that writes it begins with one. The ids are those of transformers 5.23.0.
#[test]
fn gotcha_51_no_beginning_token_is_added_to_a_templates_text() {
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/field/bos-before-template");
    let tokenizer = Tokenizer::open(&case.join("tok")).unwrap();
    assert_eq!(tokenizer.prefix(), Some(1));
    let row = fs::read_to_string(case.join("rows.jsonl")).unwrap();
    let row: Value = serde_json::from_str(row.lines().next().unwrap()).unwrap();
    let ids = |template: &str| {
        let (kind, template) = (RowKind::PromptCompletion, Some(template));
        let case = Case {
            kind,
            tokenizer: &tokenizer,
            template,
            longest: 999,
            truncation: None,
            filter: Default::default(),
            reads: Reads::default(),
        };
        case.encode(std::slice::from_ref(&row)).0.remove(0).ids
    };
    let template = fs::read_to_string(case.join("nobos.jinja")).unwrap();
    let begun = ids(&format!("{{{{ bos_token }}}}{template}"));
    let plain = ids(&template);
    assert_eq!((&plain[..6], plain.len()), (&[327, 261, 330, 266, 259, 263][..], 86));
    assert_eq!((&begun[..6], begun.len()), (&[1, 327, 261, 330, 266, 259][..], 87));
    assert_eq!((plain.last(), begun.last()), (Some(&2), Some(&2)));
}
