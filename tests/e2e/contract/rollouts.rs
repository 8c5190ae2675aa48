//! Rollouts: what an objective reads of their answers, rewards by name, prompts that an objective requests. The objective is
//! `tests/plugins/dynamic`.

use serde_json::json;

use crate::support::{
    kills::{kill_often, start_or_resume, with_enough_steps},
    lab::{Dice, Lab, ROWS, Run, SMALL, close},
};

/// Answers of up to eight tokens, learned from in two passes of two steps.
const DYNAMIC: &str = r#"
[objective]
plugin = "dynamic"

[[reward]]
plugin = "length"
unit = "characters"
target = 4

[rollout]
prompts = 8
samples = 4
epochs = 2
max_new_tokens = 8

[train]
steps = 8
batch = { prompts = 4 }
optimizer = { lr = 3e-3 }
"#;

fn lab(experiment: &str) -> Lab {
    let lab = Lab::new();
    lab.write("tiny.toml", format!("{SMALL}{ROWS}{experiment}"));
    lab.write(
        "rows.jsonl",
        (0..60).map(|i| json!({"prompt": format!("{i}? ")}).to_string() + "\n").collect::<String>(),
    );
    lab
}

fn trained(experiment: &str, sets: &[&str]) -> (Lab, Run) {
    let lab = lab(experiment);
    lab.run(sets).succeeds();
    let run = lab.tiny_run();
    (lab, run)
}

const BACKENDS: [(&str, f64); 2] =
    [("backend={plugin=\"candle\",threads=1}", 1e-5), ("backend={plugin=\"reference\",dtype=\"f64\"}", 1e-10)];

/// Catches numbers of the sampler that belong to another token, or are those of the whole softmax at another temperature; a step
/// that is not the one after which the answers were drawn.
#[test]
fn without_cuts_the_sampler_is_the_policy() {
    for (backend, tolerance) in BACKENDS {
        for temperature in ["rollout.temperature=1", "rollout.temperature=0.7"] {
            let (_lab, run) = trained(DYNAMIC, &[backend, temperature]);
            for name in ["gap_min", "gap_max", "entropy_gap_min", "entropy_gap_max"] {
                let gap = run.train(name);
                assert_eq!(gap.len(), 8);
                assert!(gap.iter().all(|gap| gap.abs() < tolerance), "{backend}, {temperature}: {name} {gap:?}");
            }
            assert_eq!(run.train("drawn_at"), [0.0, 0.0, 0.0, 0.0, 4.0, 4.0, 4.0, 4.0]);
            assert_eq!(run.train("rollouts"), [1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0]);
        }
    }
}

/// Catches log-probabilities of the whole softmax where sampling cut it: with the kept tokens' probability Z in 0.9..=1 at least, that of
/// a drawn token is greater by -ln Z, and the entropy is smaller.
#[test]
fn with_cuts_the_sampler_is_renormalised_over_the_kept_tokens() {
    for (backend, tolerance) in BACKENDS {
        let (_lab, run) = trained(DYNAMIC, &[backend, "rollout.temperature=0.7", "rollout.top_p=0.9"]);
        let (least, most) = (run.train("gap_min"), run.train("gap_max"));
        assert!(least.iter().all(|gap| *gap > -tolerance), "{least:?}");
        assert!(most.iter().all(|gap| (1e-3..-(0.9_f64.ln()) + tolerance).contains(gap)), "{most:?}");
        let entropy = run.train("entropy_gap_max");
        assert!(entropy.iter().all(|gap| *gap < tolerance), "{entropy:?}");
        assert!(run.train("entropy_gap_min").iter().all(|gap| *gap < -1e-2));
    }
}

