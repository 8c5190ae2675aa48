//! Resolves a parsed experiment: fills in defaults and checks rules between keys.
//!
//! Checking does not stop at the first mistake. A missing or contradictory value is recorded as a mistake and
//! replaced by a placeholder; the result is valid only if no mistake was recorded.

mod data;
mod pass_at;
mod roles;
mod train;

use super::experiment::*;
use super::tables::roles::rollout;
use super::written::{self, Written};
use crate::data::rows::RowKind;
use crate::keys::notes::Notes;
use crate::keys::tree::keys_of;
use crate::runs::folder::own_file;

/// Returns the experiment without the plugins' options, which are checked once the plugins are loaded. It is valid
/// only if `notes` contains no mistake.
pub fn resolve(written: Written, stem: &str, notes: &mut Notes<'_>) -> Experiment {
    let seed = written.seed.unwrap_or(0);
    let model = model(written.model, notes);
    let data = data::data(written.data, notes);
    let rollout = written.rollout.and_then(|rollout| rollout::resolve(rollout, notes));
    let eval = eval(written.eval, &data, rollout.as_ref(), notes);
    let context = match &model {
        Model::Shape(shape) => Some(shape.context),
        Model::From { .. } => None,
    };
    let context = data::check_max_length(&data, context, notes);
    let checkpoint = checkpoint(written.checkpoint, &eval, rollout.as_ref(), notes);
    Experiment {
        name: name(written.name, stem, notes),
        seed,
        runs_dir: written.runs_dir.unwrap_or_else(|| "runs".to_owned()),
        backend: backend(written.backend, notes),
        tokenizer: tokenizer(written.tokenizer, &model, notes),
        objective: objectives(written.objective, notes),
        reference: written.reference.map(|reference| roles::reference(reference, notes)),
        critic: written.critic.map(|critic| roles::critic(critic, notes)),
        reward: roles::rewards(written.reward, notes),
        rollout,
        train: train::train(written.train, context, notes),
        checkpoint,
        sample: written.sample.and_then(|sample| self::sample(sample, seed, notes)),
        model,
        data,
        eval,
    }
}

fn name(written: Option<String>, stem: &str, notes: &mut Notes<'_>) -> String {
    let from_file = written.is_none();
    let name = written.unwrap_or_else(|| stem.to_owned());
    // A stage's run is in its pipeline's folder: `pipeline/stage`.
    let (folder, within) = name.split_once('/').unwrap_or((&name, "x"));
    if !is_folder_name(folder) || !is_folder_name(within) {
        let whose = if from_file { "taken from the file, " } else { "" };
        let rule = "letters, digits, `-`, `_`, `.`, and no `.` or `-` in front";
        let shown = name.escape_debug();
        notes.refuse(
            "name",
            format!("{whose}\"{shown}\" is no plain folder name ({rule}); for example name = \"my-run\""),
        );
    } else if let Some(own) = own_file(folder) {
        let whose = if from_file { "taken from the file, " } else { "" };
        let what = format!(
            "{whose}\"{folder}\" is a name that Telos gives to a file of its own ({own}); for example name = \"my-run\""
        );
        notes.refuse("name", what);
    }
    name
}

/// Whether this is a single folder name, without parent folders, that can be given on a command line.
pub fn is_folder_name(name: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.len() <= 120 && !name.starts_with(['.', '-']) && name.chars().all(plain)
}

fn backend(written: written::Backend, notes: &Notes<'_>) -> Backend {
    // Without an id, no plugin is loaded, so options are not checked against a plugin that was not meant.
    let default = if notes.reported("backend.plugin") { "" } else { "candle" };
    Backend {
        plugin: written.plugin.unwrap_or_else(|| default.to_owned()),
        device: written.device.unwrap_or_else(|| "cpu".to_owned()),
        dtype: written.dtype.unwrap_or(Dtype::F32),
        threads: written.threads.unwrap_or(0),
        options: Default::default(),
    }
}

fn model(written: Option<written::Model>, notes: &mut Notes<'_>) -> Model {
    let Some(written) = written else {
        notes.missing("model", "give from = \"a folder\", or a shape: layers, dim, heads, context");
        return Model::From { from: String::new() };
    };
    let Some(from) = written.from.clone() else {
        return Model::Shape(shape(written, notes));
    };
    let why = "model.from brings its own shape; remove this key or model.from";
    notes.unused("model.arch", &written.arch, why);
    notes.unused("model.layers", &written.layers, why);
    notes.unused("model.dim", &written.dim, why);
    notes.unused("model.heads", &written.heads, why);
    notes.unused("model.kv_heads", &written.kv_heads, why);
    notes.unused("model.hidden", &written.hidden, why);
    notes.unused("model.context", &written.context, why);
    notes.unused("model.vocab", &written.vocab, why);
    notes.unused("model.tied", &written.tied, why);
    notes.unused("model.norm_eps", &written.norm_eps, why);
    notes.unused("model.rope_theta", &written.rope_theta, why);
    notes.unused(
        "model.init_std",
        &written.init_std,
        "model.from brings its own weights; remove this key or model.from",
    );
    Model::From { from }
}

