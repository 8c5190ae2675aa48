//! `telos plugins verify`: backends that conform, one that breaks each law in turn, and wrong requests.

use std::fs;

use plugin_api::backend::ops::CATALOGUE;
use serde_json::Value;

use crate::support::lab::Lab;
use crate::support::rig::{Answer, bin, clean, library, plugins, test_plugins};

fn verify(args: &[&str]) -> Answer {
    Lab::new().ask(&[&["plugins", "verify"], args].concat())
}

/// The broken backend with a fault in attention's backward, which is checked with a neighbour that must stay clean.
fn broken(fault: &str, more: &[&str]) -> Answer {
    let option = format!("fault={fault}");
    let args = ["broken", "--option", &option, "--dtype", "f32", "--only", "attention_backward", "--only", "norm"];
    verify(&[&args, more].concat())
}

/// Fails unless `answer` has a failed line for attention's backward with `parts`, and a passed one for its neighbour.
#[track_caller]
fn blames_attention_backward(answer: &Answer, parts: &[&str]) {
    answer.refuses(1, &["`broken`", "attention_backward"]);
    let row = |name: &str| answer.out.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    assert!(row("attention_backward").contains("FAILED"), "{answer:#?}");
    assert!(row("norm").ends_with("passed"), "{answer:#?}");
    assert!(answer.out.lines().last().is_some_and(|line| line.starts_with("FAILED: ")), "{answer:#?}");
    for part in parts {
        assert!(answer.out.contains(part), "`{part}` is missing in {answer:#?}");
    }
}

/// Catches a report that lacks an operation, a shape or its numbers.
#[test]
fn reference_and_both_paths_of_candle_conform() {
    for args in [&["reference"][..], &["candle"], &["candle", "--option", "path=generic"]] {
        let answer = verify(&[args, &["--dtype", "f32", "--json"]].concat());
        answer.succeeds();
        let report = answer.json();
        assert_eq!(report["passed"], true);
        assert_eq!(report["backend"]["id"], args[0]);
        assert_eq!(report["backend"]["sha256"].as_str().map(str::len), Some(64));
        let groups = report["groups"].as_array().expect("groups");
        let names: Vec<&str> = groups.iter().filter_map(|group| group["name"].as_str()).collect();
        let expected: Vec<&str> = CATALOGUE.iter().map(|spec| spec.name).chain(["session"]).collect();
        assert_eq!(names, expected);
        let checks: u64 = groups.iter().filter_map(|group| group["checks"].as_u64()).sum();
        assert!(checks > 1000, "the suite has shrunk: {checks}");
        for group in groups.iter().filter(|group| group["name"] != "session") {
            let (error, limit) = (group["worst"]["error"].as_f64(), group["worst"]["limit"].as_f64());
            assert!(error.zip(limit).is_some_and(|(error, limit)| error <= limit), "{}", group["name"]);
        }
        for part in
            ["one of 600", "three hundred short", "32003", "6 heads, 1 key-value heads", "no sequence", "packed"]
        {
            assert!(answer.out.contains(part), "no case is about {part}");
        }
    }
}

/// Catches a verification of only the first dtype of a manifest, and f64 without its gradients.
#[test]
fn every_dtype_of_the_manifest_is_verified() {
    let answer = verify(&["reference", "--only", "linear_backward_weight", "--json"]);
    answer.succeeds();
    let report = answer.json();
    let dtypes: Vec<&str> =
        report["groups"].as_array().into_iter().flatten().filter_map(|g| g["dtype"].as_str()).collect();
    assert_eq!(dtypes, ["f64", "f32", "bf16"]);
    assert!(report["groups"][0].to_string().contains("gradient of 5 x 7 to 3"), "{report}");
}

/// Catches limits that are too wide for a wrong scale, and a table that does not name the place.
#[test]
fn a_wrong_scale_is_reported_with_name_and_numbers() {
    blames_attention_backward(&broken("scale", &[]), &["dq[", "error ", " above ", "more; --json lists them all"]);
    let answer = broken("scale", &["--json"]);
    let report = answer.json();
    assert_eq!((answer.code, &report["passed"]), (Some(1), &Value::from(false)));
    let group = report["groups"].as_array().and_then(|all| all.iter().find(|g| g["name"] == "attention_backward"));
    let group = group.expect("the group");
    assert!(group["worst"]["error"].as_f64() > Some(1e-3), "{group}");
    assert!(group["failed"].as_u64() > Some(30), "{group}");
}

/// Catches a crash that loses the report, a hang without a limit, and an early end that counts as a success.
#[test]
fn a_crash_fails_one_line_and_the_rest_is_reported() {
    for (fault, parts) in [
        ("abort", &["SIGABRT", "it printed: the operation that aborts"][..]),
        ("exit", &["ended the process with code 0 before its report"]),
        ("panic", &["PANIC", "the operation that panics"]),
    ] {
        blames_attention_backward(&broken(fault, &[]), parts);
    }
    blames_attention_backward(&broken("hang", &["--limit", "8"]), &["took more than 8 s and was killed"]);
    let answer = verify(&["broken", "--option", "fault=open"]);
    answer.refuses(1, &["`broken`", "open"]);
    assert!(answer.out.contains("opening a session: the process was ended by SIGABRT"), "{answer:#?}");
}

