//! The files of a run are found again, and no other file is used instead: leftovers of killed processes, folders that were moved,
//! bytes that were changed.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use crate::support::{
    experiments::two_stages,
    kills::with_enough_steps,
    lab::{Lab, Run},
    rig::Answer,
};

fn stages() -> Lab {
    let lab = Lab::tiny();
    lab.write("tiny.toml", two_stages());
    lab
}

/// Simulates kills within the first save of a stage, as seen on the file system: a complete checkpoint without LATEST, one with
/// unfinished files, an experiment before its rename.
fn interrupted_first_save(run: &Path) {
    fs::remove_file(run.join("checkpoints/LATEST")).expect("there was one");
    fs::write(run.join(".tmp-receipt.json-1"), "{").expect("written");
    fs::create_dir(run.join("checkpoints/.tmp-step-00000009-1")).expect("made");
}

fn leaves_nothing_unfinished(lab: &Lab) {
    let left =
        |path: &std::path::PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".tmp-"));
    assert_eq!(lab.everything().into_iter().find(left), None);
}

/// Catches a pipeline that cannot be resumed for ever after a kill between a stage's checkpoint and LATEST, or while a stage wrote
/// its first file.
#[test]
fn gotcha_61_a_pipeline_continues_after_a_kill_in_the_first_save_or_file_of_a_stage() {
    let whole = stages();
    whole.run(&[]).succeeds();
    let lab = stages();
    lab.run(&[]).succeeds();
    let stage = |lab: &Lab, name: &str| Run(lab.at(&format!("runs/tiny/{name}")));
    let equal = || {
        stage(&lab, "pre").equals(&stage(&whole, "pre"), 4);
        stage(&lab, "more").equals(&stage(&whole, "more"), 3);
        leaves_nothing_unfinished(&lab);
    };
    for name in ["pre", "more"] {
        interrupted_first_save(&stage(&lab, name).0);
        let answer = lab.resume(&[]);
        answer.succeeds();
        assert!(answer.err.contains("there is no LATEST"), "{answer:#?}");
        equal();
    }
    fs::remove_dir_all(stage(&lab, "more").0).expect("removed");
    fs::create_dir(stage(&lab, "more").0).expect("made");
    fs::write(stage(&lab, "more").0.join(".tmp-experiment.toml-1"), "seed").expect("written");
    let left = fs::File::create(lab.at("runs/tiny/.tmp-pipeline.toml-1")).expect("made");
    left.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(7200)).expect("dated");
    lab.resume(&[]).succeeds();
    equal();
    // Without its record of the file, `run` would advise `--resume`, which would advise `run`.
    fs::remove_file(lab.at("runs/tiny/pipeline.toml")).expect("removed");
    lab.run(&[]).refuses(2, &["--resume"]);
    let answer = lab.resume(&[]);
    answer.succeeds();
    assert!(answer.err.contains("pipeline.toml is missing"), "{answer:#?}");
    assert!(lab.at("runs/tiny/pipeline.toml").is_file());
}

/// Catches a longer last stage that counts as done because the process which made it longer was killed before its first checkpoint.
#[test]
fn an_extended_stage_that_is_killed_is_extended_by_the_next_process() {
    let lab = stages();
    lab.run(&[]).succeeds();
    let run = Run(lab.at("runs/tiny/more"));
    let rare = ["stage.more.checkpoint.every=0", "stage.more.train.steps=100000"];
    let mut running = lab.start(&rare, true);
    assert!(running.until(|| String::from_utf8_lossy(&run.bytes("metrics.jsonl")).contains("\"step\":4,")));
    running.signal(rustix::process::Signal::KILL);
    running.answer();
    lab.resume(&["stage.more.checkpoint.every=0", "stage.more.train.steps=5"]).succeeds();
    run.has_steps(5);
    let receipt = run.receipt();
    assert_eq!(
        receipt["changed"].as_array().map(Vec::len),
        Some(1),
        "what never came to a checkpoint was no change: {receipt:#}"
    );
    lab.resume(&["stage.more.checkpoint.every=0", "stage.more.train.steps=5"]).succeeds();
    assert_eq!(run.receipt(), receipt);
}

