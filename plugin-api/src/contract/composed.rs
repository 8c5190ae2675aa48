//! Sequences that come back from `compose`.

use std::collections::BTreeSet;

use super::description::host_owns_array;
use super::fault::{Fault, fault, place, sequence_of};
use crate::batch::{Array, Batch, Scope, names};

/// Limits of a run for composed sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Ids are below this.
    pub vocab: u64,
    /// The maximum number of tokens in a sequence: the context, and one more if the last token is only predicted.
    pub longest: usize,
    /// Columns of `candidate_ids`; `None` where the objective does not require candidates from `compose`.
    pub candidates: Option<u64>,
}

/// Checks the sequences that `compose` made from `rows`.
///
/// # Errors
/// The first mistake: an array that is missing, of the host, of another scope or length; a token that is not an id of the
/// vocabulary; a sequence with fewer than two tokens, with more than the model reads, or without a supervised one behind its first;
/// `mask`, `side` or `counted` other than 0 and 1; a row that is not among `rows`; candidates that are not different ids of the
/// vocabulary at a supervised token; a number of the objective's own that is not finite, per token where the mask is 1, per sequence
/// everywhere.
pub fn composed(rows: &Batch<'_>, answer: &Batch<'_>, limits: Limits) -> Result<(), Fault> {
    for array in answer.arrays() {
        form(array, limits)?;
    }
    if limits.candidates.is_some() && answer.find(names::CANDIDATE_IDS).is_none() {
        let what = "which the statistics `candidates` and `tail` are about";
        return fault(format!("it returned no `{}`, {what}", names::CANDIDATE_IDS));
    }
    let offsets = whole_offsets(answer)?;
    answer.check().map_err(|why| {
        let aligned = match why.message.contains("token rows") {
            true => "; arrays per token have one row for each of `token`, and the host shifts them to the targets",
            false => "",
        };
        Fault::new(why.message + aligned)
    })?;
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
            let text = format!(
                "sequence {s} has {length} tokens, expected at least 2; the parts of a row, such as a prompt and its completion, are \
                 put into one sequence"
            );
            return Err(Fault::at(text, Some(s)));
        }
        if length > limits.longest {
            let most = limits.longest;
            let text =
                format!("sequence {s} has {length} tokens, expected at most {most}, as the array `longest` says");
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
    for array in answer.arrays().iter().filter(|array| array.scope == Scope::LIST) {
        if let Some(value) = array.data.iter().find(|value| !value.is_finite()) {
            return fault(format!("the list `{}` holds {value}, expected finite numbers", array.name));
        }
    }
    // The first token of a sequence is only read.
    let learns = |ends: &&[usize]| mask[ends[0] + 1..ends[1]].contains(&1.0);
    if let Some(s) = offsets.windows(2).position(|ends| !learns(&ends)) {
        let text = format!(
            "sequence {s} has no token behind its first one with `mask` 1, so that nothing is learned from it; the parts of a row, such \
             as a prompt and its completion, are put into one sequence"
        );
        return Err(Fault::at(text, Some(s)));
    }
    let given: BTreeSet<u64> = rows.get("row")?.iter().map(|row| row.to_bits()).collect();
    let own = answer.get("row")?;
    if let Some(s) = own.iter().position(|row| !given.contains(&row.to_bits())) {
        return Err(Fault::at(format!("sequence {s} has row {}, which was not given", own[s]), Some(s)));
    }
    for array in answer.arrays().iter().filter(|array| array.scope == Scope::SEQUENCE) {
        let flag = [names::SIDE, names::COUNTED].contains(&array.name.as_ref());
        let fits = |value: &f64| if flag { *value == 0.0 || *value == 1.0 } else { value.is_finite() };
        if let Some(s) = array.data.iter().position(|value| !fits(value)) {
            let expected = if flag { "0 or 1" } else { "a finite number" };
            let text = format!("`{}` is {} for sequence {s}, expected {expected}", array.name, array.data[s]);
            return Err(Fault::at(text, Some(s)));
        }
    }
    let own = answer.arrays().iter().filter(|array| array.scope == Scope::TOKEN);
    own.into_iter().try_for_each(|array| numbers(array, mask, &offsets, limits))
}