/// Catches a crash or a lost device that fails more lines than those of the checks that caused it: the rest of the
/// operation is checked in a fresh process.
#[test]
fn a_check_that_ends_the_process_or_loses_the_device_fails_only_its_own_line() {
    for (fault, text) in [("abort-at-forty", "SIGABRT"), ("lose-at-forty", "the device is lost")] {
        let report = broken(fault, &["--json"]).json();
        let group = report["groups"].as_array().and_then(|all| all.iter().find(|g| g["name"] == "attention_backward"));
        let lines = group.and_then(|group| group["lines"].as_array()).expect("lines");
        let failed: Vec<&Value> = lines.iter().filter(|line| line["passed"] == false).collect();
        assert!((1..=4).contains(&failed.len()), "{fault}: {failed:#?}");
        for line in failed {
            assert!(line["case"].as_str().is_some_and(|case| case.contains("forty")), "{line}");
            assert!(line["detail"].as_str().is_some_and(|detail| detail.contains(text)), "{line}");
        }
        assert!(lines.len() > 50, "{fault}: {}", lines.len());
    }
}

/// Catches laws about conduct that hold whatever a backend does.
#[test]
fn wrong_claims_leaks_and_drift_are_detected() {
    for (fault, parts) in [
        ("deny", &["f64 is reported as unsupported, but the call works"][..]),
        ("affirm", &["f32 is reported as supported, but the call returns UNSUPPORTED"]),
        ("leak-handle", &["every handle was freed"]),
        ("drift", &["another session gives the same bits", "different bits"]),
        #[cfg(target_os = "linux")]
        ("leak-memory", &["the process does not grow from step to step", "KiB or more every"]),
    ] {
        blames_attention_backward(&broken(fault, &[]), parts);
    }
}

/// Catches a report that is read from where the plugin may write too.
#[test]
fn plugin_output_is_not_in_the_report() {
    let answer = broken("chatter", &["--json"]);
    answer.succeeds();
    assert_eq!(answer.json()["groups"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_library_file_is_verified_in_place_of_an_id() {
    let file = library(&plugins(), "backend-candle");
    let answer = verify(&[&file.to_string_lossy(), "--only", "nop"]);
    assert!(answer.succeeds().contains("backend candle"), "{answer:#?}");
}

#[test]
fn wrong_requests_are_refused_with_the_available_choices() {
    let text = |package: &str, folder: std::path::PathBuf| library(&folder, package).to_string_lossy().into_owned();
    let (objective, two) = (text("objective-ce", plugins()), text("test-plugin-backend", test_plugins()));
    for (args, parts) in [
        (&["candel"][..], &["no plugin `candel`", "did you mean `candle`?"][..]),
        (&["ce", "--dtype", "f32"], &["--dtype is for backends", "`ce` is of kind objective"]),
        (&["ce", "--threads", "2"], &["--threads is for backends"]),
        (&["candle", "--column", "margin=0..1"], &["--column is for objectives", "`candle` is of kind backend"]),
        (&["ce", "--prompt", "x"], &["--prompt is for rewards"]),
        (&["length", "--column", "margin=0..1"], &["--column is for objectives", "declares its columns"]),
        (&["ce", "--only", "cotangent"], &["no law `cotangent`", "`cotangents`"]),
        (&["ce", "--option", "z_los=1"], &["--option z_los", "did you mean `z_loss`?"]),
        (&["ce", "--option", "label_smoothing=1.0"], &["`label_smoothing`", "--option KEY=VALUE"]),
        (&["world"], &["the reward scores no sample", "--prompt TEXT"]),
        (&["candle", "--dtype", "f64"], &["computes in f32, bf16, not in f64"]),
        (&["candle", "--device", "cuda:0"], &["cuda:0", "devices compiled in: cpu"]),
        (&["candle", "--device", "metals"], &["metals", "devices compiled in: cpu", "metal"]),
        (&["candle", "--option", "path=genric"], &["--option path", "did you mean \"generic\"?"]),
        (&["candle", "--option", "paht=generic"], &["--option paht", "did you mean `path`?"]),
        (&["candle", "--only", "attention_bakward"], &["`attention_bakward`", "`attention_backward`"]),
        (&["./nothing.so"], &["there is no file ./nothing.so"]),
        (&[&objective, "--device", "cpu"], &["--device is for backends"]),
        (&[&two], &["several plugins", "`broken`", "`reference`", "--plugins"]),
    ] {
        verify(args).refuses(2, parts);
    }
    let lab = Lab::new();
    lab.write("text.so", "no library");
    lab.ask(&["plugins", "verify", "./text.so"]).refuses(2, &["text.so", "is not a whole library"]);
}

/// Catches a verification against nothing.
#[test]
fn without_the_reference_the_request_is_refused() {
    let lab = Lab::new();
    let (program, candle) = (bin().join("telos"), library(&plugins(), "backend-candle"));
    fs::create_dir(lab.at("plugins")).expect("a new folder");
    for (from, to) in [(program, lab.at("telos")), (candle, lab.at("plugins").join("candle.so"))] {
        fs::hard_link(&from, &to).or_else(|_| fs::copy(&from, &to).map(drop)).expect("a copy");
    }
    let mut command = std::process::Command::new(lab.at("telos"));
    let answer = Answer::of(clean(&mut command).args(["plugins", "verify", "candle"]));
    answer.refuses(
        2,
        &[
            "backends are compared with the reference backend, which is missing",
            "there is no backend `reference`",
            "backends found: candle",
        ],
    );
}

/// Catches a manifest that does not distinguish devices that are compiled in from those that were tested.
#[test]
fn show_lists_compiled_and_tested_devices() {
    let answer = Lab::new().ask(&["plugins", "show", "candle"]);
    let rows: Vec<Vec<&str>> = answer.succeeds().lines().map(|line| line.split_whitespace().collect()).collect();
    let row = |name: &str| rows.iter().find(|row| row.first() == Some(&name)).expect(name).clone();
    assert_eq!(row("NAME")[1..4], ["COMPILED", "IN", "TESTED"]);
    assert_eq!(row("cpu")[1..3], ["yes", "yes"]);
    assert_eq!(row("metal")[2], "no");
}
