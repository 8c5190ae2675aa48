//! Tests what a valid experiment resolves to, and that the result resolves to itself.

use proptest::prelude::*;

use super::*;
use crate::config::experiment::{Batch, Length, MetricRule, Model, ScheduleKind, Span, Tokenizer};
use crate::config::schema::{self, KEYS};
use crate::config::{experiment::Written, form};
use crate::families::FAMILIES;
use crate::keys::{Form, tree};

#[test]
fn overrides_reach_every_key_and_the_last_one_is_used() {
    let sets = [
        "seed=1",
        "seed=2",
        "data.path=../a b.txt",
        "train.batch={sequences=4}",
        "sample.prompts=[\"x\"]",
        "objective.weight=2",
    ];
    let experiment = load(GOOD, &sets);
    assert_eq!(experiment.seed, 2);
    assert_eq!(experiment.data, load(&GOOD.replace("corpus.txt", "../a b.txt"), &[]).data);
    assert_eq!(experiment.train.batch, Batch::Sequences(4));
    assert_eq!(experiment.sample.map(|sample| (sample.prompts, sample.seed)), Some((vec!["x".to_owned()], 2)));
    let list = "[[objective]]\nplugin = \"ce\"\n[[objective]]\nplugin = \"ce\"\n";
    let list = format!("{}{list}", GOOD.replace("objective = { plugin = \"ce\" }", ""));
    let weights =
        |text: &str, set: &str| -> Vec<f64> { load(text, &[set]).objective.iter().map(|one| one.weight).collect() };
    assert_eq!(weights(&list, "objective.1.weight=0.5"), [1.0, 0.5]);
    assert_eq!(weights(GOOD, "objective.0.weight=0.5"), [0.5]);
}

#[test]
fn defaults_that_depend_on_other_keys() {
    let shape = |text: &str| match load(text, &[]).model {
        Model::Shape(shape) => shape,
        Model::From { .. } => panic!("a shape was given"),
    };
    let llama = shape(GOOD);
    assert_eq!((llama.hidden, llama.kv_heads(), llama.tied, llama.rope_theta), (96, 4, false, Some(10_000.0)));
    let gpt2 = shape(&GOOD.replace("layers = 2", "arch = \"gpt2\", layers = 2"));
    assert_eq!((gpt2.hidden, gpt2.kv_heads(), gpt2.tied, gpt2.rope_theta), (128, 4, true, None));
    assert_eq!(llama.vocab, None, "the tokenizer decides");
    assert_eq!(shape(&GOOD.replace("layers = 2", "vocab = 320, layers = 2")).vocab, Some(320));
    let from = GOOD.replace("layers = 2, dim = 32, heads = 4, context = 64", "from = \"runs/a\"");
    assert_eq!(load(&from, &[]).tokenizer, Tokenizer::Model);
    assert_eq!(load(GOOD, &[]).tokenizer, Tokenizer::Bytes);
    assert_eq!(load(GOOD, &[]).name, "exp");
    assert_eq!(
        load(GOOD, &["eval.every=5"]).checkpoint.best.map(|rule| rule.to_string()).as_deref(),
        Some("min:eval/loss")
    );
    let wsd = load(GOOD, &["train.schedule=wsd", "train.warmup=0.1"]).train.schedule;
    assert_eq!((wsd.kind, wsd.warmup, wsd.decay), (ScheduleKind::Wsd, Span::Fraction(0.1), Some(Span::Fraction(0.2))));
    assert_eq!(load(&GOOD.replace("steps = 100", "epochs = 2"), &[]).train.length, Length::Epochs(2.0));
}

/// Catches a rule that counts NaN as an improvement, or confuses `max:` with `min:`.
#[test]
fn gotcha_43_nan_is_never_better() {
    let (min, max) = (MetricRule::parse("eval/loss").unwrap(), MetricRule::parse("max:x").unwrap());
    assert!(min.is_better(1.0, 2.0, 0.0) && !min.is_better(2.0, 1.0, 0.0) && !min.is_better(1.0, 1.05, 0.1));
    assert!(max.is_better(2.0, 1.0, 0.0) && !max.is_better(1.0, 2.0, 0.0));
    assert!(!min.is_better(f64::NAN, 1.0, 0.0) && !max.is_better(f64::NAN, 1.0, 0.0));
}

