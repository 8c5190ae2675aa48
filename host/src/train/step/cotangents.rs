//! From the losses' terms to one total loss: what each term is divided by, and the cotangents that the model receives.

use std::collections::{BTreeMap, BTreeSet};

use plugin_api::{
    batch::names,
    contract,
    manifest::Normaliser,
    objective::{Loss, role_of},
};

use crate::{
    data::PackedBatch,
    error::{Error, Result},
    model::{CandidateCotangents, Cotangents, Statistics},
    objectives::{
        Objectives,
        active::{Active, broken, failed},
        batch_arrays::{data_arrays, gathered},
        micro_batch::{MicroBatchRange, before_ends},
        prepared_arrays::PreparedArrays,
        reads::{CANDIDATES, Frozen, KL, TAIL},
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
    /// Cotangents of the scalar head's scores: those of a sequence's score at its last position, those of a target's score at the
    /// position that reads this target.
    pub score: Option<Vec<f64>>,
    /// Cotangents of the critic's values.
    pub value: Option<Vec<f64>>,
    /// Cotangents of the head's statistics by name.
    pub head: BTreeMap<&'static str, Option<Vec<f64>>>,
    /// Cotangents of the divergences from frozen models.
    pub kl: BTreeMap<Frozen, Option<Vec<f64>>>,
    /// Cotangents of the candidates, K per supervised token.
    pub candidates: Option<Vec<f64>>,
    /// Cotangents of their tail.
    pub tail: Option<Vec<f64>>,
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
                    let cols =
                        if statistic == CANDIDATES { self.candidates().map_or(1, |ids| ids.count as usize) } else { 1 };
                    let expected = if of_sequences { packed.sequences() } else { packed.len() * cols };
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
                    let of_targets = statistic == names::TOKEN_SCORE;
                    let scalar = of_sequences || of_targets || statistic == names::CRITIC_VALUE;
                    let length = if scalar { packed.len() } else { rows.len() * cols };
                    let target = slot.get_or_insert_with(|| vec![0.0; length]);
                    if of_sequences {
                        ends.iter().zip(values).for_each(|(end, value)| target[*end as usize] += factor * value);
                    } else if of_targets {
                        before_ends(&ends).for_each(|n| target[n + 1] += factor * values[n]);
                    } else if scalar {
                        target.iter_mut().zip(values).for_each(|(sum, value)| *sum += factor * value);
                    } else if cols > 1 {
                        let own = gathered(rows, cols, values);
                        target.iter_mut().zip(own).for_each(|(sum, value)| *sum += factor * value);
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
            statistic if [names::SCORE, names::TOKEN_SCORE].contains(&statistic) => Some(&mut self.score),
            names::CRITIC_VALUE => Some(&mut self.value),
            CANDIDATES => Some(&mut self.candidates),
            TAIL => Some(&mut self.tail),
            _ if role_of(statistic).1 == KL => Some(self.kl.entry(Frozen::of(role_of(statistic).0)?).or_default()),
            _ => {
                let name = Statistics::DIFFERENTIABLE.into_iter().find(|name| *name == statistic)?;
                Some(self.head.entry(name).or_default())
            }
        }
    }

    /// Whether all cotangents are those of comparisons with frozen models, so that the head itself has none.
    pub fn is_only_compared(&self) -> bool {
        let compared = self.candidates.is_some() || self.tail.is_some() || self.kl.values().any(Option::is_some);
        compared && self.head.values().all(Option::is_none)
    }

    /// Returns the cotangents of the candidates in the model's form.
    pub fn of_candidates(&self) -> CandidateCotangents<'_> {
        CandidateCotangents { logps: self.candidates.as_deref(), tail: self.tail.as_deref() }
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
