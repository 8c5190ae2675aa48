//! The number of threads never changes a bit of a run's files.

use crate::support::{
    lab::{Lab, ROWS, SMALL, close},
    rig::Answer,
};

/// Wide enough that every kernel splits its work into several chunks.
const WIDE: [&str; 7] = [
    "model.dim=64",
    "model.heads=4",
    "model.layers=2",
    "model.context=64",
    "train.batch.tokens=2048",
    "train.steps=5",
    "eval.tokens=4096",
];

fn same_with_1_and_2_threads(path: &str, dtype: &str) {
    let (one, two) = (Lab::tiny(), Lab::tiny());
    for (lab, threads) in [(&one, "backend.threads=1"), (&two, "backend.threads=2")] {
        let (path, dtype) = (format!("backend.path={path}"), format!("backend.dtype={dtype}"));
        let sets: Vec<&str> = WIDE.into_iter().chain([threads, path.as_str(), dtype.as_str()]).collect();
        lab.run(&sets).succeeds();
    }
    one.tiny_run().equals(&two.tiny_run(), 5);
}

/// Catches partial sums that are added in the order in which threads finish, or work cut by the number of threads.
#[test]
fn gotcha_40_kernels_give_the_same_bits_with_1_and_2_threads() {
    same_with_1_and_2_threads("kernels", "f32");
}

/// The same for products of bf16, whose factors the threads pack together.
#[test]
fn gotcha_40_kernels_in_bf16_give_the_same_bits_with_1_and_2_threads() {
    same_with_1_and_2_threads("kernels", "bf16");
}

/// The same for the path in candle's own operations.
#[test]
fn gotcha_40_the_generic_path_gives_the_same_bits_with_1_and_2_threads() {
    same_with_1_and_2_threads("generic", "f32");
}

/// Catches a comparison that compares nothing: another seed does change the bits.
#[test]
fn a_different_seed_gives_different_bits() {
    let lab = Lab::tiny();
    lab.run(&["train.steps=2", "sample.every=0"]).succeeds();
    lab.run(&["train.steps=2", "sample.every=0", "seed=8", "name=other"]).succeeds();
    let (run, other) = (lab.tiny_run(), crate::support::lab::Run(lab.at("runs/other")));
    assert!(run.saved(2, "model.safetensors") != other.saved(2, "model.safetensors"));
    assert!(run.bytes("metrics.jsonl") != other.bytes("metrics.jsonl"));
}

/// Catches a forced instruction set that is ignored or whose bits change from run to run, a set that changes more than last
/// bits, and an unknown one that trains anyway.
#[test]
fn a_forced_instruction_set_trains_with_its_own_bits_and_an_unknown_one_is_refused() {
    let run = |isa: &str| {
        let lab = Lab::tiny();
        let sets = ["--set", "train.steps=2", "--set", "sample.every=0"];
        let mut command = lab.command(&[&["run", "tiny.toml"], &sets[..]].concat());
        let answer = Answer::of(command.env("TELOS_CANDLE_ISA", isa));
        (lab, answer)
    };
    let (lab, refused) = run("sse9");
    refused.refuses(2, &["TELOS_CANDLE_ISA", "sse9", "baseline"]);
    assert!(!lab.at("runs").exists());
    let [first, again, widest] = ["baseline", "baseline", "auto"].map(|isa| {
        let (lab, answer) = run(isa);
        answer.succeeds();
        lab
    });
    first.tiny_run().equals(&again.tiny_run(), 2);
    let losses = [&first, &widest].map(|lab| lab.tiny_run().train("loss"));
    losses[0].iter().zip(&losses[1]).for_each(|(a, b)| close(*a, *b, 1e-5, "loss"));
    let shown = Lab::new().ask(&["plugins", "show", "candle"]);
    assert!(shown.succeeds().contains("kernels for "), "{shown:#?}");
    // Resumed with another set, the run has other bits than without it; this is reported and recorded.
    let receipt = || std::fs::read_to_string(first.at("runs/tiny/receipt.json")).expect("a receipt");
    assert!(receipt().contains("\"instruction_set\": \"baseline\""), "{}", receipt());
    let resumed = |isa: &str, steps: &str| {
        let args = ["run", "tiny.toml", "--set", steps, "--set", "sample.every=0", "--resume"];
        Answer::of(first.command(&args).env("TELOS_CANDLE_ISA", isa))
    };
    resumed("baseline", "train.steps=3").succeeds();
    assert!(!receipt().contains("replaced"), "{}", receipt());
    if has_another_set() {
        let answer = resumed("auto", "train.steps=4");
        answer.succeeds();
        assert!(answer.err.contains("backend.instruction_set: \"baseline\" is now"), "{answer:#?}");
        assert!(receipt().contains("backend.instruction_set"), "{}", receipt());
    }
}

/// Whether this processor has another instruction set than the baseline.
fn has_another_set() -> bool {
    let shown = Lab::new().ask(&["plugins", "show", "candle"]);
    !shown.succeeds().contains("kernels for baseline")
}

/// Catches log-probabilities of a reference that another instruction set computed and that are still read from the cache.
#[test]
fn a_reference_computed_with_another_instruction_set_is_not_read_from_the_cache() {
    let lab = Lab::new();
    let pair = |i| format!("{{\"prompt\": \"{i}? \", \"chosen\": \"yes\", \"rejected\": \"well, no\"}}\n");
    lab.write("rows.jsonl", (0..30).map(pair).collect::<String>());
    lab.write("tiny.toml", format!("{SMALL}{ROWS}{}", crate::support::experiments::DPO));
    let run = |name: &str, isa: &str| {
        let args = ["run", "tiny.toml", "--name", name, "--set", "train.steps=1"];
        let answer = Answer::of(lab.command(&args).env("TELOS_CANDLE_ISA", isa));
        answer.succeeds();
        answer.err
    };
    let (computed, read) = ("log-probabilities were computed into", "log-probabilities were read from");
    assert!(run("first", "baseline").contains(computed));
    assert!(run("again", "baseline").contains(read));
    if has_another_set() {
        assert!(run("widest", "auto").contains(computed));
    }
}
