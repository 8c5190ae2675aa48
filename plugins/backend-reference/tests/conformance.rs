//! The conformance suite on the reference, and on references with a fault: a suite that accepts everything would accept those.

use backend_reference::Reference;
use plugin_api::{
    Result,
    abi::{Call, DType},
    backend::{
        Session,
        catalogue::{OpSpec, Usage},
        ops::CATALOGUE,
    },
};
use plugin_api_laws::{
    Report,
    backend::{Suite, verify, verify_gradients},
    faulty::{Fault, Faulty},
};
use std::{collections::BTreeSet, sync::LazyLock};

fn failures(report: &Report) -> String {
    let lines = report.failures().map(|line| format!("{}: {}: {}\n", line.group, line.case, line.detail));
    lines.collect()
}

fn check(dtype: DType) {
    let report = verify(&mut Reference::new(1), &mut Reference::new(2), dtype);
    assert!(report.is_ok(), "{}", failures(&report));
    assert!(report.lines.len() > 700, "the suite has shrunk: {}", report.lines.len());
}

#[test]
fn conforms_in_f64() {
    check(DType::F64);
}

#[test]
fn conforms_in_f32() {
    check(DType::F32);
}

#[test]
fn conforms_in_bf16() {
    check(DType::BF16);
}

#[test]
fn gotcha_38_every_backward_agrees_with_finite_differences() {
    let report = verify_gradients(&mut Reference::new(1));
    assert!(report.is_ok(), "{}", failures(&report));
    assert!(report.lines.len() > 100, "the suite has shrunk: {}", report.lines.len());
}

/// The suite's report on a reference with `fault` in `spec`, restricted to that operation and its neighbour in the
/// catalogue (which must stay clean).
fn on_faulty(spec: &OpSpec, fault: Fault) -> Report {
    static SUITE: LazyLock<Suite> =
        LazyLock::new(|| Suite::prepare(&mut Reference::new(2), DType::F64, |_| true).unwrap());
    let neighbour = (spec.id + 1) % CATALOGUE.len() as u32;
    let mut candidate = Faulty::new(Reference::new(1), spec.id, fault);
    SUITE.verify(&mut candidate, |s| s.id == spec.id || s.id == neighbour)
}

fn blames_only(spec: &OpSpec, report: &Report, what: &str) {
    let blamed: BTreeSet<&str> = report.failures().map(|line| line.group.as_str()).collect();
    assert_eq!(blamed, BTreeSet::from([spec.name]), "{what} in {}: {}", spec.name, failures(report));
}

#[test]
fn every_output_of_every_operation_is_compared() {
    for spec in CATALOGUE {
        for output in 0..spec.outputs.len().max(1) {
            blames_only(spec, &on_faulty(spec, Fault::Scale(output, 1.001)), &format!("output {output} off"));
        }
    }
}

#[test]
fn a_single_wrong_element_is_detected() {
    for spec in CATALOGUE.iter().filter(|spec| !spec.outputs.is_empty()) {
        blames_only(spec, &on_faulty(spec, Fault::LastElement(0)), "last element off");
    }
}

#[test]
fn an_operation_without_effect_is_detected() {
    for spec in CATALOGUE.iter().filter(|spec| !spec.outputs.is_empty()) {
        blames_only(spec, &on_faulty(spec, Fault::Skip), "nothing done");
    }
}

#[test]
fn overwriting_instead_of_accumulating_is_detected() {
    for spec in CATALOGUE.iter().filter(|spec| spec.outputs.iter().any(|o| o.usage == Usage::Update)) {
        blames_only(spec, &on_faulty(spec, Fault::Forget), "overwritten");
    }
}

#[test]
fn writing_outside_the_output_is_detected() {
    for spec in CATALOGUE.iter().filter(|spec| !spec.outputs.is_empty()) {
        blames_only(spec, &on_faulty(spec, Fault::Trespass), "trespass");
    }
}

#[test]
fn different_bits_on_another_call_are_detected() {
    for spec in CATALOGUE.iter().filter(|spec| !spec.outputs.is_empty()) {
        blames_only(spec, &on_faulty(spec, Fault::Flutter), "flutter");
    }
}

