//! `telos compare`: the same experiment on several backends.

use std::fs;

use serde_json::Value;

use crate::support::{
    lab::{Lab, close},
    rig::Answer,
};

fn compare(lab: &Lab, backends: &str, more: &[&str]) -> Answer {
    let base = ["compare", "tiny.toml", "--backends", backends];
    lab.ask(&base.into_iter().chain(more.iter().copied()).collect::<Vec<_>>())
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|v| v.as_f64().unwrap_or(f64::NAN)).collect()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is not a number"))
}

/// Catches a comparison whose steps are not those of a run (other batches, another rate, no update, other first bits), a
/// loop that loses steps, and differences that are not checked.
#[test]
fn the_compared_steps_equal_those_of_a_run_and_the_backends_agree() {
    let lab = Lab::tiny();
    let more = ["--steps", "6", "--rounds", "2", "--yardstick", "--json"];
    let answer = compare(&lab, "candle,reference,candle?path=generic", &more);
    answer.succeeds();
    let found = answer.json();
    lab.run(&[]).succeeds();
    let run = lab.tiny_run();
    let backends = found["backends"].as_array().expect("backends");
    assert_eq!(backends.len(), 3, "{found}");
    assert_eq!(numbers(&backends[0]["curve"]["loss"]), run.train("loss")[..6], "candle's losses");
    assert_eq!(numbers(&backends[0]["curve"]["grad_norm"]), run.train("grad_norm")[..6], "candle's norms");
    assert!(backends[0]["agreement"].is_null(), "nothing to hold the first one against");
    for other in &backends[1..] {
        let agreement = &other["agreement"];
        assert_eq!(agreement["with"], "candle");
        assert!(number(&agreement["first_loss"]) < 1e-6 && number(&agreement["first_grad_norm"]) < 1e-5, "{agreement}");
        let (mine, theirs) = (numbers(&backends[0]["curve"]["loss"]), numbers(&other["curve"]["loss"]));
        let differences: Vec<f64> = mine.iter().zip(&theirs).map(|(a, b)| (a - b).abs() / a.max(*b)).collect();
        let largest = differences.iter().copied().fold(0.0, f64::max);
        close(number(&agreement["loss"]["difference"]), largest, 1e-9, "the largest difference");
        let at = differences[number(&agreement["loss"]["step"]) as usize - 1];
        assert_eq!(at, largest, "{agreement}");
    }
    let yardstick = &found["yardstick"];
    let moved = numbers(&yardstick["losses"]);
    assert!(yardstick["backend"] == "candle" && moved.len() == 6, "{yardstick}");
    assert!(
        moved.iter().any(|d| *d > 0.0) && moved.iter().all(|d| *d < 1e-4),
        "one weight is moved by a bit: {moved:?}"
    );
}

/// Catches figures that contradict each other, and operations of the wrong steps.
#[test]
fn speed_operations_and_memory_are_reported() {
    let lab = Lab::tiny();
    let answer = compare(&lab, "candle,reference", &["--steps", "6", "--rounds", "2", "--json"]);
    answer.succeeds();
    let found = answer.json();
    lab.run(&[]).succeeds();
    let tokens = lab.tiny_run().train("tokens")[..6].iter().sum::<f64>() / 6.0;
    for backend in found["backends"].as_array().expect("backends") {
        let rounds = numbers(&backend["tokens_per_second"]["all"]);
        assert!(rounds.len() == 2 && rounds.iter().all(|speed| *speed > 0.0), "{backend}");
        close(number(&backend["tokens_per_step"]), tokens, 1e-9, "tokens");
        let seconds = number(&backend["seconds_per_step"]);
        close(seconds, tokens / number(&backend["tokens_per_second"]["median"]), 1e-9, "seconds");
        assert!(number(&backend["memory_peak_bytes"]) > 0.0 && number(&backend["peak_gflops"]) > 0.0, "{backend}");
        assert!(number(&backend["gflops"]) > 0.0, "{backend}");
        let product = backend["peak_product"].as_str().unwrap_or_default();
        assert!(product.ends_with(", f32") || product.ends_with(" step"), "{product}");
        let operations = backend["operations"].as_array().expect("operations");
        let of = |name: &str| operations.iter().find(|o| o["name"] == name).unwrap_or_else(|| panic!("{name}"));
        // One layer: query, key and value in one product, output, gate and up in one, down.
        assert_eq!((number(&of("linear")["calls"]), number(&of("attention")["calls"])), (4.0, 1.0));
        assert_eq!((number(&of("adamw")["calls"]), number(&of("global_norm")["calls"])), (1.0, 1.0));
        let shares = operations.iter().map(|o| &o["share_of_peak"]).chain([&backend["share_of_peak"]]);
        for share in shares.filter(|share| !share.is_null()) {
            assert!((0.0..=1.0 + 1e-9).contains(&number(share)), "{backend}");
        }
        assert!(number(&of("linear")["gflops"]) > 0.0 && of("norm")["gflops"].is_null(), "{backend}");
        let shares = operations.iter().map(|o| number(&o["share"])).sum::<f64>() + number(&backend["outside_share"]);
        close(shares, 1.0, 1e-6, "all shares");
        assert_eq!(backend["sha256"].as_str().map(str::len), Some(64), "{backend}");
    }
}

