//! Named arrays: the form in which an objective gets batches and rollouts and returns results.
//!
//! Packed, without padding: N tokens of S sequences, sequence s holding tokens `offsets[s]..offsets[s + 1]`. Token
//! arrays are aligned to the *predicted* token: entry n belongs to `target[n]`, and `mask[n]` is 1 if that target is
//! supervised. The host shifts; no plugin does. A new array never changes a layout.

use crate::{Code, Error, Result};
use std::{borrow::Cow, fmt};

/// Names of the arrays every batch has, or that have a fixed meaning.
pub mod names {
    /// S + 1 numbers: the first token of each sequence and N, ascending from 0.
    pub const OFFSETS: &str = "offsets";
    /// Per token: the id to predict.
    pub const TARGET: &str = "target";
    /// Per token: 1 where the target is supervised, else 0.
    pub const MASK: &str = "mask";
    /// Per token: its position in its sequence, from 0.
    pub const POSITION: &str = "position";
    /// Per sequence: a number shared by the members of a pair or group.
    pub const GROUP: &str = "group";
    /// Per sequence: 1 chosen or desirable, 0 rejected or undesirable.
    pub const SIDE: &str = "side";
    /// Per sequence: prefix of the name of a numeric column of the data set, or of a column of lists of numbers.
    pub const COLUMN: &str = "column.";
    /// Per sequence: output of the scalar head at the last token, the statistic of reward models.
    pub const SCORE: &str = "score";
    /// Per token: output of the scalar head after the target has been read, the statistic of process reward models.
    pub const TOKEN_SCORE: &str = "token_score";
    /// Per token: the log-probability that the frozen reference gives the target.
    pub const REFERENCE_LOGP: &str = "reference.logp";
    /// Per token: the critic's value of the state before the target.
    pub const CRITIC_VALUE: &str = "critic.value";
    /// Per sequence: the critic's value after the last token.
    pub const CRITIC_VALUE_END: &str = "critic.value_end";
    /// Per sequence of a rollout: the answer's reward, summed over the experiment's rewards by weight.
    pub const REWARD: &str = "reward";
    /// Per sequence of a rollout: 1 if the model ended the answer, by an end token for example, 0 if it was cut off at the
    /// length limit.
    pub const ENDED: &str = "ended";
    /// Prefix of the rewards by name, neither weighted nor clipped: per sequence of a rollout `reward.NAME` and `reward.NAME.PART` for
    /// each part that the reward declares, and per token `reward.NAME.token` where it declares spans.
    pub const REWARD_OF: &str = "reward.";
    /// Per token of a rollout, where an objective requires it: log-probability of the token under the distribution from which it was
    /// drawn, as the decoder computed it: at the rollout's temperature, truncated by `top_k` and `top_p` and renormalised over the
    /// tokens that remain. Without truncation it equals `logp` of the policy that answered, up to the backend's rounding. No gradient.
    pub const SAMPLER_LOGP: &str = "sampler.logp";
    /// Per token of a rollout, where an objective requires it: entropy of the distribution from which it was drawn, in nats.
    pub const SAMPLER_ENTROPY: &str = "sampler.entropy";
    /// Per sequence of a rollout: the number of optimizer steps that were done when it was drawn; 0 before the first one.
    pub const SAMPLER_STEP: &str = "sampler.step";
    /// Returned by `prepare` in rollouts, per sequence: 1 for answers to learn from, 0 for those to drop.
    pub const KEEP: &str = "keep";
    /// Returned by `prepare` in rollouts, one number: how many more prompts it wants.
    pub const REQUEST: &str = "request";
    /// One number: the optimizer step that is being computed, from 1; the same in every micro-batch of its window. For a rollout the step
    /// that follows, in an evaluation the last one that was computed (at least 1).
    pub const STEP: &str = "step";
    /// One number: the optimizer steps of the whole run.
    pub const STEPS: &str = "steps";
    /// Per sequence, if `compose` returned it: 1 if its tokens and itself count in normalisers and in the host's token
    /// statistics, 0 if not. Where `compose` does not return it, all sequences count.
    pub const COUNTED: &str = "counted";
    /// Per token, K columns: the ids of the statistic `candidates` that `compose` returned, all different where the mask is 1.
    pub const CANDIDATE_IDS: &str = "candidate_ids";
    /// Per token: 1 at the last token of each segment of an answer that the data gives as a list of texts.
    pub const SEGMENT_END: &str = "segment_end";
    /// In `compose`, one number: the greatest number of tokens of a sequence that it may return.
    pub const LONGEST: &str = "longest";
    /// Suffix of the array with the number of rows per sequence of an array of [`Scope::LIST`](super::Scope::LIST).
    pub const LENGTH: &str = ".length";
}

