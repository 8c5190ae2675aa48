//! The comparison as one HTML page: the sections of the tables, and the losses as a picture. It needs no network and no other file.

use std::{fmt::Write, fs, path::Path};

use super::{Comparison, plot, tables::Section};
use crate::error::{Error, Result};
use crate::html::{self, escaped};

/// How the titles of these pages begin.
const TITLE: &str = "telos compare: ";

/// Writes the page.
///
/// # Errors
/// A failed run naming the file.
pub fn write(comparison: &Comparison, path: &Path) -> Result<()> {
    let text = page(comparison)?;
    fs::write(path, text).map_err(|cause| Error::run(format!("cannot write {}", path.display())).with_cause(cause))
}

/// Whether a file is a page of a comparison.
pub fn is_page(bytes: &[u8]) -> bool {
    html::title_of(bytes).is_some_and(|title| title.starts_with(TITLE))
}

fn page(comparison: &Comparison) -> Result<String> {
    let title = format!("{TITLE}{}", comparison.name);
    let mut body = format!("<h1>{}</h1>\n<p>{}</p>\n", escaped(&title), escaped(&comparison.headline()));
    comparison.sections().iter().for_each(|section| body.push_str(&html(section)));
    let picture = plot::draw(comparison)?;
    _ = write!(body, "<h2>losses</h2>\n<figure>\n{picture}</figure>\n");
    Ok(html::page(&title, "", &body))
}

fn html(Section { title, rows, lines }: &Section) -> String {
    let mut text = String::new();
    if !title.is_empty() {
        _ = writeln!(text, "<h2>{}</h2>", escaped(title));
    }
    text.push_str(&html::table(rows));
    let lines: Vec<String> = lines.iter().filter(|line| !line.is_empty()).map(|line| escaped(line)).collect();
    if !lines.is_empty() {
        _ = writeln!(text, "<pre>{}</pre>", lines.join("\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a section that loses its heading or its lines.
    #[test]
    fn a_section_has_its_heading_table_and_lines() {
        let rows = [["", "a"], ["speed", "1"]].map(|row| row.map(String::from).to_vec()).to_vec();
        let section = Section { title: "t".into(), rows: rows.clone(), lines: vec![String::new(), "x > y".into()] };
        assert_eq!(html(&section), format!("<h2>t</h2>\n{}<pre>x &gt; y</pre>\n", html::table(&rows)));
    }
}
