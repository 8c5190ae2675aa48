//! Invalid experiments and overrides, and exactly what is reported.

use proptest::prelude::*;
use serde_json::json;

use super::*;

#[test]
fn all_mistakes_come_at_once_sorted_by_line() {
    check(
        r#"
sed = 7
model = { layers = 2, dim = 30, heads = 4, context = 64 }
data = { path = "corpus.txt" }
objective = { plugin = "ce", label_smoothin = 0.1 }

[train]
steps = "many"
batch = { tokens = 512 }
optimizer = { lr = -1e-3 }
"#,
        &["eval.evry=5"],
        r#"
        exp.toml:2:1: sed: unknown key; did you mean `seed`?
        exp.toml:3:23: model.dim: 30 is no multiple of heads = 4
        exp.toml:5:30: objective.label_smoothin: unknown key; did you mean `label_smoothing`?
        exp.toml:8:1: train.steps: expected an integer from 0, found the string "many"; for example steps = 500
        exp.toml:10:15: train.optimizer.lr: expected a number above 0, found the number -0.001; for example lr = 3e-4
        --set eval.evry: unknown key; did you mean `every`?
        "#,
    );
}

#[test]
fn unknown_keys_get_the_nearest_valid_name_and_no_second_complaint() {
    added("[evals]\nevery = 1", "exp.toml:10:2: evals: unknown key; did you mean `eval`?");
    added("[checkpoint]\nevry = 10", "exp.toml:11:1: checkpoint.evry: unknown key; did you mean `every`?");
    added(
        "[eval]\nlr = 1e-3",
        "exp.toml:11:1: eval.lr: unknown key; did you mean `critic.lr` or `train.optimizer.lr`?",
    );
    added(
        "[eval]\ncolour = 1",
        "exp.toml:11:1: eval.colour: unknown key; valid: `early_stop`, `every`, `generate`, `pass_at`, `samples`, `temperature`, `tokens`",
    );
    changed("steps = 100", "stesp = 100", "exp.toml:7:1: train.stesp: unknown key; did you mean `steps`?");
    changed(
        "plugin = \"ce\"",
        "plugn = \"ce\"",
        r#"
        exp.toml:4:1: objective.plugin: missing; which objective? for example plugin = "ce""#,
    );
}

#[test]
fn wrong_types_say_what_was_expected_and_found_with_an_example() {
    let steps = |value: &str, found: &str| {
        let line = "exp.toml:7:1: train.steps: expected an integer from 0, found";
        changed("steps = 100", &format!("steps = {value}"), &format!("{line} {found}; for example steps = 500"));
    };
    steps("\"100\"", "the string \"100\"");
    steps("1.5", "the number 1.5");
    steps("-1", "the integer -1");
    steps("true", "`true`");
    steps("[]", "an empty list");
    steps("{}", "a table");
    steps("2024-01-01", "the date 2024-01-01 (quote it to make it a string)");
    steps("99999999999999999999", "the number 1e20");
    let lr = |value: &str, found: &str| {
        let line = "exp.toml:9:15: train.optimizer.lr: expected a number above 0, found";
        changed("lr = 1e-3", &format!("lr = {value}"), &format!("{line} {found}; for example lr = 3e-4"));
    };
    lr("nan", "the number NaN");
    lr("inf", "the number inf");
    lr("0", "the integer 0");
    check(
        "train = 3\nmodel = []\ndata = 1.5\n",
        &[],
        r#"
        exp.toml:1:1: train: expected a table, found the integer 3; for example train = { steps = 500 }
        exp.toml:2:1: model: expected a table, found an empty list; for example model = { layers = 4, dim = 128, heads = 4, context = 256 }
        exp.toml:3:1: data: expected a table, found the number 1.5; for example data = { path = "corpus.txt" }
        exp.toml: objective: missing; what is minimised? for example [objective] with plugin = "ce"
        "#,
    );
}

#[test]
fn broken_toml_is_reported_with_every_line() {
    check(
        "steps = \n[train\nx = 1\n",
        &[],
        r#"
        exp.toml:1:9: string values must be quoted, expected literal string
        exp.toml:2:7: unclosed table, expected `]`"#,
    );
    check("a = 1\na = 2\n", &[], "exp.toml:2:1: duplicate key");
    let deep = format!("x = {}1{}", "[".repeat(5000), "]".repeat(5000));
    assert!(draft(&deep, &[]).is_err(), "a deep file is refused, not a stack overflow");
}

