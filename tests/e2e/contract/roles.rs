//! Whole runs that compare the policy with a teacher or with itself behind other prompts. The objectives are in
//! `tests/plugins/distilling`.

use serde_json::{Value, json};

use crate::support::{
    kills::{kill_often, start_or_resume, with_enough_steps},
    lab::{Dice, Lab, ROWS, Run, SMALL},
};

/// A larger model that has learned the rows.
const TEACHER: &str = r#"
name = "teacher"

[objective]
plugin = "sft"

[train]
steps = 30
batch = { sequences = 8 }
optimizer = { lr = 1e-2 }
"#;

const STUDENT: &str = r#"
[teacher]
from = "runs/teacher"

[eval]
every = 5

[objective]
plugin = "distilling"

[train]
steps = 10
batch = { sequences = 8 }
optimizer = { lr = 5e-3 }
"#;

const SELF: &str = r#"
[context]
prompt = "hint"

[eval]
every = 5

[objective]
plugin = "context-kl"

[train]
steps = 10
batch = { sequences = 8 }
optimizer = { lr = 5e-3 }
"#;

const ROLLOUTS: &str = r#"
[context]
prompt = "hint"

[objective]
plugin = "own-answers"

[[reward]]
plugin = "length"
unit = "characters"
target = 4

[rollout]
prompts = 8
samples = 2
epochs = 2
max_new_tokens = 6

[train]
steps = 8
batch = { prompts = 4 }
optimizer = { lr = 5e-3 }
"#;

fn row(i: u64) -> Value {
    json!({"prompt": format!("{i}? "), "completion": format!("{} ok", i % 7), "hint": format!("Say {} to {i}: ", i % 7)})
}

/// A folder with rows and `tiny.toml` of this objective; with a teacher, which is trained first.
fn lab(objective: &str) -> Lab {
    let lab = Lab::new();
    let rows = |prompts: bool| {
        let line = |i| {
            let mut row = row(i);
            if prompts {
                row.as_object_mut().expect("an object").remove("completion");
            }
            row.to_string() + "\n"
        };
        (0..60).map(line).collect::<String>()
    };
    lab.write("rows.jsonl", rows(objective.contains("[rollout]")));
    lab.write("tiny.toml", format!("{SMALL}{ROWS}{objective}"));
    if objective.contains("[teacher]") {
        let (name, rest) = TEACHER.split_once("\n\n").expect("a name first");
        let larger = SMALL.replace("dim = 32", "dim = 48").replace("layers = 1", "layers = 2");
        lab.write("teacher.toml", format!("{name}\n{larger}{ROWS}{rest}"));
        lab.ask(&["run", "teacher.toml"]).succeeds();
    }
    lab
}

fn trains(lab: &Lab, sets: &[&str]) -> Run {
    lab.run(sets).succeeds();
    let run = lab.tiny_run();
    assert!(run.train("grad_norm").iter().all(|norm| norm.is_finite() && *norm > 0.0), "{:?}", run.train("grad_norm"));
    run
}

/// A teacher of another width and depth. Catches statistics of the teacher that are those of the policy (then the loss is 0), an
/// evaluation without them, a dry run that does not count the teacher, and a teacher that is trained.
#[test]
fn a_policy_learns_from_a_larger_teacher() {
    let lab = lab(STUDENT);
    let held = |file: &str, sets: &[&str]| lab.check(file, sets)["memory_held_bytes"].as_f64().expect("bytes");
    // Two layers of width 48 have at least 12 * 48^2 weights each, of 4 bytes.
    assert!(held("tiny.toml", &[]) > 4.0 * 2.0 * 12.0 * 48.0 * 48.0, "{}", held("tiny.toml", &[]));
    let run = trains(&lab, &[]);
    let (loss, eval) = (run.train("loss"), run.eval("eval/loss"));
    assert!(loss[0] > 0.1 && loss[9] < 0.8 * loss[0], "{loss:?}");
    assert!(eval[0] > 0.1 && eval.last() < eval.first(), "{eval:?}");
    let top = self::lab(STUDENT);
    let run = trains(&top, &["objective.plugin=top-distilling", "objective.count=4"]);
    let loss = run.train("loss");
    assert!(loss[0] > 0.1 && loss[9] < 0.8 * loss[0], "{loss:?}");
}

