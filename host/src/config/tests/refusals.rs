//! Invalid experiments and overrides, and exactly what is reported: the cases are in refusals.toml, the reports in
//! snapshots/refusals.snap. Tests that a case cannot describe follow.

use proptest::prelude::*;
use serde::Deserialize;
use serde_json::json;

use super::*;

/// The file of cases.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cases {
    group: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    about: String,
    cases: Vec<Case>,
}

/// A change of [`GOOD`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    text: Option<String>,
    replace: Option<String>,
    by: Option<String>,
    add: Option<String>,
    #[serde(default)]
    set: Vec<String>,
}

impl Case {
    /// The experiment.
    fn experiment(&self) -> String {
        let text = self.text.as_deref().unwrap_or(GOOD);
        let added = self.add.as_ref().map_or_else(String::new, |lines| format!("{lines}\n"));
        match (&self.replace, &self.by) {
            (Some(from), Some(to)) => {
                assert!(text.contains(from), "there is no `{from}` to replace");
                text.replace(from, to) + &added
            }
            (None, None) => format!("{text}{added}"),
            _ => panic!("`replace` needs `by`, and `by` needs `replace`"),
        }
    }

    /// What the case changes, a line for each change.
    fn shown(&self) -> String {
        let marked = |mark: &str, text: &Option<String>| {
            let lines = text.as_deref().unwrap_or_default().lines().filter(|line| !line.is_empty());
            lines.map(|line| format!("{mark} {}", line.trim_end())).collect::<Vec<_>>()
        };
        let sets = self.set.iter().map(|set| format!("--set {set}"));
        let changes =
            [marked("|", &self.text), marked("-", &self.replace), marked("+", &self.by), marked("+", &self.add)];
        changes.concat().into_iter().chain(sets).collect::<Vec<_>>().join("\n")
    }
}

/// Catches a mistake that is missed, reported twice or at the wrong place, one mistake that causes a second report, and a changed
/// message.
#[test]
fn every_refusal_equals_its_snapshot() {
    let Cases { group: groups } = toml::from_str(include_str!("refusals.toml")).unwrap();
    let mut report = String::new();
    for group in groups {
        report.push_str(&format!("## {}\n\n", group.about));
        for case in group.cases {
            let sets: Vec<&str> = case.set.iter().map(String::as_str).collect();
            let error = match draft(&case.experiment(), &sets).and_then(Draft::finish) {
                Ok(_) => panic!("accepted:\n{}", case.shown()),
                Err(error) => error,
            };
            assert_eq!(error.kind(), Kind::Request, "{error:?}");
            let shown = if case.shown().is_empty() { "| (an empty file)".to_owned() } else { case.shown() };
            report.push_str(&format!("{shown}\n    {}\n\n", error.details().join("\n    ")));
        }
    }
    snapshot("refusals", &report);
}

/// Catches a parser that recurses as deep as the file.
#[test]
fn a_deep_file_is_refused() {
    let deep = format!("x = {}1{}", "[".repeat(5000), "]".repeat(5000));
    assert!(draft(&deep, &[]).is_err(), "a deep file is refused, not a stack overflow");
}

/// Catches a name that is taken from the file and reported as if the user had written it.
#[test]
fn a_name_from_the_file_is_reported_as_such() {
    let error = Draft::parse("a b.toml", "a b", GOOD, &[]).unwrap().finish().unwrap_err();
    assert!(
        error.details()[0].starts_with("a b.toml: name: taken from the name of the file: \"a b\" is not a plain"),
        "{error:?}"
    );
}

/// Catches a loader that forgets a plugin: its options would be silently ignored.
#[test]
fn unchecked_options_are_refused() {
    let text = GOOD.replace("\"ce\"", "\"ce\", beta = 1");
    let error = Draft::parse("exp.toml", "exp", &text, &[]).unwrap().finish().unwrap_err();
    assert_eq!(
        error.details(),
        ["exp.toml:4:30: objective.beta: this option of plugin \"ce\" was not checked against its manifest"]
    );
}

#[test]
fn options_without_a_default_are_required() {
    let mut spec = specs().remove(0);
    spec.default = json!(null);
    let mut draft = Draft::parse("exp.toml", "exp", GOOD, &[]).unwrap();
    draft.check_options(Slot::Objective(0), &[spec]);
    let error = draft.finish().unwrap_err();
    let expected = "missing and without a default; expected a number from 0 to 1: the label_smoothing";
    assert_eq!(error.details(), [format!("exp.toml:4:1: objective.label_smoothing: {expected}")]);
}

#[test]
fn later_mistakes_are_listed_at_their_lines() {
    let mut draft = draft(&GOOD.replace("steps = 100", "steps = -1"), &[]).unwrap();
    draft.refuse("objective.plugin", "no plugin \"ce\"");
    let error = draft.finish().unwrap_err();
    assert_eq!(error.details()[0], "exp.toml:4:15: objective.plugin: no plugin \"ce\"");
    assert_eq!(error.details().len(), 2);
    let loaded = self::draft(GOOD, &["data.path=b.txt"]).and_then(Draft::finish).unwrap();
    assert_eq!(loaded.refuse("data.path", "no such file").details(), ["--set data.path: no such file"]);
    assert_eq!(loaded.refuse("tokenizer.kind", "x").details(), ["exp.toml: tokenizer.kind: x"]);
}

proptest! {
    /// Catches a panic on unexpected input.
    #[test]
    fn reading_never_panics(text in "[a-z\\[\\]{}=.,\"'#0-9\\-e \\n]{0,80}", set in "[a-z.=0-9\\[{]{0,20}") {
        let overrides: Vec<Override> = Override::parse(&set).into_iter().collect();
        if let Ok(draft) = Draft::parse("f", "f", &text, &overrides) {
            _ = draft.finish();
        }
    }
}
