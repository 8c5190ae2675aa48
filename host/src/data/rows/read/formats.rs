//! The forms in which data sets are published, recognised by their columns, and turned into the parts of a row.
//!
//! | format | columns |
//! |---|---|
//! | `messages` | `messages`: a list of `role` and `content`, the latter a text or parts of text |
//! | `sharegpt` | `conversations` (or `conversation`, `messages`): a list of `from` and `value` |
//! | `prompt-completion` | `prompt`, `completion`: strings or lists of messages |
//! | `stepwise` | `prompt`, `completions`: a list of texts |
//! | `text` | `text`: all of it is learned |
//! | `preference` | `prompt`, `chosen`, `rejected` |
//! | `preference-implicit` | `chosen`, `rejected`, which begin with the same prompt |
//! | `hh` | the same as dialogues in one string: "\n\nHuman: ...\n\nAssistant: ..." |
//! | `unpaired` | `prompt`, `completion`, `label` |
//! | `prompt` | `prompt` |
//! | `alpaca` | `instruction` and `input` (may be missing or empty), with `output`, with `chosen` and `rejected`, or alone |
//! | `alpaca-template` | the same, written with the template of Stanford's Alpaca instead of a chat template |
//! | `orca` | `question` and `system` or `system_prompt` (may be missing), with `response`, or with `chosen` and `rejected` |
//! | `ultrafeedback` | `instruction`, `completions`: a list of `response` and `overall_score`; the best and the worst become a pair |
//!
//! Columns of the first ten forms come first: a row that has them is read by them, whatever else it has; a row with two examples
//! (`messages`, `conversations`, a prompt with its completion) is refused. A row without them that fits several of the others is
//! refused too, and `data.format` decides.

use serde_json::{Map, Value, json};

use super::messages::is_message;
use crate::data::rows::columns::NamedBy;
use crate::data::rows::kind::{Part, RowKind};
use crate::data::rows::message::ASSISTANT;
use crate::keys::words;

words! {
    /// How the columns of a data set are read.
    #[derive(PartialOrd, Ord)]
    pub enum Format {
        /// A list of `role` and `content`.
        Messages = "messages",
        /// A list of `from` and `value`.
        ShareGpt = "sharegpt",
        /// A prompt and its completion.
        PromptCompletion = "prompt-completion",
        /// A prompt and the steps of its answer.
        Stepwise = "stepwise",
        /// A text of which everything is learned.
        Text = "text",
        /// A prompt and two answers.
        Preference = "preference",
        /// Two answers that begin with their prompt.
        PreferenceImplicit = "preference-implicit",
        /// The same, as dialogues in one string.
        Hh = "hh",
        /// A prompt, an answer and its label.
        Unpaired = "unpaired",
        /// A prompt alone.
        Prompt = "prompt",
        /// An instruction, its input and output.
        Alpaca = "alpaca",
        /// The same, with Stanford's template.
        AlpacaTemplate = "alpaca-template",
        /// A system prompt, a question and its response.
        Orca = "orca",
        /// An instruction and scored completions.
        UltraFeedback = "ultrafeedback",
    }
}

type Object = Map<String, Value>;

/// Formats whose columns are turned into others, and which are recognised by their columns.
const CONVERTED: [Format; 4] = [Format::Text, Format::Alpaca, Format::Orca, Format::UltraFeedback];

/// What becomes of a row's columns.
pub enum Converted {
    /// They are now those of the format.
    As(Format),
    /// They are those of the row's kind already, or of no known format.
    Unchanged,
    /// The row teaches nothing: all its answers have the same score.
    SameScore,
}

