//! Lists and segments: a right objective passes, and one that counts a list's values over the whole batch does not.

use super::check;
use crate::objective::{Generator, Laws};
use plugin_api::{
    Result,
    batch::{Batch, names},
    manifest::{DataKind, Normaliser, ObjectiveManifest, Requirements, TermSpec},
    objective::{Loss, Objective},
    options::refuse_unknown,
};

/// A weighted sum of the scores of segments; the weights are a list.
struct Weighted(fn(&Batch<'_>) -> Result<Vec<f64>>);

impl Objective for Weighted {
    fn requirements(&self) -> Result<Requirements> {
        Ok(Requirements { linear: true, ..Requirements::reading([names::TOKEN_SCORE]) })
    }

    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        let tape = batch.tape()?;
        let weights: Vec<f64> =
            (self.0)(batch)?.iter().zip(batch.mask()?).map(|(weight, mask)| weight * mask).collect();
        let sum = (tape.constant(weights) * batch.var(&tape, names::TOKEN_SCORE)?).masked_sum(batch.mask()?);
        Loss::new().term(&tape, "weighted", 1.0, sum)
    }
}

/// The values one after the other on all segment ends of the batch, whatever the lengths are.
fn over_the_batch(batch: &Batch<'_>) -> Result<Vec<f64>> {
    let mut values = batch.column("labels")?.iter();
    let ends = batch.get(names::SEGMENT_END)?.iter();
    Ok(ends.map(|end| if *end == 1.0 { values.next().copied().unwrap_or(0.0) } else { 0.0 }).collect())
}

/// Catches generated windows in which every list has exactly as many values as there are segments, and lists that are cut or ordered
/// otherwise than their sequences.
#[test]
fn lists_follow_their_sequences() {
    let verify = |weights| {
        let manifest = ObjectiveManifest {
            summary: "A weighted sum of scores".into(),
            formula: "sum of w s".into(),
            data: DataKind::PROMPT_COMPLETION,
            terms: vec![TermSpec::new("weighted", Normaliser::SEQUENCES, "In the score's unit")],
            ..Default::default()
        };
        let create = move |options: &_| {
            refuse_unknown(&[], options)?;
            Ok(Weighted(weights))
        };
        let generator = Generator::new(3).with_segments().with_list("labels", 0.5..=2.0);
        Laws::new(manifest, create).with_generator(generator).verify()
    };
    check("none", verify(|batch| batch.at_segment_ends("labels")), &[]);
    let wrong = verify(over_the_batch);
    assert!(wrong.failures().any(|line| line.group == "additivity"), "{wrong}");
}

/// Catches a search for columns that takes a list for a number.
#[test]
fn a_list_that_an_objective_reads_is_found_from_its_errors() {
    let create = |options: &_| {
        refuse_unknown(&[], options)?;
        Ok(Weighted(|batch| batch.at_segment_ends("labels")))
    };
    let manifest = ObjectiveManifest { data: DataKind::PROMPT_COMPLETION, ..Default::default() };
    let laws = Laws::new(manifest, create).with_generator(Generator::new(3).with_segments());
    assert_eq!(laws.columns_asked_for(), ["labels.length"]);
}
