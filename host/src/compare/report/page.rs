//! The comparison as one HTML page: the sections of the tables, and the losses as a picture. It needs no network and no other file.

use std::{fmt::Write, fs, path::Path};

use super::{Comparison, plot, tables::Section};
use crate::error::{Error, Result};

const STYLE: &str = include_str!("page.css");

/// Writes the page.
///
/// # Errors
/// A failed run naming the file.
pub fn write(comparison: &Comparison, path: &Path) -> Result<()> {
    let text = page(comparison)?;
    fs::write(path, text).map_err(|cause| Error::run(format!("cannot write {}", path.display())).with_cause(cause))
}

/// Whether a text is a page of a comparison.
pub fn is_page(text: &str) -> bool {
    text.starts_with(START) && text.contains("<title>telos compare: ")
}

const START: &str = "<!doctype html>\n<html lang=\"en\">\n<head>\n";

fn page(comparison: &Comparison) -> Result<String> {
    let title = escaped(&format!("telos compare: {}", comparison.name));
    let mut body = format!("<h1>{title}</h1>\n<p>{}</p>\n", escaped(&comparison.headline()));
    for section in comparison.sections() {
        body.push_str(&html(&section));
    }
    let picture = plot::draw(comparison)?;
    Ok(format!(
        "{START}<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n\
         <body>\n{body}<h2>losses</h2>\n<figure>\n{picture}</figure>\n</body>\n</html>\n"
    ))
}

fn html(Section { title, rows, lines }: &Section) -> String {
    let mut text = String::new();
    if !title.is_empty() {
        _ = writeln!(text, "<h2>{}</h2>", escaped(title));
    }
    if let Some((heads, rows)) = rows.split_first() {
        let cells = |cells: &[String], name: &str| {
            let cell = |(column, cell): (usize, &String)| match column {
                0 => format!("<th>{}</th>", escaped(cell)),
                _ => format!("<{name}>{}</{name}>", escaped(cell)),
            };
            cells.iter().enumerate().map(cell).collect::<String>()
        };
        _ = writeln!(text, "<div class=\"table\"><table>\n<tr>{}</tr>", cells(heads, "th"));
        rows.iter().for_each(|row| _ = writeln!(text, "<tr>{}</tr>", cells(row, "td")));
        text.push_str("</table></div>\n");
    }
    let lines: Vec<String> = lines.iter().filter(|line| !line.is_empty()).map(|line| escaped(line)).collect();
    if !lines.is_empty() {
        _ = writeln!(text, "<pre>{}</pre>", lines.join("\n"));
    }
    text
}

/// Text as HTML: names of files, options and plugins are a user's.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches text of a user that becomes markup, and cells that move into another column.
    #[test]
    fn cells_keep_their_columns_and_their_text() {
        let rows = [["", "a<b&\"c\""], ["speed", "1"]].map(|row| row.map(String::from).to_vec()).to_vec();
        let section = Section { title: "t".into(), rows, lines: vec![String::new(), "x > y".into()] };
        assert_eq!(
            html(&section),
            "<h2>t</h2>\n<div class=\"table\"><table>\n<tr><th></th><th>a&lt;b&amp;&quot;c&quot;</th></tr>\n\
             <tr><th>speed</th><td>1</td></tr>\n</table></div>\n<pre>x &gt; y</pre>\n"
        );
    }
}
