//! The kinds of rows, and the parts that each is made of.

use plugin_api::manifest::DataKind;
use serde::{Deserialize, Serialize};

use super::truncation::Truncation;

/// A part of a row, by the field's usual column name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// A whole conversation: `messages`.
    Messages,
    /// The question: `prompt`.
    Prompt,
    /// The answer: `completion`.
    Completion,
    /// The better of two answers: `chosen`.
    Chosen,
    /// The worse of two answers: `rejected`.
    Rejected,
}

impl Part {
    /// The column's name.
    pub fn name(self) -> &'static str {
        match self {
            Part::Messages => "messages",
            Part::Prompt => "prompt",
            Part::Completion => "completion",
            Part::Chosen => "chosen",
            Part::Rejected => "rejected",
        }
    }
}

/// The parts that a row has.
pub type Shape = &'static [Part];

/// The kind of a data set's rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RowKind {
    /// Prompts with their completions, or conversations.
    #[default]
    PromptCompletion,
    /// Prompts with two answers, a chosen and a rejected one.
    Preference,
    /// Prompts alone; all other keys are columns.
    Prompt,
    /// Prompts with one answer each and the column [`LABEL`], for whether the answer is desirable.
    Unpaired,
}

/// The column of [`RowKind::Unpaired`] for whether an answer is desirable: true or 1, false or 0.
pub const LABEL: &str = "label";

/// The column of [`RowKind::Preference`] for how much better the chosen answer is: a number.
pub const MARGIN: &str = "margin";

/// The column of [`RowKind::Prompt`] with the right answer, or a list of right answers of which any counts.
pub const ANSWER: &str = "answer";

/// The column of a multiple-choice question with its choices.
pub const CHOICES: &str = "choices";

/// The columns that rows of any published form are read from.
pub const OF_FORMATS: [&str; 16] = [
    "messages",
    "conversations",
    "conversation",
    "prompt",
    "completion",
    "completions",
    "chosen",
    "rejected",
    "text",
    "instruction",
    "input",
    "output",
    "question",
    "response",
    "system",
    "system_prompt",
];

/// Columns with a whole example or its prompt: next to another example they are usually copies of it.
pub const EXAMPLES: [&str; 7] =
    ["messages", "conversations", "conversation", "prompt", "completion", "completions", "text"];

/// Whether a column of this name holds an example that could be read instead of a row's prompt and completion.
pub fn is_other_example(name: &str) -> bool {
    !["prompt", "completion", "text"].contains(&name) && EXAMPLES.contains(&name)
}

impl RowKind {
    /// The kind of rows that an objective learns from; `None` if it learns from running text.
    pub fn of(data: &DataKind) -> Option<RowKind> {
        Some(match data {
            kind if *kind == DataKind::PROMPT_COMPLETION => RowKind::PromptCompletion,
            kind if *kind == DataKind::PREFERENCE => RowKind::Preference,
            kind if *kind == DataKind::PROMPT => RowKind::Prompt,
            kind if *kind == DataKind::UNPAIRED => RowKind::Unpaired,
            _ => return None,
        })
    }

    /// The shapes that a row may have. A row has the first shape whose parts are all present; its other keys are
    /// columns.
    pub fn shapes(self) -> &'static [Shape] {
        match self {
            RowKind::PromptCompletion => &[&[Part::Messages], &[Part::Prompt, Part::Completion]],
            RowKind::Preference => &[&[Part::Prompt, Part::Chosen, Part::Rejected], &[Part::Chosen, Part::Rejected]],
            RowKind::Prompt => &[&[Part::Prompt]],
            RowKind::Unpaired => &[&[Part::Prompt, Part::Completion]],
        }
    }

    /// The texts that a row becomes; each ends with the part listed.
    pub fn texts(self) -> &'static [Part] {
        match self {
            RowKind::PromptCompletion | RowKind::Unpaired => &[Part::Completion],
            RowKind::Preference => &[Part::Chosen, Part::Rejected],
            RowKind::Prompt => &[Part::Prompt],
        }
    }

    /// Default truncation: preference and labelled answers are dropped, prompts are cut on the left, completions on
    /// the right.
    pub fn truncation(self) -> Truncation {
        match self {
            RowKind::PromptCompletion => Truncation::Right,
            RowKind::Preference | RowKind::Unpaired => Truncation::Drop,
            RowKind::Prompt => Truncation::Left,
        }
    }

    /// The most tokens of a text for a model that reads `longest` of them, if no objective reads the last token. The last token of a completion is only
    /// predicted, so one more token fits. The last token of a preference or labelled answer is read too, since its
    /// score is computed there, and so is that of a prompt.
    pub fn most_tokens(self, longest: usize) -> usize {
        match self {
            RowKind::PromptCompletion => longest.saturating_add(1),
            _ => longest,
        }
    }

    /// The plural noun for rows of this kind.
    pub fn noun(self) -> &'static str {
        match self {
            RowKind::PromptCompletion | RowKind::Unpaired => "rows",
            RowKind::Preference => "pairs",
            RowKind::Prompt => "prompts",
        }
    }
}
