//! `telos tokenizer`.

use std::fmt;
use std::path::PathBuf;

use clap::Subcommand;
use serde::Serialize;

use crate::cli::out::check_new;
use crate::cli::print;
use crate::data::{self, text::read_documents};
use crate::decimals::counted;
use crate::error::{Error, Result};
use crate::runs::disk::write_durably;

/// Train tokenizers.
#[derive(Debug, Subcommand)]
pub enum Tokenizer {
    /// Train a byte-level BPE tokenizer on text and write it as a tokenizer.json.
    Train {
        /// UTF-8 files, folders or globs.
        #[arg(required = true, value_name = "FILE")]
        data: Vec<String>,
        /// Number of tokens in total: the 256 bytes, the end-of-text token, and merges.
        #[arg(long, value_name = "N", value_parser = vocab_size)]
        vocab_size: usize,
        /// Where to write the tokenizer.json; must not exist yet.
        #[arg(long, value_name = "PATH")]
        out: PathBuf,
        /// Print a summary as JSON.
        #[arg(long)]
        json: bool,
    },
}

/// The request of `telos tokenizer train`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrainTokenizerRequest {
    /// Files, folders or globs; at least one.
    pub data: Vec<String>,
    /// Number of tokens in total, at least 257.
    pub vocab_size: usize,
    /// Where to write the tokenizer.json.
    pub out: PathBuf,
    /// Whether the answer is printed as JSON.
    pub json: bool,
}

pub(in crate::cli) fn execute(args: Tokenizer) -> Result<()> {
    let Tokenizer::Train { data, vocab_size, out, json } = args;
    perform(TrainTokenizerRequest { data, vocab_size, out, json })
}

/// Trains the tokenizer, writes it and prints a summary.
fn perform(request: TrainTokenizerRequest) -> Result<()> {
    check_new("--out", &request.out)?;
    let (documents, sources) = read_documents(&request.data)?;
    let tokenizer = data::Tokenizer::train(&documents, request.vocab_size)?;
    let json = tokenizer.files().find(|(name, _)| *name == "tokenizer.json").map(|(_, bytes)| bytes);
    let json = json.ok_or_else(|| Error::run("the tokenizer has no tokenizer.json"))?;
    write_durably(&request.out, json)?;
    let bytes: u64 = sources.iter().map(|s| s.bytes).sum();
    let tokens: usize =
        documents.iter().map(|d| tokenizer.encode(&d.text).map(|ids| ids.len())).sum::<Result<_, _>>()?;
    let trained = Trained { out: request.out, vocab_size: tokenizer.vocab_size(), files: sources.len(), bytes, tokens };
    print::result(&trained, request.json)
}

/// The summary.
#[derive(Debug, Serialize)]
struct Trained {
    out: PathBuf,
    vocab_size: usize,
    files: usize,
    bytes: u64,
    tokens: usize,
}

impl fmt::Display for Trained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Trained { out, vocab_size, files, bytes, tokens } = self;
        let ratio = *bytes as f64 / (*tokens).max(1) as f64;
        writeln!(
            f,
            "{vocab_size} tokens, trained on {bytes} bytes in {} ({ratio:.2} bytes per token)",
            counted(*files, "file")
        )?;
        write!(f, "wrote {}", out.display())
    }
}

fn vocab_size(text: &str) -> Result<usize, String> {
    let valid = text.parse().ok().filter(|size| (257..=1 << 24).contains(size));
    valid.ok_or_else(|| "expected an integer from 257 (256 bytes and the end of text) to 16777216".to_owned())
}
