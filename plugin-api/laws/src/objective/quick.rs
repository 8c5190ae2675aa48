//! The laws that take milliseconds, for one instance on a batch of its own experiment: an objective that breaks them is not worth
//! training.

use std::collections::BTreeSet;

use super::{
    checks::{
        derivatives::{all_detached, base, mismatch, sum_at, vector},
        expectations,
    },
    compare::{Alike, Flat},
    outcome::{Fault, Held, Outcome, fault},
    windows::{Generator, Values, sequences},
};
use crate::{Agreement, Broken, Report};
use plugin_api::{
    Result,
    batch::{Array, Batch, Scope},
    contract,
    export::guard,
    manifest::{DataKind, Normaliser, ObjectiveManifest},
    objective::{Objective, Term},
    tape::{CheckError, Tolerance, gradient_error},
};
use telos_random::SplitMix64;

/// An instance with the batch that it is about to learn from.
pub struct Quick<'a> {
    /// The objective's manifest.
    pub manifest: &'a ObjectiveManifest,
    /// The experiment's instance.
    pub objective: &'a dyn Objective,
    /// Another instance, under default options, for which the manifest's expectations hold.
    pub plain: Option<Box<dyn Objective>>,
    /// The batch, with statistics and the arrays from `prepare`.
    pub batch: &'a Batch<'a>,
    /// Number of tokens of the vocabulary.
    pub vocabulary: usize,
}

/// Number of sequences, pairs or groups of the batch that are checked, unless the loss couples all of it.
const UNITS: usize = 8;
/// How many derivatives of each term by each statistic are measured.
const DERIVATIVES: usize = 8;
/// Real statistics have single precision, but the steps of the differences do not.
const TOLERANCE: Tolerance = Tolerance { relative: 1e-5, absolute: 1e-8 };

/// Why a batch without a gradient is refused. The cause may also be the options, or the batch's rows.
pub const NOTHING_LEARNED: &str = "every cotangent of the first batch is 0: nothing would be learned";

/// The quick laws by name, with what each means.
pub const QUICK: &[(&str, &str)] = &[
    ("gradient", "sums and cotangents are finite, and not all cotangents are 0"),
    ("cotangents", "they are the derivatives of the sums, by central differences at a few tokens"),
    ("stop-gradients", "what the manifest declares as held constant in the gradient is detached by `loss`"),
    (
        "normalisers",
        "`weigh` returns each custom normaliser, and the batch cut in two gives the same (unless the loss is coupled)",
    ),
    ("additivity", "the batch cut in two gives the same sums, cotangents and metrics (unless the loss is coupled)"),
    ("expectations", "equal models with uniform logits give the manifest's expected numbers (default options)"),
];

