//! Results of objectives and rewards that the host refuses, each by plugin, call and name.

use serde_json::Value;

use super::odd::{heading, odd, odd_rollouts};
use crate::support::{
    experiments::{PPO, lab},
    lab::Lab,
};

/// Catches an odd objective that is always refused: the faults below would then show nothing.
#[test]
fn the_odd_objective_passes_without_a_fault() {
    let (lab, answer) = odd("none", &["train.steps=3"]);
    answer.succeeds();
    lab.tiny_run().has_steps(3);
    let (_, composed) = odd("compose-sound", &["train.steps=3"]);
    composed.succeeds();
}

/// Catches a result of `loss` that trains on nothing, on twice the gradient, or on undeclared numbers, with exit code 0; and a
/// heading that suggests a lack of memory.
#[test]
fn wrong_results_of_loss_are_refused_by_plugin_call_and_name() {
    for (fault, parts) in [
        ("no-terms", &["no term"][..]),
        ("no-cotangents", &["no cotangents", "`nll`"]),
        ("term-twice", &["the term `nll` twice"]),
        ("cotangent-twice", &["two cotangents of `logp`", "`nll`"]),
        ("not-required", &["`lse`", "`nll`", "does not require"]),
        ("long-cotangent", &["cotangents of `logp`", "`nll`", "expected"]),
        ("false-linear", &["`linear`", "`logp`", "`nll`", "token"]),
        ("nan-cotangent", &["`nll`", "`logp` is NaN at token", "of sequence"]),
        ("infinite-sum", &["`nll` is inf"]),
        ("nan-coefficient", &["coefficient of the term `nll` is NaN"]),
        ("metric-twice", &["the metric `sum` twice"]),
        ("metric-undeclared", &["the metric `surprise`", "does not declare"]),
        ("metric-weight", &["weight of the metric `sum` is -1"]),
        ("metric-nan", &["the metric `sum` has the value NaN"]),
    ] {
        let (lab, answer) = odd(fault, &[]);
        answer.refuses(1, parts);
        let heading = heading(&answer);
        assert!(heading.starts_with("error: objective \"odd\", call `loss`: "), "{fault}: {answer:#?}");
        assert!(!answer.err.contains("learning rate"), "{fault}: {answer:#?}");
        assert!(!lab.tiny_run().0.exists(), "{fault}: a failed start leaves nothing");
        // `check` refuses what a run refuses.
        let set = format!("objective.fault=\"{fault}\"");
        let check = lab.ask(&["check", "tiny.toml", "--set", "objective.plugin=odd", "--set", &set]);
        check.refuses(1, parts);
        assert_eq!(self::heading(&check), heading, "{fault}");
    }
}

/// Catches a fault of a later step that loses the steps before it, and NaN without the row that it came from.
#[test]
fn gotcha_43_a_fault_of_a_later_step_keeps_the_earlier_steps() {
    for fault in ["nan-cotangent", "term-twice"] {
        let (lab, answer) = odd(fault, &["objective.at_step=3", "eval.every=0"]);
        answer.refuses(1, &["objective \"odd\", call `loss`", "step 2 is saved as step-00000002", "--resume"]);
        assert_eq!(answer.err.contains("is row "), fault == "nan-cotangent", "{answer:#?}");
        lab.tiny_run().has_steps(2);
        // The same in an evaluation.
        let (lab, answer) = odd(fault, &["objective.at_step=5", "eval.every=4"]);
        answer.refuses(1, &["objective \"odd\", call `loss`", "step-00000004"]);
        lab.tiny_run().has_steps(4);
    }
}

/// Catches arrays that replace the host's, and lengths that are only checked in rollouts.
#[test]
fn gotcha_57_wrong_results_of_prepare_are_refused_by_array() {
    for (fault, parts) in [
        ("prepare-mask", &["`mask`, an array of the host"][..]),
        ("prepare-target", &["`target`, an array of the host"]),
        ("prepare-logp", &["`logp`, an array of the host"]),
        ("prepare-short", &["as `own`", "one per token"]),
        ("prepare-long", &["as `own`", "one per sequence"]),
        ("prepare-scope", &["`own` per scope 7"]),
        ("prepare-nan", &["`own` is NaN at sequence 0"]),
        ("prepare-keep", &["`keep`", "rollouts"]),
        ("prepare-request", &["`request`", "rollouts"]),
    ] {
        let (_, answer) = odd(fault, &[]);
        answer.refuses(1, parts);
        assert!(heading(&answer).starts_with("error: objective \"odd\", call `prepare`: "), "{fault}: {answer:#?}");
    }
}

