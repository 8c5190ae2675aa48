use std::fs;
use std::path::Path;

use super::{byte_tokens, documents};
use crate::data::document::Document;
use crate::data::tokenizer::Tokenizer;
use crate::data::tokens::TokenSet;

fn all(set: &TokenSet) -> Vec<Vec<u32>> {
    (0..set.documents()).map(|index| set.document(index).to_vec()).collect()
}

fn only_file(folder: &Path) -> std::path::PathBuf {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files.remove(0)
}

#[test]
fn gotcha_03_a_document_ends_once() {
    // Catches a second end-of-text token after one written out in the text, and documents joined across one.
    let set = byte_tokens(&["ab<|endoftext|>", "c<|endoftext|>\n<|endoftext|>d", ""]);
    assert_eq!(all(&set), [vec![97, 98, 256], vec![99, 256], vec![100, 256]]);
    let cut = Document { text: "ab".into(), ends: false };
    let set = TokenSet::load(&[cut], &Tokenizer::bytes().unwrap(), None).unwrap();
    assert_eq!(all(&set), [[97, 98]]);
}

#[test]
fn long_text_is_encoded_in_parts_without_a_seam() {
    // The last byte of the first part falls into the two-byte character.
    let text = format!("{}äb", "a".repeat((1 << 17) - 1)).repeat(20);
    let set = byte_tokens(&[&text, "x"]);
    let expected: Vec<u32> = text.bytes().map(u32::from).chain([256]).collect();
    assert_eq!((set.documents(), set.document(0) == expected), (2, true));
}

#[test]
fn a_cached_token_set_equals_the_original() {
    let cache = tempfile::tempdir().unwrap();
    let (texts, tokenizer) = (documents(&["hello", "", "wörld"]), Tokenizer::bytes().unwrap());
    let plain = TokenSet::load(&texts, &tokenizer, None).unwrap();
    let folder = cache.path().join("new").join("tokens");
    for _ in 0..2 {
        let set = TokenSet::load(&texts, &tokenizer, Some(&folder)).unwrap();
        assert_eq!((all(&set), set.key()), (all(&plain), plain.key()));
    }
    assert!(only_file(&folder).to_string_lossy().contains(&plain.key()));
}

#[test]
fn the_cache_key_depends_on_text_ends_and_tokenizer() {
    let (bytes, trained) = (Tokenizer::bytes().unwrap(), Tokenizer::train(&documents(&["aaaa"]), 258).unwrap());
    let key = |documents: &[Document], tokenizer| TokenSet::load(documents, tokenizer, None).unwrap().key();
    let open = Document { text: "ab".into(), ends: false };
    let keys = [
        key(&documents(&["ab"]), &bytes),
        key(&documents(&["ab"]), &trained),
        // Catches a key computed over the joined text.
        key(&documents(&["a", "b"]), &bytes),
        key(&[open], &bytes),
        key(&documents(&["ac"]), &bytes),
    ];
    for (index, a) in keys.iter().enumerate() {
        assert!(keys.iter().skip(index + 1).all(|b| a != b), "key {index}");
    }
}

/// Catches a cache that trusts its file: every byte and the length must be checked.
#[test]
fn a_damaged_cache_is_rebuilt() {
    let cache = tempfile::tempdir().unwrap();
    let (texts, tokenizer) = (documents(&["hello", "world"]), Tokenizer::bytes().unwrap());
    let load = || TokenSet::load(&texts, &tokenizer, Some(cache.path())).unwrap();
    let good = all(&load());
    let file = only_file(cache.path());
    let bytes = fs::read(&file).unwrap();
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 0x10;
        fs::remove_file(&file).unwrap();
        fs::write(&file, bad).unwrap();
        assert_eq!(all(&load()), good, "byte {at}");
        assert_eq!(fs::read(&file).unwrap(), bytes, "byte {at} was not repaired");
    }
    for length in [0, 1, 95, 96, bytes.len() - 1] {
        fs::remove_file(&file).unwrap();
        fs::write(&file, &bytes[..length]).unwrap();
        assert_eq!(all(&load()), good, "cut to {length} bytes");
    }
    fs::remove_file(&file).unwrap();
    fs::write(&file, [bytes.as_slice(), &[0]].concat()).unwrap();
    assert_eq!(all(&load()), good, "one byte too long");
}

#[test]
fn a_cache_that_cannot_be_written_is_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let blocked = folder.path().join("file");
    fs::write(&blocked, "not a folder").unwrap();
    let set = TokenSet::load(&documents(&["ab"]), &Tokenizer::bytes().unwrap(), Some(&blocked)).unwrap();
    assert_eq!(all(&set), [[97, 98, 256]]);
}
