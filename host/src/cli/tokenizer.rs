//! `telos tokenizer`.

use std::path::PathBuf;

use clap::Subcommand;

use crate::error::{Error, Result};

/// Train tokenizers.
#[derive(Debug, Subcommand)]
pub enum Tokenizer {
    /// Train a byte-level BPE tokenizer on text and write it as a tokenizer.json.
    Train {
        /// UTF-8 files, folders or globs.
        #[arg(required = true, value_name = "FILE")]
        data: Vec<String>,
        /// Tokens in all: the 256 bytes, the end of text, and merges.
        #[arg(long, value_name = "N", value_parser = vocab_size)]
        vocab_size: usize,
        /// Where to write the tokenizer.json.
        #[arg(long, value_name = "PATH")]
        out: PathBuf,
        /// Print what was trained as JSON.
        #[arg(long)]
        json: bool,
    },
}

/// What `telos tokenizer train` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrainTokenizerRequest {
    /// Files, folders or globs; at least one.
    pub data: Vec<String>,
    /// Tokens in all, at least 257.
    pub vocab_size: usize,
    /// Where to write the tokenizer.json.
    pub out: PathBuf,
    /// Whether the answer is printed as JSON.
    pub json: bool,
}

pub(super) fn execute(args: Tokenizer) -> Result<()> {
    let Tokenizer::Train { data, vocab_size, out, json } = args;
    perform(TrainTokenizerRequest { data, vocab_size, out, json })
}

/// Trains the tokenizer and prints what was written.
fn perform(_request: TrainTokenizerRequest) -> Result<()> {
    Err(Error::run("not wired in this build: tokenizer train"))
}

fn vocab_size(text: &str) -> Result<usize, String> {
    let valid = text.parse().ok().filter(|size| (257..=1 << 24).contains(size));
    valid.ok_or_else(|| "expected an integer from 257 (256 bytes and the end of text) to 16777216".to_owned())
}
