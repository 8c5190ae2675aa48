//! Logs and other files of made-up runs, whole and damaged.

use super::*;

/// A run without anything.
pub(in crate::report) fn empty_run() -> RunRecord {
    RunRecord {
        folder: PathBuf::new(),
        name: String::new(),
        experiment: Table::new(),
        receipt: Value::Null,
        about: About::default(),
        state: State::Complete,
        step: 0,
        total: None,
        metrics: BTreeMap::new(),
        timing: BTreeMap::new(),
        progress: Vec::new(),
        phases: Vec::new(),
        operations: Operations::default(),
        notes: Vec::new(),
        alerts: Vec::new(),
        samples: Vec::new(),
        distributions: BTreeMap::new(),
        remarks: Vec::new(),
        left_out: Vec::new(),
    }
}

fn write(folder: &Path, files: &[(&str, &str)]) {
    files.iter().for_each(|(name, text)| std::fs::write(folder.join(name), text).unwrap());
}

/// Catches a null that is read as 0, an evaluation that counts as a step, a sum of tokens that forgets a step, and the end of an
/// alert that ends another one of the same rule.
#[test]
fn numbers_are_read_by_name_and_step() {
    let folder = tempfile::tempdir().unwrap();
    let metrics = r#"{"step":0,"kind":"eval","eval/loss":3.0}
{"step":1,"kind":"train","loss":2.5,"tokens":10}
{"step":2,"kind":"train","loss":null,"tokens":20,"refused":true}
"#;
    let timing = r#"{"step":0,"kind":"eval","seconds":1.0}
{"step":1,"kind":"train","tokens_per_s":5.0,"seconds":{"data":0.5,"gradient":1.5}}
{"step":1,"kind":"alert","name":"range","metric":"a","state":"begin","text":"a is off"}
{"step":1,"kind":"alert","name":"range","metric":"b","state":"begin","text":"b is off"}
{"step":2,"kind":"train","tokens_per_s":5.0,"seconds":{"data":0.5,"gradient":2.5}}
{"step":2,"kind":"alert","name":"range","metric":"b","state":"end","text":"b is back"}
{"step":2,"kind":"note","text":"look"}
"#;
    write(
        folder.path(),
        &[
            ("metrics.jsonl", metrics),
            ("timing.jsonl", timing),
            ("experiment.toml", "name = \"a/b\"\n[train]\nsteps = 2"),
        ],
    );
    let run = RunRecord::read(folder.path()).unwrap();
    assert_eq!((run.name.as_str(), run.step, run.total), ("a/b", 2, Some(2)));
    assert_eq!(run.metrics["eval/loss"], [(0.0, 3.0)]);
    assert!(run.metrics["loss"][1].1.is_nan() && run.metrics["loss"][0] == (1.0, 2.5));
    let spent: Vec<_> = run.progress.iter().map(|p| (p.tokens, p.seconds)).collect();
    assert_eq!(spent, [(10.0, 3.0), (30.0, 6.0)]);
    assert_eq!(run.phases, [("evaluation".into(), 1.0), ("data".into(), 1.0), ("gradient".into(), 4.0)]);
    assert_eq!((run.seconds(), run.tokens(), run.notes.len()), (6.0, 30.0, 1));
    let alerts: Vec<_> = run.alerts.iter().map(|alert| (alert.text.as_str(), alert.ended)).collect();
    assert_eq!(alerts, [("a is off", None), ("b is off", Some(2))]);
    assert!(run.remarks.iter().any(|remark| remark == "not a finite number in some steps: loss"), "{:?}", run.remarks);
    assert_eq!(run.state, State::Complete);
}

/// Catches a report that refuses a run because one of its files is damaged or missing.
#[test]
fn a_damaged_run_is_read_with_remarks() {
    let folder = tempfile::tempdir().unwrap();
    assert!(RunRecord::read(folder.path()).is_err());
    write(folder.path(), &[("experiment.toml", "name = "), ("receipt.json", "{"), ("metrics.jsonl", "")]);
    let run = RunRecord::read(folder.path()).unwrap();
    assert_eq!((run.step, run.total, run.tokens()), (0, None, 0.0));
    let missing = ["experiment.toml", "receipt.json", "metrics.jsonl", "timing.jsonl", "samples.jsonl", "about.json"];
    for named in missing {
        assert!(run.remarks.iter().any(|remark| remark.contains(named)), "{named}: {:?}", run.remarks);
    }
    assert!(run.left_out.is_empty(), "{:?}", run.left_out);
    write(folder.path(), &[("metrics.jsonl", "no\n{\"step\":1,\"kind\":\"train\",\"loss\":1}\n{\"ste")]);
    let run = RunRecord::read(folder.path()).unwrap();
    let [left_out] = &run.left_out[..] else { panic!("{:?}", run.left_out) };
    assert!(left_out.starts_with("metrics.jsonl: 1 line is not a JSON object") && run.metrics.contains_key("loss"));
    assert!(left_out.contains("incomplete") && run.remarks.contains(left_out), "{left_out}");
}
