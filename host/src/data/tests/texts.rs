use std::fs;
use std::path::Path;

use crate::data::corpus::Corpus;
use crate::data::error::DataError;
use crate::data::text::{TextOptions, read_documents};
use crate::data::tokenizer::Tokenizer;
use crate::error::Error;

fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    folder
}

fn read(base: &Path, paths: &[&str], held_out: f64) -> Result<Corpus, DataError> {
    let paths = paths.iter().map(|path| base.join(path).display().to_string()).collect();
    TextOptions { paths, eval_paths: Vec::new(), held_out }.read()
}

fn texts(documents: &[crate::data::document::Document]) -> Vec<&str> {
    documents.iter().map(|document| document.text.as_str()).collect()
}

#[test]
fn folders_are_searched_in_order_without_hidden_and_empty_files() {
    let base = folder(&[("b.txt", b"b"), ("a/z.md", b"z"), ("a/c.txt", b"c"), (".git/x", b"x"), ("empty.txt", b"")]);
    let corpus = read(base.path(), &[""], 0.0).unwrap();
    assert_eq!(texts(&corpus.train), ["c", "z", "b"]);
    assert_eq!(texts(&read(base.path(), &["**/*.txt", "b.txt"], 0.0).unwrap().train), ["c", "b"]);
    assert_eq!(corpus.sources.len(), 3);
    // sha256 of "c".
    assert!(corpus.sources[0].sha256.starts_with("2e7d2c03a9507ae2"), "{}", corpus.sources[0].sha256);
}

/// Catches a split at bytes, which would cut a character, and one that shares or loses text.
#[test]
fn a_single_file_holds_out_its_last_characters() {
    let text = "äöü€😀xyzäö".repeat(10);
    let base = folder(&[("one.txt", text.as_bytes())]);
    let corpus = read(base.path(), &["one.txt"], 0.1).unwrap();
    let (train, held_out) = (&corpus.train[0], &corpus.held_out[0]);
    assert_eq!((train.text.chars().count(), held_out.text.chars().count()), (90, 10));
    assert_eq!(format!("{}{}", train.text, held_out.text), text);
    // The document continues after the training part, so that has no end-of-text token.
    assert_eq!((train.ends, held_out.ends), (false, true));
}

#[test]
fn files_are_held_out_whole_and_equal_files_together() {
    let named: Vec<(String, String)> = (0..40).map(|i| (format!("{i}.txt"), format!("text {}", i / 2))).collect();
    let files: Vec<(&str, &[u8])> = named.iter().map(|(name, text)| (name.as_str(), text.as_bytes())).collect();
    let base = folder(&files);
    let corpus = read(base.path(), &[""], 0.2).unwrap();
    assert_eq!(corpus.held_out.len(), 8);
    // Catches a split by file name or number, where a copy of a held-out text is trained on.
    assert!(corpus.held_out.iter().all(|document| !corpus.train.contains(document)));
    assert_eq!(read(base.path(), &[""], 0.2).unwrap().held_out, corpus.held_out);
    assert_eq!(read(base.path(), &["1*.txt"], 0.01).unwrap().held_out.len(), 2);
}

#[test]
fn evaluation_text_must_not_be_training_text() {
    let base = folder(&[("train.txt", b"one"), ("eval.txt", b"two"), ("copy.txt", b"one")]);
    let path = |name: &str| vec![base.path().join(name).display().to_string()];
    let options = |eval| TextOptions { paths: path("train.txt"), eval_paths: path(eval), held_out: 0.5 };
    let corpus = options("eval.txt").read().unwrap();
    assert_eq!((texts(&corpus.train), texts(&corpus.held_out)), (vec!["one"], vec!["two"]));
    let message = options("copy.txt").read().unwrap_err().to_string();
    assert!(message.contains("copy.txt") && message.contains("train.txt"), "{message}");
}