/// Catches an operation of one backend that is another function, and losses that depend on the cut.
#[test]
fn comparisons_train_the_same_on_candle_and_reference_and_in_any_cut() {
    for objective in [STUDENT, SELF] {
        let losses = |sets: &[&str]| {
            let lab = lab(objective);
            trains(&lab, &[&["train.steps=4"], sets].concat()).train("loss")
        };
        let expected = losses(&[]);
        for sets in [["backend.plugin=reference"], ["train.micro_batch_tokens=48"], ["train.micro_batch_tokens=96"]] {
            for (found, expected) in losses(&sets).into_iter().zip(&expected) {
                // Behind other prompts a model with fresh weights predicts nearly the same: the losses are about 2e-5.
                let error = (found - expected).abs();
                assert!(error < 2e-4 * expected + 1e-7, "{sets:?}: {found}, expected {expected}");
            }
        }
    }
}

/// Catches a replay that cannot read a teacher or another prompt, and an operation that the audit does not know.
#[test]
fn a_comparison_of_backends_replays_the_new_operations() {
    let lab = lab(STUDENT);
    let answer = lab.ask(&["compare", "tiny.toml", "--backends", "candle,reference", "--steps", "2", "--json"]).json();
    let verdict = &answer["backends"][0]["replay"]["verdict"];
    assert!(verdict["operations"].as_u64().expect("a number") > 20, "{answer}");
    assert_eq!((&verdict["beyond"], &verdict["skipped"]), (&json!(0), &json!([])), "{answer}");
}

/// The policy behind the rows' own prompts is the policy. Catches other rows, other positions, or a gradient through the copy; behind
/// other prompts there is something to learn.
#[test]
fn a_context_with_the_own_prompts_teaches_nothing() {
    let lab = lab(SELF);
    let same = (0..60).map(|i| {
        let mut row = row(i);
        row["hint"] = row["prompt"].clone();
        row.to_string() + "\n"
    });
    lab.write("same.jsonl", same.collect::<String>());
    lab.run(&["data.path=same.jsonl", "train.steps=3"]).succeeds();
    let run = lab.tiny_run();
    assert!(run.train("loss").iter().all(|loss| loss.abs() < 1e-6), "{:?}", run.train("loss"));
    assert!(run.train("grad_norm").iter().all(|norm| *norm < 1e-4), "{:?}", run.train("grad_norm"));
    let other = self::lab(SELF);
    let run = trains(&other, &[]);
    assert!(run.train("loss").iter().all(|loss| *loss > 1e-6), "{:?}", run.train("loss"));
}

/// Catches missing and unused tables that pass, and a row without its other prompt that is found at its step.
#[test]
fn roles_that_are_missing_or_unused_are_refused_before_the_first_step() {
    let lab = lab(SELF);
    let bad = (0..60).map(|i| if i == 1 { json!({"prompt": "a", "completion": "b"}) } else { row(i) });
    lab.write("bad.jsonl", bad.map(|row| row.to_string() + "\n").collect::<String>());
    lab.run(&["data.path=bad.jsonl"]).refuses(2, &["bad.jsonl:2", "hint", "[context] prompt"]);
    lab.run(&["context.prompt=other"]).refuses(2, &["rows.jsonl:1", "`other`"]);
    lab.run(&["teacher.from=runs/none"]).refuses(2, &["teacher", "unused: no objective reads a teacher"]);
    lab.write("tiny.toml", format!("{SMALL}{ROWS}{}", SELF.replace("[context]\nprompt = \"hint\"\n", "")));
    let missing = "context: missing: objective \"context-kl\" reads `context.kl`";
    lab.run(&[]).refuses(2, &[missing, "[context] with prompt"]);
    lab.run(&["objective.plugin=distilling"]).refuses(2, &["teacher: missing", "`teacher.kl`", "[teacher] with from"]);
}

/// Catches a teacher whose ids are other words, or more of them: the divergence would compare unrelated ids.
#[test]
fn a_teacher_of_another_vocabulary_is_refused_by_name() {
    let lab = lab(STUDENT);
    let larger = ["teacher.toml", "--set", "model.vocab=300", "--set", "name=larger", "--set", "train.steps=1"];
    lab.ask(&[&["run"], &larger[..]].concat()).succeeds();
    let why = ["teacher.from", "runs/larger has a vocabulary of 300 ids", "set model.vocab = 300"];
    lab.run(&["teacher.from=runs/larger"]).refuses(2, &why);
    lab.run(&["teacher.from=runs/none"]).refuses(2, &["teacher.from", "runs/none"]);
}

