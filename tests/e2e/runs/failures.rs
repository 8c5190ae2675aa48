//! Failures of a plugin, the numbers or the disk: a run reports what failed and where, keeps what is complete, and exits with 1.

use std::{fs, os::unix::fs::MetadataExt, process::Command};

use rustix::process::Signal;

use crate::support::{
    kills::{kill_at, with_enough_steps},
    lab::{Lab, Run, with_sets},
    rig::{Answer, bin, clean, test_plugins},
};

/// Runs tiny.toml with a faulty objective, whose fault shows in step 5.
fn fails(objective: &str, more: &[&str]) -> (Lab, Answer) {
    let lab = Lab::tiny();
    let plugin = format!("objective.plugin={objective}");
    let sets: Vec<&str> = [plugin.as_str()].into_iter().chain(more.iter().copied()).collect();
    let answer = lab.run(&sets);
    (lab, answer)
}

/// Fails unless the run's checkpoint of `step` can be opened and evaluated.
#[track_caller]
fn loads(lab: &Lab, step: u64) {
    assert_eq!(lab.tiny_run().pointer("LATEST"), Some(step));
    lab.write("some.txt", crate::support::lab::some_text(40));
    let eval = lab.ask(&["eval", "runs/tiny", "--data", "some.txt", "--json"]);
    let figures: serde_json::Value = serde_json::from_str(eval.succeeds()).expect("JSON");
    assert!(figures["loss"].as_f64().is_some_and(f64::is_finite), "{figures}");
}

/// Catches a host that aborts with the plugin, exits 0, or begins a run that cannot begin.
#[test]
fn a_panic_in_create_is_reported_and_no_run_is_created() {
    let (lab, answer) = fails("panics-in-create", &[]);
    answer.refuses(1, &["panics-in-create", "the create that panics", "lib.rs:"]);
    assert!(!lab.at("runs").exists());
}

/// Catches a run that first tries its largest batch in the middle, or not before the first step is written down.
#[test]
fn gotcha_44_the_largest_batch_is_tried_before_the_first_step() {
    let (lab, answer) = fails("panics-in-loss", &[]);
    answer.refuses(
        1,
        &["error: panics-in-loss: panicked in loss: the loss that panics", "found by the trial before step 1"],
    );
    assert!(!answer.err.contains("micro-batch"), "it reads like a want of memory: {answer:#?}");
    assert!(!lab.tiny_run().0.exists(), "the retry would find the name taken");
}

/// Catches a host that never calls `prepare`, or lets its panic through.
#[test]
fn a_panic_in_prepare_is_reported() {
    let (_, answer) = fails("panics-in-prepare", &[]);
    answer.refuses(1, &["panics-in-prepare", "the prepare that panics", "lib.rs:"]);
}

/// Catches a panic that loses the steps before it, and a saved state that is not that of the step it names.
#[test]
fn a_panic_in_loss_keeps_the_earlier_steps() {
    let (lab, answer) = fails("panics-in-loss", &["objective.at_step=5", "checkpoint.every=0"]);
    answer.refuses(1, &["panics-in-loss", "the loss that panics, in step 5", "lib.rs:", "step-00000004", "--resume"]);
    lab.tiny_run().has_steps(4);
    loads(&lab, 4);
    // The state before the panic is the one of a run that stops there: cross-entropy until its fault shows.
    let sound = Lab::tiny();
    sound.run(&["train.steps=4", "objective.plugin=ce"]).succeeds();
    let (ours, theirs) = (lab.tiny_run(), sound.tiny_run());
    assert!(ours.saved(4, "model.safetensors") == theirs.saved(4, "model.safetensors"));
    assert!(ours.saved(4, "optimizer.safetensors") == theirs.saved(4, "optimizer.safetensors"));
    // Resume meets the same panic and loses nothing.
    let sets = ["objective.plugin=panics-in-loss", "objective.at_step=5", "checkpoint.every=0"];
    lab.resume(&sets).refuses(1, &["the loss that panics, in step 5"]);
    lab.tiny_run().has_steps(4);
    // With another objective it is another experiment: refused with a way to continue, which works.
    lab.resume(&[]).refuses(2, &["plugin = \"panics-in-loss\"", "plugin = \"ce\"", "model.from"]);
    let text =
        crate::support::lab::TINY.replace("layers = 1\ndim = 16\nheads = 2\ncontext = 16", "from = \"runs/tiny\"");
    lab.write("next.toml", text);
    lab.ask(&["run", "next.toml"]).succeeds();
}

