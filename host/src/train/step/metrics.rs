//! Sums losses and metrics over the micro-batches of a window.

use plugin_api::{batch::Batch, manifest::Reduction, objective::Loss};

use super::cotangents::Denominators;
use crate::{
    data::PackedBatch,
    objectives::{Objectives, active::Active},
};

/// An objective's numbers of a window.
#[derive(Debug, Clone)]
pub struct OwnNumbers {
    /// The objective's index in the experiment.
    pub table: usize,
    /// Prefix of the names in the records.
    prefix: String,
    /// Terms, each over its normaliser.
    terms: Vec<(String, f64)>,
    metrics: Vec<(String, f64)>,
}

impl OwnNumbers {
    /// Returns terms and metrics by name.
    pub fn all(&self) -> Vec<(String, f64)> {
        self.terms.iter().chain(&self.metrics).cloned().collect()
    }
}

/// Sums losses and metrics over the micro-batches of a window.
#[derive(Debug, Default)]
pub struct MetricAccumulator {
    terms: Vec<(usize, String, f64, f64)>,
    metrics: Vec<(usize, String, f64, f64)>,
    /// Number of supervised tokens whose target has the largest logit, if the batches report it. As `supervised`, of the
    /// sequences that count.
    correct: Option<f64>,
    supervised: f64,
    sequences: u64,
    tokens: u64,
}

impl MetricAccumulator {
    /// Adds one micro-batch.
    pub fn add(&mut self, packed: &PackedBatch, batch: &Batch<'_>, objectives: &Objectives, losses: &[Loss]) {
        for (index, (active, loss)) in objectives.iter().zip(losses).enumerate() {
            for term in &loss.terms {
                match self.terms.iter_mut().find(|t| t.0 == index && t.1 == term.name) {
                    Some(seen) => seen.3 += term.sum,
                    None => self.terms.push((index, term.name.clone(), term.coefficient, term.sum)),
                }
            }
            for part in loss.metrics.iter().filter(|m| m.weight != 0.0) {
                let reduction = active.manifest.metrics.iter().find(|d| d.name == part.name).map(|d| &d.reduction);
                match self.metrics.iter_mut().find(|m| m.0 == index && m.1 == part.name) {
                    Some(seen) if reduction == Some(&Reduction::MIN) => seen.2 = seen.2.min(part.value),
                    Some(seen) if reduction == Some(&Reduction::MAX) => seen.2 = seen.2.max(part.value),
                    Some(seen) => (seen.2, seen.3) = (seen.2 + part.value, seen.3 + part.weight),
                    None => self.metrics.push((index, part.name.clone(), part.value, part.weight)),
                }
            }
        }
        if let Some(hits) = batch.find("top1") {
            let of_sequence = |s| hits.data[packed.positions_of(s)].iter().sum::<f64>();
            *self.correct.get_or_insert_default() += packed.counted().map(of_sequence).sum::<f64>();
        }
        self.supervised += packed.counted_targets() as f64;
        self.sequences += packed.sequences() as u64;
        self.tokens += packed.len() as u64;
    }

    /// Returns the positions computed.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Returns the number of supervised tokens of the sequences that count.
    pub fn supervised(&self) -> f64 {
        self.supervised
    }

    /// Returns the total loss: every term's sum over its denominator, weighted.
    pub fn loss(&self, objectives: &Objectives, by: &Denominators) -> f64 {
        let parts = self.terms.iter().map(|(index, name, coefficient, sum)| {
            objectives.weight(*index) * coefficient * by.share(*index, name, *sum)
        });
        // A sum without terms would be -0.
        parts.fold(0.0, |sum, part| sum + part)
    }

    /// Returns each objective's own numbers by name, its terms before its metrics.
    pub fn of_objectives(&self, objectives: &Objectives, by: &Denominators) -> Vec<OwnNumbers> {
        let of = |(index, active): (usize, &Active)| {
            let terms = self.terms.iter().filter(|term| term.0 == index);
            let terms = terms.map(|(_, name, _, sum)| (name.clone(), by.share(index, name, *sum))).collect();
            let metrics = self.metrics.iter().filter(|metric| metric.0 == index);
            let metrics = metrics.map(|(_, name, value, weight)| {
                let reduction = active.manifest.metrics.iter().find(|d| d.name == *name).map(|d| &d.reduction);
                (name.clone(), if reduction == Some(&Reduction::MEAN) { value / weight } else { *value })
            });
            OwnNumbers { table: active.table, prefix: active.prefix.clone(), terms, metrics: metrics.collect() }
        };
        objectives.iter().enumerate().map(of).collect()
    }

    /// Returns metrics by name, including token accuracy, and terms if the loss has several.
    pub fn metrics(&self, own: &[OwnNumbers]) -> Vec<(String, f64)> {
        let mut all = Vec::new();
        for OwnNumbers { prefix, terms, metrics, .. } in own {
            // The only term of the only objective is the loss itself.
            let reported = if terms.len() + own.len() > 2 { terms.as_slice() } else { &[] };
            all.extend(reported.iter().chain(metrics).map(|(name, value)| (format!("{prefix}{name}"), *value)));
        }
        if let Some(correct) = self.correct.filter(|_| self.supervised > 0.0) {
            all.push(("token_accuracy".into(), correct / self.supervised));
        }
        all
    }
}
