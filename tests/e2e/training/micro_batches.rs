//! The split of an optimizer step into micro-batches changes neither loss nor gradient.

use crate::support::lab::{Lab, Run, TINY, close, some_text};

/// Twenty sequences of 16 positions per step, in parts of unequal sizes, so that a mean of means is detected.
const CUTS: [(usize, &str); 5] = [(1, "320"), (2, "176"), (3, "128"), (7, "48"), (20, "16")];

fn cut_runs(backend: &[&str], first: f64, later: f64) {
    let lab = Lab::new();
    lab.write("tiny.toml", TINY.replace("source = \"synthetic\"\nrows = 200", "path = \"text.txt\""));
    lab.write("text.txt", some_text(1500));
    let common = ["train.batch={sequences=20}", "train.steps=5"];
    let mut whole: Option<Run> = None;
    for (parts, tokens) in CUTS {
        let (cut, name) = (format!("train.micro_batch_tokens={tokens}"), format!("name=cut{parts}"));
        let mut sets: Vec<&str> = common.into_iter().chain(backend.iter().copied()).collect();
        sets.extend([cut.as_str(), name.as_str()]);
        // The test is void unless the step is split into this number of parts.
        let found = lab.check("tiny.toml", &sets);
        assert_eq!(found["micro_batches"], parts, "{found}");

        lab.run(&sets).succeeds();
        let run = Run(lab.at(&format!("runs/cut{parts}")));
        let Some(whole) = &whole else {
            whole = Some(run);
            continue;
        };
        for key in ["loss", "grad_norm", "token_accuracy"] {
            let (ours, theirs) = (run.train(key), whole.train(key));
            assert_eq!((ours.len(), theirs.len()), (5, 5));
            for (step, (a, b)) in ours.into_iter().zip(theirs).enumerate() {
                let tolerance = if step == 0 { first } else { later };
                close(a, b, tolerance, &format!("{key} of step {} in {parts} parts", step + 1));
            }
        }
    }
}

/// Catches a mean of micro-batch means (the parts are unequal), a denominator of one part only, and a gradient that the
/// next part overwrites instead of adding to it. The last cut is one sequence a part, so it also catches attention
/// across packed sequences and positions that do not restart.
#[test]
fn gotcha_01_06_any_cut_gives_the_same_loss_and_gradient_on_candle() {
    cut_runs(&[], 1e-6, 1e-5);
}

/// As above, without the rounding of f32.
#[test]
fn gotcha_01_06_any_cut_gives_the_same_loss_and_gradient_on_the_reference() {
    cut_runs(&["backend={plugin=\"reference\",dtype=\"f64\"}"], 1e-12, 1e-9);
}

/// Catches terms whose own denominators are lost, and statistics that are not those of the part's tokens: the z-loss goes
/// the way of objectives that are not linear.
#[test]
fn gotcha_01_any_cut_gives_the_same_for_an_objective_that_is_not_linear() {
    cut_runs(&["objective.z_loss=0.01", "objective.label_smoothing=0.1"], 1e-6, 1e-5);
}
