//! What the host refuses in a whole run, and what is only a note: one objective for each.

use super::{Sketch, Weights, broken};
use crate::{
    Report,
    objective::{Generator, Laws, Quick, Values},
};
use plugin_api::{
    Code, Error, Result,
    batch::Batch,
    manifest::{DataKind, Expectation, MetricSpec, Normaliser, ObjectiveManifest, Reduction, StopGradient, TermSpec},
    objective::{Loss, Objective, Verdict},
    options::refuse_unknown,
};
use std::collections::BTreeSet;

fn manifest(normaliser: Normaliser) -> ObjectiveManifest {
    ObjectiveManifest {
        summary: "Cross-entropy".into(),
        formula: "-logp".into(),
        terms: vec![TermSpec::new("nll", normaliser, "In nats")],
        metrics: vec![MetricSpec {
            healthy: Some((0.0, 2.0)),
            ..MetricSpec::new("surprise", Reduction::MEAN, "In nats per token")
        }],
        expectations: vec![Expectation {
            quantity: "surprise".into(),
            value: "ln_vocab".into(),
            tolerance: 1e-6,
            when: "the logits are uniform".into(),
        }],
        ..Default::default()
    }
}

fn nll(batch: &Batch<'_>) -> Result<Loss> {
    let tape = batch.tape()?;
    let nll = -batch.var(&tape, "logp")?.masked_sum(batch.mask()?);
    let surprise = nll.scalar()?;
    Ok(Loss::new().term(&tape, "nll", 1.0, nll)?.metric("surprise", surprise, batch.mask()?.iter().sum()))
}

/// Cross-entropy whose state is the number of steps; if it `grows`, one byte for each of them.
struct Stateful {
    steps: usize,
    grows: bool,
    verdict: Verdict,
}

impl Objective for Stateful {
    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        nll(batch)
    }

    fn after_step(&mut self, _: &[(String, f64)]) -> Result<Verdict> {
        self.steps += 1;
        Ok(self.verdict)
    }

    fn state(&self) -> Result<Vec<u8>> {
        let mut state = (self.steps as u64).to_le_bytes().to_vec();
        state.extend(vec![1; if self.grows { self.steps } else { 0 }]);
        Ok(state)
    }

    fn restore(&mut self, state: &[u8]) -> Result<()> {
        let refused = || Error::new(Code::STATE, format!("{} bytes are not a state", state.len()));
        let (steps, rest) = state.split_first_chunk::<8>().ok_or_else(refused)?;
        let steps = u64::from_le_bytes(*steps) as usize;
        if rest.len() != if self.grows { steps } else { 0 } {
            return Err(refused());
        }
        self.steps = steps;
        Ok(())
    }
}

fn stateful(grows: bool, verdict: Verdict) -> Report {
    let create = move |options: &_| {
        refuse_unknown(&[], options)?;
        Ok(Stateful { steps: 0, grows, verdict })
    };
    Laws::new(manifest(Normaliser::SUPERVISED_TOKENS), create)
        .with_generator(Generator::new(3))
        .only(&["state"])
        .verify()
}

/// Catches a verdict that the host refuses for running text, and checkpoints that grow unnoticed.
#[test]
fn a_growing_state_is_noted_and_end_rollout_without_rollouts_is_refused() {
    let (constant, grown) = (stateful(false, Verdict::CONTINUE), stateful(true, Verdict::CONTINUE));
    constant.assert_ok();
    grown.assert_ok();
    assert!(!constant.to_string().contains("grows"), "{constant}");
    assert!(grown.to_string().contains("grows with every step: 9 bytes after one, 16 after 8"), "{grown}");
    let ends = stateful(false, Verdict::END_ROLLOUT);
    let line = ends.failures().next().expect("a broken law");
    assert!(line.detail.contains("`after_step`: it returned END_ROLLOUT (1), but this run has no rollouts"), "{ends}");
}

/// Catches a normaliser that the data kind does not have: the run would end in its first step.
#[test]
fn normalisers_of_terms_must_be_countable() {
    for (normaliser, data, holds) in [
        (Normaliser::PAIRS, DataKind::TEXT, false),
        (Normaliser::GROUPS, DataKind::PROMPT_COMPLETION, false),
        (Normaliser::PAIRS, DataKind::PREFERENCE, true),
        (Normaliser::SEQUENCES, DataKind::TEXT, true),
    ] {
        let manifest = ObjectiveManifest { data, ..manifest(normaliser.clone()) };
        let report = broken(manifest, Sketch::new(&["logp"], true, nll));
        let line = report.failures().find(|line| line.group == "declared");
        let found = line.map(|line| line.detail.contains(&format!("the number of {normaliser}")));
        assert_eq!(found, (!holds).then_some(true), "{report}");
    }
}

/// Catches a healthy range that a run has already left before its first step.
#[test]
fn a_metric_outside_its_healthy_range_before_training_is_noted() {
    let note = |healthy| {
        let mut manifest = manifest(Normaliser::SUPERVISED_TOKENS);
        manifest.metrics[0].healthy = Some(healthy);
        let report = broken(manifest, Sketch::new(&["logp"], true, nll));
        report.assert_ok();
        report.to_string()
    };
    // The logarithm of 50 is 3.9.
    assert!(note((0.0, 2.0)).contains("before training, the metric `surprise` is 3.91"));
    assert!(!note((0.0, 4.0)).contains("healthy"));
}