#[test]
fn unreadable_data_is_refused_by_name_with_a_remedy_and_exit_code_2() {
    let base = folder(&[
        ("latin.txt", b"one\ntwo\xE9\n"),
        ("empty.txt", b""),
        ("tiny.txt", b"ab"),
        ("same/a", b"same"),
        ("same/b", b"same"),
        ("none/.hidden", b"x"),
    ]);
    let cases: [(&str, f64, &[&str]); 9] = [
        ("missing.txt", 0.0, &["missing.txt", "no file or folder"]),
        ("*.json", 0.0, &["*.json", "no file matches"]),
        ("a[", 0.0, &["a[", "not a pattern"]),
        ("latin.txt", 0.0, &["latin.txt", "0xE9", "offset 7", "line 2"]),
        ("empty.txt", 0.0, &["empty.txt", "no text"]),
        ("none", 0.0, &["none", "no text"]),
        ("same", 0.5, &["same", "nothing", "train"]),
        ("tiny.txt", 1.0, &["below 1", "not 1"]),
        ("tiny.txt", -0.1, &["below 1"]),
    ];
    for (path, share, parts) in cases {
        let error = read(base.path(), &[path], share).expect_err(path);
        let shown = error.to_string();
        let parts = parts.iter().filter(|&&part| part != "nothing");
        assert!(parts.clone().all(|part| shown.contains(part)), "{path}: {shown}");
        assert!(error.hint().is_some(), "{path} has no remedy");
        assert_eq!(Error::from(error).exit_code(), 2, "{path}");
    }
}

#[test]
fn fewer_tokens_than_one_sequence_are_refused() {
    let base = folder(&[("short.txt", b"abcdefgh")]);
    let (documents, sources) = read_documents(&[base.path().join("short.txt").display().to_string()]).unwrap();
    let corpus = Corpus { name: "short.txt".into(), train: documents, held_out: Vec::new(), sources };
    let tokenizer = Tokenizer::bytes().unwrap();
    // Eight bytes and the end-of-text token make one sequence of context 8, and none of context 9.
    assert_eq!(corpus.tokenize(&tokenizer, 8, None).unwrap().train.tokens(), 9);
    let message = corpus.tokenize(&tokenizer, 9, None).unwrap_err().to_string();
    assert!(
        message.contains("short.txt") && message.contains("9 tokens") && message.contains("context 9"),
        "{message}"
    );
}

/// Catches a broken link of any kind in a folder of texts that ends the run, although such links are skipped.
#[test]
fn broken_links_in_a_folder_of_texts_are_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("a.txt"), "a text").unwrap();
    let link = |to: std::path::PathBuf, name: &str| std::os::unix::fs::symlink(to, at(name)).unwrap();
    link(at("nothing"), "b.txt");
    link(at("c.txt"), "c.txt");
    link(at("a.txt").join("inside"), "d.txt");
    let texts = |path: std::path::PathBuf| {
        let paths = vec![path.display().to_string()];
        let corpus = crate::data::TextOptions { paths, eval_paths: Vec::new(), held_out: 0.0 }.read().unwrap();
        corpus.sources.len()
    };
    assert_eq!(texts(folder.path().to_owned()), 1);
    assert_eq!(texts(at("*.txt")), 1);
}

/// Catches copies that editors and systems make, in hidden folders or under hidden names, which a pattern would add to the data; and a
/// hidden name that the pattern itself has.
#[test]
fn patterns_skip_hidden_names_that_they_do_not_name() {
    let base = folder(&[
        ("h/a.txt", b"a"),
        ("h/.ipynb_checkpoints/a-checkpoint.txt", b"copy"),
        ("h/._a.txt", b"of macOS"),
        ("h/b/.c.txt", b"c"),
        ("h/b/d.txt", b"d"),
    ]);
    for (pattern, expected) in [
        ("h/**/*.txt", vec!["a", "d"]),
        ("h/*.txt", vec!["a"]),
        ("h/?_a.txt", vec![]),
        ("h/._*.txt", vec!["of macOS"]),
        ("h/**/.c.txt", vec!["c"]),
        ("h/.ipynb_checkpoints/*.txt", vec!["copy"]),
        ("h/.ipynb*/*.txt", vec!["copy"]),
    ] {
        let found = read(base.path(), &[pattern], 0.0);
        match expected.as_slice() {
            [] => assert!(matches!(found, Err(DataError::NoMatch(_))), "{pattern}"),
            expected => assert_eq!(texts(&found.unwrap().train), expected, "{pattern}"),
        }
    }
}
