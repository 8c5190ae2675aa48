//! The names of columns.

use std::collections::BTreeMap;

/// What the file calls the columns that have a meaning here: `prompt` = "question". The file's own column of that name, if
/// there is one, gives way.
pub type Columns = BTreeMap<String, String>;