/// Catches micro-batches that keep the answers to a prompt together although the objective may cut them apart, and a result that
/// depends on the cut.
#[test]
fn groups_are_cut_apart_where_the_objective_says_so() {
    let lab = lab(DYNAMIC);
    // Eight answers to a prompt have at least 40 positions, so two prompts never fit together.
    let (narrow, many) = ("train.micro_batch_tokens=48", "rollout.samples=8");
    let count = |sets: &[&str]| lab.check("tiny.toml", sets)["micro_batches"].as_u64().expect("a number");
    let (apart, whole) = (count(&[narrow, many]), count(&[narrow, many, "objective.plugin=online-dpo"]));
    assert!(apart > whole, "{apart} micro-batches, {whole} with whole groups");
    lab.run(&[narrow, many, "name=narrow"]).succeeds();
    lab.run(&[many, "name=wide"]).succeeds();
    let [a, b] = ["narrow", "wide"].map(|name| Run(lab.at(&format!("runs/{name}"))).train("grad_norm"));
    close(a[0], b[0], 1e-5, "the gradient of the first step");
}

/// Catches lists of a row that reach another row's answers, or none: where groups are cut apart, where some are dropped and more
/// prompts drawn, and in the second pass.
#[test]
fn lists_of_a_row_belong_to_its_answers() {
    let lab = lab(DYNAMIC);
    let row = |n: usize| json!({"prompt": format!("{n}? "), "n": n, "marks": vec![n; n % 3]}).to_string() + "\n";
    lab.write("rows.jsonl", (0..60).map(row).collect::<String>());
    for sets in [&["train.micro_batch_tokens=48"][..], &["objective.groups=6", "rollout.max_prompts=24"]] {
        lab.run(sets).succeeds();
        assert_eq!(lab.tiny_run().train("list_gap"), [0.0; 8]);
        std::fs::remove_dir_all(lab.at("runs/tiny")).expect("removed");
    }
}

/// Catches a host that does not call the `compose` of an objective with its own text beside rollouts, and a loss of its sequences that
/// depends on how the window is split.
#[test]
fn an_objective_with_its_own_text_composes_it_beside_rollouts() {
    let lab = lab(&DYNAMIC.replace("[objective]", "[[objective]]"));
    lab.write("notes.txt", (0..200).map(|i| format!("note {i} of many.\n\n")).collect::<String>());
    let objectives =
        "objective=[{plugin=\"dynamic\"},{plugin=\"fim\",rate=1.0,text=\"notes.txt\",tokens=256,weight=0.5}]";
    for (name, width) in [("wide", 4096), ("narrow", 48)] {
        let (name, width) = (format!("name={name}"), format!("train.micro_batch_tokens={width}"));
        lab.run(&["model.vocab=260", objectives, &name, &width]).succeeds();
    }
    let [wide, narrow] = ["wide", "narrow"].map(|name| Run(lab.at(&format!("runs/{name}"))));
    assert_eq!(wide.train("fim/rewritten"), [1.0; 8]);
    assert_eq!(narrow.train("fim/rewritten"), [1.0; 8]);
    close(wide.train("fim/nll/middle")[0], narrow.train("fim/nll/middle")[0], 1e-5, "the loss of the middles");
    close(wide.train("grad_norm")[0], narrow.train("grad_norm")[0], 1e-5, "the gradient of the first step");
}

/// Catches an experiment whose groups are smaller than the objective needs.
#[test]
fn too_few_answers_to_a_prompt_are_refused_by_name() {
    let lab = lab(DYNAMIC);
    lab.run(&["objective.least=5"])
        .refuses(2, &["rollout.samples", "4, but objective \"dynamic\" needs at least 5 answers"]);
    let unused = ["objective.plugin=online-dpo", "rollout.max_prompts=16"];
    lab.run(&unused).refuses(2, &["rollout.max_prompts", "unused: no objective requests more prompts"]);
    let other = ["objective={plugin=\"grpo\",normaliser=\"constant\",scale=\"none\",max_length=24}"];
    lab.run(&other).refuses(2, &["objective.max_length", "24, but rollout.max_new_tokens = 8"]);
    lab.run(&["rollout.max_prompts=4"]).refuses(2, &["rollout.max_prompts", "4 is less than rollout.prompts = 8"]);
    for (name, why) in [("a.b", "not a valid name"), ("token", "not a valid name"), ("7", "not a valid name")] {
        lab.run(&[&format!("reward.0.name=\"{name}\"")]).refuses(2, &["reward.0.name", why]);
    }
}

/// A reward of words: most prompts have four equal answers at first, since few are right.
const REQUESTING: [&str; 3] = ["objective.groups=6", "rollout.samples=2", "reward.0.target=2"];

