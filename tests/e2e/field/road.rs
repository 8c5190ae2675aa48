//! Whole runs on inputs from elsewhere: the reference pass, evaluation, columns that nothing reads.

use std::fs;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::case;
use crate::support::lab::{Lab, ROWS, Run, SMALL, close, json_lines, some_text, with_sets};

/// A file of preference pairs: `count` rows whose answers are about `length` bytes long.
fn pairs(count: usize, length: usize) -> String {
    let row = |i: usize| json!({"prompt": format!("{i}? "), "chosen": "y".repeat(length), "rejected": "n".repeat(length - i % 7)});
    (0..count).map(|i| row(i).to_string() + "\n").collect()
}

/// The experiment of a case, on a small fresh model and rows in its folder.
fn small_experiment(lab: &Lab, file: &str) {
    let text = fs::read_to_string(lab.at(file)).expect("the case has it");
    let model = "model = { layers = 1, dim = 32, heads = 2, context = 512 }";
    let text = text.replace("model.from = \"DATA/models/stories260k\"", model);
    lab.write(file, text.replace("DATA/preference/pandalm_human.jsonl", "rows.jsonl"));
}

fn dpo<'a>(sets: &[&'a str]) -> Vec<&'a str> {
    let own = ["objective.plugin=dpo", "train.batch.pairs=2", "eval.every=0"];
    with_sets(&["run", "st-pref.toml"], &[&own, sets].concat())
}

/// The number of rows that the reference scored before the first step, as the run reports it.
fn scored(err: &str) -> usize {
    let line = err.lines().find(|line| line.starts_with("the reference scores ")).unwrap_or("the reference scores 0 ");
    line["the reference scores ".len()..].split(' ').next().and_then(|number| number.parse().ok()).expect("a number")
}

/// Catches a reference that scores the whole data set before a single step, and numbers that depend on what else is scored.
#[test]
fn reference_scores_everything() {
    let lab = case("reference-scores-everything");
    small_experiment(&lab, "st-pref.toml");
    lab.write("rows.jsonl", pairs(300, 200));
    let few = lab.ask(&dpo(&["train.steps=1", "eval.tokens=300", "data.held_out=0.02"]));
    few.succeeds();
    // Two pairs of the step and one for the evaluation; no two pairs fit into a block.
    assert_eq!(scored(&few.err), 3, "{few:#?}");
    // Of short pairs some are computed together, and most are not computed.
    lab.write("rows.jsonl", pairs(300, 30));
    let sets = ["train.steps=1", "eval.tokens=60", "data.held_out=0.02", "name=short"];
    let short = lab.ask(&dpo(&sets));
    short.succeeds();
    assert!((3..60).contains(&scored(&short.err)), "{short:#?}");
    // The same step when everything was scored at once, from another cache: the same bits.
    let all = lab.ask(&dpo(&["train.steps=200", "data.held_out=0.02", "name=all", "runs_dir=elsewhere"]));
    all.succeeds();
    assert!(scored(&all.err) > 250, "{all:#?}");
    let first = |folder: &str| Run(lab.at(folder)).metrics("train").remove(0);
    assert_eq!(first("runs/short"), first("elsewhere/all"));
    // What was scored once is read by the longer run, and only the rest is scored.
    let rest = lab.ask(&dpo(&["train.steps=200", "data.held_out=0.02", "name=all"]));
    rest.succeeds();
    assert_eq!(scored(&rest.err) + scored(&short.err), scored(&all.err), "{rest:#?}");
    Run(lab.at("runs/all")).equals(&Run(lab.at("elsewhere/all")), 200);
}

