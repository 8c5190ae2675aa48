//! Sequences that come back from `compose`.

use std::collections::BTreeSet;

use super::fault::{Fault, fault, place, sequence_of};
use crate::batch::{Batch, Scope, names};

/// Limits of a run for composed sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Ids are below this.
    pub vocab: u64,
    /// The maximum number of tokens in a sequence: the context, and one more if the last token is only predicted.
    pub longest: usize,
}

/// Checks the sequences that `compose` made from `rows`.
///
/// # Errors
/// The first mistake: an array that is missing, unknown, of another scope or length; a token that is not an id of the vocabulary;
/// a sequence with fewer than two tokens or with more than the model reads; a mask or side other than 0 and 1; a row that is not
/// among `rows`.
pub fn composed(rows: &Batch<'_>, answer: &Batch<'_>, limits: Limits) -> Result<(), Fault> {
    for array in answer.arrays() {
        let scope = match array.name.as_ref() {
            names::OFFSETS => Scope::BATCH,
            "token" | names::MASK | names::SEGMENT_END => Scope::TOKEN,
            "row" | "part" | names::GROUP | names::SIDE => Scope::SEQUENCE,
            name if name.starts_with(names::COLUMN) && array.scope == Scope::LIST => Scope::LIST,
            name if name.starts_with(names::COLUMN) => Scope::SEQUENCE,
            name => {
                let read = "offsets, token, mask, segment_end, row, group, side and column.NAME";
                return fault(format!("it returned `{name}`, which is not read; these arrays are: {read}"));
            }
        };
        if array.scope != scope || array.cols != 1 {
            let (name, found, cols) = (&array.name, array.scope, array.cols);
            return fault(format!(
                "it returned `{name}` per {found:?} with {cols} columns, expected one per {scope:?}"
            ));
        }
    }
    let offsets = whole_offsets(answer)?;
    answer.check()?;
    let (tokens, mask) = (answer.get("token")?, answer.mask()?);
    if offsets.last() != Some(&tokens.len()) {
        return fault(format!(
            "its `offsets` end at {:?}, expected the number of tokens, {}",
            offsets.last(),
            tokens.len()
        ));
    }
    if offsets.len() < 2 {
        return fault("it returned no sequence; return `None` to leave the rows as they are");
    }
    for (s, ends) in offsets.windows(2).enumerate() {
        let length = ends[1] - ends[0];
        if length < 2 {
            return Err(Fault::at(format!("sequence {s} has {length} tokens, expected at least 2"), Some(s)));
        }
        if length > limits.longest {
            let most = limits.longest;
            let text = format!("sequence {s} has {length} tokens, expected at most {most}, the model's context");
            return Err(Fault::at(text, Some(s)));
        }
    }
    let is_id = |id: &f64| id.fract() == 0.0 && *id >= 0.0 && *id < limits.vocab as f64;
    if let Some(n) = tokens.iter().position(|id| !is_id(id)) {
        let (at, most) = (place(&offsets, n), limits.vocab.saturating_sub(1));
        let text = format!("{at} is {}, expected a whole number from 0 to {most}, an id of the vocabulary", tokens[n]);
        return Err(Fault::at(text, sequence_of(&offsets, n)));
    }
    if let Some(n) = mask.iter().position(|m| *m != 0.0 && *m != 1.0) {
        let text = format!("`mask` is {} at {}, expected 0 or 1", mask[n], place(&offsets, n));
        return Err(Fault::at(text, sequence_of(&offsets, n)));
    }
    let ends = answer.find(names::SEGMENT_END).map(|array| array.data.as_ref()).unwrap_or_default();
    if let Some(n) = ends.iter().position(|end| *end != 0.0 && *end != 1.0) {
        let text = format!("`{}` is {} at {}, expected 0 or 1", names::SEGMENT_END, ends[n], place(&offsets, n));
        return Err(Fault::at(text, sequence_of(&offsets, n)));
    }
    for array in answer.arrays().iter().filter(|array| array.scope == Scope::LIST) {
        if let Some(value) = array.data.iter().find(|value| !value.is_finite()) {
            return fault(format!("the list `{}` holds {value}, expected finite numbers", array.name));
        }
    }
    let given: BTreeSet<u64> = rows.get("row")?.iter().map(|row| row.to_bits()).collect();
    let own = answer.get("row")?;
    if let Some(s) = own.iter().position(|row| !given.contains(&row.to_bits())) {
        return Err(Fault::at(format!("sequence {s} has row {}, which was not given", own[s]), Some(s)));
    }
    for array in answer.arrays().iter().filter(|array| array.scope == Scope::SEQUENCE) {
        let side = array.name == names::SIDE;
        let fits = |value: &f64| if side { *value == 0.0 || *value == 1.0 } else { value.is_finite() };
        if let Some(s) = array.data.iter().position(|value| !fits(value)) {
            let expected = if side { "0 or 1" } else { "a finite number" };
            let text = format!("`{}` is {} for sequence {s}, expected {expected}", array.name, array.data[s]);
            return Err(Fault::at(text, Some(s)));
        }
    }
    Ok(())
}