/// Catches a replay that finds nothing because it compares nothing, and one of the wrong step.
#[test]
fn a_step_is_replayed_against_the_reference() {
    let lab = Lab::tiny();
    let answer = compare(&lab, "candle,reference,candle?path=generic", &["--steps", "2", "--json"]);
    answer.succeeds();
    let found = answer.json();
    for index in [0, 2] {
        let replay = &found["backends"][index]["replay"];
        let verdict = &replay["verdict"];
        assert_eq!((&replay["step"], &replay["tokens"]), (&1.into(), &replay["tokens_of_step"]), "{replay}");
        assert!(number(&replay["tokens"]) > 100.0, "{replay}");
        assert!(verdict["first"].is_null() && number(&verdict["operations"]) > 20.0, "{replay}");
        let largest = &verdict["largest"];
        assert!(number(&largest["error"]) > 0.0 && number(&largest["error"]) < number(&largest["limit"]), "{largest}");
        assert_eq!(verdict["skipped"], serde_json::json!([]));
    }
    assert_eq!(found["backends"][1]["replay"]["skipped"], "it is the reference");
    let without = compare(&lab, "candle", &["--steps", "2", "--json", "--no-replay"]).json();
    assert!(without["backends"][0]["replay"].is_null());
}

/// Catches a normaliser that is counted per micro-batch, cuts that are not those asked for, and a window that differs from a run's.
#[test]
fn the_first_window_gives_the_same_loss_and_norm_in_every_cut() {
    let lab = Lab::tiny();
    let more = ["--steps", "2", "--no-replay", "--cuts", "1,2,4,1000", "--json"];
    let answer = compare(&lab, "candle,reference", &more);
    answer.succeeds();
    let found = answer.json();
    for backend in found["backends"].as_array().expect("backends") {
        let (cuts, most) = (backend["cuts"]["cuts"].as_array().expect("cuts"), &backend["cuts"]["most"]);
        let parts: Vec<&Value> = cuts.iter().map(|cut| &cut["micro_batches"]).collect();
        assert_eq!(parts, [&1.into(), &2.into(), &4.into(), most], "{backend}");
        for cut in cuts {
            close(number(&cut["loss"]), number(&backend["curve"]["loss"][0]), 1e-6, "the loss");
            close(number(&cut["grad_norm"]), number(&backend["curve"]["grad_norm"][0]), 1e-5, "the norm");
        }
    }
    let text = compare(&lab, "candle", &["--steps", "2", "--no-replay", "--no-plot", "--cuts", "2,1"]).out;
    assert!(text.contains("equal up to rounding") && text.contains("micro-batches"), "{text}");
    compare(&lab, "candle", &["--cuts", "0"]).refuses(2, &["--cuts"]);
    compare(&lab, "candle", &["--cuts", "3"]).refuses(2, &["--cuts 3", "at least two"]);
}

/// Catches bits that depend on the order of the backends, and two runs of one backend that share state.
#[test]
fn a_backend_compared_with_itself_does_not_differ() {
    let lab = Lab::tiny();
    let more = ["--steps", "5", "--rounds", "3", "--no-replay", "--json"];
    let found = compare(&lab, "reference@f64,candle,reference@f64", &more).json();
    let [first, candle, again] = [0, 1, 2].map(|index| &found["backends"][index]);
    assert_eq!(again["backend"], "reference@f64 (2)");
    assert_eq!((&first["dtype"], &candle["dtype"]), (&"f64".into(), &"f32".into()));
    assert_eq!(again["curve"], first["curve"]);
    assert_eq!(number(&again["agreement"]["loss"]["difference"]), 0.0);
    assert!(again["agreement"]["first_beyond"].is_null());
    assert!(number(&candle["agreement"]["loss"]["difference"]) > 0.0);
    // f32 agrees less than f64, so the pair uses the tolerance of f32.
    assert_eq!(
        (number(&again["agreement"]["tolerance"]["loss"]), number(&candle["agreement"]["tolerance"]["loss"])),
        (1e-12, 1e-6)
    );
}

