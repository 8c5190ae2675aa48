//! Preferences and rollouts in whole runs: reward models, direct preference optimisation and PPO on tiny experiments.

use serde_json::{Value, json};

use crate::support::{
    experiments::{DPO, PPO, REWARD, SHARED, lab, ptx, rows, write},
    lab::{Lab, ROWS, Run, SMALL, close, with_sets},
};

/// Runs `tiny.toml` under another name.
fn named(lab: &Lab, name: &str, sets: &[&str]) -> Run {
    lab.ask(&with_sets(&["run", "tiny.toml", "--name", name], sets)).succeeds();
    Run(lab.at(&format!("runs/{name}")))
}

/// Fails unless `tiny.toml` under another name is refused with these words, before anything is written.
#[track_caller]
fn named_refused(lab: &Lab, sets: &[&str], parts: &[&str]) {
    lab.ask(&with_sets(&["run", "tiny.toml", "--name", "no"], sets)).refuses(2, parts);
    assert!(!lab.at("runs/no").exists(), "something was written");
}

fn config(run: &Run, step: u64) -> Value {
    serde_json::from_slice(&run.saved(step, "config.json")).expect("JSON")
}

/// Catches a score read next to the last token or of the other side (then nothing is learned, or the reverse), a head that
/// does not start at 0, and a reward model that is saved or loaded as a language model.
#[test]
fn gotcha_13_14_a_reward_model_learns_to_rank_and_is_saved_as_one() {
    let lab = lab(REWARD);
    lab.run(&[]).succeeds();
    let run = lab.tiny_run();
    close(run.train("loss")[0], 2f64.ln(), 1e-6, "zero scores");
    let (accuracy, margin) = (run.eval("eval/accuracy"), run.eval("eval/margin"));
    assert_eq!((accuracy[0], accuracy[3]), (0.0, 1.0), "{accuracy:?}");
    assert!(margin[3] > 1.0, "{margin:?}");
    let config = config(&run, 30);
    assert_eq!(config["architectures"], json!(["LlamaForSequenceClassification"]), "{config:#}");
    let last = run.metrics("eval").pop().expect("an evaluation");
    let number = |value: &Value| value.as_f64().expect("a number");
    let (mean, square) = (number(&last["eval/score/mean"]), number(&last["eval/score/mean_square"]));
    close(number(&config["telos_scores"]["mean"]), mean, 1e-12, "the mean of held-out scores");
    close(number(&config["telos_scores"]["standard_deviation"]), (square - mean * mean).sqrt(), 1e-9, "deviation");
    let answer = lab.ask(&["generate", "runs/tiny", "--prompt", "1? "]);
    // It generates nothing, so generation cannot be requested from it.
    let refused = ["unused: a reward model scores answers and does not generate any"];
    named_refused(&lab, &["eval.generate=4"], &[&refused[..], &["eval.generate"]].concat());
    named_refused(&lab, &["sample.prompts=['1? ']"], &[&refused[..], &["sample.prompts"]].concat());
    answer.refuses(
        2,
        &[
            "is a reward model or critic: it has no language-model head",
            "name the language model that it was trained from",
        ],
    );
}

