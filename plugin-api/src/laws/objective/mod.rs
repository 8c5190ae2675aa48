//! The laws of objectives: what must hold of any loss whose host sums, cuts, masks and normalises for it.
//!
//! An author calls [`verify`] (or [`Laws`], with options) from one test; a loaded plugin goes through [`Laws::new`].
//!
//! | law | what must hold | what breaks it |
//! |---|---|---|
//! | `manifest` | it is complete: summary, formula, meanings, defaults within range, names that differ | an option without help |
//! | `options` | defaults make an instance; a value of another type or out of range is refused, naming the key | a check forgotten |
//! | `declared` | what is read and returned stands in the manifest, with the right lengths | an undeclared metric |
//! | `used` | every declared term and metric is returned by at least one of the cases | a leftover |
//! | `cotangents` | they are the derivatives of the sums, by central differences | a sign, a coefficient twice |
//! | `additivity` | a window cut anywhere gives the same sums, cotangents and metrics (not if `coupled`) | a mean for a sum |
//! | `order` | the order of sequences does not matter | a loss by row number |
//! | `masked` | what stands behind mask 0, NaN and infinity included, changes nothing; cotangents there are 0 | `mask * x` |
//! | `empty` | no sequence, or no supervised token: sums 0, nothing NaN, the same terms | 0 / 0 |
//! | `linear` | where the requirements claim it, cotangents do not depend on statistics | a wrong flag |
//! | `normalisers` | custom ones come from data alone, add up, and are there | a weight by log-probability |
//! | `repeatable` | the same call twice, and on two instances, gives the same bits; `loss` changes no state | a counter in `loss` |
//! | `state` | a restored instance goes on like the saved one; foreign bytes are refused | a forgotten field |
//! | `expectations` | for equal models with uniform logits the manifest's numbers come out (default options) | `log2` for `ln` |
//!
//! Terms and metrics that exist under some options only are declared all the same, saying so in their meaning; the cases
//! given must then bring each of them about once.

mod compare;
mod description;
mod expectations;
mod generator;
mod instance;
mod mathematics;
mod options;
mod sequences;
#[cfg(test)]
mod tests;

pub use generator::{Generator, Values};

use super::{Report, SplitMix64};
use crate::{
    Error, Result,
    batch::Batch,
    export::guard,
    manifest::{DataKind, ObjectiveManifest, Requirements},
    objective::{Loss, Objective, ObjectivePlugin},
    options::{OptionMap, OptionSet},
    tape::{CheckError, Tolerance},
};

/// Verifies objective `T` under each of `options` (under its defaults where there are none). See the [table](self).
///
/// ```
/// # use plugin_api::prelude::*;
/// # struct Plain;
/// # impl Objective for Plain {
/// #     fn loss(&self, batch: &Batch) -> Result<Loss> {
/// #         let tape = batch.tape()?;
/// #         let nll = -batch.var(&tape, "logp")?.masked_sum(batch.mask()?);
/// #         Loss::new().term(&tape, "nll", 1.0, nll)
/// #     }
/// # }
/// # impl ObjectivePlugin for Plain {
/// #     type Options = ();
/// #     fn create((): ()) -> Result<Self> { Ok(Plain) }
/// #     fn manifest() -> ObjectiveManifest {
/// #         ObjectiveManifest {
/// #             summary: "Cross-entropy".into(), formula: "-logp".into(),
/// #             terms: vec![TermSpec::new("nll", Normaliser::SUPERVISED_TOKENS, "In nats")],
/// #             ..Default::default()
/// #         }
/// #     }
/// # }
/// use plugin_api::laws::objective::{Generator, verify};
/// verify::<Plain>(&[], &Generator::new(7)).assert_ok();
/// ```
pub fn verify<T: ObjectivePlugin>(options: &[OptionMap], generator: &Generator) -> Report {
    let laws = Laws::of::<T>().with_generator(generator.clone());
    options.iter().cloned().fold(laws, Laws::with_options).verify()
}

type Create = Box<dyn Fn(&OptionMap) -> Result<Box<dyn Objective>>>;

