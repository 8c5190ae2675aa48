//! Checks the columns that objectives read in every row before the first step, so that a wrong one is reported with its file and
//! line and not in the middle of a run.

use plugin_api::{
    manifest::{ObjectiveColumn, Requirements},
    objective::Objective,
};
use serde_json::Value;

use super::Setup;
use crate::{
    config::Mistakes,
    data::{
        DataError,
        rows::{Every, Row, RowCorpus, number},
    },
    decimals::counted,
    error::{Error, Result},
    runs::breadcrumb,
};

/// An objective that learns from the experiment's rows, and what it requires.
pub(super) struct Required {
    id: String,
    /// Key of its table.
    pub(super) key: String,
    pub(super) requirements: Requirements,
}

impl Setup {
    /// Returns what the objectives require that learn from the experiment's own data. Those that cannot be created are left out:
    /// they are reported where they are created.
    pub(super) fn required(&self) -> Vec<Required> {
        let tables = self.experiment().objective.iter().zip(&self.objectives).enumerate();
        let own = tables.filter(|(index, (_, (_, manifest)))| !self.has_own_text(*index, manifest));
        let requirements = own.map(|(index, (table, (library, _)))| {
            let id = table.plugin.clone();
            let instance = breadcrumb::within(&id, "create", || library.objective(&table.options)).ok()?;
            let requirements = breadcrumb::within(&id, "requirements", || instance.requirements()).ok()?;
            breadcrumb::within(&id, "destroy", || drop(instance));
            Some(Required { id, key: self.loaded.key_of("objective", index), requirements })
        });
        requirements.flatten().collect()
    }

    /// Checks that every row has the columns that the objectives read, with values that they allow; returns whether it does.
    ///
    /// # Errors
    /// Failures that are not mistakes. A mistake names file and line of the first wrong row, and the number of such rows.
    pub(super) fn check_objective_columns(
        &self,
        required: &[Required],
        corpus: &RowCorpus,
        mistakes: &mut Mistakes,
    ) -> Result<bool> {
        let sides = [&*corpus.train, &*corpus.held_out];
        let mut fits = true;
        for Required { id, requirements, .. } in required {
            for column in &requirements.columns {
                fits &= mistakes.check("data", check_column(id, column, Every(&sides)))?.is_some();
            }
        }
        Ok(fits)
    }
}

fn check_column(id: &str, column: &ObjectiveColumn, rows: Every<'_>) -> Result<()> {
    let (mut first, mut others) = (None, 0);
    for row in rows.iter() {
        let row = row?;
        match wrong(&row, column) {
            Some(wrong) if first.is_none() => first = Some((row.place, wrong)),
            Some(_) => others += 1,
            None => {}
        }
    }
    let Some((place, (key, what))) = first else { return Ok(()) };
    let more = match others {
        0 => String::new(),
        1 => "; one more row has such a mistake".to_owned(),
        others => format!("; {others} more rows have such a mistake"),
    };
    let ObjectiveColumn { name, per_segment, .. } = column;
    let values = if *per_segment { ", with one value per segment of its answer" } else { "" };
    let hint = format!(
        "objective \"{id}\" reads the column `{name}` of every row{values}: fix the row or remove it; if the file's column has \
         another name, give data.columns.{name}"
    );
    let error = DataError::Json { place, key, what: what + &more };
    Err(Error::from(error).with_hint(hint))
}

/// Returns the key of a wrong value and what is wrong with it.
fn wrong(row: &Row, column: &ObjectiveColumn) -> Option<(String, String)> {
    let name = &column.name;
    let range = range(column);
    let value = row.columns.get(name).filter(|value| !value.is_null());
    let fits = |value: &Value| {
        number(value)
            .is_some_and(|n| column.least.is_none_or(|least| n >= least) && column.most.is_none_or(|most| n <= most))
    };
    if !column.per_segment {
        return match value {
            None => Some((name.clone(), format!("missing; expected {range}"))),
            Some(value) if fits(value) => None,
            Some(value) => Some((name.clone(), format!("expected {range}, found {value}"))),
        };
    }
    let segments = row.segments.len();
    if segments == 0 {
        let what = "one text, expected a list of texts, the answer's segments, as `completions`";
        return Some(("completion".to_owned(), what.to_owned()));
    }
    let list = match value {
        None => {
            return Some((name.clone(), format!("missing; expected a list with one value per segment, {segments}")));
        }
        Some(Value::Array(list)) => list,
        Some(value) => {
            return Some((
                name.clone(),
                format!("expected a list with one value per segment, {segments}, found {value}"),
            ));
        }
    };
    if let Some((index, value)) = list.iter().enumerate().find(|(_, value)| !fits(value)) {
        return Some((format!("{name}[{index}]"), format!("expected {range}, found {value}")));
    }
    let (values, parts) = (counted(list.len(), "value"), counted(segments, "segment"));
    (list.len() != segments)
        .then(|| (name.clone(), format!("{values}, but the answer has {parts}; expected one value per segment")))
}

