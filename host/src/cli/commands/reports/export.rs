//! `telos export`.

use std::path::PathBuf;

use clap::Args;

use crate::cli::{out::check_new, print};
use crate::error::Result;
use crate::report::{
    Report,
    export::{Format, Table},
};

/// Write the metrics of runs as one table, CSV or Parquet, for pandas, R or a spreadsheet.
///
/// A row is a step or an evaluation: run, step, kind (train or eval), and a column for each metric, empty where it was not
/// measured. NaN stands for a number that was not finite.
#[derive(Debug, Args)]
pub struct Export {
    /// Folders of runs or pipelines.
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The file to write; its ending, .csv or .parquet, decides the format.
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
}

pub(in crate::cli) fn execute(args: Export) -> Result<()> {
    Format::of(&args.out)?;
    check_new("--out", &args.out)?;
    let report = Report::read(&args.runs)?;
    let table = Table::of(&report);
    table.write(&args.out)?;
    report.left_out().for_each(|line| print::err(&format!("note: {line}\n")));
    print::out(&format!("{}: {} rows, {} metrics\n", args.out.display(), table.rows.len(), table.metrics.len()))
}
