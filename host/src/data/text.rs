//! The source `text`: UTF-8 files, folders and patterns; each file is a document. Held-out text never overlaps with
//! training text.

use std::collections::BTreeSet;
use std::fs::{self, FileType};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::cache::hex;
use super::corpus::Corpus;
use super::document::Document;
use super::error::{DataError, Result};
use super::hub;
use super::reading::described::{describes, is_hidden};
use super::reading::format;
use super::reading::format::running_text::{check_learned_text, check_running_text};
use super::source::Source;
use crate::files;

/// Where text comes from and how much of it is held out.
#[derive(Clone, Debug, PartialEq)]
pub struct TextOptions {
    /// Files, folders (searched recursively, without hidden names) or patterns, as written.
    pub paths: Vec<String>,
    /// Text to evaluate on, in the same forms; if empty, `held_out` decides.
    pub eval_paths: Vec<String>,
    /// The held-out share, in [0, 1): the last characters of a single file; whole files if there are several,
    /// chosen by the hash of their bytes. Not used if `eval_paths` is given.
    pub held_out: f64,
}

/// A file that was read and checked.
struct TextFile {
    source: Source,
    text: String,
}

impl TextOptions {
    /// Reads, checks and splits the text.
    ///
    /// # Errors
    /// A path without a file, a pattern without a match, empty or non-UTF-8 text, a file of rows, a split that leaves a side
    /// empty, and the same text on both sides.
    pub fn read(&self) -> Result<Corpus> {
        if !(0.0..1.0).contains(&self.held_out) {
            return Err(DataError::HeldOutShare(self.held_out));
        }
        let name = self.paths.join(", ");
        let train = read_files(&self.paths)?;
        let eval = if self.eval_paths.is_empty() { Vec::new() } else { read_files(&self.eval_paths)? };
        let mut all = train.iter().chain(&eval);
        all.try_for_each(|file| check_learned_text(&file.source.path, &file.text))?;
        let sources = |files: &[TextFile]| files.iter().map(|file| file.source.clone()).collect::<Vec<_>>();
        check_disjoint(&sources(&train), &sources(&eval))?;
        let sources = train.iter().chain(&eval).map(|file| file.source.clone()).collect();
        let (train, held_out) = if !eval.is_empty() || self.held_out == 0.0 {
            (documents(train), documents(eval))
        } else {
            split(&name, train, self.held_out)?
        };
        Ok(Corpus { name, train, held_out, sources })
    }
}

/// Reads every file of `paths` as a whole document, without a split: for evaluation and for training a tokenizer.
pub fn read_documents(paths: &[String]) -> Result<(Vec<Document>, Vec<Source>)> {
    let files = read_files(paths)?;
    files.iter().try_for_each(|file| check_learned_text(&file.source.path, &file.text))?;
    let sources = files.iter().map(|file| file.source.clone()).collect();
    Ok((documents(files), sources))
}

/// As [`read_documents`], but only for files that hold nothing but running text: used to measure a model's loss.
///
/// # Errors
/// Those of reading; a file of rows, a table or an experiment, because the loss would include its syntax.
pub fn read_running_text(paths: &[String]) -> Result<(Vec<Document>, Vec<Source>)> {
    let files = read_files(paths)?;
    files.iter().try_for_each(|file| check_running_text(&file.source.path, &file.text))?;
    let sources = files.iter().map(|file| file.source.clone()).collect();
    Ok((documents(files), sources))
}

fn documents(files: Vec<TextFile>) -> Vec<Document> {
    files.into_iter().map(|file| Document { text: file.text, ends: true }).collect()
}

fn split(name: &str, mut files: Vec<TextFile>, share: f64) -> Result<(Vec<Document>, Vec<Document>)> {
    let (train, held_out) = match files.pop() {
        Some(file) if files.is_empty() => split_text(file.text, share),
        last => split_files(files.into_iter().chain(last).collect(), share),
    };
    let what = name.to_owned();
    match (train.is_empty(), held_out.is_empty()) {
        (true, _) => Err(DataError::NothingToTrain { what, share }),
        (_, true) => Err(DataError::NothingHeldOut { what, share }),
        _ => Ok((train, held_out)),
    }
}

/// Holds out the last `share` of the characters, rounded up.
fn split_text(mut text: String, share: f64) -> (Vec<Document>, Vec<Document>) {
    let kept = (text.chars().count() as f64 * (1.0 - share)) as usize;
    let cut = text.char_indices().nth(kept).map_or(text.len(), |(offset, _)| offset);
    let tail = text.split_off(cut);
    // The training part stops in the middle of the document, so it gets no end-of-text token.
    let side = |text: String, ends| {
        if text.is_empty() { Vec::new() } else { vec![Document { text, ends }] }
    };
    (side(text, false), side(tail, true))
}

/// Holds out the files with the smallest content hashes: at least one. Files with equal content stay together.
fn split_files(files: Vec<TextFile>, share: f64) -> (Vec<Document>, Vec<Document>) {
    let wanted = ((files.len() as f64 * share).round() as usize).max(1);
    let mut hashes: Vec<String> = files.iter().map(|file| file.source.sha256.clone()).collect();
    hashes.sort_unstable();
    let last = hashes.into_iter().nth(wanted - 1).unwrap_or_default();
    let (held_out, train) = files.into_iter().partition(|file| file.source.sha256 <= last);
    (documents(train), documents(held_out))
}

