//! The source `text`: UTF-8 files.

use plugin_api::manifest::DataKind;
use serde::Serialize;

use super::{
    data_source::DataSource,
    files::{self, HeldOut},
};
use crate::data::{
    corpus::Corpus,
    error::{DataError, Result},
    rows::{RowCorpus, RowKind},
    text::TextOptions,
};
use crate::keys::notes::Notes;

/// UTF-8 files.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Text {
    /// Files, folders or globs.
    pub path: Vec<String>,
    /// What to evaluate on.
    #[serde(flatten)]
    pub held_out: HeldOut,
}

impl DataSource for Text {
    fn has_rows(&self, _kind: RowKind) -> bool {
        false
    }

    fn usual_kind(&self) -> DataKind {
        DataKind::TEXT
    }

    fn unused(&self, _kind: Option<RowKind>) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    fn holds_out(&self) -> bool {
        !self.held_out.is_nothing()
    }

    fn text(&self, _seed: u64) -> Result<Corpus> {
        let (eval_paths, held_out) = match &self.held_out {
            HeldOut::Fraction { held_out } => (Vec::new(), *held_out),
            HeldOut::Files { eval_path } => (eval_path.clone(), 0.0),
            HeldOut::Column { .. } => return Err(DataError::Option("running text has no columns".into())),
        };
        TextOptions { paths: self.path.clone(), eval_paths, held_out }.read()
    }

    fn rows(&self, _kind: RowKind, _seed: u64) -> Result<RowCorpus> {
        Err(DataError::Option("running text has no rows".into()))
    }
}

/// Resolves the keys of files.
pub fn resolve(written: &files::Written, notes: &mut Notes<'_>) -> Text {
    let path = files::path(written, "text", "corpus/*.txt", notes);
    Text { path, held_out: files::held_out(written, None, notes) }
}