#[test]
fn an_empty_file_is_told_all_it_lacks() {
    check(
        "",
        &[],
        r#"
        exp.toml: data.path: missing; source = "text" reads it; for example path = "corpus/*.txt"
        exp.toml: model: missing; give from = "a folder", or a shape: layers, dim, heads, context
        exp.toml: objective: missing; what is minimised? for example [objective] with plugin = "ce"
        exp.toml: train.batch: missing; what does one step see? for example batch = { tokens = 8192 } or batch = { sequences = 12 }
        exp.toml: train.optimizer.lr: missing; the learning rate has no default; for example lr = 3e-4
        exp.toml: train.steps: missing; how long? give steps = 500 or epochs = 1"#,
    );
}

#[test]
fn names_that_would_leave_the_runs_folder_are_refused() {
    for name in ["a/b/c", "/a", "a/", "a/..", "..", "../x", "a b", "-x"] {
        let line =
            format!("\"{name}\" is no plain folder name (letters, digits, `-`, `_`, `.`, and no `.` or `-` in front)");
        changed(
            "\nmodel =",
            &format!("name = \"{name}\"\nmodel ="),
            &format!("exp.toml:1:1: name: {line}; for example name = \"my-run\""),
        );
    }
    let error = Draft::parse("a b.toml", "a b", GOOD, &[]).unwrap().finish().unwrap_err();
    assert!(error.details()[0].starts_with("a b.toml: name: taken from the file, \"a b\" is no plain"), "{error:?}");
    changed(
        "\nmodel =",
        "seed = -1\nmodel =",
        "exp.toml:1:1: seed: expected an integer from 0 to 9223372036854775807, found the integer -1; for example seed = 7",
    );
}

#[test]
fn a_model_is_either_loaded_or_shaped() {
    let why = "unused: model.from brings its own shape; remove this key or model.from";
    changed(
        "context = 64 }",
        "context = 64, from = \"runs/a\" }",
        &format!(
            "exp.toml:2:11: model.layers: {why}
         exp.toml:2:23: model.dim: {why}
         exp.toml:2:33: model.heads: {why}
         exp.toml:2:44: model.context: {why}"
        ),
    );
    changed(
        "layers = 2, dim = 32, heads = 4, context = 64",
        "dim = 32",
        r#"
        exp.toml:2:1: model.context: missing; a model with fresh weights needs it (for example context = 256), or give model.from
        exp.toml:2:1: model.heads: missing; a model with fresh weights needs it (for example heads = 4), or give model.from
        exp.toml:2:1: model.layers: missing; a model with fresh weights needs it (for example layers = 4), or give model.from"#,
    );
    changed(
        "dim = 32",
        "dim = 12",
        "exp.toml:2:23: model.dim: dim / heads = 3 is odd; rotary positions turn pairs of numbers",
    );
    changed("heads = 4", "heads = 4, kv_heads = 3", "exp.toml:2:44: model.kv_heads: 3 does not divide heads = 4");
    changed(
        "heads = 4",
        "heads = 4, arch = \"gpt2\", kv_heads = 2, rope_theta = 500.0",
        r#"
        exp.toml:2:59: model.kv_heads: unused: arch = "gpt2" has as many key and value heads as heads
        exp.toml:2:73: model.rope_theta: unused: arch = "gpt2" learns its positions"#,
    );
    changed(
        "heads = 4",
        "heads = 4, arch = \"gpt-2\"",
        r#"exp.toml:2:44: model.arch: expected "llama" or "gpt2", found the string "gpt-2"; did you mean "gpt2"?"#,
    );
}

#[test]
fn only_rows_have_answers_to_compare() {
    added(
        "[eval]\ngenerate = 5",
        "exp.toml:11:1: eval.generate: unused: running text has no completions to compare with",
    );
}

