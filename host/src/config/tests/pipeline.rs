//! Pipelines: what stages share and replace, which models they take from each other, and where mistakes are
//! reported.

use super::specs;
use crate::config::draft::{Loaded, Slot};
use crate::config::experiment;
use crate::config::overrides::Override;
use crate::config::pipeline::{Pipeline, StageModel, Which};
use crate::error::Result;
use crate::keys::tree;

/// Two stages without a mistake; tests change them.
const GOOD: &str = r#"
seed = 3

[data]
path = "corpus.txt"

[train]
batch = { tokens = 512 }
optimizer = { lr = 1e-3, clip = 2.0 }

[[stage]]
name = "pre"
model = { layers = 2, dim = 32, heads = 4, context = 64 }
objective = { plugin = "ce" }
train.steps = 100

[[stage]]
name = "sft"
model.from = "stage:pre"
objective = { plugin = "ce", count = 5 }

[stage.train]
steps = 7
optimizer = { lr = 1e-4 }
"#;

fn pipeline(text: &str, sets: &[&str]) -> Pipeline {
    let overrides: Vec<Override> = sets.iter().map(|set| Override::parse(set).unwrap()).collect();
    let file = "pipe.toml".into();
    Pipeline::new(&file, "pipe", tree::parse(&file, text).unwrap(), &overrides)
}

fn finish(pipeline: &Pipeline) -> Result<Vec<Loaded>> {
    let mut drafts: Vec<_> = (0..pipeline.stages().len()).map(|index| pipeline.draft(index)).collect();
    for draft in &mut drafts {
        for slot in draft.plugins().iter().map(|plugin| plugin.slot).collect::<Vec<_>>() {
            let specs = if slot == Slot::Backend { Vec::new() } else { specs() };
            draft.check_options(slot, &specs);
        }
    }
    pipeline.finish(drafts)
}

#[track_caller]
fn check(text: &str, sets: &[&str], expected: &str) {
    let found = match finish(&pipeline(text, sets)) {
        Ok(_) => "(accepted)".to_owned(),
        Err(error) => error.details().join("\n"),
    };
    let expected: Vec<&str> = expected.trim().lines().map(str::trim).collect();
    assert_eq!(found.lines().collect::<Vec<_>>(), expected, "\n--- for {sets:?} and\n{text}");
}

/// Checks that [`GOOD`] with `from` replaced by `to` is refused with exactly `expected`.
#[track_caller]
fn changed(from: &str, to: &str, expected: &str) {
    assert!(GOOD.contains(from), "the test replaces nothing");
    check(&GOOD.replace(from, to), &[], expected);
}

/// Catches a key of a stage that reaches another stage whose name begins with the first one's, and a name in quotes
/// that is not taken literally.
#[test]
fn stage_names_may_contain_dots() {
    let text = GOOD.replace("name = \"sft\"", "name = \"pre.train\"");
    let steps = |set: &str| {
        let all = pipeline(&text, &[set]);
        let found = finish(&all).map(|all| all.iter().map(|own| own.experiment.train.length).collect::<Vec<_>>());
        found.map_err(|error| error.report())
    };
    let before = steps("seed=3").unwrap();
    let set = |index: usize| {
        let mut all = before.clone();
        all[index] = experiment::Length::Steps(7);
        Ok(all)
    };
    assert_eq!(steps("stage.pre.train.train.steps=7"), set(1));
    assert_eq!(steps("stage.\"pre\".train.steps=7"), set(0));
    assert_eq!(steps("stage.'pre.train'.train.steps=7"), set(1));
    assert!(steps("stage.pre.train.steps=7").is_err_and(|report| report.contains("in stage pre.train: unknown key")));
}

