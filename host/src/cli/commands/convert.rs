//! `telos convert`.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::PossibleValuesParser;
use serde::Serialize;

use crate::cli::print;
use crate::data::Tokenizer;
use crate::error::{Error, Result};
use crate::model::files::save::{STORED, Storage, bytes, convert, stored_type};
use crate::setup::named::model_folder;

/// Write a model as a Hugging Face folder, which transformers and llama.cpp's converter read.
///
/// The folder gets config.json with all keys of the original, generation_config.json, the tokenizer's files with the chat template,
/// and the weights as safetensors.
#[derive(Debug, Args)]
pub struct Convert {
    /// A run, a checkpoint, a Hugging Face folder, a GGUF file or a model of the hub (hf:org/name).
    #[arg(value_name = "IN")]
    from: PathBuf,
    /// The folder to write; must not exist yet, or be empty.
    #[arg(value_name = "OUT")]
    to: PathBuf,
    /// Type of the stored weights.
    #[arg(long, default_value = "f32", value_parser = PossibleValuesParser::new(STORED.map(|(name, _)| name)))]
    dtype: String,
    /// Split the weights over files of at most this size, such as 5GB.
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    shard_size: Option<u64>,
    /// Print a summary as JSON.
    #[arg(long)]
    json: bool,
}

pub(in crate::cli) fn execute(args: Convert) -> Result<()> {
    let from = model_folder(&args.from)?;
    // Read before anything is written, so that its errors leave nothing behind.
    let tokenizer = Tokenizer::open(&from)?;
    let created = new_folder(&args.to)?;
    let storage = Storage { dtype: stored_type(&args.dtype), shard_size: args.shard_size };
    if let Err(error) = write(&from, &args.to, storage, &tokenizer) {
        discard(&args.to, created);
        return Err(error);
    }
    let (files, bytes) = written(&args.to)?;
    print::result(&Converted { from, to: args.to, dtype: args.dtype, files, bytes }, args.json)
}

fn write(from: &Path, to: &Path, storage: Storage, tokenizer: &Tokenizer) -> Result<()> {
    convert(from, to, storage)?;
    tokenizer.save(to)?;
    Ok(())
}

/// Creates the folder and returns whether it was missing.
///
/// # Errors
/// A request error if something is in it, or it cannot be created.
fn new_folder(path: &Path) -> Result<bool> {
    let fail = |e| Error::request(format!("OUT: {} cannot be created", path.display())).with_cause(e);
    let Ok(mut entries) = fs::read_dir(path) else { return fs::create_dir(path).map(|()| true).map_err(fail) };
    if entries.next().is_none() {
        return Ok(false);
    }
    let message = format!("OUT: {} is not empty", path.display());
    Err(Error::request(message).with_hint("name a new folder, or empty this one first"))
}

/// Removes what was written into a folder that was empty, and the folder if it was `created`.
fn discard(path: &Path, created: bool) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        let file = entry.path();
        _ = if file.is_dir() { fs::remove_dir_all(file) } else { fs::remove_file(file) };
    }
    if created {
        _ = fs::remove_dir(path);
    }
}

/// Number and size of the files in a folder.
fn written(path: &Path) -> Result<(usize, u64)> {
    let fail = |e| Error::run(format!("cannot list {}", path.display())).with_cause(e);
    let (mut files, mut bytes) = (0, 0);
    for entry in fs::read_dir(path).map_err(fail)? {
        let data = entry.and_then(|entry| entry.metadata()).map_err(fail)?;
        if data.is_file() {
            (files, bytes) = (files + 1, bytes + data.len());
        }
    }
    Ok((files, bytes))
}

/// The summary.
#[derive(Debug, Serialize)]
struct Converted {
    from: PathBuf,
    to: PathBuf,
    dtype: String,
    files: usize,
    bytes: u64,
}

impl fmt::Display for Converted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Converted { from, to, dtype, files, bytes } = self;
        write!(f, "{} -> {}: weights in {dtype}, {files} files, {bytes} bytes", from.display(), to.display())
    }
}