fn shape(written: written::Model, notes: &mut Notes<'_>) -> Shape {
    let mut needed = |key: &str, value: Option<usize>, example: &str| {
        if value.is_none() && !notes.reported("model.from") {
            notes.missing(
                key,
                &format!("a model with fresh weights needs it (for example {example}), or give model.from"),
            );
        }
        value
    };
    let layers = needed("model.layers", written.layers, "layers = 4");
    let dim = needed("model.dim", written.dim, "dim = 128");
    let heads = needed("model.heads", written.heads, "heads = 4");
    let context = needed("model.context", written.context, "context = 256");
    let arch = written.arch.unwrap_or_default();
    if let (Some(dim), Some(heads)) = (dim, heads) {
        if dim % heads != 0 {
            notes.refuse("model.dim", format!("{dim} is no multiple of heads = {heads}"));
        } else if arch == Arch::Llama && (dim / heads) % 2 != 0 {
            let message = format!("dim / heads = {} is odd; rotary positions turn pairs of numbers", dim / heads);
            notes.refuse("model.dim", message);
        }
    }
    if arch == Arch::Gpt2 {
        notes.unused("model.kv_heads", &written.kv_heads, "arch = \"gpt2\" has as many key and value heads as heads");
        notes.unused("model.rope_theta", &written.rope_theta, "arch = \"gpt2\" learns its positions");
    } else if let (Some(heads), Some(kv_heads)) = (heads, written.kv_heads)
        && heads % kv_heads != 0
    {
        notes.refuse("model.kv_heads", format!("{kv_heads} does not divide heads = {heads}"));
    }
    let (dim, heads) = (dim.unwrap_or(1), heads.unwrap_or(1));
    let llama = arch == Arch::Llama;
    Shape {
        arch,
        layers: layers.unwrap_or(1),
        dim,
        heads,
        kv_heads: llama.then(|| written.kv_heads.unwrap_or(heads)),
        hidden: written.hidden.unwrap_or(if llama { (8 * dim).div_ceil(3).next_multiple_of(32) } else { 4 * dim }),
        context: context.unwrap_or(usize::MAX),
        vocab: written.vocab,
        tied: written.tied.unwrap_or(!llama),
        norm_eps: written.norm_eps.unwrap_or(1e-5),
        rope_theta: llama.then(|| written.rope_theta.unwrap_or(10_000.0)),
        init_std: written.init_std.unwrap_or(0.02),
    }
}

fn tokenizer(written: written::Tokenizer, model: &Model, notes: &mut Notes<'_>) -> Tokenizer {
    let has_model = matches!(model, Model::From { .. });
    let kind = written.kind.as_deref().unwrap_or(if has_model { "model" } else { "bytes" });
    if kind != "file" && !notes.reported("tokenizer.kind") {
        let why = format!("only kind = \"file\" reads a file, and kind is \"{kind}\"");
        notes.unused("tokenizer.path", &written.path, &why);
    }
    match kind {
        "file" => {
            if written.path.is_none() {
                notes.missing("tokenizer.path", "kind = \"file\" reads it; for example path = \"tokenizer.json\"");
            }
            Tokenizer::File { path: written.path.unwrap_or_default() }
        }
        "model" => {
            if !has_model {
                notes.refuse("tokenizer.kind", "\"model\" takes the tokenizer of model.from, which is not given");
            }
            Tokenizer::Model
        }
        _ => Tokenizer::Bytes,
    }
}

fn objectives(written: Vec<written::Objective>, notes: &mut Notes<'_>) -> Vec<Objective> {
    if written.is_empty() {
        notes.missing("objective", "what is minimised? for example [objective] with plugin = \"ce\"");
    }
    let keys = keys_of("objective", notes.root, written.len());
    let mut resolved = Vec::new();
    for (objective, key) in written.into_iter().zip(keys) {
        if objective.plugin.is_none() {
            notes.missing(&format!("{key}.plugin"), "which objective? for example plugin = \"ce\"");
        }
        let (plugin, weight) = (objective.plugin.unwrap_or_default(), objective.weight.unwrap_or(1.0));
        let (text, tokens) = (objective.text, objective.tokens);
        resolved.push(Objective { plugin, weight, text, tokens, options: Default::default() });
    }
    if !resolved.is_empty() && resolved.iter().all(|objective| objective.weight == 0.0) {
        notes.refuse("objective", "every weight is 0: there is nothing to minimise");
    }
    resolved
}