/// Catches a Ctrl-C that acts only after the reference has scored all rows, one after which everything is scored again, a run
/// that cannot be resumed, and a pass without progress reports.
#[test]
fn sigint_reference() {
    let lab = case("sigint-reference");
    small_experiment(&lab, "st-pref.toml");
    lab.write("rows.jsonl", pairs(900, 230));
    lab.write("tiny.toml", fs::read_to_string(lab.at("st-pref.toml")).expect("written"));
    let sets = ["name=st-pref", "objective.plugin=dpo", "train.batch.pairs=20", "train.steps=40", "eval.tokens=300"];
    let sets = [&sets[..], &["eval.every=0", "train.micro_batch_tokens=1024"]].concat();
    let mut running = lab.start(&sets, false);
    let cached = || {
        let files = fs::read_dir(lab.at("runs/.cache/reference")).into_iter().flatten().flatten();
        files.filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum::<u64>()
    };
    assert!(running.until(|| cached() > 20_000), "the pass was over before it was seen");
    running.signal(Signal::INT);
    let stopped = running.answer();
    stopped.refuses(130, &["stopped while the reference scored rows: ", "kept in runs/.cache/reference", "--resume"]);
    let kept = cached();
    let number = |text: &str| text.split(' ').next().and_then(|n| n.parse::<usize>().ok()).expect("a number");
    let done = number(stopped.err.split("scored rows: ").nth(1).expect("how many"));
    let of = scored(&stopped.err);
    assert!(done > 0 && done < of, "{stopped:#?}");
    assert!(stopped.err.contains(&format!("{done} of {of} are done")), "{stopped:#?}");
    assert!(Run(lab.at("runs/st-pref")).train("loss").is_empty(), "a step was taken");
    let resumed = lab.resume(&sets);
    resumed.succeeds();
    assert_eq!(scored(&resumed.err), of - done, "{resumed:#?}");
    assert!(cached() > kept);
    let whole = lab.run(&[&sets[..], &["runs_dir=whole"]].concat());
    whole.succeeds();
    assert_eq!(scored(&whole.err), of);
    Run(lab.at("runs/st-pref")).equals(&Run(lab.at("whole/st-pref")), 40);
}

/// A small model that has learned to answer "a".
fn answers_a(rows: &str) -> Lab {
    let lab = Lab::new();
    lab.write("rows.jsonl", rows);
    let sft = "\n[objective]\nplugin = \"sft\"\n\n[eval]\ngenerate = 100\n\n[train]\nsteps = 30\nbatch = { sequences = 4 }\n\
               optimizer = { lr = 1e-2 }\n";
    lab.write("tiny.toml", format!("{SMALL}{ROWS}{sft}"));
    lab.run(&[]).succeeds();
    lab
}

fn a_rows(count: usize, odd: &str) -> String {
    let answer = |i: usize| if i.is_multiple_of(3) { odd } else { "a" };
    (0..count).map(|i| json!({"prompt": format!("{i}? "), "completion": answer(i)}).to_string() + "\n").collect()
}

/// Catches an exact match without the answers that it compared, and answers that are not those that were counted.
#[test]
fn scored_answers_are_written_to_samples_jsonl() {
    let lab = answers_a(&a_rows(60, "b"));
    let run = Run(lab.at("runs/tiny"));
    let lines = run.lines("samples.jsonl");
    for (step, share) in [(0, run.eval("eval/exact_match")[0]), (30, run.eval("eval/exact_match")[1])] {
        let own: Vec<&Value> = lines.iter().filter(|line| line["step"] == step).collect();
        let right = own.iter().filter(|line| line["match"] == true).count();
        assert_eq!(right as f64 / own.len() as f64, share, "step {step}");
        for line in own {
            assert_eq!(line["kind"], "exact_match", "{line}");
            assert_eq!(line["match"], json!(line["answer"] == line["expected"]), "{line}");
            assert!(["a", "b"].map(Value::from).contains(&line["expected"]), "{line}");
            assert!(line["prompt"].as_str().is_some_and(|prompt| prompt.ends_with("? ")), "{line}");
        }
    }
    // Rewards: every held-out answer with what each reward gave it, and the weighted sum.
    let reward =
        "reward=[{plugin=\"length\", unit=\"characters\", target=4, weight=0.5}, {plugin=\"length\", weight=0.0}]";
    lab.run(&[reward, "name=judged", "train.steps=1"]).succeeds();
    let run = Run(lab.at("runs/judged"));
    let lines = run.lines("samples.jsonl");
    let rewarded: Vec<&Value> = lines.iter().filter(|line| line["kind"] == "reward" && line["step"] == 1).collect();
    let compared = lines.iter().filter(|line| line["kind"] == "exact_match" && line["step"] == 1).count();
    assert!(rewarded.len() == compared && compared > 3, "{lines:#?}");
    let mean =
        |value: &dyn Fn(&Value) -> f64| rewarded.iter().map(|line| value(line)).sum::<f64>() / rewarded.len() as f64;
    let length = |line: &Value| line["rewards"]["length"].as_f64().expect("a reward");
    close(mean(&length), run.eval("eval/reward/length")[1], 1e-12, "the rewards measured");
    for line in rewarded {
        close(line["reward"].as_f64().expect("a sum"), 0.5 * length(line), 1e-12, "the weighted sum");
        assert!(line["answer"].is_string() && line["expected"].is_string() && line["rewards"]["length.1"].is_number());
    }
}

