//! Every key of an experiment: its path, the form of its value, its default and its meaning.
//!
//! The form check ([`super::form`]) reads this table, suggestions come from it, and `telos run --help-keys` prints
//! it. Rules between keys are in [`super::resolve`].

use super::tables::roles::rollout;
use crate::keys::{Form, Key, Table, count, joined};
use std::ops::Bound::{Excluded, Included, Unbounded};

/// Values of `data.tasks`: the tasks of the synthetic world.
pub use crate::data::sources::synthetic::TASKS;
/// Values of `train.schedule`.
pub const SCHEDULES: &[&str] = &["constant", "linear", "cosine", "wsd", "inverse_sqrt"];

const ANY_INT: Form = Form::ANY_INT;
const POSITIVE_INT: Form = Form::POSITIVE_INT;
const POSITIONS: Form = Form::POSITIONS;
const ROWS: Form = Form::ROWS;
const POSITIVE: Form = Form::POSITIVE;
const FROM_ZERO: Form = Form::FROM_ZERO;

const fn key(
    path: &'static str,
    form: Form,
    default: &'static str,
    example: &'static str,
    meaning: &'static str,
) -> Key {
    Key { path, form, default, example, meaning, may_change: false }
}

/// Every key, parents before children.
#[rustfmt::skip]
const BEFORE: &[Key] = &[
    key("name", Form::Text, "the file's name without its ending", "\"my-run\"", "name of the run and of its folder under runs_dir: letters, digits, `-`, `_`, `.`"),
    key("seed", Form::Int(0, i64::MAX), "0", "7", "seed of initial weights, data order and synthetic data"),
    key("runs_dir", Form::Text, "\"runs\"", "\"runs\"", "folder that holds the runs, relative to the current directory"),

    key("backend", Form::Plugin, "", "{ plugin = \"candle\" }", "who computes; further keys are options of the plugin"),
    key("backend.plugin", Form::Text, "\"candle\"", "\"candle\"", "id of the backend plugin"),
    key("backend.device", Form::Text, "\"cpu\"", "\"cpu\"", "device: cpu, metal, cuda:0 ... as far as the backend has it"),
    key("backend.dtype", Form::Word(super::experiment::Dtype::WORDS), "\"f32\"", "\"f32\"", "type of the computation; weights and optimizer stay in f32 or better"),
    key("backend.threads", Form::Int(0, 4096), "0", "2", "threads of the backend; 0 means all cores; never changes the result"),

    key("model", Form::Table, "", "{ layers = 4, dim = 128, heads = 4, context = 256 }", "what is trained: `from` an existing model, or a shape with fresh weights"),
    key("model.from", Form::Text, "", "\"runs/base\"", "a run, a checkpoint or a Hugging Face folder to start from"),
    key("model.arch", Form::Word(&["llama", "gpt2"]), "\"llama\"", "\"llama\"", "llama: RMS norm, rotary positions, SwiGLU; gpt2: layer norm, learned positions, GELU, biases"),
    key("model.layers", Form::Int(1, 4096), "", "4", "decoder layers"),
    key("model.dim", Form::Int(1, 1 << 20), "", "128", "width of the residual stream; a multiple of heads"),
    key("model.heads", Form::Int(1, 4096), "", "4", "attention heads"),
    key("model.kv_heads", Form::Int(1, 4096), "as many as heads", "2", "key and value heads (llama); divides heads"),
    key("model.hidden", Form::Int(1, 1 << 22), "llama: 8/3 dim, rounded up to a multiple of 32; gpt2: 4 dim", "512", "width inside the feed-forward block"),
    key("model.context", Form::Int(2, 1 << 24), "", "256", "longest sequence in tokens"),
    key("model.vocab", Form::Int(1, 1 << 28), "as many as the tokenizer has", "50304", "rows of the embedding and the head, at least as many as the tokenizer has tokens; more of them, a multiple of 64 say, are faster on some devices"),
    key("model.tied", Form::Bool, "llama: false; gpt2: true", "false", "whether the output head is the embedding"),
    key("model.norm_eps", Form::Float(Excluded(0.0), Excluded(1.0)), "1e-5", "1e-5", "epsilon inside the norms"),
    key("model.rope_theta", Form::Float(Excluded(1.0), Unbounded), "10000.0", "10000.0", "base of the rotary frequencies (llama)"),
    key("model.init_std", Form::Float(Excluded(0.0), Included(10.0)), "0.02", "0.02", "standard deviation of the initial weights"),

    key("tokenizer", Form::Table, "", "{ kind = \"bytes\" }", "how text becomes tokens"),
    key("tokenizer.kind", Form::Word(&["bytes", "file", "model"]), "\"model\" with model.from, else \"bytes\"", "\"file\"", "bytes: 256 byte values and an end of text; file: a tokenizer.json; model: the one in model.from"),
    key("tokenizer.path", Form::Text, "", "\"tokenizer.json\"", "the tokenizer.json of kind = \"file\", relative to the current directory"),

    key("data", Form::Table, "", "{ path = \"corpus.txt\" }", "what is learned from"),
    key("data.source", Form::Word(&["text", "jsonl", "synthetic"]), "\"text\"", "\"text\"", "text: UTF-8 files; jsonl: rows, one JSON object a line, of the kind that the first objective learns from: prompt and completion, or messages; prompt, chosen and rejected (chosen and rejected alone where they are conversations that begin alike); prompt alone; prompt, completion and label; each a string or a list of messages, other keys being columns; synthetic: the generated world of small tasks, as running text or as rows, whichever the objective learns from"),
    key("data.path", Form::Texts, "", "\"corpus/*.txt\"", "text, jsonl: files, folders or globs, relative to the current directory"),
    key("data.held_out", Form::Float(Included(0.0), Excluded(1.0)), "0.1", "0.1", "text, jsonl: fraction kept from training for evaluation; of rows, those whose prompt's hash falls into it, so that a prompt is never on both sides (synthetic data holds out a tenth by itself)"),
    key("data.eval_path", Form::Texts, "", "\"valid.txt\"", "text, jsonl: files to evaluate on, instead of held_out; rows with one of their prompts are not trained on"),
    key("data.split_column", Form::Text, "", "\"split\"", "jsonl: column that says train, or test, validation, valid, val, dev, eval or held_out, instead of held_out"),
    key("data.group_column", Form::Text, "the prompt", "\"qid\"", "jsonl: column by whose hash rows are held out, so that rows with the same value stay together"),
    key("data.chat_template", Form::Text, "for messages the tokenizer's own, or \"plain\"; strings are joined as they are", "\"tokenizer\"", "jsonl: how rows are written, strings included: \"tokenizer\" (the tokenizer's own; \"tokenizer:NAME\" of several), \"plain\" (each message on a line, the end of text after the assistant's), a file of Jinja, or Jinja itself"),
    key("data.max_length", Form::Int(1, 1 << 24), "the model's context", "512", "jsonl: the most tokens of a row that the model reads (the last token of a completion is only predicted; of the answers of a pair and of prompts every token counts)"),
    key("data.truncation", Form::Word(&["right", "left", "drop"]), "completions: \"right\"; prompts alone: \"left\"; pairs and labelled answers: \"drop\"", "\"left\"", "jsonl: what becomes of longer rows. right (completions only): their end is cut off; left: the beginning of their prompt is cut off, of a pair the same on both sides; drop: they are dropped. Rows of which nothing can be learned any more are dropped and counted"),
    key("data.columns", Form::Table, "", "{ prompt = \"question\" }", "jsonl: what the file calls the columns that mean something here; its own column of such a name gives way"),
    key("data.columns.prompt", Form::Text, "\"prompt\"", "\"question\"", "what is asked"),
    key("data.columns.completion", Form::Text, "\"completion\"", "\"response\"", "what is to be answered"),
    key("data.columns.messages", Form::Text, "\"messages\"", "\"conversation\"", "whole conversations"),
    key("data.columns.chosen", Form::Text, "\"chosen\"", "\"better\"", "the better of two answers"),
    key("data.columns.rejected", Form::Text, "\"rejected\"", "\"worse\"", "the worse of two answers"),
    key("data.columns.label", Form::Text, "\"label\"", "\"liked\"", "whether an answer is desirable: true, false, 1 or 0"),
    key("data.columns.answer", Form::Text, "\"answer\"", "\"solution\"", "the right answer to a prompt, for evaluation and rewards"),
    key("data.columns.margin", Form::Text, "\"margin\"", "\"score_gap\"", "by how much the chosen answer is better"),
    key("data.rows", Form::Int(1, 1 << 32), "20000", "20000", "synthetic: how many examples are generated"),
    key("data.held_out_rows", Form::Int(1, 1 << 32), "a tenth of data.rows", "400", "synthetic: how many examples are held out; none of them shares its prompt with one to train on"),
    key("data.tasks", Form::Words(TASKS), "all", "[\"sort\", \"add\"]", "synthetic: which tasks"),
    key("data.equal_length", Form::Bool, "false", "true", "synthetic pairs: whether the two answers of every pair are equally long"),
    key("data.flawed", Form::Float(Included(0.0), Included(1.0)), "0.0", "0.25", "synthetic demonstrations: share whose answer is wrong or rambling, as people's are; those held out are right"),

    key("objective", Form::Plugins, "", "{ plugin = \"ce\" }", "what is minimised: one table, or several [[objective]]; further keys are options of the plugin"),
    key("objective.plugin", Form::Text, "", "\"ce\"", "id of the objective plugin"),
    key("objective.weight", FROM_ZERO, "1.0", "0.5", "factor of this objective in the sum"),

    key("objective.text", Form::Texts, "the world's, with synthetic data", "\"corpus/*.txt\"", "running text of its own, for an objective that learns from running text beside rows: a pre-training term"),
    key("objective.tokens", POSITIONS, "", "2048", "tokens of that text that a step sees"),

    key("reference", Form::Table, "the starting weights, where an objective reads it", "{ from = \"runs/sft\" }", "the frozen model that the policy is held to"),
    key("reference.from", Form::Text, "\"self\"", "\"self\"", "self: the policy's starting weights; or a run, a checkpoint or a Hugging Face folder"),
    key("reference.copy_every", POSITIVE_INT, "never", "100", "steps after which the policy's weights become the reference's, again and again"),
    key("reference.average", Form::Float(Included(0.0), Excluded(1.0)), "none", "0.99", "after every step the reference becomes so much of itself and the rest of the policy: a moving average"),

    key("critic", Form::Table, "", "{ from = \"policy\" }", "the model of values, where an objective reads them"),
    key("critic.from", Form::Text, "\"policy\"", "\"runs/reward\"", "policy: its starting weights with a scalar head that answers 0; shared: a scalar head on the policy's own trunk; or a run, a checkpoint or a folder, such as the reward model"),
    key("critic.lr", POSITIVE, "that of train.optimizer", "1e-4", "peak learning rate of a critic of its own"),

    key("reward", Form::Plugins, "", "{ plugin = \"length\" }", "what answers are worth: one table, or several [[reward]], whose weighted sum is the reward of rollouts; each is measured on the answers of eval.generate; further keys are options of the plugin"),
    key("reward.plugin", Form::Text, "", "\"world\"", "id of a reward plugin; this or model"),
    key("reward.model", Form::Text, "", "\"runs/reward\"", "a trained reward model: a run, a checkpoint or a Hugging Face folder; this or plugin"),
    key("reward.weight", Form::Float(Unbounded, Unbounded), "1.0", "0.5", "factor in the reward of rollouts; 0: only measured"),
    key("reward.normalise", Form::Bool, "false", "true", "with model: less the mean and over the standard deviation of scores that its training recorded"),
];