/// Catches prompts that are drawn without being counted, groups of two draws under one number, a state that changes with every draw
/// instead of every rollout, and metrics that other runs get.
#[test]
fn an_objective_draws_more_prompts_until_it_has_enough() {
    let (_lab, run) = trained(DYNAMIC, &REQUESTING);
    let (prompts, kept) = (run.train("answers/prompts"), run.train("answers/kept"));
    assert_eq!(
        run.train("rollouts").iter().fold(0.0, |most: f64, n| most.max(*n)),
        *run.train("rollouts").last().unwrap()
    );
    let drawn: Vec<f64> = prompts.iter().copied().filter(|n| !n.is_nan()).collect();
    assert!(drawn.iter().all(|n| (8.0..=32.0).contains(n)), "{prompts:?}");
    assert!(kept.iter().all(|share| share.is_nan() || (*share > 0.0 && *share <= 1.0)), "{kept:?}");
    assert!(run.train("groups").iter().all(|group| *group < 32.0));
    let (_lab, plain) = trained(DYNAMIC, &[]);
    assert!(plain.train("answers/prompts").iter().all(|n| n.is_nan()));
}

/// Catches a request that never ends, and a limit that ends the run instead of the rollout, or is silent.
#[test]
fn a_request_ends_at_the_limit() {
    let lab = lab(DYNAMIC);
    let answer = lab.run(&["objective.groups=1000", "rollout.max_prompts=20"]);
    answer.succeeds();
    assert_eq!(answer.err.matches("requested more prompts than rollout.max_prompts = 20").count(), 1, "{answer:#?}");
    let prompts = lab.tiny_run().train("answers/prompts");
    assert_eq!(prompts[0], 20.0, "{prompts:?}");
    // With a limited number of epochs the data ends first: the first rollout takes all prompts that there are.
    let lab = self::lab(&DYNAMIC.replace("steps = 8", "epochs = 1"));
    lab.run(&["objective.groups=1000", "rollout.max_prompts=1000"]).succeeds();
    let prompts = lab.tiny_run().train("answers/prompts");
    let rows = lab.check("tiny.toml", &[])["rows"]["train"].as_f64();
    assert!((40.0..=60.0).contains(&prompts[0]) && rows.is_none_or(|rows| rows == prompts[0]), "{prompts:?}, {rows:?}");
    assert!(prompts[1..].iter().all(|n| n.is_nan()), "{prompts:?}");
}

/// Catches a place in the data that does not count requested prompts, a rollout that is drawn with other seeds after a resume, and a
/// state that was saved in the middle of a rollout's draws.
#[test]
fn gotcha_42_a_run_that_requests_prompts_is_killed_and_leaves_the_same_bits() {
    with_enough_steps(60, |steps| {
        let length = format!("train.steps={steps}");
        let sets = [&[length.as_str(), "checkpoint.every=1", "checkpoint.keep=2"][..], &REQUESTING].concat();
        let lab = lab(DYNAMIC);
        let kills = kill_often(&lab, &sets, 12, &mut Dice(61));
        start_or_resume(&lab, &sets).answer().succeeds();
        let undisturbed = self::lab(DYNAMIC);
        undisturbed.run(&sets).succeeds();
        let (run, whole) = (lab.tiny_run(), undisturbed.tiny_run());
        run.has_steps(steps);
        run.equals(&whole, steps);
        assert!(run.saved(steps, "rollout.json") == whole.saved(steps, "rollout.json"), "rollout.json differs");
        assert!(whole.train("answers/prompts").iter().any(|n| *n > 8.0), "nothing was requested");
        kills
    });
}

