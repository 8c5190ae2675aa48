//! Figures that are watched, and models that are read: what is named is there, and is what it is called.

use std::fs;

use serde_json::{Value, json};

use crate::{
    lab::{Lab, ROWS, Run, SMALL, with_sets},
    road::{DPO, PPO, REWARD, SHARED, lab},
};

/// Catches a metric that nobody measures: early stopping would end the run, and no best checkpoint would ever be kept.
#[test]
fn a_metric_that_nobody_measures_is_refused_before_anything_is_written() {
    let lab = lab(PPO);
    let refused = |sets: &[&str], parts: &[&str]| {
        lab.run(sets).refuses(2, parts);
        assert!(!lab.tiny_run().0.exists(), "{sets:?}");
    };
    let stop = |metric: &str| format!("eval.early_stop={{metric=\"{metric}\",patience=1}}");
    let (typo, other) = (stop("max:eval/rewrd"), stop("min:eval/loss"));
    let answered = ["eval.every=2", "eval.generate=4"];
    refused(&[&answered[..], &[&typo]].concat(), &["eval.early_stop.metric", "did you mean \"eval/reward\"?"]);
    refused(&[&answered[..], &[&other]].concat(), &["they find eval/answers/ended", "eval/reward/length"]);
    refused(&["eval.every=2", "eval.early_stop.patience=1"], &["eval.early_stop.metric", "eval.generate"]);
    refused(&["eval.every=2", "checkpoint.best=min:eval/loss"], &["checkpoint.best", "eval.generate"]);
    lab.ask(&["check", "tiny.toml", "--set", &typo, "--set", answered[0], "--set", answered[1]])
        .refuses(2, &["did you mean"]);
    // Where answers are judged, what they are worth says which policy is best.
    lab.run(&[&answered[..], &["eval.early_stop.patience=9"]].concat()).succeeds();
    let run = lab.tiny_run();
    let best = run.pointer("BEST").expect("a best checkpoint");
    let evals = run.metrics("eval");
    let reward = |line: &Value| line["eval/reward"].as_f64().expect("a number");
    let most = evals.iter().skip(1).map(reward).fold(f64::MIN, f64::max);
    assert!(evals.iter().any(|line| line["step"] == best && reward(line) == most), "{best}: {evals:?}");
}

/// A reward model and a policy that prefers; and a policy that learns from its own answers.
const STAGES: &str = r#"
seed = 7

[backend]
plugin = "candle"
threads = 1

[data]
source = "jsonl"
path = "rows.jsonl"
held_out = 0.2

[train]
steps = 2
optimizer = { lr = 1e-3 }

[[stage]]
name = "rm"
model = { layers = 1, dim = 32, heads = 2, context = 48 }
objective = { plugin = "reward" }
train.batch.pairs = 4

[[stage]]
name = "dpo"
model = { layers = 1, dim = 32, heads = 2, context = 48 }
objective = { plugin = "dpo" }
train.batch.pairs = 4

[[stage]]
name = "ppo"
model.from = "stage:dpo"
objective = { plugin = "ppo" }
reward = { plugin = "length", unit = "characters", target = 4 }
rollout = { prompts = 8, max_new_tokens = 8 }
train.batch.prompts = 4
"#;

/// Catches a stage's mistake that is found only after the stages before it have trained.
#[test]
fn mistakes_of_later_stages_are_told_before_the_first_one_trains() {
    let lab = lab(PPO);
    lab.write("tiny.toml", STAGES);
    lab.run(&[]).succeeds();
    fs::remove_dir_all(lab.at("runs/tiny")).expect("removed");
    for (set, says) in [
        ("stage.ppo.rollout.prompts=10", "no multiple of train.batch.prompts"),
        ("stage.ppo.rollout.max_new_tokens=64", "leave no room for a prompt"),
        ("stage.ppo.objective=[{plugin=\"ppo\"},{plugin=\"ce\"}]", "how many tokens of its own text"),
        ("stage.ppo.train.optimizer.groups=[{match=\"nope*\",lr_scale=0.1}]", "matches no parameter"),
        (
            "stage.ppo.sample={prompts=[\"a prompt that is much longer than the forty-eight tokens of the context\"]}",
            "has 7",
        ),
        ("stage.ppo.model.from=\"stage:rm\"", "no language-model head"),
        ("stage.ppo.reference.from=\"stage:rm\"", "no language-model head"),
        ("stage.dpo.reward={plugin=\"length\"}", "nothing is answered"),
    ] {
        lab.run(&[set]).refuses(2, &[says]);
        lab.ask(&["check", "tiny.toml", "--set", set]).refuses(2, &[says]);
        assert!(!lab.at("runs/tiny").exists(), "{set}: something was written");
    }
    // A group of the critic's own head is one of this experiment's parameters.
    lab.run(&["stage.ppo.train.optimizer.groups=[{match=\"score*\",lr_scale=0.1}]"]).succeeds();
}

