//! Plugins that end the process while they are loaded: every command that loads one names it.

use crate::support::{
    lab::{Lab, some_text},
    rig::Answer,
};

/// Output of telos if the library of a test plugin crashes as soon as it is opened.
fn crashing(lab: &Lab, args: &[&str]) -> Answer {
    Answer::of(lab.command(args).env("TELOS_TEST_CRASH", "1"))
}

/// Catches a plugin that is opened outside the supervised process, or before its name is recorded: a crash in a static
/// constructor, the root function, the manifest or `create` would then be reported without the plugin.
#[test]
fn a_crash_while_loading_names_plugin_and_call_in_every_command() {
    let lab = Lab::tiny();
    lab.run(&["train.steps=1"]).succeeds();
    lab.write("text.txt", some_text(50));
    lab.write("rows.jsonl", "{\"prompt\": \"sort: b a\", \"completion\": \"a b\"}\n");
    let objective = "objective.plugin=odd";
    let broken = ["--backend", "broken"];
    for (args, plugin) in [
        (vec!["check", "tiny.toml", "--set", objective], "odd"),
        (vec!["run", "tiny.toml", "--name", "other", "--set", objective], "odd"),
        (vec!["check", "tiny.toml", "--set", "backend.plugin=broken"], "broken"),
        (vec!["compare", "tiny.toml", "--no-plot", "--backends", "broken"], "broken"),
        (vec!["pairs", "tiny.toml", "--out", "new.jsonl", "--set", objective], "odd"),
        ([&["eval", "runs/tiny", "--data", "text.txt"][..], &broken].concat(), "broken"),
        ([&["eval", "runs/tiny", "--rows", "rows.jsonl"][..], &broken].concat(), "broken"),
        ([&["generate", "runs/tiny", "--prompt", "sort: "][..], &broken].concat(), "broken"),
        (vec!["plugins", "show", "odd"], "odd"),
        (vec!["plugins", "show", "broken"], "broken"),
    ] {
        let answer = crashing(&lab, &args);
        answer.refuses(1, &["telos was ended by SIG", &format!("in plugin `{plugin}`, call `open`")]);
    }
    for plugin in ["odd", "broken"] {
        let answer = crashing(&lab, &["plugins", "verify", plugin]);
        answer.refuses(1, &[plugin]);
        let output = [answer.out.as_str(), &answer.err].concat();
        assert!(output.contains("was ended by SIG"), "{plugin}: {answer:#?}");
    }
    crashing(&lab, &["plugins", "list"]).succeeds();
    for (plugin, call) in [("exits-in-manifest", "manifest"), ("odd", "create")] {
        let (name, fault) = (format!("objective.plugin={plugin}"), "objective.fault=abort-create");
        let mut args = vec!["check", "tiny.toml", "--set", &name];
        args.extend((plugin == "odd").then_some(["--set", fault]).into_iter().flatten());
        lab.ask(&args).refuses(1, &[&format!("in plugin `{plugin}`, call `{call}`")]);
    }
    lab.ask(&["plugins", "show", "exits-in-manifest"]).refuses(1, &["in plugin `exits-in-manifest`, call `manifest`"]);
}
