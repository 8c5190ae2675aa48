//! `telos eval` by tasks: multiple choice, answers that a reward checks, and win rates.

use std::fs;

use serde_json::{Value, json};

use super::answers_a;
use crate::support::{
    experiments::{self, REWARD},
    lab::{Lab, close, json_lines},
};

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("{key} of {value}"))
}

/// Catches an index from 1, a choice scored with its prompt or its end, a normalisation by the wrong length, and chance that
/// assumes the same number of choices in every row.
#[test]
fn the_most_probable_choice_is_compared_with_the_answer() {
    let lab = answers_a();
    let row = |prompt: &str, choices: Value, answer: Value| {
        json!({"question": prompt, "choices": choices, "key": answer}).to_string() + "\n"
    };
    let rows = row("1?", json!(["b", "a"]), json!(1))
        + &row("2?", json!({"text": ["b", "c", "a", "d"], "label": ["1", "2", "3", "4"]}), json!("3"))
        + &row("3?", json!(["a", "bbb"]), json!("B"))
        + &row("4?", json!(["bb", "a"]), json!("a"));
    lab.write("questions.jsonl", &rows);
    let base = ["eval", "runs/tiny", "--choices", "questions.jsonl", "--column", "answer=key"];
    let figures = lab.ask(&[&base[..], &["--json", "--out", "asked.jsonl"]].concat());
    figures.succeeds();
    let figures = figures.json();
    assert_eq!((number(&figures, "accuracy"), number(&figures, "questions")), (0.75, 4.0), "{figures}");
    close(number(&figures, "accuracy_stderr"), (0.75_f64 * 0.25 / 3.0).sqrt(), 1e-12, "standard error");
    close(number(&figures, "chance"), (0.5 + 0.25 + 0.5 + 0.5) / 4.0, 1e-12, "chance");
    let lines = json_lines(lab.at("asked.jsonl"));
    // A token for each byte: the space between prompt and choice, and the choice.
    assert_eq!((&lines[2]["tokens"], &lines[2]["characters"]), (&json!([2, 4]), &json!([1, 3])));
    // The same numbers by the loss of rows, without the ends.
    lab.write("one.jsonl", json!({"prompt": "1?", "completion": " a", "completion_ended": false}).to_string());
    let loss = lab.ask(&["eval", "runs/tiny", "--rows", "one.jsonl", "--generate", "0", "--json"]);
    loss.succeeds();
    let sum = lines[0]["logprobs"][1].as_f64().expect("a number");
    close(-sum / 2.0, number(&loss.json(), "loss"), 1e-6, "log-probability of a choice");
    let summary: Value =
        serde_json::from_slice(&fs::read(lab.at("asked.summary.json")).expect("a file")).expect("JSON");
    assert_eq!(summary["figures"], figures);
    assert!(lab.ask(&base).succeeds().contains("acc_norm"));
    for (row, parts) in [
        (row("5?", json!(["a", "b"]), json!(2)), ["odd.jsonl:1", "2 is none of the 2 choices"]),
        (row("5?", json!(["a"]), json!(0)), ["odd.jsonl:1", "at least two texts"]),
        (row("5?", json!(["a", "b"]), Value::Null), ["odd.jsonl:1", "the right choice's index"]),
        ("{\"text\": \"x\"}\n".to_owned(), ["odd.jsonl:1", "`prompt`"]),
    ] {
        lab.write("odd.jsonl", row);
        let odd = ["eval", "runs/tiny", "--choices", "odd.jsonl", "--column", "answer=key"];
        lab.ask(&odd[..4]).refuses(2, &parts[..1]);
        lab.ask(&odd).refuses(2, if parts[1].contains("prompt") { &parts[..1] } else { &parts });
    }
}