/// Catches keys of rows that are ignored for text, and contradictory splits.
#[test]
fn keys_of_rows_are_refused_elsewhere_and_where_they_contradict() {
    changed(
        "path = \"corpus.txt\"",
        "path = \"a\", chat_template = \"plain\", max_length = 9, split_column = \"s\"",
        r#"
        exp.toml:3:22: data.chat_template: unused: only source = "jsonl" reads it, and source is "text"
        exp.toml:3:47: data.max_length: unused: only source = "jsonl" reads it, and source is "text"
        exp.toml:3:63: data.split_column: unused: only source = "jsonl" reads it, and source is "text""#,
    );
    changed(
        "path = \"corpus.txt\"",
        "source = \"synthetic\", group_column = \"q\", truncation = \"left\"",
        r#"
        exp.toml:3:32: data.group_column: unused: only source = "jsonl" reads it, and source is "synthetic"
        exp.toml:3:52: data.truncation: unused: only source = "jsonl" reads it, and source is "synthetic""#,
    );
    changed(
        "path = \"corpus.txt\"",
        "source = \"jsonl\", path = \"a\", held_out = 0.2, split_column = \"s\", group_column = \"q\", max_length = 65",
        r#"
        exp.toml:3:40: data.held_out: contradicts data.split_column, which says what is held out: give one of them
        exp.toml:3:76: data.group_column: unused: data.split_column says which rows are held out; remove it or data.group_column
        exp.toml:3:96: data.max_length: 65 tokens are longer than the model's context of 64"#,
    );
    changed(
        "path = \"corpus.txt\"",
        "path = \"a\", columns = { prompt = \"q\" }, equal_length = true",
        r#"
        exp.toml:3:22: data.columns: unused: only source = "jsonl" reads it, and source is "text"
        exp.toml:3:50: data.equal_length: unused: only source = "synthetic" generates data, and source is "text""#,
    );
    changed(
        "path = \"corpus.txt\"",
        "source = \"jsonl\", path = \"a\", columns = { prompt = \"q\", chosen = \"q\", chozen = \"z\" }",
        r#"
        exp.toml:3:52: data.columns.prompt: "q" is data.columns.chosen already
        exp.toml:3:80: data.columns.chozen: unknown key; did you mean `chosen`?"#,
    );
    changed(
        "path = \"corpus.txt\"",
        "source = \"jsonl\", rows = 5",
        r#"
        exp.toml:3:1: data.path: missing; source = "jsonl" reads it; for example path = "rows.jsonl"
        exp.toml:3:28: data.rows: unused: only source = "synthetic" generates data, and source is "jsonl""#,
    );
}

#[test]
fn data_keys_that_the_source_does_not_read_are_refused() {
    changed(
        "path = \"corpus.txt\"",
        "path = \"a\", rows = 5, tasks = [\"sort\"]",
        r#"
        exp.toml:3:22: data.rows: unused: only source = "synthetic" generates data, and source is "text"
        exp.toml:3:32: data.tasks: unused: only source = "synthetic" generates data, and source is "text""#,
    );
    changed(
        "path = \"corpus.txt\"",
        "source = \"synthetic\", path = \"a\", held_out = 0.2",
        r#"
        exp.toml:3:32: data.path: unused: source = "synthetic" generates its data
        exp.toml:3:44: data.held_out: unused: source = "synthetic" holds out a tenth of its texts by itself"#,
    );
    changed(
        "path = \"corpus.txt\"",
        "source = \"synthetic\", tasks = [\"sort\", \"ad\"]",
        r#"exp.toml:3:49: data.tasks.1: expected "copy", "reverse", "sort", "count" or "add", found the string "ad"; did you mean "add"?"#,
    );
    changed(
        "path = \"corpus.txt\"",
        "source = \"json\", path = \"a.jsonl\"",
        r#"exp.toml:3:10: data.source: expected "text", "jsonl" or "synthetic", found the string "json"; did you mean "jsonl"?"#,
    );
    changed(
        "path = \"corpus.txt\"",
        "path = [\"a\", 3]",
        r#"exp.toml:3:10: data.path: expected a string or a list of strings, found the list ["a",3]; for example path = "corpus/*.txt""#,
    );
    changed(
        "path = \"corpus.txt\"",
        "path = \"a\", held_out = 0.2, eval_path = \"b\"",
        "exp.toml:3:22: data.held_out: contradicts data.eval_path: give the files to evaluate on, or a fraction to hold out",
    );
    changed(
        "path = \"corpus.txt\"",
        "path = \"a\", held_out = 1.0",
        "exp.toml:3:22: data.held_out: expected a number of at least 0 and below 1, found the number 1.0; for example held_out = 0.1",
    );
    changed(
        "path = \"corpus.txt\" }",
        "path = \"a\", held_out = 0.0 }\neval = { every = 5 }",
        "exp.toml:4:10: eval.every: unused: data.held_out = 0 leaves nothing to evaluate on",
    );
}

