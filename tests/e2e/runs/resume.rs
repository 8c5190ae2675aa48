//! A run that is stopped anywhere and resumed leaves the same bits as an undisturbed one.

use std::{fs, thread, time::Duration};

use rustix::process::Signal;

use crate::support::{
    kills::{kill_often, start_or_resume, with_enough_steps},
    lab::{Dice, Lab, Run},
};

/// An undisturbed run of `steps`, without its checkpoints.
fn undisturbed(steps: u64) -> Lab {
    let lab = Lab::tiny();
    lab.run(&[&format!("train.steps={steps}"), "eval.every=7", "sample.every=10"]).succeeds();
    lab.tiny_run().has_steps(steps);
    lab
}

/// Catches a checkpoint that is used before it is complete, LATEST moved too early, moments or data order that
/// restart, and log lines that are lost or doubled. Twenty-four kills: four right after the start, ten during a save that is in
/// progress, ten at any moment; every third kills only the training process.
#[test]
fn gotcha_41_42_a_run_killed_at_twenty_moments_leaves_the_same_bits() {
    with_enough_steps(150, |steps| {
        let length = format!("train.steps={steps}");
        let sets = [&length, "eval.every=7", "sample.every=10", "checkpoint.every=1", "checkpoint.keep=2"];
        let (lab, mut dice) = (Lab::tiny(), Dice(41));
        let run = lab.tiny_run();
        for _ in 0..4 {
            let mut running = start_or_resume(&lab, &sets);
            thread::sleep(Duration::from_millis(dice.below(300)));
            running.signal(Signal::KILL);
            running.answer();
        }
        let kills = kill_often(&lab, &sets, 20, &mut dice);
        let end = start_or_resume(&lab, &sets).answer();
        assert!(end.succeeds().contains("held-out loss"), "{end:#?}");
        run.has_steps(steps);
        run.equals(&undisturbed(steps).tiny_run(), steps);
        assert_eq!(run.checkpoints().last(), Some(&steps));
        assert!(!run.in_a_save(), "leftovers of killed saves are not tidied up");
        kills
    });
}

/// Catches momentum of Muon that is not saved, and scratch memory that a resumed run would read.
#[test]
fn gotcha_42_a_run_by_muon_is_resumed_with_the_same_bits() {
    let optimizer = "train.optimizer={kind=\"muon\",lr=1e-2,weight_decay=0.1}";
    let (whole, stopped) = (Lab::tiny(), Lab::tiny());
    let (evaluated, sampled) = ("eval.every=5", "sample.every=5");
    whole.run(&[optimizer, evaluated, sampled, "train.steps=8"]).succeeds();
    stopped.run(&[optimizer, evaluated, sampled, "train.steps=5"]).succeeds();
    let other = "train.optimizer={lr=1e-2,betas=[0.95,0.95],weight_decay=0.1}";
    stopped.resume(&[other, evaluated, sampled, "train.steps=8"]).refuses(2, &["train.optimizer.kind"]);
    stopped.resume(&[optimizer, evaluated, sampled, "train.steps=8"]).succeeds();
    stopped.tiny_run().equals(&whole.tiny_run(), 8);
    let adamw = Lab::tiny();
    adamw.run(&["train.optimizer={lr=1e-2,weight_decay=0.1}", evaluated, sampled, "train.steps=8"]).succeeds();
    let losses = |lab: &Lab| lab.tiny_run().bytes("metrics.jsonl");
    assert!(losses(&adamw) != losses(&whole), "another optimizer gives other losses");
}

/// Stops a run by `signal` in the middle.
fn stopped_by(signal: Signal) {
    with_enough_steps(150, |steps| {
        let length = format!("train.steps={steps}");
        let sets = [&length, "eval.every=7", "sample.every=10", "checkpoint.every=0"];
        let lab = Lab::tiny();
        let run = lab.tiny_run();
        let mut running = lab.start(&sets, false);
        let lines = || fs::read_to_string(run.0.join("metrics.jsonl")).unwrap_or_default().lines().count();
        running.until(|| lines() > 4);
        running.signal(signal);
        // A terminal sends it to both processes, and the parent passes it on.
        running.signal_worker(signal);
        let answer = running.answer();
        if answer.code == Some(0) {
            return false;
        }
        answer.refuses(130, &["interrupted: stopped after step", "--resume"]);
        let saved = run.pointer("LATEST").expect("a checkpoint");
        assert!(saved < steps, "{saved}");
        run.has_steps(saved);
        lab.resume(&sets).succeeds();
        run.has_steps(steps);
        run.equals(&undisturbed(steps).tiny_run(), steps);
        true
    });
}

