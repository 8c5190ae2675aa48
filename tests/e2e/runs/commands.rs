//! The commands around a run: check, eval, generate, tokenizer train, and what they print as JSON.

use std::fs;

use serde_json::Value;

use crate::support::lab::{Lab, Run, TINY, close, some_text};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// A lab with a finished run `tiny` and a text.
fn trained() -> Lab {
    let lab = Lab::tiny();
    lab.run(&[]).succeeds();
    lab.write("some.txt", some_text(60));
    lab
}

#[test]
fn run_prints_samples_and_held_out_loss_before_and_after() {
    let lab = Lab::tiny();
    let answer = lab.run(&[]);
    let out = answer.succeeds();
    for part in ["samples", "sort: |", "held-out loss", "nats per token", "8 steps", "runs/tiny", "step-00000008"] {
        assert!(out.contains(part), "{part}: {answer:#?}");
    }
}

/// Catches a summary that is not the run's: numbers that disagree with metrics.jsonl, or text behind the JSON.
#[test]
fn run_prints_its_summary_as_json() {
    let lab = Lab::tiny();
    let answer = lab.ask(&["run", "tiny.toml", "--json", "--name", "mine"]);
    answer.succeeds();
    let found = answer.last_event();
    let run = Run(lab.at("runs/mine"));
    assert_eq!(
        (&found["name"], &found["steps"], &found["ended"]),
        (&"mine".into(), &8.into(), &true.into()),
        "{found}"
    );
    let losses = run.eval("eval/loss");
    assert_eq!(found["loss_before"].as_f64(), losses.first().copied());
    assert_eq!(found["loss_after"].as_f64(), losses.last().copied());
    assert_eq!(found["tokens"].as_f64(), Some(run.train("tokens").iter().sum()));
    assert_eq!(found["samples"].as_array().map(Vec::len), Some(2));
    close(losses[0], 257_f64.ln(), 0.02, "a fresh model's loss is about ln V");
}

/// Catches a run folder without its parts, and a resolved experiment that is not the one that ran.
#[test]
fn a_run_writes_all_files_of_the_design() {
    let lab = trained();
    let run = lab.tiny_run();
    for file in ["experiment.toml", "receipt.json", "metrics.jsonl", "timing.jsonl", "samples.jsonl"] {
        assert!(!run.bytes(file).is_empty(), "{file}");
    }
    for file in ["model.safetensors", "config.json", "tokenizer.json", "optimizer.safetensors", "trainer.json"] {
        assert!(!run.saved(8, file).is_empty(), "{file}");
    }
    let receipt = json(&String::from_utf8(run.bytes("receipt.json")).expect("UTF-8"));
    let plugins = receipt["plugins"].as_array().expect("plugins");
    assert!(plugins.iter().all(|p| p["sha256"].as_str().is_some_and(|s| s.len() == 64)), "{receipt}");
    assert_eq!((&receipt["seed"], &receipt["backend"]["device"]), (&7.into(), &"cpu".into()), "{receipt}");
    // The resolved experiment is itself an experiment, of the same run.
    fs::copy(run.0.join("experiment.toml"), lab.at("again.toml")).expect("copied");
    lab.ask(&["run", "again.toml", "--name", "again"]).succeeds();
    Run(lab.at("runs/again")).equals(&run, 8);
}

#[test]
fn check_reports_the_mistakes_of_run_and_writes_nothing() {
    let lab = Lab::tiny();
    let before = lab.everything();
    let text = lab.ask(&["check", "tiny.toml"]);
    assert!(text.succeeds().contains("is in order"), "{text:#?}");
    let found = json(lab.ask(&["check", "tiny.toml", "--json"]).succeeds());
    assert_eq!(lab.everything(), before, "check writes nothing");
    lab.run(&[]).succeeds();
    let run = lab.tiny_run();
    assert_eq!(found["loss"].as_f64(), Some(run.train("loss")[0]), "{found}");
    assert_eq!(found["grad_norm"].as_f64(), Some(run.train("grad_norm")[0]), "{found}");
    assert_eq!(found["steps"], 8, "{found}");
}

