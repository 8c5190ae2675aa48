//! The number of threads never changes a bit of what a run leaves behind.

use crate::lab::Lab;

/// Wide enough that every kernel cuts its work into several chunks.
const WIDE: [&str; 7] = [
    "model.dim=64",
    "model.heads=4",
    "model.layers=2",
    "model.context=64",
    "train.batch.tokens=2048",
    "train.steps=5",
    "eval.tokens=4096",
];

fn same_with_1_and_2_threads(path: &str) {
    let (one, two) = (Lab::tiny(), Lab::tiny());
    for (lab, threads) in [(&one, "backend.threads=1"), (&two, "backend.threads=2")] {
        let path = format!("backend.path={path}");
        let sets: Vec<&str> = WIDE.into_iter().chain([threads, path.as_str()]).collect();
        lab.run(&sets).succeeds();
    }
    one.tiny_run().equals(&two.tiny_run(), 5);
}

/// Catches partial sums that are added in the order in which threads finish, or work cut by the number of threads.
#[test]
fn gotcha_40_kernels_give_the_same_bits_with_1_and_2_threads() {
    same_with_1_and_2_threads("kernels");
}

/// The same for the path in candle's own operations.
#[test]
fn gotcha_40_the_generic_path_gives_the_same_bits_with_1_and_2_threads() {
    same_with_1_and_2_threads("generic");
}

/// Catches a comparison that compares nothing: another seed does change the bits.
#[test]
fn another_seed_gives_other_bits() {
    let lab = Lab::tiny();
    lab.run(&["train.steps=2", "sample.every=0"]).succeeds();
    lab.run(&["train.steps=2", "sample.every=0", "seed=8", "name=other"]).succeeds();
    let (run, other) = (lab.tiny_run(), crate::lab::Run(lab.at("runs/other")));
    assert!(run.saved(2, "model.safetensors") != other.saved(2, "model.safetensors"));
    assert!(run.bytes("metrics.jsonl") != other.bytes("metrics.jsonl"));
}
