//! The experiment's objectives at work: what they read, what their sums are divided by, and how their terms add up.

use std::collections::BTreeSet;

use plugin_api::{
    batch::{Batch, Scope, names},
    manifest::{Normaliser, ObjectiveManifest, Reduction, Requirements},
    objective::{Loss, Objective},
};

use super::trail::Trail;
use crate::{
    data::{PackedBatch, Window},
    error::{Error, Result},
    model::{HeadStats, Statistics},
};

/// An objective of the experiment.
pub struct Active {
    /// Id of the plugin.
    pub id: String,
    /// Factor on its terms.
    pub weight: f64,
    /// Put before the names of its metrics; empty where it is the only one.
    pub prefix: String,
    /// What it says of itself.
    pub manifest: ObjectiveManifest,
    /// What this instance reads.
    pub requirements: Requirements,
    /// The instance.
    pub instance: Box<dyn Objective>,
}

impl Active {
    /// Settles what the instance needs and whether this host can give it.
    ///
    /// # Errors
    /// A request error for data or statistics that this host does not offer.
    pub fn new(
        id: &str,
        weight: f64,
        prefix: String,
        manifest: ObjectiveManifest,
        instance: Box<dyn Objective>,
        data: &str,
    ) -> Result<Active> {
        let requirements = instance.requirements()?;
        if manifest.data.as_str() != data {
            return Err(Error::request(format!(
                "objective \"{id}\" learns from {} data, but [data] yields {data} data",
                manifest.data
            ))
            .with_hint("choose a data source of that kind, or another objective"));
        }
        for name in &requirements.statistics {
            if !OFFERED.contains(&name.as_str()) {
                return Err(Error::request(format!(
                    "objective \"{id}\" reads the statistic `{name}`, which this host does not compute"
                ))
                .with_hint(format!("computed here: {}", OFFERED.join(", "))));
            }
        }
        Ok(Active { id: id.to_owned(), weight, prefix, manifest, requirements, instance })
    }

    fn reads(&self, statistic: &str) -> bool {
        self.requirements.statistics.iter().any(|s| s == statistic)
    }
}

/// Statistics this host computes.
const OFFERED: &[&str] = &["logp", "lse", "entropy", "mean_logit", "top1"];

/// All objectives of an experiment.
pub struct Objectives(Vec<Active>);

/// What divides each term, per objective in order of its manifest's terms.
#[derive(Debug, Clone, PartialEq)]
pub struct Denominators(Vec<Vec<(String, f64)>>);

/// Cotangents by statistic, one entry per supervised token.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sums {
    /// Of `logp`.
    pub logp: Option<Vec<f64>>,
    /// Of `lse`.
    pub lse: Option<Vec<f64>>,
    /// Of `entropy`.
    pub entropy: Option<Vec<f64>>,
    /// Of `mean_logit`.
    pub mean_logit: Option<Vec<f64>>,
}

impl Objectives {
    /// The objectives of an experiment, at least one, reading their statistics at one temperature.
    ///
    /// # Errors
    /// A request error where two of them ask for different temperatures.
    pub fn new(all: Vec<Active>) -> Result<Objectives> {
        let first = all.first().ok_or_else(|| Error::request("an experiment needs an objective"))?;
        let temperature = first.requirements.temperature;
        if let Some(other) = all.iter().find(|a| a.requirements.temperature != temperature) {
            return Err(Error::request(format!(
                "objectives \"{}\" and \"{}\" read their statistics at different temperatures, {temperature} and {}",
                first.id, other.id, other.requirements.temperature
            )));
        }
        Ok(Objectives(all))
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Active> {
        self.0.iter()
    }

    /// Each of them, to change its state.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Active> {
        self.0.iter_mut()
    }

    /// What divides the logits under all statistics.
    pub fn temperature(&self) -> f64 {
        self.0.first().map_or(1.0, |a| a.requirements.temperature)
    }