/// Catches rewards that score other answers, a share of answers as pass@k, and a column that is found missing only after the
/// answers are generated.
#[test]
fn a_reward_checks_answers() {
    let lab = answers_a();
    let row = |i: usize, answer: &str| json!({"prompt": format!("{i}? "), "solution": answer}).to_string() + "\n";
    lab.write("asked.jsonl", row(1, "a") + &row(2, "A") + &row(3, "b") + &row(4, "a"));
    let base = ["eval", "runs/tiny", "--rows", "asked.jsonl", "--reward", "exact", "--json"];
    let ask = |more: &[&str]| lab.ask(&[&base[..], more].concat());
    let of = ["--column", "answer=solution"];
    let checked = |more: &[&str]| {
        let answer = ask(&[&of[..], more].concat());
        answer.succeeds();
        answer.json()["checked"].clone()
    };
    let greedy = checked(&["--out", "answers.jsonl"]);
    assert_eq!((number(&greedy, "score"), number(&greedy["pass_at"], "1")), (0.5, 0.5), "{greedy}");
    close(number(&greedy, "score_stderr"), (0.25_f64 / 3.0).sqrt(), 1e-12, "standard error");
    assert_eq!(number(&checked(&["--option", "ignore_case=true"]), "score"), 0.75);
    let lines = json_lines(lab.at("answers.jsonl"));
    assert_eq!(
        lines.iter().map(|line| line["passed"].as_bool()).collect::<Vec<_>>(),
        [Some(true), Some(false), Some(false), Some(true)]
    );
    // The answers are drawn from nearly uniform bytes, so some samples of a prompt are right and some are not.
    let drawn = checked(&["--samples", "8", "--temperature", "3", "--pass-at", "1", "8", "--max-tokens", "1"]);
    let (one, eight) = (number(&drawn["pass_at"], "1"), number(&drawn["pass_at"], "8"));
    assert!(one < eight, "{drawn}");
    close(number(&drawn, "score"), one, 1e-12, "pass@1 is the share of right answers");
    // A completion counts as the answer if the row has no column of this name.
    lab.ask(&["eval", "runs/tiny", "--rows", "rows.jsonl", "--reward", "exact", "--json"]).succeeds();
    ask(&[]).refuses(2, &["asked.jsonl:1", "column", "`answer`"]);
    lab.write("some.jsonl", row(1, "a") + "{\"prompt\": \"2? \"}\n");
    let some = ["eval", "runs/tiny", "--rows", "some.jsonl", "--column", "answer=solution"];
    lab.ask(&some).refuses(2, &["some.jsonl:2", "missing"]);
    lab.ask(&[&some[..], &["--reward", "exact"]].concat()).refuses(2, &["some.jsonl:2", "cannot be checked"]);
    ask(&[&of[..], &["--pass-at", "2"]].concat()).refuses(2, &["--pass-at 2", "--samples"]);
    ask(&[&of[..], &["--option", "patern=x"]].concat()).refuses(2, &["patern", "pattern"]);
    lab.ask(&["eval", "runs/tiny", "--data", "rows.jsonl", "--reward", "exact"])
        .refuses(2, &["--reward is for --rows"]);
}

