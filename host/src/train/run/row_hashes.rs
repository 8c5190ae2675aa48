//! `rows.txt` in a run's folder: a hash of each row that the run learns from or is evaluated on, in order. It distinguishes
//! rows that were fixed, which `--fixed-rows` accepts, from rows that were moved: after a move, the remaining rows would be
//! different ones.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::ANOTHER_RUN;
use crate::{
    data::{Examples, TrainingData, cache::hex},
    error::{Error, Result},
    files,
    runs::disk::write_durably,
};

/// The file's name.
pub const FILE: &str = "rows.txt";

/// Maximum number of row numbers to list.
const NAMED: usize = 10;

/// The hashes of training and held-out rows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RowHashes {
    train: Vec<String>,
    held_out: Vec<String>,
}

impl RowHashes {
    /// Hashes the rows of `data`; `None` for running text.
    pub fn of(data: &TrainingData) -> Option<RowHashes> {
        data.rows.as_ref()?;
        Some(RowHashes { train: hashes(&*data.train), held_out: hashes(&*data.held_out) })
    }

    /// Reads them from a run's folder; `None` for a run from before they were written.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn read(run: &Path) -> Result<Option<RowHashes>> {
        let path = run.join(FILE);
        let text = match files::read_to_string(&path) {
            Ok(text) => text,
            Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(Error::run(format!("cannot read {}", path.display())).with_cause(cause)),
        };
        let side = |name: &str| {
            text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).map(str::to_owned).collect()
        };
        Ok(Some(RowHashes { train: side("train"), held_out: side("held-out") }))
    }

    /// Writes them into a run's folder.
    ///
    /// # Errors
    /// Errors of the file system.
    pub fn write(&self, path: &Path) -> Result<()> {
        let lines =
            |name: &str, side: &[String]| side.iter().map(|hash| format!("{name} {hash}\n")).collect::<String>();
        let text = lines("train", &self.train) + &lines("held-out", &self.held_out);
        write_durably(path, text.as_bytes())
    }

    /// Returns a sentence with the number of rows that differ from `earlier`, and which they are.
    ///
    /// # Errors
    /// A request error if rows were added, removed or moved.
    pub fn fixed_since(&self, earlier: &RowHashes) -> Result<String> {
        let train = fixed("training", &earlier.train, &self.train)?;
        let held_out = fixed("held-out", &earlier.held_out, &self.held_out)?;
        Ok(if self.held_out.is_empty() { train } else { format!("{train}; {held_out}") })
    }
}

fn hashes(examples: &dyn Examples) -> Vec<String> {
    // Rows are hashed whole, whatever the context.
    let rows = examples.in_order(usize::MAX, false);
    let hash = |row| {
        let mut hash = Sha256::new();
        for sequence in examples.sequences(row, None, 0) {
            hash.update((sequence.ids.len() as u64).to_le_bytes());
            sequence.ids.iter().for_each(|id| hash.update(id.to_le_bytes()));
            sequence.supervised.iter().for_each(|counts| hash.update([u8::from(*counts)]));
            for (name, number) in sequence.columns.iter().chain(&sequence.per_sequence) {
                hash.update(format!("{name} {:x} ", number.to_bits()));
            }
            for (name, list) in &sequence.lists {
                hash.update(format!("{name} {} ", list.len()));
                list.iter().for_each(|number| hash.update(number.to_le_bytes()));
            }
            for id in sequence.context_prompt.iter().flatten() {
                hash.update(id.to_le_bytes());
            }
            for (name, values) in &sequence.of_tokens {
                hash.update(name);
                values.iter().for_each(|number| hash.update(number.to_le_bytes()));
            }
        }
        hex(hash.finalize().get(..8).unwrap_or_default())
    };
    rows.into_iter().map(hash).collect()
}

/// Describes the rows of one side that differ.
fn fixed(side: &str, old: &[String], new: &[String]) -> Result<String> {
    let refused = |what: String| {
        Error::request(format!("{what}; --fixed-rows accepts only rows that were fixed in place"))
            .with_hint(format!("restore the order of the rows, or {ANOTHER_RUN}"))
    };
    if old.len() != new.len() {
        return Err(refused(format!("there were {} {side} rows, and there are {} now", old.len(), new.len())));
    }
    let differ: Vec<usize> = (0..old.len()).filter(|row| old.get(*row) != new.get(*row)).collect();
    let old_places: HashMap<&String, usize> = differ.iter().filter_map(|row| Some((old.get(*row)?, *row))).collect();
    let moved = differ.iter().find_map(|row| Some((row, old_places.get(new.get(*row)?)?)));
    if let Some((to, from)) = moved {
        return Err(refused(format!("{side} row {} is now where row {} was", from + 1, to + 1)));
    }
    let mut names: Vec<String> = differ.iter().take(NAMED).map(|row| (row + 1).to_string()).collect();
    if differ.len() > NAMED {
        names.push("...".to_owned());
    }
    let which = if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) };
    Ok(format!("{} of {} {side} rows were fixed{which}", differ.len(), old.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(text: &str) -> Vec<String> {
        text.chars().map(String::from).collect()
    }

    /// Catches rows that were moved, added or removed and are accepted as fixed ones, and fixed ones that are not named.
    #[test]
    fn fixed_rows_are_distinguished_from_moved_ones() {
        let describe = |old: &str, new: &str| fixed("training", &side(old), &side(new));
        assert_eq!(describe("abcd", "abcd").unwrap(), "0 of 4 training rows were fixed");
        assert_eq!(describe("abca", "axca").unwrap(), "1 of 4 training rows were fixed (2)");
        assert_eq!(describe(&"a".repeat(12), &"b".repeat(12)).unwrap().matches(", ").count(), 10);
        for (new, expected) in [("bacd", "row 2 is now where row 1 was"), ("xabd", "row 1 is now where row 2 was")] {
            let error = describe("abcd", new).unwrap_err();
            assert!(error.exit_code() == 2 && error.message().contains(expected), "{}", error.report());
        }
        assert!(describe("abcd", "abc").is_err() && describe("abc", "abcd").is_err());
    }

    /// Catches hashes that do not read back as they were written.
    #[test]
    fn written_hashes_read_back() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(RowHashes::read(folder.path()).unwrap(), None);
        let hashes = RowHashes { train: side("abc"), held_out: side("d") };
        hashes.write(&folder.path().join(FILE)).unwrap();
        assert_eq!(RowHashes::read(folder.path()).unwrap(), Some(hashes));
    }
}