/// Catches a cache that gives numbers to other rows, a reference that changes although it is frozen (the cached numbers are those
/// of the start), and a dry run or a comparison that writes a cache.
#[test]
fn gotcha_16_17_22_dpo_starts_at_ln_2_and_its_cache_gives_the_same_bits() {
    let lab = lab(DPO);
    lab.ask(&["check", "tiny.toml"]).succeeds();
    lab.ask(&["compare", "tiny.toml", "--backends", "candle,candle?path=generic", "--steps", "2"]).succeeds();
    assert!(!lab.at("runs/.cache/reference").exists(), "a dry run has written to the cache");
    let first = lab.run(&[]);
    first.succeeds();
    assert!(first.err.contains("log-probabilities were computed into runs/.cache/reference"), "{first:#?}");
    let run = lab.tiny_run();
    let (loss, margin) = (run.train("loss"), run.train("rewards/margin"));
    close(loss[0], 2f64.ln(), 1e-5, "policy and reference are one");
    assert!(margin[0].abs() < 1e-5 && margin[19] > 0.1, "{margin:?}");
    let answer = lab.ask(&["run", "tiny.toml", "--name", "again"]);
    answer.succeeds();
    assert!(answer.err.contains("log-probabilities were read from"), "{answer:#?}");
    run.equals(&Run(lab.at("runs/again")), 20);
    // A reference that is computed in every step, because it is copied after step 1000, gives the same numbers as the cache.
    let live = named(&lab, "live", &["reference.copy_every=1000"]);
    for (step, (cached, live)) in loss.iter().zip(live.train("loss")).enumerate() {
        assert!((cached - live).abs() < 1e-5, "step {}: {cached} and {live}", step + 1);
    }
    // Other rows, other numbers.
    lab.write("rows.jsonl", rows(59));
    let other = lab.ask(&["run", "tiny.toml", "--name", "other"]);
    assert!(other.err.contains("were computed into"), "{other:#?}");
}

/// Catches a reference that tracks the policy too early, too late, by the wrong share, or not at all.
#[test]
fn gotcha_17_a_reference_tracks_the_policy_as_configured() {
    let lab = lab(DPO);
    let margin = |run: &Run| run.train("rewards/margin");
    let frozen = margin(&named(&lab, "frozen", &[]));
    let copied = named(&lab, "copied", &["reference.copy_every=5"]);
    let (own, loss) = (margin(&copied), copied.train("loss"));
    for step in 0..5 {
        assert!((own[step] - frozen[step]).abs() < 1e-5, "step {}: {} and {}", step + 1, own[step], frozen[step]);
    }
    for step in [5, 10, 15] {
        close(loss[step], 2f64.ln(), 1e-5, "the reference has just become the policy");
        assert!(own[step - 1] > 1e-3, "{own:?}");
    }
    let averaged = margin(&named(&lab, "averaged", &["reference.average=0.9"]));
    assert!((averaged[1] - 0.9 * frozen[1]).abs() < 0.05 * frozen[1], "{averaged:?} {frozen:?}");
    assert!(averaged[19] < frozen[19] && averaged[19] > own[19].min(own[15]), "{averaged:?} {frozen:?}");
    // A share of 0 is the policy itself.
    let none = margin(&named(&lab, "none", &["reference.average=0"]));
    assert!(none.iter().all(|margin| margin.abs() < 1e-5), "{none:?}");
}

