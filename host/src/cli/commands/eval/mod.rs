//! `telos eval`.

mod display;

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{
    cli::{
        args::{BackendArgs, SamplingArgs, at_least_one, column},
        out::check_new,
        print,
    },
    config::Override,
    data::rows::kind::CHOICES,
    error::{Error, Result},
    inference::{
        evaluate_rows::RowsToEvaluate,
        saved_model::Opened,
        settings::{of_model, summary_path, write_summary},
        tasks::{
            checked::{Check, Checker},
            choices::ChoicesToEvaluate,
            win_rate::AnswersToCompare,
        },
    },
    runs::disk::write_durably,
};

/// Evaluate a model on text, on rows, by multiple choice, or by its answers.
///
/// Figures have standard errors. --out FILE keeps what they are made of.
///
/// --data: nats per token, perplexity, bits per byte and token accuracy of running text, in
/// total and for each document, with and without the end-of-text token. A document that is
/// longer than the context is cut into windows; each begins with the beginning-of-text token
/// if the tokenizer begins inputs with one.
///
///     telos eval MODEL --data wiki.txt
///
/// --rows: the loss of rows' completions (of conversations: of the tokens that training
/// learns), and exact match of greedy answers. With --reward, a reward plugin checks the
/// answers instead. Rows that `telos generate` left without an answer are skipped and counted.
/// Exact match compares whole answers, without surrounding white space; they are generated up
/// to the length of the longest expected answer. `exact` extracts them with a regular expression, of which the last match
/// counts: the last number, for example, or what follows ####. An answer passes if its score
/// is at least 1; pass@K is the unbiased estimate of Chen et al. (2021).
///
///     telos eval MODEL --rows held-out.jsonl --out answers.jsonl
///     telos eval MODEL --rows gsm8k.jsonl --reward exact --option numeric=true \
///         --option 'pattern=-?[0-9][0-9,]*\.?[0-9]*'
///     telos eval MODEL --rows gsm8k.jsonl --reward exact --samples 16 --pass-at 1 8 \
///         --option 'pattern=#### (.+)' --option 'answer_pattern=#### (.+)'
///
/// --choices: multiple choice by log-probability. A row has a `prompt` (or `question`),
/// `choices` (a list of texts, or an object with the lists `text` and `label`) and `answer`:
/// an index from 0, a label, a choice's text or a letter; where labels are integers, an integer
/// is a label. Three accuracies are reported: by the sum of the choice's log-probabilities (acc of lm-evaluation-harness), by their sum per
/// token, and by their sum per character (acc_norm). Without a template a space is put between
/// prompt and choice, unless one of them has white space there. Only a choice's own tokens
/// count: not what a template writes behind it, but white space that it writes before it.
///
///     telos eval MODEL --choices arc.jsonl --column answer=answerKey
///
/// --answers: how often a reward model prefers the first of two files of answers to the same
/// prompts: rows with `completion`, as `telos generate --prompts` writes them, or with `answer`
/// and `expected`, as `telos eval --rows --out` does. Pairs without an answer that can be scored
/// are left out and counted.
///
///     telos eval REWARD_MODEL --answers new.jsonl old.jsonl
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    group = ArgGroup::new("input").required(true).args(["data", "rows", "choices", "answers"])
)]
pub struct Eval {
    /// A run, a checkpoint, a Hugging Face folder, a GGUF file or a model of the hub (hf:org/name).
    model: PathBuf,
    /// Running text: UTF-8 files, folders or globs.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    data: Vec<String>,
    /// Rows with prompts and completions, or conversations: the loss of the completions, and greedy answers compared with them.
    /// For prompts with a column `answer`, only the answers are compared.
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "data")]
    rows: Vec<String>,
    /// Questions with choices.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    choices: Vec<String>,
    /// Two files of answers to the same prompts; MODEL is a reward model.
    #[arg(long, value_names = ["FILE", "FILE"], num_args = 2)]
    answers: Vec<String>,
    /// "plain", "tokenizer", "tokenizer:NAME" (one of several) or a Jinja file; default: the tokenizer's template for messages,
    /// none for strings.
    #[arg(long, value_name = "TEMPLATE")]
    chat_template: Option<String>,
    /// With --rows or --choices: a column that has another name in the file, as data.columns does: --column answer=solution.
    #[arg(long, value_name = "KEY=NAME", value_parser = evaluated_column)]
    column: Vec<(String, String)>,
    /// With --rows: what follows each segment of a completion that is a list of texts, as data.segment_separator does;
    /// default: a line break.
    #[arg(long, value_name = "TEXT")]
    segment_separator: Option<String>,
    /// With --rows: about how many prompts to answer; 0: none; default: all.
    #[arg(long, value_name = "N")]
    generate: Option<u64>,
    /// With --rows: the reward plugin that checks the answers.
    #[arg(long, value_name = "ID")]
    reward: Option<String>,
    /// With --reward: an option of the plugin; `telos plugins show ID` lists them.
    #[arg(long, value_name = "KEY=VALUE", requires = "reward", value_parser = Override::option)]
    option: Vec<Override>,
    /// With --reward: answers to each prompt; one is greedy, several are drawn.
    #[arg(long, value_name = "N", requires = "reward", default_value_t = 1, value_parser = at_least_one)]
    samples: usize,
    /// With --reward: each K at which pass@K is estimated, at most --samples; default: 1.
    #[arg(long, value_name = "K", num_args = 1.., requires = "reward", value_parser = at_least_one)]
    pass_at: Vec<usize>,
    /// With --reward: longest answer in tokens.
    #[arg(long, value_name = "N", requires = "reward", default_value_t = 256, value_parser = at_least_one)]
    max_tokens: usize,
    /// With --samples: softmax temperature.
    #[arg(long, value_name = "T", requires = "reward")]
    temperature: Option<f64>,
    /// With --samples: seed of the answers.
    #[arg(long, value_name = "N", requires = "reward", default_value_t = 0)]
    seed: u64,
    /// Write what the figures are made of to this file, as JSON lines: answers, questions or documents; and settings and figures
    /// to a second file: answers.summary.json for answers.jsonl. Both are written at the end.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    backend: BackendArgs,
    /// Print the results as JSON.
    #[arg(long)]
    json: bool,
    /// With --data and --json: also the negative log-probability of every predicted token, in the order of the text.
    #[arg(long, requires = "json")]
    per_token: bool,
}