/// Catches a partial step that is saved as a complete one: weights of step 5 under the name of step 4.
#[test]
fn a_panic_in_after_step_leaves_no_partial_step() {
    let (lab, answer) = fails("panics-in-after-step", &["checkpoint.every=1"]);
    answer.refuses(1, &["panics-in-after-step", "the after_step that panics", "lib.rs:"]);
    assert!(!lab.tiny_run().0.exists(), "the step was not finished, and there is none before it");
}

/// Catches an instance that is used after it failed, or errors without the plugin's name.
#[test]
fn errors_and_broken_contracts_name_the_objective_and_keep_earlier_steps() {
    let cases: [(&str, &[&str]); 5] = [
        ("refuses-in-loss", &["the loss that refuses"]),
        ("undeclared-term", &["`surprise`", "does not declare"]),
        ("short-cotangent", &["cotangent", "logp"]),
        ("bomb-in-loss", &["panicked in loss"]),
        ("panics-on-other-thread", &["the thread that panics"]),
    ];
    for (plugin, parts) in cases {
        let (lab, answer) = fails(plugin, &["objective.at_step=3", "checkpoint.every=0"]);
        answer.refuses(1, &[plugin]);
        answer.refuses(1, parts);
        answer.refuses(1, &["step-00000002"]);
        lab.tiny_run().has_steps(2);
        assert_eq!(lab.tiny_run().pointer("LATEST"), Some(2), "{plugin}");
    }
}

/// Catches a NaN that reaches the weights, a streak that rotates the healthy checkpoints away, and exit code 0: at a temperature
/// near 0 the model itself gives log-probabilities that are not finite, which is not the objective's fault.
#[test]
fn gotcha_43_steps_that_are_not_finite_are_refused_counted_and_end_the_run() {
    let lab = Lab::tiny();
    lab.run(&["train.steps=3"]).succeeds();
    let healthy = lab.tiny_run().saved(3, "model.safetensors");
    let text =
        crate::support::lab::TINY.replace("layers = 1\ndim = 16\nheads = 2\ncontext = 16", "from = \"runs/base\"");
    lab.write("tiny.toml", text.replace("plugin = \"ce\"", "plugin = \"too-cold\""));
    fs::rename(lab.at("runs/tiny"), lab.at("runs/base")).expect("renamed");
    let sets = ["train.max_bad_steps=3", "checkpoint.every=1", "checkpoint.keep=9", "eval.every=0"];
    let answer = lab.ask(&with_sets(&["run", "tiny.toml", "--unproved"], &sets));
    answer.refuses(1, &["3 steps in a row", "step 3", "lower the learning rate"]);
    let run = lab.tiny_run();
    run.has_steps(3);
    for line in run.metrics("train") {
        assert_eq!((line["refused"] == true, line["loss"].is_null()), (true, true), "{line}");
    }
    for step in [1, 2, 3] {
        assert!(run.saved(step, "model.safetensors") == healthy, "step {step} changed the weights");
        assert!(run.saved(step, "optimizer.safetensors") == run.saved(1, "optimizer.safetensors"), "step {step}");
    }
    loads(&lab, 3);
}

/// Catches a plugin's own NaN for which the message blames the learning rate, or that loses the steps before it.
#[test]
fn gotcha_43_nan_that_an_objective_creates_is_blamed_on_it() {
    let (lab, answer) = fails("nan-loss", &["objective.at_step=4", "checkpoint.every=0", "eval.every=0"]);
    answer.refuses(1, &["objective \"nan-loss\", call `loss`", "`nll`", "`logp` is NaN at token", "step-00000003"]);
    assert!(!answer.err.contains("learning rate"), "{answer:#?}");
    lab.tiny_run().has_steps(3);
    loads(&lab, 3);
}

/// Catches a parent that reports a crash as success, does not name the plugin, or loses the checkpoints.
#[test]
fn a_segfault_in_a_plugin_is_reported_with_its_name() {
    let (lab, answer) = fails("segfaults-in-loss", &["objective.at_step=4", "checkpoint.every=1"]);
    let parts = ["SIGSEGV", "plugin `segfaults-in-loss`", "call `loss`", "step 4", "step-00000003", "--resume"];
    answer.refuses(1, &parts);
    loads(&lab, 3);
}