/// Catches an example in the reference that the form check or the typed form refuses, and a default in the
/// reference that differs from the real one.
#[test]
fn examples_and_defaults_of_the_reference_are_correct() {
    for key in KEYS {
        let (above, name) = key.path.rsplit_once('.').unwrap_or(("", key.path));
        let header = match schema::find(above).map(|key| key.form) {
            Some(Form::Tables) => format!("[[{above}]]\n"),
            Some(_) => format!("[{above}]\n"),
            None => String::new(),
        };
        // A table within a list of tables is one of its last element.
        let list = above
            .rsplit_once('.')
            .filter(|(list, _)| matches!(schema::find(list).map(|key| key.form), Some(Form::Tables)));
        let header = list.map_or(String::new(), |(list, _)| format!("[[{list}]]\n")) + &header;
        let text = format!("{header}{name} = {}\n", key.example);
        let tree = tree::parse(&"exp.toml".into(), &text).unwrap_or_else(|mistakes| panic!("{text}: {mistakes:?}"));
        let checked = form::check(&tree);
        assert_eq!(checked.mistakes, [], "{text}");
        let written: Result<Written, _> = serde_json::from_value(checked.values.into());
        assert!(written.is_ok(), "{text}: {:?}", written.err());
    }
    let sets = ["eval.every=5", "eval.early_stop={}", "sample.prompts=[\"x\"]", "train.schedule=wsd"];
    let resolved = load(GOOD, &sets).to_toml().unwrap();
    let resolved = tree::parse(&"exp.toml".into(), &resolved).unwrap();
    let given = ["eval.every", "train.schedule", "train.schedule.kind"];
    let mut compared = 0;
    for key in KEYS.iter().filter(|key| !given.contains(&key.path)) {
        let default = tree::parse(&"d".into(), &format!("d = {}", key.default)).ok();
        let path = key.path.replace("objective.", "objective.0.");
        if let (Some(default), Some(found)) = (default, resolved.find(&path)) {
            assert_eq!(default.find("d").map(|node| node.found()), Some(found.found()), "{}", key.path);
            compared += 1;
        }
    }
    assert!(compared > 25, "only {compared} defaults compared");
    assert!(schema::reference().contains("train.optimizer.lr\n    peak learning rate"));
    for family in FAMILIES {
        assert!(schema::reference().contains(&format!("\n    {}: {}", family.model_type, family.summary)));
    }
}

/// Catches a synthetic task that the world has and experiments cannot name, or the other way round.
#[test]
fn the_tasks_are_those_of_the_world() {
    assert_eq!(crate::data::sources::synthetic::TASKS, telos_world::Task::ALL.map(|task| task.name()));
}

#[test]
fn the_resolved_file_contains_every_default() {
    let text = load(GOOD, &["sample.prompts=[\"Once\"]", "eval.every=50"]).to_toml().unwrap();
    snapshot("resolved", &text);
}

