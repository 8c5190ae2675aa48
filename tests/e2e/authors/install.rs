//! `telos plugins install` of libraries, and `telos plugins try` without a run.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use crate::support::{
    lab::Lab,
    rig::{Answer, library, plugins, telos, test_plugins},
};

fn install(lab: &Lab, file: &Path, more: &[&str]) -> Answer {
    let mut command = telos(lab.path());
    Answer::of(command.args(["plugins", "install"]).arg(file).args(["--into", "mine"]).args(more))
}

/// Catches a library that is overwritten in place (a run that has mapped it would crash), one that is placed without
/// its laws or without a line per law, a replaced version that is not named, and a folder that is left with half a file.
#[test]
fn a_library_is_verified_and_replaced_by_a_rename() {
    let lab = Lab::new();
    let grpo = library(&test_plugins(), "test-plugin-weighted-sft");
    let first = install(&lab, &grpo, &["--limit", "200"]);
    for law in ["load", "cotangents"] {
        assert!(first.err.contains(&format!("checking {law}, for at most 200 s")), "{first:#?}");
    }
    let out = first.succeeds();
    assert!(out.contains("installed the objective `weighted-sft`") && out.contains("cotangents"), "{out}");
    assert!(out.contains("--plugins mine"), "the folder is not searched by default: {out}");
    let placed = lab.at("mine").join(grpo.file_name().expect("a name"));
    let again = install(&lab, &grpo, &["--unverified"]);
    assert!(again.succeeds().contains("the same bytes as before"), "{again:#?}");
    assert!(again.err.contains("not verified"), "{again:#?}");
    // An older build: other bytes behind the same header.
    let old = fs::metadata(&placed).expect("placed").ino();
    let mut bytes = fs::read(&placed).expect("read");
    bytes.extend([0; 16]);
    fs::write(&placed, &bytes).expect("written");
    let open = fs::File::open(&placed).expect("opened");
    let replaced = install(&lab, &grpo, &["--unverified"]);
    assert!(replaced.succeeds().contains(", replaces ") && replaced.out.contains("--update-lock"), "{replaced:#?}");
    assert_eq!(fs::read(&placed).expect("read"), fs::read(&grpo).expect("read"));
    assert_eq!(open.metadata().expect("still open").len(), bytes.len() as u64, "the mapped file changed");
    assert_ne!(fs::metadata(&placed).expect("placed").ino(), old);
    assert_eq!(lab.everything().len(), 2, "{:?}", lab.everything());
}

/// Catches a plugin that breaks laws and is installed, and one that takes the place of another author's plugin.
#[test]
fn a_broken_plugin_and_a_taken_id_are_refused() {
    let lab = Lab::new();
    // Shipped by another crate.
    let copy = lab.at("libmine.so");
    fs::copy(library(&plugins(), "objective-ce"), &copy).expect("copied");
    install(&lab, &copy, &[]).refuses(2, &["the objective `ce` is already there", "libobjective_ce"]);
    // The file name of another plugin.
    let sft = lab.at(&format!("{}objective_ce{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX));
    fs::copy(library(&test_plugins(), "test-plugin-weighted-sft"), &sft).expect("copied");
    let mut command = telos(lab.path());
    let taken = Answer::of(command.args(["plugins", "install"]).arg(&sft).arg("--into").arg(plugins()));
    taken.refuses(2, &["holds the objective `ce`, not the objective `weighted-sft`"]);
    let lawless = install(&lab, &library(&test_plugins(), "test-plugin-lawless"), &[]);
    lawless.refuses(1, &["breaks laws", "nothing was installed", "--unverified"]);
    install(&lab, Path::new("nothing.so"), &[]).refuses(2, &["there is no file"]);
    fs::create_dir(lab.at("empty")).expect("a folder");
    install(&lab, Path::new("empty"), &[]).refuses(2, &["has no Cargo.toml"]);
    assert!(!lab.at("mine").exists());
}

/// Catches a trial of something that cannot be tried, without a reason.
#[test]
fn what_cannot_be_tried_is_refused() {
    let lab = Lab::new();
    let attempt = |args: &[&str]| {
        let mut command = telos(lab.path());
        Answer::of(command.args(["plugins", "try"]).args(args))
    };
    attempt(&["candle"]).refuses(2, &["`candle` is of kind backend", "telos compare"]);
    attempt(&["length"]).refuses(2, &["`length` is of kind reward"]);
    attempt(&["ce"]).refuses(2, &["no known objective of text data to compare `ce` with", "--against"]);
    attempt(&["ce", "--against", "dpo"]).refuses(2, &["--against dpo: it learns from preference data"]);
    attempt(&["nothing"]).refuses(2, &["no objective `nothing`"]);
    attempt(&["prm"]).refuses(2, &["no known objective of answers in segments", "--against", "telos run FILE"]);
    attempt(&["prm", "--against", "sft"])
        .refuses(2, &["--against sft: it learns from prompt-completion data without segments"]);
    attempt(&["fim", "--set", "objective.rate=2"]).refuses(2, &["--set objective.rate", "from 0 to 1"]);
    let impossible = attempt(&["distill", "--set", "objective.top_k=900"]);
    impossible.refuses(2, &["`distill` cannot be tried", "reads 900 candidates", "telos run FILE"]);
    assert!(!impossible.err.contains("--resume") && !impossible.err.contains("a short run"), "{impossible:#?}");
    fs::create_dir(lab.at("thesis")).expect("a folder");
    lab.write("thesis/a.tex", "years of work");
    attempt(&["ce", "--against", "ce", "--out", "thesis"]).refuses(2, &["is the objective itself"]);
    assert_eq!(lab.everything().len(), 2, "{:?}", lab.everything());
}

/// Catches a trial without the teacher that the objective reads, one that measures a second objective beside one that composes
/// its own sequences, and an option that does not reach the tried objective.
#[test]
fn a_trial_supplies_what_the_objective_reads() {
    let lab = Lab::new();
    let attempt = |args: &[&str]| {
        let mut command = telos(lab.path());
        Answer::of(command.args(["plugins", "try"]).args(args).args(["--seconds", "1", "--json"]))
    };
    let distilled = attempt(&["distill", "--set", "objective.nll=0.5"]);
    distilled.succeeds();
    assert_eq!(distilled.json()["measure"], "sft", "{distilled:#?}");
    let own = fs::read_to_string(lab.at("runs/try-distill/distill/experiment.toml")).expect("the experiment");
    assert!(own.contains("runs/try-distill/teacher") && own.contains("nll = 0.5"), "{own}");
    let composed = attempt(&["fim"]);
    composed.succeeds();
    assert!(composed.err.contains("each is trained alone") && composed.json()["measure"].is_null(), "{composed:#?}");
    assert!(composed.json()["runs"][1]["loss"][1].is_number(), "{composed:#?}");
}
