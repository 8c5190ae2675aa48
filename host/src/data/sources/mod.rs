//! The sources of an experiment's data, `data.source`: each in its own file, with its keys and what it yields.

pub mod data_source;
mod held_out;
mod jsonl;
pub mod synthetic;
mod text;

use serde::Serialize;

pub use data_source::DataSource;
pub use held_out::HeldOut;
pub use jsonl::Jsonl;
pub use synthetic::Synthetic;
pub use text::Text;

/// `[data]`. A new source is a file with an implementation of [`DataSource`], and a variant here.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "source", rename_all = "lowercase")]
pub enum Data {
    /// UTF-8 files.
    Text(Text),
    /// Rows of JSON lines, of the kind that the first objective requires.
    Jsonl(Jsonl),
    /// The generated world of small tasks.
    Synthetic(Synthetic),
}

impl Data {
    /// The source.
    pub fn source(&self) -> &dyn DataSource {
        match self {
            Data::Text(text) => text,
            Data::Jsonl(rows) => rows,
            Data::Synthetic(world) => world,
        }
    }
}
