//! The metrics of runs as one table for other programs: CSV or Parquet, a row for each step and evaluation.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    path::Path,
    sync::Arc,
};

use parquet::{
    basic::{LogicalType, Repetition, Type as Physical},
    data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type},
    errors::{ParquetError, Result as ParquetResult},
    file::{
        properties::WriterProperties,
        writer::{SerializedFileWriter, SerializedRowGroupWriter},
    },
    schema::types::Type,
};

use super::{
    Labelled, Report,
    record::{EVAL, Points},
};
use crate::error::{Error, Result};

/// The rows of all runs.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Table {
    /// The metrics' names, in alphabetical order.
    pub metrics: Vec<String>,
    /// The rows, run by run, in the order of their steps.
    pub rows: Vec<Row>,
}

/// One step or evaluation.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The run: its name, or PIPELINE/STAGE; with folders where names are equal.
    pub run: String,
    /// The step.
    pub step: u64,
    /// `train` or `eval`.
    pub kind: &'static str,
    /// The values by the metrics' places; missing ones are absent, NaN where the log has null.
    pub values: BTreeMap<usize, f64>,
}

impl Table {
    /// All numbers of metrics.jsonl, and speed and memory of timing.jsonl. Metrics of evaluations keep their prefix `eval/`.
    pub fn of(report: &Report) -> Table {
        let columns = |run: &super::record::RunRecord| -> Vec<(String, Points)> {
            let all = run.metrics.iter().chain(&run.timing);
            all.map(|(name, points)| (name.clone(), points.clone())).collect()
        };
        let names: BTreeSet<String> = report.runs().flat_map(|own| columns(&own.run)).map(|(name, _)| name).collect();
        let metrics: Vec<String> = names.into_iter().collect();
        let mut rows = Vec::new();
        let runs = report.groups.iter().flat_map(|group| group.runs.iter().map(move |own| (&group.title, own)));
        for (stage, Labelled { label, run }) in runs {
            let mut own: BTreeMap<(u64, &'static str), BTreeMap<usize, f64>> = BTreeMap::new();
            for (name, points) in columns(run) {
                let kind = if name.starts_with(EVAL) { "eval" } else { "train" };
                let Ok(at) = metrics.binary_search(&name) else { continue };
                for (step, value) in points {
                    own.entry((step as u64, kind)).or_default().insert(at, value);
                }
            }
            let run = if stage.is_empty() { label.clone() } else { format!("{label}/{stage}") };
            rows.extend(own.into_iter().map(|((step, kind), values)| Row { run: run.clone(), step, kind, values }));
        }
        Table { metrics, rows }
    }

    /// Writes the table; the file's ending decides the format.
    ///
    /// # Errors
    /// A request error for another ending; the path and the system's error.
    pub fn write(&self, path: &Path) -> Result<()> {
        match Format::of(path)? {
            Format::Csv => self.write_csv(path).map_err(|cause| failed(path).with_cause(cause)),
            Format::Parquet => self.write_parquet(path).map_err(|cause| failed(path).with_cause(cause)),
        }
    }

    fn write_csv(&self, path: &Path) -> csv::Result<()> {
        let mut writer = csv::Writer::from_path(path)?;
        let heads = ["run", "step", "kind"].map(str::to_owned);
        writer.write_record(heads.iter().chain(&self.metrics))?;
        for row in &self.rows {
            let lead = [row.run.clone(), row.step.to_string(), row.kind.to_owned()];
            // The shortest text that reads back as the same bits.
            let value = |at| row.values.get(&at).map_or_else(String::new, |value: &f64| value.to_string());
            writer.write_record(lead.into_iter().chain((0..self.metrics.len()).map(value)))?;
        }
        writer.flush()?;
        Ok(())
    }

    fn write_parquet(&self, path: &Path) -> ParquetResult<()> {
        let text = Some(LogicalType::String);
        let mut fields = vec![
            field("run", Physical::BYTE_ARRAY, Repetition::REQUIRED, text.clone())?,
            field("step", Physical::INT64, Repetition::REQUIRED, None)?,
            field("kind", Physical::BYTE_ARRAY, Repetition::REQUIRED, text)?,
        ];
        for name in &self.metrics {
            fields.push(field(name, Physical::DOUBLE, Repetition::OPTIONAL, None)?);
        }
        let schema = Arc::new(Type::group_type_builder("metrics").with_fields(fields).build()?);
        let mut writer = SerializedFileWriter::new(File::create(path)?, schema, Arc::new(WriterProperties::default()))?;
        let mut group = writer.next_row_group()?;
        let texts = |of: fn(&Row) -> &str| -> Vec<ByteArray> { self.rows.iter().map(|row| of(row).into()).collect() };
        let steps: Vec<i64> = self.rows.iter().map(|row| i64::try_from(row.step).unwrap_or(i64::MAX)).collect();
        column::<ByteArrayType, _>(&mut group, &texts(|row| &row.run), None)?;
        column::<Int64Type, _>(&mut group, &steps, None)?;
        column::<ByteArrayType, _>(&mut group, &texts(|row| row.kind), None)?;
        for at in 0..self.metrics.len() {
            let values: Vec<f64> = self.rows.iter().filter_map(|row| row.values.get(&at).copied()).collect();
            // 1 where a row has a value.
            let present: Vec<i16> = self.rows.iter().map(|row| i16::from(row.values.contains_key(&at))).collect();
            column::<DoubleType, _>(&mut group, &values, Some(&present))?;
        }
        group.close()?;
        writer.close()?;
        Ok(())
    }
}

fn field(name: &str, kind: Physical, repetition: Repetition, logical: Option<LogicalType>) -> ParquetResult<Arc<Type>> {
    let builder = Type::primitive_type_builder(name, kind).with_repetition(repetition).with_logical_type(logical);
    Ok(Arc::new(builder.build()?))
}

/// Writes the next column: its values, and where a row has one.
fn column<T: parquet::data_type::DataType, W: std::io::Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    values: &[T::T],
    present: Option<&[i16]>,
) -> ParquetResult<()> {
    let missing = || ParquetError::General("a row group has fewer columns than its schema".into());
    let mut column = group.next_column()?.ok_or_else(missing)?;
    column.typed::<T>().write_batch(values, present, None)?;
    column.close()
}

