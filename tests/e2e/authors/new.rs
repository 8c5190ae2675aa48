//! `telos plugins new`: every kind of crate.

use std::{fs, process::Command};

use crate::support::{
    lab::Lab,
    rig::{Answer, bin, clean, telos},
};

/// What can be made, with its arguments.
const KINDS: [&[&str]; 7] = [
    &["objective"],
    &["objective", "--data", "prompt-completion"],
    &["objective", "--data", "preference"],
    &["objective", "--data", "unpaired"],
    &["objective", "--data", "prompt"],
    &["reward"],
    &["backend"],
];

/// Catches a template that does not compile, breaks a law, is not formatted, or is claimed by a workspace above it.
#[test]
#[ignore = "builds seven crates: cargo xtask test --full"]
fn every_new_crate_builds_and_keeps_the_laws() {
    let lab = Lab::new();
    lab.write("Cargo.toml", "[workspace]\nmembers = [\"other\"]\n");
    for (index, kind) in KINDS.iter().enumerate() {
        let name = format!("made-{index}");
        let mut args = vec!["plugins", "new", kind[0], &name];
        args.extend(&kind[1..]);
        Answer::of(telos(lab.path()).args(args)).succeeds();
        for step in [&["fmt", "--check"][..], &["test", "--release", "--offline"]] {
            let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
            clean(&mut cargo)
                .args(step)
                .current_dir(lab.at(&name))
                .env("CARGO_TARGET_DIR", bin().with_file_name("authors"));
            Answer::of(&mut cargo).succeeds();
        }
    }
}

/// Catches a name that cargo or the host would refuse later, a folder of the user that is overwritten, and a shipped
/// plugin's id.
#[test]
fn names_that_are_illegal_or_taken_are_refused() {
    let lab = Lab::new();
    let new = |args: &[&str]| {
        let mut command = telos(lab.path());
        Answer::of(command.args(["plugins", "new"]).args(args))
    };
    new(&["objective", "My_Loss"]).refuses(2, &["is not a name for a plugin", "my-loss"]);
    new(&["objective", "ce"]).refuses(2, &["`ce` is taken", "libobjective_ce"]);
    new(&["reward", "candle"]).refuses(2, &["`candle` is taken"]);
    new(&["objective", "objective-ce"]).refuses(2, &["`objective-ce` is taken"]);
    new(&["objective", "mine", "--data", "pictures"]).refuses(2, &["pictures", "prompt-completion"]);
    new(&["objective", "mine", "--sdk", "."]).refuses(2, &["is not the SDK", "plugin-api/Cargo.toml"]);
    assert!(lab.everything().is_empty(), "{:?}", lab.everything());
    fs::create_dir(lab.at("mine")).expect("a folder");
    lab.write("mine/notes.txt", "mine");
    new(&["objective", "mine"]).refuses(2, &["not an empty folder", "--path"]);
    let made = new(&["objective", "mine", "--path", "there is/mine"]);
    let out = made.succeeds();
    for command in ["cd 'there is/mine'", "cargo test --release", "plugins install .", "plugins try mine"] {
        assert!(out.contains(command), "{command} is missing in {out}");
    }
    assert!(lab.at("there is/mine/Cargo.lock").is_file());
    // Its experiment is one that telos reads; the plugin is not built yet.
    Answer::of(telos(&lab.at("there is/mine")).args(["check", "experiment.toml"])).refuses(2, &["no objective `mine`"]);
}