/// Catches an evaluation of rows that needs a training run with a dummy row, and figures other than a run's own.
#[test]
fn eval_needs_dummy() {
    let lab = answers_a(&a_rows(60, "b"));
    let run = Run(lab.at("runs/tiny"));
    // Exactly the rows that the run held out, as its own figures are of them.
    let prompts: Vec<Value> = run
        .lines("samples.jsonl")
        .iter()
        .filter(|line| line["step"] == 30)
        .map(|line| line["prompt"].clone())
        .collect();
    let all = a_rows(60, "b");
    let held: String = all
        .lines()
        .filter(|line| prompts.contains(&serde_json::from_str::<Value>(line).expect("JSON")["prompt"]))
        .map(|line| format!("{line}\n"))
        .collect();
    lab.write("held.jsonl", held);
    let args = ["eval", "runs/tiny", "--rows", "held.jsonl", "--out", "answers.jsonl", "--json"];
    let figures: Value = serde_json::from_str(lab.ask(&args).succeeds()).expect("JSON");
    let number = |key: &str| figures[key].as_f64().unwrap_or(f64::NAN);
    close(number("loss"), run.eval("eval/loss")[1], 1e-6, "loss");
    assert_eq!(number("exact_match"), run.eval("eval/exact_match")[1]);
    assert_eq!((number("answers"), number("tokens")), (prompts.len() as f64, 2.0 * prompts.len() as f64));
    let answers = json_lines(lab.at("answers.jsonl"));
    let right = answers.iter().filter(|answer| answer["match"] == true).count();
    assert_eq!(right as f64 / answers.len() as f64, number("exact_match"));
    let text = lab.ask(&["eval", "runs/tiny", "--rows", "held.jsonl"]);
    for part in ["nats per token of the completions", "exact match", "token accuracy"] {
        assert!(text.succeeds().contains(part), "{text:#?}");
    }
    // Prompts with answers among their columns, under another name; and rows that are not prompts.
    let row = |i: usize| json!({"prompt": format!("{i}? "), "solution": "a"}).to_string() + "\n";
    lab.write("asked.jsonl", (0..5).map(row).collect::<String>());
    let command =
        ["eval", "runs/tiny", "--rows", "asked.jsonl", "--column", "answer=solution", "--generate", "3", "--json"];
    let figures: Value = serde_json::from_str(lab.ask(&command).succeeds()).expect("JSON");
    assert!(figures["loss"].is_null() && figures["answers"] == 3, "{figures}");
    lab.ask(&["eval", "runs/tiny", "--rows", "asked.jsonl"]).refuses(2, &["asked.jsonl", "completion", "answer"]);
    lab.write("bad.jsonl", "{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"question\": 7}\n");
    lab.ask(&["eval", "runs/tiny", "--rows", "bad.jsonl"]).refuses(2, &["bad.jsonl:2"]);
    lab.ask(&["eval", "runs/tiny"]).refuses(2, &["--data"]);
    // A run without steps needs neither learning rate nor batch; it evaluates the same rows to the same loss.
    let case = case("eval-needs-dummy");
    fs::copy(case.at("dummy.jsonl"), lab.at("dummy.jsonl")).expect("copied");
    let min = fs::read_to_string(case.at("ev_min.toml")).expect("the case has it");
    lab.write("ev_min.toml", min.replace("DATA/models/stories260k", "runs/tiny").replace("rows.jsonl", "held.jsonl"));
    lab.ask(&["run", "ev_min.toml"]).succeeds();
    close(Run(lab.at("runs/ev_min")).eval("eval/loss")[0], number("loss"), 1e-6, "the same rows");
    small_experiment(&case, "ev_min.toml");
    case.ask(&["run", "ev_min.toml"]).succeeds();
    close(Run(case.at("runs/ev_min")).eval("eval/loss")[0], 257f64.ln(), 0.05, "a fresh model's first loss");
}