    /// Whether all cotangents are known before the head runs.
    pub fn linear(&self) -> bool {
        self.0.iter().all(|a| a.requirements.linear && !a.manifest.coupled && !a.reads("entropy"))
    }

    /// Whether some loss couples the whole window.
    pub fn coupled(&self) -> bool {
        self.0.iter().any(|a| a.manifest.coupled)
    }

    /// What the head must compute. The largest logit is always asked for: token accuracy is reported of every run.
    pub fn statistics(&self) -> Statistics {
        let any = |name: &str| self.0.iter().any(|a| a.reads(name));
        Statistics { lse: any("lse"), entropy: any("entropy"), mean_logit: any("mean_logit"), top1: true }
    }

    /// What divides each term: counted over the whole window, so that it does not matter how the window is cut.
    ///
    /// # Errors
    /// A normaliser the data cannot give, or a custom one of which `weigh` says nothing; the plugin's own.
    pub fn denominators(&self, windows: &[&PackedBatch]) -> Result<Denominators> {
        let tokens: usize = windows.iter().map(|b| b.supervised()).sum();
        let sequences: usize = windows.iter().map(|b| b.sequences()).sum();
        let mut all = Vec::with_capacity(self.0.len());
        for active in &self.0 {
            let mut own = Vec::new();
            for term in &active.manifest.terms {
                let value = match &term.normaliser {
                    n if *n == Normaliser::SUPERVISED_TOKENS => tokens as f64,
                    n if *n == Normaliser::SEQUENCES => sequences as f64,
                    n if *n == Normaliser::PAIRS || *n == Normaliser::GROUPS => groups(&active.id, windows)?,
                    n if *n == Normaliser::CUSTOM => custom(active, &term.name, windows)?,
                    other => {
                        return Err(Error::request(format!(
                            "objective \"{}\" divides its term `{}` by `{other}`, which this host does not know",
                            active.id, term.name
                        )));
                    }
                };
                own.push((term.name.clone(), value));
            }
            all.push(own);
        }
        Ok(Denominators(all))
    }

    /// The losses of a batch with its statistics, in the order of the objectives.
    ///
    /// # Errors
    /// The plugins' own, named.
    pub fn losses(&self, batch: &Batch<'_>, trail: &Trail) -> Result<Vec<Loss>> {
        self.0
            .iter()
            .map(|active| {
                trail.objective(&active.id, "loss");
                let loss = active.instance.loss(batch).map_err(|e| e.in_plugin(&active.id))?;
                check_loss(active, &loss)?;
                Ok(loss)
            })
            .collect()
    }

