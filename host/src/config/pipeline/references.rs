//! Names of stages in values and in overrides.

use crate::keys::mistake::suggestion;

/// Returns the stage that `NAME` or `NAME/best` after `stage:` refers to in stage `index` of `names`, and whether its best checkpoint
/// is meant.
///
/// # Errors
/// A message for a name that is not that of an earlier stage, or for another checkpoint.
pub fn referenced_stage(names: &[&str], index: usize, wanted: &str) -> Result<(usize, bool), String> {
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
        "latest" => Ok((stage, false)),
        "best" => Ok((stage, true)),
        other => Err(format!("\"{other}\" is not a checkpoint; write \"stage:{name}\" or \"stage:{name}/best\"")),
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