/// Catches a pipeline that cleans up unselected stages: a damaged one could then not be renewed, and a refused start would
/// move LATEST.
#[test]
fn stages_that_are_not_selected_are_not_changed() {
    let lab = stages();
    lab.run(&[]).succeeds();
    let only = |args: &[&str]| lab.ask(&[&["run", "tiny.toml"], args].concat());
    let spoil = |name: &str| {
        for step in Run(lab.at(&format!("runs/tiny/{name}"))).checkpoints() {
            fs::write(lab.at(&format!("runs/tiny/{name}/checkpoints/step-{step:08}/model.safetensors")), "x")
                .expect("written");
        }
    };
    spoil("more");
    only(&["--only", "pre"]).succeeds();
    only(&["--from", "more"]).succeeds();
    fs::write(lab.at("runs/tiny/pre/checkpoints/.tmp-step-00000009-1"), "x").expect("written");
    only(&[]).refuses(2, &["exists already"]);
    assert!(lab.at("runs/tiny/pre/checkpoints/.tmp-step-00000009-1").exists(), "a refused start changes a run");
}

/// Catches a run that is reported as done and is then refused by `generate`; and one whose folder neither `run` nor `--resume`
/// accepts.
#[test]
fn gotcha_61_a_single_run_continues_after_the_same_kills() {
    let whole = Lab::tiny();
    whole.run(&[]).succeeds();
    let lab = Lab::tiny();
    lab.run(&[]).succeeds();
    let run = lab.tiny_run();
    interrupted_first_save(&run.0);
    lab.resume(&[]).succeeds();
    lab.ask(&["generate", "runs/tiny", "--prompt", "a", "--max-tokens", "2"]).succeeds();
    run.equals(&whole.tiny_run(), 8);
    fs::remove_dir_all(run.0.join("checkpoints")).expect("removed");
    let answer = lab.resume(&[]);
    answer.succeeds();
    let note = "note: there is no checkpoint yet: the run begins again from its first step, and the metrics of its earlier steps are";
    assert!(answer.err.contains(note), "{answer:#?}");
    run.equals(&whole.tiny_run(), 8);
    fs::remove_dir_all(&run.0).expect("removed");
    fs::create_dir(&run.0).expect("made");
    fs::write(run.0.join(".tmp-experiment.toml-1"), "seed").expect("written");
    lab.resume(&[]).refuses(2, &["no experiment.toml", "without --resume"]);
    lab.run(&[]).succeeds();
    run.equals(&whole.tiny_run(), 8);
    leaves_nothing_unfinished(&lab);
}

/// Catches a file in the place of the folder of runs whose error names another file and not the key.
#[test]
fn a_file_in_the_place_of_the_runs_is_named_with_its_key() {
    let lab = Lab::tiny();
    lab.write("file", "text");
    for place in ["file", "file/below"] {
        lab.run(&[&format!("runs_dir={place}")]).refuses(2, &["runs_dir: file is a file", "set runs_dir to a folder"]);
    }
}

/// Catches a run without an intact checkpoint whose error, in a command that reads it, names an option that only `telos run` has.
#[test]
fn a_run_without_an_intact_checkpoint_is_refused_with_a_remedy() {
    let lab = Lab::tiny();
    lab.run(&["checkpoint.keep=1"]).succeeds();
    let run = lab.tiny_run();
    for entry in fs::read_dir(run.0.join("checkpoints")).expect("listed").flatten() {
        let weights = entry.path().join("model.safetensors");
        if weights.exists() {
            fs::write(weights, "text").expect("written");
        }
    }
    let parts = ["no checkpoint in runs/tiny/checkpoints is intact", "use another run or model"];
    lab.ask(&["generate", "runs/tiny", "--prompt", "a"]).refuses(2, &parts);
}