    /// The cotangents of the total loss at the tokens `rows`: every term's, times weight and coefficient, over its
    /// denominator.
    ///
    /// # Errors
    /// A cotangent of a statistic that was not offered, or of another length.
    pub fn cotangents(&self, losses: &[Loss], by: &Denominators, tokens: usize, rows: &[i32]) -> Result<Sums> {
        let mut sums = Sums::default();
        for ((active, loss), denominators) in self.0.iter().zip(losses).zip(&by.0) {
            for term in &loss.terms {
                let factor = active.weight * term.coefficient * share(1.0, denominator(denominators, &term.name));
                for (statistic, values) in &term.cotangents {
                    if values.len() != tokens {
                        return Err(Error::run(format!(
                            "objective \"{}\": {} cotangents of `{statistic}` for {tokens} tokens",
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
                    let target = slot.get_or_insert_with(|| vec![0.0; rows.len()]);
                    for (sum, row) in target.iter_mut().zip(rows) {
                        *sum += factor * values[*row as usize];
                    }
                }
            }
        }
        Ok(sums)
    }
}

impl Sums {
    fn slot(&mut self, statistic: &str) -> Option<&mut Option<Vec<f64>>> {
        match statistic {
            "logp" => Some(&mut self.logp),
            "lse" => Some(&mut self.lse),
            "entropy" => Some(&mut self.entropy),
            "mean_logit" => Some(&mut self.mean_logit),
            _ => None,
        }
    }

    /// The same for the model.
    pub fn as_cotangents(&self) -> crate::model::Cotangents<'_> {
        crate::model::Cotangents {
            logp: self.logp.as_deref(),
            lse: self.lse.as_deref(),
            mean_logit: self.mean_logit.as_deref(),
            entropy: self.entropy.as_deref(),
        }
    }
}

fn share(sum: f64, denominator: f64) -> f64 {
    if denominator == 0.0 { 0.0 } else { sum / denominator }
}

fn denominator(own: &[(String, f64)], term: &str) -> f64 {
    own.iter().find(|(name, _)| name == term).map_or(0.0, |(_, value)| *value)
}

fn custom(active: &Active, term: &str, windows: &[&PackedBatch]) -> Result<f64> {
    let mut total = 0.0;
    for packed in windows {
        let weights = active.instance.weigh(&data_arrays(packed)).map_err(|e| e.in_plugin(&active.id))?;
        let own = weights.iter().find(|(name, _)| name == term).ok_or_else(|| {
            Error::run(format!("objective \"{}\": `weigh` says nothing of the term `{term}`", active.id))
        })?;
        total += own.1;
    }
    Ok(total)
}

/// Number of distinct values of the column `group`.
fn groups(id: &str, windows: &[&PackedBatch]) -> Result<f64> {
    let mut seen = BTreeSet::new();
    for packed in windows {
        let column = packed.columns.get(names::GROUP).ok_or_else(|| {
            Error::request(format!("objective \"{id}\" counts pairs or groups, but the data has no column `group`"))
        })?;
        seen.extend(column.iter().map(|v| v.to_bits()));
    }
    Ok(seen.len() as f64)
}

fn check_loss(active: &Active, loss: &Loss) -> Result<()> {
    let unknown_term = loss.terms.iter().find(|t| !active.manifest.terms.iter().any(|d| d.name == t.name));
    let unknown_metric = loss.metrics.iter().find(|m| !active.manifest.metrics.iter().any(|d| d.name == m.name));
    let undeclared = unknown_term
        .map(|t| format!("the term `{}`", t.name))
        .or_else(|| unknown_metric.map(|m| format!("the metric `{}`", m.name)));
    match undeclared {
        None => Ok(()),
        Some(what) => Err(Error::run(format!(
            "objective \"{}\" returned {what}, which its manifest does not declare",
            active.id
        ))),
    }
}

/// The arrays of a batch that come from data alone.
pub fn data_arrays(packed: &PackedBatch) -> Batch<'static> {
    let floats = |values: &[i32]| values.iter().map(|v| f64::from(*v)).collect::<Vec<f64>>();
    let mut batch = Batch::new()
        .with(names::OFFSETS, Scope::BATCH, floats(&packed.offsets))
        .with(names::TARGET, Scope::TOKEN, floats(&packed.targets))
        .with(names::MASK, Scope::TOKEN, packed.mask.clone())
        .with(names::POSITION, Scope::TOKEN, floats(&packed.positions));
    for (name, values) in &packed.columns {
        let own = name == names::GROUP || name == names::SIDE;
        let name = if own { name.clone() } else { format!("{}{name}", names::COLUMN) };
        batch = batch.with(name, Scope::SEQUENCE, values.clone());
    }
    batch
}

/// Tokens that pass the head: the supervised ones.
pub fn supervised_rows(packed: &PackedBatch) -> Vec<i32> {
    packed.mask.iter().enumerate().filter(|(_, m)| **m != 0.0).map(|(n, _)| n as i32).collect()
}

/// A batch's data with the statistics of its supervised tokens; the others get 0.
pub fn with_statistics(
    packed: &PackedBatch,
    rows: &[i32],
    wanted: Statistics,
    stats: Option<&HeadStats>,
) -> Result<Batch<'static>> {
    let n = packed.len();
    let spread = |values: Option<&Vec<f64>>| {
        let mut all = vec![0.0; n];
        for (row, value) in rows.iter().zip(values.into_iter().flatten()) {
            all[*row as usize] = *value;
        }
        all
    };
    let mut batch = data_arrays(packed).with_statistic("logp", Scope::TOKEN, spread(stats.map(|s| &s.logp)));
    let optional = [
        ("lse", wanted.lse, stats.and_then(|s| s.lse.as_ref())),
        ("entropy", wanted.entropy, stats.and_then(|s| s.entropy.as_ref())),
        ("mean_logit", wanted.mean_logit, stats.and_then(|s| s.mean_logit.as_ref())),
    ];
    for (name, wanted, values) in optional {
        if wanted {
            batch = batch.with_statistic(name, Scope::TOKEN, spread(values));
        }
    }
    if let Some(top1) = stats.and_then(|s| s.top1.as_ref()) {
        let mut hits = vec![0.0; n];
        for (row, id) in rows.iter().zip(top1) {
            hits[*row as usize] = f64::from(u8::from(packed.targets[*row as usize] == *id));
        }
        batch = batch.with("top1", Scope::TOKEN, hits);
    }
    batch.check()?;
    Ok(batch)
}

/// Adds up losses and metrics over the micro-batches of a window.
#[derive(Debug, Default)]
pub struct Tally {
    terms: Vec<(usize, String, f64, f64)>,
    metrics: Vec<(usize, String, f64, f64)>,
    correct: f64,
    supervised: f64,
    sequences: u64,
    tokens: u64,
}

impl Tally {
    /// Adds one micro-batch.
    pub fn add(&mut self, packed: &PackedBatch, batch: &Batch<'_>, objectives: &Objectives, losses: &[Loss]) {
        for (index, (active, loss)) in objectives.0.iter().zip(losses).enumerate() {
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
            self.correct += hits.data.iter().sum::<f64>();
        }
        self.supervised += packed.supervised() as f64;
        self.sequences += packed.sequences() as u64;
        self.tokens += packed.len() as u64;
    }

