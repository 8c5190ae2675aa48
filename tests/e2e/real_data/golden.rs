//! A real model with numbers computed by other programs: `golden.json`, in the folder of its weights.

use std::{fs, path::PathBuf};

use serde_json::Value;

use super::model;
use crate::support::lab::{Lab, close};

/// The model's folder and its golden numbers.
fn golden() -> (PathBuf, Value) {
    let folder = model();
    let text = fs::read_to_string(folder.join("golden.json")).expect("the model has golden numbers");
    (folder, serde_json::from_str(&text).expect("JSON"))
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|n| n.as_f64().expect("a number")).collect()
}

/// Catches any difference in the model's arithmetic or its tokenizer: logits, and 200 greedy tokens to the letter.
#[test]
#[cfg_attr(not(telos_data), ignore = "needs real data: set TELOS_DATA to its folder")]
fn a_real_model_gives_its_golden_logits_and_text() {
    let (folder, golden) = golden();
    let ids = numbers(&golden["prompt_ids"]);
    let chain = numbers(&golden["greedy_ids_200"]);
    let rest = (chain.len() - ids.len()).to_string();
    let (lab, model) = (Lab::new(), folder.to_string_lossy().into_owned());
    let prompt = golden["prompt"].as_str().expect("a prompt");
    let mut backends: Vec<&[&str]> =
        vec![&[], &["--backend", "reference"], &["--backend", "reference", "--dtype", "f64"]];
    backends.extend(cfg!(target_os = "linux").then_some(&["--backend", "torch"][..]));
    for backend in backends {
        let ask =
            ["generate", &model, "--prompt", prompt, "--temperature", "0", "--max-tokens", &rest, "--json", "--logits"];
        let answer = lab.ask(&[&ask[..], backend].concat());
        answer.succeeds();
        let found = answer.json();
        assert_eq!(numbers(&found["prompt_tokens"]), ids);
        let logits = numbers(&found["logits"]);
        let expected = numbers(&golden["last_logits"]);
        assert_eq!(logits.len(), expected.len());
        for (token, (a, b)) in logits.iter().zip(&expected).enumerate() {
            assert!((a - b).abs() <= 1e-3, "token {token}: {a}, expected {b}");
        }
        assert_eq!(numbers(&found["tokens"]), chain[ids.len()..]);
        let text = found["text"].as_str().expect("text");
        assert_eq!(format!("{prompt}{text}"), golden["greedy_text"].as_str().expect("text"));
        // Without --json the text is written token by token.
        let streamed = lab.ask(&[&ask[..ask.len() - 2], backend].concat());
        assert!(streamed.succeeds().contains(text), "{streamed:#?}");
    }
}

/// Catches a loss that is shifted by one, or that leaves out the first token after BOS.
#[test]
#[cfg_attr(not(telos_data), ignore = "needs real data: set TELOS_DATA to its folder")]
fn a_real_model_gives_its_golden_losses() {
    let (folder, golden) = golden();
    let (lab, model) = (Lab::new(), folder.to_string_lossy().into_owned());
    let expected = numbers(&golden["nll_per_token"]);
    // The text of the golden ids, as the model generates it: every id's text in order.
    let vocabulary = fs::read_to_string(folder.join("tokenizer.json")).expect("a tokenizer");
    let vocabulary: Value = serde_json::from_str(&vocabulary).expect("JSON");
    let vocabulary = vocabulary["model"]["vocab"].as_object().expect("a vocabulary");
    let word = |id: &f64| vocabulary.iter().find(|(_, v)| v.as_f64() == Some(*id)).map(|(word, _)| word.clone());
    let words: Vec<String> = numbers(&golden["nll_ids"])[1..].iter().filter_map(word).collect();
    let text = words.concat().replace('\u{2581}', " ").replace("<0x0A>", "\n");
    lab.write("text.txt", text.trim_start_matches(' '));
    let answer = lab.ask(&["eval", &model, "--data", "text.txt", "--json", "--per-token"]);
    answer.succeeds();
    let found = answer.json();
    let each = numbers(&found["nll_per_token"]);
    // The end of the text is predicted too, and is last.
    assert_eq!(each.len(), expected.len() + 1);
    for (token, (a, b)) in each.iter().zip(&expected).enumerate() {
        assert!((a - b).abs() <= 1e-3, "token {token}: {a}, expected {b}");
    }
    let mean = |all: &[f64]| all.iter().sum::<f64>() / all.len() as f64;
    close(mean(&each[..expected.len()]), mean(&expected), 1e-4, "mean loss");
}
