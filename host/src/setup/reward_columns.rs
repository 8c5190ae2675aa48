//! Checks the columns that rewards read in every row before the first step, so that a missing one is not found hours later.

use plugin_api::{
    Code,
    manifest::{ColumnValue, RewardColumn},
    reward::{Reward, Sample},
};
use serde_json::Value;

use super::Setup;
use crate::{
    config::{
        Mistakes,
        experiment::{Reward as RewardTable, RewardSource},
    },
    data::{
        DataError,
        rows::{Every, Row, RowCorpus, RowKind, Rows},
    },
    error::{Error, Result},
    runs::breadcrumb,
};

/// Samples per call of a reward.
const CHUNK: usize = 256;

impl Setup {
    /// Checks that every row of `corpus` whose answers are scored (prompts, and held-out rows of any kind) has the columns that
    /// the experiment's reward plugins declare, with values they can read. Then each plugin scores an empty answer to every
    /// such row, so that its own errors about a row appear now.
    ///
    /// # Errors
    /// Failures that are not mistakes. A mistake names file and line of the first row that a reward cannot read, and the number
    /// of such rows.
    pub(crate) fn check_reward_columns(
        &self,
        kind: RowKind,
        corpus: &RowCorpus,
        mistakes: &mut Mistakes,
    ) -> Result<()> {
        let none = Rows::default();
        let sides = [if kind == RowKind::Prompt { &*corpus.train } else { &none }, &*corpus.held_out];
        let rows = Every(&sides);
        let mut libraries = self.rewards.iter();
        for (index, table) in self.experiment().reward.iter().enumerate() {
            let RewardSource::Plugin { plugin } = &table.source else { continue };
            let library = libraries.next().ok_or_else(|| Error::run("a reward plugin was not loaded"))?;
            let reader = Reader { plugin, key: self.loaded.key_of("reward", index) };
            let manifest = breadcrumb::within(reader.plugin, "manifest", || library.reward_manifest())?;
            if !mistakes.are_free(&[&reader.key]) {
                continue;
            }
            let mut readable = true;
            for column in declared(&manifest.declared_columns(), table) {
                readable &= mistakes.check("data", reader.check_column(&column, rows))?.is_some();
            }
            let reward = breadcrumb::within(reader.plugin, "create", || library.reward(&table.options));
            let reward = mistakes.check(&reader.key, reward.map_err(Error::from))?;
            // An empty answer to a row without its columns cannot be scored.
            if let Some(reward) = reward.filter(|_| readable) {
                mistakes.check("data", reader.score_empty_answers(&reward, rows))?;
            }
        }
        Ok(())
    }
}

/// Returns the declared columns; if an option sets a column's name, with that name.
fn declared(columns: &[RewardColumn], table: &RewardTable) -> Vec<RewardColumn> {
    let named = |column: &RewardColumn| match table.options.get(&column.option).and_then(Value::as_str) {
        Some(name) if !column.option.is_empty() => RewardColumn { name: name.to_owned(), ..column.clone() },
        _ => column.clone(),
    };
    columns.iter().map(named).filter(|column| !column.name.is_empty()).collect()
}

/// A reward plugin with its key in the experiment.
struct Reader<'a> {
    plugin: &'a str,
    /// Key of its table in the experiment.
    key: String,
}