/// Checks that no file to evaluate on has the bytes of one to train on.
///
/// # Errors
/// Such a file.
pub(super) fn check_disjoint(train: &[Source], eval: &[Source]) -> Result<()> {
    for held_out in eval {
        if let Some(same) = train.iter().find(|file| file.sha256 == held_out.sha256) {
            return Err(DataError::Overlap { held_out: held_out.path.clone(), train: same.path.clone() });
        }
    }
    Ok(())
}

/// Returns the texts of all files, in the order of [`find_files`]. Empty files among others are left out.
fn read_files(paths: &[String]) -> Result<Vec<TextFile>> {
    let mut files = find_files(paths, false)?.into_iter().map(read_file).collect::<Result<Vec<_>>>()?;
    files.retain(|file| !file.text.is_empty());
    if files.is_empty() {
        return Err(DataError::Empty(paths.join(", ")));
    }
    Ok(files)
}

/// Returns the files that `paths` stand for, in their order and sorted by path within each; a file named twice occurs once.
/// `rows`: of a folder without files that describe a data set and hold no rows of it.
///
/// # Errors
/// A path without a file; a pattern without a match.
pub(super) fn find_files(paths: &[String], rows: bool) -> Result<Vec<PathBuf>> {
    let (mut files, mut seen) = (Vec::new(), BTreeSet::new());
    for path in paths.iter().map(|path| find(path, rows)).collect::<Result<Vec<_>>>()?.into_iter().flatten() {
        let identity = fs::canonicalize(&path).map_err(DataError::io("find", &path))?;
        if seen.insert(identity) {
            files.push(path);
        }
    }
    Ok(files)
}

fn read_file(path: PathBuf) -> Result<TextFile> {
    let bytes = files::read(&path).map_err(DataError::io("read", &path))?;
    let source = Source { path: path.clone(), bytes: bytes.len() as u64, sha256: hex(&Sha256::digest(&bytes)) };
    Ok(TextFile { source, text: format::text(&path, bytes)? })
}

/// Returns the files that one path stands for. If a file with exactly this name exists, the path is not treated as
/// a pattern.
fn find(path: &str, rows: bool) -> Result<Vec<PathBuf>> {
    if let Some(files) = hub::data(path)? {
        return Ok(files);
    }
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => {
            let (mut files, mut folders) = (Vec::new(), BTreeSet::new());
            walk(Path::new(path), &mut folders, &mut files)?;
            files.retain(|file| !(rows && describes(file)));
            files.sort();
            Ok(files)
        }
        Ok(found) if found.is_file() => Ok(vec![path.into()]),
        Ok(_) => Err(DataError::NotAFile(path.into())),
        Err(error) if error.kind() == ErrorKind::NotFound && path.contains(['*', '?', '[']) => matches(path),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(DataError::Missing(path.into())),
        Err(error) => Err(DataError::io("read", Path::new(path))(error)),
    }
}

fn matches(pattern: &str) -> Result<Vec<PathBuf>> {
    let found = glob::glob(pattern).map_err(|source| DataError::BadPattern { pattern: pattern.into(), source })?;
    let mut files = Vec::new();
    for path in found {
        let path = match path {
            Err(error) if is_hidden(error.path(), pattern) => continue,
            Err(error) => {
                let path = error.path().to_owned();
                return Err(DataError::io("list", &path)(error.into()));
            }
            Ok(path) => path,
        };
        if !is_hidden(&path, pattern) && kind(&path)?.is_some_and(|kind| kind.is_file()) {
            files.push(path);
        }
    }
    if files.is_empty() { Err(DataError::NoMatch(pattern.into())) } else { Ok(files) }
}

/// Finds every file below `folder` except hidden ones. `folders` holds the visited folders, so that links cannot
/// form a cycle.
fn walk(folder: &Path, folders: &mut BTreeSet<PathBuf>, files: &mut Vec<PathBuf>) -> Result<()> {
    if !folders.insert(fs::canonicalize(folder).map_err(DataError::io("find", folder))?) {
        return Ok(());
    }
    for entry in fs::read_dir(folder).map_err(DataError::io("list", folder))? {
        let entry = entry.map_err(DataError::io("list", folder))?;
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        match kind(&path)? {
            Some(kind) if kind.is_dir() => walk(&path, folders, files)?,
            Some(kind) if kind.is_file() => files.push(path),
            _ => {}
        }
    }
    Ok(())
}

/// The type of a path, following links; `None` for a broken link, also one that leads to itself or through a file.
fn kind(path: &Path) -> Result<Option<FileType>> {
    match fs::metadata(path) {
        Ok(found) => Ok(Some(found.file_type())),
        Err(error) if is_broken_link(&error) => Ok(None),
        Err(error) => Err(DataError::io("read", path)(error)),
    }
}

fn is_broken_link(error: &std::io::Error) -> bool {
    let is_loop = error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error());
    is_loop || matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}