#[test]
fn tokenizers_that_nothing_provides_are_refused() {
    added(
        "[tokenizer]\nkind = \"model\"",
        r#"exp.toml:11:1: tokenizer.kind: "model" takes the tokenizer of model.from, which is not given"#,
    );
    added(
        "[tokenizer]\nkind = \"file\"",
        r#"exp.toml:10:2: tokenizer.path: missing; kind = "file" reads it; for example path = "tokenizer.json""#,
    );
    added(
        "[tokenizer]\npath = \"t.json\"",
        r#"exp.toml:11:1: tokenizer.path: unused: only kind = "file" reads a file, and kind is "bytes""#,
    );
    added(
        "[tokenizer]\nkind = \"chars\"\npath = \"t.json\"",
        r#"exp.toml:11:1: tokenizer.kind: expected "bytes", "file" or "model", found the string "chars""#,
    );
}

#[test]
fn plugin_options_are_checked_against_the_manifest_in_the_same_list() {
    changed(
        "plugin = \"ce\"",
        r#"plugin = "ce", loss_type = "hing", weights = [1, -1], margin = 1, count = 2.5"#,
        r#"
        exp.toml:4:30: objective.loss_type: expected "sigmoid" or "hinge", found the string "hing"; did you mean "hinge"?
        exp.toml:4:50: objective.weights: expected a list of numbers, each at least 0, found the list [1,-1]; for example weights = [1.0,2.5]
        exp.toml:4:69: objective.margin: expected true or false, found the integer 1; for example margin = false
        exp.toml:4:81: objective.count: expected an integer, found the number 2.5; for example count = 3"#,
    );
    added(
        "[backend]\ndevise = \"cpu\"\nthreads = -1",
        r#"
        exp.toml:11:1: backend.devise: unknown key; did you mean `device`?
        exp.toml:12:1: backend.threads: expected an integer from 0 to 4096, found the integer -1; for example threads = 2"#,
    );
    changed(
        "objective = { plugin = \"ce\" }",
        "objective = [{ plugin = \"ce\" }, { plugin = \"ce\", label_smoothing = 2 }]",
        "exp.toml:4:50: objective.1.label_smoothing: expected a number from 0 to 1, found the integer 2; for example label_smoothing = 0.0",
    );
    changed(
        "objective = { plugin = \"ce\" }",
        "objective = [{ plugin = \"ce\" }, { plugin = 3, weight = -1.0 }]",
        r#"
        exp.toml:4:35: objective.1.plugin: expected a string (not empty), found the integer 3; for example plugin = "ce"
        exp.toml:4:47: objective.1.weight: expected a number of at least 0, found the number -1.0; for example weight = 0.5"#,
    );
    changed(
        "plugin = \"ce\"",
        "plugin = \"ce\", weight = 0",
        "exp.toml:4:1: objective: every weight is 0: there is nothing to minimise",
    );
}

/// Catches a loader that forgets a plugin: its options would be silently ignored.
#[test]
fn options_that_nobody_checked_are_refused() {
    let text = GOOD.replace("\"ce\"", "\"ce\", beta = 1");
    let error = Draft::parse("exp.toml", "exp", &text, &[]).unwrap().finish().unwrap_err();
    assert_eq!(error.details(), ["exp.toml:4:30: objective.beta: this option of plugin \"ce\" was not checked"]);
}

#[test]
fn options_without_a_default_must_be_given() {
    let mut spec = specs().remove(0);
    spec.default = json!(null);
    let mut draft = Draft::parse("exp.toml", "exp", GOOD, &[]).unwrap();
    draft.check_options(Slot::Objective(0), &[spec]);
    let error = draft.finish().unwrap_err();
    let expected = "missing, and it has no default; it is a number from 0 to 1: the label_smoothing";
    assert_eq!(error.details(), [format!("exp.toml:4:1: objective.label_smoothing: {expected}")]);
}

