//! The laws that take milliseconds, of one instance on a batch of its own experiment: what contradicts them is not worth training.

use super::{
    Generator, Values,
    case::{Fault, Held, Outcome, fault},
    compare::{Alike, Flat},
    derivatives::{base, mismatch, sum_at, vector},
    expectations, sequences,
};
use crate::{
    Result,
    batch::{Array, Batch},
    export::guard,
    laws::{Agreement, Broken, Report, SplitMix64},
    manifest::{DataKind, Normaliser, ObjectiveManifest},
    objective::Objective,
    tape::{CheckError, Tolerance, gradient_error},
};

/// An instance with the batch that it is about to learn from.
pub struct Quick<'a> {
    /// What the objective says of itself.
    pub manifest: &'a ObjectiveManifest,
    /// The experiment's instance.
    pub objective: &'a dyn Objective,
    /// Another instance, under default options, of which the manifest's expectations hold.
    pub plain: Option<Box<dyn Objective>>,
    /// The batch, with statistics and with what `prepare` answered.
    pub batch: &'a Batch<'a>,
    /// Number of tokens of the vocabulary.
    pub vocabulary: usize,
}

/// Sequences, pairs or groups of the batch that are looked at, unless the loss couples all of it.
const UNITS: usize = 8;
/// Derivatives of each term by each statistic that are measured.
const DERIVATIVES: usize = 8;
/// Real statistics come in single precision; what they are moved by does not.
const TOLERANCE: Tolerance = Tolerance { relative: 1e-5, absolute: 1e-8 };

/// The quick laws by name, with what each means.
pub const QUICK: &[(&str, &str)] = &[
    ("gradient", "sums and cotangents are finite, and not all cotangents are 0"),
    ("cotangents", "a few of them are the derivatives of the sums, by central differences"),
    ("additivity", "the batch cut in two gives the same sums, cotangents and metrics (unless the loss is coupled)"),
    ("expectations", "for equal models with uniform logits the manifest's numbers come out (default options)"),
];

impl Quick<'_> {
    /// Checks the quick laws.
    pub fn verify(mut self) -> Report {
        let mut report = Report::default();
        let plain = self.plain.take();
        self.run(&mut report, "gradient", || self.gradient());
        self.run(&mut report, "cotangents", || self.cotangents());
        self.run(&mut report, "additivity", || self.additivity());
        if let Some(mut plain) = plain.filter(|_| !self.manifest.expectations.is_empty()) {
            self.run(&mut report, "expectations", || self.expectations(plain.as_mut()));
        }
        report
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

    /// Sequences that stay together in a micro-batch.
    fn units(&self) -> Result<Vec<Vec<usize>>> {
        let by_group = |n: &Normaliser| [Normaliser::PAIRS, Normaliser::GROUPS].contains(n);
        let grouped = self.manifest.data == DataKind::PREFERENCE
            || self.manifest.terms.iter().any(|term| by_group(&term.normaliser));
        sequences::units(self.batch, grouped)
    }

    /// The part of the batch that is looked at.
    fn part(&self) -> Result<Batch<'static>> {
        if self.coupled()? {
            return Ok(sequences::owned(self.batch));
        }
        let units = self.units()?;
        sequences::select(self.batch, &units[..units.len().min(UNITS)].concat())
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
        let why = "every cotangent of the first batch is 0: nothing would be learned";
        match silent && supervised {
            true if self.manifest.data != DataKind::PROMPT => fault(why),
            // Answers of equal reward teach nothing, and others may.
            true => Ok(Held::note(why)),
            false => Ok(Held::default()),
        }
    }

    /// Differences are taken near the real statistics, not at them: models that are still equal stand on kinks (ratios of 1, margins
    /// of 0). What is wrong must be wrong at two such points.
    fn cotangents(&self) -> Outcome {
        let part = self.part()?;
        match self.derivatives(&part, 1) {
            Err(_) => self.derivatives(&part, 2),
            held => held,
        }
    }

    fn derivatives(&self, part: &Batch<'_>, draw: u64) -> Outcome {
        let statistics = self.objective.requirements()?.statistics;
        let batch = Generator::new(0x9).fill(part, self.manifest, &statistics, Values::Near(draw))?;
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
                    if let CheckError::Mismatch { index, .. } = e {
                        fault.text = format!("{} (element {} of `{}`)", fault.text, chosen[index], array.name);
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

    fn additivity(&self) -> Outcome {
        if self.coupled()? {
            return Ok(Held::note("coupled: not cut"));
        }
        let part = self.part()?;
        let by_group = Quick { batch: &part, plain: None, ..*self };
        let units = by_group.units()?;
        if units.len() < 2 {
            return Ok(Held::note("one sequence, pair or group: not cut"));
        }
        let (front, back) = units.split_at(units.len() / 2);
        let cut = [front.concat(), back.concat()];
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
        let statistics = plain.requirements()?.statistics;
        let part = self.part()?;
        if !part.mask()?.contains(&1.0) {
            return Ok(Held::note("nothing of the first sequences is supervised"));
        }
        let window = generator.fill(&part, self.manifest, &statistics, Values::Uniform)?;
        let is_statistic = |name: &str| statistics.iter().any(|s| s == name);
        let rollouts = self.manifest.data == DataKind::PROMPT;
        let seen = window.arrays().iter().filter(|a| rollouts || !is_statistic(&a.name)).cloned();
        let seen = seen.fold(Batch::new(), Batch::with_array);
        let batch = sequences::prepared(plain, &seen, &window, rollouts)?;
        let worst = expectations::come_out(self.manifest, plain, &batch, generator.ln_vocab())?;
        Ok(Held { note: String::new(), agreement: worst })
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

/// An array's values with some replaced.
fn spread(array: &Array<'_>, places: &[usize], values: &ndarray::ArrayD<f64>) -> Vec<f64> {
    let mut all = array.data.to_vec();
    places.iter().zip(values).for_each(|(place, value)| all[*place] = *value);
    all
}