impl Format {
    /// Its name in an experiment.
    pub fn name(self) -> &'static str {
        Format::WORDS.get(self as usize).copied().unwrap_or_default()
    }

    /// Whether rows of this kind can have the format.
    pub fn gives(self, kind: RowKind) -> bool {
        match self {
            Format::Messages | Format::Stepwise | Format::Text => kind == RowKind::PromptCompletion,
            Format::PromptCompletion => matches!(kind, RowKind::PromptCompletion | RowKind::Unpaired),
            Format::Preference | Format::PreferenceImplicit | Format::Hh | Format::UltraFeedback => {
                kind == RowKind::Preference
            }
            Format::Unpaired => kind == RowKind::Unpaired,
            Format::Prompt => kind == RowKind::Prompt,
            Format::ShareGpt | Format::Alpaca | Format::AlpacaTemplate | Format::Orca => true,
        }
    }

    /// The columns that it reads, in words.
    pub fn columns(self, kind: RowKind) -> &'static str {
        let (completes, pairs) =
            (matches!(kind, RowKind::PromptCompletion | RowKind::Unpaired), kind == RowKind::Preference);
        match self {
            Format::Messages => "`messages`",
            Format::ShareGpt => "`conversations`",
            Format::PromptCompletion => "`prompt` and `completion`",
            Format::Stepwise => "`prompt` and `completions`",
            Format::Text => "`text`, of which everything is learned",
            Format::Preference => "`prompt`, `chosen` and `rejected`",
            Format::PreferenceImplicit | Format::Hh => "`chosen` and `rejected`",
            Format::Unpaired => "`prompt`, `completion` and `label`",
            Format::Prompt => "`prompt`",
            Format::Alpaca | Format::AlpacaTemplate if completes => "`instruction`, `input` and `output`",
            Format::Alpaca | Format::AlpacaTemplate if pairs => "`instruction`, `input`, `chosen` and `rejected`",
            Format::Alpaca | Format::AlpacaTemplate => "`instruction` and `input`",
            Format::Orca if completes => "`system`, `question` and `response`",
            Format::Orca if pairs => "`system`, `question`, `chosen` and `rejected`",
            Format::Orca => "`system` and `question`",
            Format::UltraFeedback => "`instruction` and `completions`",
        }
    }

    /// The format of a row of the kind's own columns: `parts` are those of its shape.
    pub fn of_parts(columns: &Object, parts: &[Part], kind: RowKind, in_segments: bool) -> Format {
        let is_sharegpt =
            |value: &Value| value.as_array().is_some_and(|list| list.iter().any(|one| one.get("from").is_some()));
        let text = |name: &str| columns.get(name).and_then(Value::as_str);
        match kind {
            _ if parts.iter().any(|part| columns.get(part.name()).is_some_and(is_sharegpt)) => Format::ShareGpt,
            RowKind::PromptCompletion if parts == [Part::Messages] => Format::Messages,
            RowKind::PromptCompletion if in_segments => Format::Stepwise,
            RowKind::PromptCompletion => Format::PromptCompletion,
            RowKind::Preference if parts.contains(&Part::Prompt) => Format::Preference,
            RowKind::Preference if text("chosen").is_some_and(|chosen| chosen.contains("\n\nHuman:")) => Format::Hh,
            RowKind::Preference => Format::PreferenceImplicit,
            RowKind::Unpaired => Format::Unpaired,
            RowKind::Prompt => Format::Prompt,
        }
    }
}

