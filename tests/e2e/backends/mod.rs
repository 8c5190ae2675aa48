//! The same experiment on several backends, and libtorch.

mod across_backends;
mod candle;
mod compare;
#[cfg(target_os = "linux")]
mod torch;

use crate::support::{
    experiments::{PPO, lab},
    lab::{Lab, close},
};

const BF16: &str = "backend.dtype=bf16";

/// Trains in bf16 and in f32 with these settings. Catches a mode that computes in f32 nevertheless, one that loses its master weights
/// to rounding, and a log-softmax in bf16.
fn bf16_trains_close_to_f32_but_not_equal(sets: &[&str]) {
    let (narrow, wide) = (Lab::tiny(), Lab::tiny());
    narrow.run(&[sets, &[BF16]].concat()).succeeds();
    wide.run(sets).succeeds();
    let (a, b) = (narrow.tiny_run().train("loss"), wide.tiny_run().train("loss"));
    close(a[7], b[7], 2e-2, "loss of the last step in bf16 and f32");
    assert!(a[7] != b[7] && a[7] < a[0] - 0.05, "{a:?}, {b:?}");
    // Fresh weights give logits near 0, whose rounding costs nothing; a log-softmax in bf16 has steps of 1/32 at ln 257.
    close(a[0], b[0], 1e-4, "loss of the first step in bf16 and f32");
}

/// Trains PPO in bf16 with these settings. Catches log-probabilities of a rollout and of a step that are computed differently, or in
/// different types: in bf16 that is far from 1, since a sum of eight roundings is.
fn in_bf16_the_first_ratios_are_1(sets: &[&str]) {
    let lab = lab(PPO);
    lab.run(&[sets, &[BF16]].concat()).succeeds();
    let [ratio, clipped] = ["val/ratio", "policy/clipfrac_avg"].map(|name| lab.tiny_run().train(name));
    for first in [0, 4, 8] {
        assert!((ratio[first] - 1.0).abs() < 1e-3 && clipped[first] == 0.0, "{ratio:?}, {clipped:?}");
    }
}