/// Catches weights with a flipped byte that are used because they were named by their folder.
#[test]
fn gotcha_61_a_damaged_checkpoint_named_by_its_folder_is_refused_in_every_command() {
    let lab = Lab::tiny();
    lab.run(&["checkpoint.keep=2"]).succeeds();
    let folder = "runs/tiny/checkpoints/step-00000004";
    let weights = lab.at(folder).join("model.safetensors");
    let mut bytes = fs::read(&weights).expect("weights");
    let at = bytes.len() - 9;
    lab.write("text.txt", crate::support::lab::some_text(60));
    let from = crate::support::lab::TINY
        .replace("layers = 1\ndim = 16\nheads = 2\ncontext = 16", &format!("from = \"{folder}\""));
    lab.write("next.toml", from);
    let tokenizer = format!("tokenizer={{kind=\"file\",path=\"{folder}\"}}");
    let ask = |lab: &Lab| -> [Answer; 3] {
        [
            lab.ask(&["generate", folder, "--prompt", "a", "--max-tokens", "2"]),
            lab.ask(&["eval", folder, "--data", "text.txt"]),
            lab.ask(&["check", "next.toml"]),
        ]
    };
    ask(&lab).iter().for_each(|answer| _ = answer.succeeds());
    bytes[at] ^= 1;
    fs::write(&weights, &bytes).expect("written");
    for answer in ask(&lab) {
        answer.refuses(2, &["step-00000004", "differs from what was saved", "model.safetensors", "manifest.json"]);
    }
    // As a tokenizer only its small files are used and verified.
    lab.ask(&["check", "tiny.toml", "--set", &tokenizer]).succeeds();
    let small = lab.at(folder).join("tokenizer.json");
    let mut text = fs::read(&small).expect("a tokenizer");
    text.push(b'\n');
    fs::write(&small, text).expect("written");
    lab.ask(&["check", "tiny.toml", "--set", &tokenizer])
        .refuses(2, &["tokenizer.json", "differs from what was saved"]);
    // The other checkpoint of the run is complete.
    lab.ask(&["generate", "runs/tiny", "--prompt", "a", "--max-tokens", "2"]).succeeds();
}

/// Catches a run that continues to write by path after its folder was moved: its rotation would remove the checkpoints of another
/// run with the same name, and its LATEST would name weights of the first one.
#[cfg(target_os = "linux")]
#[test]
fn gotcha_61_a_moved_run_writes_into_its_moved_folder() {
    let short =
        ["checkpoint.every=1", "checkpoint.keep=1", "eval.every=0", "sample.every=0", "train.steps=3", "seed=8"];
    let whole = Lab::tiny();
    whole.run(&short).succeeds();
    with_enough_steps(200, |steps| {
        let length = format!("train.steps={steps}");
        let long = [&length, "checkpoint.every=1", "checkpoint.keep=1", "eval.every=0", "sample.every=0"];
        let lab = Lab::tiny();
        let (first, second) = (Run(lab.at("runs/moved")), lab.tiny_run());
        let mut running = lab.start(&long, false);
        running.until(|| second.pointer("LATEST").is_some_and(|at| at >= 2));
        fs::rename(&second.0, &first.0).expect("moved");
        lab.run(&short).succeeds();
        let at_work = first.pointer("LATEST").is_some_and(|at| at < steps);
        let answer = running.answer();
        answer.succeeds();
        assert!(answer.err.contains("was moved from") && answer.out.contains("runs/moved"), "{answer:#?}");
        second.equals(&whole.tiny_run(), 3);
        assert_eq!((second.checkpoints(), second.pointer("LATEST")), (vec![3], Some(3)));
        first.has_steps(steps);
        assert_eq!((first.checkpoints(), first.pointer("LATEST")), (vec![steps], Some(steps)));
        at_work
    });
}

