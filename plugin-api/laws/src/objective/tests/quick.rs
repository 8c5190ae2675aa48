//! The quick laws find contradictions on a single batch, and pass right objectives and real situations.

use super::Sketch;
use crate::{Report, objective::Quick};
use plugin_api::{
    Result,
    batch::{Batch, Scope},
    manifest::{DataKind, Expectation, Normaliser, ObjectiveManifest, StopGradient, TermSpec},
    objective::{Loss, Objective},
};

fn manifest(data: DataKind) -> ObjectiveManifest {
    ObjectiveManifest {
        summary: "Cross-entropy".into(),
        formula: "-logp".into(),
        data,
        terms: vec![TermSpec::new("nll", Normaliser::SUPERVISED_TOKENS, "In nats")],
        expectations: vec![Expectation {
            quantity: "nll".into(),
            value: "ln_vocab".into(),
            tolerance: 1e-6,
            when: "the logits are uniform".into(),
        }],
        ..Default::default()
    }
}

/// Three sequences as at the start of a run: the policy is the reference, so that every ratio is 1.
fn batch() -> Batch<'static> {
    let logp = vec![-1.5, -2.25, 0.0, -0.5, -3.0, 0.0, -4.0];
    Batch::new()
        .with("offsets", Scope::BATCH, vec![0.0, 3.0, 6.0, 7.0])
        .with("mask", Scope::TOKEN, vec![1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0])
        .with_statistic("logp", Scope::TOKEN, logp.clone())
        .with("reference.logp", Scope::TOKEN, logp)
}

fn quick(manifest: &ObjectiveManifest, loss: fn(&Batch<'_>) -> Result<Loss>) -> Report {
    let sketch = Sketch::new(&["logp", "reference.logp"], false, loss);
    let plain: Box<dyn Objective> = Box::new(sketch.clone());
    let batch = batch();
    Quick { manifest, objective: &sketch, plain: Some(plain), batch: &batch, vocabulary: 257 }.verify()
}

fn nll(batch: &Batch<'_>, scale: f64) -> Result<Loss> {
    let tape = batch.tape()?;
    let sum = -scale * batch.var(&tape, "logp")?.masked_sum(batch.mask()?);
    Loss::new().term(&tape, "nll", 1.0, sum)
}

fn changed(batch: &Batch<'_>, change: fn(&mut f64)) -> Result<Loss> {
    let mut loss = nll(batch, 1.0)?;
    loss.terms[0].cotangents[0].1.iter_mut().filter(|c| **c != 0.0).for_each(change);
    Ok(loss)
}

type Mistake = (&'static str, fn(&Batch<'_>) -> Result<Loss>, &'static [&'static str]);

/// Catches a quick law that finds nothing, and one that reports a right objective.
#[test]
fn contradictions_are_found_on_a_single_batch() {
    let mistakes: [Mistake; 7] = [
        ("none", |b| nll(b, 1.0), &[]),
        ("the sign", |b| nll(b, -1.0), &["expectations"]),
        ("a cotangent's sign", |b| changed(b, |c| *c = -*c), &["cotangents"]),
        ("NaN", |b| changed(b, |c| *c = f64::NAN), &["gradient", "cotangents", "additivity"]),
        ("no gradient", |b| changed(b, |c| *c = 0.0), &["gradient", "cotangents"]),
        (
            "a mean",
            |b| {
                let tape = b.tape()?;
                Loss::new().term(&tape, "nll", 1.0, -b.var(&tape, "logp")?.masked_mean(b.mask()?))
            },
            &["additivity", "expectations"],
        ),
        ("a panic", |_| panic!("inside"), &["gradient", "cotangents", "additivity", "expectations"]),
    ];
    for (mistake, loss, expected) in mistakes {
        let report = quick(&manifest(DataKind::TEXT), loss);
        let found: Vec<&str> = report.failures().map(|line| line.group.as_str()).collect();
        assert_eq!(found, expected, "{mistake}\n{report}");
    }
}

/// Catches differences taken exactly at the statistics of a run that begins: every clip, sort and absolute value has a kink there,
/// and right objectives would be refused.
#[test]
fn kinks_at_equal_models_are_not_contradictions() {
    let mut manifest = manifest(DataKind::TEXT);
    manifest.expectations.clear();
    let kinked: fn(&Batch<'_>) -> Result<Loss> = |batch| {
        let tape = batch.tape()?;
        let log_ratio = batch.var(&tape, "logp")? - batch.var(&tape, "reference.logp")?;
        let sum = (log_ratio.abs() + log_ratio.relu() + log_ratio.exp().clamp(0.0, 1.0)).masked_sum(batch.mask()?);
        Loss::new().term(&tape, "nll", 1.0, sum)
    };
    quick(&manifest, kinked).assert_ok();
}

/// Catches a run of rollouts that is refused because all answers of its first batch have the same reward.
#[test]
fn a_zero_gradient_is_a_note_if_answers_may_be_equally_good() {
    let mut manifest = manifest(DataKind::PROMPT);
    manifest.expectations.clear();
    let report = quick(&manifest, |b| nll(b, 0.0));
    report.assert_ok();
    assert!(report.to_string().contains("every cotangent of the first batch is 0"), "{report}");
}

/// Catches a coupled loss that is required to be the sum over its pieces.
#[test]
fn a_coupled_loss_is_not_split() {
    let coupled = ObjectiveManifest { coupled: true, expectations: Vec::new(), ..manifest(DataKind::TEXT) };
    let mean: fn(&Batch<'_>) -> Result<Loss> = |b| {
        let tape = b.tape()?;
        Loss::new().term(&tape, "nll", 1.0, -b.var(&tape, "logp")?.masked_mean(b.mask()?))
    };
    let report = quick(&coupled, mean);
    report.assert_ok();
    assert!(report.to_string().contains("coupled: not cut"), "{report}");
}

