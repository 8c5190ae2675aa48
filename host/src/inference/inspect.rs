//! Looks at files of rows without an experiment: their columns, format and lengths, how rows are written, and which are dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::templates::layout;
use crate::{
    data::{
        DataError, Tokenizer,
        reading::format::record::Unreadable,
        rows::{
            Columns, Filter, Format, Row, RowCounts, RowKind, RowOptions, Truncation, columns::NamedBy,
            encode::Encoder, read::jsonl::raw_rows, unread::copies,
        },
    },
    decimals::counted,
    error::{Error, Result},
    model::{ModelConfig, adapter::config::base_of},
};

/// Columns of the histogram of lengths.
const BARS: usize = 32;

/// Which rows to look at, and how.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RowsToInspect {
    /// Files, folders or globs.
    pub paths: Vec<String>,
    /// A tokenizer's folder or file; without one, lengths are in characters only.
    pub tokenizer: Option<PathBuf>,
    /// The folder of a model (of an adapter, its own), whose context is the default of `max_length`, and whose tokens that end an
    /// answer count, as in a run.
    pub model: Option<PathBuf>,
    /// What the rows are for; `None`: decided by the columns.
    pub kind: Option<RowKind>,
    /// As `data.format`.
    pub format: Option<Format>,
    /// As `data.columns`.
    pub columns: Columns,
    /// As `data.chat_template`.
    pub chat_template: Option<String>,
    /// As `data.max_length`; `None`: the model's context, or no limit without a model.
    pub max_length: Option<usize>,
    /// As `data.truncation`.
    pub truncation: Option<Truncation>,
    /// As `data.filter`.
    pub filter: Filter,
    /// How many rows to show.
    pub shown: usize,
}

/// What rows hold.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspection {
    /// The files, in the order in which they are read.
    pub files: Vec<PathBuf>,
    /// Rows in them.
    pub rows: usize,
    /// The columns, in the order of their first occurrence.
    pub columns: Vec<ColumnFigures>,
    /// Rows that are the same as an earlier one.
    pub duplicate_rows: usize,
    /// Rows with the prompt of an earlier one.
    pub duplicate_prompts: usize,
    /// Lengths of prompts and answers in characters, and of whole rows and their supervised part in tokens.
    pub lengths: Vec<Lengths>,
    /// The most tokens of a row that a model reads: `max_length`, or the model's context; `None`: no limit.
    pub limit: Option<usize>,
    /// Whether `max_length` gives it.
    pub is_own_limit: bool,
    /// Why the model's context is not known, so that it is no limit.
    pub unknown_context: Option<String>,
    /// How many rows are used, dropped and truncated.
    pub counts: RowCounts,
    /// The first rows as they are learned: pieces of text, each with whether it is supervised.
    pub shown: Vec<Vec<(String, bool)>>,
    #[serde(skip)]
    colours: bool,
}

/// What a column holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ColumnFigures {
    /// Its name in the files.
    pub name: String,
    /// How many values are of each type.
    pub types: BTreeMap<&'static str, usize>,
    /// Rows in which it is null or missing.
    pub nulls: usize,
}

/// Lengths of many texts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lengths {
    /// What was measured.
    pub of: &'static str,
    /// The shortest.
    pub min: usize,
    /// The median.
    pub median: usize,
    /// Nine of ten are at most this long.
    pub p90: usize,
    /// 99 of 100 are at most this long.
    pub p99: usize,
    /// The longest.
    pub max: usize,
    /// How many lie in each of equal parts between the shortest and the longest.
    pub histogram: Vec<usize>,
}