/// Catches tables that are replaced instead of extended, a stage that leaks into the next, and overrides that reach
/// the wrong stage.
#[test]
fn stages_extend_shared_tables_key_by_key() {
    let all = pipeline(GOOD, &["stage.sft.train.steps=9", "seed=4", "stage.1.objective.margin=true", "name=n"]);
    let loaded = finish(&all).unwrap();
    let [pre, sft] = [&loaded[0].experiment, &loaded[1].experiment];
    assert_eq!((pre.name.as_str(), sft.name.as_str()), ("n/pre", "n/sft"));
    assert_eq!((pre.seed, sft.seed), (4, 4));
    assert_eq!(pre.train.length, experiment::Length::Steps(100));
    assert_eq!(sft.train.length, experiment::Length::Steps(9));
    assert_eq!((pre.train.optimizer.lr, pre.train.optimizer.clip), (1e-3, 2.0));
    assert_eq!((sft.train.optimizer.lr, sft.train.optimizer.clip), (1e-4, 2.0));
    assert_eq!((&pre.objective[0].options["count"], &pre.objective[0].options["margin"]), (&3.into(), &false.into()));
    assert_eq!((&sft.objective[0].options["count"], &sft.objective[0].options["margin"]), (&5.into(), &true.into()));
    // The experiment of a stage is itself a valid file.
    let text = sft.to_toml().unwrap();
    assert_eq!(super::load(&text, &[]), *sft);
}

/// Catches a reference to a stage that is not replaced, or is replaced by the stage's position, and a prompt in
/// which such text is replaced.
#[test]
fn a_stage_reference_becomes_the_path_of_its_run() {
    let all = pipeline(GOOD, &["stage.sft.sample.prompts=[\"stage:pre\"]", "runs_dir=r"]);
    let inputs = |which| vec![StageModel { stage: 0, key: "model.from".into(), which }];
    assert_eq!(all.stages()[1].inputs, inputs(Which::Last));
    let sft = &finish(&all).unwrap()[1].experiment;
    assert_eq!(sft.model, experiment::Model::From { from: "r/pipe/pre".into(), adapter: None, lora: None });
    assert_eq!(sft.sample.as_ref().unwrap().prompts, ["stage:pre"]);
    let all = pipeline(&GOOD.replace("stage:pre", "stage:pre/best"), &[]);
    assert_eq!(all.stages()[1].inputs, inputs(Which::Best));
    let sft = &finish(&all).unwrap()[1].experiment;
    assert_eq!(
        sft.model,
        experiment::Model::From { from: "runs/pipe/pre/checkpoints/BEST".into(), adapter: None, lora: None }
    );
    let all = pipeline(&GOOD.replace("stage:pre", "stage:pre/merged"), &[]);
    let experiment::Model::From { from, .. } = finish(&all).unwrap()[1].experiment.model.clone() else { panic!() };
    assert_eq!(from, "runs/pipe/pre/checkpoints/LATEST/merged");
}

#[test]
fn references_to_invalid_stages_are_refused() {
    let from = |to: &str, expected: &str| {
        let place = "pipe.toml:19:7: model.from: in stage sft: ";
        changed("stage:pre", to, &format!("{place}{expected}"));
    };
    from("stage:per", "there is no stage `per` before this one; did you mean `pre`?");
    from("stage:xyz", "there is no stage `xyz` before this one; valid: `pre`");
    from("stage:sft", "stage `sft` is this one; only earlier stages can be used: `pre`");
    from(
        "stage:pre/last",
        "\"last\" is not a checkpoint; write \"stage:pre\" or \"stage:pre/best\" (of an adapter also \"stage:pre/merged\")",
    );
    changed(
        "model = { layers = 2, dim = 32, heads = 4, context = 64 }",
        "model = { from = \"stage:sft\" }",
        "pipe.toml:13:11: model.from: in stage pre: stage `sft` comes later; only earlier stages can be used, and this is the first",
    );
}

/// Catches a report that stops at the first stage, or repeats a mistake in a shared key for each stage.
#[test]
fn mistakes_of_all_stages_are_reported_together_with_their_places() {
    let text = GOOD
        .replace("seed = 3", "sed = 3")
        .replace("train.steps = 100", "train.stesp = 100")
        .replace("count = 5", "cuont = 5")
        .replace("lr = 1e-4", "lr = 0");
    check(
        &text,
        &["stage.sft.eval.evry=1"],
        r#"
        pipe.toml:2:1: sed: unknown key; did you mean `seed`?
        pipe.toml:15:7: train.stesp: in stage pre: unknown key; did you mean `steps`?
        pipe.toml:20:30: objective.cuont: in stage sft: unknown key; did you mean `count`?
        pipe.toml:24:15: train.optimizer.lr: in stage sft: expected a number above 0, found the integer 0; for example lr = 3e-4
        --set stage.sft.eval.evry: in stage sft: unknown key; did you mean `every`?
        "#,
    );
    // What a stage lacks is reported at the stage.
    changed(
        "objective = { plugin = \"ce\" }\n",
        "",
        r#"pipe.toml:11:1: objective: in stage pre: missing; an experiment needs at least one; for example [objective] with plugin = "ce""#,
    );
}