#[test]
fn mistakes_of_later_stages_join_the_list_at_their_lines() {
    let mut draft = draft(&GOOD.replace("steps = 100", "steps = -1"), &[]).unwrap();
    draft.refuse("objective.plugin", "no plugin \"ce\"");
    let error = draft.finish().unwrap_err();
    assert_eq!(error.details()[0], "exp.toml:4:15: objective.plugin: no plugin \"ce\"");
    assert_eq!(error.details().len(), 2);
    let loaded = self::draft(GOOD, &["data.path=b.txt"]).and_then(Draft::finish).unwrap();
    assert_eq!(loaded.refuse("data.path", "no such file").details(), ["--set data.path: no such file"]);
    assert_eq!(loaded.refuse("tokenizer.kind", "x").details(), ["exp.toml: tokenizer.kind: x"]);
}

#[test]
fn lengths_and_batches_that_contradict_each_other_are_refused() {
    changed("steps = 100", "", "exp.toml:6:2: train.steps: missing; how long? give steps = 500 or epochs = 1");
    changed(
        "steps = 100",
        "steps = 100\nepochs = 1",
        "exp.toml:8:1: train.epochs: contradicts train.steps: give one of them",
    );
    changed(
        "tokens = 512",
        "tokens = 512, sequences = 3",
        "exp.toml:8:25: train.batch.sequences: contradicts train.batch.tokens: give one of them",
    );
    changed(
        "tokens = 512",
        "",
        "exp.toml:8:1: train.batch: missing; for example batch = { tokens = 8192 } or batch = { sequences = 12 }",
    );
    changed(
        "{ tokens = 512 }",
        "512",
        "exp.toml:8:1: train.batch: expected a table, found the integer 512; for example batch = { tokens = 8192 }",
    );
    changed(
        "tokens = 512",
        "pairs = 32, prompts = 4",
        "exp.toml:8:23: train.batch.prompts: contradicts train.batch.pairs: give one of them",
    );
    changed(
        "tokens = 512",
        "tokens = 32",
        "exp.toml:8:11: train.batch.tokens: 32 tokens hold no sequence of 64; raise it, or shorten the sequences",
    );
    changed(
        "steps = 100",
        "micro_batch_tokens = 63\nsteps = 100",
        "exp.toml:7:1: train.micro_batch_tokens: 63 tokens hold no sequence of 64; raise it to 64 or more",
    );
}

#[test]
fn a_context_schedule_ascends_from_step_0_within_the_models_context() {
    let schedule = |value: &str, expected: &str| {
        changed("steps = 100", &format!("steps = 100\ncontext_schedule = {value}"), expected)
    };
    schedule(
        "[[0, 32], [50, 128]]",
        "exp.toml:8:30: train.context_schedule.1: 128 tokens are longer than the model's context of 64",
    );
    schedule(
        "[[5, 32], [5, 64], [100, 64]]",
        r#"
        exp.toml:8:21: train.context_schedule.0: the first step must be 0; for example [[0, 128], [300, 256]]
        exp.toml:8:30: train.context_schedule.1: step 5 does not come after step 5
        exp.toml:8:39: train.context_schedule.2: unused: step 100 is never reached in 100 steps"#,
    );
    schedule("[[0, 1]]", "exp.toml:8:21: train.context_schedule.0: a sequence needs at least 2 tokens");
    schedule(
        "[[0, 32, 1]]",
        "exp.toml:8:1: train.context_schedule: expected a list of [step, tokens], found the list [[0,32,1]]; for example context_schedule = [[0, 128], [300, 256]]",
    );
}

