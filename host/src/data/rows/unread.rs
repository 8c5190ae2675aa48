//! Finds columns of rows that nothing reads, so that they are reported and not silently ignored.

use std::collections::BTreeSet;

use super::kind::{ANSWER, EXAMPLES, LABEL, RowKind};
use super::store::survey::Survey;
use super::write::template::KWARGS;

/// Columns that have a meaning in every experiment.
const OWN: [&str; 2] = ["tools", KWARGS];

/// Columns of strings, lists or objects that are not in `read`, in alphabetical order. Columns of numbers and of lists of
/// numbers are not included, because they reach the objective.
pub fn unread(survey: &Survey, kind: RowKind, read: &BTreeSet<String>) -> Vec<String> {
    let of_prompts = [ANSWER, "completion", "chosen"];
    let known = |name: &str| {
        read.contains(name) || OWN.contains(&name) || kind == RowKind::Prompt && of_prompts.contains(&name)
    };
    survey.others().filter(|name| !known(name)).map(str::to_owned).collect()
}

/// Columns with another example or a copy of this one, which is not read: the prompt next to messages, for example.
pub fn copies(survey: &Survey, kind: RowKind) -> Vec<String> {
    let all = unread(survey, kind, &BTreeSet::new());
    all.into_iter().filter(|name| EXAMPLES.contains(&name.as_str())).collect()
}

/// Scores that `telos pairs` adds to its pairs, for the user; no objective reads them.
const FOR_USERS: [&str; 2] = ["chosen_score", "rejected_score"];

/// Columns of numbers, or true and false, or lists of them, that are not in `read` and for which `mentions` returns false, in
/// alphabetical order. They reach the objective, which need not use them.
pub fn undeclared(
    survey: &Survey,
    kind: RowKind,
    read: &BTreeSet<String>,
    mentions: impl Fn(&str) -> bool,
) -> Vec<String> {
    let is_own = |name: &str| match name.strip_suffix("_ended") {
        Some(part) => kind.texts().iter().any(|end| end.name() == part),
        None => name == LABEL && kind == RowKind::Unpaired || kind == RowKind::Prompt && name == ANSWER,
    };
    survey
        .any_numbers()
        .filter(|name| !read.contains(*name) && !is_own(name) && !FOR_USERS.contains(name) && !mentions(name))
        .map(str::to_owned)
        .collect()
}
