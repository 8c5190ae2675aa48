//! Random changes to the project's experiments.

use std::fs;
use std::path::PathBuf;

use crate::config::draft::Draft;
use crate::data::fuzz;
use crate::data::reading::guard;

/// Pieces of experiments.
const WORDS: [&str; 20] = [
    "[model]",
    "[[objective]]",
    "[[stage]]",
    "name = ",
    "lr = 1e999",
    " = {",
    " = [",
    "\"\"\"",
    "'''",
    "inf",
    "nan",
    "2026-01-01",
    "a.b.c.d = 1\n",
    "[a.b.c.d]\n",
    "\\u0000",
    "#",
    "\n",
    "plugin = \"ce\"\n",
    "stage:x",
    "0x",
];

/// Catches a panic, a stack that overflows or a parse that never ends for changed experiments, and an error without
/// a message.
#[test]
fn gotcha_63_changed_experiments_are_read_or_refused() {
    let folder: PathBuf = [env!("CARGO_MANIFEST_DIR"), "..", "experiments"].iter().collect();
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|ending| ending == "toml"));
    let mut corpus: Vec<Vec<u8>> = files.map(|path| fs::read(path).unwrap()).collect();
    corpus.sort();
    assert!(corpus.len() > 5);
    fuzz::run("experiments", if cfg!(debug_assertions) { 500 } else { 2000 }, move |random| {
        let bytes = fuzz::mutated(random, &corpus, &WORDS);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        match guard::caught(|| Draft::parse("x.toml", "x", &text, &[]).and_then(Draft::finish)) {
            Ok(Ok(_)) => Ok("read"),
            Ok(Err(error)) if error.to_string().is_empty() => Err(format!("an empty error for {text:?}")),
            Ok(Err(_)) => Ok("refused"),
            Err(panic) => Err(format!("panics with {panic:?} at {text:?}")),
        }
    });
}