/// Catches a table without its title, and any file written except the plot.
#[test]
fn the_table_is_complete_and_only_the_plot_is_written() {
    let lab = Lab::tiny();
    let before = lab.everything();
    let answer = compare(&lab, "candle,candle?path=generic", &["--steps", "4", "--yardstick=reference"]);
    let text = answer.succeeds();
    for part in [
        "tiny: 4 steps of 1",
        "tokens/s, median",
        "share of the peak",
        "GFLOP/s of the peak",
        "peak memory",
        "linear_backward_weight",
        "attention_backward",
        "difference from candle by step",
        "yardstick: reference with model.layers.0.",
        "times that",
        "candle: step 1: ",
        "all within their limits",
        "losses: compare-tiny.svg",
    ] {
        assert!(text.contains(part), "`{part}` is missing in {answer:#?}");
    }
    let mut expected = before;
    expected.push(lab.at("compare-tiny.svg"));
    expected.sort();
    assert_eq!(lab.everything(), expected, "nothing else is written");
    let plot = fs::read_to_string(lab.at("compare-tiny.svg")).expect("the plot");
    for part in ["<svg", "tiny: loss by step", "candle?path=generic", "one weight moved", "polyline"] {
        assert!(plot.contains(part), "`{part}` is missing in the plot");
    }
    compare(&lab, "candle", &["--steps", "2", "--no-plot", "--no-replay"]).succeeds();
    compare(&lab, "candle", &["--steps", "2", "--plot", "other.svg", "--no-replay"]).succeeds();
    expected.push(lab.at("other.svg"));
    expected.sort();
    assert_eq!(lab.everything(), expected);
}

/// Catches a wrong request that is found after the work, or whose message does not name its backend.
#[test]
fn a_wrong_request_is_refused_before_anything_runs() {
    let lab = Lab::tiny();
    let before = lab.everything();
    for (backends, parts) in [
        ("candle,candel", ["candel", "did you mean `candle`"].as_slice()),
        ("candle,candle:cuda:9", &["candle:cuda:9", "backend.device", "cuda:9"]),
        ("reference,candle@f64", &["candle@f64", "backend.dtype", "not in f64"]),
        ("candle?path=fast", &["candle?path=fast", "backend.path", "fast"]),
        ("reference?path=generic", &["reference?path=generic", "backend.path", "unknown key"]),
        ("candle@f16", &["f16", "f32, bf16, f64"]),
        ("candle?plugin=reference", &["plugin=reference", "ID[:DEVICE][@DTYPE]"]),
        ("candle,,reference", &["not the id"]),
    ] {
        compare(&lab, backends, &["--steps", "2"]).refuses(2, parts);
    }
    compare(&lab, "candle", &["--steps", "1"]).refuses(2, &["--steps", "2.."]);
    compare(&lab, "candle", &["--plot", "nowhere/x.svg"]).refuses(2, &["--plot", "nowhere/x.svg"]);
    compare(&lab, "candle", &["--yardstick=torsh"]).refuses(2, &["torsh"]);
    compare(&lab, "candle", &["--set", "train.stepz=3"]).refuses(2, &["train.stepz"]);
    lab.ask(&["compare", "tiny.toml"]).refuses(2, &["--backends"]);
    assert_eq!(lab.everything(), before, "nothing is written");
}

/// Catches a failure in between that loses the report, or after which the command succeeds.
#[test]
fn a_backend_that_fails_during_the_comparison_is_reported() {
    let lab = Lab::tiny();
    let sets = ["--set", "objective.plugin=refuses-in-loss", "--set", "objective.at_step=3", "--steps", "5"];
    let answer = compare(&lab, "candle,reference", &sets);
    answer.refuses(1, &["these backends failed: candle, reference"]);
    for part in ["at step 3", "the loss that refuses", "not replayed: the backend failed", "difference from candle"] {
        assert!(answer.out.contains(part), "`{part}` is missing in {answer:#?}");
    }
    let found = compare(&lab, "candle,reference", &[sets.as_slice(), &["--json"]].concat()).json();
    for backend in found["backends"].as_array().expect("backends") {
        assert_eq!(
            (&backend["failure"]["step"], numbers(&backend["curve"]["loss"]).len()),
            (&3.into(), 2),
            "{backend}"
        );
    }
}