/// At random, one line or table of each kind; `None` leaves it out.
fn experiments() -> impl Strategy<Value = String> {
    let pick = |choices: &'static [&'static str]| prop::sample::select(choices);
    (
        pick(&["", "name = \"n\"\n", "seed = 9223372036854775807\n"]),
        pick(&[
            "model = { from = \"runs/a\" }\n",
            "model = { layers = 2, dim = 32, heads = 4, context = 64, kv_heads = 2, tied = true, norm_eps = 1e-6 }\n",
            "model = { arch = \"gpt2\", layers = 1, dim = 6, heads = 2, context = 99, hidden = 5, init_std = 0.1 }\n",
        ]),
        pick(&[
            "data = { path = [\"a\", \"b/*.txt\"] }\n",
            "data = { path = \"a\", eval_path = \"b\" }\n",
            "data = { path = \"a\", held_out = 0.25 }\n",
            "data = { source = \"jsonl\", path = \"a\", max_length = 32, chat_template = \"plain\", group_column = \"q\" }\n",
            "data = { source = \"jsonl\", path = \"a\", split_column = \"s\", truncation = \"left\" }\n",
            "data = { source = \"jsonl\", path = \"a\", columns = { prompt = \"q\", margin = \"m\" }, held_out = 0.5 }\n",
            "data = { source = \"synthetic\", tasks = [\"sort\", \"copy\"], rows = 7 }\n",
            "data = { source = \"synthetic\", equal_length = true }\n",
            "data = { source = \"synthetic\", flawed = 0.25 }\n",
        ]),
        pick(&[
            "objective = { plugin = \"ce\" }\n",
            "objective = { plugin = \"ce\", label_smoothing = 1, weights = [1, 2, 3.5], margin = true, count = -4 }\n",
            "objective = [{ plugin = \"ce\", weight = 0.5 }, { plugin = \"z\", loss_type = \"hinge\" }]\n",
        ]),
        pick(&["tokenizer = { kind = \"file\", path = \"t.json\" }\n", "tokenizer = { kind = \"bytes\" }\n", ""]),
        pick(&[
            "",
            "eval = { every = 5, tokens = 100, early_stop = { metric = \"max:eval/x\", patience = 2, min_delta = 0.1 } }\n",
            "eval = { every = 1 }\ncheckpoint = { every = 0, keep = 9, best = \"train/loss\" }\n",
        ]),
        pick(&[
            "",
            "sample = { prompts = \"a\\n\\\"b\\\"\", temperature = 0 }\n",
            "sample = { prompts = [\"é\", \"x\"], top_p = 0.9, top_k = 3, seed = 5, every = 2 }\n",
        ]),
        pick(&["steps = 100\n", "epochs = 1\n", "epochs = 0.3\n"]),
        pick(&[
            "batch = { tokens = 512 }\n",
            "batch = { sequences = 3 }\n",
            "batch = { pairs = 3 }\n",
            "batch = { prompts = 3 }\n",
        ]),
        (
            pick(&["", "schedule = \"cosine\"\nwarmup = 0.1\n", "schedule = { kind = \"wsd\", warmup = 3, decay = 20, min_lr_ratio = 0.1 }\n", "schedule = \"linear\"\n"]),
            pick(&["", "context_schedule = [[0, 16], [30, 32]]\n"]),
            (1e-12f64..1e3, 0.0f64..0.999),
        ),
    )
        .prop_map(|(name, model, data, objective, tokenizer, eval, sample, length, batch, (schedule, context, (lr, beta)))| {
            // Epochs can only be counted at one context length.
            let context = if length.starts_with("epochs") { "" } else { context };
            let optimizer = format!("optimizer = {{ lr = {lr:?}, betas = [{beta:?}, 0], groups = [{{ match = \"*.norm\", weight_decay = 0.0 }}] }}\n");
            format!("{name}{model}{data}{objective}{tokenizer}{eval}{sample}[train]\n{length}{batch}{schedule}{context}{optimizer}")
        })
}

proptest! {
    /// Catches a value that is lost, rounded or changes type when written, and a resolved file that violates a rule
    /// of the original.
    #[test]
    fn a_resolved_experiment_resolves_to_itself(text in experiments()) {
        let experiment = load(&text, &[]);
        let resolved = experiment.to_toml().unwrap();
        prop_assert_eq!(&load(&resolved, &[]), &experiment, "from\n{}to\n{}", text, resolved);
        prop_assert_eq!(load(&resolved, &[]).to_toml().unwrap(), resolved);
    }
}

/// Catches a host's key that an option of a plugin could have as its name, so that the plugin never receives it.
#[test]
fn the_hosts_keys_beside_options_are_those_of_the_contract() {
    for (table, taken) in [
        ("objective", plugin_api::contract::OBJECTIVE_KEYS),
        ("reward", plugin_api::contract::REWARD_KEYS),
        ("backend", plugin_api::contract::BACKEND_KEYS),
    ] {
        let of_table = |key: &crate::keys::Key| key.path.strip_prefix(table)?.strip_prefix('.');
        let own: Vec<&str> = KEYS.iter().filter_map(of_table).collect();
        assert_eq!(own, taken, "[{table}]");
    }
}