pub(in crate::cli) fn execute(args: Eval, plugin_folders: Vec<PathBuf>) -> Result<()> {
    check_flags(&args)?;
    if let Some(out) = &args.out {
        check_new("--out", out)?;
        check_new("--out", &summary_path(out))?;
    }
    let choice = args.backend.choice(plugin_folders);
    let columns = args.column.iter().cloned().collect();
    if let [first, second] = args.answers.as_slice() {
        let opened = Opened::open_reward_model(&args.model, &choice)?;
        let wanted = AnswersToCompare {
            first: first.clone(),
            second: second.clone(),
            chat_template: args.chat_template.clone(),
        };
        let settings = settings(&args, &opened)?;
        let figures = opened.compare_answers(&wanted)?;
        return report(&args, settings, &figures, &figures.lines);
    }
    if !args.choices.is_empty() {
        let mut opened = Opened::open(&args.model, &choice)?;
        let wanted =
            ChoicesToEvaluate { paths: args.choices.clone(), chat_template: args.chat_template.clone(), columns };
        let settings = settings(&args, &opened)?;
        let figures = opened.evaluate_choices(&wanted)?;
        return report(&args, settings, &figures, &figures.lines);
    }
    if !args.rows.is_empty() {
        let check = check(&args)?;
        let checker = check.as_ref().map(|check| Checker::open(check, &choice)).transpose()?;
        let mut opened = Opened::open(&args.model, &choice)?;
        let wanted = RowsToEvaluate {
            paths: args.rows.clone(),
            chat_template: args.chat_template.clone(),
            columns,
            generate: args.generate,
            separator: args.segment_separator.clone(),
            check,
        };
        let settings = settings(&args, &opened)?;
        let figures = opened.evaluate_rows(&wanted, checker.as_ref())?;
        return report(&args, settings, &figures, &figures.answer_lines());
    }
    let opened = Opened::open(&args.model, &choice)?;
    let settings = settings(&args, &opened)?;
    let figures = opened.evaluate(&args.data, args.per_token)?;
    let lines: Vec<Value> = figures.documents.iter().map(|document| json!(document)).collect();
    report(&args, settings, &figures, &lines)
}

/// Refuses flags that have no effect with the given input.
fn check_flags(args: &Eval) -> Result<()> {
    let input =
        [("--data", &args.data), ("--rows", &args.rows), ("--choices", &args.choices), ("--answers", &args.answers)];
    let input = input.iter().find(|(_, given)| !given.is_empty()).map_or("--data", |(flag, _)| flag);
    let flags: [(&str, bool, &[&str]); 6] = [
        ("--chat-template", args.chat_template.is_some(), &["--rows", "--choices", "--answers"]),
        ("--column", !args.column.is_empty(), &["--rows", "--choices"]),
        ("--segment-separator", args.segment_separator.is_some(), &["--rows"]),
        ("--generate", args.generate.is_some(), &["--rows"]),
        ("--reward", args.reward.is_some(), &["--rows"]),
        ("--per-token", args.per_token, &["--data"]),
    ];
    for (flag, given, fits) in flags {
        if given && !fits.contains(&input) {
            return Err(Error::request(format!("{flag} is for {}, not for {input}", fits.join(", ")))
                .with_hint(format!("leave {flag} out, or give {} FILE", fits[0])));
        }
    }
    if let Some((key, _)) = args.column.iter().find(|(key, _)| key == CHOICES && args.choices.is_empty()) {
        return Err(Error::request(format!("--column {key}=...: only --choices reads this column")));
    }
    if let (Some(0), Some(out)) = (args.generate, &args.out) {
        return Err(Error::request(format!("--out {}: with --generate 0 there are no answers", out.display()))
            .with_hint("leave one of them out"));
    }
    if let (Some(0), Some(reward)) = (args.generate, &args.reward) {
        return Err(Error::request(format!("--reward {reward}: with --generate 0 there are no answers"))
            .with_hint("leave one of them out"));
    }
    Ok(())
}

