//! The names of columns.

use std::collections::BTreeMap;

/// The file's names for the columns that have a meaning here: `prompt` = "question". If the file also has its own
/// column of the meaningful name, that column is dropped.
pub type Columns = BTreeMap<String, String>;