impl Quick<'_> {
    /// Checks the quick laws.
    pub fn verify(mut self) -> Report {
        let mut report = Report::default();
        let plain = self.plain.take();
        self.run(&mut report, "gradient", || self.gradient());
        self.run(&mut report, "cotangents", || self.cotangents());
        if !self.manifest.stop_gradients.is_empty() {
            self.run(&mut report, "stop-gradients", || self.stop_gradients());
        }
        // Broken requirements are reported by the other laws.
        let requirements = self.objective.requirements().unwrap_or_default();
        if self.manifest.terms.iter().any(|term| *requirements.normaliser(term).0 == Normaliser::CUSTOM) {
            self.run(&mut report, "normalisers", || self.normalisers());
        }
        self.run(&mut report, "additivity", || self.additivity());
        if let Some(mut plain) = plain.filter(|_| !self.manifest.expectations.is_empty()) {
            self.run(&mut report, "expectations", || self.expectations(plain.as_mut()));
        }
        report
    }

    /// Terms whose cotangents are all 0 in the part that the law of cotangents checks, for example because all rewards of a
    /// rollout are equal: whether they are right is not known yet. A term with a coefficient of 0 does not count.
    ///
    /// # Errors
    /// The plugin's own.
    pub fn silent_terms(&self) -> Result<Vec<String>> {
        let batch = self.near(&self.part()?, 1)?;
        let loss = guard::catch("", "loss", || self.objective.loss(&batch))?;
        let is_silent =
            |term: &&Term| term.coefficient != 0.0 && !term.cotangents.iter().any(|(_, values)| any_nonzero(values));
        Ok(loss.terms.iter().filter(is_silent).map(|term| term.name.clone()).collect())
    }

    fn run(&self, report: &mut Report, law: &str, check: impl FnOnce() -> Outcome) {
        let outcome = match guard::catch("", law, || Ok(check())) {
            Ok(outcome) => outcome,
            Err(panic) => Err(Fault::from(panic.to_string())),
        };
        match outcome {
            Ok(held) => report.uphold(law, "", held.note, held.agreement),
            Err(Fault { text, agreement, .. }) => report.refute(law, "", Broken { text, agreement }, None),
        }
    }

    fn coupled(&self) -> Result<bool> {
        Ok(self.manifest.coupled || self.objective.requirements()?.coupled)
    }

    /// Sequences that stay together in a micro-batch: those of one group, unless the answers to a prompt may be cut apart.
    fn units(&self) -> Result<Vec<Vec<usize>>> {
        match self.manifest.data == DataKind::PROMPT && !self.objective.requirements()?.whole_groups {
            true => Ok((0..self.batch.sequences()?).map(|s| vec![s]).collect()),
            false => sequences::units(self.batch),
        }
    }

    /// The part of the batch that the laws check: for each term the first unit with a cotangent other than 0, then further units
    /// with one, then the first units without.
    fn part(&self) -> Result<Batch<'static>> {
        if self.coupled()? {
            return Ok(sequences::owned(self.batch));
        }
        let (units, terms) = (self.units()?, self.sequences_with_gradient()?);
        let has_gradient = |unit: &[usize], term: &[bool]| unit.iter().any(|s| term.get(*s) == Some(&true));
        let first_of_terms: BTreeSet<usize> =
            terms.iter().filter_map(|term| units.iter().position(|unit| has_gradient(unit, term))).collect();
        let rank = |unit: usize| match first_of_terms.contains(&unit) {
            true => 0,
            false if terms.iter().any(|term| has_gradient(&units[unit], term)) => 1,
            false => 2,
        };
        let mut order: Vec<usize> = (0..units.len()).collect();
        order.sort_by_key(|unit| rank(*unit));
        let chosen: Vec<usize> = order.into_iter().take(UNITS).flat_map(|unit| units[unit].clone()).collect();
        sequences::select(self.batch, &chosen)
    }

    /// For each term, whether each sequence has a cotangent other than 0.
    fn sequences_with_gradient(&self) -> Result<Vec<Vec<bool>>> {
        let (offsets, sequences) = (self.batch.offsets()?, self.batch.sequences()?);
        let of_term = |term: &Term| {
            let mut found = vec![false; sequences];
            for (statistic, values) in &term.cotangents {
                let Some(array) = self.batch.find(statistic) else { continue };
                for (s, found) in found.iter_mut().enumerate() {
                    let rows = if array.scope == Scope::TOKEN { offsets[s]..offsets[s + 1] } else { s..s + 1 };
                    *found |= values.get(rows.start * array.cols..rows.end * array.cols).is_some_and(any_nonzero);
                }
            }
            found
        };
        Ok(self.objective.loss(self.batch)?.terms.iter().map(of_term).collect())
    }

    /// The batch with its differentiable statistics moved a little.
    fn near(&self, part: &Batch<'_>, draw: u64) -> Result<Batch<'static>> {
        let statistics = self.objective.requirements()?.statistics;
        Generator::new(0x9).fill(part, &statistics, Values::Near(draw))
    }

    fn gradient(&self) -> Outcome {
        let loss = self.objective.loss(self.batch)?;
        let mut silent = true;
        for term in &loss.terms {
            if !term.sum.is_finite() || !term.coefficient.is_finite() {
                return fault(format!("term `{}`: coefficient {}, sum {}", term.name, term.coefficient, term.sum));
            }
            for (statistic, values) in &term.cotangents {
                if let Some(at) = values.iter().position(|x| !x.is_finite()) {
                    let near = self.batch.find(statistic).and_then(|a| a.data.get(at)).copied();
                    let near = near.map(|x| format!(", where the statistic is {x}")).unwrap_or_default();
                    let (name, value) = (&term.name, values[at]);
                    return fault(format!("term `{name}`: the cotangent `{statistic}`[{at}] is {value}{near}"));
                }
                silent &= term.coefficient == 0.0 || values.iter().all(|x| *x == 0.0);
            }
        }
        let supervised = self.batch.mask()?.contains(&1.0);
        let why = NOTHING_LEARNED;
        match silent && supervised {
            true if self.manifest.data != DataKind::PROMPT => fault(why),
            // Answers of equal reward give no gradient, but other answers may.
            true => Ok(Held::note(why)),
            false => Ok(Held::default()),
        }
    }

    /// Differences are taken near the real statistics, not at them: models that are still equal are at kinks (ratios of 1, margins
    /// of 0). If the check fails at one point, it is repeated at a second, with other elements; only a failure there is reported.
    fn cotangents(&self) -> Outcome {
        let part = self.part()?;
        match self.derivatives(&part, 1) {
            Err(_) => self.derivatives(&part, 2),
            held => held,
        }
    }

    fn derivatives(&self, part: &Batch<'_>, draw: u64) -> Outcome {
        let batch = self.near(part, draw)?;
        let (loss, detached) = base(self.objective, &batch)?;
        let flat = Flat::of(self.manifest, &loss, &batch)?;
        let mut worst = Agreement::new(0.0, TOLERANCE.relative);
        let mut checked = 0;
        for term in flat.terms.keys() {
            for array in batch.arrays().iter().filter(|a| a.differentiable) {
                let claimed = flat.cotangents.get(&format!("{term}/{}", array.name))?;
                let chosen = chosen(claimed, &array.data, draw);
                checked += chosen.len();
                let point: Vec<f64> = chosen.iter().map(|i| array.data[*i]).collect();
                let few: Vec<f64> = chosen.iter().map(|i| claimed[*i]).collect();
                let sum = |at: &[ndarray::ArrayD<f64>]| {
                    let moved: Vec<ndarray::ArrayD<f64>> =
                        batch
                            .arrays()
                            .iter()
                            .filter(|a| a.differentiable)
                            .map(|a| {
                                if a.name == array.name { vector(&spread(a, &chosen, &at[0])) } else { vector(&a.data) }
                            })
                            .collect();
                    sum_at(self.objective, &batch, &moved, term, &detached)
                };
                let named = |e: CheckError| {
                    let mut fault = mismatch(term, &e, TOLERANCE.relative);
                    if let CheckError::Mismatch { index, claimed, measured, .. } = e {
                        let (name, place) = (&array.name, place(array, &batch, chosen[index]));
                        fault.text = format!(
                            "term `{term}`: the cotangent of `{name}` at {place} is {claimed}, the measured derivative {measured}"
                        );
                    }
                    fault
                };
                let point = [(array.name.as_ref(), vector(&point))];
                let error = gradient_error(&point, &[vector(&few)], TOLERANCE, sum).map_err(named)?;
                worst = worst.worse(Agreement::new(error * worst.limit, worst.limit));
            }
        }
        Ok(Held { note: format!("{checked} derivatives"), agreement: Some(worst) })
    }

    /// Values that are declared as held constant are detached on this batch.
    fn stop_gradients(&self) -> Outcome {
        let (_, detached) = base(self.objective, &self.part()?)?;
        all_detached(self.manifest, &detached).map(|()| Held::default())
    }

    /// The two halves of the part that is checked, or the reason why it is not split.
    fn halves(&self, part: &Batch<'_>) -> Result<Halves> {
        if self.coupled()? {
            return Ok(Err("coupled: not cut"));
        }
        let units = Quick { batch: part, plain: None, ..*self }.units()?;
        if units.len() < 2 {
            return Ok(Err("one sequence, pair or group: not cut"));
        }
        let (front, back) = units.split_at(units.len() / 2);
        Ok(Ok([front.concat(), back.concat()]))
    }

    /// A custom normaliser depends only on data and adds up: the loss must not depend on how the window is split.
    fn normalisers(&self) -> Outcome {
        let requirements = self.objective.requirements()?;
        let (statistics, part) = (&requirements.statistics, self.part()?);
        let is_data = |array: &&Array<'_>| !array.differentiable && !statistics.iter().any(|s| *s == array.name);
        let data = part.arrays().iter().filter(is_data).cloned().fold(Batch::new(), Batch::with_array);
        let weigh = |batch: &Batch<'_>| -> Result<Vec<(String, f64)>, Fault> {
            let weights = self.objective.weigh(batch)?;
            contract::weights(self.manifest, &requirements, &weights)
                .map_err(|why| Fault::from(format!("`weigh`: {}", why.text)))?;
            Ok(weights)
        };
        let whole = weigh(&data)?;
        let cut = match self.halves(&part)? {
            Ok(cut) => cut,
            Err(why) => return Ok(Held::note(why)),
        };
        let halves =
            cut.iter().map(|half| weigh(&sequences::select(&data, half)?)).collect::<Result<Vec<_>, Fault>>()?;
        let mut worst = Alike::Rounding.measure(0.0, 0.0);
        for (term, weight) in &whole {
            let own = halves.iter().flatten().filter(|(name, _)| name == term);
            let sum: f64 = own.map(|(_, weight)| weight).sum();
            if !Alike::Rounding.holds(*weight, sum) {
                let text = format!(
                    "`weigh` answers {weight} as normaliser of the term `{term}`, and {sum} for the same batch cut in two: the \
                     loss would depend on how a window is cut (train.micro_batch_tokens)"
                );
                return Err(Fault::measured(text, Alike::Rounding.measure(*weight, sum)));
            }
            worst = worst.worse(Alike::Rounding.measure(*weight, sum));
        }
        Ok(Held::measured(worst))
    }

    fn additivity(&self) -> Outcome {
        let part = self.part()?;
        let cut = match self.halves(&part)? {
            Ok(cut) => cut,
            Err(why) => return Ok(Held::note(why)),
        };
        let flat = |batch: &Batch<'_>| Flat::of(self.manifest, &self.objective.loss(batch)?, batch);
        let whole = flat(&part)?;
        let halves =
            cut.iter().map(|half| flat(&sequences::select(&part, half)?)).collect::<Result<Vec<_>, Fault>>()?;
        let joined = Flat::join(self.manifest, &halves)?;
        let cotangents = sequences::select(&whole.cotangents, &cut.concat())?;
        let expected = Flat { cotangents, ..whole };
        Ok(Held::measured(expected.same(&joined, Alike::Rounding).map_err(|fault| fault.within("cut in two"))?))
    }

    fn expectations(&self, plain: &mut dyn Objective) -> Outcome {
        let generator = Generator::new(0x9).with_vocabulary(self.vocabulary);
        let requirements = plain.requirements()?;
        let (statistics, part) = (&requirements.statistics, sequences::at_first_step(&self.part()?));
        if !part.mask()?.contains(&1.0) {
            return Ok(Held::note("nothing of the first sequences is supervised"));
        }
        let window = generator.fill(&part, statistics, Values::Uniform)?;
        let is_statistic = |name: &str| statistics.iter().any(|s| s == name);
        let rollouts = self.manifest.data == DataKind::PROMPT;
        let reads = rollouts || requirements.window_statistics;
        let seen = window.arrays().iter().filter(|a| reads || !is_statistic(&a.name)).cloned();
        let seen = seen.fold(Batch::new(), Batch::with_array);
        let batch = sequences::prepared(plain, &seen, &window, rollouts)?;
        let worst = expectations::check_batch(self.manifest, &requirements, plain, &batch, generator.ln_vocab())?;
        Ok(Held { note: String::new(), agreement: worst })
    }
}