/// Catches draws without a seed, and a temperature of 0 that still draws.
#[test]
fn generate_is_the_same_for_the_same_seed_and_greedy_without_one() {
    let lab = trained();
    let ask = |more: &[&str]| {
        let base = ["generate", "runs/tiny", "--prompt", "sort: ", "--max-tokens", "9", "--json"];
        let mut found = json(lab.ask(&base.into_iter().chain(more.iter().copied()).collect::<Vec<_>>()).succeeds());
        // Its seconds are another matter.
        assert!(found.as_object_mut().and_then(|found| found.remove("speed")).is_some());
        found
    };
    let greedy = ask(&["--temperature", "0"]);
    assert_eq!(greedy, ask(&["--temperature", "0", "--seed", "5"]), "greedy draws nothing");
    assert_eq!(greedy["prompt"], "sort: ");
    let tokens = greedy["tokens"].as_array().expect("tokens").len();
    assert!((1..=9).contains(&tokens) && greedy["logprobs"].as_array().map(Vec::len) == Some(tokens), "{greedy}");
    let drawn = ask(&["--seed", "1"]);
    assert_eq!(drawn, ask(&["--seed", "1"]));
    assert_ne!(drawn["tokens"], ask(&["--seed", "2"])["tokens"]);
    // As text it is the prompt and the same continuation.
    let text = lab.ask(&["generate", "runs/tiny", "--prompt", "sort: ", "--max-tokens", "9", "--temperature", "0"]);
    assert_eq!(text.succeeds(), format!("sort: {}\n", greedy["text"].as_str().expect("text")));
    // The logits agree with the choice.
    let logits = ask(&["--temperature", "0", "--logits"])["logits"].clone();
    let logits: Vec<f64> = logits.as_array().expect("logits").iter().filter_map(Value::as_f64).collect();
    let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b]));
    assert_eq!((logits.len(), best.map(|b| b as u64)), (257, greedy["tokens"][0].as_u64()));
}

#[test]
fn generate_refuses_impossible_requests() {
    let lab = trained();
    let ask =
        |more: &[&str]| lab.ask(&["generate", "runs/tiny"].into_iter().chain(more.iter().copied()).collect::<Vec<_>>());
    ask(&["--prompt", "x", "--temperature", "0", "--top-k", "3"]).refuses(2, &["--top-k", "unused"]);
    ask(&["--prompt", "x", "--max-tokens", "0"]).refuses(2, &["--max-tokens", "from 1"]);
    ask(&["--prompt", &"x".repeat(40)]).refuses(2, &["context", "16", "shorten"]);
    lab.ask(&["generate", "nowhere", "--prompt", "x"]).refuses(2, &["nowhere", "check the path"]);
}

/// Catches a path that resolves to another checkpoint.
#[test]
fn a_model_is_a_run_a_checkpoint_or_a_pointer_to_one() {
    let lab = trained();
    let loss = |model: &str| {
        let figures = json(lab.ask(&["eval", model, "--data", "some.txt", "--json"]).succeeds());
        figures["loss"].as_f64().expect("a loss")
    };
    let last = loss("runs/tiny/checkpoints/step-00000008");
    for model in ["runs/tiny", "runs/tiny/checkpoints", "runs/tiny/checkpoints/LATEST", "runs/tiny/checkpoints/latest"]
    {
        assert_eq!(loss(model), last, "{model}");
    }
    assert_eq!(loss("runs/tiny/checkpoints/BEST"), last, "the loss falls, so the last is the best");
    assert_ne!(loss("runs/tiny/checkpoints/step-00000004"), last);
}