/// What is verified, and on which cases.
pub struct Laws {
    manifest: ObjectiveManifest,
    create: Create,
    options: Vec<OptionMap>,
    generator: Generator,
    tolerance: Tolerance,
    exempt: Vec<(String, String)>,
}

impl Laws {
    /// The laws for an objective of this crate's traits.
    pub fn of<T: ObjectivePlugin>() -> Self {
        let manifest = guard::catch("", "manifest", || Ok(T::manifest())).unwrap_or_default();
        let manifest = ObjectiveManifest { options: T::Options::specs(), ..manifest };
        Self::new(manifest, |options| T::create(T::Options::parse(options)?))
    }

    /// The laws for anything that describes itself and makes instances, such as a loaded plugin:
    /// `Laws::new(library.objective_manifest()?, move |options| library.objective(options))`.
    pub fn new<O: Objective + 'static>(
        manifest: ObjectiveManifest,
        create: impl Fn(&OptionMap) -> Result<O> + 'static,
    ) -> Self {
        Self {
            manifest,
            create: Box::new(move |options| Ok(Box::new(create(options)?))),
            options: Vec::new(),
            generator: Generator::new(0x7e105),
            tolerance: Tolerance::default(),
            exempt: Vec::new(),
        }
    }

    /// One more case. Without any, the defaults are the only one.
    #[must_use]
    pub fn with_options(mut self, options: OptionMap) -> Self {
        self.options.push(options);
        self
    }

    /// Another source of batches: more arrays, other sizes.
    #[must_use]
    pub fn with_generator(mut self, generator: Generator) -> Self {
        self.generator = generator;
        self
    }

    /// Another tolerance for the `cotangents`.
    #[must_use]
    pub fn with_tolerance(mut self, tolerance: Tolerance) -> Self {
        self.tolerance = tolerance;
        self
    }

    /// Leaves out a law, for a reason that stands in the report: `cotangents` of a loss that detaches a factor.
    #[must_use]
    pub fn exempt(mut self, law: &str, reason: &str) -> Self {
        self.exempt.push((law.to_owned(), reason.to_owned()));
        self
    }

    /// Checks every law on every case.
    pub fn verify(&self) -> Report {
        let mut report = Report::default();
        self.run(&mut report, "manifest", "", || description::manifest(self));
        self.run(&mut report, "options", "", || options::options(self));
        let defaults = [OptionMap::new()];
        let cases = if self.options.is_empty() { &defaults[..] } else { &self.options };
        let mut returned = description::Names::default();
        for options in cases {
            self.case(&mut report, options, &mut returned);
        }
        self.run(&mut report, "used", "", || description::used(self, &returned));
        if let Some(first) = cases.first() {
            let required = options::required(self, first);
            let label = label(&required);
            self.run(&mut report, "expectations", &label, || expectations::expectations(&Case::new(self, &required)?));
        }
        report
    }

    fn case(&self, report: &mut Report, options: &OptionMap, returned: &mut description::Names) {
        let label = label(options);
        let case = match guard::catch("", "create", || Ok(Case::new(self, options))) {
            Ok(Ok(case)) => case,
            Ok(Err(Fault(why))) => return report.push("create", &label, Err(why)),
            Err(panic) => return report.push("create", &label, Err(panic.to_string())),
        };
        self.run(report, "declared", &label, || description::declared(&case, returned));
        type Law = fn(&Case<'_>) -> Outcome;
        let laws: [(&str, Law); 9] = [
            ("cotangents", mathematics::cotangents),
            ("additivity", mathematics::additivity),
            ("order", mathematics::order),
            ("masked", mathematics::masked),
            ("empty", mathematics::empty),
            ("linear", mathematics::linear),
            ("normalisers", instance::normalisers),
            ("repeatable", instance::repeatable),
            ("state", instance::state),
        ];
        for (name, law) in laws {
            self.run(report, name, &label, || law(&case));
        }
    }

    /// Runs one law; a panic in the objective breaks it.
    fn run(&self, report: &mut Report, law: &str, case: &str, check: impl FnOnce() -> Outcome) {
        if let Some((_, reason)) = self.exempt.iter().find(|(name, _)| name == law) {
            return report.push(law, case, Ok(format!("exempt: {reason}")));
        }
        let outcome = guard::catch("", law, || Ok(check()));
        report.push(
            law,
            case,
            match outcome {
                Ok(outcome) => outcome.map_err(|fault| fault.0),
                Err(panic) => Err(panic.to_string()),
            },
        );
    }
}

