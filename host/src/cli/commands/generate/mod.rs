//! `telos generate`: a prompt on the terminal, or files of prompts.

mod prompts;

use std::cell::RefCell;
use std::fmt;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use clap::{ArgGroup, Args};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    capacity,
    cli::{
        args::{BackendArgs, SamplingArgs, at_least_one, column},
        print,
    },
    error::{Error, Result},
    generate::{Completion, Drawn, Extent, GenerateOptions, Generation, SLOTS, generate},
    inference::{batch::PromptsToAnswer, saved_model::Opened},
};

/// Continue a prompt with a model, or answer a file of prompts.
///
/// With --prompts, FILE has a row in each line: a `prompt` (a text or a list of messages), or
/// `messages`, a conversation of which the model gives the last answer. Rows are answered in
/// batches. OUT gets a row for each answer, in the order of the prompts: all columns of the
/// prompt's row, and `completion`, `completion_ended`, `completion_tokens` and `finish`. A
/// `completion` that the row had, or the last answer of its conversation, becomes `reference`.
/// OUT can be trained on and evaluated. Rows of prompts that are too long have null as
/// completion: evaluations skip them; remove them before training:
/// jq -c 'select(.completion != null)'. An interrupted command continues where OUT ends, if its
/// rows answer the same prompts; answers.summary.json has the settings, the counts of all rows
/// of answers.jsonl, and the speed of the last command. A chat template that prints the date
/// prints today's; rows that are continued keep the date of the first ones.
///
///     telos generate MODEL --prompts questions.jsonl --out answers.jsonl --samples 4
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, group = ArgGroup::new("input").required(true).args(["prompt", "prompts"]))]
pub struct Generate {
    /// A run, a checkpoint, a Hugging Face folder, a GGUF file or a model of the hub (hf:org/name).
    model: PathBuf,
    /// The text to continue.
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Prompts to answer: files with a row in each line, folders or globs.
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "out")]
    prompts: Vec<String>,
    /// With --prompts: the file of answers. If an interrupted command with the same options left it, it is continued.
    #[arg(long, value_name = "FILE.jsonl", requires = "prompts")]
    out: Option<PathBuf>,
    /// With --prompts: "plain", "tokenizer", "tokenizer:NAME" (one of several) or a Jinja file; default: the tokenizer's template
    /// for messages, none for strings.
    #[arg(long, value_name = "TEMPLATE", requires = "prompts")]
    chat_template: Option<String>,
    /// With --prompts: a column that has another name in the file, as data.columns does: --column prompt=question.
    #[arg(long, value_name = "KEY=NAME", requires = "prompts", value_parser = column)]
    column: Vec<(String, String)>,
    /// With --prompts: answers that are generated at the same time. More are faster and take more memory; they change no answer
    /// beyond the backend's rounding. Default: 64.
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    batch: Option<usize>,
    /// Longest continuation in tokens.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = at_least_one)]
    max_tokens: usize,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Number of continuations of each prompt; they are sampled in one batch, and the prompt is computed once.
    #[arg(long, visible_alias = "n", value_name = "N", default_value_t = 1, value_parser = samples)]
    samples: usize,
    #[command(flatten)]
    backend: BackendArgs,
    /// Print prompt, text, tokens, log-probabilities and speed as JSON; with --prompts, the counts. Log-probabilities are those of
    /// the softmax after --temperature (at 1 if it is 0), before --top-k and --top-p.
    #[arg(long)]
    json: bool,
    /// With --json: also the logits after the prompt, one for each token of the vocabulary.
    #[arg(long, requires_all = ["json", "prompt"])]
    logits: bool,
}

/// The request of `telos generate`.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateRequest {
    /// The model's folder.
    pub model: PathBuf,
    /// The text to continue.
    pub prompt: String,
    /// How tokens are drawn.
    pub options: GenerateOptions,
    /// Number of continuations, at least 1.
    pub samples: usize,
    /// The backend.
    pub backend: BackendArgs,
    /// Where to look for plugins.
    pub plugin_folders: Vec<PathBuf>,
    /// Whether the answer is printed as JSON.
    pub json: bool,
    /// Whether it includes the logits after the prompt.
    pub logits: bool,
}

