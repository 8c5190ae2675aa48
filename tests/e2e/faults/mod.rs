//! Faults of the disk and early ends, at every file call of tiny runs. Each must end with the same bits as an undisturbed run, be
//! refused with the file's name, or be repaired with a message about it.
//!
//! [`layer`] disturbs one file call, [`cases`] are the experiments, [`trial`] tries one fault and returns its outcome, [`tree`]
//! compares the files that are left, [`tally`] counts, [`results`] writes counts to a file, [`parent`] disturbs the supervising
//! process, [`damage`] damages existing files, [`ends`] kills a pipeline a thousand times.

mod cases;
mod damage;
mod ends;
mod layer;
mod parent;
mod results;
mod tally;
mod tree;
mod trial;

use std::{
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use tempfile::TempDir;

use crate::support::lab::Dice;
use cases::Case;
use damage::Spoiler;
use layer::{ACTS, Act, Call, Fault};
use results::Part;
use tally::Tally;
use trial::{Begin, Ending, Prepared};

/// A folder in memory if the system has one: trials sync thousands of times.
fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    folder.expect("a temporary folder")
}

/// Runs `work` on each of `items`, on every core; returns the results in order.
fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    let threads = thread::available_parallelism().map_or(1, |cores| cores.get());
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((index, item)) =
                    Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|at| Some((at, items.get(at)?)))
                {
                    let result = work(item);
                    done.lock().expect("no other thread panicked").push((index, result));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("no thread panicked");
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

/// The faults of a case: all, or `sample` of each act and beginning, drawn the same every time.
fn faults(prepared: &Prepared, sample: Option<usize>) -> Vec<(Begin, Fault)> {
    let mut dice = Dice(prepared.case.name.len() as u64);
    let mut found = Vec::new();
    for begin in [Begin::First, Begin::Resume] {
        for act in ACTS {
            let calls: Vec<_> = prepared.calls(begin).iter().filter(|call| act.applies_to(call)).collect();
            let chosen: Vec<_> = match sample {
                None => calls,
                Some(count) => (0..count).map(|_| calls[dice.below(calls.len() as u64) as usize]).collect(),
            };
            found.extend(chosen.into_iter().map(|call| (begin, Fault { act, call: call.clone() })));
        }
    }
    found
}

/// All cases, or the one in `TELOS_FAULTS_CASE`, for work on a fault.
fn chosen_cases() -> Vec<Case> {
    let only = std::env::var("TELOS_FAULTS_CASE").ok();
    cases::all().into_iter().filter(|case| only.as_ref().is_none_or(|only| only == case.name)).collect()
}

/// Catches a stage that counts as done although it was killed before BEST named its last checkpoint, so that the next one takes
/// an older model for the best without a report.
#[test]
fn gotcha_61_a_stage_killed_before_best_is_written_passes_on_the_best_checkpoint() {
    let cases = cases::all();
    let case = cases.iter().find(|case| case.name == "pipeline").expect("a pipeline");
    let prepared = Prepared::new(case);
    // Before any file exists that shows the next process that the save was interrupted.
    let names_best = |call: &&Call| call.kind == "create" && call.path.contains("/sft/checkpoints/.tmp-BEST");
    let call = prepared.calls(Begin::First).iter().rfind(names_best).expect("a best checkpoint").clone();
    let ending = prepared.try_fault(Begin::First, &Fault { act: Act::Kill, call });
    assert!(matches!(ending, Ending::Same | Ending::SameAndLeft), "{ending:?}");
}

/// Catches a small file of a model that counts as missing because the system failed to read it once, so that a stage continues
/// without it, and without a report.
#[test]
fn gotcha_41_61_an_unreadable_file_does_not_count_as_missing() {
    check_calls("pipeline", &[Act::Fail], |call| {
        let of_a_model = ["tokenizer_config.json", "tokenizer.json", "config.json", "model.safetensors"];
        let is_small = of_a_model.iter().any(|name| call.path.ends_with(name));
        call.kind == "stat" && call.path.contains("/sft/") && is_small
    });
}

/// Catches a cache that is abandoned without naming the file, or because of a mere signal.
#[test]
fn gotcha_41_61_a_cache_that_cannot_be_written_is_named() {
    check_calls("dpo", &[Act::Fail, Act::Interrupt], |call| {
        ["flock", "truncate"].contains(&call.kind.as_str()) && call.path.ends_with(".logps")
    });
}

/// Tries each of `acts` on every call of the first run of `name` that is `chosen`.
fn check_calls(name: &str, acts: &[Act], chosen: impl Fn(&Call) -> bool) {
    let cases = cases::all();
    let case = cases.iter().find(|case| case.name == name).expect("a case");
    let prepared = Prepared::new(case);
    let calls: Vec<&Call> = prepared.calls(Begin::First).iter().filter(|call| chosen(call)).collect();
    assert!(!calls.is_empty());
    for call in calls {
        for act in acts.iter().filter(|act| act.applies_to(call)) {
            let ending = prepared.try_fault(Begin::First, &Fault { act: *act, call: call.clone() });
            assert!(!matches!(ending, Ending::Fault(_)), "{}, {} {}: {ending:?}", act.name(), call.kind, call.path);
        }
    }
}

/// Tries faults of every case; returns the counts by case and by act, and the faults found.
fn matrix(sample: Option<usize>) -> (Tally, Tally, Vec<String>) {
    let (by_case, by_act) = (Tally::default(), Tally::default());
    let mut wrong = Vec::new();
    for case in chosen_cases() {
        let prepared = Prepared::new(&case);
        let trials = faults(&prepared, sample);
        let endings = in_parallel(&trials, |(begin, fault)| prepared.try_fault(*begin, fault));
        for ((begin, fault), ending) in trials.iter().zip(endings) {
            by_case.add(&format!("{}, {}", case.name, begin.name()), &ending);
            by_act.add(fault.act.name(), &ending);
            if let Ending::Fault(why) = ending {
                let Fault { act, call } = fault;
                wrong.push(format!(
                    "{}, {}, {}, call {} ({} {}): {why}",
                    case.name,
                    begin.name(),
                    act.name(),
                    call.number,
                    call.kind,
                    call.path
                ));
            }
        }
    }
    (by_case, by_act, wrong)
}

/// Catches a failed, cut or last file call that leaves other bits, a run that cannot be resumed, or an error without a file's name.
#[test]
fn gotcha_41_61_a_sample_of_disturbed_file_calls_is_handled() {
    let (by_case, _, wrong) = matrix(Some(1));
    eprintln!("{}", by_case.table("case"));
    assert!(wrong.is_empty(), "{} faults:\n{}", wrong.len(), wrong.join("\n"));
}

/// Catches a supervising process that panics, removes a checkpoint, or leaves a run that can neither be started nor resumed.
#[test]
fn gotcha_61_a_sample_of_disturbed_calls_of_the_supervising_process_is_handled() {
    let (tally, wrong) = parent::all(Some(4));
    eprintln!("{}", tally.table("run"));
    assert!(wrong.is_empty(), "{} faults:\n{}", wrong.len(), wrong.join("\n"));
}

/// Damages files of every case; returns the counts by file, and the faults found.
fn damage_files(sample: Option<usize>) -> (Tally, Tally, Vec<String>) {
    let (by_use, by_damage) = (Tally::default(), Tally::default());
    let mut wrong = Vec::new();
    for case in chosen_cases() {
        let prepared = Prepared::new(&case);
        let spoiler = Spoiler::new(&prepared);
        let trials = spoiler.all(sample);
        let endings = in_parallel(&trials, |spoiled| spoiler.try_one(spoiled));
        for (spoiled, ending) in trials.iter().zip(endings) {
            by_use.add(spoiled.then.name(), &ending);
            by_damage.add(spoiled.damage.name(), &ending);
            if let Ending::Fault(why) = ending {
                wrong.push(format!(
                    "{}, {}, {:?}, {}: {why}",
                    case.name,
                    spoiled.file,
                    spoiled.damage,
                    spoiled.then.name()
                ));
            }
        }
    }
    (by_use, by_damage, wrong)
}

/// Catches a damaged file of a run that is read nevertheless, and one that is refused without its name.
#[test]
fn gotcha_41_61_a_sample_of_damaged_files_is_detected() {
    let (by_use, _, wrong) = damage_files(Some(1));
    eprintln!("{}", by_use.table("what follows"));
    assert!(wrong.is_empty(), "{} faults:\n{}", wrong.len(), wrong.join("\n"));
}

/// Catches a kill after which a pipeline cannot continue, or has other bits.
#[test]
fn gotcha_42_61_a_pipeline_that_is_killed_in_every_stage_leaves_the_same_bits() {
    let ends = ends::Ends::of(10);
    eprintln!("{}", ends.table());
    assert!(ends.wrong.is_empty(), "{} faults:\n{}", ends.wrong.len(), ends.wrong.join("\n"));
}

/// The first test with every file call.
#[test]
#[ignore = "takes most of an hour: cargo xtask test --full"]
fn gotcha_41_61_every_disturbed_file_call_is_handled() {
    let part = Part::begin("A file call is disturbed");
    let (by_case, by_act, wrong) = matrix(None);
    part.end(&[by_case.table("run"), by_act.table("what happens")], &wrong);
}

/// The same for the supervising process.
#[test]
#[ignore = "takes many minutes: cargo xtask test --full"]
fn gotcha_61_every_disturbed_call_of_the_supervising_process_is_handled() {
    let part = Part::begin("A file call of the supervising process is disturbed");
    let (tally, wrong) = parent::all(None);
    part.end(&[tally.table("run")], &wrong);
}

/// The test of damaged files with every file, at several places.
#[test]
#[ignore = "takes many minutes: cargo xtask test --full"]
fn gotcha_41_61_every_damaged_file_is_detected() {
    let part = Part::begin("A file is damaged");
    let (by_use, by_damage, wrong) = damage_files(None);
    part.end(&[by_use.table("what follows"), by_damage.table("damage")], &wrong);
}

/// The test of kills with a thousand of them.
#[test]
#[ignore = "takes many minutes: cargo xtask test --full"]
fn gotcha_42_61_a_thousand_kills_of_a_pipeline_leave_the_same_bits() {
    let part = Part::begin("A pipeline of five stages is killed again and again");
    let ends = ends::Ends::of(1000);
    part.end(&[ends.table()], &ends.wrong);
}
