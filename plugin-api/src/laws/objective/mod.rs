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
//! | `cotangents` | they are the derivatives of the sums, by central differences; what the loss detaches is held constant | a sign, a coefficient twice |
//! | `stop-gradients` | what the manifest declares as detached is detached; of labelled answers, no gradient flows from one row into another | a lost `detach` |
//! | `additivity` | a window cut anywhere gives the same sums, cotangents and metrics (not if `coupled`) | a mean for a sum |
//! | `order` | the order of sequences does not matter | a loss by row number |
//! | `masked` | what stands behind mask 0, NaN and infinity included, changes nothing; cotangents there are 0 | `mask * x` |
//! | `empty` | no sequence, or no supervised token: sums 0, nothing NaN, the same terms | 0 / 0 |
//! | `linear` | where the requirements claim it, cotangents do not depend on statistics | a wrong flag |
//! | `normalisers` | custom ones come from data alone, add up, and are there | a weight by log-probability |
//! | `repeatable` | the same call twice, and on two instances, gives the same bits; `loss` changes no state | a counter in `loss` |
//! | `state` | a restored instance continues like the saved one; foreign bytes are refused, verdicts are known ones | a forgotten field |
//! | `prepare` | its arrays fit the window, leave the host's arrays alone and follow their sequences; `keep` is 0 or 1 | an array named `mask` |
//! | `compose` | its sequences are valid, come from the rows given, and are the same for the same seed | a row number that was never given |
//! | `expectations` | for equal models with uniform logits the manifest's numbers come out (default options) | `log2` for `ln` |
//!
//! A broken law is broken again with fewer sequences and fewer tokens, as long as it fails in the same way: the smallest window
//! stands in [`Line::counterexample`](super::Line::counterexample).
//!
//! Terms and metrics that exist under some options only are declared all the same, saying so in their meaning; the cases
//! given must then bring each of them about once.

mod case;
mod compare;
mod derivatives;
mod description;
mod expectations;
mod generator;
mod instance;
mod mathematics;
pub(super) mod options;
mod quick;
mod rows;
mod sequences;
mod shrink;
#[cfg(test)]
mod tests;

pub use generator::{Generator, Values};
pub use quick::{QUICK, Quick};

use super::{Broken, Report, SplitMix64};
use crate::{
    Code, Result,
    batch::names,
    export::guard,
    manifest::{DataKind, ObjectiveManifest},
    objective::{Objective, ObjectivePlugin},
    options::{OptionMap, OptionSet},
    tape::Tolerance,
};
use case::{Case, Fault, Held, Outcome, WINDOWS, fault, holds, weighted};

