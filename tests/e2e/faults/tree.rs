//! The content of a folder of runs, without what may differ between equal runs.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

/// The content of every file, by its relative path.
#[derive(Debug, Clone)]
pub struct Tree(BTreeMap<String, Vec<u8>>);

impl Tree {
    /// Reads `folder`. Left out are locks, files with times, and temporary files of the token cache.
    pub fn read(folder: &Path) -> Tree {
        let files = files_below(folder).into_iter().filter(|name| !is_passing(name));
        Tree(
            files
                .map(|name| (name.clone(), comparable(&name, fs::read(folder.join(&name)).unwrap_or_default())))
                .collect(),
        )
    }

    /// The differences from the expected files.
    pub fn differences(&self, expected: &Tree) -> Differences {
        let mut found = Differences::default();
        for (name, bytes) in &self.0 {
            match expected.0.get(name) {
                // Recomputed under another name, because a file of a model could not be read when the name was computed.
                None if name.starts_with(".cache/") => {}
                None if is_left(name) => found.left.push(name.clone()),
                None => found.real.push(format!("{name} is too much")),
                Some(other) if other != bytes => found.real.push(format!("{name} differs{}", first_line(bytes, other))),
                Some(_) => {}
            }
        }
        // A run does without its cache if the cache cannot be written.
        let needed = expected.0.keys().filter(|name| !name.starts_with(".cache/"));
        let missing = needed.filter(|name| !self.0.contains_key(*name));
        found.real.extend(missing.map(|name| format!("{name} is missing")));
        found
    }

    /// A file's content, if it is there.
    pub fn file(&self, name: &str) -> Option<&[u8]> {
        self.0.get(name).map(Vec::as_slice)
    }

    /// Without the file of this name.
    pub fn without(&self, name: &str) -> Tree {
        let mut files = self.0.clone();
        files.remove(name);
        Tree(files)
    }
}

/// How files differ from expected ones.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// Files with other bytes, missing files, and unexpected files.
    pub real: Vec<String>,
    /// Temporary files that remain, and checkpoints that would have been removed.
    pub left: Vec<String>,
}

impl Differences {
    /// Whether the files are the same, ignoring files that remain.
    pub fn none(&self) -> bool {
        self.real.is_empty()
    }

    /// Whether only a checkpoint is missing, and BEST if it named that checkpoint.
    pub fn lacks_only_a_checkpoint(&self) -> bool {
        let lacks = |line: &String| {
            line.contains("/checkpoints/BEST ") || line.contains("/checkpoints/step-") && line.ends_with(" is missing")
        };
        self.real.iter().all(lacks)
    }

    /// Whether only caches of the folder of runs differ.
    pub fn lacks_only_caches(&self) -> bool {
        self.real.iter().all(|line| line.starts_with(".cache/"))
    }
}

/// The files below a folder, as sorted relative paths.
pub fn files_below(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(place) = folders.pop() {
        for entry in fs::read_dir(&place).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            } else if let Ok(path) = entry.path().strip_prefix(folder) {
                found.push(path.to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}

/// Copies a folder with everything in it.
pub fn copy(from: &Path, to: &Path) {
    for name in files_below(from) {
        let target: PathBuf = to.join(&name);
        fs::create_dir_all(target.parent().expect("a folder")).expect("a folder");
        fs::copy(from.join(&name), target).expect("a copy");
    }
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn is_passing(name: &str) -> bool {
    let file = file_name(name);
    let with_times = ["timing.jsonl", "about.json", "end.json", "report.html"];
    let locks = [".lock", ".plugins.lock"];
    with_times.contains(&file) || locks.contains(&file) || name.starts_with(".cache/") && file.starts_with('.')
}

/// Whether no result depends on a file: a temporary one, one that is being removed, or one of an older checkpoint.
fn is_left(name: &str) -> bool {
    let below = name.split_once("/checkpoints/").map_or("", |(_, below)| below);
    file_name(name).starts_with(".tmp") || below.starts_with(".removed-") || below.starts_with("step-")
}

/// A file's bytes for comparison: only the name for pointers, and a receipt without its command line, which may have `--resume`.
fn comparable(name: &str, bytes: Vec<u8>) -> Vec<u8> {
    let file = file_name(name);
    if ["LATEST", "BEST"].contains(&file) {
        return String::from_utf8_lossy(&bytes).trim().into();
    }
    let Some(mut value) = (file == "receipt.json").then(|| serde_json::from_slice::<Value>(&bytes).ok()).flatten()
    else {
        return bytes;
    };
    match value.get_mut("command") {
        Some(command) => *command = Value::Null,
        None => return bytes,
    }
    value.to_string().into_bytes()
}

/// The first line in which two texts differ.
fn first_line(ours: &[u8], theirs: &[u8]) -> String {
    let (Ok(ours), Ok(theirs)) = (std::str::from_utf8(ours), std::str::from_utf8(theirs)) else { return String::new() };
    let (ours, theirs): (Vec<&str>, Vec<&str>) = (ours.lines().collect(), theirs.lines().collect());
    let at = ours.iter().zip(&theirs).take_while(|(a, b)| a == b).count();
    let line = |lines: &[&str]| lines.get(at).map_or("the end".to_owned(), |line| line.chars().take(200).collect());
    format!(" at line {}: {} where {} is expected", at + 1, line(&ours), line(&theirs))
}
