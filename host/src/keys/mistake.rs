//! A mistake in an experiment: its place, the key, what is wrong and what is expected.

use std::fmt;
use std::sync::Arc;

use crate::error::Error;

/// The most mistakes that a message lists.
const LISTED: usize = 100;

/// Where a value or key was written. The order is the order of reporting: the file from top to bottom, then
/// mistakes of the file as a whole, then the command line from left to right.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A place in a file; line and column count from 1, the column in characters.
    At {
        /// The file's path as the user gave it.
        file: Arc<str>,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
    },
    /// A file as a whole: for keys that the file does not contain.
    File(Arc<str>),
    /// An override on the command line.
    Override {
        /// Its position among the overrides.
        index: usize,
        /// What the user typed, up to the value: `--set train.steps`, `--name`.
        label: Arc<str>,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::At { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Place::File(file) => f.write_str(file),
            Place::Override { label, .. } => f.write_str(label),
        }
    }
}

/// One mistake; `Display` gives `file:line:column: key: message`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// Its place.
    pub place: Place,
    /// The key, as a dotted path from the root; empty for errors of the TOML itself.
    pub key: String,
    /// What is wrong and what is expected.
    pub message: String,
    /// The key that was probably meant, as a dotted path; prevents a second mistake that this key is missing.
    pub meant: Option<String>,
}

impl Mistake {
    /// A mistake at `key`.
    pub fn new(place: Place, key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place, key: key.into(), message: message.into(), meant: None }
    }
}

impl Mistake {
    /// Whether it is at `key`, below it or above it, or a misspelling of such a key.
    pub fn is_about(&self, key: &str) -> bool {
        let within = |a: &str, b: &str| a == b || a.strip_prefix(b).is_some_and(|rest| rest.starts_with('.'));
        match &self.meant {
            Some(meant) => within(meant, key) || within(key, meant),
            None => !self.key.is_empty() && (within(&self.key, key) || within(key, &self.key)),
        }
    }
}

impl Mistake {
    /// Where the user wrote the key, such as `exp.toml:6:2: data`; `None` for a key that was not written.
    pub fn of_key(&self) -> Option<String> {
        match &self.place {
            Place::File(_) => None,
            _ => Some(Mistake { message: String::new(), ..self.clone() }.to_string().trim_end_matches(": ").to_owned()),
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let repeats_key = matches!(&self.place, Place::Override { label, .. } if label.ends_with(&self.key));
        if self.key.is_empty() || repeats_key {
            write!(f, "{}: {}", self.place, self.message)
        } else {
            let shown = self.key.char_indices().nth(LONGEST).map_or(self.key.as_str(), |(end, _)| &self.key[..end]);
            let rest = if shown.len() < self.key.len() { "..." } else { "" };
            write!(f, "{}: {shown}{rest}: {}", self.place, self.message)
        }
    }
}

/// The longest name, in bytes, for which a similar one is looked for, and the most characters of a name that a
/// message repeats.
const LONGEST: usize = 200;

/// Returns the valid name nearest to `written`, if it is similar enough: within a third of the name's
/// letters (at least one) by Damerau-Levenshtein distance, ignoring letter case and `-` for `_`; or a longer name
/// that begins with `written`.
pub fn nearest<'a>(written: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Computing the distance takes time and memory proportional to the product of both lengths; no valid name is
    // nearly as long.
    if written.len() > LONGEST {
        return None;
    }
    let plain = |name: &str| name.to_lowercase().replace('-', "_");
    let written = plain(written);
    let ranked = valid.into_iter().filter_map(|name| {
        let candidate = plain(name);
        let distance = strsim::damerau_levenshtein(&written, &candidate);
        let longest = written.chars().count().max(candidate.chars().count());
        let begins =
            written.chars().count() >= 3 && (candidate.starts_with(&written) || written.starts_with(&candidate));
        (distance <= (longest / 3).max(1) || begins).then_some((distance, name))
    });
    ranked.min().map(|(_, name)| name)
}

/// `did you mean `x`?` if a name is near, else the list of all names.
pub fn suggestion<'a>(written: &str, valid: impl IntoIterator<Item = &'a str> + Clone) -> String {
    match nearest(written, valid.clone()) {
        Some(name) => format!("did you mean `{name}`?"),
        None => {
            let mut names: Vec<String> = valid.into_iter().map(|name| format!("`{name}`")).collect();
            names.sort();
            names.dedup();
            if names.is_empty() { "no name is valid here".to_owned() } else { format!("valid: {}", names.join(", ")) }
        }
    }
}

/// Returns one error with every mistake, in the order of reporting; the mistakes are attached to it.
pub fn refusal(file: &str, mut mistakes: Vec<Mistake>) -> Error {
    mistakes.sort();
    mistakes.dedup();
    let count = match mistakes.len() {
        1 => "1 mistake".to_owned(),
        count => format!("{count} mistakes"),
    };
    let rest = mistakes.len().saturating_sub(LISTED);
    Error::request(format!("{count} in {file}"))
        .with_details(mistakes.iter().take(LISTED).map(ToString::to_string))
        .with_details((rest > 0).then(|| format!("and {rest} more")))
        .with_hint("`telos run --help-keys` explains every key")
        .with_attached(mistakes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a search that suggests a distant name, and one that misses a transposition or an abbreviation.
    #[test]
    fn only_similar_names_are_suggested() {
        let names = ["steps", "epochs", "micro_batch_tokens", "lr"];
        let find = |written| nearest(written, names);
        assert_eq!(find("stesp"), Some("steps"));
        assert_eq!(find("micro-batch-token"), Some("micro_batch_tokens"));
        assert_eq!(find("micro_batch"), Some("micro_batch_tokens"));
        assert_eq!(find("LR"), Some("lr"));
        assert_eq!(find("colour"), None);
        assert_eq!(suggestion("colour", ["b", "a"]), "valid: `a`, `b`");
    }
}