/// Turns the columns of a row into those of its kind. `format`: how they are read, whatever else could be; otherwise a row with
/// the columns of its kind (`is_own`; `None` if that is not clear) stays as it is.
///
/// # Errors
/// A row that lacks what `format` reads, or that can be read in several ways.
pub fn convert(
    columns: &mut Object,
    kind: RowKind,
    format: Option<Format>,
    by: &NamedBy,
    is_own: impl Fn(&Object) -> Option<bool>,
) -> Result<Converted, String> {
    let format = match format {
        Some(format) if CONVERTED.contains(&format) || format == Format::AlpacaTemplate => {
            if !format.fits(columns, kind) {
                let (name, expected) = (format.name(), format.columns(kind));
                let given = by.format(&[name]).unwrap_or_else(|| format!("the format \"{name}\""));
                return Err(format!("{given} reads {expected}; the row has {}", names(columns)));
            }
            format
        }
        Some(_) => return Ok(Converted::Unchanged),
        None => {
            let own = is_own(columns);
            if own == Some(true) {
                return Ok(Converted::Unchanged);
            }
            let converted = CONVERTED.into_iter().filter(|format| format.gives(kind) && format.fits(columns, kind));
            let fitting: Vec<Format> =
                own.is_none().then_some(Format::PreferenceImplicit).into_iter().chain(converted).collect();
            match fitting.as_slice() {
                [] | [Format::PreferenceImplicit] => return Ok(Converted::Unchanged),
                [only] => *only,
                several => {
                    let way = |format: &Format| format!("as \"{}\" ({})", format.name(), format.columns(kind));
                    let ways = several.iter().map(way).collect::<Vec<_>>().join(" or ");
                    let first = several.last().map_or("", |format| format.name());
                    let decide = match by.format(&[first]) {
                        Some(how) => format!("decide with {how}, for example"),
                        None => "drop or rename the columns that are not meant".to_owned(),
                    };
                    return Err(format!("the row can be read {ways}: {decide}"));
                }
            }
        }
    };
    let fits = match format {
        Format::Text => {
            let text = columns.shift_remove("text").unwrap_or_default();
            set(columns, "prompt", "".into());
            set(columns, "completion", text);
            true
        }
        Format::Alpaca => alpaca(columns),
        Format::AlpacaTemplate => alpaca_template(columns),
        Format::Orca => orca(columns),
        _ => ultrafeedback(columns)?,
    };
    Ok(if fits { Converted::As(format) } else { Converted::SameScore })
}

fn names(columns: &Object) -> String {
    let there = columns.iter().filter(|(_, value)| !value.is_null()).map(|(name, _)| format!("`{name}`"));
    there.collect::<Vec<_>>().join(", ")
}

fn set(columns: &mut Object, name: &str, value: Value) {
    columns.shift_remove(name);
    columns.insert(name.to_owned(), value);
}

fn text<'a>(columns: &'a Object, name: &str) -> Option<&'a str> {
    columns.get(name).and_then(Value::as_str)
}

impl Format {
    fn fits(self, columns: &Object, kind: RowKind) -> bool {
        let is_text = |name: &str| text(columns, name).is_some();
        let is_answer = |name: &str| {
            columns.get(name).is_some_and(|value| value.is_string() || is_message(value) || value.is_array())
        };
        let answers = |one: &str| match kind {
            RowKind::PromptCompletion | RowKind::Unpaired => is_text(one),
            RowKind::Preference => is_answer("chosen") && is_answer("rejected"),
            RowKind::Prompt => true,
        };
        match self {
            Format::Text => is_text("text"),
            Format::Alpaca | Format::AlpacaTemplate => {
                let input = columns.get("input").is_none_or(|input| input.is_null() || input.is_string());
                is_text("instruction") && input && answers("output")
            }
            Format::Orca => {
                let system = is_text("system") || is_text("system_prompt");
                is_text("question") && answers("response") && (kind != RowKind::Prompt || system)
            }
            Format::UltraFeedback => {
                let is_scored = |value: &Value| value.get("response").is_some_and(Value::is_string);
                is_text("instruction")
                    && columns
                        .get("completions")
                        .and_then(Value::as_array)
                        .is_some_and(|list| !list.is_empty() && list.iter().all(is_scored))
            }
            _ => false,
        }
    }
}

/// Makes the prompt a conversation, and answers that are texts messages of it.
fn converse(columns: &mut Object, system: Option<String>, question: String, answer: &str) {
    let system = system.filter(|text| !text.trim().is_empty()).map(|text| json!({"role": "system", "content": text}));
    let messages = system.into_iter().chain([json!({"role": "user", "content": question})]).collect();
    set(columns, "prompt", Value::Array(messages));
    let answer = columns.shift_remove(answer);
    columns.extend(answer.map(|text| ("completion".to_owned(), text)));
    for name in ["completion", "chosen", "rejected"] {
        if let Some(answer) = columns.get_mut(name)
            && answer.is_string()
        {
            *answer = json!([{"role": ASSISTANT, "content": answer.take()}]);
        }
    }
}

