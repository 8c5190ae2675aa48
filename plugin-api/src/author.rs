//! Converts a batch's arrays to variables on a tape, and sums on the tape to a [`Loss`]: the beginning and the end of an
//! objective's `loss`.

use crate::{
    Code, Error, Result,
    batch::{Array, Batch},
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
