//! The table of arrays on the front page has every name of the contract.

use plugin_api::manifest::Statistic;

/// The first cells of the rows of the front page's table of arrays.
fn arrays() -> Vec<String> {
    let page = include_str!("../src/lib.rs");
    let table = page.split("//! # Which arrays there are").nth(1).expect("the section exists");
    let rows = table.lines().skip_while(|line| !line.starts_with("//! | array |")).skip(2);
    let rows = rows.take_while(|line| line.starts_with("//! |"));
    rows.filter_map(|row| row.split(" | ").nth(1)).map(str::to_owned).collect()
}

fn has(rows: &[String], name: &str) -> bool {
    rows.iter().any(|cell| cell.contains(&format!("`{name}`")))
}

/// Catches a name that is declared and not in the table, where authors look for it.
#[test]
fn every_name_of_an_array_is_in_the_table() {
    let (rows, source) = (arrays(), include_str!("../src/batch.rs"));
    assert!(rows.len() > 30, "{rows:?}");
    let declared: Vec<&str> = source
        .lines()
        .filter(|line| line.trim_start().starts_with("pub const") && line.contains(": &str = "))
        .filter_map(|line| line.split('"').nth(1))
        .collect();
    assert!(declared.len() >= 22 && declared.contains(&"offsets") && declared.contains(&".length"), "{declared:?}");
    for name in declared {
        // Prefixes and suffixes stand for a family of names.
        let shown = match (name.ends_with('.'), name.starts_with('.')) {
            (true, _) => format!("{name}NAME"),
            (_, true) => format!("NAME{name}"),
            _ => name.to_owned(),
        };
        assert!(has(&rows, &shown), "`{shown}` is not in the table of arrays of src/lib.rs");
    }
    for name in Statistic::ALL {
        let of_role = ["teacher", "critic"].iter().any(|role| has(&rows, &format!("{role}.{name}")));
        assert!(has(&rows, name) || of_role, "the statistic `{name}` is not in the table of arrays of src/lib.rs");
    }
}