impl Reader<'_> {
    fn check_column(&self, column: &RewardColumn, rows: Every<'_>) -> Result<()> {
        let (mut first, mut others) = (None, 0);
        for row in rows.iter() {
            let row = row?;
            match wrong(row.columns.get(&column.name), column) {
                Some(what) if first.is_none() => first = Some((row, what)),
                Some(_) => others += 1,
                None => {}
            }
        }
        let Some((first, what)) = first else { return Ok(()) };
        let more = match others {
            0 => String::new(),
            1 => "; one more row has this mistake".to_owned(),
            _ => format!("; {others} more rows have this mistake"),
        };
        let option = if column.option.is_empty() {
            String::new()
        } else {
            format!(", name another column by {}.{}", self.key, column.option)
        };
        let hint = format!(
            "reward \"{}\" reads the column `{}` of every row: add it to the row, remove the row{option}, or give the column \
             another name by data.columns",
            self.plugin, column.name
        );
        Err(refusal(&first, &column.name, what + &more).with_hint(hint))
    }

    /// Reports errors about a column (code ARRAY): they do not depend on the answer.
    fn score_empty_answers(&self, reward: &impl Reward, rows: Every<'_>) -> Result<()> {
        let sample = |row: &Row| {
            let text = row.text();
            Sample { prompt: text.prompt, columns: text.columns, completion: String::new(), ended: true }
        };
        let fault = |samples: &[Sample]| {
            let scored = breadcrumb::within(self.plugin, "score", || reward.score(samples));
            scored.err().filter(|error| error.code == Code::ARRAY)
        };
        let mut rows = rows.iter();
        loop {
            let chunk = rows.by_ref().take(CHUNK).collect::<crate::data::error::Result<Vec<Row>>>()?;
            if chunk.is_empty() {
                return Ok(());
            }
            let samples: Vec<Sample> = chunk.iter().map(sample).collect();
            if fault(&samples).is_none() {
                continue;
            }
            for (row, sample) in chunk.iter().zip(&samples) {
                if let Some(error) = fault(std::slice::from_ref(sample)) {
                    let what =
                        format!("reward \"{}\" ({}) cannot read this row: {}", self.plugin, self.key, error.message);
                    return Err(refusal(row, "", what).with_hint("fix the row, or the reward's options"));
                }
            }
        }
    }
}

fn refusal(row: &Row, key: &str, what: String) -> Error {
    Error::from(DataError::Json { place: row.place.clone(), key: key.to_owned(), what })
}

fn wrong(value: Option<&Value>, column: &RewardColumn) -> Option<String> {
    let (text, number) = match &column.value {
        value if *value == ColumnValue::TEXT => (true, false),
        value if *value == ColumnValue::NUMBER => (false, true),
        _ => (true, true),
    };
    let expected = match (text, number) {
        (true, false) => "a string",
        (false, true) => "a number",
        _ => "a string or a number",
    };
    match value {
        None => Some("missing".to_owned()),
        Some(Value::Null) => Some(format!("expected {expected}, found null")),
        Some(Value::String(found)) if text && found.trim().is_empty() && !column.may_be_empty => {
            let instead = if number { "; if the empty answer is correct, write [\"\"]" } else { "" };
            Some(format!("expected {expected}, found an empty string{instead}"))
        }
        Some(Value::String(_)) if !text => Some(format!("expected {expected}, found a string")),
        Some(Value::Number(_)) if !number => Some(format!("expected {expected}, found a number")),
        Some(Value::Bool(found)) if !number => Some(format!("expected {expected}, found {found}")),
        // Rewards receive lists and objects as their JSON text.
        Some(Value::Array(_) | Value::Object(_)) if !text => {
            Some(format!("expected {expected}, found a list or an object"))
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Catches an empty answer that is refused without a hint how to write one.
    #[test]
    fn gotcha_48_an_empty_answer_is_refused_with_a_hint_how_to_write_it() {
        let refused = |value: Value, kind: ColumnValue| {
            let column = RewardColumn { name: "c".to_owned(), value: kind, ..RewardColumn::default() };
            wrong(Some(&value), &column).unwrap_or_default()
        };
        assert!(refused(json!(""), ColumnValue::ANY).contains("if the empty answer is correct, write [\"\"]"));
        assert_eq!(refused(json!([""]), ColumnValue::ANY), "");
    }

    /// Catches a number that is read as text or a text as a number, null and empty text that are accepted as a value, and
    /// values that fit and are refused.
    #[test]
    fn gotcha_52_a_declared_column_holds_what_its_reward_reads() {
        let values = [None, Some(json!(null)), Some(json!("")), Some(json!(" \n")), Some(json!("a")), Some(json!(7))];
        let fits = |value: ColumnValue, may_be_empty| {
            let column = RewardColumn { name: "c".to_owned(), value, may_be_empty, ..RewardColumn::default() };
            values.clone().map(|value| wrong(value.as_ref(), &column).is_none())
        };
        assert_eq!(fits(ColumnValue::ANY, false), [false, false, false, false, true, true]);
        assert_eq!(fits(ColumnValue::ANY, true), [false, false, true, true, true, true]);
        assert_eq!(fits(ColumnValue::TEXT, false), [false, false, false, false, true, false]);
        assert_eq!(fits(ColumnValue::NUMBER, false), [false, false, false, false, false, true]);
    }
}