/// Catches logs with other bytes than the run wrote, which a resumed run uses as its own, a refused resume that changes the run,
/// an experiment that is emptied, and a longer one that is forgotten when its first process is killed.
#[test]
fn changed_logs_and_an_emptied_experiment_are_refused_by_name() {
    let lab = Lab::tiny();
    lab.run(&["train.steps=4"]).succeeds();
    let run = lab.tiny_run();
    let experiment = run.bytes("experiment.toml");
    for file in ["metrics.jsonl", "samples.jsonl"] {
        let whole = run.bytes(file);
        for at in [0, whole.len() / 2, whole.len() - 1] {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(run.0.join(file), &damaged).expect("written");
            lab.resume(&["train.steps=6"]).refuses(1, &[file, "does not belong to its checkpoint"]);
            assert!(run.bytes(file) == damaged, "{file} was changed");
            assert!(run.bytes("experiment.toml") == experiment, "a refused resume changes the run");
        }
        fs::write(run.0.join(file), &whole).expect("written");
    }
    fs::write(run.0.join("experiment.toml"), "").expect("written");
    lab.resume(&["train.steps=6"]).refuses(2, &["experiment.toml", "is empty"]);
    // A kill after the longer experiment was written, and before a checkpoint of it.
    let longer = String::from_utf8(experiment).expect("TOML").replace("steps = 4", "steps = 6");
    fs::write(run.0.join("experiment.toml"), longer).expect("written");
    lab.resume(&["train.steps=6"]).succeeds();
    run.has_steps(6);
    // Without a receipt nothing records what it began with: this is reported and recorded.
    fs::remove_file(run.0.join("receipt.json")).expect("removed");
    let answer = lab.resume(&["train.steps=7"]);
    answer.succeeds();
    assert!(answer.err.contains("receipt.json was missing"), "{answer:#?}");
    assert_eq!(run.receipt()["replaced"][0]["after_step"], 6);
}

/// Catches checkpoints of two equal runs that differ, such as by a length of timing.jsonl, and files that other users cannot read.
#[test]
fn equal_runs_write_equal_checkpoints_that_other_users_may_read() {
    let [one, two] = [(); 2].map(|()| {
        let lab = Lab::tiny();
        lab.run(&[]).succeeds();
        lab
    });
    let below = |lab: &Lab| lab.everything().into_iter().filter(|path| path.is_file()).collect::<Vec<_>>();
    let mut compared = 0;
    for path in below(&one) {
        let name = path.strip_prefix(one.path()).expect("below").to_owned();
        let mode = fs::metadata(&path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o044, 0o044, "{} has mode {mode:o}", name.display());
        if name.to_string_lossy().contains("checkpoints") {
            assert!(fs::read(&path).ok() == fs::read(two.at(&name.to_string_lossy())).ok(), "{}", name.display());
            compared += 1;
        }
    }
    assert!(compared > 6, "{compared} files");
}

/// Catches a command that overwrites what it reads, or any file of the user's.
#[test]
fn results_do_not_overwrite_an_existing_file() {
    let lab = Lab::tiny();
    let text = crate::support::lab::some_text(200);
    lab.write("text.txt", &text);
    let train = ["tokenizer", "train", "text.txt", "--vocab-size", "260", "--out", "text.txt"];
    lab.ask(&train).refuses(2, &["--out: text.txt exists already", "remove"]);
    assert_eq!(fs::read_to_string(lab.at("text.txt")).expect("text"), text);
    lab.run(&[]).succeeds();
    lab.write("rows.jsonl", "{\"prompt\": \"a\", \"completion\": \"b\"}\n");
    let eval = ["eval", "runs/tiny", "--rows", "rows.jsonl", "--out", "rows.jsonl"];
    lab.ask(&eval).refuses(2, &["--out: rows.jsonl exists already"]);
    lab.ask(&["compare", "tiny.toml", "--backends", "candle", "--plot", "text.txt"])
        .refuses(2, &["--plot", "text.txt"]);
    assert_eq!(fs::read_to_string(lab.at("text.txt")).expect("text"), text);
}
