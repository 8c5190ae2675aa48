//! Why an objective cannot be tried: the mistakes that a check of the trial's experiment finds. The user has not seen that
//! experiment, so that its lines say nothing.

use super::folder::EXPERIMENT;
use crate::error::{Error, Kind};

/// The error of a trial that a check refuses.
pub fn explained(id: &str, error: &Error) -> Error {
    let why = format!("`{id}` cannot be tried in the quickstart world");
    let hint = match (error.kind(), error.hint()) {
        (Kind::Request, _) => {
            format!(
                "if an option decides it, choose another value with --set objective.NAME=VALUE (rollouts have the reward \"world\" alone); \
                 otherwise train `{id}` by an experiment of your own: telos check FILE, then telos run FILE"
            )
        }
        (_, Some(hint)) => hint.to_owned(),
        (_, None) => "fix the plugin, then start the trial again".to_owned(),
    };
    Error::new(error.kind(), why).with_details(reasons(error)).with_hint(hint)
}

/// The lines of an error, without places in the trial's experiment.
pub fn reasons(error: &Error) -> Vec<String> {
    let report = error.report();
    let lines = report.lines().map(str::trim).filter(|line| !line.starts_with("help: "));
    let lines = lines.map(|line| line.trim_start_matches("error: ").trim_start_matches("caused by: "));
    let is_count = |line: &str| line.ends_with(&format!("in {EXPERIMENT}")) && line.contains("mistake");
    let all: Vec<String> = lines.filter(|line| !is_count(line)).map(without_places).collect();
    // What was being done is the outer message; the reasons are inside.
    let inner: Vec<String> = all.iter().filter(|line| !line.ends_with("cannot run")).cloned().collect();
    if inner.is_empty() { all } else { inner }
}

/// `a try.toml:3:1: b` as `a b`.
fn without_places(line: &str) -> String {
    let (mut rest, mut kept) = (line, String::new());
    while let Some((before, after)) = rest.split_once(&format!("{EXPERIMENT}:")) {
        kept.push_str(before);
        rest = after.trim_start_matches(|one: char| one.is_ascii_digit() || one == ':').trim_start();
    }
    kept + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches places in a file that the user cannot open, and reasons that are lost with them.
    #[test]
    fn reasons_name_no_line_of_the_trials_experiment() {
        let mistakes = Error::request("2 mistakes in try.toml").with_details([
            "try.toml:31:1: in stage mine: teacher: missing",
            "--set objective.beta: expected a number",
        ]);
        let error = explained("mine", &mistakes.context("stage \"mine\" cannot run"));
        assert_eq!(error.kind(), Kind::Request);
        assert_eq!(error.details(), ["in stage mine: teacher: missing", "--set objective.beta: expected a number"]);
        assert!(error.hint().is_some_and(|hint| hint.contains("telos run FILE")));
        assert_eq!(reasons(&Error::request("stage \"a\" cannot run")), ["stage \"a\" cannot run"]);
    }
}
