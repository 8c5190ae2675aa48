//! Folders of runs: created, refused, replaced, moved, discarded and locked.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::thread;

use super::super::tests::{as_process, part};
use super::*;
use crate::error::Kind;

/// Catches a folder that stays although nothing was written into it.
#[test]
fn a_new_folder_without_files_is_removed() {
    let base = tempfile::tempdir().unwrap();
    let runs = base.path().join("runs");
    let run = RunFolder::create(&runs, "a", Existing::Keep).unwrap();
    assert!(run.path().is_dir());
    drop(run);
    assert!(!runs.exists());
    let run = RunFolder::create(&runs, "a", Existing::Keep).unwrap();
    fs::write(run.experiment(), "").unwrap();
    drop(run);
    assert!(runs.join("a/experiment.toml").exists());
}

/// Catches a folder of a crashed start that stays, and one of a run with a step, a checkpoint or another file that
/// is removed.
#[test]
fn only_runs_without_steps_are_discarded() {
    let runs = tempfile::tempdir().unwrap();
    let begun = |name: &str| {
        let run = RunFolder::create(runs.path(), name, Existing::Keep).unwrap();
        fs::write(run.experiment(), "seed = 1\n").unwrap();
        fs::write(run.metrics(), "{\"step\":0,\"kind\":\"eval\"}\n").unwrap();
        run.path().to_owned()
    };
    let path = begun("a");
    assert!(RunFolder::discard_unstarted(&path) && !path.exists());
    let step = begun("b");
    fs::write(step.join("metrics.jsonl"), "{\"step\":1,\"kind\":\"train\"}\n").unwrap();
    let own = begun("c");
    fs::write(own.join("notes.txt"), "mine").unwrap();
    let saved = begun("d");
    fs::create_dir_all(saved.join(CHECKPOINTS).join("step-00000001")).unwrap();
    for path in [step, own, saved] {
        assert!(!RunFolder::discard_unstarted(&path) && path.join("experiment.toml").exists(), "{}", path.display());
    }
}

/// Catches an overwritten run, an error without advice, and one that creates or removes anything.
#[test]
fn an_existing_run_is_refused_with_hints_and_not_changed() {
    let base = tempfile::tempdir().unwrap();
    fs::create_dir(base.path().join("a")).unwrap();
    fs::write(base.path().join("a/experiment.toml"), "").unwrap();
    fs::write(base.path().join("a/file"), "mine").unwrap();
    let error = RunFolder::create(base.path(), "a", Existing::Keep).unwrap_err();
    assert_eq!(error.kind(), Kind::Request);
    let hint = error.hint().unwrap();
    assert!(hint.contains("--resume") && hint.contains("--name") && hint.contains("remove"), "{hint}");
    assert_eq!(fs::read_dir(base.path().join("a")).unwrap().count(), 2);
}

