//! Pages for a browser: text as HTML, tables, and the frame of a page that needs no network and no other file.

use std::fmt::Write;

const STYLE: &str = include_str!("html.css");

/// How a page begins; [`title_of`] reads it back.
const START: &str = "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
                     <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>";

/// A page. `head` is HTML for the end of the head.
pub fn page(title: &str, head: &str, body: &str) -> String {
    let title = escaped(title);
    format!("{START}{title}</title>\n<style>\n{STYLE}</style>\n{head}</head>\n<body>\n{body}</body>\n</html>\n")
}

/// The title of a file that [`page`] made, escaped as there; `None` for any other file.
pub fn title_of(bytes: &[u8]) -> Option<&str> {
    str::from_utf8(bytes).ok()?.strip_prefix(START)?.split_once("</title>").map(|(title, _)| title)
}

/// Text as HTML: names of files, options and plugins, and what a model writes, are not ours.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A table of plain text; the first row and the first column are headings. Empty without rows.
pub fn table(rows: &[Vec<String>]) -> String {
    let mut text = String::new();
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
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches text of a user that becomes markup, and cells that move into another column.
    #[test]
    fn cells_keep_their_columns_and_their_text() {
        let rows = [["", "a<b&\"c\""], ["speed", "1"]].map(|row| row.map(String::from).to_vec());
        assert_eq!(
            table(&rows),
            "<div class=\"table\"><table>\n<tr><th></th><th>a&lt;b&amp;&quot;c&quot;</th></tr>\n\
             <tr><th>speed</th><td>1</td></tr>\n</table></div>\n"
        );
        assert_eq!(table(&[]), "");
    }

    /// Catches a check for earlier pages that accepts any page, or refuses one whose title has markup in it.
    #[test]
    fn a_title_is_read_back() {
        assert_eq!(title_of(page("a <b>", "", "").as_bytes()), Some("a &lt;b&gt;"));
        assert_eq!(title_of(b"<!doctype html><title>x</title>"), None);
    }
}