/// Catches sequences that the model cannot read, and numbers that are rounded or treated as true.
#[test]
fn wrong_results_of_compose_are_refused_by_place() {
    for (fault, parts) in [
        ("compose-vocab", &["token 1", "is 5000", "0 to 256"][..]),
        ("compose-fraction", &["token 1", "is 0.5"]),
        ("compose-long", &["has 5000 tokens", "expected at most 17"]),
        ("compose-short", &["has 1 tokens, expected at least 2"]),
        ("compose-mask", &["`mask` is 0.5"]),
        ("compose-row", &["row 1000000000, which was not given"]),
        ("compose-reward", &["`reward`, an array of the host"]),
        ("compose-nothing", &["no array `token`"]),
        ("compose-descending", &["`offsets` must ascend from 0"]),
        ("compose-offset-nan", &["`offsets`[1] is NaN"]),
        ("compose-offset-huge", &["`token` holds 8 values"]),
        ("compose-offset-none", &["`offsets`"]),
        ("compose-columns", &["`row` per sequence with 0 columns"]),
        ("compose-as-token-row", &["`row` per token", "one per sequence"]),
        ("compose-as-batch-token", &["`token` per batch", "one per token"]),
        ("compose-as-sequence-mask", &["`mask` per sequence", "one per token"]),
        ("compose-as-sequence-offsets", &["`offsets` per sequence", "one per batch"]),
        ("compose-as-batch-group", &["`group` per batch", "one per sequence"]),
        ("compose-as-odd-column.x", &["`column.x` per scope 9", "one per sequence"]),
    ] {
        let (_, answer) = odd(fault, &[]);
        answer.refuses(1, parts);
        assert!(heading(&answer).contains("objective \"odd\", call `compose`"), "{fault}: {answer:#?}");
    }
    let (_, answer) = odd("compose-unsupervised", &[]);
    answer.refuses(1, &[]);
    assert!(heading(&answer).contains("objective \"odd\", call `compose`"), "{answer:#?}");
}

/// Catches laws that read an array by its name and not by its scope: the process of the laws panics then, and a broken plugin looks
/// like broken laws.
#[test]
fn the_laws_name_an_array_of_the_wrong_scope() {
    for (scope, name) in
        [("batch", "token"), ("sequence", "token"), ("batch", "mask"), ("odd", "mask"), ("token", "row")]
    {
        let lab = Lab::new();
        let option = format!("fault=compose-as-{scope}-{name}");
        let answer = lab.ask(&["plugins", "verify", "odd", "--option", &option, "--limit", "60"]);
        answer.refuses(1, &["breaks laws", "compose"]);
        assert!(answer.out.contains(&format!("`{name}` per ")), "{option}: {answer:#?}");
        assert!(!answer.out.contains("ended the process") && !answer.out.contains("panicked"), "{option}: {answer:#?}");
    }
}

/// Catches a normaliser that reverses the gradient, makes it NaN, or removes a term.
#[test]
fn wrong_results_of_weigh_are_refused_by_term() {
    for (fault, parts) in [
        ("weigh-zero", &["normaliser is 0 over the window", "`own`"][..]),
        ("weigh-negative", &["-1 as normaliser of the term `own`"]),
        ("weigh-nan", &["NaN as normaliser of the term `own`"]),
        ("weigh-missing", &["no weight for the term `own`"]),
        ("weigh-twice", &["two weights for the term `own`"]),
        ("weigh-unknown", &["`nll`, which is not a term with a custom normaliser"]),
    ] {
        let (_, answer) = odd(fault, &[]);
        answer.refuses(1, parts);
        assert!(heading(&answer).starts_with("error: objective \"odd\", call `weigh`: "), "{fault}: {answer:#?}");
    }
    let (_, sound) = odd("weighed", &["train.steps=2"]);
    sound.succeeds();
}