/// Catches models that are read although their vocabularies can never match, tables that nothing reads, and keys that are ignored;
/// each is reported with its place before anything is written.
#[test]
fn models_that_do_not_fit_and_unread_keys_are_refused() {
    let lab = lab(DPO);
    lab.write("some.txt", crate::support::lab::some_text(2000));
    lab.ask(&["tokenizer", "train", "some.txt", "--vocab-size", "300", "--out", "other.json"]).succeeds();
    write(&lab, "other", &DPO.replace("[train]", "[tokenizer]\nkind = \"file\"\npath = \"other.json\"\n\n[train]"));
    lab.ask(&["run", "other.toml", "--set", "train.steps=1"]).succeeds();
    let refused = |name: &str, sets: &[&str], parts: &[&str]| {
        let file = format!("{name}.toml");
        lab.ask(&with_sets(&["run", &file], sets)).refuses(2, parts);
        assert!(!lab.at(&format!("runs/{name}")).exists(), "something was written");
    };
    let another = "has another tokenizer than bytes";
    refused("tiny", &["reference.from=runs/other"], &["reference.from", "runs/other", another]);
    refused("tiny", &["reference.from=runs/none"], &["reference.from", "there is no model folder runs/none"]);
    refused("tiny", &["critic.from=shared"], &["critic", "unused: no objective reads a critic"]);
    refused("tiny", &["reward.plugin=length"], &["reward", "unused", "eval.generate"]);
    write(&lab, "ppo", PPO);
    refused("ppo", &["critic.from=runs/other"], &["critic.from", another]);
    refused("ppo", &["rollout.prompts=6"], &["rollout.prompts", "6 is not a multiple of train.batch.prompts = 4"]);
    refused("ppo", &["rollout.max_new_tokens=48"], &["rollout.max_new_tokens", "leave no room for a prompt"]);
    refused("ppo", &["reward.weight=0"], &["reward", "rollouts need a reward"]);
    let model = PPO.replace("plugin = \"length\"\nunit = \"characters\"\n", "model = \"runs/other\"\nwieght = 3\n");
    write(&lab, "model", &model);
    let place = |key: &str| {
        let text = std::fs::read_to_string(lab.at("model.toml")).expect("written");
        let line = text.lines().position(|line| line.starts_with(key)).expect("the key is there") + 1;
        format!("model.toml:{line}:")
    };
    let (wieght, target) = (place("wieght"), place("target"));
    let parts = ["reward.0.wieght: unknown key; did you mean `weight`?", "target: unknown key", &wieght, &target];
    refused("model", &[], &parts);
    write(
        &lab,
        "model",
        &PPO.replace("plugin = \"length\"\nunit = \"characters\"\ntarget = 4", "model = \"runs/other\""),
    );
    refused("model", &[], &["reward.0.model", "runs/other is not a reward model"]);
}

/// What holds for the first rollout with every critic, and for the first minibatch of the next one.
fn is_sound(run: &Run) {
    let [ratio, clipped, kl, own] =
        ["val/ratio", "policy/clipfrac_avg", "objective/kl", "policy/approxkl_avg"].map(|name| run.train(name));
    for first in [0, 4, 8] {
        assert!((ratio[first] - 1.0).abs() < 1e-5, "step {}: {ratio:?}", first + 1);
        assert_eq!(clipped[first], 0.0, "{clipped:?}");
        assert!(own[first].abs() < 1e-9 && own[first + 3] > 1e-9, "{own:?}");
    }
    assert!(kl[..4].iter().all(|kl| kl.abs() < 1e-5), "the policy is the reference: {kl:?}");
    assert!(kl[8].abs() > 1e-4, "the policy has not left the reference: {kl:?}");
}