fn eval(written: written::Eval, data: &Data, rollout: Option<&Rollout>, notes: &mut Notes<'_>) -> Eval {
    let every = written.every.unwrap_or(0);
    let nothing_held_out = !data.source().holds_out();
    if nothing_held_out && every > 0 {
        notes.refuse("eval.every", "unused: data.held_out = 0 leaves nothing to evaluate on");
    }
    if nothing_held_out && written.tokens.is_some_and(|tokens| tokens > 0) {
        notes.refuse("eval.tokens", "unused: data.held_out = 0 leaves nothing to evaluate on");
    }
    if nothing_held_out {
        notes.unused("eval.generate", &written.generate, "data.held_out = 0 leaves nothing to evaluate on");
    } else if !data.source().has_rows(RowKind::PromptCompletion) {
        notes.unused("eval.generate", &written.generate, "running text has no completions to compare with");
    }
    if every == 0 && written.early_stop.is_some() && !notes.reported("eval.every") {
        notes.refuse("eval.early_stop", "unused without eval.every; for example every = 50");
    }
    let usual = usual_metric(rollout, written.generate);
    if usual.is_none() && written.early_stop.as_ref().is_some_and(|stop| stop.metric.is_none()) {
        notes.missing(
            "eval.early_stop.metric",
            "rollouts have no held-out loss; eval.generate = 200 measures \"max:eval/reward\"",
        );
    }
    let early_stop = written.early_stop.map(|stop| EarlyStop {
        metric: rule(stop.metric.as_deref().or(usual), "eval.early_stop.metric", notes),
        patience: stop.patience.unwrap_or(3),
        min_delta: stop.min_delta.unwrap_or(0.0),
    });
    if written.generate.is_none() && !notes.reported("eval.generate") {
        notes.unused("eval.temperature", &written.temperature, "without eval.generate nothing is answered");
    }
    let temperature = written.temperature.unwrap_or(rollout.map_or(1.0, |rollout| rollout.temperature));
    let pass = pass_at::pass_at(written.samples, written.pass_at, written.generate, temperature, notes);
    Eval {
        every,
        tokens: written.tokens.unwrap_or(0),
        generate: written.generate,
        temperature: written.generate.map(|_| temperature),
        pass,
        early_stop,
    }
}

/// The default metric: the held-out loss. A policy that learns from its own answers has none, so the default is the
/// reward of its answers to held-out prompts, if it generates any.
fn usual_metric(rollout: Option<&Rollout>, generate: Option<u64>) -> Option<&'static str> {
    match (rollout, generate) {
        (None, _) => Some("eval/loss"),
        (Some(_), Some(_)) => Some("max:eval/reward"),
        (Some(_), None) => None,
    }
}

fn rule(written: Option<&str>, key: &str, notes: &mut Notes<'_>) -> MetricRule {
    let parsed = MetricRule::parse(written.unwrap_or("eval/loss"));
    parsed.unwrap_or_else(|message| {
        notes.refuse(key, message);
        MetricRule { metric: String::new(), larger_is_better: false }
    })
}

fn checkpoint(
    written: written::Checkpoint,
    eval: &Eval,
    rollout: Option<&Rollout>,
    notes: &mut Notes<'_>,
) -> Checkpoint {
    let usual = usual_metric(rollout, eval.generate).filter(|_| eval.every > 0);
    let best = written.best.as_deref().or(usual).map(|metric| rule(Some(metric), "checkpoint.best", notes));
    if let Some(rule) = &best
        && rule.metric.starts_with("eval/")
        && eval.every == 0
        && !notes.reported("eval.every")
    {
        notes.refuse(
            "checkpoint.best",
            format!("unused: \"{}\" is measured only with eval.every; for example every = 50", rule.metric),
        );
    }
    Checkpoint { every: written.every.unwrap_or(200), keep: written.keep.unwrap_or(3), best }
}

fn sample(written: written::Sample, seed: u64, notes: &mut Notes<'_>) -> Option<Sample> {
    let Some(prompts) = written.prompts else {
        notes.missing("sample.prompts", "without it nothing is sampled; for example prompts = [\"Once upon\"]");
        return None;
    };
    let temperature = written.temperature.unwrap_or(1.0);
    let (top_p, top_k) = (written.top_p.unwrap_or(1.0), written.top_k.unwrap_or(0));
    if temperature == 0.0 {
        let why = "temperature = 0 always takes the most probable token";
        notes.unused("sample.top_p", &(top_p < 1.0).then_some(top_p), why);
        notes.unused("sample.top_k", &(top_k > 0).then_some(top_k), why);
    }
    Some(Sample {
        every: written.every.unwrap_or(0),
        prompts,
        max_tokens: written.max_tokens.unwrap_or(64),
        temperature,
        top_p,
        top_k,
        seed: written.seed.unwrap_or(seed),
    })
}
