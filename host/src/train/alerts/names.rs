//! A metric that a rule watches and rollouts report, and the message about a rule on a metric that no step reports; a run is refused
//! with it before it begins.

use crate::keys::mistake::nearest;

/// The largest minus the smallest reward of a rollout's answers.
pub const SPREAD: &str = "answers/spread";

/// The mistake of a name that is not among `names`: a similar one, or all of them.
pub fn unknown(metric: &str, names: &[String]) -> String {
    match nearest(metric, names.iter().map(String::as_str)) {
        Some(near) => format!("no step reports \"{metric}\"; did you mean \"{near}\"?"),
        None => format!(
            "no step reports \"{metric}\"; reported are {}; evaluations report eval/loss and others",
            names.join(", ")
        ),
    }
}
