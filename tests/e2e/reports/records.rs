//! How runs ended, and reports of runs that are damaged, moved, in progress or without a step.

use std::fs;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::lab::{Lab, Run, SMALL};

fn end(run: &Run) -> Value {
    serde_json::from_slice(&run.bytes("end.json")).expect("JSON")
}

fn state(lab: &Lab) -> (String, Vec<Value>) {
    let listing = lab.ask(&["runs", "--json"]).json();
    let run = &listing["runs"][0];
    let why = run["why"].as_array().cloned().unwrap_or_default();
    (run["state"].as_str().expect("a state").to_owned(), why)
}

/// Catches a run whose end is not recorded, an end that a resume leaves behind, and a report that is not announced.
#[test]
fn a_run_records_how_it_ended_and_writes_its_report() {
    let lab = Lab::tiny();
    let answer = lab.run(&[]);
    assert!(answer.succeeds().ends_with("report runs/tiny/report.html\n"), "{}", answer.out);
    assert_eq!(end(&lab.tiny_run())["ending"], "done");
    assert_eq!(state(&lab), ("done".to_owned(), Vec::new()));
    let about: Value = serde_json::from_slice(&lab.tiny_run().bytes("about.json")).expect("JSON");
    assert!(about["parameters"].as_u64() > Some(0) && about["flops_per_token"].as_f64() > Some(0.0), "{about}");
    assert!(about["metrics"].as_array().is_some() && about["starts"][0]["step"] == 0, "{about}");
    lab.resume(&["train.steps=10"]).succeeds();
    let longer = end(&lab.tiny_run());
    assert_eq!((&longer["ending"], &longer["step"]), (&"done".into(), &10.into()));
}

/// Catches a killed worker that counts as running, and one whose reason is lost.
#[test]
#[cfg(target_os = "linux")]
fn a_killed_run_says_what_killed_it() {
    let lab = Lab::tiny();
    let mut running = lab.start(&["train.steps=100000"], false);
    let run = lab.tiny_run();
    assert!(running.until(|| run.0.join("metrics.jsonl").exists() && run.train("loss").len() > 3));
    assert_eq!(state(&lab).0, "running");
    let page = lab.ask(&["report", "runs/tiny", "--out", "live.html"]);
    page.succeeds();
    assert!(fs::read_to_string(lab.at("live.html")).expect("a page").contains(">running<"));
    running.signal_worker(Signal::KILL);
    running.answer();
    let (state, why) = state(&lab);
    assert_eq!(state, "crashed");
    assert!(why.iter().any(|line| line.as_str().is_some_and(|line| line.contains("SIGKILL"))), "{why:?}");
    lab.ask(&["report", "runs/tiny"]).succeeds();
    assert!(fs::read_to_string(lab.at("runs/tiny/report.html")).expect("a page").contains("SIGKILL"));
}

/// Catches a report that fails on what a reader most wants explained.
#[test]
fn damaged_and_moved_runs_have_reports_that_say_so() {
    let lab = Lab::tiny();
    lab.run(&[]).succeeds();
    fs::rename(lab.at("runs/tiny"), lab.at("elsewhere")).expect("moved");
    let report = |expected: &str| {
        lab.ask(&["report", "elsewhere", "--out", "r.html"]).succeeds();
        let text = fs::read_to_string(lab.at("r.html")).expect("a page");
        assert!(text.contains(expected), "no {expected:?} in the page");
    };
    report(">done<");
    let metrics = lab.at("elsewhere/metrics.jsonl");
    let text = fs::read_to_string(&metrics).expect("metrics");
    fs::write(&metrics, &text[..text.len() - 20]).expect("written");
    report("incomplete");
    let null = text.replacen("\"loss\":", "\"loss\":null,\"was\":", 1);
    fs::write(&metrics, format!("{null}not JSON\n")).expect("written");
    report("not a finite number");
    report("not a JSON object");
    // Figures and tables are made without these lines, and say so.
    let skipped = "note: tiny: metrics.jsonl: 1 line is not a JSON object and skipped, the first is line ";
    let plotted = lab.ask(&["plot", "elsewhere", "--metric", "loss", "--out", "a.svg"]);
    plotted.succeeds();
    assert!(plotted.err.contains(skipped), "{plotted:#?}");
    let exported = lab.ask(&["export", "elsewhere", "--out", "a.csv"]);
    exported.succeeds();
    assert!(exported.err.contains(skipped), "{exported:#?}");
    let without: String =
        text.lines().filter(|line| !line.contains("\"eval\"")).map(|line| format!("{line}\n")).collect();
    fs::write(&metrics, without).expect("written");
    report("nothing was evaluated");
    for gone in ["timing.jsonl", "samples.jsonl", "about.json", "end.json", "receipt.json"] {
        fs::remove_file(lab.at("elsewhere").join(gone)).expect("removed");
    }
    report("there is no timing.jsonl");
    report("there is no about.json");
    fs::write(&metrics, "").expect("written");
    report("no step and no evaluation yet");
}

