//! Whole runs of the objectives that learn from labels, from pairs without a reference, and from rewritten text.

use serde_json::{Value, json};

use super::other_authors::{lab, trains};
use crate::support::lab::{Lab, Run, SMALL, close};

/// KTO: labels, and mismatched sequences that count in no normaliser.
const KTO: &str = r#"
[objective]
plugin = "kto"
beta = 0.5

[train]
steps = 12
batch = { sequences = 8 }
optimizer = { lr = 3e-3 }
"#;

/// SimPO.
const SIMPO: &str = r#"
[objective]
plugin = "simpo"

[train]
steps = 12
batch = { pairs = 8 }
optimizer = { lr = 3e-3 }
"#;

/// ORPO whose prompts are learned.
const ORPO: &str = r#"
[objective]
plugin = "orpo"
nll = "row"
beta = 0.5

[train]
steps = 12
batch = { pairs = 8 }
optimizer = { lr = 3e-3 }
"#;

/// Catches a memory check that composes with other rows than a step's, a label that is lost in `compose`, and a
/// reference point with a gradient (then the first loss is right and the answers' rewards do not separate).
#[test]
fn gotcha_24_kto_trains_on_labels() {
    let row = |i: u64| {
        let good = i.is_multiple_of(2);
        json!({"prompt": format!("{i}? "), "completion": if good { "yes" } else { "well, no" }, "label": good})
    };
    let lab = lab(KTO, row);
    let run = trains(&lab, &[]);
    // Policy and reference are the same model at first: every answer is worth 1 - sigmoid(0).
    for loss in [run.train("loss")[0], run.eval("eval/loss")[0]] {
        close(loss, 0.5, 1e-6, "the first loss");
    }
    assert_eq!(run.train("kl")[0], 0.0);
    let last = |name: &str| run.train(name)[11];
    assert!(last("loss") < 0.49 && last("rewards/desirable") > last("rewards/undesirable"), "{:?}", run.train("loss"));
}

/// Catches sums for means, sides exchanged, and a target margin that is left out or scaled: at first all pairs have about the same
/// margin m, so that the loss is softplus(gamma - m).
#[test]
fn simpo_trains_without_a_reference() {
    let lab = lab(SIMPO, |i| json!({"prompt": format!("{i}? "), "chosen": "yes", "rejected": "well, no"}));
    let run = trains(&lab, &[]);
    let (loss, margin) = (run.train("loss"), run.train("rewards/margin"));
    close(loss[0], (1.0 + (1.0 - margin[0]).exp()).ln(), 1e-2, "the first loss");
    assert!(margin[0].abs() < 0.5 && margin[11] > 1.0 && loss[11] < 0.5, "{loss:?} {margin:?}");
}

fn pair(i: u64) -> Value {
    json!({"prompt": format!("{i}? "), "chosen": "yes", "rejected": "well, no"})
}

/// Catches an array out of `compose` that is not shifted to the targets (then the odds are of a prompt's last token, and not of an
/// answer's last one), a likelihood that is divided by other tokens than it adds up, and pairs that are cut apart: another
/// size of the micro-batches then gives another run.
#[test]
fn gotcha_25_orpo_learns_prompts_and_answers_however_the_window_is_cut() {
    let lab = lab(ORPO, pair);
    let run = trains(&lab, &[]);
    let (loss, odds) = (run.train("loss"), run.train("log_odds"));
    assert!(loss[11] < loss[0] && odds[11] > odds[0], "{loss:?} {odds:?}");
    lab.run(&["name=cut", "train.micro_batch_tokens=48"]).succeeds();
    let cut = Run(lab.at("runs/cut"));
    for name in ["loss", "nll", "odds", "log_odds", "logps/chosen", "grad_norm"] {
        close(cut.train(name)[0], run.train(name)[0], 1e-5, name);
    }
}

/// Catches ids beyond the tokenizer's that the model's vocabulary has and the host refuses, sequences that outgrow the context,
/// and draws that a resumed run does not repeat.
#[test]
fn fim_trains_with_sentinels_of_the_models_vocabulary() {
    let fim = r#"
[objective]
plugin = "fim"

[train]
steps = 8
batch = { tokens = 256 }
optimizer = { lr = 3e-3 }

[eval]
every = 4

[checkpoint]
every = 4
"#;
    let small = SMALL.replace("[model]", "[model]\nvocab = 260");
    let lab = Lab::new();
    let data = "\n[data]\nsource = \"synthetic\"\nrows = 400\n";
    lab.write("tiny.toml", format!("{small}{data}{fim}"));
    let run = trains(&lab, &[]);
    close(run.train("loss")[0], 260.0_f64.ln(), 0.1, "the first loss");
    let shares = run.train("rewritten");
    assert!(shares.iter().all(|share| (0.1..0.9).contains(share)), "{shares:?}");
    lab.run(&["name=again"]).succeeds();
    let again = Run(lab.at("runs/again"));
    assert_eq!(again.train("loss"), run.train("loss"));
}

/// Catches sentinels that the model lacks or that texts contain, and a context without room for them: such a run learned nothing about
/// filling in, in silence. The remedy of each refusal works.
#[test]
fn sentinels_that_cannot_work_are_refused_by_their_option() {
    let lab = Lab::new();
    let small = SMALL.replace("[model]", "[model]\nvocab = 260");
    let train = "[train]\nsteps = 1\nbatch = { tokens = 256 }\noptimizer = { lr = 3e-3 }\n";
    let data = "[data]\nsource = \"synthetic\"\nrows = 400\n";
    lab.write("tiny.toml", format!("{small}\n{data}\n[objective]\nplugin = \"fim\"\n{train}"));
    for (sets, parts) in [
        (&["model.vocab=258"][..], &["objective.suffix_id", "objective.middle_id", "set model.vocab = 260"][..]),
        (&["objective.prefix_id=97"], &["objective.prefix_id", "the id 97 (\"a\") occurs in the data", "document 0"]),
        (&["objective.prefix_id=9007199254740993"], &["objective.prefix_id", "2147483647"]),
        (
            &["model.context=3"],
            &["objective", "needs a context length of at least 4 tokens, the model's is 3; raise model.context"],
        ),
        (
            &["objective={plugin=\"unlikelihood\",candidates=4096}"],
            &["objective.candidates", "lower candidates, or raise model.context"],
        ),
        (&["objective={plugin=\"unlikelihood\",alpha=1e9}"], &["objective.alpha", "1000"]),
    ] {
        for command in ["check", "run"] {
            let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
            lab.ask(&[&[command, "tiny.toml"], &sets[..]].concat()).refuses(2, parts);
        }
    }
    lab.check("tiny.toml", &[]);
}