/// Whether any cotangent is not 0.
fn any_nonzero(cotangents: &[f64]) -> bool {
    cotangents.iter().any(|value| *value != 0.0)
}

/// Sequences of each half, or the reason why there are none.
type Halves = std::result::Result<[Vec<usize>; 2], &'static str>;

/// An element of a statistic in words: its index in the batch and in its sequence.
fn place(array: &Array<'_>, batch: &Batch<'_>, element: usize) -> String {
    let row = element / array.cols.max(1);
    match array.scope {
        Scope::TOKEN => contract::place(&batch.offsets().unwrap_or_default(), row),
        Scope::SEQUENCE => format!("sequence {row}"),
        _ => format!("place {row}"),
    }
}

/// Which elements are measured: those with the greatest cotangents, and some others.
fn chosen(claimed: &[f64], values: &[f64], draw: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| claimed[*b].abs().total_cmp(&claimed[*a].abs()).then(a.cmp(b)));
    let mut chosen: Vec<usize> = order.iter().copied().take(DERIVATIVES / 2).collect();
    let mut rng = SplitMix64::new(draw);
    while chosen.len() < DERIVATIVES.min(values.len()) {
        let other = rng.below(values.len());
        if !chosen.contains(&other) {
            chosen.push(other);
        }
    }
    chosen
}

/// An array's values with some of them replaced.
fn spread(array: &Array<'_>, places: &[usize], values: &ndarray::ArrayD<f64>) -> Vec<f64> {
    let mut all = array.data.to_vec();
    places.iter().zip(values).for_each(|(place, value)| all[*place] = *value);
    all
}
