//! Published data sets of rows, read unchanged.

use serde_json::Value;

use super::{data, model};
use crate::support::lab::{Lab, SMALL, json_lines, with_sets};

const SFT: &str = "objective={plugin='sft'}";
const PPO: &str = "objective={plugin='ppo'}";
const EXACT: &str = "reward=[{plugin='exact'}]";
const LENGTH: &str = "reward=[{plugin='length',unit='characters',target=4}]";
const ROLLOUT: &str = "rollout={prompts=8,max_new_tokens=8}";

const TRAIN: &str = "train={steps=4,optimizer={lr=1e-3}}";

/// A folder with `tiny.toml` of a tiny model.
fn lab() -> Lab {
    let lab = Lab::new();
    lab.write("tiny.toml", SMALL);
    lab
}

fn check(sets: &[&str]) -> Value {
    lab().check("tiny.toml", &[&[TRAIN], sets].concat())
}

/// The counts of `telos check` for a file of rows, and the sum of all counts of rows.
fn counts(file: &str, more: &str, sets: &[&str]) -> (Value, u64) {
    let source = format!("data={{source='jsonl',held_out=0.1,{more}path='{}'}}", data().join(file).display());
    let mut found = check(&[&[source.as_str(), "model.context=4096"], sets].concat());
    let rows = found["rows"].take();
    let kinds = ["train", "held_out", "dropped_held_out_prompt", "dropped_too_long", "dropped_empty", "dropped_same"];
    let all = kinds.iter().filter_map(|kind| rows[*kind].as_u64()).sum();
    (rows, all)
}

/// Catches a published file of answers or prompts whose rows are lost, or read as another kind; and prompts without their answer,
/// which the reward "exact" requires in every row.
#[test]
#[cfg_attr(not(telos_data), ignore = "needs real data: set TELOS_DATA to its folder")]
fn real_rows_are_read_unchanged() {
    let (sequences, prompts) = ("train.batch={sequences=1}", "train.batch={prompts=1}");
    for (file, sets, rows) in [
        ("sft/gsm8k_train.jsonl", &[SFT, sequences][..], 7473),
        ("sft/self_instruct_human.jsonl", &[SFT, sequences], 427),
        ("sft/t0_mit_ccby.jsonl", &[SFT, sequences], 8505),
        ("prompts/gsm8k.jsonl", &[PPO, prompts, EXACT, ROLLOUT], 8792),
        ("prompts/svamp.jsonl", &[PPO, prompts, EXACT, ROLLOUT], 999),
    ] {
        let (found, all) = counts(file, "", sets);
        assert_eq!(all, rows, "{file}: {found:#}");
    }
}

/// Catches pairs of a published file that are lost, or that are held out by anything but their prompt.
#[test]
#[cfg_attr(not(telos_data), ignore = "needs real data: set TELOS_DATA to its folder")]
fn real_preferences_are_read_unchanged() {
    let objective = ["objective={plugin='reward'}", "train.batch={pairs=1}"];
    for (name, group, pairs) in [("gsm8k_model_solutions", "group_column='qid',", 2426), ("pandalm_human", "", 760)] {
        let (rows, all) = counts(&format!("preference/{name}.jsonl"), group, &objective);
        let number = |key: &str| rows[key].as_u64().expect("a count");
        assert_eq!(all, pairs, "{rows:#}");
        assert_eq!(number("dropped_too_long") + number("dropped_empty") + number("dropped_same"), 0, "{rows:#}");
        assert!((pairs / 20..pairs / 4).contains(&number("held_out")), "{rows:#}");
    }
}

/// A real tokenizer that adds `<s>`, with a template that does not write it, gives what transformers gives: no `<s>`, and `</s>`
/// behind the answer.
#[test]
#[cfg_attr(not(telos_data), ignore = "needs real data: set TELOS_DATA to its folder")]
fn gotcha_51_the_bos_token_is_not_added_before_the_text_of_a_template() {
    let case = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("field/bos-before-template");
    let from = format!("model={{from='{}'}}", model().display());
    let rows = format!("data={{source='jsonl',path='{}'}}", case.join("rows.jsonl").display());
    let template = format!("data.chat_template={}", case.join("nobos.jinja").display());
    let found = check(&[SFT, "train.batch={sequences=1}", &from, &rows, &template]);
    let example = found["example"].as_str().expect("a row");
    assert!(example.starts_with("[system] Be brief.") && example.ends_with("</s>⟧"), "{example}");
}

/// Catches a completion whose first word lost its space, as tokenizers leave it out at the beginning of a text.
#[test]
#[cfg_attr(not(telos_data), ignore = "needs real data: set TELOS_DATA to its folder")]
fn answers_of_a_real_model_continue_at_the_end_of_the_prompt() {
    let lab = lab();
    let from = format!("model={{from='{}'}}", model().display());
    let prompts = (0..20).map(|n| format!("{{\"prompt\": \"Once upon a time, {n} dogs went to the park.\"}}\n"));
    lab.write("prompts.jsonl", prompts.collect::<String>());
    let rollout = "rollout={prompts=16,samples=2,epochs=2,max_new_tokens=12}";
    let rows = "data={source='jsonl',path='prompts.jsonl',max_length=96}";
    let sets = [TRAIN, PPO, LENGTH, rollout, "train.batch={prompts=8}", &from, rows];
    lab.ask(&with_sets(&["pairs", "tiny.toml", "--out", "own.jsonl"], &sets)).succeeds();
    let rows = json_lines(lab.at("own.jsonl"));
    let continues = |row: &&Value| row["chosen"].as_str().is_some_and(|text| text.starts_with([' ', '\n']));
    assert!(rows.len() > 10 && 10 * rows.iter().filter(continues).count() >= 9 * rows.len(), "{rows:?}");
}