/// Catches figures of a head that does not exist, and answers of an earlier model in the name of a damaged one.
#[test]
fn a_model_is_read_as_what_it_is_or_not_at_all() {
    let lab = lab(REWARD);
    lab.run(&["train.steps=4", "checkpoint.every=2"]).succeeds();
    lab.ask(&["eval", "runs/tiny", "--data", "rows.jsonl"]).refuses(2, &["runs/tiny", "no language-model head"]);
    let language = Lab::tiny();
    language.run(&[]).succeeds();
    let weights = language.at("runs/tiny/checkpoints/step-00000008/model.safetensors");
    let mut bytes = fs::read(&weights).expect("weights");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&weights, bytes).expect("written");
    let args = ["generate", "runs/tiny", "--prompt", "sort: ", "--max-tokens", "2"];
    language.ask(&args).refuses(2, &["runs/tiny names cannot be used", "step-00000008", "step-00000004; name it"]);
    let args = ["generate", "runs/tiny/checkpoints/step-00000004", "--prompt", "sort: ", "--max-tokens", "2"];
    language.ask(&args).succeeds();
}

/// What is learned to end an answer ends it, whatever config.json says; and the KL of answers is that of the policy that gave them.
#[test]
fn gotcha_03_answers_end_at_the_token_that_was_learned_to_end_them() {
    let lab = lab(PPO);
    lab.run(&["train.steps=2"]).succeeds();
    let folder = lab.at("runs/tiny/checkpoints/step-00000002");
    let config = folder.join("config.json");
    let mut changed: Value = serde_json::from_slice(&fs::read(&config).expect("a file")).expect("JSON");
    let end = changed["eos_token_id"].clone();
    changed["eos_token_id"] = json!(0);
    let base = lab.at("base");
    fs::create_dir(&base).expect("a folder");
    for file in ["model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        fs::copy(folder.join(file), base.join(file)).expect("copied");
    }
    fs::write(base.join("config.json"), changed.to_string()).expect("written");
    let (shape, from) = ("[model]\nlayers = 1\ndim = 32\nheads = 2\ncontext = 48\n", "[model]\nfrom = \"base\"\n");
    let text = fs::read_to_string(lab.at("tiny.toml")).expect("text").replace(shape, from);
    lab.write("again.toml", text);
    let answer = lab.ask(&["run", "again.toml", "--set", "eval.generate=4"]);
    answer.succeeds();
    assert!(answer.err.contains("end-of-text token"), "{answer:#?}");
    let run = Run(lab.at("runs/again"));
    let saved: Value = serde_json::from_slice(&run.saved(12, "config.json")).expect("JSON");
    assert_eq!(saved["eos_token_id"], json!([0, end]));
}

/// Catches a KL of evaluated answers that depends on the temperature at which rollouts are drawn.
#[test]
fn the_kl_of_answers_is_that_of_the_policy_that_gave_them() {
    let lab = lab(PPO);
    lab.run(&["train.steps=8", "train.optimizer.lr=1e-2"]).succeeds();
    fs::rename(lab.at("runs/tiny"), lab.at("runs/other")).expect("renamed");
    let kl = |temperature: &str| {
        _ = fs::remove_dir_all(lab.at("runs/tiny"));
        let drawn = format!("rollout.temperature={temperature}");
        let reference = "reference={from=\"runs/other\"}";
        lab.run(&["train.steps=1", "eval.generate=8", "eval.temperature=1.0", reference, &drawn]).succeeds();
        lab.tiny_run().eval("eval/answers/kl")[0]
    };
    let (cold, warm) = (kl("0.5"), kl("2.0"));
    assert!(cold.abs() > 1e-3, "{cold}: the reference is another model");
    assert_eq!(cold, warm);
}