/// Looks at rows. `colours`: whether supervised text is shown in colour; otherwise it stands between `⟦` and `⟧`.
///
/// # Errors
/// Files that cannot be read, with the place; rows that fit no kind; a tokenizer or template that cannot be used.
pub fn inspect(wanted: &RowsToInspect, colours: bool) -> Result<Inspection> {
    let mut raw = Raw::default();
    raw_rows(&wanted.paths, &wanted.columns, &mut |value, unreadable| raw.add(value, unreadable))?;
    for column in &mut raw.columns {
        column.nulls = raw.rows - column.types.values().sum::<usize>();
    }
    let options = RowOptions {
        format: wanted.format,
        named_by: Some(NamedBy::Flag { has_format: true }),
        ..RowOptions::all(wanted.paths.clone(), wanted.columns.clone())
    };
    let kind = wanted.kind.or_else(|| raw.kind(wanted.format, &wanted.columns)).unwrap_or_default();
    let corpus = options.read(kind).map_err(|error| match (&error, wanted.kind) {
        (DataError::Json { .. }, None) => {
            let hint = format!("they were read as {}; --as reads them for something else", name_of(kind));
            Error::from(error).with_hint(hint)
        }
        _ => Error::from(error),
    })?;
    let mut tokenizer = match &wanted.tokenizer {
        Some(path) => Tokenizer::open(path)?,
        None => Tokenizer::bytes()?,
    };
    let (model, unknown_context) = match wanted.model.as_deref().map(config_of) {
        Some(Ok(config)) => (Some(config), None),
        // The tokenizer and the template can be looked at without the rest of the model.
        Some(Err(error)) => (None, Some(error.message().to_owned())),
        None => (None, None),
    };
    if let Some(model) = &model {
        tokenizer.fit_to_model(&model.eos, model.vocab)?;
    }
    let (mut prompts, mut answers, mut questions, mut duplicate_prompts) = (Vec::new(), Vec::new(), BTreeSet::new(), 0);
    for row in corpus.train.iter() {
        let row: Row = row?;
        let text = row.text();
        prompts.push(text.prompt.chars().count());
        answers.extend(text.answer.map(|answer| answer.chars().count()));
        duplicate_prompts += usize::from(!questions.insert(digest(&text.prompt)));
    }
    let layout = layout(&tokenizer, wanted.chat_template.as_deref(), corpus.train.survey().with_messages > 0)?;
    let context = model.map(|model| model.context as usize);
    let limit = wanted.max_length.or(context);
    let longest = limit.unwrap_or(i32::MAX as usize);
    let (truncation, filter) = (wanted.truncation, wanted.filter);
    let encoder = Encoder { truncation, filter, ..Encoder::new(&tokenizer, &layout, longest) };
    let data = encoder.encode(&corpus)?;
    let (mut lengths, mut shown) =
        (vec![("characters of prompts", prompts), ("characters of answers", answers)], Vec::new());
    let (mut whole, mut supervised) = (Vec::new(), Vec::new());
    for span in data.train.in_order(usize::MAX, false) {
        for sequence in data.train.sequences(span, None, 0) {
            if shown.len() < wanted.shown.saturating_mul(kind.texts().len()) {
                shown.push(tokenizer.decode_pieces(&sequence.ids, &sequence.supervised)?);
            }
            whole.push(sequence.ids.len());
            supervised.push(sequence.supervised.iter().filter(|counts| **counts).count());
        }
    }
    if wanted.tokenizer.is_some() {
        lengths.push(("tokens", whole));
        if kind != RowKind::Prompt {
            lengths.push(("supervised tokens", supervised));
        }
    }
    Ok(Inspection {
        files: corpus.sources.iter().map(|source| source.path.clone()).collect(),
        rows: raw.rows,
        columns: raw.columns,
        duplicate_rows: raw.duplicates,
        duplicate_prompts,
        lengths: lengths.into_iter().filter_map(|(of, all)| Lengths::new(of, all)).collect(),
        limit,
        is_own_limit: wanted.max_length.is_some(),
        unknown_context,
        counts: RowCounts { unread_columns: copies(corpus.train.survey(), kind), ..data.rows.unwrap_or_default() },
        shown,
        colours,
    })
}

/// The shape of the model in a folder; an adapter has that of its base.
fn config_of(folder: &Path) -> Result<ModelConfig> {
    ModelConfig::from_folder(&base_of(folder)?)
}

/// What the rows are before their columns are read.
#[derive(Default)]
struct Raw {
    rows: usize,
    columns: Vec<ColumnFigures>,
    /// The columns' places in `columns`.
    places: BTreeMap<String, usize>,
    seen: BTreeSet<[u8; 16]>,
    duplicates: usize,
    first: Option<Value>,
    /// Columns of the first row whose values are not read.
    first_unreadable: Vec<String>,
}

