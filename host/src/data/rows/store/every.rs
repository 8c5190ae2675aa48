//! The rows of several sets, one set after the other.

use plugin_api::batch::names;

use super::Rows;
use super::survey::Survey;
use crate::data::error::{DataError, Result};
use crate::data::rows::counts::NOT_IN;
use crate::data::rows::row::Row;
use crate::data::rows::text::numbers;

/// The rows of several sets, one set after the other.
#[derive(Clone, Copy, Debug)]
pub struct Every<'a>(pub &'a [&'a Rows]);

impl Every<'_> {
    /// What the columns of all of them hold.
    pub fn survey(self) -> Survey {
        let mut all = Survey::default();
        self.0.iter().for_each(|rows| all.extend(rows.survey()));
        all
    }

    /// All rows in order.
    pub fn iter(&self) -> impl Iterator<Item = Result<Row>> {
        self.0.iter().flat_map(|rows| rows.iter())
    }

    /// Row number `index` of all of them; `None` if there are fewer.
    ///
    /// # Errors
    /// A disk that cannot be read.
    pub fn get(self, mut index: usize) -> Result<Option<Row>> {
        for rows in self.0 {
            if index < rows.len() {
                return rows.get(index);
            }
            index -= rows.len();
        }
        Ok(None)
    }

    /// The first row for which `wanted` is true.
    ///
    /// # Errors
    /// A disk that cannot be read.
    pub fn find(self, mut wanted: impl FnMut(&Row) -> bool) -> Result<Option<Row>> {
        for row in self.iter() {
            let row = row?;
            if wanted(&row) {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    /// Columns with lists of numbers in every row, and columns with them in only some rows, each with the first row that has
    /// none.
    ///
    /// # Errors
    /// A column of lists whose number of values would have the name of another column; rows that cannot be read again.
    pub fn list_columns(self) -> Result<(Vec<String>, Vec<String>)> {
        let survey = self.survey();
        let (mut whole, mut ragged) = (Vec::new(), Vec::new());
        for (name, lists) in survey.lists() {
            if lists < survey.rows {
                let without = self.find(|row| row.columns.get(name).and_then(numbers).is_none())?;
                let place = without.map(|row| row.place.to_string()).unwrap_or_default();
                ragged.push(format!("{name}{NOT_IN}{place})"));
                continue;
            }
            let length = format!("{name}{}", names::LENGTH);
            if survey.has_column(&length)
                && let Some(row) = self.find(|row| row.columns.contains_key(&length))?
            {
                let what = format!("the name of the number of values of the list `{name}`; rename one of them");
                return Err(DataError::Json { place: row.place, key: length, what });
            }
            whole.push(name.to_owned());
        }
        Ok((whole, ragged))
    }
}
