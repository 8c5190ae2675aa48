//! Recognises the files that describe a data set.

use std::path::{Component, Path};

/// Files of a data set's folder that describe it: those of the hub, and those that the library datasets saves.
pub fn describes(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let texts = ["readme", "license", "licence", "changelog"];
    texts.iter().any(|text| name == *text || name.strip_prefix(text).is_some_and(|end| [".md", ".txt"].contains(&end)))
        || ["dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"].contains(&name.as_str())
}

/// Whether a file that a pattern matches is hidden, or in a hidden folder, without a dot in the pattern that names it: such files are
/// copies that editors and systems make.
pub(in crate::data) fn is_hidden(path: &Path, pattern: &str) -> bool {
    let dotted: Vec<&str> = pattern.split('/').filter(|part| part.starts_with('.')).collect();
    let names = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_string_lossy()),
        _ => None,
    });
    let is_named = |name: &str| {
        dotted.iter().any(|part| *part == name || glob::Pattern::new(part).is_ok_and(|part| part.matches(name)))
    };
    names.into_iter().any(|name| name.starts_with('.') && !is_named(&name))
}
