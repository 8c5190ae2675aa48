//! From the losses' terms to one total loss: what each term is divided by, and the cotangents that the model receives.

use std::collections::{BTreeMap, BTreeSet};

use plugin_api::{batch::names, contract, manifest::Normaliser, objective::Loss};

use crate::{
    data::PackedBatch,
    error::{Error, Result},
    model::{Cotangents, Statistics},
    objectives::{
        Objectives,
        active::{Active, broken, failed},
        batch_arrays::data_arrays,
        micro_batch::MicroBatchRange,
        prepared_arrays::PreparedArrays,
    },
    runs::breadcrumb,
};

/// The denominator of each term, per objective in the order of its manifest's terms.
#[derive(Debug, Clone, PartialEq)]
pub struct Denominators(Vec<Vec<(String, f64)>>);

impl Denominators {
    /// Returns `sum` of a term of objective `index`, divided by its denominator; 0 if the denominator is 0.
    pub fn share(&self, index: usize, term: &str, sum: f64) -> f64 {
        let own = self.0.get(index).and_then(|own| own.iter().find(|(name, _)| name == term));
        own.filter(|(_, denominator)| *denominator != 0.0).map_or(0.0, |(_, denominator)| sum / denominator)
    }

    fn is_zero(&self, index: usize, term: &str) -> bool {
        let own = self.0.get(index).and_then(|own| own.iter().find(|(name, _)| name == term));
        own.is_some_and(|(_, denominator)| *denominator == 0.0)
    }
}

/// Cotangents by statistic: one entry per supervised token for the language-model head, one per position for scalar heads.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TokenCotangents {
    /// Cotangents of the score, at each sequence's last position.
    pub score: Option<Vec<f64>>,
    /// Cotangents of the critic's values.
    pub value: Option<Vec<f64>>,
    /// Cotangents of the head's statistics by name.
    pub head: BTreeMap<&'static str, Option<Vec<f64>>>,
}

impl Objectives {
    /// Returns the denominator of each term: counted over the whole window, so that it does not matter how the window is cut.
    ///
    /// # Errors
    /// A normaliser that the data lacks, or a custom one that `weigh` does not return; errors of plugins.
    pub fn denominators(&self, parts: &[PackedBatch], joined: &PreparedArrays) -> Result<Denominators> {
        let tokens: usize = parts.iter().map(PackedBatch::counted_targets).sum();
        let sequences: usize = parts.iter().map(|packed| packed.counted().count()).sum();
        let mut all = Vec::new();
        for (index, active) in self.iter().enumerate() {
            let mut own = Vec::new();
            for term in &active.manifest.terms {
                let (normaliser, times) = active.requirements.normaliser(term);
                let count = match normaliser {
                    n if *n == Normaliser::SUPERVISED_TOKENS => tokens as f64,
                    n if *n == Normaliser::SEQUENCES => sequences as f64,
                    n if *n == Normaliser::PAIRS || *n == Normaliser::GROUPS => groups(&active.id, parts)?,
                    n if *n == Normaliser::CUSTOM => self.custom(active, &term.name, parts, index, joined)?,
                    other => {
                        return Err(Error::request(format!(
                            "objective \"{}\" divides its term `{}` by `{other}`, which this host does not know",
                            active.id, term.name
                        )));
                    }
                };
                own.push((term.name.clone(), count * times));
            }
            all.push(own);
        }
        Ok(Denominators(all))
    }

    /// Returns the sum of what `weigh` returns for a term of objective `index`.
    fn custom(
        &self,
        active: &Active,
        term: &str,
        parts: &[PackedBatch],
        index: usize,
        joined: &PreparedArrays,
    ) -> Result<f64> {
        let mut total = 0.0;
        for (packed, part) in parts.iter().zip(MicroBatchRange::all(parts)) {
            let batch = data_arrays(packed);
            let batch = self.given(index, &batch, joined, part);
            let weights = breadcrumb::within(&active.id, "weigh", || active.instance.weigh(&batch));
            let weights = weights.map_err(|e| failed(&active.id, "weigh", e))?;
            contract::weights(&active.manifest, &active.requirements, &weights)
                .map_err(|why| broken(&active.id, "weigh", why, &packed.rows))?;
            total += weights.iter().find(|(name, _)| name == term).map_or(0.0, |(_, weight)| *weight);
        }
        Ok(total)
    }