/// Catches log-probabilities that the rollout and the step compute differently, a reference that is not the policy's
/// initial weights, a critic that does not start at 0 or does not learn, and critics that are all the same.
#[test]
fn gotcha_07_27_34_ppo_begins_at_the_policy_with_any_critic() {
    let lab = lab(PPO);
    write(&lab, "rm", REWARD);
    lab.ask(&["run", "rm.toml"]).succeeds();
    let mut errors = Vec::new();
    for (name, sets) in [
        ("own", &["critic.lr=1e-2"][..]),
        ("shared", &["critic.from=shared"]),
        ("judge", &["critic.from=runs/rm"]),
        ("small", &["train.micro_batch_tokens=48"]),
    ] {
        let run = named(&lab, name, sets);
        is_sound(&run);
        let (foreseen, value) = (run.train("value/explained_variance"), run.train("value/error"));
        // A critic that is always 0 explains no variance; a reward model is not 0.
        assert_eq!(foreseen[0].abs() < 1e-9, name != "judge", "{name}: {foreseen:?}");
        assert!(value[11] < value[0], "{name}: {value:?}");
        assert_eq!(run.train("critic/grad_norm")[0].is_nan(), name == "shared", "{name}");
        assert_eq!(run.0.join("checkpoints/step-00000012/critic").is_dir(), name != "shared", "{name}");
        errors.push(value);
    }
    assert!(errors[0] != errors[1] && errors[0] != errors[2] && errors[1] != errors[2]);
    // A temperature divides the logits of the draw and of every log-probability alike.
    is_sound(&named(&lab, "warm", &["rollout.temperature=1.7", "rollout.top_k=50"]));
    is_sound(&named(&lab, "several", &["rollout.samples=3", "train.micro_batch_tokens=64"]));
    // From a model that was trained before: what PPO expects of its first step still holds, or a note would say otherwise.
    write(&lab, "again", &PPO.replace("[train]", "[model]\nfrom = \"runs/own\"\n\n[train]"));
    let shape = "[model]\nlayers = 1\ndim = 32\nheads = 2\ncontext = 48\n";
    let text = std::fs::read_to_string(lab.at("again.toml")).expect("written");
    lab.write("again.toml", text.replace(shape, ""));
    let answer = lab.ask(&["run", "again.toml", "--set", "eval.generate=4"]);
    answer.succeeds();
    assert!(!answer.err.contains("note:"), "{answer:#?}");
    is_sound(&Run(lab.at("runs/again")));
    // A prompt leaves room for the longest answer, and answers are evaluated.
    let long = (0..60).map(|i| json!({"prompt": format!("{i:02}{}", "x".repeat(44))}).to_string() + "\n");
    lab.write("rows.jsonl", long.collect::<String>());
    let run = named(&lab, "long", &["eval.generate=4", "rollout.samples=2"]);
    is_sound(&run);
    for sample in run.lines("samples.jsonl").iter().filter(|sample| sample["kind"] != "exact_match") {
        assert!(sample["tokens"] == json!(8) || sample["finish"] == json!("end of sequence"), "{sample}");
    }
    for name in ["eval/reward", "eval/reward/length", "eval/answers/ended", "eval/answers/length", "eval/answers/kl"] {
        assert!(run.eval(name).iter().all(|value| value.is_finite()), "{name}");
    }
    assert!(run.eval("eval/answers/kl")[0].abs() < 1e-5, "{:?}", run.eval("eval/answers/kl"));
}

/// Catches weights and normalisation that are not applied, or applied to the other reward, a reward of 0 that counts as missing,
/// and answers that are recorded with other rewards than they were learned with.
#[test]
fn gotcha_33_rewards_are_weighted_normalised_and_reported() {
    let lab = lab(PPO);
    write(&lab, "rm", REWARD);
    lab.ask(&["run", "rm.toml"]).succeeds();
    let scores = &config(&Run(lab.at("runs/rm")), 30)["telos_scores"];
    let number = |value: &Value| value.as_f64().expect("a number");
    let (mean, deviation) = (number(&scores["mean"]), number(&scores["standard_deviation"]));
    let rewards = |more: &str| {
        PPO.replace(
            "target = 4",
            &format!("target = 4\nweight = 0.5\n\n[[reward]]\nmodel = \"runs/rm\"\nweight = 2.0\n{more}"),
        )
    };
    write(&lab, "tiny", &rewards(""));
    let raw = named(&lab, "raw", &[]);
    write(&lab, "tiny", &rewards("normalise = true"));
    let scaled = named(&lab, "scaled", &[]);
    let (a, b) = (raw.train("reward/model")[0], scaled.train("reward/model")[0]);
    close((a - mean) / deviation, b, 1e-9, "normalised");
    assert_eq!(raw.train("reward/length")[0], scaled.train("reward/length")[0]);
    // A rollout is reported once, with its first step.
    assert!(raw.train("reward/model")[1..4].iter().all(|value| value.is_nan()));
    let samples = |run: &Run| run.lines("samples.jsonl").into_iter().take(2).collect::<Vec<_>>();
    for (own, other) in samples(&raw).iter().zip(&samples(&scaled)) {
        assert_eq!((&own["step"], &own["text"]), (&json!(1), &other["text"]));
        let length = own["text"].as_str().expect("a text").chars().count() as f64;
        let half = 0.5 * -(length - 4.0).abs() / 4.0;
        let score = (number(&own["reward"]) - half) / 2.0;
        close(number(&other["reward"]), half + 2.0 * (score - mean) / deviation, 1e-9, "the weighted sum");
    }
    assert_eq!(raw.lines("samples.jsonl").len(), 6, "two answers of each of three rollouts");
    // Clipped; and a run whose answers all have a reward of exactly 0 learns nevertheless.
    write(&lab, "tiny", &rewards(""));
    let clipped = named(&lab, "clipped", &["rollout.clip=0.25"]);
    assert!(samples(&clipped).iter().all(|sample| number(&sample["reward"]).abs() <= 0.25));
    write(&lab, "tiny", PPO);
    let nothing = named(&lab, "nothing", &["reward.weight=1e-300", "objective.kl_coef=0"]);
    assert!(nothing.train("objective/scores").iter().all(|score| score.abs() < 1e-290));
}

