//! A metric that a rule watches and rollouts report, and the message about a rule on a metric that no step reports; a run is refused
//! with it before it begins.

use crate::keys::mistake::nearest;

/// The largest minus the smallest reward of a rollout's answers.
pub const SPREAD: &str = "answers/spread";

/// The mistake of a name that is not among `names`, those of the metrics of steps: a similar one, or all of them.
pub fn unknown(metric: &str, names: &[String]) -> String {
    match similar(metric, names) {
        Some(near) => format!("no step reports \"{metric}\"; did you mean \"{near}\"?"),
        None => format!(
            "no step reports \"{metric}\"; reported are {}; evaluations report eval/loss and others",
            names.join(", ")
        ),
    }
}

/// A name that is similar as a whole, or in its last part: `kl` and `policy/kl` for `objective/kl`.
pub fn similar<'a>(metric: &str, names: &'a [String]) -> Option<&'a str> {
    let whole = nearest(metric, names.iter().map(String::as_str));
    let last = |name: &'a str| name.rsplit('/').next().unwrap_or(name);
    whole.or_else(|| {
        let end = metric.rsplit('/').next().filter(|end| !end.is_empty())?;
        let near = nearest(end, names.iter().map(|name| last(name)))?;
        names.iter().map(String::as_str).find(|name| last(name) == near)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a list of all metrics where one is meant, a guess that is far from what was written, and names that are left out
    /// where none is similar.
    #[test]
    fn a_similar_metric_is_suggested() {
        let names = ["loss", "grad_norm", "objective/kl", "reward/world"].map(str::to_owned);
        let meant = |metric| similar(metric, &names);
        assert_eq!((meant("los"), meant("gradnorm")), (Some("loss"), Some("grad_norm")));
        assert_eq!((meant("kl"), meant("policy/kl")), (Some("objective/kl"), Some("objective/kl")));
        assert_eq!((meant("wrld"), meant("eval/lss")), (Some("reward/world"), Some("loss")));
        assert_eq!((meant("zzzzzzzzz"), meant("a/")), (None, None));
        assert!(unknown("zzzzzzzzz", &names).contains("reported are loss, grad_norm, objective/kl"));
    }
}
