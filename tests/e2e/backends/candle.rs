//! candle in bf16 through the built program.

use crate::support::{
    experiments::{PPO, lab},
    lab::{Lab, close},
};

const BF16: &str = "backend.dtype=bf16";

/// Catches a mode that computes in f32 nevertheless, one that loses its master weights to rounding, and a log-softmax in bf16.
#[test]
fn gotcha_07_bf16_on_candle_trains_close_to_f32_but_not_equal() {
    for path in ["backend.path=kernels", "backend.path=generic"] {
        let (narrow, wide) = (Lab::tiny(), Lab::tiny());
        narrow.run(&[BF16, path]).succeeds();
        wide.run(&[path]).succeeds();
        let (a, b) = (narrow.tiny_run().train("loss"), wide.tiny_run().train("loss"));
        close(a[7], b[7], 2e-2, "loss of the last step in bf16 and f32");
        assert!(a[7] != b[7] && a[7] < a[0] - 0.05, "{a:?}, {b:?}");
        // Fresh weights give logits near 0, whose rounding costs nothing; a log-softmax in bf16 has steps of 1/32 at ln 257.
        close(a[0], b[0], 1e-4, "loss of the first step in bf16 and f32");
    }
}

/// Catches log-probabilities of a rollout and of a step that are computed differently, or in different types: in bf16 that is far
/// from 1, since a sum of eight roundings is.
#[test]
fn gotcha_07_27_in_bf16_on_candle_the_first_ratios_are_1_too() {
    let lab = lab(PPO);
    lab.run(&[BF16]).succeeds();
    let [ratio, clipped] = ["val/ratio", "policy/clipfrac_avg"].map(|name| lab.tiny_run().train(name));
    for first in [0, 4, 8] {
        assert!((ratio[first] - 1.0).abs() < 1e-3 && clipped[first] == 0.0, "{ratio:?}, {clipped:?}");
    }
}