/// Catches a Ctrl-C that loses the step, saves half of it, counts two signals for one key, or exits with another code.
#[test]
fn ctrl_c_finishes_the_step_saves_and_exits_130_and_resume_gives_the_same_bits() {
    stopped_by(Signal::INT);
}

/// The same for the signal that batch systems send.
#[test]
fn sigterm_acts_like_ctrl_c() {
    stopped_by(Signal::TERM);
}

/// Catches a resume that trains a finished run further, writes its lines again, or fails.
#[test]
fn resuming_a_finished_run_reports_it_and_changes_nothing() {
    let lab = Lab::tiny();
    lab.run(&[]).succeeds();
    let run = lab.tiny_run();
    let files = ["metrics.jsonl", "samples.jsonl", "timing.jsonl", "checkpoints/step-00000008/model.safetensors"];
    let before = files.map(|file| run.bytes(file));
    let again = lab.resume(&[]);
    assert!(again.succeeds().contains("held-out loss"), "{again:#?}");
    assert!(again.err.contains("nothing is left to do"), "{again:#?}");
    assert!(before == files.map(|file| run.bytes(file)));
}

/// Catches a flag that is ignored: --resume with another experiment would silently train something else.
#[test]
fn gotcha_42_resume_with_a_changed_experiment_is_refused_line_by_line() {
    let lab = Lab::tiny();
    lab.run(&[]).succeeds();
    let before = lab.tiny_run().bytes("experiment.toml");
    let answer = lab.resume(&["train.optimizer.lr=0.5", "train.steps=9"]);
    answer.refuses(2, &["was: train.optimizer.lr = 0.01", "is:  train.optimizer.lr = 0.5", "--name"]);
    assert!(!answer.err.contains("betas"), "{answer:#?}");
    assert!(before == lab.tiny_run().bytes("experiment.toml"), "a refused resume has changed the run");
    // The number of threads may differ: it never changes the result.
    lab.resume(&["backend.threads=2"]).succeeds();
}

/// Catches a run that is bound to the folder in which it began, and one that continues elsewhere with other bits.
#[test]
fn a_moved_or_copied_run_resumes_in_the_folder_that_the_experiment_names() {
    let (lab, whole) = (Lab::tiny(), Lab::tiny());
    whole.run(&["train.steps=12"]).succeeds();
    lab.run(&[]).succeeds();
    let copied =
        std::process::Command::new("cp").args(["-r", "runs/tiny", "runs/copy"]).current_dir(lab.path()).status();
    assert!(copied.expect("cp runs").success());
    lab.resume(&["name=copy", "train.steps=12"]).succeeds();
    fs::rename(lab.at("runs"), lab.at("moved")).expect("moved");
    let answer = lab.resume(&["runs_dir=moved", "train.steps=12"]);
    answer.succeeds();
    assert!(answer.err.contains("runs_dir: \"runs\" is now \"moved\""), "{answer:#?}");
    for name in ["copy", "tiny"] {
        Run(lab.at("moved").join(name)).equals(&whole.tiny_run(), 12);
    }
    lab.resume(&["runs_dir=moved", "seed=3"]).refuses(2, &["was: seed = 7", "is:  seed = 3"]);
}

/// Catches a resume that creates a new run of that name.
#[test]
fn resuming_a_missing_run_is_refused() {
    let lab = Lab::tiny();
    lab.resume(&[]).refuses(2, &["there is no run \"tiny\"", "--resume"]);
    assert!(!lab.at("runs").exists());
}

/// Catches a refusal that lists changes that are allowed among those that are not.
#[test]
fn only_what_may_not_change_is_listed() {
    let lab = Lab::tiny();
    lab.run(&["train.steps=2"]).succeeds();
    let refused = lab.resume(&["train.steps=4", "train.optimizer.lr=0.5", "checkpoint.keep=9"]);
    refused.refuses(2, &["experiment differs", "is:  train.optimizer.lr = 0.5"]);
    for allowed in ["is:  train.steps", "is:  checkpoint.keep"] {
        assert!(!refused.err.contains(allowed), "{refused:#?}");
    }
}