/// Checks an array's name, and the scope and columns that follow from it.
fn form(array: &Array<'_>, limits: Limits) -> Result<(), Fault> {
    let (name, found, cols) = (array.name.as_ref(), array.scope, array.cols);
    let (scope, columns) = match name {
        // An author may return given texts with changes, `longest` among the arrays.
        names::OFFSETS | names::LONGEST => (Scope::BATCH, 1),
        "token" | names::MASK | names::SEGMENT_END => (Scope::TOKEN, 1),
        "row" | "part" | names::GROUP | names::SIDE | names::COUNTED => (Scope::SEQUENCE, 1),
        names::CANDIDATE_IDS => match limits.candidates {
            Some(count) => (Scope::TOKEN, usize::try_from(count).unwrap_or(usize::MAX)),
            None => {
                return fault(format!(
                    "it returned `{name}`, but its requirements name no candidates from `compose`, so that it is not read"
                ));
            }
        },
        _ if name.starts_with(names::COLUMN) && found == Scope::LIST => (Scope::LIST, 1),
        _ if name.starts_with(names::COLUMN) => (Scope::SEQUENCE, 1),
        _ if host_owns_array(name) => {
            return fault(format!(
                "it returned `{name}`, an array of the host, which `compose` may not return; rename it"
            ));
        }
        _ if found == Scope::TOKEN && cols > 0 => return Ok(()),
        _ if found == Scope::SEQUENCE => (Scope::SEQUENCE, 1),
        _ => {
            return fault(format!(
                "it returned `{name}` per {found:?} with {cols} columns, expected one column per sequence, or columns per token"
            ));
        }
    };
    if found == scope && cols == columns {
        return Ok(());
    }
    let expected = if columns == 1 { "one".to_owned() } else { format!("{columns} columns") };
    fault(format!("it returned `{name}` per {found:?} with {cols} columns, expected {expected} per {scope:?}"))
}