/// Catches a check that passes although the reward model of an earlier stage will have no scores to normalise by: the later stage would
/// be refused after the first one has trained.
#[test]
fn a_stage_that_holds_nothing_out_measures_no_scores() {
    let lab = lab(PPO);
    let check = |held_out: &str| {
        let first = format!(
            "[[stage]]\nname = \"rm\"\ndata.held_out = {held_out}\nobjective.plugin = \"reward\"\n\
             train = {{ steps = 2, batch = {{ pairs = 8 }}, optimizer = {{ lr = 3e-3 }} }}\n"
        );
        let second = "[[stage]]\nname = \"ppo\"\nobjective.plugin = \"ppo\"\nreward = [{ model = \"stage:rm\", normalise = true }]\n\
                      rollout = { prompts = 8, max_new_tokens = 8 }\n\
                      train = { steps = 2, batch = { prompts = 4 }, optimizer = { lr = 3e-3 } }\n";
        lab.write("pipe.toml", format!("{SMALL}{ROWS}{first}{second}"));
        lab.ask(&["check", "pipe.toml"])
    };
    check("0").refuses(2, &["stage \"ppo\"", "no recorded mean and deviation of scores"]);
    check("0.2").succeeds();
}

/// From pre-training to a tuned policy in one file.
const PIPELINE: &str = r#"
seed = 7

[backend]
plugin = "candle"
threads = 1

[data]
source = "jsonl"
path = "rows.jsonl"
held_out = 0.2

[train]
optimizer = { lr = 3e-3 }

[[stage]]
name = "base"
model = { layers = 1, dim = 32, heads = 2, context = 48 }
objective = { plugin = "dpo" }
train = { steps = 5, batch = { pairs = 8 } }

[[stage]]
name = "rm"
model.from = "stage:base"
objective = { plugin = "reward" }
train = { steps = 20, batch = { pairs = 8 } }
eval.every = 10

[[stage]]
name = "ppo"
model.from = "stage:base"
critic.from = "stage:rm"
reward = [{ model = "stage:rm", normalise = true }, { plugin = "length", weight = 0.0 }]
objective = { plugin = "ppo" }
rollout = { prompts = 8, max_new_tokens = 8 }
train = { steps = 4, batch = { prompts = 4 } }
"#;