fn label(options: &OptionMap) -> String {
    serde_json::to_string(options).unwrap_or_default()
}

/// How a law was broken.
struct Fault(String);

/// A law that holds may still have something to say.
type Outcome = Result<String, Fault>;

impl From<String> for Fault {
    fn from(why: String) -> Self {
        Fault(why)
    }
}

impl From<Error> for Fault {
    fn from(e: Error) -> Self {
        Fault(format!("{:?}: {e}", e.code))
    }
}

impl From<CheckError> for Fault {
    fn from(e: CheckError) -> Self {
        Fault(e.to_string())
    }
}

fn fault<T>(why: impl Into<String>) -> Result<T, Fault> {
    Err(Fault(why.into()))
}

fn holds() -> Outcome {
    Ok(String::new())
}

/// An objective under one set of options.
struct Case<'a> {
    laws: &'a Laws,
    options: &'a OptionMap,
    requirements: Requirements,
}

/// How many different windows each law looks at.
const WINDOWS: u64 = 3;

impl<'a> Case<'a> {
    fn new(laws: &'a Laws, options: &'a OptionMap) -> Result<Self, Fault> {
        let requirements = (laws.create)(options)?.requirements()?;
        Ok(Self { laws, options, requirements })
    }

    fn manifest(&self) -> &ObjectiveManifest {
        &self.laws.manifest
    }

    fn instance(&self) -> Result<Box<dyn Objective>> {
        (self.laws.create)(self.options)
    }

    /// Data without statistics.
    fn data(&self, draw: u64) -> Batch<'static> {
        self.laws.generator.data(self.manifest(), draw)
    }

    /// The same data with statistics of `values`.
    fn fill(&self, data: &Batch<'_>, values: Values) -> Result<Batch<'static>> {
        self.laws.generator.fill(data, self.manifest(), &self.requirements.statistics, values)
    }

    /// An instance and a batch that is ready for its `loss`.
    fn ready(&self, draw: u64) -> Result<(Box<dyn Objective>, Batch<'static>)> {
        self.ready_from(&self.fill(&self.data(draw), Values::Random(draw))?, draw)
    }

    /// The same from a given window: `prepare` where there are rollouts, after which the models that train have moved.
    fn ready_from(&self, window: &Batch<'_>, draw: u64) -> Result<(Box<dyn Objective>, Batch<'static>)> {
        let mut objective = self.instance()?;
        if self.manifest().data != DataKind::PROMPT {
            return Ok((objective, sequences::owned(window)));
        }
        let batch = sequences::prepared(objective.as_mut(), window)?;
        let moved =
            self.laws.generator.fill(&batch, self.manifest(), &self.requirements.statistics, Values::Near(draw))?;
        Ok((objective, moved))
    }

    /// The loss in a form that can be compared.
    fn loss(&self, objective: &dyn Objective, batch: &Batch<'_>) -> Result<compare::Flat, Fault> {
        compare::Flat::of(self.manifest(), &objective.loss(batch)?, batch)
    }

    /// Whether a window is never cut.
    fn coupled(&self) -> bool {
        self.manifest().coupled || self.requirements.coupled
    }

    /// Whether a micro-batch never splits pairs or groups.
    fn keeps_groups(&self) -> bool {
        use crate::manifest::Normaliser;
        self.manifest().data == DataKind::PREFERENCE
            || self.manifest().terms.iter().any(|t| [Normaliser::PAIRS, Normaliser::GROUPS].contains(&t.normaliser))
    }
}

/// A term's weighted part of the total.
fn weighted(loss: &Loss) -> impl Iterator<Item = (&str, f64)> {
    loss.terms.iter().map(|t| (t.name.as_str(), t.coefficient * t.sum))
}