    /// Checks that no term with a sum or a cotangent is divided by 0.
    ///
    /// # Errors
    /// A term whose normaliser is 0 over the window although its sum or one of its cotangents is not: nothing would be learned
    /// from it.
    pub fn check_shares(&self, losses: &[Loss], by: &Denominators) -> Result<()> {
        for (index, (active, loss)) in self.iter().zip(losses).enumerate() {
            for term in loss.terms.iter().filter(|term| by.is_zero(index, &term.name)) {
                if term.sum == 0.0 && term.cotangents.iter().all(|(_, values)| values.iter().all(|v| *v == 0.0)) {
                    continue;
                }
                let spec = active.manifest.terms.iter().find(|spec| spec.name == term.name);
                let (call, normaliser) = match spec.map(|spec| active.requirements.normaliser(spec).0) {
                    Some(n) if *n == Normaliser::CUSTOM => ("weigh", "its normaliser".to_owned()),
                    n => ("loss", format!("the number of {}", n.map_or("", Normaliser::as_str))),
                };
                return Err(Error::run(format!(
                    "objective \"{}\", call `{call}`: {normaliser} is 0 over the window, but the term `{}` has the sum {} there, \
                     which cannot be divided by it",
                    active.id, term.name, term.sum
                )));
            }
        }
        Ok(())
    }

    /// Returns the cotangents of the total loss at the tokens `rows`: every term's, times weight and coefficient, over its
    /// denominator.
    ///
    /// # Errors
    /// A cotangent of a statistic that was not offered, or of another length.
    pub fn cotangents(
        &self,
        losses: &[Loss],
        by: &Denominators,
        packed: &PackedBatch,
        rows: &[i32],
    ) -> Result<TokenCotangents> {
        let mut sums = TokenCotangents::default();
        let ends: Vec<i32> = packed.offsets.iter().skip(1).map(|end| end - 1).collect();
        for (index, (active, loss)) in self.iter().zip(losses).enumerate() {
            for term in &loss.terms {
                let factor = active.weight * term.coefficient * by.share(index, &term.name, 1.0);
                for (statistic, values) in &term.cotangents {
                    let of_sequences = statistic == names::SCORE;
                    let expected = if of_sequences { packed.sequences() } else { packed.len() };
                    if values.len() != expected {
                        let what = if of_sequences { "sequences" } else { "tokens" };
                        return Err(Error::run(format!(
                            "objective \"{}\": {} cotangents of `{statistic}` for {expected} {what}",
                            active.id,
                            values.len()
                        )));
                    }
                    let slot = sums.slot(statistic).ok_or_else(|| {
                        Error::run(format!(
                            "objective \"{}\" returned a cotangent of `{statistic}`, which has no gradient here",
                            active.id
                        ))
                    })?;
                    let scalar = of_sequences || statistic == names::CRITIC_VALUE;
                    let target = slot.get_or_insert_with(|| vec![0.0; if scalar { packed.len() } else { rows.len() }]);
                    if of_sequences {
                        ends.iter().zip(values).for_each(|(end, value)| target[*end as usize] += factor * value);
                    } else if scalar {
                        target.iter_mut().zip(values).for_each(|(sum, value)| *sum += factor * value);
                    } else {
                        target.iter_mut().zip(rows).for_each(|(sum, row)| *sum += factor * values[*row as usize]);
                    }
                }
            }
        }
        Ok(sums)
    }
}

impl TokenCotangents {
    fn slot(&mut self, statistic: &str) -> Option<&mut Option<Vec<f64>>> {
        match statistic {
            names::SCORE => Some(&mut self.score),
            names::CRITIC_VALUE => Some(&mut self.value),
            _ => {
                let name = Statistics::DIFFERENTIABLE.into_iter().find(|name| *name == statistic)?;
                Some(self.head.entry(name).or_default())
            }
        }
    }

    /// Returns the cotangents in the model's form.
    pub fn as_cotangents(&self) -> Cotangents<'_> {
        Cotangents::of(|name| self.head.get(name)?.as_deref())
    }
}

/// Number of distinct values of the column `group` among the sequences that count.
fn groups(id: &str, parts: &[PackedBatch]) -> Result<f64> {
    let mut seen = BTreeSet::new();
    for packed in parts {
        let column = packed.per_sequence.get(names::GROUP).ok_or_else(|| {
            Error::request(format!("objective \"{id}\" counts pairs or groups, but the data has none"))
        })?;
        seen.extend(packed.counted().filter_map(|s| column.get(s)).map(|v| v.to_bits()));
    }
    Ok(seen.len() as f64)
}