/// Catches a pipeline that finds only at the start of its last stage that a reward model is not one, or cannot be normalised.
#[test]
fn a_pipeline_tries_its_reward_models_before_it_trains() {
    let lab = lab("");
    lab.write("tiny.toml", PIPELINE.replace("[{ model = \"stage:rm\"", "[{ model = \"stage:base\""));
    let parts = ["stage \"ppo\" cannot run", "reward.0.model", "is not a reward model: it has no scalar head"];
    lab.run(&[]).refuses(2, &parts);
    assert!(!lab.at("runs/tiny").exists(), "a stage has trained");
    lab.write("tiny.toml", PIPELINE);
    lab.ask(&["check", "tiny.toml"]).succeeds();
    assert!(!lab.at("runs/tiny").exists());
    lab.run(&[]).succeeds();
    let ppo = Run(lab.at("runs/tiny/ppo"));
    let [ratio, model, length] = ["val/ratio", "reward/model", "reward/length"].map(|name| ppo.train(name)[0]);
    assert!((ratio - 1.0).abs() < 1e-5 && model.is_finite() && length <= 0.0, "{ratio} {model} {length}");
    // A reward that is only measured has no effect.
    let samples = ppo.lines("samples.jsonl");
    let scores = ppo.train("objective/scores");
    assert!(
        (samples.len(), scores.len()) == (4, 4) && ((scores[0] + scores[1]) / 2.0 - model).abs() < 1e-5,
        "{scores:?} {model}"
    );
}

/// Catches a pre-training term that is left out, learns from the prompts, or comes without its own text or tokens.
#[test]
fn a_pre_training_term_learns_from_its_own_text_in_rollout_training() {
    let lab = lab(&ptx());
    lab.run(&[]).succeeds();
    let run = lab.tiny_run();
    let (loss, ppo) = (run.train("ce/loss"), run.train("ppo/policy"));
    close(loss[0], 257f64.ln(), 0.1, "a fresh model's first text");
    assert!(loss.last() < Some(&(0.8 * loss[0])), "{loss:?}");
    assert_eq!(loss.len(), ppo.len());
    named_refused(&lab, &["objective.0.tokens=5"], &["objective.0.tokens", "unused"]);
    lab.write("tiny.toml", format!("{SMALL}{ROWS}{SHARED}{}", ptx().replace("tokens = 96", "")));
    named_refused(&lab, &[], &["objective.1.tokens", "missing"]);
    lab.write("tiny.toml", format!("{SMALL}{ROWS}{SHARED}{}", ptx().replace("text = \"text.txt\"", "")));
    named_refused(&lab, &[], &["objective.1.text", "missing"]);
}

/// Catches a receipt without a model that a run learned from, or without the text of a second objective, and a resume that needs
/// a critic which the checkpoint has.
#[test]
fn the_receipt_records_every_model_and_text() {
    let models =
        "[[reward]]\nmodel = \"runs/rm\"\n\n[critic]\nfrom = \"runs/critic\"\n\n[reference]\nfrom = \"runs/lm\"\n";
    let lab = lab(&(ptx() + models));
    let weights = [("rm", REWARD, 30), ("critic", REWARD, 30), ("lm", DPO, 20)].map(|(name, objective, steps)| {
        write(&lab, name, objective);
        lab.ask(&["run", &format!("{name}.toml")]).succeeds();
        Run(lab.at(&format!("runs/{name}"))).weights_sha256(steps)
    });
    lab.run(&["train.steps=1"]).succeeds();
    let receipt = lab.tiny_run().receipt();
    let roles = receipt["roles"].as_object().expect("the models beside the policy");
    let hashes: Vec<(&str, &Value)> = roles.iter().map(|(name, role)| (name.as_str(), &role["sha256"])).collect();
    let [rm, critic, lm] = weights.map(Value::from);
    assert_eq!(hashes, [("critic", &critic), ("reference", &lm), ("reward.1", &rm)], "{receipt:#}");
    let data = receipt["data"].as_array().expect("the files read");
    let ends = |file: &str| data.iter().any(|d| d["path"].as_str().is_some_and(|path| path.ends_with(file)));
    assert!(data.len() == 2 && ends("rows.jsonl") && ends("text.txt"), "{receipt:#}");
    std::fs::remove_dir_all(lab.at("runs/critic")).expect("removed");
    lab.resume(&["train.steps=1"]).succeeds();
    assert_eq!(lab.tiny_run().receipt()["roles"], receipt["roles"]);
}
