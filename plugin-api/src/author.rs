//! Converts a batch's arrays to variables on a tape, and sums on the tape to a [`Loss`]: the beginning and the end of an
//! objective's `loss`.

use crate::{
    Code, Error, Result,
    batch::{Array, Batch, names},
    manifest::Statistic,
    objective::{Loss, MetricPart, Term},
    tape::{Tape, TapeError, Var},
};
use ndarray::ArrayD;

impl From<TapeError> for Error {
    fn from(e: TapeError) -> Self {
        Error::new(Code::SHAPE, e.to_string())
    }
}

impl Batch<'_> {
    /// A tape with the batch's sequence offsets.
    ///
    /// # Errors
    /// [`Code::ARRAY`] if `offsets` is missing or damaged.
    pub fn tape(&self) -> Result<Tape> {
        Ok(Tape::with_offsets(&self.offsets()?))
    }

    /// An array as a variable: a named input where it is a statistic (so that `backward` yields its cotangent), a
    /// constant otherwise. Shape `[rows]`; `[rows, columns]` where it has several columns, and for candidates even if there is one.
    ///
    /// # Errors
    /// [`Code::ARRAY`] if the batch has no such array.
    pub fn var<'t>(&self, tape: &'t Tape, name: &str) -> Result<Var<'t>> {
        let array = self.array(name)?;
        let value = ndarray_of(array)?;
        Ok(if array.differentiable { tape.input(name, value) } else { tape.constant(value) })
    }
}

fn ndarray_of(array: &Array<'_>) -> Result<ArrayD<f64>> {
    let is_wide = array.cols != 1 || Statistic::form(&array.name).is_some_and(|form| form.wide);
    let shape = if is_wide { vec![array.rows(), array.cols] } else { vec![array.data.len()] };
    ArrayD::from_shape_vec(shape, array.data.to_vec())
        .map_err(|e| Error::new(Code::ARRAY, format!("array `{}`: {e}", array.name)))
}

impl Batch<'_> {
    /// A column of lists, one value per segment of an answer, laid on the tokens that the segments end with: the k-th value of a
    /// sequence is at its k-th token with `segment_end` 1, and 0 is at all other tokens.
    ///
    /// The host does not shorten lists. A sequence that was truncated has fewer segment ends than values; the values that are
    /// left are those of the missing segments, and are not used.
    ///
    /// # Errors
    /// [`Code::ARRAY`] if the batch has no segments or no such list, or a sequence has more segment ends than values.
    pub fn at_segment_ends(&self, column: &str) -> Result<Vec<f64>> {
        let name = format!("{}{column}", names::COLUMN);
        let (offsets, ends, values) = (self.offsets()?, self.get(names::SEGMENT_END)?, self.get(&name)?);
        let mut laid = vec![0.0; ends.len()];
        let mut first = 0;
        for (s, (tokens, length)) in offsets.windows(2).zip(self.lengths(&name)?).enumerate() {
            let own = values.get(first..first + length).unwrap_or_default();
            let places: Vec<usize> = (tokens[0]..tokens[1]).filter(|n| ends.get(*n) == Some(&1.0)).collect();
            if places.len() > own.len() {
                let (segments, found) = (places.len(), own.len());
                let text = format!(
                    "sequence {s} has {segments} segments and {found} values of the column `{column}`, \
                                    expected one per segment"
                );
                return Err(Error::new(Code::ARRAY, text));
            }
            places.into_iter().zip(own).for_each(|(n, value)| laid[n] = *value);
            first += length;
        }
        Ok(laid)
    }
}

impl Loss {
    /// No terms yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a term: `sum` must be a scalar on `tape`. Computes its cotangents with `backward`.
    ///
    /// # Errors
    /// The first mistake made on the tape.
    pub fn term(mut self, tape: &Tape, name: &str, coefficient: f64, sum: Var<'_>) -> Result<Self> {
        let value = sum.scalar()?;
        let cotangents = gradients(tape, sum)?;
        self.terms.push(Term { name: name.to_owned(), coefficient, sum: value, cotangents });
        Ok(self)
    }

    /// Adds a metric: a weighted sum and its weight, or a minimum or maximum.
    #[must_use]
    pub fn metric(mut self, name: &str, value: f64, weight: f64) -> Self {
        self.metrics.push(MetricPart { name: name.to_owned(), value, weight });
        self
    }
}

/// Cotangents of a scalar by input name, in the order in which the inputs were created.
fn gradients(tape: &Tape, root: Var<'_>) -> Result<Vec<(String, Vec<f64>)>> {
    // The variable lives on this tape; its shorter lifetime only means that the caller may drop it earlier.
    let named = tape.backward(root)?.into_named();
    Ok(named.into_iter().map(|(name, d)| (name, d.iter().copied().collect())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Scope;

    fn batch(lengths: [f64; 3], values: &[f64]) -> Batch<'static> {
        Batch::new()
            .with(names::OFFSETS, Scope::BATCH, vec![0.0, 3.0, 4.0, 7.0])
            .with(names::SEGMENT_END, Scope::TOKEN, vec![0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0])
            .with("column.labels", Scope::LIST, values.to_vec())
            .with("column.labels.length", Scope::SEQUENCE, lengths.to_vec())
    }

    /// Catches values that are counted over the whole batch, so that a truncated sequence shifts those of the next one.
    #[test]
    fn lists_are_laid_on_segment_ends() {
        let laid = batch([2.0, 0.0, 1.0], &[0.25, 0.5, 0.75]).at_segment_ends("labels").unwrap();
        assert_eq!(laid, [0.0, 0.25, 0.5, 0.0, 0.75, 0.0, 0.0]);
        let truncated = batch([3.0, 2.0, 2.0], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]).at_segment_ends("labels").unwrap();
        assert_eq!(truncated, [0.0, 1.0, 2.0, 0.0, 6.0, 0.0, 0.0]);
        let error = batch([2.0, 1.0, 0.0], &[1.0, 2.0, 3.0]).at_segment_ends("labels").unwrap_err();
        assert!(error.message.contains("sequence 2 has 1 segments and 0 values of the column `labels`"), "{error}");
        assert!(batch([2.0, 0.0, 1.0], &[1.0, 2.0, 3.0]).at_segment_ends("other").is_err());
        assert!(Batch::new().with(names::OFFSETS, Scope::BATCH, vec![0.0]).at_segment_ends("labels").is_err());
    }

    /// Catches an array of candidates that loses its second dimension where there is one candidate to each token.
    #[test]
    fn one_candidate_is_a_column() {
        let batch = Batch::new()
            .with("offsets", Scope::BATCH, vec![0.0, 2.0])
            .with_statistic("candidates", Scope::TOKEN, vec![-1.0, -2.0])
            .with_statistic("logp", Scope::TOKEN, vec![-1.0, -2.0]);
        let tape = batch.tape().unwrap();
        let [candidates, logp] = ["candidates", "logp"].map(|name| batch.var(&tape, name).unwrap());
        assert_eq!((candidates.shape().unwrap(), logp.shape().unwrap()), (vec![2, 1], vec![2]));
        assert_eq!(candidates.sum_last().to_vec().unwrap(), [-1.0, -2.0]);
    }
}
