//! Objectives and rewards checked against their laws as built libraries, and on the first batch of a run.

use serde_json::Value;

use crate::support::lab::{Lab, ROWS, SMALL};
use crate::support::rig::{Answer, library, plugins};

fn verify(args: &[&str]) -> Answer {
    Lab::new().ask(&[&["plugins", "verify"], args].concat())
}

fn json(answer: &Answer) -> Value {
    serde_json::from_str(&answer.out).unwrap_or_else(|e| panic!("{e}: {answer:#?}"))
}

/// The names of the laws that are broken in a report.
fn broken(report: &Value) -> Vec<&str> {
    let laws = report["laws"].as_array().map(Vec::as_slice).unwrap_or_default();
    laws.iter().filter(|law| law["passed"] == false).filter_map(|law| law["name"].as_str()).collect()
}

/// Catches laws that a shipped plugin breaks, options that are never varied, and terms that no option set brings about.
#[test]
fn shipped_objectives_and_rewards_obey_their_laws() {
    for (args, sets) in [
        (&["ce"][..], 3),
        (&["sft"], 1),
        (&["dpo"], 15),
        (&["simpo"], 5),
        (&["cpo"], 7),
        (&["orpo"], 3),
        (&["kto"], 5),
        (&["unlikelihood"], 3),
        // Its sentinels are ids of their own.
        (&["fim"], 5),
        (&["reward"], 2),
        (&["ppo"], 15),
        (&["grpo"], 20),
        (&["online-dpo"], 3),
        (&["best-of-n"], 2),
        (&["length"], 1),
        (&["exact"], 3),
        (&["mention", "--option", "words=[\"answer\"]"], 2),
        (&["world", "--prompt", "add: 2 + 3\n"], 1),
    ] {
        let answer = verify(&[args, &["--json"]].concat());
        let report = json(&answer);
        assert_eq!(broken(&report), Vec::<&str>::new(), "{args:?}: {report:#}");
        answer.succeeds();
        let options = report["options"].as_array().map_or(0, Vec::len);
        assert!(options >= sets, "{args:?}: {options} option sets");
    }
}

/// Catches differences that move a detached value of a plugin whose tape lies behind the boundary, and a forgotten detach that
/// passes because the value does not show it.
#[test]
fn gotcha_56_stop_gradients_of_a_loaded_library_are_held_constant() {
    for (plugin, expected) in [
        ("kto-held", &[][..]),
        ("kto-by-hand", &[]),
        ("kto-forgotten", &["stop-gradients"]),
        ("kto-undeclared", &["cotangents", "stop-gradients"]),
    ] {
        let answer = verify(&[plugin, "--json"]);
        let report = json(&answer);
        assert_eq!(broken(&report), expected, "{plugin}: {report:#}");
        assert_eq!(answer.code, Some(i32::from(!expected.is_empty())), "{answer:#?}");
        if expected.is_empty() {
            assert!(report.to_string().contains("1 detached values held constant"), "{report:#}");
        }
    }
}

/// Catches a result without its law, its meaning, its numbers or the smallest case.
#[test]
fn a_broken_law_is_reported_with_its_meaning_error_and_smallest_case() {
    let answer = verify(&["wrong-cotangent-sign"]);
    answer.refuses(1, &["objective `wrong-cotangent-sign` breaks laws: cotangents"]);
    let row = answer.out.lines().find(|line| line.starts_with("cotangents")).unwrap_or_default();
    for part in ["FAILED", "they are the derivatives of the sums", "2.0e0", "1.0e-6"] {
        assert!(row.contains(part), "`{part}` is missing in {answer:#?}");
    }
    assert!(
        answer.out.contains("smallest counterexample: 1 sequence of 2 tokens; mask [1, 0]; logp [-"),
        "{answer:#?}"
    );
    assert!(answer.out.lines().last().is_some_and(|line| line.starts_with("FAILED: 1 of 18 laws")), "{answer:#?}");
}

/// Catches a wrong sign that is not reported where a value is expected, and a mean that counts as a sum.
#[test]
fn common_mistakes_break_their_laws() {
    for (plugin, laws) in [
        ("wrong-sign", &["expectations"][..]),
        ("mean-for-sum", &["additivity", "expectations"]),
        ("flat", &["expectations"]),
        ("nan-cotangents", &["declared", "cotangents"]),
        ("rank", &["independent"]),
        ("bytes", &["unusual"]),
    ] {
        let answer = verify(&[plugin, "--json"]);
        let report = json(&answer);
        for law in laws {
            assert!(broken(&report).contains(law), "{plugin}: {law}: {report:#}");
        }
        assert_eq!(answer.code, Some(1), "{answer:#?}");
    }
    verify(&["undeclared-column"]).refuses(2, &["scores no sample", "no column `target`"]);
}

