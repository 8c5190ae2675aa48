//! Recognises the files that describe a data set.

use std::path::Path;

/// Files of a data set's folder that describe it: those of the hub, and those that the library datasets saves.
pub fn describes(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let texts = ["readme", "license", "licence", "changelog"];
    texts.iter().any(|text| name == *text || name.strip_prefix(text).is_some_and(|end| [".md", ".txt"].contains(&end)))
        || ["dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"].contains(&name.as_str())
}