#[test]
fn optimizer_settings_are_in_range_and_of_the_right_length() {
    changed(
        "lr = 1e-3",
        "eps = 1e-8",
        "exp.toml:9:1: train.optimizer.lr: missing; the learning rate has no default; for example lr = 3e-4",
    );
    let betas =
        "exp.toml:9:26: train.optimizer.betas: expected two numbers, each at least 0 and below 1, found the list";
    changed("lr = 1e-3", "lr = 1e-3, betas = [0.9]", &format!("{betas} [0.9]; for example betas = [0.9, 0.95]"));
    changed(
        "lr = 1e-3",
        "lr = 1e-3, betas = [0.9, 1.0]",
        &format!("{betas} [0.9,1.0]; for example betas = [0.9, 0.95]"),
    );
    changed(
        "lr = 1e-3",
        "lr = 1e-3, groups = [{ match = \"[\", lr_scale = 0.1 }, { lr_scale = 1.0 }, { match = \"a\" }]",
        r#"
        exp.toml:9:38: train.optimizer.groups.0.match: no glob: Pattern syntax error near position 0: invalid range pattern; for example "*embed*"
        exp.toml:9:69: train.optimizer.groups.1.match: missing; which parameters? for example match = "*embed*"
        exp.toml:9:89: train.optimizer.groups.2: unused: the group sets neither lr_scale nor weight_decay"#,
    );
}

#[test]
fn schedules_take_only_what_their_kind_uses_and_fit_into_the_run() {
    let train = |lines: &str, expected: &str| changed("steps = 100", &format!("steps = 100\n{lines}"), expected);
    train(
        "schedule = \"cosin\"",
        r#"exp.toml:8:1: train.schedule: expected "constant", "linear", "cosine", "wsd" or "inverse_sqrt", found the string "cosin"; did you mean "cosine"?"#,
    );
    train(
        "schedule = { kind = \"cosine\", decay = 0.1 }",
        r#"exp.toml:8:31: train.schedule.decay: unused: only kind = "wsd" has a decay phase"#,
    );
    train(
        "schedule = { min_lr_ratio = 0.1 }",
        "exp.toml:8:14: train.schedule.min_lr_ratio: unused: a constant schedule has no floor",
    );
    train(
        "schedule = { kind = \"wsd\", warmup = 0.5, decay = 0.6 }",
        "exp.toml:8:28: train.schedule.warmup: warm-up 0.5 and decay 0.6 are more than the whole run",
    );
    train(
        "schedule = { kind = \"wsd\", warmup = 90 }",
        "exp.toml:8:28: train.schedule.warmup: 90 steps of warm-up and 20 (0.2 of the run) of decay do not fit into 100 steps",
    );
    train("warmup = 101", "exp.toml:8:1: train.warmup: 101 steps of warm-up do not fit into 100 steps");
    train(
        "warmup = 10\nschedule = { warmup = 5 }",
        "exp.toml:8:1: train.warmup: contradicts train.schedule.warmup: give one of them",
    );
    train(
        "warmup = 1.0",
        "exp.toml:8:1: train.warmup: expected a number of steps (integer) or a fraction of the run (number above 0 and below 1), found the number 1.0; for example warmup = 0.1",
    );
}

/// Catches further keys of a reward model that are ignored, although there is no plugin whose options they could
/// be.
#[test]
fn a_reward_model_takes_no_options() {
    added(
        "[[reward]]\nmodel = \"runs/rm\"\nwieght = 2\n[[reward]]\nplugin = \"length\"\n[[reward]]\nmodel = \"runs/b\"\ntarget = 4",
        "exp.toml:12:1: reward.0.wieght: unknown key; did you mean `weight`?\nexp.toml:17:1: reward.2.target: unknown key; valid: `model`, `normalise`, `plugin`, `weight`",
    );
}

#[test]
fn settings_of_evaluation_saving_and_sampling_that_nothing_uses_are_refused() {
    added(
        "[eval]\nearly_stop = { patience = 3 }",
        "exp.toml:11:1: eval.early_stop: unused without eval.every; for example every = 50",
    );
    added(
        "[checkpoint]\nbest = \"eval/loss\"",
        "exp.toml:11:1: checkpoint.best: unused: \"eval/loss\" is measured only with eval.every; for example every = 50",
    );
    added(
        "[eval]\nevery = 5\n[checkpoint]\nbest = \"eval/accuracy\"",
        "exp.toml:13:1: checkpoint.best: write \"min:eval/accuracy\" or \"max:eval/accuracy\": which way is better?",
    );
    added(
        "[eval]\nevery = 5\nearly_stop = { metric = \"most:x\" }",
        "exp.toml:12:16: eval.early_stop.metric: \"most:\" is neither min: nor max:",
    );
    added(
        "[checkpoint]\nkeep = 0",
        "exp.toml:11:1: checkpoint.keep: expected an integer from 1 to 1000000, found the integer 0; for example keep = 3",
    );
    added(
        "[sample]\ntemperature = 0.5",
        "exp.toml:10:2: sample.prompts: missing; without it nothing is sampled; for example prompts = [\"Once upon\"]",
    );
    added(
        "[sample]\nprompts = [\"a\"]\ntemperature = 0\ntop_p = 0.9\ntop_k = 5",
        r#"
        exp.toml:13:1: sample.top_p: unused: temperature = 0 always takes the most probable token
        exp.toml:14:1: sample.top_k: unused: temperature = 0 always takes the most probable token"#,
    );
}