/// What the rows of an array are.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scope(pub u32);

impl Scope {
    /// One row per token (N).
    pub const TOKEN: Scope = Scope(1);
    /// One row per sequence (S).
    pub const SEQUENCE: Scope = Scope(2);
    /// Rows with another meaning (offsets, scalars).
    pub const BATCH: Scope = Scope(3);
    /// Any number of rows per sequence: the array `NAME.length`, per sequence, says how many. Such are columns of lists.
    pub const LIST: Scope = Scope(4);
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Scope::TOKEN => f.write_str("token"),
            Scope::SEQUENCE => f.write_str("sequence"),
            Scope::BATCH => f.write_str("batch"),
            Scope::LIST => f.write_str("list"),
            Scope(other) => write!(f, "scope {other}"),
        }
    }
}

/// One named array, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Array<'a> {
    /// Its name.
    pub name: Cow<'a, str>,
    /// What its rows are.
    pub scope: Scope,
    /// Whether a loss may return a cotangent for it.
    pub differentiable: bool,
    /// Values per row.
    pub cols: usize,
    /// The values.
    pub data: Cow<'a, [f64]>,
}

impl Array<'_> {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.data.len().checked_div(self.cols).unwrap_or(0)
    }
}

/// A set of named arrays over the same tokens and sequences.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch<'a> {
    arrays: Vec<Array<'a>>,
}

impl<'a> Batch<'a> {
    /// No arrays.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds (or replaces) an array of one value per row.
    #[must_use]
    pub fn with(self, name: impl Into<Cow<'a, str>>, scope: Scope, data: impl Into<Cow<'a, [f64]>>) -> Self {
        self.with_array(Array { name: name.into(), scope, differentiable: false, cols: 1, data: data.into() })
    }

    /// Adds (or replaces) a statistic: an array a loss may return a cotangent for.
    #[must_use]
    pub fn with_statistic(self, name: impl Into<Cow<'a, str>>, scope: Scope, data: impl Into<Cow<'a, [f64]>>) -> Self {
        self.with_array(Array { name: name.into(), scope, differentiable: true, cols: 1, data: data.into() })
    }

    /// Adds (or replaces) an array.
    #[must_use]
    pub fn with_array(mut self, array: Array<'a>) -> Self {
        match self.arrays.iter_mut().find(|a| a.name == array.name) {
            Some(old) => *old = array,
            None => self.arrays.push(array),
        }
        self
    }

    /// All arrays, in the order they were added.
    pub fn arrays(&self) -> &[Array<'a>] {
        &self.arrays
    }

