//! Words of a window: the step, normalisers by option. Right objectives pass, and each mistake breaks its law.

use super::{Sketch, broken, check};
use crate::objective::{Generator, Laws};
use plugin_api::{
    Result,
    batch::{Batch, Scope, names},
    manifest::{Expectation, Normaliser, ObjectiveManifest, Requirements, TermNormaliser, TermSpec},
    objective::{Loss, Objective},
    options::refuse_unknown,
};
use std::cell::Cell;

fn manifest(expected: &str) -> ObjectiveManifest {
    ObjectiveManifest {
        summary: "Cross-entropy".into(),
        formula: "-logp".into(),
        terms: vec![TermSpec::new("nll", Normaliser::SUPERVISED_TOKENS, "In nats")],
        expectations: vec![Expectation {
            quantity: "loss".into(),
            value: expected.into(),
            tolerance: 1e-6,
            when: "the logits are uniform".into(),
        }],
        ..Default::default()
    }
}

/// Cross-entropy times `factor`.
fn scaled(batch: &Batch<'_>, factor: f64) -> Result<Loss> {
    let tape = batch.tape()?;
    let nll = -batch.var(&tape, "logp")?.masked_sum(batch.mask()?);
    Loss::new().term(&tape, "nll", 1.0, factor * nll)
}

/// A loss that falls from 1 to 0 over the run, whose step comes from a batch, from a counter in `loss`, or from one in `prepare`.
#[derive(Clone, Copy)]
enum Annealed {
    Step,
    CallsOfLoss,
    CallsOfPrepare,
}

struct Annealing(Annealed, Cell<f64>);

impl Objective for Annealing {
    fn prepare(&mut self, window: &Batch<'_>) -> Result<Batch<'static>> {
        let [step, steps] = [names::STEP, names::STEPS].map(|name| window.get(name).map(<[f64]>::to_vec));
        assert_eq!([step?.len(), steps?.len()], [1, 1]);
        if matches!(self.0, Annealed::CallsOfPrepare) {
            self.1.set(self.1.get() + 1.0);
        }
        Ok(Batch::new())
    }

    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        if matches!(self.0, Annealed::CallsOfLoss) {
            self.1.set(self.1.get() + 1.0);
        }
        let counted = self.1.get();
        let step = if matches!(self.0, Annealed::Step) { batch.get(names::STEP)?[0] } else { counted };
        scaled(batch, 1.0 - (step - 1.0) / batch.get(names::STEPS)?[0])
    }
}

/// Catches a generator without the step, windows that are all at one step, and a loss or a `prepare` that counts its own calls:
/// with more micro-batches it would anneal faster, and a resumed run would begin again.
#[test]
fn a_step_is_read_from_the_batch_and_not_counted() {
    let verify = |annealed| {
        let create = move |options: &_| {
            refuse_unknown(&[], options)?;
            Ok(Annealing(annealed, Cell::new(0.0)))
        };
        Laws::new(manifest("ln_vocab"), create).with_generator(Generator::new(3)).verify()
    };
    check("none", verify(Annealed::Step), &[]);
    let by_loss = verify(Annealed::CallsOfLoss);
    let broken = |law: &str| by_loss.failures().any(|line| line.group == law);
    assert!(broken("additivity") && broken("repeatable"), "{by_loss}");
    check("a counter in prepare that is not part of the state", verify(Annealed::CallsOfPrepare), &["state"]);
    let steps: Vec<f64> =
        (0..3).map(|draw| Generator::new(3).data(&manifest("0"), draw).get(names::STEP).unwrap()[0]).collect();
    assert!(steps.windows(2).all(|pair| pair[0] != pair[1]), "{steps:?}");
}

/// Cross-entropy divided as `normaliser` says, times a constant.
fn divided(normaliser: Normaliser, times: f64, loss: fn(&Batch<'_>) -> Result<Loss>) -> Sketch {
    let normalisers = vec![TermNormaliser { term: "nll".into(), normaliser, times }];
    let mut sketch = Sketch::new(&["logp"], true, loss);
    sketch.requirements = Requirements { normalisers, ..sketch.requirements };
    sketch
}

/// Catches laws that divide by the manifest's normaliser, or ignore the constant, and an objective that ignores its constant.
#[test]
fn terms_are_divided_by_what_the_options_choose() {
    let fourfold: fn(&Batch<'_>) -> Result<Loss> = |batch| scaled(batch, 4.0);
    let times = |times, loss| broken(manifest("ln_vocab"), divided(Normaliser::SUPERVISED_TOKENS, times, loss));
    check("none", times(4.0, fourfold), &[]);
    check("a constant that is ignored", times(4.0, |batch| scaled(batch, 1.0)), &["expectations"]);
    check("a constant that is not declared", times(1.0, fourfold), &["expectations"]);
}

/// Catches `weigh` that is asked for by the manifest's normaliser instead of the one under the options.
#[test]
fn custom_normalisers_by_option_are_weighed() {
    let mut weighed = divided(Normaliser::CUSTOM, 1.0, |batch| scaled(batch, 1.0));
    check("no weight", broken(manifest("ln_vocab"), weighed.clone()), &["normalisers", "expectations"]);
    weighed.weigh = |batch| Ok(vec![("nll".to_owned(), batch.mask()?.iter().sum())]);
    check("none", broken(manifest("ln_vocab"), weighed), &[]);
    let mut unasked = Sketch::new(&["logp"], true, |batch| scaled(batch, 1.0));
    unasked.weigh = |batch| Ok(vec![("nll".to_owned(), batch.mask()?.iter().sum())]);
    let mut custom = manifest("ln_vocab");
    custom.terms[0].normaliser = Normaliser::CUSTOM;
    unasked.requirements = divided(Normaliser::SUPERVISED_TOKENS, 1.0, |batch| scaled(batch, 1.0)).requirements;
    check("a weight that the options do not use", broken(custom, unasked), &[]);
}

/// Catches a window whose step arrays have the wrong form.
#[test]
fn the_step_is_one_number() {
    let window = Generator::new(3).data(&manifest("0"), 1);
    for name in [names::STEP, names::STEPS] {
        let array = window.array(name).unwrap();
        assert_eq!((array.scope, array.data.len()), (Scope::BATCH, 1));
    }
}