#[test]
fn mistakes_in_overrides_name_the_override() {
    set("train.step=5", "--set train.step: unknown key; did you mean `steps`?");
    set(
        "train.steps=abc",
        "--set train.steps: expected an integer from 0, found the string \"abc\"; for example steps = 500",
    );
    set("train.steps.x=1", "--set train.steps.x: `train.steps` is the integer 100, which has no key `x`");
    set("objectiv.plugin=ce", "--set objectiv.plugin: objectiv: unknown key; did you mean `objective`?");
    set("objective.2.weight=2", "--set objective.2.weight: `objective` is a single table; leave the number out");
    set("train.optimizer=[1", "--set train.optimizer: unclosed array, expected `]`");
    set("train.epochs=1", "--set train.epochs: contradicts train.steps: give one of them");
    set(
        "train.batch={sequences=4,pairs=4}",
        "--set train.batch: train.batch.pairs: contradicts train.batch.sequences: give one of them",
    );
    set(
        "0=1",
        "--set 0: unknown key; valid: `backend`, `checkpoint`, `critic`, `data`, `eval`, `model`, `name`, `objective`, `reference`, `reward`, `rollout`, `runs_dir`, `sample`, `seed`, `tokenizer`, `train`",
    );
    set(
        "eval.early_stop.patience=2",
        "--set eval.early_stop.patience: eval.early_stop: unused without eval.every; for example every = 50",
    );
}

proptest! {
    /// Catches a panic on unforeseen input.
    #[test]
    fn no_text_makes_the_reader_panic(text in "[a-z\\[\\]{}=.,\"'#0-9\\-e \\n]{0,80}", set in "[a-z.=0-9\\[{]{0,20}") {
        let overrides: Vec<Override> = Override::parse(&set).into_iter().collect();
        if let Ok(draft) = Draft::parse("f", "f", &text, &overrides) {
            _ = draft.finish();
        }
    }
}

/// Catches more answers asked for than are drawn, so that pass@k has no estimate; answers that are all the same; and keys that
/// nothing reads.
#[test]
fn pass_at_k_needs_k_answers_that_may_differ() {
    let eval = |keys: &str, expected: &str| {
        changed("path = \"corpus.txt\"", &format!("source = \"synthetic\" }}\neval = {{ {keys}"), expected);
    };
    eval(
        "generate = 5, samples = 2, pass_at = [4, 1]",
        "exp.toml:4:37: eval.pass_at: 4 is more than eval.samples = 2; draw more, samples = 4, or leave it out",
    );
    eval(
        "generate = 5, pass_at = [4]",
        "exp.toml:4:24: eval.pass_at: 4 is more than eval.samples = 1; draw more, samples = 4, or leave it out",
    );
    eval(
        "samples = 2, pass_at = [1]",
        "exp.toml:4:10: eval.samples: unused: without eval.generate nothing is answered
        exp.toml:4:23: eval.pass_at: unused: without eval.generate nothing is answered",
    );
    eval(
        "generate = 5, samples = 2, temperature = 0.0",
        "exp.toml:4:24: eval.samples: unused: at eval.temperature = 0 all answers to a prompt are the same; for example temperature = 0.8",
    );
    eval(
        "generate = 5, samples = 2, pass_at = [0]",
        "exp.toml:4:37: eval.pass_at: expected a list of integers, each from 1 to 65536, found the list [0]; for example pass_at = [1, 4]",
    );
}