/// Catches a parent that hides a kill of the training process, as the system does when memory is short.
#[cfg(target_os = "linux")]
#[test]
fn a_killed_training_process_is_reported() {
    let lab = Lab::tiny();
    let run = lab.tiny_run();
    let mut running = lab.start(&["train.steps=100000", "checkpoint.every=2"], false);
    assert!(running.until(|| run.pointer("LATEST").is_some()));
    running.signal_worker(Signal::KILL);
    let answer = running.answer();
    answer.refuses(1, &["SIGKILL", "memory ran out", "the last checkpoint is", "--resume"]);
}

/// Runs telos in `lab` with files that may not grow beyond `bytes`.
fn with_small_files(lab: &Lab, bytes: u64, sets: &[&str], resume: bool) -> Answer {
    let mut words = format!("ulimit -f {}; exec \"$0\" \"$@\"", bytes / 512);
    // The unit is 512 bytes by POSIX; a bash called sh keeps to it too.
    words.insert_str(0, "set -e; ");
    let mut command = Command::new("sh");
    command.arg("-c").arg(words).arg(bin().join("telos")).args(["run", "tiny.toml"]);
    command.args(sets.iter().flat_map(|set| ["--set", *set])).args(resume.then_some("--resume"));
    command.arg("--plugins").arg(test_plugins()).current_dir(lab.path());
    Answer::of(clean(&mut command))
}

/// Catches a full disk that kills the run, that removes the last good checkpoint, or that is not reported. A file that may not
/// grow simulates the full disk: the system refuses the same writes.
#[test]
fn a_full_disk_at_a_checkpoint_keeps_the_last_complete_one() {
    with_enough_steps(40, |steps| {
        let length = format!("train.steps={steps}");
        let sets = [&length, "checkpoint.every=3", "eval.every=0", "sample.every=0"];
        let lab = Lab::tiny();
        let run = lab.tiny_run();
        if !kill_at(&lab, &sets, &run, [3]) {
            return false;
        }
        let good = run.pointer("LATEST").expect("a checkpoint");
        if good + 3 >= steps {
            // No save is left but the last.
            return false;
        }
        let weights = run.0.join(format!("checkpoints/step-{good:08}/model.safetensors"));
        let size = fs::metadata(&weights).expect("weights").size();
        let before = fs::read(&weights).expect("weights");

        // Room for logs but not for weights: the run continues without checkpoints, and reports at the end that nothing is saved.
        let answer = with_small_files(&lab, size / 2, &sets, true);
        let last = format!("step-{good:08}");
        let parts =
            ["could not be saved", "the run continues without this checkpoint", "the last good checkpoint is", &last];
        answer.refuses(1, &parts);
        assert!(answer.err.contains("free space"), "no remedy: {answer:#?}");
        assert_eq!(run.pointer("LATEST"), Some(good));
        assert!(before == fs::read(&weights).expect("weights"));
        assert!(!run.in_a_save(), "half a checkpoint was left behind");

        // With room again it continues from there, to the same bits as a run that never ran out of it.
        lab.resume(&sets).succeeds();
        let whole = Lab::tiny();
        whole.run(&sets).succeeds();
        run.equals(&whole.tiny_run(), steps);
        true
    });
}

/// Catches a log line that is lost without a report: the run would resume with a gap.
#[test]
fn a_log_write_error_ends_the_run_and_keeps_the_last_complete_checkpoint() {
    // 4 KiB hold a few steps' lines, and no weights.
    let lab = Lab::tiny();
    let sets = ["train.steps=60", "checkpoint.every=0", "eval.every=0", "sample.every=0"];
    let answer = with_small_files(&lab, 4096, &sets, false);
    answer.refuses(1, &["cannot write", ".jsonl", "free space", "is incomplete"]);
    lab.resume(&sets).succeeds();
    lab.tiny_run().has_steps(60);
    let whole = Lab::tiny();
    whole.run(&sets).succeeds();
    Run(lab.at("runs/tiny")).equals(&whole.tiny_run(), 60);
}