/// Catches means of batch means, a perplexity that is not that of the loss, and flags for rows that are ignored with text.
#[test]
fn eval_prints_consistent_figures() {
    let lab = trained();
    let ask = |more: &[&str]| {
        let base = ["eval", "runs/tiny", "--data", "some.txt", "--json"];
        json(lab.ask(&base.into_iter().chain(more.iter().copied()).collect::<Vec<_>>()).succeeds())
    };
    let found = ask(&["--per-token"]);
    let each: Vec<f64> = found["nll_per_token"].as_array().expect("losses").iter().filter_map(Value::as_f64).collect();
    let number = |key: &str| found[key].as_f64().expect("a number");
    assert_eq!(each.len() as f64, number("tokens"));
    close(each.iter().sum::<f64>() / each.len() as f64, number("loss"), 1e-12, "mean");
    close(number("perplexity"), number("loss").exp(), 1e-12, "perplexity");
    let bits = each.iter().sum::<f64>() / 2_f64.ln() / number("bytes");
    close(number("bits_per_byte"), bits, 1e-12, "bits per byte");
    assert_eq!(number("bytes"), some_text(60).len() as f64);
    assert!(ask(&[])["nll_per_token"].is_null());
    // Another backend measures the same model.
    let reference = ask(&["--backend", "reference", "--dtype", "f64"]);
    close(reference["loss"].as_f64().expect("a loss"), number("loss"), 1e-5, "candle and reference");
    lab.ask(&["eval", "runs/tiny"])
        .refuses(2, &["--data <FILE>...|--rows <FILE>...|--choices <FILE>...|--answers <FILE> <FILE>"]);
    for flag in [["--generate", "3"], ["--column", "answer=a"], ["--reward", "exact"], ["--chat-template", "plain"]] {
        let given = [&["eval", "runs/tiny", "--data", "some.txt"], &flag[..]].concat();
        lab.ask(&given).refuses(2, &[&format!("{} is for --rows", flag[0])]);
    }
    let column = ["eval", "runs/tiny", "--rows", "some.txt", "--column", "anser=hint"];
    lab.ask(&column).refuses(2, &["`anser` is not a column with a meaning", "answer"]);
    lab.ask(&["eval", "runs/tiny", "--data", "nowhere.txt"]).refuses(2, &["nowhere.txt"]);
    lab.ask(&["eval", "runs/tiny", "--data", "some.txt", "--backend", "candel"]).refuses(2, &["candel", "candle"]);
}

/// Catches a tokenizer that is trained and then not the one used, or that does not come with the model.
#[test]
fn a_trained_tokenizer_is_saved_with_the_model() {
    let lab = Lab::new();
    lab.write("text.txt", some_text(2000));
    lab.write("tiny.toml", TINY.replace("source = \"synthetic\"\nrows = 200", "path = \"text.txt\""));
    let train = ["tokenizer", "train", "text.txt", "--vocab-size", "280", "--out", "tok.json", "--json"];
    let trained = json(lab.ask(&train).succeeds());
    assert_eq!(trained["vocab_size"], 280, "{trained}");
    let again: Vec<&str> = train.iter().map(|w| if *w == "tok.json" { "again.json" } else { w }).collect();
    lab.ask(&again).succeeds();
    assert!(fs::read(lab.at("tok.json")).expect("a file") == fs::read(lab.at("again.json")).expect("a file"));
    lab.run(&["tokenizer.kind=file", "tokenizer.path=tok.json"]).succeeds();
    let losses = lab.tiny_run().eval("eval/loss");
    close(losses[0], 280_f64.ln(), 0.02, "a fresh model's loss is about ln V");
    assert!(losses[2] < losses[0] - 0.1, "{losses:?}");
    fs::remove_file(lab.at("tok.json")).expect("removed");
    lab.ask(&["generate", "runs/tiny", "--prompt", "the sun", "--max-tokens", "4"]).succeeds();
}

/// Catches a save or load that rounds, reorders or retypes: a run whose learning rate is below every bit of a weight saves
/// what it loaded, byte for byte.
#[test]
fn a_saved_model_reloads_and_saves_again_bit_for_bit() {
    for arch in ["llama", "gpt2"] {
        let lab = Lab::tiny();
        lab.run(&[&format!("model.arch={arch}"), "train.steps=2"]).succeeds();
        let text = TINY.replace("layers = 1\ndim = 16\nheads = 2\ncontext = 16", "from = \"runs/tiny\"");
        lab.write("next.toml", text.replace("lr = 1e-2", "lr = 1e-300"));
        lab.ask(&["run", "next.toml"]).succeeds();
        let (first, second) = (lab.tiny_run(), Run(lab.at("runs/next")));
        for file in ["model.safetensors", "config.json", "tokenizer.json"] {
            assert!(first.saved(2, file) == second.saved(8, file), "{arch}: {file}");
        }
        assert_eq!(first.eval("eval/loss").last(), second.eval("eval/loss").first(), "{arch}");
    }
}

#[test]
fn help_is_printed_and_a_wrong_word_is_refused() {
    let lab = Lab::new();
    let keys = lab.ask(&["run", "--help-keys"]);
    assert!(keys.succeeds().contains("train.micro_batch_tokens"), "{keys:#?}");
    assert!(lab.ask(&["--help"]).succeeds().contains("Exit codes"));
    lab.ask(&["rum"]).refuses(2, &["rum", "run"]);
    lab.ask(&["run"]).refuses(2, &["<FILE>"]);
}