fn failed(path: &Path) -> Error {
    Error::run(format!("cannot write {}", path.display()))
}

/// The format of an exported table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Comma-separated values with a line of names.
    Csv,
    /// Apache Parquet.
    Parquet,
}

impl Format {
    /// The format that a file's ending names.
    ///
    /// # Errors
    /// A request error for another ending.
    pub fn of(path: &Path) -> Result<Format> {
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("csv") => Ok(Format::Csv),
            Some("parquet") => Ok(Format::Parquet),
            _ => Err(Error::request(format!("--out: {} ends neither in .csv nor in .parquet", path.display()))
                .with_hint("the ending decides the format, for example metrics.csv")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Group, record::tests::empty_run};
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::Field;

    fn table() -> Table {
        let mut run = empty_run();
        run.metrics.insert("loss".into(), vec![(1.0, 0.1 + 0.2), (2.0, f64::NAN)]);
        run.metrics.insert("eval/loss".into(), vec![(0.0, 3.0), (2.0, 1.0)]);
        let runs = vec![Labelled { label: "a,b".into(), run }];
        Table::of(&Report {
            title: String::new(),
            groups: vec![Group { title: String::new(), runs }],
            remarks: vec![],
            studies: vec![],
        })
    }

    /// Catches an evaluation in the row of a step, a value in another column, lost digits, and a name that splits a column.
    #[test]
    fn csv_has_a_row_for_each_step_and_evaluation() {
        let file = tempfile::Builder::new().suffix(".csv").tempfile().unwrap();
        table().write(file.path()).unwrap();
        let expected = "run,step,kind,eval/loss,loss\n\"a,b\",0,eval,3,\n\"a,b\",1,train,,0.30000000000000004\n\
                        \"a,b\",2,eval,1,\n\"a,b\",2,train,,NaN\n";
        assert_eq!(std::fs::read_to_string(file.path()).unwrap(), expected);
    }

    /// Catches a missing value that becomes 0 or NaN.
    #[test]
    fn parquet_keeps_missing_values_apart_from_numbers() {
        let file = tempfile::Builder::new().suffix(".parquet").tempfile().unwrap();
        table().write(file.path()).unwrap();
        let reader = SerializedFileReader::new(File::open(file.path()).unwrap()).unwrap();
        let rows: Vec<_> = reader.get_row_iter(None).unwrap().map(Result::unwrap).collect();
        let loss = |at: usize| rows[at].get_column_iter().find(|(name, _)| *name == "loss").unwrap().1.clone();
        assert_eq!([loss(0), loss(1), loss(2)], [Field::Null, Field::Double(0.1 + 0.2), Field::Null]);
        assert!(matches!(loss(3), Field::Double(value) if value.is_nan()));
        assert_eq!(rows.len(), 4);
    }

    #[test]
    fn another_ending_is_refused() {
        assert!(table().write(Path::new("metrics.xlsx")).unwrap_err().report().contains(".parquet"));
    }
}