/// Catches a text's end token that is counted without a report, or reported as counted but is not.
#[test]
fn eval_of_a_text_gives_its_loss_with_and_without_its_end() {
    let lab = answers_a(&a_rows(20, "b"));
    lab.write("one.txt", some_text(30));
    lab.write("two.txt", "a short one");
    let ask = |more: &[&str]| {
        let args = ["eval", "runs/tiny", "--data", "one.txt", "two.txt"].into_iter().chain(more.iter().copied());
        lab.ask(&args.collect::<Vec<_>>())
    };
    let figures: Value = serde_json::from_str(ask(&["--json", "--per-token"]).succeeds()).expect("JSON");
    let number = |key: &str| figures[key].as_f64().unwrap_or(f64::NAN);
    let each: Vec<f64> =
        figures["nll_per_token"].as_array().expect("losses").iter().filter_map(Value::as_f64).collect();
    // Without a token before a text its first one is not predicted, and its end is.
    let first = fs::metadata(lab.at("one.txt")).expect("a file").len() as usize;
    let text: Vec<f64> = each
        .iter()
        .enumerate()
        .filter(|(at, _)| *at != first - 1 && *at != each.len() - 1)
        .map(|(_, nll)| *nll)
        .collect();
    assert_eq!((number("end_tokens"), text.len() + 2), (2.0, each.len()));
    let mean = text.iter().sum::<f64>() / text.len() as f64;
    close(number("loss_without_end"), mean, 1e-12, "the text alone");
    close(number("perplexity_without_end"), mean.exp(), 1e-12, "its perplexity");
    close(number("loss"), each.iter().sum::<f64>() / each.len() as f64, 1e-12, "with the ends");
    let printed = ask(&[]);
    for part in [
        format!("{:.6} nats per token, 2 end-of-text tokens counted", number("loss")),
        format!("text alone    {mean:.6} nats per token"),
    ] {
        assert!(printed.succeeds().contains(&part), "{part}: {printed:#?}");
    }
}

/// Catches a generation without a reported speed, or one that counts other tokens than it drew.
#[test]
fn generate_and_compare_print_their_rates() {
    let lab = Lab::tiny();
    lab.run(&[]).succeeds();
    let base = ["generate", "runs/tiny", "--prompt", "sort: ", "--max-tokens", "5", "--samples", "3"];
    let found: Value = serde_json::from_str(lab.ask(&[&base[..], &["--json"]].concat()).succeeds()).expect("JSON");
    let samples = found["samples"].as_array().expect("samples");
    let drawn: usize = samples.iter().map(|sample| sample["tokens"].as_array().expect("tokens").len()).sum();
    let speed = |key: &str| found["speed"][key].as_f64().expect("a number");
    assert_eq!(speed("new_tokens"), drawn as f64);
    close(speed("tokens_per_s") * speed("seconds"), drawn as f64, 1e-9, "tokens, seconds and rate");
    for args in [&base[..], &base[..6]] {
        let answer = lab.ask(args);
        answer.succeeds();
        let rate = answer.err.lines().last().unwrap_or_default();
        assert!(rate.contains(" new tokens in ") && rate.ends_with(" tokens/s"), "{answer:#?}");
    }
    let answer = lab.ask(&["compare", "tiny.toml", "--backends", "candle,reference", "--steps", "2"]);
    assert!(answer.succeeds().contains("tokens/s, median"), "{answer:#?}");
}