#[test]
fn a_shared_key_that_no_stage_uses_is_refused() {
    changed(
        "clip = 2.0 }",
        "clip = 2.0 }\nsteps = 5",
        "pipe.toml:10:1: train.steps: unused: every stage sets this key; remove it, or set it for one stage: stage.NAME.train.steps",
    );
    check(
        GOOD,
        &["train.steps=5"],
        "--set train.steps: unused: every stage sets this key; remove it, or set it for one stage: stage.NAME.train.steps",
    );
    // A value that is used until the command line overrides it is not a mistake.
    let text = GOOD.replace("train.steps = 100", "").replace("clip = 2.0 }", "clip = 2.0 }\nsteps = 5");
    assert!(finish(&pipeline(&text, &["stage.pre.train.steps=8"])).is_ok());
}

#[test]
fn stage_names_are_plain_required_and_unique() {
    let rule = "is not a plain folder name; for example \"sft\"";
    changed("\"sft\"", "\"s/t\"", &format!("pipe.toml:18:1: stage.name: \"s/t\" {rule}"));
    changed("\"sft\"", "\".st\"", &format!("pipe.toml:18:1: stage.name: \".st\" {rule}"));
    changed("\"sft\"", "\"pre\"", "pipe.toml:18:1: stage.name: an earlier stage is also named \"pre\"");
    let missing = "pipe.toml:17:1: stage.name: missing; each stage has a name, for example name = \"sft\"";
    changed("name = \"sft\"\n", "", missing);
    changed(
        "seed = 3",
        "name = \"a/b\"",
        "pipe.toml:2:1: name: \"a/b\" is not a plain folder name; for example \"my-pipeline\"",
    );
    changed(
        "name = \"sft\"",
        "name = \"sft\"\nruns_dir = \"x\"",
        "pipe.toml:19:1: stage.runs_dir: must be set above the stages: all runs of a pipeline are in one folder",
    );
    check("stage = 3", &[], "pipe.toml:1:1: stage: expected at least one [[stage]] table, found the integer 3");
    check("stage = []", &[], "pipe.toml:1:1: stage: expected at least one [[stage]] table, found an empty list");
    check(GOOD, &["stage.stf.seed=1"], "--set stage.stf.seed: there is no stage `stf`; did you mean `sft`?");
    check(GOOD, &["stage.sft=1"], "--set stage.sft: a key of the stage is missing; write stage.sft.KEY=VALUE");
    check(GOOD, &["stage.sft.name=x"], "--set stage.sft.name: the name of a stage cannot be overridden");
}

/// Catches a stage named like a file of the pipeline or of a run: the stage could not be written, and this would
/// show only hours later.
#[test]
fn names_of_files_that_telos_writes_are_refused() {
    for (name, own) in [
        ("pipeline.toml", "pipeline.toml"),
        ("Receipt.JSON", "receipt.json"),
        ("checkpoints", "checkpoints"),
        ("metrics.jsonl", "metrics.jsonl"),
        ("plugins.lock", "plugins.lock"),
    ] {
        let place = "pipe.toml:18:1";
        let expected = format!(
            "{place}: stage.name: \"{name}\" is reserved for a file or folder that Telos writes ({own}); for example \"sft\""
        );
        changed("name = \"sft\"", &format!("name = \"{name}\""), &expected);
    }
    let expected = "pipe.toml:2:1: name: \"plugins.lock\" is reserved for a file or folder that Telos writes (plugins.lock); for example \"my-pipeline\"";
    changed("seed = 3", "name = \"plugins.lock\"", expected);
    assert!(finish(&pipeline(&GOOD.replace("name = \"sft\"", "name = \"pipeline\""), &[])).is_ok());
}