/// Catches an invalid verdict, state or requirement that is ignored.
#[test]
fn invalid_verdicts_states_and_requirements_are_refused() {
    for (fault, code, parts) in [
        ("verdict", 1, &["call `after_step`", "the verdict 7"][..]),
        ("end-rollout", 1, &["call `after_step`", "END_ROLLOUT", "no rollouts"]),
        ("state-refused", 1, &["odd: `restore`: these 8 bytes are not mine"]),
        ("state-lost", 1, &["call `restore`", "8 bytes", "a different run"]),
        ("changing-requirements", 1, &["call `requirements`", "before:", "now:", "lse"]),
        ("requires-nothing", 2, &["call `requirements`", "no statistic"]),
        ("requires-unknown", 2, &["the statistic `logits`", "does not compute", "computed here: logp"]),
    ] {
        let (_, answer) = odd(fault, &[]);
        answer.refuses(code, parts);
        assert!(heading(&answer).contains("odd"), "{fault}: {answer:#?}");
    }
}

/// Catches a metric that replaces the host's number in metrics.jsonl, and mistakes of a manifest that are reported one at a time.
#[test]
fn gotcha_57_names_of_host_arrays_are_refused_when_the_plugin_is_loaded() {
    let lab = Lab::tiny();
    let answer = lab.run(&["objective.plugin=owned-names"]);
    answer.refuses(2, &["objective \"owned-names\", call `manifest`", "`grad_norm`", "`reward/length`", "rename it"]);
    assert!(!lab.at("runs").exists());
    lab.ask(&["check", "tiny.toml", "--set", "objective.plugin=owned-names"]).refuses(2, &["`grad_norm`"]);
}

/// Catches a plugin that ends the process, and with it all further steps, with the exit code of a run that is done.
#[test]
fn a_plugin_that_calls_exit_fails_the_run_whatever_the_call() {
    for call in
        ["create", "requirements", "compose", "prepare", "weigh", "loss", "after_step", "state", "restore", "destroy"]
    {
        let (_, answer) = odd(&format!("exit-{call}"), &["train.steps=2"]);
        answer.refuses(1, &["exited with code 0", "plugin `odd`", &format!("call `{call}`")]);
    }
    let within = ["plugin `odd`", "call `loss`", "step 3"];
    for (fault, expected) in
        [("exit-2-loss", "exited with code 2"), ("quick-exit-loss", "exited with code 0"), ("abort-loss", "SIGABRT")]
    {
        let (lab, answer) = odd(fault, &["objective.at_step=3", "checkpoint.every=1", "eval.every=0"]);
        answer.refuses(1, &within);
        answer.refuses(1, &[expected, "the last checkpoint is", "step-00000002", "--resume"]);
        lab.tiny_run().has_steps(2);
    }
    let lab = Lab::tiny();
    lab.run(&["objective.plugin=exits-in-manifest"])
        .refuses(1, &["`exits-in-manifest`, call `manifest`, before step 1"]);
    let check = ["check", "tiny.toml", "--set", "objective.plugin=odd", "--set", "objective.fault=exit-loss", "--json"];
    let check = lab.ask(&check);
    check.refuses(1, &["exited with code 0", "plugin `odd`, call `loss`"]);
    assert_eq!(check.out, "");
    lab.ask(&["plugins", "show", "exits-in-manifest"]).refuses(1, &["plugin `exits-in-manifest`, call `manifest`"]);
}

/// Catches a thread's panic that ends the run of a plugin which has caught it.
#[test]
fn a_caught_panic_in_a_thread_does_not_end_the_run() {
    let (_, answer) = odd("thread-panics", &["train.steps=2"]);
    answer.succeeds();
    assert!(answer.err.contains("a thread of a plugin"), "{answer:#?}");
}