pub(in crate::cli) fn execute(args: Generate, plugin_folders: Vec<PathBuf>) -> Result<()> {
    let options = args.sampling.options(args.max_tokens)?;
    check_flags(&args)?;
    if let Some(out) = args.out {
        let wanted = PromptsToAnswer {
            paths: args.prompts,
            out,
            chat_template: args.chat_template,
            columns: args.column.into_iter().collect(),
            samples: args.samples,
            options,
            batch: args.batch.unwrap_or(SLOTS),
        };
        return prompts::answer(&args.model, &wanted, &args.backend, plugin_folders, args.json);
    }
    perform(GenerateRequest {
        model: args.model,
        prompt: args.prompt.unwrap_or_default(),
        options,
        samples: args.samples,
        backend: args.backend,
        plugin_folders,
        json: args.json,
        logits: args.logits,
    })
}

/// Refuses flags that have no effect: clap does not require an argument that conflicts with another.
fn check_flags(args: &Generate) -> Result<()> {
    let of_prompts = [
        ("--out", args.out.is_some()),
        ("--chat-template", args.chat_template.is_some()),
        ("--column", !args.column.is_empty()),
        ("--batch", args.batch.is_some()),
    ];
    let (flags, input): (&[_], _) =
        if args.prompts.is_empty() { (&of_prompts, "--prompts") } else { (&[("--logits", args.logits)], "--prompt") };
    match flags.iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((flag, _)) => {
            Err(Error::request(format!("{flag} is for {input}"))
                .with_hint(format!("leave {flag} out, or give {input}")))
        }
    }
}

/// Generates and prints the text: a single continuation while it is sampled, several when they are complete.
fn perform(request: GenerateRequest) -> Result<()> {
    let opened = Opened::open(&request.model, &request.backend.choice(request.plugin_folders.clone()))?;
    let ids = opened.tokenizer.encode_input(&request.prompt)?;
    let prompt: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
    check_samples(&request, prompt.len(), opened.model.config().context)?;
    if request.json {
        return print::json(&to_json(&request, &opened, &ids, &prompt)?);
    }
    if request.samples == 1 {
        if let Some(speed) = stream(&request, &opened, &ids, prompt)? {
            print::err(&speed.to_string());
        }
        return Ok(());
    }
    let (completions, speed) = timed(|| continue_prompt(&request, &opened, &prompt))?;
    for (number, completion) in completions.iter().enumerate() {
        let text = text_of(&opened, &ids, completion)?;
        print::out(&format!("--- {} of {}: {}\n", number + 1, request.samples, completion.finish.as_str()))?;
        print::out(&format!("{}{text}\n", request.prompt))?;
    }
    print::err(&speed.to_string());
    Ok(())
}

/// How fast text was generated, including the prompt's forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Speed {
    /// Sampled tokens, of all continuations together.
    new_tokens: usize,
    /// Seconds from the prompt to the last token.
    seconds: f64,
    /// Tokens per second.
    tokens_per_s: f64,
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Speed { new_tokens, seconds, tokens_per_s } = self;
        writeln!(f, "{new_tokens} new tokens in {seconds:.3} s, {tokens_per_s:.1} tokens/s")
    }
}

/// What `draw` returns, and how fast it was.
fn timed(draw: impl FnOnce() -> Result<Vec<Completion>>) -> Result<(Vec<Completion>, Speed)> {
    let start = Instant::now();
    let completions = draw()?;
    let seconds = start.elapsed().as_secs_f64();
    let new_tokens = completions.iter().map(|completion| completion.tokens.len()).sum();
    Ok((completions, Speed { new_tokens, seconds, tokens_per_s: new_tokens as f64 / seconds.max(1e-9) }))
}

