//! Runs of preferences and rollouts that are killed anywhere and resumed leave the same bits as undisturbed ones: weights,
//! moments, critic, reference, rollout and logs.

use serde_json::Value;

use crate::support::{
    experiments::{DPO, PPO, REWARD, lab, ptx},
    kills::{kill_often, start_or_resume, with_enough_steps},
    lab::{Dice, Run},
};

const OFTEN: [&str; 3] = ["checkpoint.every=1", "checkpoint.keep=2", "eval.every=7"];

/// Kills the run of `sets` twelve times, alternately during a save and at any other moment; every third kill hits only the
/// training process. Fails unless it leaves the same as an undisturbed run. Of its last checkpoint, `files` are compared too.
fn check_kills(objective: &str, sets: &[&str], files: &[&str]) {
    with_enough_steps(60, |steps| {
        let length = format!("train.steps={steps}");
        let all: Vec<&str> = [&[length.as_str()], &OFTEN[..], sets].concat();
        let lab = lab(objective);
        let kills = kill_often(&lab, &all, 12, &mut Dice(60));
        start_or_resume(&lab, &all).answer().succeeds();
        leaves_the_same_as_an_undisturbed_run(objective, &all, files, &lab.tiny_run(), steps);
        kills
    });
}

#[track_caller]
fn leaves_the_same_as_an_undisturbed_run(objective: &str, sets: &[&str], files: &[&str], run: &Run, steps: u64) {
    let undisturbed = lab(objective);
    undisturbed.run(sets).succeeds();
    let whole = undisturbed.tiny_run();
    whole.has_steps(steps);
    run.has_steps(steps);
    run.equals(&whole, steps);
    for file in files.iter().chain(&["config.json"]) {
        assert!(run.saved(steps, file) == whole.saved(steps, file), "{file} differs");
    }
    // Times are saved too, and the length of their text varies.
    let place = |run: &Run| -> Value {
        let mut place: Value = serde_json::from_slice(&run.saved(steps, "trainer.json")).expect("JSON");
        place.as_object_mut().expect("an object").remove("lines");
        place
    };
    assert_eq!(place(run), place(&whole));
}

/// Catches a data order of pairs that restarts, and recorded scores that are lost.
#[test]
fn gotcha_42_a_killed_reward_model_leaves_the_same_bits() {
    check_kills(REWARD, &["objective.centering=0.01"], &[]);
}

/// Catches a moving average that restarts from the policy's first weights, or from its present ones.
#[test]
fn gotcha_17_42_a_killed_run_with_a_moving_average_leaves_the_same_bits() {
    check_kills(DPO, &["reference.average=0.9"], &["reference/model.safetensors"]);
}

/// Catches a cached reference that differs after a resume.
#[test]
fn gotcha_22_42_a_killed_run_with_a_cached_reference_leaves_the_same_bits() {
    check_kills(DPO, &["objective.loss=aot", "train.micro_batch_tokens=64"], &[]);
}

/// Steps of a rollout: 3 epochs of 2 minibatches, so that kills fall into the middle of rollouts and of epochs. Catches a rollout
/// that is drawn again (by weights that have learned from it), passes or places in them that are lost, an adaptive coefficient
/// that restarts, and a critic without its moments.
#[test]
fn gotcha_35_42_a_killed_ppo_with_a_critic_leaves_the_same_bits() {
    let sets = [
        "rollout.epochs=3",
        "objective.kl_control=adaptive",
        "objective.kl_target=0.5",
        "objective.kl_horizon=50",
        "critic.lr=5e-3",
        "eval.generate=4",
    ];
    check_kills(PPO, &sets, &["critic/model.safetensors", "critic/optimizer.safetensors", "rollout.json"]);
}

/// The same with the critic on the policy's trunk, a reference that is copied from time to time, several answers to a prompt, and
/// rollouts that are ended early.
#[test]
fn gotcha_42_a_killed_ppo_on_one_trunk_leaves_the_same_bits() {
    let sets = [
        "critic.from=shared",
        "reference.copy_every=9",
        "rollout.samples=2",
        "rollout.epochs=4",
        "objective.target_kl=1e-3",
        "train.micro_batch_tokens=64",
    ];
    check_kills(PPO, &sets, &["reference/model.safetensors", "rollout.json"]);
}

/// Catches the text of a second objective whose order restarts.
#[test]
fn gotcha_42_a_killed_ppo_with_a_pre_training_term_leaves_the_same_bits() {
    check_kills(&ptx(), &[], &["rollout.json"]);
}