/// Catches a run that ends with the first rollout of ties, skipped rollouts that are not counted or draw the same prompts and answers
/// again, and a resumed run that counts or draws them otherwise.
#[test]
fn rollouts_of_ties_are_skipped_and_leave_the_same_bits() {
    with_enough_steps(40, |steps| {
        let length = format!("train.steps={steps}");
        let few = ["rollout.prompts=1", "rollout.samples=2", "train.batch.prompts=1", "rollout.epochs=1"];
        let sets = [&[length.as_str(), "objective.plugin=online-dpo", "checkpoint.every=1"][..], &few].concat();
        let lab = lab(DYNAMIC);
        let kills = kill_often(&lab, &sets, 6, &mut Dice(67));
        start_or_resume(&lab, &sets).answer().succeeds();
        let undisturbed = self::lab(DYNAMIC);
        let answer = undisturbed.run(&sets);
        answer.succeeds();
        assert_eq!(answer.err.matches("such a rollout is skipped").count(), 1, "{answer:#?}");
        let (run, whole) = (lab.tiny_run(), undisturbed.tiny_run());
        run.has_steps(steps);
        run.equals(&whole, steps);
        assert!(whole.train("answers/skipped").iter().any(|n| *n > 0.0), "nothing was skipped");
        kills
    });
    // Data that ends among skipped rollouts ends the run, and it says why nothing was learned.
    let lab = lab(&DYNAMIC.replace("steps = 8", "epochs = 1"));
    let answer = lab.run(&["objective.plugin=online-dpo", "rollout.samples=2", "rollout.temperature=1e-6"]);
    answer.succeeds();
    assert_eq!(answer.err.matches("such a rollout is skipped").count(), 1, "{answer:#?}");
}

/// The quickstart world's reward, with parts and steps, under a name of its own.
const WORLD: &str = r#"
seed = 7

[backend]
plugin = "candle"
threads = 1

[model]
layers = 1
dim = 32
heads = 2
context = 64

[data]
source = "synthetic"
tasks = ["copy"]
rows = 200

[objective]
plugin = "dynamic"
steps_of = "gold"

[[reward]]
plugin = "world"
name = "gold"
weight = 0.5

[[reward]]
plugin = "length"
unit = "characters"
target = 9

[rollout]
prompts = 8
samples = 2
max_new_tokens = 12

[train]
steps = 2
batch = { prompts = 8 }
optimizer = { lr = 3e-3 }
"#;

/// Catches a name that is not used, parts that are not reported, and a trial before step 1 without the arrays of a reward.
#[test]
fn rewards_have_names_parts_and_numbers_per_token() {
    let lab = Lab::new();
    lab.write("tiny.toml", WORLD);
    lab.run(&[]).succeeds();
    let run = lab.tiny_run();
    for name in ["reward/gold", "reward/gold/right", "reward/gold/terse", "reward/length", "spans_min"] {
        assert!(run.train(name).iter().all(|value| value.is_finite()), "{name}: {:?}", run.train(name));
    }
    assert!(run.train("reward/world").iter().all(|value| value.is_nan()));
    lab.run(&["name=no", "reward.0.name=\"length\""])
        .refuses(2, &["reward.0.name", "\"length\" is also the name of reward.1"]);
    lab.run(&["name=no", "objective.steps_of=length"]).refuses(1, &["reward.length.token"]);
}

/// Catches spans that are laid on other tokens than the answer's, counted twice or lost: a quarter for each character is the score and
/// the sum over the tokens. Also ratings that are not checked, and errors that do not say which reward, sample and span is wrong.
#[test]
fn spans_add_up_over_tokens_and_wrong_ones_are_refused() {
    let text = DYNAMIC
        .replace("plugin = \"length\"\nunit = \"characters\"\ntarget = 4", "plugin = \"spelled\"")
        .replace("plugin = \"dynamic\"", "plugin = \"dynamic\"\nsteps_of = \"spelled\"");
    let (lab, run) = trained(&text, &[]);
    let score = run.train("reward/spelled");
    assert!(score[0] > 0.25, "the answers have no text: {score:?}");
    for name in ["spans_min", "spans_max"] {
        assert!(run.train(name).iter().all(|difference| *difference == 0.0), "{name}: {:?}", run.train(name));
    }
    for (wrong, parts) in [
        ("outside", ["call `rate`: sample ", "span 0 (0 to ", "does not lie in the text"]),
        ("number", ["call `rate`: sample ", "span 0 (0 to ", "has the value NaN"]),
        ("part", ["call `rate`: sample ", "the declared part `spaces` is missing", "the prompt is"]),
    ] {
        let answer = lab.run(&["name=no", &format!("reward.wrong={wrong}")]);
        answer.refuses(1, &[&parts[..], &["reward \"spelled\""]].concat());
    }
}
