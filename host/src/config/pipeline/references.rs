//! Names of stages in values and in overrides.

use std::path::{Path, PathBuf};

use crate::keys::mistake::suggestion;
use crate::runs::checkpoint::find::{BEST, LATEST, MERGED};
use crate::runs::folder::CHECKPOINTS;

/// Which model of an earlier stage is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Its last checkpoint.
    Last,
    /// Its best checkpoint.
    Best,
    /// The adapter of its last checkpoint merged into its base.
    Merged,
}

impl Which {
    /// Returns the path of the model in the folder of the stage.
    pub fn path(self, folder: &Path) -> PathBuf {
        match self {
            Which::Last => folder.to_owned(),
            Which::Best => folder.join(CHECKPOINTS).join(BEST),
            Which::Merged => folder.join(CHECKPOINTS).join(LATEST).join(MERGED),
        }
    }

    /// The end of a reference to it.
    pub fn suffix(self) -> &'static str {
        match self {
            Which::Last => "",
            Which::Best => "/best",
            Which::Merged => "/merged",
        }
    }
}

/// Returns the stage that `NAME`, `NAME/best` or `NAME/merged` after `stage:` refers to in stage `index` of `names`, and which of its
/// models is meant.
///
/// # Errors
/// A message for a name that is not that of an earlier stage, or for another checkpoint.
pub fn referenced_stage(names: &[&str], index: usize, wanted: &str) -> Result<(usize, Which), String> {
    let (name, which) = wanted.split_once('/').unwrap_or((wanted, "latest"));
    let stage = match names.iter().position(|stage| *stage == name) {
        Some(stage) if stage < index => stage,
        Some(stage) => {
            let which = if stage == index { "is this one" } else { "comes later" };
            let before = names[..index].iter().map(|stage| format!("`{stage}`")).collect::<Vec<_>>();
            let remedy = match before.is_empty() {
                true => "only earlier stages can be used, and this is the first".to_owned(),
                false => format!("only earlier stages can be used: {}", before.join(", ")),
            };
            return Err(format!("stage `{name}` {which}; {remedy}"));
        }
        None => {
            return Err(format!(
                "there is no stage `{name}` before this one; {}",
                suggestion(name, names[..index].iter().copied())
            ));
        }
    };
    match which {
        "latest" => Ok((stage, Which::Last)),
        "best" => Ok((stage, Which::Best)),
        MERGED => Ok((stage, Which::Merged)),
        other => Err(format!(
            "\"{other}\" is not a checkpoint; write \"stage:{name}\" or \"stage:{name}/best\" (of an adapter also \"stage:{name}/merged\")"
        )),
    }
}

/// Splits the text after `stage.` into a stage's name and a key. A name may contain dots: the longest one that
/// is a stage's is used, and a name in quotes is taken literally.
pub fn stage_and_key<'a>(names: &[&str], path: &'a str) -> (&'a str, &'a str) {
    for quote in ['"', '\''] {
        if let Some((name, rest)) = path.strip_prefix(quote).and_then(|rest| rest.split_once(quote))
            && (rest.is_empty() || rest.starts_with('.'))
        {
            return (name, rest.trim_start_matches('.'));
        }
    }
    let dots = path.match_indices('.').map(|(at, _)| at);
    let cuts: Vec<usize> = dots.chain([path.len()]).collect();
    let known = cuts.iter().rev().find(|at| names.contains(&&path[..**at]));
    let at = known.or(cuts.first()).copied().unwrap_or(path.len());
    (&path[..at], path[at..].trim_start_matches('.'))
}
