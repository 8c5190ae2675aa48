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
use crate::inference::saved_model::{BackendChoice, Opened};
use crate::model::files::save::{STORED, Storage, bytes, convert, stored_type};
use crate::model::files::weights::is_adapter;
use crate::model::{Model, ModelConfig};
use crate::setup::named::{model_folder, tokenizer_folder};

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
    /// Of a low-rank adapter: add it to its base, computed by the backend candle, and write the sum.
    #[arg(long)]
    merge_lora: bool,
    /// Print a summary as JSON.
    #[arg(long)]
    json: bool,
}

impl Convert {
    /// Whether it loads a backend.
    pub(in crate::cli) fn calls_plugins(&self) -> bool {
        self.merge_lora
    }
}

pub(in crate::cli) fn execute(args: Convert, folders: Vec<PathBuf>) -> Result<()> {
    let from = model_folder(&args.from)?;
    match (is_adapter(&from), args.merge_lora) {
        (true, false) => {
            let what = format!("{} is an adapter, without the weights of its base", from.display());
            return Err(Error::request(what).with_hint("add --merge-lora to write the sum of both"));
        }
        (false, true) => {
            let what = format!("--merge-lora: {} is a whole model, with nothing to merge", from.display());
            return Err(Error::request(what).with_hint("leave it out, or name an adapter's folder"));
        }
        _ => {}
    }
    // Read before anything is written, so that its errors leave nothing behind.
    let tokenizer = Tokenizer::open(&tokenizer_folder(&from)?)?;
    let storage = Storage { dtype: stored_type(&args.dtype), shard_size: args.shard_size };
    let merged = args.merge_lora.then(|| merged(&from, folders)).transpose()?;
    let created = new_folder(&args.to)?;
    if let Err(error) = write(merged.as_ref(), &from, &args.to, storage, &tokenizer) {
        discard(&args.to, created);
        return Err(error);
    }
    let (files, bytes) = written(&args.to)?;
    print::result(&Converted { from, to: args.to, dtype: args.dtype, files, bytes }, args.json)
}

/// Returns the sum of an adapter and its base, in f32.
fn merged(folder: &Path, folders: Vec<PathBuf>) -> Result<Model> {
    let backend =
        BackendChoice { plugin: "candle".into(), device: "cpu".into(), dtype: "f32".into(), threads: 0, folders };
    let outputs = ModelConfig::from_folder(folder)?.outputs;
    Opened::open_as(folder, &backend, outputs)?.model.merged()
}

fn write(merged: Option<&Model>, from: &Path, to: &Path, storage: Storage, tokenizer: &Tokenizer) -> Result<()> {
    match merged {
        Some(model) => model.save_as(to, storage)?,
        None => convert(from, to, storage)?,
    }
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