/// The allowed values in words.
fn range(column: &ObjectiveColumn) -> String {
    match (column.least, column.most) {
        (Some(least), Some(most)) => format!("a number from {least} to {most}"),
        (Some(least), None) => format!("a number of at least {least}"),
        (None, Some(most)) => format!("a number of at most {most}"),
        (None, None) => "a number".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::rows::{Columns, RowKind, Rows, read::jsonl};
    use serde_json::json;

    fn row(line: Value) -> Row {
        let rows =
            jsonl::parse("rows.jsonl".as_ref(), &line.to_string(), RowKind::PromptCompletion, &Columns::default());
        rows.unwrap().remove(0)
    }

    /// Catches labels that are counted only where there are too few, values beyond the range, a list that is read as missing, and
    /// true and false that are refused.
    #[test]
    fn every_segment_has_its_value() {
        let column = ObjectiveColumn { name: "labels".into(), per_segment: true, least: Some(0.0), most: Some(1.0) };
        let check = |labels: Value| {
            let row = row(json!({"prompt": "p", "completions": ["a", "b"], "labels": labels}));
            wrong(&row, &column).map(|(key, what)| format!("{key}: {what}"))
        };
        for good in [json!([0, 1]), json!([0.5, true]), json!([false, 1.0])] {
            assert_eq!(check(good), None);
        }
        for (bad, expected) in [
            (json!(null), "labels: missing; expected a list"),
            (json!([1]), "labels: 1 value, but the answer has 2 segments"),
            (json!([1, 0, 1]), "labels: 3 values, but the answer has 2 segments"),
            (json!([1, 7]), "labels[1]: expected a number from 0 to 1, found 7"),
            (json!([-1, 0]), "labels[0]: expected a number from 0 to 1, found -1"),
            (json!([null, 0]), "labels[0]: expected a number from 0 to 1, found null"),
            (json!(["1", 0]), "labels[0]: expected a number from 0 to 1, found \"1\""),
            (json!("[1,0]"), "labels: expected a list with one value per segment, 2, found \"[1,0]\""),
            (json!(1), "labels: expected a list"),
        ] {
            let found = check(bad.clone()).unwrap_or_default();
            assert!(found.starts_with(expected), "{bad}: {found}");
        }
        let text = row(json!({"prompt": "p", "completion": "a", "labels": [1]}));
        assert!(wrong(&text, &column).unwrap().1.contains("expected a list of texts"));
    }

    /// Catches a plain column whose range is not checked, and a refusal without file, line, remedy or the number of wrong rows.
    #[test]
    fn plain_columns_have_their_range_and_the_first_wrong_row_is_named() {
        let column = ObjectiveColumn { name: "w".into(), least: Some(0.0), ..Default::default() };
        let lines = [json!(1), json!(-2), json!(null), json!("x")]
            .map(|w| row(json!({"prompt": "p", "completion": "a", "w": w})));
        let (first, all) = (Rows::of(lines[..1].to_vec()).unwrap(), Rows::of(lines.to_vec()).unwrap());
        assert!(check_column("weighted", &column, Every(&[&first])).is_ok());
        let report = check_column("weighted", &column, Every(&[&all])).unwrap_err().report();
        for part in [
            "rows.jsonl:1: `w`: expected a number of at least 0, found -2; 2 more rows",
            "\"weighted\"",
            "data.columns.w",
        ] {
            assert!(report.contains(part), "{part} is missing in {report}");
        }
    }
}