/// Catches a crash that loses the reports of the other backends, one that is blamed on another backend, call or step, and a
/// comparison that starts again for ever.
#[test]
fn a_backend_that_ends_the_process_is_a_failed_backend_and_the_others_are_reported() {
    let lab = Lab::tiny();
    let more = ["--steps", "3", "--rounds", "1", "--no-replay", "--yardstick", "--json"];
    let aborting = "broken?fault=\"abort\"&op=\"adamw\"&threads=2";
    let answer = compare(&lab, &format!("{aborting},candle,broken?fault=\"exit\",reference"), &more);
    let without = |spec: &str| format!("note: {spec}: telos was ended by SIGABRT");
    answer.refuses(1, &[&without(aborting), "the comparison starts again without it", "these backends failed"]);
    let found = answer.json();
    let backends = found["backends"].as_array().expect("backends");
    assert_eq!(backends.len(), 4, "{found}");
    for (index, how, call) in [(0, "SIGABRT", "update"), (2, "exited with code 0", "forward and backward")] {
        let own = &backends[index];
        assert_eq!((&own["plugin"], &own["failure"]["step"]), (&"broken".into(), &1.into()), "{own}");
        let message = own["failure"]["message"].as_str().unwrap_or_default();
        let place = format!("in plugin `broken`, call `{call}`, step 1");
        assert!(message.contains(how) && message.contains(&place), "{message}");
        assert!(own["curve"]["loss"].as_array().is_some_and(Vec::is_empty) && own["tokens_per_second"].is_null());
    }
    assert_eq!((&backends[0]["backend"], &backends[0]["threads"]), (&aborting.into(), &2.into()));
    for index in [1, 3] {
        assert_eq!(numbers(&backends[index]["curve"]["loss"]).len(), 3, "{found}");
    }
    assert_eq!(backends[3]["agreement"]["with"], "candle");
    assert!(found["yardstick"]["failure"]["message"].as_str().is_some_and(|text| text.contains("SIGABRT")), "{found}");
    // Nothing is left to compare.
    let answer = compare(&lab, aborting, &["--steps", "2"]);
    answer.refuses(1, &["these backends failed"]);
    assert!(answer.out.contains("failed at step 1: telos was ended by SIGABRT"), "{answer:#?}");
}

/// Catches a crash in what can be left out that loses the comparison, and an objective's crash that is blamed on the backends.
#[test]
fn only_the_work_in_which_a_backend_ends_the_process_is_left_out() {
    let lab = Lab::tiny();
    let yardstick = "--yardstick=broken?fault=\"abort\"&op=\"adamw\"";
    let answer = compare(&lab, "candle", &["--steps", "2", "--no-plot", "--no-replay", yardstick]);
    answer.refuses(1, &["the comparison starts again without yardstick", "a backend ended the process: yardstick"]);
    assert!(answer.out.contains("yardstick: broken") && answer.out.contains("tokens/s"), "{answer:#?}");
    let crash = ["--steps", "3", "--set", "objective.plugin=segfaults-in-loss", "--set", "objective.at_step=2"];
    let answer = compare(&lab, "candle,reference", &crash);
    answer.refuses(1, &["SIGSEGV", "in plugin `segfaults-in-loss`, call `loss`, step 2"]);
    assert!(!answer.err.contains("starts again") && answer.out.is_empty(), "{answer:#?}");
}

/// Catches a crash at the end of a session that is blamed on the objective, which ends just before it.
#[test]
fn a_backend_that_ends_the_process_when_it_is_closed_is_left_out() {
    let lab = Lab::tiny();
    let answer = compare(&lab, "candle,broken?fault=\"close\"", &["--steps", "2", "--no-plot", "--no-replay"]);
    answer.refuses(1, &["in plugin `broken`, call `close`", "the comparison starts again without it"]);
    assert!(answer.out.contains("tokens/s"), "{answer:#?}");
}

/// Catches a page that lacks a table or the plot, that needs another file, and that replaces something else.
#[test]
fn the_page_has_the_tables_and_the_plot() {
    let lab = Lab::tiny();
    let more = ["--steps", "3", "--no-plot", "--cuts", "1,2", "--html", "page.html"];
    let answer = compare(&lab, "candle,reference", &more);
    assert!(answer.succeeds().contains("page: page.html"), "{answer:#?}");
    let page = fs::read_to_string(lab.at("page.html")).expect("the page");
    for part in
        ["<!doctype html>", "tokens/s, median", "linear_backward_weight", "equal up to rounding", "<svg", "polyline"]
    {
        assert!(page.contains(part), "`{part}` is missing in the page");
    }
    assert!(!page.contains("src=") && !page.contains("href="), "it needs other files");
    compare(&lab, "candle", &more).succeeds();
    fs::write(lab.at("mine.html"), "<!doctype html>\n<title>mine</title>").expect("a file");
    for (path, part) in [("mine.html", "exists already"), ("tiny.svg", "ends in .html"), ("nowhere/x.html", "folder")] {
        compare(&lab, "candle", &["--html", path]).refuses(2, &["--html", path, part]);
    }
    compare(&lab, "candle", &["--plot", "a.html", "--html", "a.html"]).refuses(2, &["--plot", "a.html", ".svg"]);
}
