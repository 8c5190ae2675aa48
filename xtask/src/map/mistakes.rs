//! Tests that are named after known mistakes, compared with the list of them.

use super::sources::Sources;
use crate::{cargo::root, errors::Result};
use std::{collections::BTreeSet, fs};

/// The numbered list.
const LIST: &str = "docs/known-mistakes.md";
/// Prefix of the name of such a test; numbers follow, each with an underscore after it.
const PREFIX: &str = concat!("fn ", "gotcha_");

/// An error for each test with a number that is not in the list.
pub fn unlisted(sources: &Sources) -> Result<Vec<String>> {
    let text = fs::read_to_string(root()?.join(LIST)).map_err(|e| format!("cannot read {LIST}: {e}"))?;
    Ok(unlisted_in(sources, &listed(&text)))
}

/// The numbers of the list's lines.
fn listed(text: &str) -> BTreeSet<u32> {
    text.lines().filter_map(|line| line.split_once(". ")?.0.parse().ok()).collect()
}

fn unlisted_in(sources: &Sources, listed: &BTreeSet<u32>) -> Vec<String> {
    let mut errors = Vec::new();
    for (file, text) in &sources.files {
        for (line, name) in (1..).zip(text.lines()).filter_map(|(at, line)| Some((at, line.split_once(PREFIX)?.1))) {
            let numbers = name.split('_').map_while(|part| part.parse::<u32>().ok());
            let unknown = numbers.filter(|number| !listed.contains(number));
            errors.extend(unknown.map(|number| {
                format!(
                    "{}:{line} tests the known mistake {number}, which {LIST} does not list: add it there",
                    file.display()
                )
            }));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// Catches a number that is not looked up because it is the second in a name, and one that occurs in the text of a list entry.
    #[test]
    fn a_test_of_an_unlisted_mistake_is_an_error() {
        let listed = listed("# Mistakes\n\n1. One, with 7. in it\n12. Twelve\n    and more\n");
        assert_eq!(listed, BTreeSet::from([1, 12]));
        let text = [PREFIX, "01_12_fine() {}\n", PREFIX, "12_7_days() {}\nfn other_99() {}\n"].concat();
        let files = [(PathBuf::from("a/b.rs"), text)].into();
        let errors = unlisted_in(&Sources { files, ..Sources::default() }, &listed);
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(
            errors[0].starts_with("a/b.rs:2 tests the known mistake 7, which docs/known-mistakes.md"),
            "{}",
            errors[0]
        );
    }
}