    /// Positions computed.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Supervised tokens.
    pub fn supervised(&self) -> f64 {
        self.supervised
    }

    /// The total loss: every term's sum over its denominator, weighted.
    pub fn loss(&self, objectives: &Objectives, by: &Denominators) -> f64 {
        let parts = self.terms.iter().map(|(index, name, coefficient, sum)| {
            objectives.0[*index].weight * coefficient * share(*sum, denominator(&by.0[*index], name))
        });
        parts.sum()
    }

    /// Terms (where the loss has several) and metrics by name, token accuracy included.
    pub fn metrics(&self, objectives: &Objectives, by: &Denominators) -> Vec<(String, f64)> {
        let mut all = Vec::new();
        for (index, active) in objectives.0.iter().enumerate() {
            let named = |name: &str| format!("{}{name}", active.prefix);
            let terms: Vec<_> = self.terms.iter().filter(|t| t.0 == index).collect();
            // The only term of the only objective is the loss itself.
            let told = if terms.len() + objectives.0.len() > 2 { terms } else { Vec::new() };
            for (_, name, _, sum) in told {
                all.push((named(name), share(*sum, denominator(&by.0[index], name))));
            }
            for (_, name, value, weight) in self.metrics.iter().filter(|m| m.0 == index) {
                let reduction = active.manifest.metrics.iter().find(|d| d.name == *name).map(|d| &d.reduction);
                let mean = reduction == Some(&Reduction::MEAN);
                all.push((named(name), if mean { share(*value, *weight) } else { *value }));
            }
        }
        if self.supervised > 0.0 {
            all.push(("token_accuracy".into(), self.correct / self.supervised));
        }
        all
    }
}

/// The micro-batches of a window, packed.
///
/// # Errors
/// Rows that cannot be packed.
pub fn cut(window: &Window, micro_batch_tokens: usize) -> Result<Vec<PackedBatch>> {
    window.micro_batches(micro_batch_tokens).map(|b| b.map_err(Error::from)).collect()
}