#[rustfmt::skip]
const AFTER: &[Key] = &[
    key("train", Form::Table, "", "{ steps = 500 }", "how it is minimised"),
    key("train.steps", ANY_INT, "", "500", "optimizer steps; this or epochs; 0: the model is only evaluated"),
    key("train.epochs", Form::Float(Excluded(0.0), Included(1e9)), "", "1", "passes over the training data, each row once a pass: the last step of each may be short; this or steps"),
    key("train.batch", Form::Table, "", "{ tokens = 8192 }", "what one optimizer step sees: tokens, sequences, pairs or prompts"),
    key("train.batch.tokens", POSITIONS, "", "8192", "tokens a step, in whole sequences or pairs; not for prompts alone"),
    key("train.batch.sequences", ROWS, "", "12", "sequences a step; not for pairs or prompts alone"),
    key("train.batch.pairs", ROWS, "", "32", "preference pairs a step"),
    key("train.batch.prompts", ROWS, "", "32", "prompts a step, where the policy answers them"),
    key("train.micro_batch_tokens", POSITIVE_INT, "16384, or one sequence where that is longer", "2048", "how a step is cut to save memory; never changes the result"),
    key("train.optimizer", Form::Table, "", "{ lr = 3e-4 }", "AdamW, or Muon for the layers' matrices"),
    key("train.optimizer.kind", Form::Word(&["adamw", "muon"]), "\"adamw\"", "\"muon\"", "muon orthogonalises the momentum of the layers' matrices and leaves the rest to AdamW, at the same learning rate"),
    key("train.optimizer.lr", POSITIVE, "", "3e-4", "peak learning rate"),
    key("train.optimizer.betas", Form::Betas, "[0.9, 0.95], of muon [0.95, 0.95]", "[0.9, 0.95]", "decay of the first and second moment; the first is muon's momentum"),
    key("train.optimizer.eps", POSITIVE, "1e-8", "1e-8", "epsilon in the denominator"),
    key("train.optimizer.weight_decay", FROM_ZERO, "0.0", "0.1", "decoupled decay of matrices, times the learning rate"),
    key("train.optimizer.clip", FROM_ZERO, "1.0", "1.0", "largest global gradient norm; 0 turns clipping off"),
    key("train.optimizer.groups", Form::Tables, "[]", "[{ match = \"*embed*\", lr_scale = 0.1 }]", "parameters with their own rate or decay; the first match counts"),
    key("train.optimizer.groups.match", Form::Text, "", "\"*embed*\"", "glob on the parameter's name"),
    key("train.optimizer.groups.lr_scale", FROM_ZERO, "1.0", "0.1", "factor on the learning rate; 0 freezes"),
    key("train.optimizer.groups.weight_decay", FROM_ZERO, "that of the optimizer", "0.0", "decay of this group, vectors included"),
    key("train.schedule", Form::WordOrTable(SCHEDULES), "\"constant\"", "\"cosine\"", "learning rate over the run: a word, or a table with the keys below"),
    key("train.schedule.kind", Form::Word(SCHEDULES), "\"constant\"", "\"cosine\"", "constant, linear (to the floor), cosine (to the floor), wsd (warm-up, stable, linear decay), inverse_sqrt (root of warm-up over step)"),
    key("train.schedule.warmup", Form::Span, "0", "0.1", "linear warm-up from 0: steps (integer) or fraction of the run (number below 1)"),
    key("train.schedule.min_lr_ratio", Form::Float(Included(0.0), Included(1.0)), "0.0", "0.1", "floor as a fraction of lr (linear, cosine, wsd, inverse_sqrt)"),
    key("train.schedule.decay", Form::Span, "0.2", "0.2", "length of the last phase of wsd: steps or fraction"),
    key("train.warmup", Form::Span, "0", "0.1", "short for train.schedule.warmup"),
    key("train.context_schedule", Form::Lengths, "the model's context throughout", "[[0, 128], [300, 256]]", "length of training sequences from a step on, as [step, tokens]"),
    key("train.recompute", Form::Word(&["none", "auto", "all"]), "\"none\"", "\"auto\"", "which activations are computed again in the backward pass instead of kept; never changes the result"),
    key("train.max_bad_steps", Form::Int(1, 1_000_000), "5", "5", "steps in a row with a non-finite loss or gradient before the run stops; each is refused and counted"),

    key("eval", Form::Table, "", "{ every = 50 }", "held-out evaluation"),
    key("eval.every", ANY_INT, "0", "50", "steps between evaluations; 0: only before and after the run"),
    key("eval.tokens", ANY_INT, "0", "100000", "held-out tokens used; 0: all"),
    key("eval.generate", POSITIVE_INT, "none", "200", "rows: so many held-out prompts are answered, always by the most probable token, and eval/exact_match says how many answers are the rows' own (of pairs the chosen ones, of prompts alone the column `answer`)"),
    key("eval.samples", Form::Int(1, 65536), "1", "8", "rows: answers drawn to each of these prompts for eval/pass@k, at eval.temperature, with the top_p and top_k of the rollout where there is one"),
    key("eval.pass_at", Form::Ints(1, 65536), "[1, samples] where samples is above 1, else none", "[1, 4]", "each k of eval/pass@k: the chance that of k answers to a prompt at least one is the row's own, estimated without bias from eval.samples answers, over the prompts whose rows have an answer; rewards do not count"),
    key("eval.temperature", Form::Float(Included(0.0), Included(100.0)), "that of the rollout, else 1.0", "0.0", "of the answers that [[reward]] measures and eval.samples draws; 0 takes the most probable token"),
    key("eval.early_stop", Form::Table, "", "{ patience = 5 }", "stop when the metric no longer gets better"),
    key("eval.early_stop.metric", Form::Text, "\"min:eval/loss\"; of rollouts \"max:eval/reward\"", "\"min:eval/loss\"", "metric watched, after min: or max: (a loss needs neither)"),
    key("eval.early_stop.patience", Form::Int(1, 1_000_000), "3", "5", "evaluations without improvement before the run stops"),
    key("eval.early_stop.min_delta", FROM_ZERO, "0.0", "0.001", "improvement that counts"),

    key("checkpoint", Form::Table, "", "{ every = 100 }", "what is saved; the end of a run and Ctrl-C always save"),
    key("checkpoint.every", ANY_INT, "200", "100", "steps between checkpoints; 0: only at the end"),
    key("checkpoint.keep", Form::Int(1, 1_000_000), "3", "3", "how many of the newest stay; the best stays besides"),
    key("checkpoint.best", Form::Text, "\"min:eval/loss\" where eval.every is set; of rollouts with eval.generate \"max:eval/reward\"", "\"min:eval/loss\"", "metric by which the best checkpoint is kept, after min: or max: (a loss needs neither)"),

    key("sample", Form::Table, "", "{ prompts = [\"Once\"] }", "text generated during training"),
    key("sample.every", ANY_INT, "0", "100", "steps between samples; 0: only after the run"),
    key("sample.prompts", Form::Texts, "", "[\"Once upon\"]", "prompts to continue"),
    key("sample.max_tokens", Form::Int(1, 1 << 24), "64", "64", "longest continuation in tokens"),
    key("sample.temperature", Form::Float(Included(0.0), Included(100.0)), "1.0", "0.8", "softmax temperature; 0 takes the most probable token"),
    key("sample.top_p", Form::Float(Excluded(0.0), Included(1.0)), "1.0", "0.95", "smallest set of tokens with this probability; 1 means all"),
    key("sample.top_k", Form::Int(0, 1 << 24), "0", "50", "the k most probable tokens; 0 means all"),
    key("sample.seed", Form::Int(0, i64::MAX), "that of the experiment", "7", "seed of the draws"),
];