/// Catches a counterexample that shows the window as drawn, without the input that breaks the law, and codes before texts.
#[test]
fn the_counterexample_shows_the_failing_input() {
    let multiplies: fn(&Batch<'_>) -> Result<Loss> = |batch| {
        let mut loss = nll(batch)?;
        loss.terms[0].sum = batch.mask()?.iter().zip(batch.get("logp")?).map(|(m, x)| -m * x).sum::<f64>() + 0.0;
        Ok(loss)
    };
    let report = broken(manifest(Normaliser::SUPERVISED_TOKENS), Sketch::new(&["logp"], true, multiplies));
    let line = report.failures().find(|line| line.group == "masked").expect("a broken law");
    let shown = line.counterexample.as_deref().unwrap_or_default();
    assert!(shown.contains("NaN") && line.detail.starts_with("NaN behind the mask"), "{report}");

    let fails: fn(&Batch<'_>) -> Result<Loss> = |_| Err(Error::new(Code::SHAPE, "the widths differ"));
    let report = broken(manifest(Normaliser::SUPERVISED_TOKENS), Sketch::new(&["logp"], true, fails));
    let line = report.failures().find(|line| line.group == "declared").expect("a broken law");
    assert_eq!(line.detail, "the widths differ");
}

const POINT: &str = "mean_margin";

/// How the mean of a batch enters the gradient.
#[derive(Clone, Copy)]
enum Mean {
    Held,
    Forgotten,
}

/// Pairs whose margin is compared with the mean margin of the batch.
fn compared_with_the_mean(batch: &Batch<'_>, mean: Mean) -> Result<Loss> {
    let tape = batch.tape()?;
    let signs: Vec<f64> = batch.get("side")?.iter().map(|side| 2.0 * side - 1.0).collect();
    let pairs = signs.len() as f64 / 2.0;
    let signed = tape.constant(signs) * batch.var(&tape, "logp")?.seq_sum(batch.mask()?);
    let point = signed.sum() / pairs;
    let point = match mean {
        Mean::Held => point.detach_as(POINT),
        Mean::Forgotten => point,
    };
    let sum = (point - signed).softplus().sum();
    Loss::new().term(&tape, "nll", 1.0, sum)
}

/// Catches a batch statistic other than KTO's that is not detached: refused if it is declared, a note if it is not.
#[test]
fn a_batch_statistic_with_a_gradient_is_refused_or_noted() {
    let held: fn(&Batch<'_>) -> Result<Loss> = |batch| compared_with_the_mean(batch, Mean::Held);
    let forgotten: fn(&Batch<'_>) -> Result<Loss> = |batch| compared_with_the_mean(batch, Mean::Forgotten);
    let report = |loss, declared: bool| {
        let mut manifest =
            ObjectiveManifest { data: DataKind::PREFERENCE, coupled: true, ..manifest(Normaliser::SEQUENCES) };
        (manifest.metrics, manifest.expectations) = (Vec::new(), Vec::new());
        manifest.stop_gradients.extend(declared.then(|| StopGradient::new(POINT, "the mean margin of the batch")));
        let sketch = Sketch::new(&["logp"], false, loss);
        let create = move |_: &_| Ok(sketch.clone());
        Laws::new(manifest, create).with_generator(Generator::new(3)).only(&["cotangents", "stop-gradients"]).verify()
    };
    let note = "flows from one row into another";
    let (right, lost, undeclared) = (report(held, true), report(forgotten, true), report(forgotten, false));
    right.assert_ok();
    assert!(!right.to_string().contains(note), "{right}");
    assert!(lost.failures().any(|line| line.group == "stop-gradients"), "{lost}");
    undeclared.assert_ok();
    assert!(undeclared.to_string().contains(note), "{undeclared}");
}

/// A loss that compares the answers to one prompt with each other, divided by the number of prompts from `weigh`.
fn compared_within_groups(batch: &Batch<'_>) -> Result<Loss> {
    let (tape, group, reward) = (batch.tape()?, batch.get("group")?, batch.get("reward")?);
    let advantage = |s: usize| {
        let mine: Vec<f64> =
            (0..group.len()).filter(|other| group[*other] == group[s]).map(|other| reward[other]).collect();
        reward[s] - mine.iter().sum::<f64>() / mine.len() as f64
    };
    let advantage = tape.constant((0..group.len()).map(advantage).collect::<Vec<_>>()).to_tokens();
    Loss::new().term(&tape, "nll", 1.0, -(advantage * batch.var(&tape, "logp")?).masked_sum(batch.mask()?))
}

/// Catches laws that split groups, which the host never does: right objectives would be refused.
#[test]
fn groups_are_never_split() {
    let mut manifest = ObjectiveManifest { data: DataKind::PROMPT, ..manifest(Normaliser::CUSTOM) };
    (manifest.metrics, manifest.expectations) = (Vec::new(), Vec::new());
    let weigh: fn(&Batch<'_>) -> Result<Weights> = |batch| {
        let groups: BTreeSet<u64> = batch.get("group")?.iter().map(|group| group.to_bits()).collect();
        Ok(vec![("nll".into(), groups.len() as f64)])
    };
    let sketch = Sketch { weigh, ..Sketch::new(&["logp"], false, compared_within_groups) };
    broken(manifest.clone(), sketch.clone()).assert_ok();
    let statistics = ["logp".to_owned()];
    let generator = Generator::new(3);
    let batch = generator.fill(&generator.data(&manifest, 0), &statistics, Values::Random(0)).expect("a batch");
    Quick { manifest: &manifest, objective: &sketch, plain: None, batch: &batch, vocabulary: 50 }.verify().assert_ok();
}