/// Catches a plugin that ends the process before the report is written, and one whose early end counts as a success.
#[test]
fn a_plugin_that_ends_the_process_is_reported_as_failed_laws() {
    let answer = verify(&["exits-in-loss"]);
    answer.refuses(1, &["`exits-in-loss`"]);
    assert!(answer.out.contains("ended the process with code 0 before its report"), "{answer:#?}");
    assert!(answer.out.contains("cotangents  ") && answer.out.contains("passed  it is complete"), "{answer:#?}");
}

/// Catches a correct objective that is refused for a data column that the generator does not have.
#[test]
fn required_columns_are_generated_and_reported() {
    let answer = verify(&["by-column"]);
    assert!(answer.succeeds().contains("columns drawn: weight=0.5..2.0"), "{answer:#?}");
    let answer = verify(&["by-column", "--column", "weight=1..3", "--only", "normalisers"]);
    assert!(answer.succeeds().contains("columns drawn: weight=1..3"), "{answer:#?}");
}

/// Catches a file that is treated only as a backend, and options that are not passed on.
#[test]
fn a_library_of_an_objective_is_verified_under_the_options_given() {
    let file = library(&plugins(), "objective-ce");
    let answer =
        verify(&[&file.to_string_lossy(), "--option", "label_smoothing=0.3", "--option", "z_loss=0.5", "--json"]);
    answer.succeeds();
    let report = json(&answer);
    assert_eq!(report["options"].to_string(), r#"["label_smoothing = 0.3, z_loss = 0.5"]"#);
    assert_eq!(report["plugin"]["kind"], "objective");
}

/// Catches a run that trains on a contradiction, a check that misses it, a result that is not remembered, and a receipt that does
/// not record what was accepted.
#[test]
fn new_bytes_are_checked_on_the_first_batch_before_they_are_trained() {
    for (plugin, law) in [
        ("wrong-cotangent-sign", "cotangents: term `nll`"),
        ("wrong-sign", "expectations: `nll` should be"),
        ("mean-for-sum", "additivity: cut in two"),
        ("flat", "every cotangent of the first batch is 0"),
        ("squared-weight", "normalisers: `weigh` answers"),
    ] {
        let lab = Lab::tiny();
        let set = format!("objective.plugin={plugin}");
        let expected =
            ["breaks a law of objectives on the experiment's first batch", law, "telos plugins verify", "--unproved"];
        lab.run(&[&set]).refuses(1, &expected);
        assert!(!lab.tiny_run().0.exists(), "{plugin}: a failed start leaves nothing");
        lab.ask(&["check", "tiny.toml", "--set", &set]).refuses(1, &expected);
        // A refused objective is refused again: the lock does not record it as proved.
        let again = lab.ask(&["run", "tiny.toml", "--set", &set, "--name", "again"]);
        again.refuses(1, &expected);
        let args = ["run", "tiny.toml", "--set", &set, "--name", "unproved", "--unproved"];
        lab.ask(&args).succeeds();
        let receipt: Value =
            serde_json::from_slice(&std::fs::read(lab.at("runs/unproved/receipt.json")).expect("a receipt"))
                .expect("JSON");
        assert!(receipt["unproved"][0].as_str().is_some_and(|line| line.contains(law)), "{receipt:#}");
    }
    let lab = Lab::tiny();
    lab.run(&[]).succeeds();
    let lock = std::fs::read_to_string(lab.at("runs/plugins.lock")).expect("a lock");
    let ce = lock.split("[[plugin]]").find(|pin| pin.contains("\"ce\"")).expect("a pin");
    assert!(!ce.contains("unproved"), "{lock}");
    let receipt = std::fs::read_to_string(lab.at("runs/tiny/receipt.json")).expect("a receipt");
    assert!(!receipt.contains("unproved"), "{receipt}");
}

/// Catches a check that advances the data: the run would learn from its second window first.
#[test]
fn checking_an_objective_changes_no_bit_of_the_run() {
    let (first, second) = (Lab::tiny(), Lab::tiny());
    first.run(&[]).succeeds();
    second.run(&["train.steps=1"]).succeeds();
    second.ask(&["run", "tiny.toml", "--name", "proved"]).succeeds();
    let proved = crate::support::lab::Run(second.at("runs/proved"));
    assert!(first.tiny_run().saved(8, "model.safetensors") == proved.saved(8, "model.safetensors"));
    assert_eq!(first.tiny_run().train("loss"), proved.train("loss"));
}

/// REINFORCE whose cotangents have the wrong sign, on 24 prompts with a reward for answers that contain one of some words.
fn reinforce(words: &str) -> String {
    format!(
        "{SMALL}{ROWS}[objective]\nplugin = \"wrong-sign-of-advantage\"\n\n[[reward]]\nplugin = \"mention\"\nwords = {words}\n\n\
         [rollout]\nprompts = 4\nsamples = 4\nmax_new_tokens = 8\n\n[train]\nsteps = 3\nbatch = {{ prompts = 4 }}\n\
         optimizer = {{ lr = 1e-3 }}\n"
    )
}

fn prompts(lab: &Lab) {
    lab.write("rows.jsonl", (0..24).map(|i| format!("{{\"prompt\": \"{i}? \"}}\n")).collect::<String>());
}

fn is_unproved(lab: &Lab, id: &str) -> bool {
    let lock = std::fs::read_to_string(lab.at("runs/plugins.lock")).expect("a lock");
    let name = format!("\"{id}\"");
    lock.split("[[plugin]]").find(|pin| pin.contains(&name)).expect("a pin").contains("unproved")
}

/// Catches a rollout of equal rewards that counts as proof: the fault would then be trained as soon as rewards differ.
#[test]
fn equal_rewards_prove_nothing() {
    let lab = Lab::new();
    prompts(&lab);
    lab.write("tiny.toml", reinforce("[\"no answer contains this\"]"));
    let answer = lab.run(&[]);
    answer.succeeds();
    let note = "objective \"wrong-sign-of-advantage\": the quick laws could not check `policy`";
    assert!(answer.err.contains(note), "{answer:#?}");
    assert!(lab.ask(&["check", "tiny.toml"]).succeeds().contains(note));
    assert!(is_unproved(&lab, "wrong-sign-of-advantage"));
    // Rewards that differ: about every second answer of a fresh model has one of these bytes.
    lab.write("tiny.toml", reinforce("[\"a\", \"e\", \"i\", \"0\", \"1\", \"A\", \"E\", \"+\", \"_\"]"));
    lab.ask(&["run", "tiny.toml", "--name", "differ"]).refuses(1, &["cotangents: term `policy`"]);
}

/// Catches objectives with their own text that train unchecked.
#[test]
fn an_objective_with_its_own_text_is_checked_on_it() {
    let lab = Lab::new();
    prompts(&lab);
    lab.write("own.txt", "A fox and a hen went to the old mill by the river. ".repeat(40));
    let own = |plugin: &str| format!("[[objective]]\nplugin = \"{plugin}\"\ntext = \"own.txt\"\ntokens = 96\n");
    let ptx = crate::support::experiments::PPO.replace("[objective]", "[[objective]]");
    for command in ["run", "check"] {
        lab.write("tiny.toml", format!("{SMALL}{ROWS}{ptx}{}", own("wrong-cotangent-sign")));
        lab.ask(&[command, "tiny.toml"])
            .refuses(1, &["\"wrong-cotangent-sign\" breaks a law of objectives", "cotangents: term `nll`"]);
    }
    lab.write("tiny.toml", format!("{SMALL}{ROWS}{ptx}{}", own("ce")));
    lab.run(&["train.steps=1"]).succeeds();
    assert!(!is_unproved(&lab, "ce") && !is_unproved(&lab, "ppo"));
}

/// Catches options of one table that are used for the expectations of another with the same plugin.
#[test]
fn each_table_is_checked_with_its_own_options() {
    let lab = Lab::tiny();
    let tables = |second: &str| {
        let table = |scale: &str| format!("[[objective]]\nplugin = \"scaled\"\nscale = {scale}\n\n");
        let both = table("1.0") + &table(second);
        lab.write("tiny.toml", crate::support::lab::TINY.replace("[objective]\nplugin = \"ce\"\n", &both));
    };
    tables("2.0");
    lab.run(&[]).refuses(1, &["\"scaled\" breaks a law of objectives", "expectations: `nll` should be"]);
    tables("1.0");
    lab.run(&[]).succeeds();
}

/// Catches a statistic that only the manifest has: the run would be refused after the laws have passed.
#[test]
fn a_statistic_that_the_host_does_not_compute_breaks_a_law() {
    let answer = verify(&["taught", "--only", "declared"]);
    answer.refuses(1, &[]);
    assert!(
        answer.out.contains("the statistic `tutor.logp` is not computed by this host; it computes logp, lse"),
        "{answer:#?}"
    );
}

/// Catches one fault that is repeated for every law, and codes of the contract before its text.
#[test]
fn one_fault_is_reported_once() {
    let answer = verify(&["panics-in-loss"]);
    answer.refuses(1, &[]);
    let count = |text: &str| answer.out.matches(text).count();
    assert_eq!(count("the loss that panics, in step 1 "), 1, "{answer:#?}");
    assert!(count("the same error as for `declared`") > 3, "{answer:#?}");
    assert!(!answer.out.contains("PANIC"), "{answer:#?}");
}

/// Catches ids beyond the vocabulary that pass, and a correct objective that cannot name the vocabulary it composes for.
#[test]
fn composed_ids_are_within_the_given_vocabulary() {
    let answer = verify(&["marked"]);
    answer.refuses(1, &["breaks laws: compose"]);
    assert!(
        answer.out.contains("is 300, expected a whole number from 0 to 49") && answer.out.contains("--vocabulary"),
        "{answer:#?}"
    );
    verify(&["marked", "--vocabulary", "301"]).succeeds();
    verify(&["length", "--vocabulary", "301"]).refuses(2, &["--vocabulary is for objectives"]);
}
