//! `telos run --json`: events as they happen, one a line.

use std::{collections::BTreeSet, process::Stdio};

use serde_json::Value;

use crate::support::{experiments::two_stages, lab::Lab, rig::Answer};

/// The lines of standard output.
#[track_caller]
fn events(answer: &Answer) -> Vec<Value> {
    let text = answer.out.lines();
    text.map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

fn named<'a>(events: &'a [Value], name: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["event"] == name).collect()
}

/// Catches an event that is lost or doubled, numbers that are not those of the logs, and a last line that is not the summary.
#[test]
fn a_run_prints_each_event_as_a_line() {
    let lab = Lab::tiny();
    let answer = lab.ask(&["run", "tiny.toml", "--json", "--set", "alert=[{metric=\"loss\",above=1.0,for=2}]"]);
    answer.succeeds();
    let (events, run) = (events(&answer), lab.tiny_run());
    let (first, last) = (&events[0], &events[events.len() - 1]);
    assert_eq!((&first["event"], &first["name"], &first["total"]), (&"start".into(), &"tiny".into(), &8.into()));
    assert_eq!((&last["event"], &last["steps"], &last["ended"]), (&"end".into(), &8.into(), &true.into()));
    assert!(last["alerts"][0].as_str().is_some_and(|alert| alert.starts_with("step 2: loss is 5.")), "{last}");
    for (name, kind) in [("step", "train"), ("eval", "eval")] {
        let logged = run.metrics(kind);
        let printed = named(&events, name);
        assert_eq!(printed.len(), logged.len(), "{name}");
        for (event, line) in printed.iter().zip(&logged) {
            let keys = line.as_object().expect("an object").iter().filter(|(key, _)| *key != "kind");
            keys.for_each(|(key, value)| assert_eq!(&event[key], value, "{key}"));
        }
    }
    assert!(named(&events, "step").iter().all(|step| step["tokens_per_s"].as_f64().is_some_and(|speed| speed > 0.0)));
    assert_eq!(named(&events, "sample").len(), run.lines("samples.jsonl").len());
    let saved: Vec<&Value> = named(&events, "checkpoint").iter().map(|event| &event["checkpoint"]).collect();
    assert_eq!(saved, ["step-00000004", "step-00000008"]);
    let alerts = named(&events, "alert");
    assert!(alerts.len() == 1 && alerts[0]["step"] == 2 && alerts[0]["state"] == "begin", "{alerts:?}");
    assert!(named(&events, "error").is_empty() && named(&events, "end").len() == 1);
}

/// Catches events of a stage that do not name it, and a last line that is not the pipeline's.
#[test]
fn events_of_a_pipeline_name_their_stage() {
    let lab = Lab::new();
    lab.write("tiny.toml", two_stages());
    let answer = lab.ask(&["run", "tiny.toml", "--json"]);
    answer.succeeds();
    let events = events(&answer);
    let (last, own) = events.split_last().expect("events");
    assert_eq!(
        (&last["event"], last.get("stage"), last["stages"].as_array().map(Vec::len)),
        (&"end".into(), None, Some(2))
    );
    let stages: BTreeSet<&str> = own.iter().filter_map(|event| event["stage"].as_str()).collect();
    assert_eq!(stages, BTreeSet::from(["pre", "more"]));
    assert!(own.iter().all(|event| event["stage"].is_string()));
    assert_eq!((named(own, "start").len(), named(own, "end").len()), (2, 2));
}

/// Catches a run that fails because nothing reads its events, and a failed run whose events just stop.
#[test]
fn a_reader_that_closes_the_pipe_does_not_end_the_run() {
    let lab = Lab::tiny();
    let mut command = lab.command(&["run", "tiny.toml", "--json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the program starts");
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("a child").code(), Some(0));
    lab.tiny_run().has_steps(8);
    let failed = lab.ask(&["run", "tiny.toml", "--json", "--name", "bad", "--set", "train.optimizer.lr=1e30"]);
    assert_eq!(failed.code, Some(1), "{failed:#?}");
    let events = events(&failed);
    let last = &events[events.len() - 1];
    assert!(
        last["event"] == "error" && last["error"][0].as_str().is_some_and(|line| line.starts_with("error: ")),
        "{last}"
    );
    assert!(named(&events, "alert").iter().any(|alert| alert["name"] == "non-finite"), "{events:?}");
}

/// Catches a watched metric that nothing reports, and one that is asked for where nothing is drawn.
#[test]
fn a_watched_metric_that_no_step_reports_is_refused() {
    let lab = Lab::tiny();
    lab.ask(&["run", "tiny.toml", "--watch", "grad_nrm"]).refuses(2, &["--watch", "did you mean \"grad_norm\"?"]);
    lab.ask(&["run", "tiny.toml", "--watch", "train/loss"]).refuses(2, &["--watch", "did you mean \"loss\"?"]);
    assert!(!lab.tiny_run().0.exists());
    lab.ask(&["run", "tiny.toml", "--watch", "grad_norm"]).succeeds();
    lab.ask(&["run", "tiny.toml", "--watch", "grad_norm", "--json"]).refuses(2, &["--json"]);
}