/// Checks the numbers of an array per token where the mask is 1.
fn numbers(array: &Array<'_>, mask: &[f64], offsets: &[usize], limits: Limits) -> Result<(), Fault> {
    if ["token", names::MASK].contains(&array.name.as_ref()) {
        return Ok(());
    }
    let candidates = array.name == names::CANDIDATE_IDS;
    let is_id = |id: &f64| id.fract() == 0.0 && *id >= 0.0 && *id < limits.vocab as f64;
    let flag = array.name == names::SEGMENT_END;
    let fits = |value: &f64| match (candidates, flag) {
        (true, _) => is_id(value),
        (_, true) => *value == 0.0 || *value == 1.0,
        _ => value.is_finite(),
    };
    for (n, row) in array.data.chunks(array.cols).enumerate().filter(|(n, _)| mask.get(*n) == Some(&1.0)) {
        let (name, at, sequence) = (&array.name, || place(offsets, n), sequence_of(offsets, n));
        if let Some(value) = row.iter().find(|value| !fits(value)) {
            let expected = match (candidates, flag) {
                (true, _) => {
                    format!("a whole number from 0 to {}, an id of the vocabulary", limits.vocab.saturating_sub(1))
                }
                (_, true) => "0 or 1".to_owned(),
                _ => "a finite number".to_owned(),
            };
            return Err(Fault::at(format!("`{name}` is {value} at {}, expected {expected}", at()), sequence));
        }
        let mut seen = BTreeSet::new();
        if let Some(id) = row.iter().find(|id| candidates && !seen.insert(id.to_bits())) {
            return Err(Fault::at(
                format!("`{name}` has the id {id} twice at {}, expected different ids", at()),
                sequence,
            ));
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

    fn wide(name: &'static str, cols: usize, data: Vec<f64>) -> Array<'static> {
        Array { name: name.into(), scope: Scope::TOKEN, differentiable: false, cols, data: data.into() }
    }

    /// Catches candidates outside the vocabulary, an id twice in a row (its probability would count twice), and an author that
    /// shifts its candidates by itself: the last supervised token of a sequence then has none.
    #[test]
    fn candidates_are_different_ids_at_every_supervised_token() {
        let limits = Limits { vocab: 7, longest: 3, candidates: Some(2) };
        let check = |ids: [f64; 10]| {
            composed(&rows(), &answer().with_array(wide(names::CANDIDATE_IDS, 2, ids.to_vec())), limits)
        };
        let good = [9.0, 9.0, 0.0, 6.0, -1.0, f64::NAN, 5.0, 1.0, 2.0, 3.0];
        assert_eq!(check(good), Ok(()));
        for (place, id, part) in [
            (3, 7.0, "is 7 at token 1 (token 1 of sequence 0), expected a whole number from 0 to 6"),
            (2, 0.5, "is 0.5 at token 1"),
            (6, 1.0, "has the id 1 twice at token 3"),
        ] {
            let mut wrong = good;
            wrong[place] = id;
            assert!(check(wrong).unwrap_err().text.contains(part), "{part}");
        }
        let shifted = [0.0, 6.0, 0.0, 0.0, 5.0, 1.0, 2.0, 3.0, 0.0, 0.0];
        assert!(check(shifted).unwrap_err().text.contains("has the id 0 twice at token 1"));
        assert!(composed(&rows(), &answer(), limits).unwrap_err().text.contains("no `candidate_ids`"));
        let three = answer().with_array(wide(names::CANDIDATE_IDS, 3, vec![0.0; 15]));
        assert!(
            composed(&rows(), &three, limits).unwrap_err().text.contains("3 columns, expected 2 columns per token")
        );
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
        let limits = Limits { vocab: 7, longest: 3, candidates: None };
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
            // A prompt without its completion.
            (answer().with(names::MASK, Scope::TOKEN, vec![0.0, 0.0, 0.0, 1.0, 1.0]), "sequence 0 has no token behind"),
            (answer().with(names::MASK, Scope::TOKEN, vec![0.0, 1.0, 1.0, 0.0, 0.0]), "sequence 1 has no token behind"),
            (answer().with("row", Scope::SEQUENCE, vec![4.0, 5.0]), "row 5, which was not given"),
            (answer().with("row", Scope::SEQUENCE, vec![-4.0, 9.0]), "row -4"),
            (answer().with(names::TARGET, Scope::TOKEN, vec![1.0; 5]), "`target`, an array of the host"),
            (answer().with("reference.logp", Scope::TOKEN, vec![1.0; 5]), "`reference.logp`, an array of the host"),
            (
                answer().with("weight", Scope::BATCH, vec![1.0; 5]),
                "`weight` per batch with 1 columns, expected one column",
            ),
            (answer().with("weight", Scope::SEQUENCE, vec![1.0, f64::NAN]), "`weight` is NaN for sequence 1"),
            // An author that shifts by itself returns a row for each target.
            (answer().with("weight", Scope::TOKEN, vec![1.0; 3]), "holds 3 values, expected 5"),
            (answer().with("weight", Scope::TOKEN, vec![1.0; 3]), "the host shifts them to the targets"),
            (
                answer().with("weight", Scope::TOKEN, vec![f64::NAN; 5]),
                "`weight` is NaN at token 1 (token 1 of sequence 0)",
            ),
            (
                answer().with(names::COUNTED, Scope::SEQUENCE, vec![1.0, 0.5]),
                "`counted` is 0.5 for sequence 1, expected 0 or 1",
            ),
            (answer().with(names::COUNTED, Scope::TOKEN, vec![1.0; 5]), "`counted` per token"),
            (answer().with(names::CANDIDATE_IDS, Scope::TOKEN, vec![1.0; 5]), "name no candidates from `compose`"),
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
        for own in [
            answer().with("weight", Scope::SEQUENCE, vec![0.5, -1.0]),
            answer().with("weight", Scope::TOKEN, vec![f64::NAN, 1.0, f64::INFINITY, 2.0, 3.0]),
            answer().with(names::COUNTED, Scope::SEQUENCE, vec![1.0, 0.0]),
            answer().with_array(wide("weight", 2, vec![1.0; 10])),
        ] {
            assert_eq!(composed(&rows(), &own, limits), Ok(()));
        }
        let long = composed(&rows(), &answer(), Limits { longest: 2, ..limits }).unwrap_err();
        assert!(
            long.text.contains("sequence 1 has 3 tokens, expected at most 2, as the array `longest` says")
                && long.sequence == Some(1),
            "{long}"
        );
        let none = Batch::new().with(names::OFFSETS, Scope::BATCH, vec![0.0]);
        let none = ["token", names::MASK].into_iter().fold(none, |all, name| all.with(name, Scope::TOKEN, vec![]));
        let none = composed(&rows(), &none.with("row", Scope::SEQUENCE, vec![]), limits).unwrap_err();
        assert!(none.text.contains("no sequence"), "{none}");
        assert!(composed(&rows(), &Batch::new(), limits).unwrap_err().text.contains("`offsets`"));
    }
}