/// Catches a report that overwrites a file of the user, and one of a folder without runs.
#[test]
fn reports_refuse_what_they_must_not_touch() {
    let lab = Lab::tiny();
    lab.run(&["train.steps=1"]).succeeds();
    lab.write("mine.html", "<html>mine</html>");
    lab.ask(&["report", "runs/tiny", "-o", "mine.html"]).refuses(2, &["mine.html", "not a report"]);
    lab.ask(&["report", "runs"]).refuses(2, &["not a run, a pipeline or a study", "runs/tiny"]);
    lab.ask(&["report", "runs/tyni"]).refuses(2, &["does not exist", "runs/tiny"]);
    lab.ask(&["runs", "nowhere"]).refuses(2, &["nowhere"]);
    // The same file may be written again; a file of the user stays.
    lab.ask(&["report", "runs/tiny"]).succeeds();
    lab.write("runs/tiny/report.html", "<html>mine</html>");
    let answer = lab.resume(&["train.steps=2"]);
    answer.succeeds();
    assert!(answer.err.contains("no report was written"), "{}", answer.err);
    assert_eq!(fs::read_to_string(lab.at("runs/tiny/report.html")).expect("a page"), "<html>mine</html>");
}

/// Catches seeds that are not averaged, and a metric whose misspelling is not refused.
#[test]
fn runs_of_several_seeds_become_one_band() {
    let lab = Lab::tiny();
    for seed in ["1", "2"] {
        let name = format!("s{seed}");
        lab.ask(&["run", "tiny.toml", "--name", &name, "--set", &format!("seed={seed}")]).succeeds();
    }
    lab.ask(&["plot", "runs/s1", "runs/s2", "--metric", "loss", "--axis", "tokens"]).succeeds();
    let svg = fs::read_to_string(lab.at("loss.svg")).expect("a figure");
    assert!(svg.contains("all runs (mean of 2 seeds)") && svg.contains("<polygon") && svg.contains("tokens"), "{svg}");
    lab.ask(&["plot", "runs/s1", "--metric", "eval/los"]).refuses(2, &["eval/los", "eval/loss"]);
}

/// The most memory that may be added between the two steps.
const GROWTH: f64 = 1.5e6;

/// Catches a buffer, a list or a cache that grows with every step: 1 kB a step is seen.
#[test]
#[cfg(target_os = "linux")]
fn nothing_grows_over_two_thousand_steps() {
    let lab = Lab::new();
    let train = "[train]\nsteps = 2000\nbatch = { tokens = 64 }\noptimizer = { lr = 1e-4 }\n";
    let data = "[data]\nsource = \"synthetic\"\nrows = 200\n\n[objective]\nplugin = \"ce\"\n\n[eval]\nevery = 100\ntokens = 256\n";
    lab.write("tiny.toml", format!("{SMALL}{data}{train}"));
    lab.run(&[]).succeeds();
    let peaks: Vec<f64> =
        lab.tiny_run().lines("timing.jsonl").iter().filter_map(|l| l["process_peak_bytes"].as_f64()).collect();
    assert_eq!(peaks.len(), 2000);
    let growth = peaks[1999] - peaks[499];
    assert!(growth < GROWTH, "the process grew by {growth} bytes in 1,500 steps");
}