impl Raw {
    fn add(&mut self, value: Value, unreadable: &[Unreadable]) {
        self.duplicates += usize::from(!self.seen.insert(digest(&value.to_string())));
        let known = value.as_object().into_iter().flatten().map(|(name, value)| (name, type_of(value)));
        let others = unreadable.iter().map(|value| (&value.column, Some("values that are not read")));
        for (name, of) in known.chain(others) {
            let at = self.places.get(name).copied().unwrap_or_else(|| {
                self.columns.push(ColumnFigures { name: name.clone(), types: BTreeMap::new(), nulls: 0 });
                self.places.insert(name.clone(), self.columns.len() - 1);
                self.columns.len() - 1
            });
            if let Some(column) = self.columns.get_mut(at)
                && let Some(of) = of
            {
                *column.types.entry(of).or_default() += 1;
            }
        }
        if self.rows == 0 {
            self.first_unreadable = unreadable.iter().map(|value| value.column.clone()).collect();
            self.first = Some(value);
        }
        self.rows += 1;
    }

    /// What rows with the first row's columns are usually for.
    fn kind(&self, format: Option<Format>, names: &Columns) -> Option<RowKind> {
        let first = self.first.as_ref()?.as_object()?;
        let written = |name: &str| names.get(name).cloned().unwrap_or_else(|| name.to_owned());
        let value = |name: &str| first.get(&written(name));
        let has = |name: &str| {
            value(name).is_some_and(|value| !value.is_null()) || self.first_unreadable.contains(&written(name))
        };
        let all = [RowKind::Preference, RowKind::Unpaired, RowKind::PromptCompletion, RowKind::Prompt];
        let fits = |kind: &RowKind| match (kind, format) {
            (_, Some(format)) if !format.gives(*kind) => false,
            (RowKind::Preference, _) => has("chosen") && has("rejected") || has("instruction") && has("completions"),
            (RowKind::Unpaired, _) => has("label") && (has("completion") || has("output")) && has_label(value("label")),
            (RowKind::PromptCompletion, _) => {
                ["messages", "conversations", "conversation", "completion", "completions", "output", "response", "text"]
                    .iter()
                    .any(|name| has(name))
            }
            (RowKind::Prompt, _) => true,
        };
        all.into_iter().find(fits)
    }
}

fn has_label(value: Option<&Value>) -> bool {
    value.is_some_and(|value| value.is_boolean() || *value == 0 || *value == 1)
}

fn digest(text: &str) -> [u8; 16] {
    let hash: [u8; 32] = Sha256::digest(text).into();
    std::array::from_fn(|index| hash[index])
}

fn type_of(value: &Value) -> Option<&'static str> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(_) => "true or false",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "text",
        Value::Array(list)
            if list.iter().all(|one| one.get("role").is_some() || one.get("from").is_some()) && !list.is_empty() =>
        {
            "list of messages"
        }
        Value::Array(list) if list.iter().all(Value::is_string) && !list.is_empty() => "list of texts",
        Value::Array(list) if list.iter().all(Value::is_number) && !list.is_empty() => "list of numbers",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    })
}

fn name_of(kind: RowKind) -> &'static str {
    match kind {
        RowKind::PromptCompletion => "completions",
        RowKind::Preference => "pairs",
        RowKind::Prompt => "prompts",
        RowKind::Unpaired => "labelled answers",
    }
}

impl Lengths {
    fn new(of: &'static str, mut all: Vec<usize>) -> Option<Lengths> {
        all.sort_unstable();
        let (min, max) = (*all.first()?, *all.last()?);
        // The smallest length that this share of all does not exceed.
        let at = |share: f64| {
            all.get(((all.len() as f64 * share).ceil() as usize).saturating_sub(1)).copied().unwrap_or(max)
        };
        let mut histogram = vec![0; BARS.min(max - min + 1)];
        for length in &all {
            let bar = (length - min) * histogram.len() / (max - min + 1);
            histogram[bar] += 1;
        }
        Some(Lengths { of, min, median: at(0.5), p90: at(0.9), p99: at(0.99), max, histogram })
    }

    /// The histogram as one character for each part.
    fn bars(&self) -> String {
        let most = self.histogram.iter().copied().max().unwrap_or(0).max(1);
        let bar = |count: &usize| match count {
            0 => ' ',
            count => ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'][(count * 8).div_ceil(most) - 1],
        };
        self.histogram.iter().map(bar).collect()
    }
}

