//! Runs that are ended early: at a step, during a save, at any moment.

use std::{fs, thread, time::Duration};

use rustix::process::Signal;

use crate::support::{
    lab::{Dice, Lab, Run, Running},
    rig::Answer,
};

/// Tries a test that ends runs early, first with `least` steps, then with twice as many and so on: if steps are fast, or the cores
/// are busy, a short run may be over before this process has seen it start. `attempt` gets the number of steps, fails if something
/// is wrong, and returns whether the run was still running every time that it was to be ended.
#[track_caller]
pub fn with_enough_steps(least: u64, mut attempt: impl FnMut(u64) -> bool) {
    const DOUBLED: u32 = 6;
    for steps in (0..=DOUBLED).map(|doubled| least << doubled) {
        if attempt(steps) {
            return;
        }
        eprintln!("a run of {steps} steps was over before it was ended");
    }
    panic!("no run was long enough for this machine");
}

/// Starts the run of `tiny.toml`, or resumes it, as a user would.
pub fn start_or_resume(lab: &Lab, sets: &[&str]) -> Running {
    let run = lab.tiny_run();
    let begun = run.0.join("experiment.toml").is_file() || run.0.join("pipeline.toml").is_file();
    if !begun {
        // Killed before its first file was complete; telos advises "remove it first".
        _ = fs::remove_dir_all(&run.0);
    }
    lab.start(sets, begun)
}

/// Kills the run of `tiny.toml`, or that of a stage of it, as soon as it has a checkpoint of each of `steps` or later. Returns
/// whether it was still running each time.
#[track_caller]
pub fn kill_at<const N: usize>(lab: &Lab, sets: &[&str], run: &Run, steps: [u64; N]) -> bool {
    steps.into_iter().fold(true, |all, step| {
        let mut running = start_or_resume(lab, sets);
        running.until(|| run.pointer("LATEST").is_some_and(|at| at >= step));
        running.signal(Signal::KILL);
        all & was_killed(&running.answer())
    })
}

/// Kills the run of `tiny.toml`, which saves at every step, `times` times: alternately during a save and at any moment, every
/// third time only the training process. Returns whether it was running each time, and in a save at least once.
#[track_caller]
pub fn kill_often(lab: &Lab, sets: &[&str], times: u64, dice: &mut Dice) -> bool {
    let run = lab.tiny_run();
    let (mut kills, mut in_a_save) = (0, false);
    for round in 0..times {
        let before = run.pointer("LATEST").unwrap_or(0);
        let further = |steps| run.pointer("LATEST").is_some_and(|step| step >= before + steps);
        let mut running = start_or_resume(lab, sets);
        if round.is_multiple_of(2) {
            running.until(|| further(1) && run.in_a_save());
        } else {
            running.until(|| further(1 + round % 4));
            thread::sleep(Duration::from_micros(dice.below(16_000)));
        }
        if round % 3 == 2 {
            running.signal_worker(Signal::KILL)
        } else {
            running.signal(Signal::KILL)
        }
        kills += u64::from(was_killed(&running.answer()));
        in_a_save |= run.in_a_save();
    }
    kills == times && in_a_save
}

/// Whether a kill came before the end; fails if something else ended the run.
#[track_caller]
fn was_killed(answer: &Answer) -> bool {
    let parent = answer.code.is_none();
    let worker = answer.code == Some(1) && answer.err.contains("SIGKILL");
    assert!(parent || worker || answer.code == Some(0), "{answer:#?}");
    parent || worker
}