/// Catches answers that are exchanged, ties that count as losses, answers of different prompts that are compared, and a language
/// model whose fresh scalar head decides.
#[test]
fn a_reward_model_compares_two_files_of_answers() {
    let lab = experiments::lab(REWARD);
    lab.run(&[]).succeeds();
    let answers = |completion: &str| -> String {
        (0..9).map(|i| json!({"prompt": format!("{i}? "), "completion": completion}).to_string() + "\n").collect()
    };
    lab.write("good.jsonl", answers("yes"));
    lab.write("bad.jsonl", answers("well, no"));
    let compare = |first: &str, second: &str| {
        let answer = lab.ask(&["eval", "runs/tiny", "--answers", first, second, "--json"]);
        answer.succeeds();
        answer.json()
    };
    let (good, bad) = (compare("good.jsonl", "bad.jsonl"), compare("bad.jsonl", "good.jsonl"));
    assert_eq!((number(&good, "win_rate"), number(&bad, "win_rate")), (1.0, 0.0), "{good}");
    assert!(number(&good, "difference") > 0.0 && number(&good, "difference") == -number(&bad, "difference"));
    let same = compare("good.jsonl", "good.jsonl");
    assert_eq!((number(&same, "win_rate"), number(&same, "ties")), (0.5, 9.0));
    let mut mixed: Vec<String> = answers("well, no").lines().map(str::to_owned).collect();
    mixed[0] = answers("yes").lines().next().expect("a line").to_owned();
    lab.write("mixed.jsonl", mixed.join("\n"));
    let mixed = compare("good.jsonl", "mixed.jsonl");
    close(number(&mixed, "win_rate"), 8.5 / 9.0, 1e-12, "a tie counts half");
    // Prompts that were too long, and empty answers that were cut off, are neither compared nor called too long; answers of
    // `telos eval` have other names.
    let line = |number: usize, of: Value| {
        let mut row = json!({"prompt": format!("{number}? ")});
        row.as_object_mut().expect("a row").extend(of.as_object().expect("columns").clone());
        row.to_string() + "\n"
    };
    let long =
        json!({"completion": null, "completion_ended": false, "completion_tokens": 0, "finish": "prompt too long"});
    let empty = json!({"completion": "", "completion_ended": false, "completion_tokens": 3, "finish": "max tokens"});
    let rest: Vec<String> = answers("yes").lines().skip(2).map(|line| line.to_owned() + "\n").collect();
    lab.write("partly.jsonl", line(0, long) + &line(1, empty) + &rest.concat());
    let partly = compare("partly.jsonl", "bad.jsonl");
    assert_eq!(
        ["unanswered", "empty", "too_long", "wins"].map(|key| number(&partly, key)),
        [1.0, 1.0, 0.0, 7.0],
        "{partly}"
    );
    let evaluated = |number| line(number, json!({"answer": "yes", "expected": "no", "finish": "end of sequence"}));
    lab.write("evaluated.jsonl", (0..9).map(evaluated).collect::<String>());
    assert_eq!(number(&compare("evaluated.jsonl", "good.jsonl"), "ties"), 9.0);
    lab.write("fewer.jsonl", answers("yes").lines().take(4).collect::<Vec<_>>().join("\n"));
    lab.write("other.jsonl", answers("yes").replace("\"3? \"", "\"33? \""));
    let refused = |model: &str, second: &str, parts: &[&str]| {
        lab.ask(&["eval", model, "--answers", "good.jsonl", second]).refuses(2, parts);
    };
    refused("runs/tiny", "fewer.jsonl", &["good.jsonl has 9 answers", "fewer.jsonl has 4"]);
    refused("runs/tiny", "other.jsonl", &["good.jsonl:4", "other.jsonl:4", "different prompts"]);
    let language = answers_a();
    fs::copy(lab.at("good.jsonl"), language.at("good.jsonl")).expect("copied");
    let asked = ["eval", "runs/tiny", "--answers", "good.jsonl", "good.jsonl"];
    language.ask(&asked).refuses(2, &["not a reward model"]);
}

/// Catches documents whose losses are exchanged or counted twice.
#[test]
fn documents_have_figures_of_their_own() {
    let lab = Lab::tiny();
    lab.run(&[]).succeeds();
    for (name, text) in [("a.txt", "sort: 3 1 2"), ("b.txt", "something else, and longer than the context")] {
        lab.write(name, text);
    }
    let eval = |files: &[&str], out: &str| {
        let args = [&["eval", "runs/tiny", "--json", "--out", out, "--data"], files].concat();
        let answer = lab.ask(&args);
        answer.succeeds();
        answer.json()
    };
    let both = eval(&["a.txt", "b.txt"], "both.jsonl");
    let documents = json_lines(lab.at("both.jsonl"));
    assert_eq!(documents.len(), 2);
    for (name, document) in ["a.txt", "b.txt"].into_iter().zip(&documents) {
        let alone = eval(&[name], &format!("{name}.jsonl"));
        assert_eq!(document["document"], *name);
        for key in ["loss", "perplexity", "loss_without_end", "bits_per_byte", "tokens"] {
            close(number(document, key), number(&alone, key), 1e-6, key);
        }
        assert!(alone["loss_stderr"].is_null());
    }
    let sum: f64 = documents.iter().map(|of| number(of, "loss") * number(of, "tokens")).sum();
    close(sum / number(&both, "tokens"), number(&both, "loss"), 1e-12, "the loss of both");
    assert!(number(&both, "loss_stderr") > 0.0);
}
