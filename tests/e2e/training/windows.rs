//! What belongs to a window: its step, sequences that do not count, and `prepare` with its statistics. The objectives are in
//! `tests/plugins/windows`.

use serde_json::json;

use crate::support::{
    kills::{kill_at, start_or_resume, with_enough_steps},
    lab::{Lab, ROWS, Run, SMALL, TINY, close, some_text},
};

/// Windows of 20 sequences of 16 positions, for the objectives of running text.
fn text(plugin: &str) -> Lab {
    let lab = Lab::new();
    let tiny = TINY.replace("source = \"synthetic\"\nrows = 200", "path = \"text.txt\"");
    let tiny = tiny.replace("batch = { tokens = 128 }", "batch = { sequences = 20 }");
    lab.write("tiny.toml", tiny.replace("plugin = \"ce\"", &format!("plugin = \"{plugin}\"")));
    lab.write("text.txt", some_text(1500));
    lab
}

/// Windows of 8 labelled rows, from which the objective composes 16 sequences.
fn labelled() -> Lab {
    let lab = Lab::new();
    let rest = "[objective]\nplugin = \"mismatched\"\n\n[train]\nsteps = 8\nbatch = { sequences = 8 }\n\
                optimizer = { lr = 3e-3 }\n\n[eval]\nevery = 4\n\n[checkpoint]\nevery = 4\n";
    lab.write("tiny.toml", format!("{SMALL}{ROWS}{rest}"));
    let row = |i: u64| {
        let good = i.is_multiple_of(2);
        json!({"prompt": format!("{i}? "), "completion": if good { "yes" } else { "well, no" }, "label": good})
    };
    lab.write("rows.jsonl", (0..60).map(|i| format!("{}\n", row(i))).collect::<String>());
    lab
}

const EXACT: &str = "backend={plugin=\"reference\",dtype=\"f64\"}";

/// Runs `tiny.toml` with windows cut as `cuts` says (micro-batches and the tokens of one), on the reference backend, and once on
/// candle. Fails unless loss, gradient and `keys` are the same. Returns the uncut run.
fn same_for_every_cut(lab: &Lab, cuts: [(u64, &str); 3], sets: &[&str], keys: &[&str]) -> Run {
    let run = |name: &str, more: &[&str]| {
        let name_set = format!("name={name}");
        let sets = [sets, &[name_set.as_str(), "train.steps=4"], more].concat();
        lab.run(&sets).succeeds();
        Run(lab.at(&format!("runs/{name}")))
    };
    let mut whole: Option<Run> = None;
    for (parts, tokens) in cuts {
        let cut = format!("train.micro_batch_tokens={tokens}");
        let found = lab.check("tiny.toml", &[sets, &[cut.as_str()]].concat());
        assert_eq!(found["micro_batches"], parts, "{found}");
        let own = run(&format!("cut{parts}"), &[&cut, EXACT]);
        let whole = whole.get_or_insert_with(|| Run(lab.at(&format!("runs/cut{parts}"))));
        for key in [&["loss", "grad_norm", "token_accuracy"], keys].concat() {
            for (step, (a, b)) in own.train(key).into_iter().zip(whole.train(key)).enumerate() {
                let tolerance = if step == 0 { 1e-12 } else { 1e-9 };
                close(a, b, tolerance, &format!("{key} of step {} in {parts} parts", step + 1));
            }
        }
        close(own.eval("eval/loss")[0], whole.eval("eval/loss")[0], 1e-12, "the evaluation before step 1");
    }
    let whole = whole.expect("a run");
    let candle = run("candle", &[&format!("train.micro_batch_tokens={}", cuts[1].1)]);
    for key in ["loss", "grad_norm"] {
        for (step, (a, b)) in candle.train(key).into_iter().zip(whole.train(key)).enumerate() {
            close(a, b, 1e-4, &format!("{key} of step {} on candle", step + 1));
        }
    }
    whole
}

/// Kills the run after a checkpoint and resumes it: it leaves the same bits as an undisturbed one.
fn resumes_exactly(lab: fn() -> Lab, sets: &[&str]) {
    with_enough_steps(40, |steps| {
        let length = format!("train.steps={steps}");
        let all = [&[length.as_str(), "checkpoint.every=1", "eval.every=5"], sets].concat();
        let (killed, whole) = (lab(), lab());
        let was_running = kill_at(&killed, &all, &killed.tiny_run(), [3]);
        start_or_resume(&killed, &all).answer().succeeds();
        whole.run(&all).succeeds();
        killed.tiny_run().equals(&whole.tiny_run(), steps);
        was_running
    });
}

