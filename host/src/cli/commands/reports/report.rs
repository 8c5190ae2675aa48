//! `telos report`.

use std::path::PathBuf;

use clap::Args;

use crate::cli::{out::check_own, print};
use crate::error::Result;
use crate::report::{Report, page};
use crate::runs::folder::{REPORT_FILE, is_report};

/// Write runs as one page that opens in a browser: what ran, its curves, samples, options and costs.
///
/// Several runs are drawn over one another, with a table of the options that differ. The stages of a pipeline have a section each;
/// stages of several pipelines with the same name share one. Of a study, its arms are compared by its metric, over seeds. A run may be in progress, failed, moved or damaged: the page says what
/// is missing. It needs no network and no other file.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Folders of runs, pipelines or studies.
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The file to write [default: report.html in the folder of the first run].
    #[arg(short, long, value_name = "FILE.html")]
    out: Option<PathBuf>,
}

pub(in crate::cli) fn execute(args: ReportArgs) -> Result<()> {
    let ReportArgs { runs, out } = args;
    let path = out.unwrap_or_else(|| runs[0].join(REPORT_FILE));
    let report = Report::read(&runs)?;
    check_own("--out", &path, "a report", is_report)?;
    page::write(&report, &path)?;
    print::out(&format!("{}\n", path.display()))
}