/// The laws by name, with what each means, in the order in which they are checked.
pub const LAWS: &[(&str, &str)] = &[
    ("manifest", "it is complete: summary, formula, meanings, defaults within range, names that differ"),
    ("options", "defaults make an instance; a value of another type or out of range is refused, naming the key"),
    ("declared", "what is read and returned stands in the manifest, once, with the right lengths, and is finite"),
    ("used", "every declared term and metric is returned under at least one of the options tried"),
    ("cotangents", "they are the derivatives of the sums, by central differences with detached values held constant"),
    (
        "stop-gradients",
        "what is declared as detached is detached; labelled answers meet in constants of the gradient alone",
    ),
    ("additivity", "a window cut anywhere gives the same sums, cotangents and metrics (unless the loss is coupled)"),
    ("order", "the order of sequences does not matter"),
    ("masked", "what stands behind mask 0, NaN and infinity included, changes nothing; cotangents there are 0"),
    ("empty", "no sequence, or no supervised token: sums 0, nothing NaN, the same terms"),
    ("linear", "where the requirements claim it, cotangents do not depend on statistics"),
    ("normalisers", "custom ones come from data alone, add up over a cut, are not negative, and are there"),
    ("repeatable", "the same call twice, and on two instances, gives the same bits; `loss` changes no state"),
    ("state", "a restored instance continues like the saved one; foreign bytes and unknown verdicts are refused"),
    ("prepare", "its arrays fit the window, leave the host's alone and follow their sequences; `keep` is 0 or 1"),
    ("compose", "its sequences are valid, come from the rows given, and repeat for the same seed"),
    ("expectations", "for equal models with uniform logits the manifest's numbers come out (default options)"),
];

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
    only: Option<Vec<String>>,
    watch: Box<dyn Fn(&str)>,
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
            only: None,
            watch: Box::new(|_| ()),
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

    /// Leaves out a law, for a reason that stands in the report.
    #[must_use]
    pub fn exempt(mut self, law: &str, reason: &str) -> Self {
        self.exempt.push((law.to_owned(), reason.to_owned()));
        self
    }

    /// Checks these laws alone, by the names of [`LAWS`].
    #[must_use]
    pub fn only(mut self, laws: &[&str]) -> Self {
        self.only = Some(laws.iter().map(|law| (*law).to_owned()).collect());
        self
    }

    /// Calls `watch` with the law and the case before each of them: a plugin that ends the process is then known by its place.
    #[must_use]
    pub fn watched(mut self, watch: impl Fn(&str) + 'static) -> Self {
        self.watch = Box::new(watch);
        self
    }

    /// Columns of the data that the objective asks for and the generator does not give yet, by name: an objective declares none, so
    /// they are found by asking it.
    pub fn columns_asked_for(&self) -> Vec<String> {
        let mut generator = self.generator.clone();
        let mut found: Vec<String> = Vec::new();
        let defaults = [OptionMap::new()];
        for options in if self.options.is_empty() { &defaults[..] } else { &self.options } {
            let missing = |generator: &Generator| {
                let asked = guard::catch("", "columns", || self.asks(options, generator)).err()?;
                let name = asked.message.split('`').nth(1)?.strip_prefix(names::COLUMN)?.to_owned();
                (asked.code == Code::ARRAY).then_some(name)
            };
            while let Some(name) = missing(&generator).filter(|name| !found.contains(name)) {
                generator = generator.with_column(&name);
                found.push(name);
            }
        }
        found
    }

    /// Goes through a window's calls; the first error is what is missing.
    fn asks(&self, options: &OptionMap, generator: &Generator) -> Result<()> {
        let mut objective = (self.create)(options)?;
        let statistics = objective.requirements()?.statistics;
        let composed = objective.compose(&generator.rows(&self.manifest, 0), 0)?;
        let composed = composed.filter(|_| self.manifest.data != DataKind::PROMPT);
        let data = match composed {
            Some(composed) => generator.completed(sequences::window_of(&composed)?, 0),
            None => generator.data(&self.manifest, 0),
        };
        let window = generator.fill(&data, &self.manifest, &statistics, Values::Random(0))?;
        let rollouts = self.manifest.data == DataKind::PROMPT;
        let batch = sequences::prepared(objective.as_mut(), if rollouts { &window } else { &data }, &window, rollouts)?;
        objective.weigh(&batch)?;
        objective.loss(&batch).map(drop)
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
            let required = options::required(&self.manifest.options, first);
            let label = label(&required);
            self.windows(&mut report, "expectations", &label, &required, expectations::expectations);
        }
        report
    }

    fn case(&self, report: &mut Report, options: &OptionMap, returned: &mut description::Names) {
        let label = label(options);
        if self.checks("used") || self.checks("declared") {
            let declared = |case: &Case<'_>| description::declared(case, &mut description::Names::default());
            if self.checks("declared") {
                self.windows(report, "declared", &label, options, declared);
            }
            // What this case returns is collected apart: a law may run several times while its fault is made small.
            _ = guard::catch("", "declared", || {
                Ok(Case::new(self, options).and_then(|case| description::declared(&case, returned)).is_ok())
            });
        }
        for (law, check) in MATHEMATICS {
            self.windows(report, law, &label, options, check);
        }
    }

    fn checks(&self, law: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.iter().any(|name| name == law))
    }

    /// Runs a law of windows; one that is broken is broken again with as little as it takes.
    fn windows(
        &self,
        report: &mut Report,
        law: &str,
        label: &str,
        options: &OptionMap,
        check: impl Fn(&Case<'_>) -> Outcome,
    ) {
        if !self.begins(report, law, label) {
            return;
        }
        let case = match guard::catch("", "create", || Ok(Case::new(self, options))) {
            Ok(Ok(case)) => case,
            Ok(Err(fault)) => return report.push(law, label, Err(format!("create: {}", fault.text))),
            Err(panic) => return report.push(law, label, Err(panic.to_string())),
        };
        let fault = match guard::catch("", law, || Ok(check(&case))) {
            Ok(Ok(held)) => return report.uphold(law, label, held.note, held.agreement),
            Ok(Err(fault)) => fault,
            Err(panic) => Fault::from(panic.to_string()),
        };
        let (fault, counterexample) = match law {
            // It is about rows, not windows.
            "compose" => {
                let rows = fault.at.clone();
                (fault, rows)
            }
            _ => shrink::smallest(&case, law, &check, fault),
        };
        report.refute(law, label, Broken { text: fault.text, agreement: fault.agreement }, counterexample);
    }

    /// Whether a law is to be checked now; an exemption is reported.
    fn begins(&self, report: &mut Report, law: &str, case: &str) -> bool {
        if !self.checks(law) {
            return false;
        }
        if let Some((_, reason)) = self.exempt.iter().find(|(name, _)| name == law) {
            report.push(law, case, Ok(format!("exempt: {reason}")));
            return false;
        }
        (self.watch)(&format!("{law} {case}"));
        true
    }

    /// Runs one law that is about no window; a panic in the objective breaks it.
    fn run(&self, report: &mut Report, law: &str, case: &str, check: impl FnOnce() -> Outcome) {
        if !self.begins(report, law, case) {
            return;
        }
        let outcome = match guard::catch("", law, || Ok(check())) {
            Ok(outcome) => outcome,
            Err(panic) => Err(Fault::from(panic.to_string())),
        };
        match outcome {
            Ok(held) => report.uphold(law, case, held.note, held.agreement),
            Err(Fault { text, agreement, .. }) => report.refute(law, case, Broken { text, agreement }, None),
        }
    }
}

type Law = fn(&Case<'_>) -> Outcome;

/// The laws of what an instance computes, in their order.
const MATHEMATICS: [(&str, Law); 12] = [
    ("cotangents", derivatives::cotangents),
    ("stop-gradients", derivatives::stop_gradients),
    ("additivity", mathematics::additivity),
    ("order", mathematics::order),
    ("masked", mathematics::masked),
    ("empty", mathematics::empty),
    ("linear", mathematics::linear),
    ("normalisers", instance::normalisers),
    ("repeatable", instance::repeatable),
    ("state", instance::state),
    ("prepare", rows::prepare),
    ("compose", rows::compose),
];

fn label(options: &OptionMap) -> String {
    serde_json::to_string(options).unwrap_or_default()
}
