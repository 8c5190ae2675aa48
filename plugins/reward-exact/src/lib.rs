//! A checkable answer: the reward is `right` if the answer extracted from the completion is the row's, else `wrong`.
//!
//! ```text
//! score = right   where extract(completion) = extract(column), else wrong
//! ```
//!
//! `pattern` extracts: the last match is used (models think before they answer), its first group if it has one, the whole match
//! otherwise; without a pattern the whole text. If the column is a list, each of its answers is right. `answer_pattern` does the
//! same for the column, for data whose answers are part of an explanation. The compared texts are trimmed; with `numeric` two
//! numbers of equal value are equal however they are written (`1,000`, `1000.0`, `$1000`).

use plugin_api::prelude::*;
use regex::{Captures, Regex};
use serde_json::Value;

options! {
    /// Options of the exact-match reward.
    pub struct Config {
        /// The column with the right answer, a text or a number, or with a list of right answers.
        column: String = "answer".to_owned();
        /// Regular expression that extracts the answer from the completion; empty: the whole completion is the answer.
        pattern: String = String::new();
        /// Regular expression that extracts the answer from the column; empty: the whole column is the answer.
        answer_pattern: String = String::new();
        /// Compare numbers by value: thousands separators, currency signs, percent signs and trailing zeros are ignored.
        numeric: bool = false;
        /// Ignore differences between upper and lower case.
        ignore_case: bool = false;
        /// Score of the right answer.
        right: f64 = 1.0;
        /// Score of a wrong or missing answer.
        wrong: f64 = 0.0;
    }
}

/// The reward for a right answer.
pub struct Exact {
    config: Config,
    pattern: Option<Regex>,
    answer_pattern: Option<Regex>,
}

impl RewardPlugin for Exact {
    type Options = Config;

    fn manifest() -> RewardManifest {
        RewardManifest {
            summary: "Whether the answer that a regular expression extracts from the completion is the row's".into(),
            columns: vec!["answer".into()],
            reads: vec![RewardColumn { name: "answer".into(), option: "column".into(), ..Default::default() }],
            ..Default::default()
        }
    }

    fn create(config: Config) -> Result<Self> {
        let compiled = |key: &str, pattern: &str| match pattern {
            "" => Ok(None),
            _ => Regex::new(pattern)
                .map(Some)
                .map_err(|e| Error::new(Code::OPTION, format!("option `{key}` is not a regular expression: {e}"))),
        };
        let pattern = compiled("pattern", &config.pattern)?;
        let answer_pattern = compiled("answer_pattern", &config.answer_pattern)?;
        Ok(Exact { config, pattern, answer_pattern })
    }
}

impl Reward for Exact {
    fn score(&self, samples: &[Sample]) -> Result<Vec<f64>> {
        let score = |is_right: bool| if is_right { self.config.right } else { self.config.wrong };
        samples.iter().map(|sample| Ok(score(self.is_right(sample)?))).collect()
    }
}

impl Exact {
    fn is_right(&self, sample: &Sample) -> Result<bool> {
        let known = self.right_answers(sample)?;
        // A column without an answer is an error in the data, not a wrong completion.
        let find = |known: &String| {
            extract(self.answer_pattern.as_ref(), known).map(str::to_owned).ok_or_else(|| {
                let column = &self.config.column;
                let why = format!("option `answer_pattern`: it matches nothing in the column `{column}`: {known:?}");
                Error::new(Code::ARRAY, why)
            })
        };
        let answers: Vec<String> = known.iter().map(find).collect::<Result<_>>()?;
        let given = extract(self.pattern.as_ref(), &sample.completion);
        Ok(given.is_some_and(|given| answers.iter().any(|answer| self.same(given, answer))))
    }

    /// The answers in the column: one, or those of a list.
    fn right_answers(&self, sample: &Sample) -> Result<Vec<String>> {
        let column = &self.config.column;
        let Some(json) = sample.json(column) else {
            return match (sample.text(column), sample.number(column)) {
                (Some(text), _) => Ok(vec![text.to_owned()]),
                (None, Some(number)) => Ok(vec![number.to_string()]),
                (None, None) => Err(self.missing(sample)),
            };
        };
        let one = |value: &Value| match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        let answers: Option<Vec<String>> = json.as_array().and_then(|list| list.iter().map(one).collect());
        answers.filter(|answers| !answers.is_empty()).ok_or_else(|| {
            let why =
                format!("the column `{column}` must be an answer or a list of answers, texts or numbers; it is {json}");
            Error::new(Code::ARRAY, why)
        })
    }

    fn missing(&self, sample: &Sample) -> Error {
        let known: Vec<&str> = sample.columns.iter().map(|(name, _)| name.as_str()).collect();
        let has = if known.is_empty() { "no columns".to_owned() } else { known.join(", ") };
        Error::new(Code::ARRAY, format!("option `column`: the row has no `{}`; it has {has}", self.config.column))
    }

    fn same(&self, given: &str, answer: &str) -> bool {
        if self.config.numeric
            && let (Some(given), Some(answer)) = (integer(given), integer(answer))
        {
            return given == answer;
        }
        if self.config.numeric
            && let (Some(given), Some(answer)) = (number(given), number(answer))
        {
            return given == answer;
        }
        if self.config.ignore_case { given.to_lowercase() == answer.to_lowercase() } else { given == answer }
    }
}

/// The last match's first group, or the match, trimmed; the trimmed text without a pattern.
fn extract<'t>(pattern: Option<&Regex>, text: &'t str) -> Option<&'t str> {
    let Some(pattern) = pattern else { return Some(text.trim()) };
    let found: Captures<'t> = pattern.captures_iter(text).last()?;
    found.get(1).or_else(|| found.get(0)).map(|found| found.as_str().trim())
}

/// A number in the forms that people write.
fn number(text: &str) -> Option<f64> {
    let bare = bare(text);
    // "inf" and "nan" are words here.
    if bare.chars().any(char::is_alphabetic) { None } else { bare.parse().ok() }
}

/// A whole number in the forms that people write, exact beyond the precision of a float.
fn integer(text: &str) -> Option<i128> {
    bare(text).parse().ok()
}

fn bare(text: &str) -> String {
    let bare: String = text.chars().filter(|c| !matches!(c, ',' | '$' | '€' | '£' | '%' | ' ')).collect();
    bare.strip_suffix('.').map(str::to_owned).unwrap_or(bare)
}

export_reward!("exact", Exact);
