//! Errors of reading and preparing data, with hints for the user.

use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;

use crate::error::Error;

/// The result of reading and preparing data.
pub type Result<T, E = DataError> = std::result::Result<T, E>;

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A failure to find, read or prepare data. The message names the file; [`DataError::hint`] says how to fix it.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// File or folder not found.
    #[error("there is no file or folder {}", .0.display())]
    Missing(PathBuf),
    /// A pattern without a match.
    #[error("no file matches the pattern \"{0}\"")]
    NoMatch(String),
    /// An invalid pattern.
    #[error("\"{pattern}\" is not a pattern of file names")]
    BadPattern {
        /// As written.
        pattern: String,
        /// What is wrong with it, and where.
        source: glob::PatternError,
    },
    /// Neither a file nor a folder: a device, a pipe, a socket.
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// A failed read, write or other operation of the file system.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// "read", "write", "list" ...
        action: &'static str,
        /// The path it failed on.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// Bytes that are not UTF-8 text.
    #[error("{} is not UTF-8 text: byte 0x{byte:02X} at offset {offset} (line {line})", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// The first byte that is not valid UTF-8.
        byte: u8,
        /// Its offset, counted from 0.
        offset: usize,
        /// Its line, counted from 1.
        line: usize,
    },
    /// A file of an unsupported format.
    #[error("{} is {what}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: String,
        /// How to fetch or convert it: the hint.
        remedy: String,
    },
    /// Data without anything to learn.
    #[error("{0} contains no text")]
    Empty(String),
    /// Less text than one sequence of the context length.
    #[error("{what} has {tokens} tokens, fewer than one sequence of context {context} ({} tokens)", context + 1)]
    TooShort {
        /// Which data.
        what: String,
        /// The number of tokens found.
        tokens: u64,
        /// The requested context length.
        context: usize,
    },
    /// A held-out share outside [0, 1).
    #[error("the held-out share must be at least 0 and below 1, not {0}")]
    HeldOutShare(f64),
    /// The held-out side has no target.
    #[error("a held-out share of {share} of {what} leaves nothing to evaluate on")]
    NothingHeldOut {
        /// Which data.
        what: String,
        /// The share as written.
        share: f64,
    },
    /// All data is held out.
    #[error("a held-out share of {share} of {what} leaves nothing to train on")]
    NothingToTrain {
        /// Which data.
        what: String,
        /// The share as written.
        share: f64,
    },
    /// The same text on both sides of the split.
    #[error("{} is both training text and held-out text (the same bytes as {})", held_out.display(), train.display())]
    Overlap {
        /// The file to evaluate on.
        held_out: PathBuf,
        /// The file to train on.
        train: PathBuf,
    },
    /// A tokenizer file that cannot be used.
    #[error("cannot use the tokenizer {name}: {what}")]
    Tokenizer {
        /// Its file, or "bytes".
        name: String,
        /// What is wrong.
        what: String,
        /// The underlying error.
        source: Option<Cause>,
    },
    /// A Git LFS pointer instead of a file.
    #[error("{} is a Git LFS pointer and not the file itself: it was cloned without Git LFS", .0.display())]
    LfsPointer(PathBuf),
    /// A file or folder that is not of the expected kind.
    #[error("{}: {what}", path.display())]
    Unusable {
        /// The file or folder.
        path: PathBuf,
        /// What it is, or what is wrong with it.
        what: String,
        /// How to fix it.
        remedy: String,
        /// The underlying error.
        source: Option<Cause>,
    },
    /// A token of the tokenizer for which the model has no row.
    #[error("the text contains the token \"{token}\" (id {id}), but the model's vocabulary has {rows} tokens")]
    OutsideModel {
        /// Its text.
        token: String,
        /// Its id.
        id: u32,
        /// The number of tokens that the model has rows for.
        rows: u32,
    },
    /// A tokenizer without an end-of-text token.
    #[error("the tokenizer {0} has no end-of-text token, so the ends of documents cannot be marked")]
    NoEndOfText(String),
    /// A vocabulary too small to hold the bytes.
    #[error("a byte-level vocabulary needs at least {least} tokens (256 bytes and <|endoftext|>), not {requested}")]
    VocabularyTooSmall {
        /// The requested size.
        requested: usize,
        /// The smallest possible size, 257.
        least: usize,
    },
    /// A window or batch in which no token is supervised: its mean loss would be 0/0.
    #[error("none of the {tokens} tokens of {what} is supervised")]
    NothingSupervised {
        /// Which batch.
        what: String,
        /// How many tokens it holds.
        tokens: usize,
    },
    /// A sequence without a target.
    #[error("row {row} has {tokens} tokens; a sequence needs at least two, one to read and one to predict")]
    NoTarget {
        /// The row's index in its data set.
        row: u64,
        /// How many tokens it has.
        tokens: usize,
    },
    /// Rows that are inconsistent, alone or with one another.
    #[error("row {row}: {what}")]
    Row {
        /// The row's index in its data set.
        row: u64,
        /// What is wrong.
        what: String,
    },
    /// A row of a file that cannot be used.
    #[error("{place}: {}{what}", named(key))]
    Json {
        /// File and line.
        place: super::place::Place,
        /// The key within the row; empty for the whole row.
        key: String,
        /// What is wrong.
        what: String,
    },
    /// A chat template that cannot be read.
    #[error("the chat template cannot be used: {0}")]
    Template(String),
    /// No usable row to train on.
    #[error("no row of {what} is left to {purpose} on within {longest} tokens: {counts}")]
    NoRowLeft {
        /// Which data.
        what: String,
        /// "train" or "evaluate".
        purpose: &'static str,
        /// The most positions of a row.
        longest: usize,
        /// How many rows were dropped, and why.
        counts: Box<super::rows::counts::RowCounts>,
    },
    /// One side of the data has no rows.
    #[error("{what} has no row{}", if *is_of_command { String::new() } else { format!(" to {purpose} on") })]
    NoRow {
        /// Which data.
        what: String,
        /// "train" or "evaluate".
        purpose: &'static str,
        /// Whether a command reads it, and no experiment.
        is_of_command: bool,
    },
    /// A renamed column that no row has.
    #[error("no row of {what} has a column \"{written}\", which {key} names")]
    NoColumn {
        /// Which data.
        what: String,
        /// Its name in the experiment.
        written: String,
        /// The key of the experiment that names it.
        key: String,
    },
    /// An option with an invalid value.
    #[error("{0}")]
    Option(String),
    /// A checkpoint's place in the data does not fit the data.
    #[error("cannot resume the data order: {0}")]
    Resume(String),
}