#[test]
fn ignored_errors_are_detected() {
    for spec in CATALOGUE {
        blames_only(spec, &on_faulty(spec, Fault::Accept), "errors swallowed");
    }
}

#[test]
fn the_gradient_check_names_the_wrong_backward() {
    for name in ["attention_backward", "head_backward"] {
        let spec = CATALOGUE.iter().find(|spec| spec.name == name).unwrap();
        let report = verify_gradients(&mut Faulty::new(Reference::new(1), spec.id, Fault::Scale(0, 1.001)));
        blames_only(spec, &report, "gradient off");
    }
}

/// A session that does not support a mandatory operation.
struct Denying {
    inner: Reference,
}

impl Session for Denying {
    fn supports(&self, op: u32, dtype: DType) -> bool {
        op != 8 && self.inner.supports(op, dtype)
    }

    fn invoke(&mut self, call: &Call<'_>) -> Result<()> {
        self.inner.invoke(call)
    }

    plugin_api::pass_on!(inner: alloc free upload download write_version workspace memory trim sync);
}

#[test]
fn a_capability_that_is_denied_but_works_is_detected() {
    let suite = Suite::prepare(&mut Reference::new(2), DType::F32, |s| s.id < 10).unwrap();
    let report = suite.verify(&mut Denying { inner: Reference::new(1) }, |s| s.id < 10);
    let norm = CATALOGUE.iter().find(|spec| spec.name == "norm").unwrap();
    blames_only(norm, &report, "denied, though it works and is mandatory");
}

/// Catches a part of the suite whose inputs depend on the other operations selected, so that a failure could not be repeated
/// alone.
#[test]
fn an_operation_is_checked_equally_alone_and_among_all() {
    let all = Suite::prepare(&mut Reference::new(2), DType::F32, |_| true).unwrap();
    for spec in CATALOGUE {
        let wanted = |s: &OpSpec| s.id == spec.id;
        let alone = Suite::prepare(&mut Reference::new(2), DType::F32, wanted).unwrap();
        // Slightly wrong, so that the report holds numbers that depend on every input.
        let off = || Faulty::new(Reference::new(1), spec.id, Fault::Scale(0, 1.001));
        assert_eq!(alone.verify(&mut off(), wanted), all.verify(&mut off(), wanted), "{}", spec.name);
    }
}

/// Catches a comparison within one session only.
#[test]
fn different_bits_in_another_session_are_detected() {
    let wanted = |s: &OpSpec| (8..10).contains(&s.id);
    let suite = Suite::prepare(&mut Reference::new(2), DType::F32, wanted).unwrap();
    let mut first = Reference::new(1);
    suite.verify_repeatability(&mut first, &mut Reference::new(3), wanted).assert_ok();
    let norm = CATALOGUE.iter().find(|spec| spec.name == "norm").unwrap();
    let mut other = Faulty::new(Reference::new(3), norm.id, Fault::Scale(0, 1.0 + 1e-6));
    blames_only(norm, &suite.verify_repeatability(&mut first, &mut other, wanted), "different bits");
}

/// Catches a check that reports a cache filled once as a leak, or accepts a leak as a cache.
#[test]
fn a_process_that_grows_at_every_step_is_detected() {
    let fill = CATALOGUE.iter().find(|spec| spec.name == "fill").unwrap();
    let suite = Suite::prepare(&mut Reference::new(2), DType::F32, |s| s.id == fill.id).unwrap();
    let report = |mut sizes: Vec<u64>| {
        sizes.reverse();
        suite.verify_growth(&mut Reference::new(1), |s| s.id == fill.id, &mut || sizes.pop())
    };
    report(vec![1 << 20, 9 << 20, 9 << 20, 9 << 20, 9 << 20]).assert_ok();
    blames_only(fill, &report((1..9).map(|i| i << 20).collect()), "a megabyte at every step");
    assert!(report(Vec::new()).lines.is_empty(), "nothing is claimed where nothing is known");
}