    /// The array of that name, if the batch has it.
    pub fn find(&self, name: &str) -> Option<&Array<'a>> {
        self.arrays.iter().find(|a| a.name == name)
    }

    /// The array of that name.
    ///
    /// # Errors
    /// [`Code::ARRAY`] naming it and what the batch has.
    pub fn array(&self, name: &str) -> Result<&Array<'a>> {
        self.find(name).ok_or_else(|| {
            let known: Vec<_> = self.arrays.iter().map(|a| a.name.as_ref()).collect();
            Error::new(Code::ARRAY, format!("the batch has no array `{name}`; it has {}", known.join(", ")))
        })
    }

    /// The values of that name.
    ///
    /// # Errors
    /// [`Code::ARRAY`].
    pub fn get(&self, name: &str) -> Result<&[f64]> {
        self.array(name).map(|a| a.data.as_ref())
    }

    /// A numeric column of the data set, one value per sequence.
    ///
    /// # Errors
    /// [`Code::ARRAY`].
    pub fn column(&self, name: &str) -> Result<&[f64]> {
        self.get(&format!("{}{name}", names::COLUMN))
    }

    /// 1 where a target is supervised.
    ///
    /// # Errors
    /// [`Code::ARRAY`].
    pub fn mask(&self) -> Result<&[f64]> {
        self.get(names::MASK)
    }

    /// First token of each sequence, and N.
    ///
    /// # Errors
    /// [`Code::ARRAY`] if it is missing or not ascending from 0.
    pub fn offsets(&self) -> Result<Vec<usize>> {
        let offsets: Vec<usize> = self.get(names::OFFSETS)?.iter().map(|&o| o as usize).collect();
        if offsets.first() != Some(&0) || offsets.windows(2).any(|w| w[0] > w[1]) {
            return Err(Error::new(Code::ARRAY, "`offsets` must ascend from 0"));
        }
        Ok(offsets)
    }

    /// Number of tokens, N.
    ///
    /// # Errors
    /// [`Code::ARRAY`].
    pub fn tokens(&self) -> Result<usize> {
        Ok(self.offsets()?.last().copied().unwrap_or(0))
    }

    /// Number of sequences, S.
    ///
    /// # Errors
    /// [`Code::ARRAY`].
    pub fn sequences(&self) -> Result<usize> {
        Ok(self.get(names::OFFSETS)?.len().saturating_sub(1))
    }

    /// The number of rows per sequence of the list `name`.
    ///
    /// # Errors
    /// [`Code::ARRAY`] if there are none, or not one whole number for each sequence.
    pub fn lengths(&self, name: &str) -> Result<Vec<usize>> {
        let (own, sequences) = (format!("{name}{}", names::LENGTH), self.sequences()?);
        let lengths = self.get(&own)?;
        let whole = |length: &f64| length.fract() == 0.0 && (0.0..=u32::MAX.into()).contains(length);
        if lengths.len() != sequences || !lengths.iter().all(whole) {
            let text = format!("`{own}` must hold a whole number from 0 for each of {sequences} sequences");
            return Err(Error::new(Code::ARRAY, text));
        }
        Ok(lengths.iter().map(|length| *length as usize).collect())
    }

    /// Checks that every token array has N rows, every sequence array S, and every list as many as its lengths say.
    ///
    /// # Errors
    /// [`Code::ARRAY`] naming the array and both numbers.
    pub fn check(&self) -> Result<()> {
        let (tokens, sequences) = (self.tokens()?, self.sequences()?);
        for array in &self.arrays {
            let expected = match array.scope {
                Scope::TOKEN => tokens,
                Scope::SEQUENCE => sequences,
                Scope::LIST => self.lengths(&array.name)?.iter().sum(),
                _ => continue,
            };
            if array.data.len() != expected * array.cols {
                return Err(Error::new(
                    Code::ARRAY,
                    format!(
                        "array `{}` holds {} values, expected {expected} {:?} rows of {}",
                        array.name,
                        array.data.len(),
                        array.scope,
                        array.cols
                    ),
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Batch<'static> {
        Batch::new()
            .with(names::OFFSETS, Scope::BATCH, vec![0.0, 2.0, 5.0])
            .with(names::MASK, Scope::TOKEN, vec![1.0; 5])
            .with("column.margin", Scope::SEQUENCE, vec![0.5, 0.25])
    }

    #[test]
    fn lengths_are_checked_against_offsets() {
        assert!(sample().check().is_ok());
        let short = sample().with("weight", Scope::TOKEN, vec![1.0; 4]);
        let error = short.check().unwrap_err();
        assert!(error.message.contains("`weight` holds 4"), "{error}");
        let wrong = sample().with("side", Scope::SEQUENCE, vec![1.0; 5]);
        assert!(wrong.check().is_err());
    }

    /// Catches a list that is cut at the wrong places because its lengths do not fit.
    #[test]
    fn lists_have_as_many_rows_as_their_lengths_say() {
        let list = |lengths: &[f64], rows: usize| {
            let list = sample().with("column.labels", Scope::LIST, vec![1.0; rows]);
            list.with("column.labels.length", Scope::SEQUENCE, lengths.to_vec())
        };
        assert!(list(&[3.0, 0.0], 3).check().is_ok());
        assert_eq!(list(&[3.0, 0.0], 3).lengths("column.labels").unwrap(), [3, 0]);
        for (lengths, rows) in [(&[3.0, 1.0][..], 3), (&[3.0], 3), (&[2.5, 0.5], 3), (&[-1.0, 4.0], 3)] {
            assert!(list(lengths, rows).check().is_err(), "{lengths:?}");
        }
        assert!(sample().with("column.labels", Scope::LIST, vec![1.0]).check().is_err());
    }

    #[test]
    fn a_missing_array_is_named_with_the_existing_ones() {
        let error = sample().get("logp").unwrap_err();
        assert!(error.message.contains("`logp`") && error.message.contains("mask"), "{error}");
        assert_eq!(sample().column("margin").unwrap(), [0.5, 0.25]);
    }

    #[test]
    fn offsets_must_ascend_from_zero() {
        for bad in [vec![1.0, 2.0], vec![0.0, 3.0, 2.0], vec![]] {
            assert!(Batch::new().with(names::OFFSETS, Scope::BATCH, bad).offsets().is_err());
        }
    }
}