impl DataError {
    /// How to fix it, if there is a general way.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Missing(_) => "check the path's spelling; a relative path starts at the current folder",
            Self::NoMatch(_) => {
                "`*` stands for names within a folder, `**/` for folders in between: try \"texts/**/*.txt\""
            }
            Self::BadPattern { .. } => "write `[` and `]` around a set of characters, `**` only as a whole folder name",
            Self::NotAFile(_) => {
                "name a regular file, a folder or a pattern; first write the output of a pipe or a device to a file, because data \
                 is \
                 read more than once and hashed"
            }
            Self::NotUtf8 { .. } => {
                "convert the file (`iconv -f LATIN1 -t UTF-8 IN > OUT`), or choose the text files of a folder by a pattern such as \"texts/**/*.txt\""
            }
            Self::Format { remedy, .. } => remedy,
            Self::Empty(_) => "name a file with text in it",
            Self::TooShort { .. } => "give more text, or a smaller context",
            Self::HeldOutShare(_) => "0.1 holds out a tenth",
            Self::NothingHeldOut { .. } => {
                "hold out a larger share, give more text or rows, or name a separate file to evaluate on (data.eval_path); rows \
                 with the same prompt stay on one side, so a few prompts cannot be split by a share"
            }
            Self::NothingToTrain { .. } => {
                "hold out a smaller share, give more text or rows, or name a separate file to evaluate on (data.eval_path); rows \
                 with the same prompt stay on one side, so a few prompts cannot be split by a share"
            }
            Self::Overlap { .. } => "evaluate on text that is not trained on, or hold out a share of the training text",
            // Without an underlying error, the file has the form of a tokenizer.json.
            Self::Tokenizer { source: None, .. } => "correct the file, or use another tokenizer",
            Self::Tokenizer { .. } => {
                "give a tokenizer.json of the Hugging Face tokenizers library, or a folder that contains one"
            }
            Self::LfsPointer(_) => "run `git lfs pull` in the folder it was cloned into",
            Self::Unusable { remedy, .. } => remedy,
            Self::OutsideModel { .. } => {
                "remove the token from the text, or use a model whose embedding has a row for it"
            }
            Self::NoEndOfText(_) => "put a tokenizer_config.json with \"eos_token\" beside tokenizer.json",
            Self::VocabularyTooSmall { .. } => "request a larger vocabulary, or use the tokenizer \"bytes\"",
            Self::Resume(_) => "resume with the data and options the run began with, or start a new run",
            Self::Template(_) => "give data.chat_template a file of Jinja, Jinja itself, \"plain\" or \"tokenizer\"",
            Self::NoRowLeft { counts, .. } if counts.dropped_no_segment > 0 => {
                "raise data.max_length or model.context, cut prompts by data.truncation = \"left\", or split the answers into \
                 shorter segments"
            }
            Self::NoRowLeft { counts, .. } if counts.filtered.values().sum::<usize>() > counts.dropped_too_long => {
                "widen the limits of data.filter (of a command: --min-tokens and the like) that drop the rows, or remove them"
            }
            Self::NoRowLeft { counts, .. } if counts.dropped_too_long == 0 && counts.dropped_unlearned > 0 => {
                "give the answers to learn `weight`: 1, or remove the key"
            }
            Self::NoRowLeft { counts, .. } if counts.dropped_too_long == 0 => {
                "check the rows: their answers are empty, or both the same"
            }
            Self::NoRowLeft { .. } => "raise data.max_length, or cut prompts by data.truncation = \"left\"",
            Self::NoRow { is_of_command: true, .. } => {
                "name files with rows: a row in each line, or a list of rows: {\"prompt\": ..., \"completion\": ...}"
            }
            Self::NoRow { .. } => "check data.path, data.eval_path and data.split_column",
            Self::NoColumn { .. } => "name an existing column, or remove the key",
            Self::Json { .. }
            | Self::Io { .. }
            | Self::NothingSupervised { .. }
            | Self::NoTarget { .. }
            | Self::Row { .. }
            | Self::Option(_) => {
                return None;
            }
        };
        Some(hint.to_owned())
    }

    /// Ends the command with this error, from a place that cannot return it; see [`DataError::caught`].
    pub fn raise(self) -> ! {
        panic::resume_unwind(Box::new(self))
    }

    /// Runs a command; an error that is raised in the middle of it is a failure of the run.
    ///
    /// # Errors
    /// Those of the command, and raised ones.
    pub fn caught<T>(command: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        let panic = match panic::catch_unwind(AssertUnwindSafe(command)) {
            Ok(done) => return done,
            Err(panic) => panic,
        };
        let error = panic.downcast::<DataError>().unwrap_or_else(|other| panic::resume_unwind(other));
        let mut host = Error::run(error.to_string());
        if let Some(hint) = error.hint() {
            host = host.with_hint(hint);
        }
        Err(match error.into_cause() {
            Some(cause) => host.with_cause(cause),
            None => host,
        })
    }

    fn into_cause(self) -> Option<Cause> {
        match self {
            Self::BadPattern { source, .. } => Some(source.into()),
            Self::Io { source, .. } => Some(source.into()),
            Self::Tokenizer { source, .. } | Self::Unusable { source, .. } => source,
            _ => None,
        }
    }

    pub(crate) fn io(action: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> DataError {
        let path = path.to_owned();
        move |source| DataError::Io { action, path, source }
    }
}

/// Wrong data is a request error; only a batch without a target is a failure of the run itself.
impl From<DataError> for Error {
    fn from(error: DataError) -> Error {
        let message = error.to_string();
        let mut host = match error {
            DataError::NothingSupervised { .. } | DataError::NoTarget { .. } => Error::run(message),
            _ => Error::request(message),
        };
        if let Some(hint) = error.hint() {
            host = host.with_hint(hint);
        }
        match error.into_cause() {
            Some(cause) => host.with_cause(cause),
            None => host,
        }
    }
}

/// `key: `, if there is a key.
fn named(key: &str) -> String {
    if key.is_empty() { String::new() } else { format!("`{key}`: ") }
}