/// Catches a stage whose name has a dot that is refused, and a key that reaches a stage whose name is the beginning of it.
#[test]
fn stage_name_dot() {
    let lab = case("stage-name-dot");
    small_experiment(&lab, "p.toml");
    lab.ask(&["check", "p.toml", "--set", "stage.lr-0.05.train.steps=3"]).succeeds();
    let steps = |name: &str| Run(lab.at(&format!("runs/p/{name}"))).train("loss").len();
    let more = "\n[[stage]]\nname = \"lr-0\"\nobjective = { plugin = \"sft\" }\n\n[[stage]]\nname = \"lr-0.1\"\n\
                model.from = \"stage:lr-0.05\"\nobjective = { plugin = \"sft\" }\n";
    let own = fs::read_to_string(lab.at("p.toml")).expect("written");
    let model = own.lines().next().expect("a model").to_owned();
    let own = own.replacen(&format!("{model}\n"), "", 1);
    let staged = own.replace("name = \"lr-0.05\"", &format!("name = \"lr-0.05\"\n{model}"));
    lab.write("p.toml", staged + &more.replace("name = \"lr-0\"\n", &format!("name = \"lr-0\"\n{model}\n")));
    let sets = ["stage.lr-0.05.train.steps=2", "stage.lr-0.train.steps=3", "stage.\"lr-0.1\".train.steps=4"];
    let args = with_sets(&["run", "p.toml"], &sets);
    lab.ask(&args).succeeds();
    assert_eq!(["lr-0.05", "lr-0", "lr-0.1"].map(steps), [2, 3, 4]);
    // An earlier run of "lr-0" does not take the place of stage "lr-0.1".
    lab.ask(&[&args[..], &["--only", "lr-0"]].concat()).succeeds();
    assert_eq!(["lr-0.1", "lr-0.2"].map(steps), [4, 3]);
    let wrong = lab.ask(&["check", "p.toml", "--set", "stage.lr-0.3.train.steps=3"]);
    wrong.refuses(2, &["stage.lr-0.3.train.steps"]);
}

/// Alpaca's rows, whose `input` has the question. Catches a column that is dropped without a note.
#[test]
fn alpaca_input_dropped() {
    let lab = case("alpaca-input-dropped");
    small_experiment(&lab, "f.toml");
    let columns = "data.columns={prompt=\"instruction\",completion=\"output\"}";
    let found = lab.check("f.toml", &[columns]);
    assert_eq!(found["rows"]["unread_columns"], json!(["input"]));
    let expected = "columns that nothing reads: input (what belongs to the prompt must be in the prompt's own column";
    let text = lab.ask(&["check", "f.toml", "--set", columns]);
    assert!(text.succeeds().contains(expected), "{text:#?}");
    let run = lab.ask(&["run", "f.toml", "--set", columns]);
    run.succeeds();
    assert!(run.err.lines().take(3).any(|line| line.contains(expected)), "{run:#?}");
}

/// Catches columns that are named although something reads them: a reward, the split, a part of the row.
#[test]
fn columns_that_are_read_are_not_reported_as_unused() {
    let lab = case("answer-list");
    lab.write("rows.jsonl", "{\"prompt\": \"a\", \"solution\": \"x\", \"topic\": \"t\", \"note\": \"n\"}\n{\"prompt\": \"b\", \"solution\": \"y\", \"topic\": \"u\", \"note\": \"n\"}\n");
    let sets = ["reward.0.column=solution", "data.group_column=topic"];
    let found = lab.check("case.toml", &sets);
    assert_eq!(found["rows"]["unread_columns"], json!(["note"]));
}