/// Refuses more continuations than fit in memory: each needs the prompt, and its tokens with their
/// log-probabilities.
fn check_samples(request: &GenerateRequest, prompt: usize, context: u64) -> Result<()> {
    let room = context.saturating_sub(prompt as u64).min(request.options.max_tokens as u64);
    let bytes = (request.samples as u64).saturating_mul(128 + 4 * prompt as u64 + 12 * room);
    capacity::check(bytes).map_err(|why| {
        Error::request(format!("--samples {}, with up to {room} tokens each: {why}", request.samples))
            .with_hint("lower --samples or --max-tokens")
    })
}

fn continue_prompt(request: &GenerateRequest, opened: &Opened, prompt: &[i32]) -> Result<Vec<Completion>> {
    generate(&opened.model, &vec![prompt.to_vec(); request.samples], &request.options, &mut |_| {})
}

/// A continuation's text. The prompt is decoded too, because a token's text depends on what precedes it.
fn text_of(opened: &Opened, prompt: &[u32], completion: &Completion) -> Result<String> {
    let ids: Vec<u32> = completion.tokens.iter().map(|id| *id as u32).collect();
    Ok(opened.tokenizer.continuation(prompt, &ids)?)
}

/// Prints prompt and continuation while they are generated. `None`: the reader has closed the pipe, so that the rest was not
/// generated.
fn stream(request: &GenerateRequest, opened: &Opened, ids: &[u32], prompt: Vec<i32>) -> Result<Option<Speed>> {
    let decoder = RefCell::new(opened.tokenizer.stream(true));
    // Prints the text that a token completes.
    let show = |id: u32| -> Result<ControlFlow<()>> { print::stream(&decoder.borrow_mut().push(id)?) };
    for id in ids {
        if show(*id)?.is_break() {
            return Ok(None);
        }
    }
    let printed = RefCell::new(Ok(ControlFlow::Continue(())));
    let mut on_token = |drawn: Drawn| {
        let mut printed = printed.borrow_mut();
        if matches!(*printed, Ok(ControlFlow::Continue(()))) {
            *printed = show(drawn.token as u32);
        }
    };
    let (_, speed) = timed(|| {
        let (prompts, mut completions) = ([prompt], Vec::new());
        let mut generation = Generation::new(&opened.model, &prompts, &request.options, Extent::all(1), &mut on_token)?;
        while !generation.is_done() && matches!(*printed.borrow(), Ok(ControlFlow::Continue(()))) {
            completions.extend(generation.advance()?.into_iter().map(|(_, completion)| completion));
        }
        Ok(completions)
    })?;
    if printed.into_inner()?.is_break() {
        return Ok(None);
    }
    let rest = decoder.into_inner().finish()? + "\n";
    Ok(print::stream(&rest)?.is_continue().then_some(speed))
}

/// Prompt and continuations as JSON: a single continuation next to the prompt, several as `samples`.
fn to_json(request: &GenerateRequest, opened: &Opened, ids: &[u32], prompt: &[i32]) -> Result<Value> {
    let logits = if request.logits { Some(opened.next_logits(prompt)?) } else { None };
    let mut answer = Map::new();
    answer.insert("prompt".into(), request.prompt.clone().into());
    answer.insert("prompt_tokens".into(), ids.into());
    let mut samples = Vec::new();
    let (completions, speed) = timed(|| continue_prompt(request, opened, prompt))?;
    for completion in completions {
        let mut sample = Map::new();
        sample.insert("text".into(), text_of(opened, ids, &completion)?.into());
        sample.insert("tokens".into(), completion.tokens.into());
        sample.insert("logprobs".into(), completion.logps.into());
        sample.insert("finish".into(), completion.finish.as_str().into());
        samples.push(sample);
    }
    if request.samples == 1 {
        answer.extend(samples.into_iter().flatten());
    } else {
        answer.insert("samples".into(), samples.into_iter().map(Value::Object).collect());
    }
    answer.insert("speed".into(), serde_json::to_value(speed).unwrap_or_default());
    if let Some(logits) = logits {
        answer.insert("logits".into(), logits.into());
    }
    Ok(Value::Object(answer))
}

fn samples(text: &str) -> Result<usize, String> {
    let valid = text.parse().ok().filter(|count| (1..=1 << 24).contains(count));
    valid.ok_or_else(|| "expected an integer from 1 to 16777216".to_owned())
}
