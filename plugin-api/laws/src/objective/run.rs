//! Runs all laws: each on every case, and broken ones again on smaller windows.

use super::{
    case::Case,
    checks::{derivatives, description, expectations, instance, mathematics, options, requests, rows},
    laws::Laws,
    outcome::{Fault, Outcome},
    shrink,
    windows::Generator,
};
use crate::{
    Broken, Report,
    options::{label, required},
};
use plugin_api::{export::guard, objective::ObjectivePlugin, options::OptionMap};

/// The laws by name, with what each means, in the order in which they are checked.
pub const LAWS: &[(&str, &str)] = &[
    ("manifest", "it is complete: summary, formula, meanings, defaults within range, names that differ"),
    ("options", "defaults make an instance; a value of another type or out of range is refused, naming the key"),
    ("declared", "everything read or returned is declared, once, with the right length, and is finite"),
    ("used", "every declared term and metric is returned under at least one of the options tried"),
    ("cotangents", "they are the derivatives of the sums, by central differences with detached values held constant"),
    (
        "stop-gradients",
        "what is declared as detached is detached; labelled answers interact only through constants of the gradient",
    ),
    ("additivity", "a window cut anywhere gives the same sums, cotangents and metrics (unless the loss is coupled)"),
    ("order", "the order of sequences does not matter"),
    ("masked", "values where the mask is 0 (NaN and infinity too) change nothing; cotangents there are 0"),
    ("empty", "no sequence, or no supervised token: sums 0, nothing NaN, the same terms"),
    ("linear", "if the requirements claim it, cotangents do not depend on statistics"),
    ("normalisers", "custom ones exist, depend on data only, add up over a cut, and are not negative"),
    ("repeatable", "the same call twice, and on two instances, gives the same bits; `loss` changes no state"),
    ("state", "a restored instance continues like the saved one; invalid bytes and unknown verdicts are refused"),
    ("prepare", "its arrays fit the window, do not replace the host's and follow their sequences; `keep` is 0 or 1"),
    ("request", "if `prepare` requests prompts: the same answers and state give the same on any instance, and it ends"),
    ("compose", "its sequences are valid, come from the rows given, and repeat for the same seed"),
    ("expectations", "equal models with uniform logits give the manifest's expected numbers (default options)"),
];

/// Verifies objective `T` under each of `options` (under its defaults where there are none). See the [table](super).
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
/// use plugin_api_laws::objective::{Generator, verify};
/// verify::<Plain>(&[], &Generator::new(7)).assert_ok();
/// ```
pub fn verify<T: ObjectivePlugin>(options: &[OptionMap], generator: &Generator) -> Report {
    let laws = Laws::of::<T>().with_generator(generator.clone());
    options.iter().cloned().fold(laws, Laws::with_options).verify()
}

impl Laws {
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
            let required = required(&self.manifest.options, first);
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
            // The names that this case returns are collected separately: a law may run several times while its fault is reduced.
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

    /// Runs a law of windows; a broken one is run again on smaller windows.
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
            // This law is about rows, not windows.
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

    /// Runs one law that uses no window; a panic in the objective breaks it.
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

/// The laws of an instance's computations, in their order.
const MATHEMATICS: [(&str, Law); 13] = [
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
    ("request", requests::request),
    ("compose", rows::compose),
];