/// Catches a teacher of a shorter context that is refused although every row fits into it, one that reads beyond its context, and
/// a refusal without the remedy.
#[test]
fn a_teacher_may_have_a_shorter_context_if_every_row_fits() {
    let lab = lab(STUDENT);
    lab.ask(&["run", "teacher.toml", "--set", "model.context=24", "--set", "name=short"]).succeeds();
    trains(&lab, &["teacher.from=runs/short"]);
    let longer = (0..60).map(|i| json!({"prompt": format!("{i}, and more words than that: "), "completion": "yes"}));
    lab.write("longer.jsonl", longer.map(|row| row.to_string() + "\n").collect::<String>());
    let sets = ["name=other", "teacher.from=runs/short", "data.path=longer.jsonl"];
    let why = ["teacher.from: its context of 24 tokens is shorter than the longest row", "set data.max_length = 24"];
    lab.run(&sets).refuses(2, &why);
    lab.ask(&["check", "tiny.toml", "--set", sets[1], "--set", sets[2]]).refuses(2, &why);
    let cut = ["data.max_length=24", "data.truncation=left"];
    lab.run(&[&sets[..], &cut].concat()).succeeds();
}

/// Catches a row's own part that is said to be missing, and texts of another form that are.
#[test]
fn other_prompts_that_are_no_columns_or_no_texts_are_named() {
    let lab = lab(SELF);
    for part in ["prompt", "completion"] {
        let why = [&format!("`{part}`: a part of the row"), "a column of another name"];
        lab.run(&[&format!("context.prompt={part}")]).refuses(2, &why.map(|why| why as &str));
    }
    lab.run(&["context.prompt=other"]).refuses(2, &["missing", "this row's other texts are hint"]);
    for (hint, why) in [
        (json!(""), ["`hint`: an empty text", "or remove the row"]),
        (json!(3), ["`hint`: a number, not a text", "as a text"]),
        (json!([{"role": "user", "content": "a"}]), ["`hint`: a list of messages", "as one text"]),
    ] {
        let bad =
            (0..60).map(|i| json!({"prompt": format!("{i}"), "completion": "b", "hint": hint}).to_string() + "\n");
        lab.write("bad.jsonl", bad.collect::<String>());
        lab.run(&["data.path=bad.jsonl"]).refuses(2, &why);
    }
}

/// Catches a request for more ids than there are that names neither the objective nor the option on the command line.
#[test]
fn too_many_candidates_name_the_objective_and_the_option() {
    let lab = lab(&STUDENT.replace("\"distilling\"", "\"distill\""));
    let why = "--set objective.top_k: objective \"distill\" reads 300 candidates";
    lab.run(&["objective.top_k=300"]).refuses(2, &[why, "at most 256"]);
}

/// Kills the run a few times. Fails unless it leaves the bits of an undisturbed one.
fn check_kills(objective: &str, sets: &[&str], files: &[&str]) {
    with_enough_steps(30, |steps| {
        let length = format!("train.steps={steps}");
        let all: Vec<&str> = [&[length.as_str(), "checkpoint.every=1", "checkpoint.keep=2"], sets].concat();
        let lab = lab(objective);
        let kills = kill_often(&lab, &all, 4, &mut Dice(7));
        start_or_resume(&lab, &all).answer().succeeds();
        let undisturbed = self::lab(objective);
        undisturbed.run(&all).succeeds();
        let (run, whole) = (lab.tiny_run(), undisturbed.tiny_run());
        run.has_steps(steps);
        run.equals(&whole, steps);
        for file in files {
            assert!(run.saved(steps, file) == whole.saved(steps, file), "{file} differs");
        }
        kills
    });
}

/// Catches a teacher that is lost by a resume, or read from the policy's checkpoint.
#[test]
fn gotcha_42_a_killed_run_with_a_teacher_leaves_the_same_bits() {
    check_kills(STUDENT, &["objective.plugin=top-distilling"], &[]);
}

/// Answers that are learned from twice, behind other prompts. Catches prompts that are not in the file of the rollout.
#[test]
fn gotcha_35_42_a_killed_rollout_with_other_prompts_leaves_the_same_bits() {
    check_kills(ROLLOUTS, &["objective.mix=0.5"], &["rollout.json"]);
}
