//! What `list` and `show` print alike: entries as JSON, and tables with aligned columns.

use std::fmt::Write as _;

use plugin_api_load::PluginInfo;
use serde_json::{Value, json};

pub(super) fn entry_json(info: &PluginInfo) -> Value {
    json!({
        "kind": info.kind,
        "id": info.id,
        "version": info.version,
        "contract": contract(info),
        "requires": format!("{}.{}", info.abi_major, info.requires_minor),
        "preload": info.preload,
        "remedy": info.remedy,
        "file": info.path.to_string_lossy(),
        "loadable": info.check_version().is_ok(),
    })
}

pub(super) fn contract(info: &PluginInfo) -> String {
    format!("{}.{}", info.abi_major, info.abi_minor)
}

/// Pads columns to their widest cell, except the last one.
pub(super) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    text
}

/// A heading and a table under it; empty if there are no rows.
pub(super) fn section<const N: usize>(text: &mut String, heading: &str, head: [&str; N], rows: Vec<[String; N]>) {
    if rows.is_empty() {
        return;
    }
    let rows: Vec<_> = std::iter::once(head.map(String::from)).chain(rows).collect();
    let indented: String = table(&rows).lines().map(|line| format!("  {line}\n")).collect();
    _ = write!(text, "\n{heading}\n{indented}");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a table whose columns touch or whose lines end with spaces.
    #[test]
    fn columns_line_up() {
        let row = |cells: [&str; 3]| cells.map(String::from);
        let text =
            table(&[row(["ID", "TYPE", "MEANING"]), row(["label_smoothing", "float", "ä"]), row(["z", "int", ""])]);
        assert_eq!(text, "ID               TYPE   MEANING\nlabel_smoothing  float  ä\nz                int\n");
    }
}