impl Inspection {
    /// A text without control characters, if it is shown on a terminal: a data set must not send commands to it.
    fn visible(&self, text: &str) -> String {
        text.chars().filter(|c| !self.colours || !c.is_control() || matches!(c, '\n' | '\t')).collect()
    }
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files: Vec<String> = self.files.iter().map(|file| file.display().to_string()).collect();
        writeln!(f, "files             {}", self.visible(&files.join(", ")))?;
        writeln!(f, "rows              {}, looked at as {}", self.rows, name_of(self.counts.kind))?;
        let width = self.columns.iter().map(|column| column.name.chars().count()).max().unwrap_or(0).min(40);
        for column in &self.columns {
            let types: Vec<String> = match column.types.len() {
                1 => column.types.keys().map(|of| (*of).to_owned()).collect(),
                _ => column.types.iter().map(|(of, count)| format!("{of} in {count}")).collect(),
            };
            let types = if types.is_empty() { "nothing".to_owned() } else { types.join(", ") };
            let share = 100.0 * column.nulls as f64 / self.rows.max(1) as f64;
            let nulls =
                if column.nulls == 0 { String::new() } else { format!(", null in {} ({share:.1} %)", column.nulls) };
            writeln!(f, "column            {:width$}  {types}{nulls}", self.visible(&column.name))?;
        }
        let (rows, prompts) = (counted(self.duplicate_rows, "row"), counted(self.duplicate_prompts, "prompt"));
        writeln!(f, "duplicates        {rows}, {prompts}")?;
        for lengths in &self.lengths {
            let Lengths { of, min, median, p90, p99, max, .. } = lengths;
            writeln!(
                f,
                "length            {of}: min {min}, median {median}, p90 {p90}, p99 {p99}, max {max}  |{}|",
                lengths.bars()
            )?;
        }
        if let Some(limit) = self.limit {
            let from = if self.is_own_limit { "--max-length" } else { "the model's context" };
            writeln!(f, "limit             {limit} tokens of a row are read ({from})")?;
        }
        if let Some(why) = &self.unknown_context {
            writeln!(f, "context           not known: {}", self.visible(why))?;
        }
        write!(f, "data              {}", self.visible(&self.counts.to_string()))?;
        for (number, row) in self.shown.iter().enumerate() {
            // Nothing of a prompt alone is learned.
            let is_marked = number == 0 && !self.colours && self.counts.kind != RowKind::Prompt;
            write!(f, "\n\n{}", if is_marked { "supervised text between ⟦ and ⟧:\n" } else { "" })?;
            for (text, supervised) in row {
                let text = self.visible(text);
                match (supervised, self.colours) {
                    (true, true) => write!(f, "\x1b[32m{text}\x1b[0m")?,
                    (true, false) => write!(f, "⟦{text}⟧")?,
                    (false, _) => f.write_str(&text)?,
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches rows that a run with this model would drop, and are shown as rows to train on.
    #[test]
    fn a_models_context_is_the_default_limit() {
        let folder = tempfile::tempdir().unwrap();
        let config = serde_json::json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8, "intermediate_size": 16,
            "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 60000,
            "max_position_embeddings": 16, "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": true
        });
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        let row = |words: usize| serde_json::json!({"prompt": "word ".repeat(words), "completion": "a"}).to_string();
        let rows = folder.path().join("rows.jsonl");
        std::fs::write(&rows, format!("{}\n{}\n", row(2), row(40))).unwrap();
        let tokenizer = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/references/tokenizer/gpt2");
        let found = |model, max_length| {
            let (paths, tokenizer) = (vec![rows.display().to_string()], Some(tokenizer.into()));
            let wanted = RowsToInspect { paths, tokenizer, model, max_length, ..RowsToInspect::default() };
            let found = inspect(&wanted, false).unwrap();
            (found.limit, found.counts.dropped_too_long)
        };
        let model = Some(folder.path().to_owned());
        assert_eq!(found(model.clone(), None), (Some(16), 1));
        assert_eq!(found(model, Some(512)), (Some(512), 0));
        assert_eq!(found(None, None), (None, 0));
    }

    /// Catches quantiles that are shifted by one, and a histogram that loses the longest.
    #[test]
    fn lengths_are_summarised() {
        let found = Lengths::new("n", (1..=100).rev().collect()).unwrap();
        assert_eq!((found.min, found.median, found.p90, found.p99, found.max), (1, 50, 90, 99, 100));
        assert_eq!((found.histogram.len(), found.histogram.iter().sum::<usize>()), (BARS, 100));
        let one = Lengths::new("n", vec![7]).unwrap();
        assert_eq!((one.min, one.median, one.p99, one.bars()), (7, 7, 7, "█".to_owned()));
        assert!(Lengths::new("n", Vec::new()).is_none());
    }
}