/// Returns how answers are checked, if a reward does it.
fn check(args: &Eval) -> Result<Option<Check>> {
    let Some(reward) = &args.reward else { return Ok(None) };
    let samples = args.samples;
    let pass_at = if args.pass_at.is_empty() { vec![1] } else { args.pass_at.clone() };
    if let Some(k) = pass_at.iter().find(|k| **k > samples) {
        return Err(Error::request(format!("--pass-at {k}: with --samples {samples}, K is at most {samples}"))
            .with_hint("raise --samples"));
    }
    let temperature = args.temperature.unwrap_or(if samples == 1 { 0.0 } else { 1.0 });
    if !(0.0..=100.0).contains(&temperature) {
        return Err(Error::request(format!("--temperature {temperature}: expected a number from 0 to 100")));
    }
    if temperature == 0.0 && samples > 1 {
        return Err(Error::request("--temperature 0: all --samples of a prompt would be the same")
            .with_hint("raise the temperature, or leave --samples out"));
    }
    let sampling = SamplingArgs { temperature, top_p: 1.0, top_k: 0, seed: args.seed };
    let sampling = sampling.options(args.max_tokens)?;
    Ok(Some(Check { reward: reward.clone(), options: args.option.clone(), samples, pass_at, sampling }))
}

/// Prints the figures. With --out, writes what they are made of, and a summary of settings and figures.
fn report<T: std::fmt::Display + Serialize>(
    args: &Eval,
    settings: Map<String, Value>,
    figures: &T,
    lines: &[Value],
) -> Result<()> {
    print::result(figures, args.json)?;
    if let Some(out) = &args.out {
        let text: String = lines.iter().map(|line| line.to_string() + "\n").collect();
        write_durably(out, text.as_bytes())?;
        let figures = serde_json::to_value(figures)
            .map_err(|cause| Error::run("cannot write the figures as JSON").with_cause(cause))?;
        write_summary(&summary_path(out), &settings, Some(figures))?;
    }
    Ok(())
}

/// What the figures are made with, for the summary of --out. The weights are hashed before they are used: a run may remove them later.
fn settings(args: &Eval, opened: &Opened) -> Result<Map<String, Value>> {
    if args.out.is_none() {
        return Ok(Map::new());
    }
    let mut settings = args.backend.settings();
    settings.insert("folder".into(), opened.folder.display().to_string().into());
    settings.insert("model".into(), of_model(opened)?);
    let inputs = [("data", &args.data), ("rows", &args.rows), ("choices", &args.choices), ("answers", &args.answers)];
    settings.extend(
        inputs.iter().filter(|(_, paths)| !paths.is_empty()).map(|(name, paths)| ((*name).to_owned(), json!(paths))),
    );
    settings.extend(args.chat_template.as_ref().map(|template| ("chat_template".to_owned(), json!(template))));
    if !args.column.is_empty() {
        let columns: Map<String, Value> = args.column.iter().map(|(key, name)| (key.clone(), json!(name))).collect();
        settings.insert("columns".into(), columns.into());
    }
    settings.extend(args.segment_separator.as_ref().map(|text| ("segment_separator".to_owned(), json!(text))));
    settings.extend(args.generate.map(|generate| ("generate".to_owned(), generate.into())));
    if let Some(Check { reward, options, samples, pass_at, sampling }) = check(args)? {
        let options: Vec<String> = options.iter().map(Override::written).collect();
        let how = json!({
            "reward": reward,
            "options": options,
            "samples": samples,
            "pass_at": pass_at,
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "seed": sampling.seed,
        });
        settings.insert("check".into(), how);
    }
    Ok(settings)
}

/// `KEY=NAME` as a pair: as for rows, and the column of choices.
fn evaluated_column(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, name)) if key.trim() == CHOICES => Ok((CHOICES.to_owned(), name.trim().to_owned())),
        _ => column(text),
    }
}