/// Catches a step that counts from 0, micro-batches or processes; one that `prepare`, `loss` or an evaluation gets otherwise; and
/// `steps` that is not the run's.
#[test]
fn a_loss_is_annealed_by_the_step_of_its_window() {
    let lab = text("annealed");
    lab.run(&["train.micro_batch_tokens=80"]).succeeds();
    let run = lab.tiny_run();
    let expected: Vec<f64> = (0..8).map(|step| 1.0 - f64::from(step) / 8.0).collect();
    for key in ["factor", "prepared"] {
        for (step, (found, expected)) in run.train(key).into_iter().zip(&expected).enumerate() {
            close(found, *expected, 1e-12, &format!("{key} of step {}", step + 1));
        }
        // Evaluations before step 1 and after the steps 4 and 8.
        let evaluated = run.eval(&format!("eval/{key}"));
        for (found, expected) in evaluated.iter().zip([1.0, 1.0 - 3.0 / 8.0, 1.0 - 7.0 / 8.0]) {
            close(*found, expected, 1e-12, &format!("{key} of an evaluation"));
        }
        assert_eq!(evaluated.len(), 3);
    }
    same_for_every_cut(&text("annealed"), [(1, "320"), (2, "176"), (4, "80")], &[], &["factor"]);
}

/// Catches a step that begins again at 1 in a resumed run.
#[test]
fn gotcha_42_an_annealed_run_that_is_killed_leaves_the_same_bits() {
    resumes_exactly(|| text("annealed"), &[]);
}

/// Catches a baseline of the micro-batch instead of the window, statistics of another window, a gradient that flows through
/// `prepare`, a coupled loss that is computed otherwise, and an evaluation whose `prepare` sees the data only.
#[test]
fn gotcha_01_prepare_reads_the_statistics_of_the_whole_window() {
    let lab = text("baseline");
    let cuts = [(1, "320"), (2, "176"), (4, "80")];
    let whole = same_for_every_cut(&lab, cuts, &[], &["baseline"]);
    // The mean log-probability of fresh weights, and what the loss is without the distance from it.
    let (loss, baseline) = (whole.train("loss")[0], whole.train("baseline")[0]);
    assert!((baseline + 257f64.ln()).abs() < 0.2 && loss > -baseline && loss < 0.2 - baseline, "{loss} {baseline}");
    let coupled = text("baseline");
    let coupled = same_for_every_cut(&coupled, cuts, &["objective.coupled=true"], &["baseline"]);
    for key in ["loss", "grad_norm", "baseline"] {
        for (a, b) in coupled.train(key).into_iter().zip(whole.train(key)) {
            close(a, b, 1e-9, key);
        }
    }
    // What is not required is not there, and the message names it.
    for command in ["run", "check"] {
        let answer = lab.ask(&[command, "tiny.toml", "--set", "name=none", "--set", "objective.window=false"]);
        answer.refuses(1, &["baseline: `prepare`: the batch has no array `logp`"]);
    }
}

/// Catches sequences that count although `compose` says that they do not, numbers of tokens that arrive beside other tokens, and
/// a constant of the micro-batch instead of the window.
#[test]
fn gotcha_01_24_mismatched_sequences_estimate_a_constant_and_do_not_count() {
    let lab = labelled();
    let whole = same_for_every_cut(&lab, [(1, "4096"), (2, "96"), (3, "48")], &[], &["z"]);
    // The mean over the 8 labelled rows, not over the 16 sequences.
    for (loss, mean) in whole.train("loss").into_iter().zip(whole.train("mean_loss")) {
        close(loss, mean, 1e-12, "the loss per sequence that counts");
    }
    close(whole.eval("eval/loss")[0], whole.eval("eval/mean_loss")[0], 1e-12, "the evaluated loss");
    let run = lab.run(&["train.steps=30", "name=long"]);
    run.succeeds();
    let loss = Run(lab.at("runs/long")).train("loss");
    assert!(loss[29] < loss[0], "{loss:?}");
}

/// Catches sequences or arrays of `compose` that differ after a resume.
#[test]
fn gotcha_42_a_run_with_mismatched_sequences_that_is_killed_leaves_the_same_bits() {
    resumes_exactly(labelled, &[]);
}
