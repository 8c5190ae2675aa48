//! The odd objectives of `tests/plugins/faulty`: each breaks the rule that an option names.

use crate::support::{
    experiments::{PPO, lab},
    lab::Lab,
    rig::Answer,
};

/// Runs tiny.toml with the odd objective and this fault.
pub fn odd(fault: &str, more: &[&str]) -> (Lab, Answer) {
    let lab = Lab::tiny();
    let set = format!("objective.fault=\"{fault}\"");
    let sets: Vec<&str> = ["objective.plugin=odd", set.as_str()].into_iter().chain(more.iter().copied()).collect();
    let answer = lab.run(&sets);
    (lab, answer)
}

/// The first line of a failed run's error.
pub fn heading(answer: &Answer) -> &str {
    answer.err.lines().find(|line| line.starts_with("error: ")).unwrap_or_default()
}

/// Runs PPO's experiment with the odd objective of rollouts.
pub fn odd_rollouts(fault: &str, more: &[&str]) -> (Lab, Answer) {
    let text = PPO.replace(
        "plugin = \"ppo\"\nwhiten_advantages = true",
        &format!("plugin = \"odd-rollouts\"\nfault = \"{fault}\""),
    );
    assert!(text.contains(fault));
    let lab = lab(&text);
    let answer = lab.run(more);
    (lab, answer)
}