fn take(columns: &mut Object, name: &str) -> Option<String> {
    match columns.get(name) {
        Some(Value::String(_)) => columns.shift_remove(name)?.as_str().map(str::to_owned),
        Some(Value::Null) => columns.shift_remove(name).and(None),
        _ => None,
    }
}

/// The instruction and its input, with an empty line between them.
fn alpaca(columns: &mut Object) -> bool {
    let instruction = take(columns, "instruction").unwrap_or_default();
    let question = match take(columns, "input").filter(|input| !input.trim().is_empty()) {
        Some(input) => format!("{instruction}\n\n{input}"),
        None => instruction,
    };
    let system = take(columns, "system");
    converse(columns, system, question, "output");
    true
}

/// The template that Stanford's Alpaca was trained with.
fn alpaca_template(columns: &mut Object) -> bool {
    let instruction = take(columns, "instruction").unwrap_or_default();
    let prompt = match take(columns, "input").filter(|input| !input.trim().is_empty()) {
        Some(input) => format!(
            "Below is an instruction that describes a task, paired with an input that provides further context. Write a response \
             that appropriately completes the request.\n\n### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
        ),
        None => format!(
            "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n\
             ### Instruction:\n{instruction}\n\n### Response:"
        ),
    };
    set(columns, "prompt", prompt.into());
    let output = columns.shift_remove("output");
    columns.extend(output.map(|text| ("completion".to_owned(), text)));
    true
}

fn orca(columns: &mut Object) -> bool {
    let system = take(columns, "system").or_else(|| take(columns, "system_prompt"));
    let question = take(columns, "question").unwrap_or_default();
    converse(columns, system, question, "response");
    true
}

/// Makes a pair of the completions with the highest and the lowest score, the first of several. False if all have the same score.
fn ultrafeedback(columns: &mut Object) -> Result<bool, String> {
    let question = take(columns, "instruction").unwrap_or_default();
    let list = columns.shift_remove("completions").unwrap_or_default();
    let mut scored: Vec<(f64, Value)> = Vec::new();
    for (index, one) in list.as_array().into_iter().flatten().enumerate() {
        let keys = ["overall_score", "fine-grained_score", "score"];
        let Some(score) = keys.iter().find_map(|key| one.get(*key).and_then(Value::as_f64)) else {
            return Err(format!("completions[{index}] has no number `overall_score`"));
        };
        scored.push((score, one.get("response").cloned().unwrap_or_default()));
    }
    // The first of the best, and the first of the worst.
    let best = scored.iter().rev().max_by(|a, b| a.0.total_cmp(&b.0)).cloned();
    let worst = scored.iter().min_by(|a, b| a.0.total_cmp(&b.0)).cloned();
    let (Some(best), Some(worst)) = (best, worst) else { return Ok(false) };
    if best.0 == worst.0 {
        return Ok(false);
    }
    set(columns, "chosen", best.1);
    set(columns, "rejected", worst.1);
    converse(columns, None, question, "");
    Ok(true)
}

/// The shapes that a row may have if its columns are read by `format`: see [`RowKind::shapes`].
pub fn shapes(format: Option<Format>, kind: RowKind) -> &'static [&'static [Part]] {
    match (format, kind) {
        (Some(Format::Messages | Format::ShareGpt), RowKind::PromptCompletion) => &[&[Part::Messages]],
        (Some(_), RowKind::PromptCompletion) => &[&[Part::Prompt, Part::Completion]],
        (Some(Format::Preference), _) => &[&[Part::Prompt, Part::Chosen, Part::Rejected]],
        (Some(Format::PreferenceImplicit | Format::Hh), _) => &[&[Part::Chosen, Part::Rejected]],
        _ => kind.shapes(),
    }
}