const PARTS: &[&[Key]] = &[BEFORE, rollout::Written::KEYS, AFTER];
const ALL: [Key; count(PARTS)] = joined(PARTS);
/// Every key, parents before children.
pub const KEYS: &[Key] = &ALL;

/// The key at `path`.
pub fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// The names directly below `parent` (empty: the root).
pub fn children(parent: &str) -> impl Iterator<Item = &'static str> + Clone {
    KEYS.iter().filter_map(move |key| {
        let below = if parent.is_empty() { key.path } else { key.path.strip_prefix(parent)?.strip_prefix('.')? };
        (!below.contains('.')).then_some(below)
    })
}

/// All paths whose last name is `leaf`.
pub fn paths_of(leaf: &str) -> Vec<&'static str> {
    KEYS.iter().map(|key| key.path).filter(|path| path.rsplit('.').next() == Some(leaf)).collect()
}

/// The reference's text on pipelines, whose stages take the keys above.
const STAGES: &str = "
stage
    makes the file a pipeline: each [[stage]] takes the keys above, extends or replaces what stands above the stages, and is a
    run in runs_dir/NAME/STAGE
    a list of tables
stage.name
    name of the stage: letters, digits, `-`, `_`; \"stage:NAME\" as a value of a later stage (model.from) is its last
    checkpoint, \"stage:NAME/best\" its best
    a string (not empty)
";

/// Returns the reference that `telos run --help-keys` prints: every key with form, default and meaning.
pub fn reference() -> String {
    let mut text = String::new();
    for key in KEYS {
        let depth = key.path.matches('.').count();
        if depth == 0 {
            text.push('\n');
        }
        let default = if key.default.is_empty() { String::new() } else { format!("; default {}", key.default) };
        text.push_str(&format!("{}\n    {}\n    {}{default}\n", key.path, key.meaning, key.form.expected()));
    }
    text.push_str(STAGES);
    text.trim_start().to_owned()
}