/// Catches a retry of a failed start that is refused because the run "exists already", and a replacement that
/// destroys work: steps, checkpoints, files of the user, or a run that another process writes.
#[test]
fn only_a_run_without_steps_or_other_files_is_replaced() {
    let base = tempfile::tempdir().unwrap();
    let path = base.path().join("a");
    let begin = |files: &[(&str, &str)]| {
        _ = fs::remove_dir_all(&path);
        for (name, text) in [("experiment.toml", ""), ("receipt.json", "{}"), (LOCK, "")].iter().chain(files) {
            let file = path.join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
    };
    let step = ("metrics.jsonl", "{\"step\":1,\"kind\":\"train\",\"loss\":2.0}\n");
    let report = html::page(&format!("{REPORT_TITLE}a"), "", "");
    let evaluated = ("metrics.jsonl", "{\"step\":0,\"kind\":\"eval\",\"eval/loss\":2.0}\n");
    for (files, kept, replaced) in [
        (&[evaluated][..], false, false),
        (&[evaluated, ("checkpoints/.tmp-step-00000001/x", "")], false, false),
        (&[step], true, false),
        (&[step, ("checkpoints/step-00000001/x", "")], true, true),
        (&[evaluated, ("checkpoints/LATEST", "step-00000001")], true, true),
        (&[evaluated, ("notes.txt", "mine")], true, true),
        (&[evaluated, (REPORT_FILE, "mine")], true, true),
        (&[evaluated, (REPORT_FILE, &report)], false, false),
        (&[evaluated, ("mine/file", "mine")], true, true),
    ] {
        for (existing, stays) in [(Existing::Keep, kept), (Existing::ReplaceUnsaved, replaced)] {
            begin(files);
            let run = RunFolder::create(base.path(), "a", existing);
            assert_eq!(run.is_err(), stays, "{files:?}, {existing:?}");
            assert_eq!(path.join("experiment.toml").exists(), stays, "{files:?}, {existing:?}");
            drop(run);
            assert_eq!(path.exists(), stays, "{files:?}, {existing:?}");
        }
    }
    begin(&[step]);
    let other = RunFolder::open(base.path(), "a").unwrap();
    assert!(RunFolder::create(base.path(), "a", Existing::ReplaceUnsaved).is_err());
    assert!(path.join("experiment.toml").exists());
    drop(other);
    // Without an experiment it is not one of our runs.
    begin(&[]);
    fs::remove_file(path.join("experiment.toml")).unwrap();
    assert!(RunFolder::create(base.path(), "a", Existing::ReplaceUnsaved).is_err());
}

/// Catches a failed start that leaves its folder, and a resumed run that is removed.
#[test]
fn a_run_that_this_process_began_can_be_discarded() {
    let base = tempfile::tempdir().unwrap();
    let mut run = RunFolder::create(base.path(), "a", Existing::Keep).unwrap();
    fs::write(run.experiment(), "").unwrap();
    fs::create_dir(run.checkpoints()).unwrap();
    assert!(run.discard());
    drop(run);
    assert!(!base.path().join("a").exists());
    fs::create_dir(base.path()).ok();
    let run = RunFolder::create(base.path(), "a", Existing::Keep).unwrap();
    fs::write(run.experiment(), "").unwrap();
    drop(run);
    let mut run = RunFolder::open(base.path(), "a").unwrap();
    assert!(!run.discard() && run.experiment().exists());
}

/// Catches a start that was killed while it wrote its first file and blocks the name for ever: `run` and `--resume`
/// would each refer the user to the other. Files of the user stay, and neither command refers to the other.
#[test]
fn leftovers_of_a_killed_start_do_not_stop_the_next_one() {
    let base = tempfile::tempdir().unwrap();
    let path = base.path().join("a");
    let leave = |names: &[&str]| {
        fs::create_dir_all(&path).unwrap();
        names.iter().for_each(|name| fs::write(path.join(name), "x").unwrap());
    };
    leave(&[".tmp-experiment.toml-12", LOCK]);
    let error = RunFolder::open(base.path(), "a").unwrap_err();
    assert_eq!(error.hint(), Some("start it without --resume"));
    let run = RunFolder::create(base.path(), "a", Existing::Keep).unwrap();
    assert!(!path.join(".tmp-experiment.toml-12").exists());
    fs::write(run.experiment(), "seed = 1").unwrap();
    drop(run);
    leave(&[".tmp-receipt.json-12"]);
    drop(RunFolder::open(base.path(), "a").unwrap());
    assert!(path.join("experiment.toml").exists() && !path.join(".tmp-receipt.json-12").exists());
    fs::remove_file(path.join("experiment.toml")).unwrap();
    leave(&["notes.txt"]);
    let resumed = RunFolder::open(base.path(), "a").unwrap_err();
    assert!(resumed.hint().unwrap().contains("remove it"), "{resumed:?}");
    let started = RunFolder::create(base.path(), "a", Existing::Keep).unwrap_err();
    assert!(!started.hint().unwrap().contains("--resume"), "{started:?}");
    assert!(path.join("notes.txt").exists());
}

/// Catches a run that writes by path into another run which was created under the name of its moved folder, one
/// that continues in a folder that was removed, and a dropped run that removes the other one's lock.
#[cfg(target_os = "linux")]
#[test]
fn gotcha_61_a_run_continues_in_its_moved_folder() {
    let base = tempfile::tempdir().unwrap();
    let path = base.path().join("a");
    let first = RunFolder::create(base.path(), "a", Existing::Keep).unwrap();
    assert_eq!(first.moved().unwrap(), None);
    fs::rename(&path, base.path().join("b")).unwrap();
    assert_eq!(first.moved().unwrap(), Some(base.path().canonicalize().unwrap().join("b")));
    let second = RunFolder::create(base.path(), "a", Existing::Keep).unwrap();
    fs::write(first.experiment(), "first").unwrap();
    assert!(!path.join("experiment.toml").exists());
    assert_eq!(fs::read_to_string(base.path().join("b/experiment.toml")).unwrap(), "first");
    fs::write(second.experiment(), "seed = 1").unwrap();
    fs::write(second.metrics(), "{}\n").unwrap();
    let mut first = first;
    assert!(!first.discard() && second.metrics().exists() && path.join("experiment.toml").exists());
    fs::remove_file(first.experiment()).unwrap();
    drop(first);
    assert!(path.join(LOCK).exists());
    fs::remove_dir_all(&path).unwrap();
    let error = second.moved().unwrap_err();
    assert!(error.message().contains("removed"), "{error}");
}

/// Catches names that point outside the folder of runs.
#[test]
fn a_name_that_is_a_path_is_refused() {
    let base = tempfile::tempdir().unwrap();
    for name in ["", ".", "..", "../x", "a/b/c", "a/", "a/..", "../a", "/x", ".hidden", "a\nb"] {
        assert_eq!(RunFolder::create(base.path(), name, Existing::Keep).unwrap_err().kind(), Kind::Request, "{name:?}");
        assert_eq!(RunFolder::open(base.path(), name).unwrap_err().kind(), Kind::Request, "{name:?}");
    }
    assert_eq!(fs::read_dir(base.path()).unwrap().count(), 0);
}

/// Catches a resume that creates a new run, or does not suggest a name.
#[test]
fn resuming_a_missing_run_suggests_the_most_similar_name() {
    let base = tempfile::tempdir().unwrap();
    for name in ["shakespeare", "quickstart"] {
        let run = RunFolder::create(base.path(), name, Existing::Keep).unwrap();
        fs::write(run.experiment(), "").unwrap();
    }
    let error = RunFolder::open(base.path(), "quikstart").unwrap_err();
    assert_eq!(error.kind(), Kind::Request);
    assert!(error.hint().unwrap().contains("\"quickstart\""), "{error:?}");
    assert!(!base.path().join("quikstart").exists());
    RunFolder::open(base.path(), "quickstart").unwrap();
}

/// Catches two processes in one run, an error that does not name the other process, and a lock that outlives kill
/// -9.
#[test]
fn the_locking_process_is_named_and_its_lock_ends_with_it() {
    if let Some(runs) = part() {
        let run = RunFolder::create(Path::new(&runs), "a", Existing::Keep).unwrap();
        fs::write(run.experiment(), "").unwrap();
        println!("locked");
        thread::sleep(Duration::from_secs(600));
        return;
    }
    let base = tempfile::tempdir().unwrap();
    let name = "runs::folder::tests::the_locking_process_is_named_and_its_lock_ends_with_it";
    let mut other = as_process(name, base.path().to_str().unwrap()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(other.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("locked")));
    let error = RunFolder::open(base.path(), "a").unwrap_err();
    assert!(error.message().contains(&other.id().to_string()), "{error}");
    other.kill().unwrap();
    other.wait().unwrap();
    RunFolder::open(base.path(), "a").unwrap();
}
