//! Names of the hub: `hf:org/name`, with an optional path within the repository and an optional `@revision`.

use crate::data::error::{DataError, Result};

/// The beginning of such a name.
const PREFIX: &str = "hf:";
/// What follows it for data.
const DATASETS: &str = "datasets/";
/// The revision if none is named.
pub const MAIN: &str = "main";

/// What a repository holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A model.
    Model,
    /// Data.
    Dataset,
}

/// A name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Id {
    /// What the repository holds.
    pub kind: Kind,
    /// `org/name`.
    pub repository: String,
    /// A file, folder or pattern in it.
    pub path: Option<String>,
    /// A branch, tag or commit.
    pub revision: String,
}

impl Id {
    /// Parses a name; `None` if `text` does not begin with "hf:".
    ///
    /// # Errors
    /// A name that is not valid, or that is of the other kind.
    pub fn parse(text: &str, kind: Kind) -> Result<Option<Id>> {
        let Some(rest) = text.strip_prefix(PREFIX) else { return Ok(None) };
        let (expected, example) = match kind {
            Kind::Model => ("hf:org/name", "hf:HuggingFaceTB/SmolLM2-135M"),
            Kind::Dataset => ("hf:datasets/org/name", "hf:datasets/openai/gsm8k/main/train-00000-of-00001.parquet"),
        };
        let fail = |what: &str| DataError::Unusable {
            path: text.into(),
            what: what.to_owned(),
            remedy: format!("write {expected}, with /path and @revision if needed; for example {example}"),
            source: None,
        };
        let rest = match (rest.strip_prefix(DATASETS), kind) {
            (Some(rest), Kind::Dataset) => rest,
            (None, Kind::Model) => rest,
            (Some(_), Kind::Model) => return Err(fail("names data of the hub; a model is expected")),
            (None, Kind::Dataset) => return Err(fail("names a model of the hub; data are expected")),
        };
        let (place, revision) = rest.rsplit_once('@').unwrap_or((rest, MAIN));
        let mut parts = place.splitn(3, '/');
        let (org, name, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default(), parts.next());
        if !is_plain(org) || !is_plain(name) {
            return Err(fail("is not the name of a repository"));
        }
        if !revision.split('/').all(is_plain) {
            return Err(fail("has a revision that is not valid"));
        }
        if path.is_some_and(|path| !is_inside(path)) {
            return Err(fail("has a path that is not valid"));
        }
        let (repository, path) = (format!("{org}/{name}"), path.map(str::to_owned));
        Ok(Some(Id { kind, repository, path, revision: revision.to_owned() }))
    }

    /// The name without its path, by which a commit is recorded.
    pub fn key(&self) -> String {
        let kind = if self.kind == Kind::Dataset { DATASETS } else { "" };
        format!("{PREFIX}{kind}{}@{}", self.repository, self.revision)
    }
}

/// Whether a part of a name has only the characters that the hub allows.
pub fn is_plain(part: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    part.starts_with(|c: char| c.is_ascii_alphanumeric()) && part.chars().all(allowed)
}

/// Whether a path stays within its folder, and names something in it.
pub fn is_inside(path: &str) -> bool {
    path.split('/').all(|part| !part.is_empty() && part != "." && part != ".." && !part.contains(['\\', '\0']))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a path that leaves the cache, a revision that is lost, and a model where data are expected.
    #[test]
    fn names_are_parsed() {
        let parse = |text: &str, kind| Id::parse(text, kind);
        let id = |text: &str, kind| parse(text, kind).unwrap().unwrap();
        assert_eq!(parse("runs/base", Kind::Model).unwrap(), None);
        assert_eq!(parse("org/name", Kind::Model).unwrap(), None);
        let found = id("hf:org/na.me-1@v1.0", Kind::Model);
        assert_eq!(
            (found.repository.as_str(), found.path.as_deref(), found.revision.as_str()),
            ("org/na.me-1", None, "v1.0")
        );
        assert_eq!(found.key(), "hf:org/na.me-1@v1.0");
        let found = id("hf:datasets/org/name/data/train-*.parquet@refs/pr/1", Kind::Dataset);
        assert_eq!((found.path.as_deref(), found.revision.as_str()), (Some("data/train-*.parquet"), "refs/pr/1"));
        assert_eq!(id("hf:datasets/org/name", Kind::Dataset).key(), "hf:datasets/org/name@main");
        for (text, kind) in [
            ("hf:", Kind::Model),
            ("hf:gpt2", Kind::Model),
            ("hf:../x", Kind::Model),
            ("hf:a/..", Kind::Model),
            ("hf:a/b@", Kind::Model),
            ("hf:a/b@../c", Kind::Model),
            ("hf:a/b/../../c", Kind::Model),
            ("hf:a/b//c", Kind::Model),
            ("hf:a/b/", Kind::Model),
            ("hf:a b/c", Kind::Model),
            ("hf:datasets/a/b", Kind::Model),
            ("hf:a/b", Kind::Dataset),
        ] {
            assert!(parse(text, kind).is_err(), "{text}");
        }
    }
}