/// Catches one objective that learns from what another one prepared.
#[test]
fn two_objectives_that_prepare_the_same_of_rollouts_are_refused() {
    let lab = lab(&PPO.replace(
        "[objective]\nplugin = \"ppo\"",
        "[[objective]]\nplugin = \"ppo\"\n\n[[objective]]\nplugin = \"ppo\"",
    ));
    lab.run(&[]).refuses(2, &["\"ppo\"", "both answer"]);
}

/// Catches a head that was trained to foresee one reward and is taken for a fresh critic, or for a reward model.
#[test]
fn gotcha_14_a_value_head_is_neither_a_fresh_critic_nor_a_reward_model() {
    let lab = lab(PPO);
    lab.run(&["critic={from=\"shared\"}", "train.optimizer.lr=3e-2"]).succeeds();
    fs::rename(lab.at("runs/tiny"), lab.at("runs/shared")).expect("renamed");
    let (shape, from) =
        ("[model]\nlayers = 1\ndim = 32\nheads = 2\ncontext = 48\n", "[model]\nfrom = \"runs/shared\"\n");
    let begin = |name: &str, objective: &str| {
        lab.write("tiny.toml", format!("{}{}{}{objective}", SMALL, ROWS, SHARED).replace(shape, from));
        let answer = lab.ask(&["run", "tiny.toml", "--name", name, "--set", "train.steps=1"]);
        answer.succeeds();
        Run(lab.at(&format!("runs/{name}")))
    };
    assert_eq!(begin("again", PPO).train("value/explained_variance")[0], 0.0);
    assert!((begin("rm", REWARD).train("loss")[0] - 2f64.ln()).abs() < 1e-6);
    lab.write("tiny.toml", format!("{}{}{}{PPO}", SMALL, ROWS, SHARED));
    lab.run(&["reward=[{model=\"runs/shared\"}]"]).refuses(2, &["reward", "no reward model"]);
}

/// Catches a note that looks at the model alone which a stage began with, and not at its critic.
#[test]
fn a_stage_whose_critic_was_made_anew_is_told() {
    let lab = lab(PPO);
    lab.write("tiny.toml", STAGES.replace("reward = {", "critic = { from = \"stage:rm\" }\nreward = {"));
    let note = "stage \"ppo\" was made from an earlier run of \"rm\"; renew it by --from ppo";
    let first = lab.run(&[]);
    first.succeeds();
    assert!(!first.err.contains("an earlier run") && !first.out.contains("an earlier run"), "{first:#?}");
    let args = ["run", "tiny.toml", "--only", "rm", "--set", "stage.rm.train.optimizer.lr=3e-2"];
    let second = lab.ask(&args);
    second.succeeds();
    assert!(second.err.contains(note) || second.out.contains(note), "{second:#?}");
}

/// Catches numbers of a reference that another path of the backend computed.
#[test]
fn gotcha_22_the_references_cache_knows_how_it_was_computed() {
    let lab = lab(DPO);
    let says = |name: &str, sets: &[&str]| {
        let args = ["run", "tiny.toml", "--name", name, "--set", "train.steps=1"];
        let answer = lab.ask(&with_sets(&args, sets));
        answer.succeeds();
        assert!(answer.err.contains("log-probabilities were"), "{answer:#?}");
        answer.err.contains("were read from")
    };
    assert!(!says("a", &[]));
    assert!(!says("b", &["backend.path=generic"]));
    assert!(says("c", &[]) && says("d", &["backend.path=generic"]));
}

/// Catches a scale of scores that was measured of other weights.
#[test]
fn gotcha_14_a_scale_of_scores_goes_with_the_weights_it_was_measured_of() {
    let lab = lab(REWARD);
    let scale = |run: &Run, step| {
        let config: Value = serde_json::from_slice(&run.saved(step, "config.json")).expect("JSON");
        config["telos_scores"].clone()
    };
    lab.run(&["train.steps=8", "checkpoint.every=1", "checkpoint.keep=9", "eval.every=4"]).succeeds();
    let run = lab.tiny_run();
    let measured: Vec<bool> = (1..=8).map(|step| !scale(&run, step).is_null()).collect();
    assert_eq!(measured, [false, false, false, true, false, false, false, true]);
}