/// Catches output of a plugin within the JSON that telos prints.
#[test]
fn plugin_output_goes_to_standard_error() {
    let lab = Lab::tiny();
    let sets = ["--set", "objective.plugin=odd", "--set", "objective.fault=prints"];
    for (command, key) in [("run", "steps"), ("check", "parameters")] {
        let answer = lab.ask(&[&[command, "tiny.toml", "--json"][..], &sets].concat());
        // Of a run the events, of which the last one is its result.
        let parsed = |line| serde_json::from_str::<Value>(line).unwrap_or_else(|e| panic!("{e}: {answer:#?}"));
        let found: Vec<Value> = answer.succeeds().lines().map(parsed).collect();
        assert!(found.last().is_some_and(|last| last[key].is_u64()), "{answer:#?}");
        assert!(answer.err.contains("a line of a plugin"), "{answer:#?}");
    }
    let plain = lab.ask(&[&["run", "tiny.toml", "--name", "plain"][..], &sets].concat());
    assert!(plain.succeeds().contains("8 steps") && !plain.out.contains("a line of a plugin"), "{plain:#?}");
}

/// Catches rollouts whose rewards or groups an objective replaces, samples of which only a part is kept, and numbers per token that
/// go to other tokens.
#[test]
fn gotcha_57_wrong_results_of_prepare_for_rollouts_are_refused_by_array() {
    for (fault, parts) in [
        ("keep-half", &["`keep` is 0.5 for sequence 1, expected 0 or 1", "is row "][..]),
        ("keep-nan", &["`keep` is NaN at sequence 1"]),
        ("request", &["0.5 as `request`", "a whole number"]),
        ("group", &["`group`, an array of the host"]),
        ("reward", &["`reward`, an array of the host"]),
        ("ended", &["`ended`, an array of the host"]),
        ("column", &["`column.margin`, an array of the host"]),
        ("short", &["as `advantage`", "one per token"]),
        ("nan", &["`advantage` is NaN at token"]),
    ] {
        let (_, answer) = odd_rollouts(fault, &["train.steps=2"]);
        answer.refuses(1, parts);
        let heading = heading(&answer);
        assert!(heading.starts_with("error: objective \"odd-rollouts\", call `prepare`: "), "{fault}: {answer:#?}");
    }
    odd_rollouts("keep-none", &["train.steps=2"])
        .1
        .refuses(1, &["\"odd-rollouts\" keeps no answer of 21 rollouts in a row", "model.from"]);
    odd_rollouts("verdict", &["train.steps=2"]).1.refuses(1, &["call `after_step`", "verdict 4294967295"]);
}

/// Catches a checkpoint within a rollout that cannot be read again: JSON has no NaN, which the objective left behind
/// the mask.
#[test]
fn nan_behind_the_mask_from_prepare_does_not_break_a_checkpoint() {
    let sets = ["train.steps=3", "checkpoint.every=1", "checkpoint.keep=9", "rollout.epochs=1"];
    let (lab, answer) = odd_rollouts("none", &sets);
    answer.succeeds();
    let saved = lab.tiny_run().saved(1, "rollout.json");
    assert!(!String::from_utf8(saved).expect("UTF-8").contains("null"));
    odd_rollouts("keep-some", &sets).1.succeeds();
    odd_rollouts("end-rollout", &sets).1.succeeds();
}

/// Catches rewards of other answers, NaN that is learned from, and a line of a reward in JSON.
#[test]
fn wrong_results_of_a_reward_are_refused_by_name() {
    let with = |fault: &str| {
        let reward = format!("plugin = \"odd-reward\"\nfault = \"{fault}\"");
        lab(&PPO.replace("plugin = \"length\"\nunit = \"characters\"\ntarget = 4", &reward))
    };
    // Rows are tried before step 1: a failure for a row's own answer is a mistake of the request.
    for (fault, part) in [("short", "scores were returned"), ("nan", "NaN"), ("column", "the row has no `hidden`")] {
        let answer = with(fault).run(&[]);
        assert!(matches!(answer.code, Some(1 | 2)), "{answer:#?}");
        assert!(answer.err.contains("odd-reward") && answer.err.contains(part), "{answer:#?}");
    }
    with("exit-score").run(&[]).refuses(1, &["exited with code 0", "plugin `odd-reward`, call `score`"]);
    with("exit-create").run(&[]).refuses(1, &["plugin `odd-reward`, call `create`"]);
    let printed = with("prints").ask(&["run", "tiny.toml", "--json", "--set", "train.steps=2"]);
    let is_json = |line| serde_json::from_str::<Value>(line).is_ok();
    assert!(!printed.succeeds().is_empty() && printed.out.lines().all(is_json), "{printed:#?}");
}