/// Answers of two tokens with these advantages, as if from `prepare`.
fn answers(advantage: Vec<f64>) -> Batch<'static> {
    let (sequences, tokens) = (advantage.len(), 2 * advantage.len());
    let logp: Vec<f64> = (0..tokens).map(|n| -0.5 - n as f64 / 8.0).collect();
    Batch::new()
        .with("offsets", Scope::BATCH, (0..=sequences).map(|s| 2.0 * s as f64).collect::<Vec<_>>())
        .with("mask", Scope::TOKEN, vec![1.0; tokens])
        .with("group", Scope::SEQUENCE, (0..sequences).map(|s| s as f64).collect::<Vec<_>>())
        .with("advantage", Scope::SEQUENCE, advantage)
        .with_statistic("logp", Scope::TOKEN, logp)
}

/// The score-function loss `-advantage logp` with a cotangent of the other sign.
fn wrong_sign_of_advantage(batch: &Batch<'_>) -> Result<Loss> {
    let tape = batch.tape()?;
    let advantage = batch.var(&tape, "advantage")?.to_tokens();
    let sum = -(advantage * batch.var(&tape, "logp")?).masked_sum(batch.mask()?);
    let mut loss = Loss::new().term(&tape, "nll", 1.0, sum)?;
    loss.terms[0].cotangents[0].1.iter_mut().for_each(|cotangent| *cotangent = 0.0 - *cotangent);
    Ok(loss)
}

/// Catches answers of equal reward that count as a check, and a check of only the first sequences, none of which has a gradient.
#[test]
fn a_batch_without_gradient_proves_nothing() {
    let mut manifest = manifest(DataKind::PROMPT);
    manifest.expectations.clear();
    let sketch = Sketch::new(&["logp"], false, wrong_sign_of_advantage);
    let verdict = |batch: Batch<'static>| {
        let quick = Quick { manifest: &manifest, objective: &sketch, plain: None, batch: &batch, vocabulary: 257 };
        let silent = quick.silent_terms().expect("a loss");
        let report = quick.verify();
        let broken: Vec<String> = report.failures().map(|line| line.group.clone()).collect();
        (silent, broken)
    };
    assert_eq!(verdict(answers(vec![0.0; 12])), (vec!["nll".to_owned()], Vec::new()));
    let last = (0..12).map(|s| f64::from(u8::from(s == 11))).collect();
    assert_eq!(verdict(answers(last)), (Vec::new(), vec!["cotangents".to_owned()]));
}

/// Catches a declared stop-gradient that is not detached on the first batch, and a `weigh` that is a mean, is missing or is
/// negative.
#[test]
fn detached_values_and_weights_are_checked_too() {
    let mut declared = manifest(DataKind::TEXT);
    declared.stop_gradients = vec![StopGradient::new("point", "a constant")];
    let found = |report: Report| report.failures().map(|line| line.group.clone()).collect::<Vec<_>>();
    let detaching: fn(&Batch<'_>) -> Result<Loss> = |batch| {
        let tape = batch.tape()?;
        let logp = batch.var(&tape, "logp")?;
        let point = logp.masked_sum(batch.mask()?).detach_as("point");
        Loss::new().term(&tape, "nll", 1.0, -logp.masked_sum(batch.mask()?) + 0.0 * point)
    };
    assert_eq!(found(quick(&declared, detaching)), Vec::<String>::new());
    assert_eq!(found(quick(&declared, |b| nll(b, 1.0))), ["stop-gradients"]);

    let mut weighed = manifest(DataKind::TEXT);
    weighed.expectations.clear();
    weighed.terms = vec![TermSpec::new("nll", Normaliser::CUSTOM, "In nats")];
    let by = |weigh: fn(&Batch<'_>) -> Result<super::Weights>| {
        let sketch = Sketch { weigh, ..Sketch::new(&["logp", "reference.logp"], false, |b| nll(b, 1.0)) };
        let batch = batch();
        found(Quick { manifest: &weighed, objective: &sketch, plain: None, batch: &batch, vocabulary: 257 }.verify())
    };
    assert_eq!(by(|b| Ok(vec![("nll".into(), b.mask()?.iter().sum())])), Vec::<String>::new());
    for wrong in [
        (|b| Ok(vec![("nll".into(), b.mask()?.iter().sum::<f64>() / b.mask()?.len() as f64)])) as fn(&Batch<'_>) -> _,
        |_| Ok(Vec::new()),
        |_| Ok(vec![("nll".into(), -1.0)]),
        |b| Ok(vec![("nll".into(), -b.get("logp")?.iter().sum::<f64>())]),
    ] {
        assert_eq!(by(wrong), ["normalisers"]);
    }
}

/// Catches a wrong sign that is shown on a batch without supervised tokens, where the mean is 0 / 0.
#[test]
fn a_wrong_sign_is_shown_with_its_value() {
    let laws = crate::objective::Laws::new(manifest(DataKind::TEXT), |options| {
        plugin_api::options::refuse_unknown(&[], options)?;
        Ok(Sketch::new(&["logp"], false, |batch| nll(batch, -1.0)))
    });
    let report = laws.verify();
    let line = report.failures().find(|line| line.group == "expectations").expect("the sign is found");
    assert!(line.detail.contains("it is -3.912"), "{}", line.detail);
}