/// Returns the offsets as whole numbers that ascend from 0.
fn whole_offsets(answer: &Batch<'_>) -> Result<Vec<usize>, Fault> {
    let values = answer.get(names::OFFSETS)?;
    if let Some(i) = values.iter().position(|value| !(value.fract() == 0.0 && *value >= 0.0)) {
        return fault(format!("its `offsets`[{i}] is {}, expected a whole number from 0", values[i]));
    }
    Ok(answer.offsets()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Batch<'static> {
        Batch::new().with("row", Scope::SEQUENCE, vec![4.0, 4.0, 9.0])
    }

    fn answer() -> Batch<'static> {
        Batch::new()
            .with(names::OFFSETS, Scope::BATCH, vec![0.0, 2.0, 5.0])
            .with("token", Scope::TOKEN, vec![1.0, 2.0, 3.0, 4.0, 6.0])
            .with(names::MASK, Scope::TOKEN, vec![0.0, 1.0, 0.0, 1.0, 1.0])
            .with("row", Scope::SEQUENCE, vec![4.0, 9.0])
    }

    /// Catches ids that the embedding cannot look up, and numbers that are silently rounded or treated as true.
    #[test]
    fn composed_sequences_are_whole_and_within_the_models_limits() {
        let limits = Limits { vocab: 7, longest: 3 };
        assert_eq!(composed(&rows(), &answer(), limits), Ok(()));
        let pairs = answer().with(names::SIDE, Scope::SEQUENCE, vec![1.0, 0.0]);
        let pairs =
            pairs.with(names::GROUP, Scope::SEQUENCE, vec![3.0, 3.0]).with("part", Scope::SEQUENCE, vec![0.0; 2]);
        assert_eq!(composed(&rows(), &pairs.clone().with("column.m", Scope::SEQUENCE, vec![0.5; 2]), limits), Ok(()));
        let tokens = |at: usize, id: f64| {
            let mut ids = vec![1.0; 5];
            ids[at] = id;
            answer().with("token", Scope::TOKEN, ids)
        };
        let cases = [
            (tokens(3, 7.0), "token 3 (token 1 of sequence 1) is 7, expected a whole number from 0 to 6"),
            (tokens(0, -1.0), "is -1"),
            (tokens(0, 0.5), "is 0.5"),
            (tokens(0, f64::NAN), "is NaN"),
            (answer().with("token", Scope::TOKEN, vec![1.0; 4]), "`token` holds 4 values"),
            (answer().with(names::MASK, Scope::TOKEN, vec![1.0; 6]), "`mask` holds 6 values"),
            (answer().with(names::MASK, Scope::TOKEN, vec![0.0, 0.5, 0.0, 1.0, 1.0]), "`mask` is 0.5 at token 1"),
            (answer().with(names::MASK, Scope::TOKEN, vec![f64::NAN; 5]), "`mask` is NaN"),
            (answer().with("row", Scope::SEQUENCE, vec![4.0, 5.0]), "row 5, which was not given"),
            (answer().with("row", Scope::SEQUENCE, vec![-4.0, 9.0]), "row -4"),
            (answer().with("weight", Scope::TOKEN, vec![1.0; 5]), "`weight`, which is not read"),
            (answer().with("row", Scope::TOKEN, vec![4.0; 5]), "`row` per token"),
            (answer().with(names::GROUP, Scope::SEQUENCE, vec![f64::NAN; 2]), "`group` is NaN for sequence 0"),
            (pairs.with(names::SIDE, Scope::SEQUENCE, vec![1.0, 2.0]), "`side` is 2 for sequence 1, expected 0 or 1"),
            (
                answer().with(names::OFFSETS, Scope::BATCH, vec![0.0, 1.0, 5.0]),
                "sequence 0 has 1 tokens, expected at least 2",
            ),
            (answer().with(names::OFFSETS, Scope::BATCH, vec![0.0, 1.5, 5.0]), "`offsets`[1] is 1.5"),
            (answer().with(names::OFFSETS, Scope::BATCH, vec![0.0, 2.0]), "`token` holds 5 values"),
        ];
        for (answer, part) in cases {
            let why = composed(&rows(), &answer, limits).expect_err(part).text;
            assert!(why.contains(part), "{part} is missing in {why}");
        }
        let long = composed(&rows(), &answer(), Limits { vocab: 7, longest: 2 }).unwrap_err();
        assert!(
            long.text.contains("sequence 1 has 3 tokens, expected at most 2") && long.sequence == Some(1),
            "{long}"
        );
        let none = Batch::new().with(names::OFFSETS, Scope::BATCH, vec![0.0]);
        let none = ["token", names::MASK].into_iter().fold(none, |all, name| all.with(name, Scope::TOKEN, vec![]));
        let none = composed(&rows(), &none.with("row", Scope::SEQUENCE, vec![]), limits).unwrap_err();
        assert!(none.text.contains("no sequence"), "{none}");
        assert!(composed(&rows(), &Batch::new(), limits).unwrap_err().text.contains("`offsets`"));
    }
}
