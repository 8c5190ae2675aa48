//! Results that a host must never accept, one wrong objective each: every one breaks a law whose line names the mistake.

use super::{Sketch, broken};
use plugin_api::{
    Result,
    batch::Batch,
    manifest::{MetricSpec, Normaliser, ObjectiveManifest, Reduction, TermSpec},
    objective::{Loss, MetricPart, Term},
};

fn manifest() -> ObjectiveManifest {
    ObjectiveManifest {
        summary: "Cross-entropy".into(),
        formula: "-logp".into(),
        terms: vec![TermSpec::new("nll", Normaliser::CUSTOM, "In nats")],
        metrics: vec![MetricSpec::new("surprise", Reduction::MEAN, "In nats")],
        ..Default::default()
    }
}

fn right(batch: &Batch<'_>) -> Result<Loss> {
    let (mask, logp) = (batch.mask()?, batch.get("logp")?);
    let sum = mask.iter().zip(logp).filter(|(m, _)| **m == 1.0).map(|(_, x)| -x).sum::<f64>() + 0.0;
    let cotangents = vec![("logp".to_owned(), mask.iter().map(|m| -m).collect())];
    Ok(Loss {
        terms: vec![Term { name: "nll".into(), coefficient: 1.0, sum, cotangents }],
        metrics: vec![MetricPart { name: "surprise".into(), value: sum, weight: mask.iter().sum() }],
    })
}

fn weights(batch: &Batch<'_>) -> Result<Vec<(String, f64)>> {
    Ok(vec![("nll".into(), batch.mask()?.iter().sum())])
}

fn sketch() -> Sketch {
    Sketch { weigh: weights, ..Sketch::new(&["logp"], true, right) }
}

type Spoil = fn(&mut Sketch, &mut ObjectiveManifest);

/// The mistake, a law that it breaks, and the text of its line.
const FAULTS: &[(&str, Spoil, &str, &str)] = &[
    (
        "a term without cotangents",
        |s, _| s.loss = |b| changed(b, |l| l.terms[0].cotangents.clear()),
        "cotangents",
        "claimed 0",
    ),
    ("no terms", |s, _| s.loss = |b| changed(b, |l| l.terms.clear()), "used", "term `nll`"),
    ("a false linear", |s, _| s.loss = squared, "linear", "`linear` is not true"),
    ("a term given twice", |s, _| s.loss = |b| changed(b, |l| l.terms.push(l.terms[0].clone())), "declared", "`nll`"),
    (
        "a cotangent given twice",
        |s, _| {
            s.loss = |b| {
                changed(b, |l| {
                    let again = l.terms[0].cotangents[0].clone();
                    l.terms[0].cotangents.push(again)
                })
            }
        },
        "declared",
        "`logp`",
    ),
    (
        "a cotangent for a statistic that is not required",
        |s, _| {
            s.loss = |b| {
                changed(b, |l| {
                    let own = l.terms[0].cotangents[0].1.clone();
                    l.terms[0].cotangents.push(("lse".into(), own))
                })
            }
        },
        "declared",
        "`lse`",
    ),
    (
        "a cotangent that is not a number",
        |s, _| s.loss = |b| changed(b, |l| l.terms[0].cotangents[0].1.fill(f64::NAN)),
        "declared",
        "NaN",
    ),
    (
        "a negative normaliser",
        |s, _| s.weigh = |b| Ok(vec![("nll".into(), -b.mask()?.iter().sum::<f64>())]),
        "normalisers",
        "`weigh` returns -",
    ),
    (
        "a normaliser that is not a number",
        |s, _| s.weigh = |_| Ok(vec![("nll".into(), f64::NAN)]),
        "normalisers",
        "`weigh` returns NaN",
    ),
    ("a metric named loss", |_, m| m.metrics[0].name = "loss".into(), "manifest", "`loss`"),
    ("a metric named grad_norm", |_, m| m.metrics[0].name = "grad_norm".into(), "manifest", "`grad_norm`"),
    ("a metric named context", |_, m| m.metrics[0].name = "context".into(), "manifest", "`context`"),
    ("a metric of an evaluation's name", |_, m| m.metrics[0].name = "eval/loss".into(), "manifest", "`eval/loss`"),
    ("a term named tokens", |_, m| m.terms[0].name = "tokens".into(), "manifest", "`tokens`"),
];

fn changed(batch: &Batch<'_>, change: fn(&mut Loss)) -> Result<Loss> {
    let mut loss = right(batch)?;
    change(&mut loss);
    Ok(loss)
}

/// Correct, but not linear.
fn squared(batch: &Batch<'_>) -> Result<Loss> {
    let tape = batch.tape()?;
    let sum = batch.var(&tape, "logp")?.square().masked_sum(batch.mask()?);
    Loss::new().term(&tape, "nll", 1.0, sum)
}

/// Catches a law that accepts a result which a host refuses: an author would learn of it in the middle of a run.
#[test]
fn results_that_a_host_refuses_break_a_law() {
    broken(manifest(), sketch()).assert_ok();
    for (mistake, spoil, law, expected) in FAULTS {
        let (mut sketch, mut manifest) = (sketch(), manifest());
        spoil(&mut sketch, &mut manifest);
        let report = broken(manifest, sketch);
        let line = report.failures().find(|line| line.group == *law);
        let line = line.unwrap_or_else(|| panic!("{mistake}: `{law}` holds\n{report}"));
        assert!(line.detail.contains(expected), "{mistake}: {}", line.detail);
    }
}

/// Catches a report that shows a window as drawn: a wrong derivative is shown best by one sequence of one token.
#[test]
fn the_smallest_failing_window_is_shown() {
    let mut sketch = sketch();
    sketch.loss = |b| changed(b, |l| l.terms[0].cotangents[0].1.iter_mut().for_each(|c| *c *= 2.0));
    let report = broken(manifest(), sketch);
    let line = report.failures().find(|line| line.group == "cotangents").expect("a broken law");
    let smallest = line.counterexample.as_deref().unwrap_or_default();
    assert!(smallest.starts_with("1 sequence of 1 token; mask [1]; logp [-"), "{report}");
    let agreement = line.agreement.expect("numbers");
    assert!((agreement.error - 0.5).abs() < 1e-6 && agreement.limit == 1e-6, "{agreement:?}");
}
