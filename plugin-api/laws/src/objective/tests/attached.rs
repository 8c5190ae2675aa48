//! Arrays that `compose` adds to its sequences, sequences that do not count, and `prepare` with the statistics of the window:
//! right objectives pass, and each mistake is found.

use super::{check, composing::joined};
use crate::{
    Report,
    objective::{Generator, Laws},
};
use plugin_api::{
    Code, Error, Result,
    batch::{Array, Batch, Scope, names},
    groups::Moments,
    manifest::{DataKind, Expectation, Normaliser, ObjectiveManifest, Requirements, TermSpec},
    objective::{Loss, Objective},
    options::refuse_unknown,
};

type Prepare = fn(&Batch<'_>) -> Result<Batch<'static>>;
type Compose = fn(&Batch<'_>) -> Result<Option<Batch<'static>>>;

/// An objective whose calls a test gives.
#[derive(Clone)]
struct Given {
    requirements: Requirements,
    compose: Compose,
    prepare: Prepare,
    loss: fn(&Batch<'_>) -> Result<Loss>,
}

impl Objective for Given {
    fn requirements(&self) -> Result<Requirements> {
        Ok(self.requirements.clone())
    }

    fn compose(&self, rows: &Batch<'_>, _: u64) -> Result<Option<Batch<'static>>> {
        (self.compose)(rows)
    }

    fn prepare(&mut self, window: &Batch<'_>) -> Result<Batch<'static>> {
        (self.prepare)(window)
    }

    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        (self.loss)(batch)
    }
}

fn verify(given: Given, expected: Option<&str>) -> Report {
    let expectation = |value: &str| Expectation {
        quantity: "loss".into(),
        value: value.into(),
        tolerance: 1e-6,
        when: "the logits are uniform".into(),
    };
    let manifest = ObjectiveManifest {
        summary: "Cross-entropy".into(),
        formula: "-logp".into(),
        data: DataKind::PROMPT_COMPLETION,
        terms: vec![TermSpec::new("nll", Normaliser::SUPERVISED_TOKENS, "In nats")],
        expectations: expected.map(expectation).into_iter().collect(),
        ..Default::default()
    };
    let create = move |options: &_| {
        refuse_unknown(&[], options)?;
        Ok(given.clone())
    };
    Laws::new(manifest, create).with_generator(Generator::new(3)).verify()
}

fn composing(compose: Compose, loss: fn(&Batch<'_>) -> Result<Loss>) -> Given {
    Given { requirements: Requirements::default(), compose, prepare: |_| Ok(Batch::new()), loss }
}

/// The number that [`weighted`] gives a token.
fn weight_of(id: f64) -> f64 {
    1.0 + id / 100.0
}

/// Rows as sequences, with a number for each token that depends on its id alone; NaN where it is not supervised.
fn weighted(rows: &Batch<'_>, id_of: fn(&[f64], usize) -> f64) -> Result<Option<Batch<'static>>> {
    let batch = joined(rows, 0)?.unwrap_or_default();
    let (token, mask) = (batch.get("token")?, batch.mask()?);
    let weight = |i: usize| if mask[i] == 1.0 { weight_of(id_of(token, i)) } else { f64::NAN };
    let weights: Vec<f64> = (0..token.len()).map(weight).collect();
    Ok(Some(batch.with("weight", Scope::TOKEN, weights)))
}

/// Cross-entropy; an error if a weight is not that of its target.
fn reads_weights(batch: &Batch<'_>) -> Result<Loss> {
    let (mask, weight, target) = (batch.mask()?, batch.get("weight")?, batch.get(names::TARGET)?);
    if let Some(n) = (0..mask.len()).find(|n| mask[*n] == 1.0 && weight[*n] != weight_of(target[*n])) {
        return Err(Error::new(Code::ARRAY, format!("`weight`[{n}] is that of another token")));
    }
    cross_entropy(batch)
}

fn cross_entropy(batch: &Batch<'_>) -> Result<Loss> {
    let tape = batch.tape()?;
    let nll = -batch.var(&tape, "logp")?.masked_sum(batch.mask()?);
    Loss::new().term(&tape, "nll", 1.0, nll)
}

/// Catches a window of the laws that shifts numbers per token in another direction than the host, or not at all, and an author
/// that shifts by himself: with a number for each token, and with one for each target.
#[test]
fn gotcha_02_numbers_per_token_belong_to_their_token() {
    check("none", verify(composing(|rows| weighted(rows, |t, i| t[i]), reads_weights), Some("ln_vocab")), &[]);
    let shifted: Compose = |rows| weighted(rows, |token, i| token.get(i + 1).copied().unwrap_or_default());
    let report = verify(composing(shifted, reads_weights), None);
    let declared = report.failures().find(|line| line.group == "declared").expect("it is misaligned");
    assert!(declared.detail.contains("is that of another token"), "{report}");
    let of_targets: Compose = |rows| {
        let batch = weighted(rows, |t, i| t[i])?.unwrap_or_default();
        let weight = batch.get("weight")?.to_vec();
        let own = batch.offsets()?.windows(2).flat_map(|w| weight[w[0] + 1..w[1]].to_vec()).collect::<Vec<_>>();
        Ok(Some(batch.with("weight", Scope::TOKEN, own)))
    };
    let report = verify(composing(of_targets, cross_entropy), None);
    let line = report.failures().find(|line| line.group == "compose").expect("one number per target");
    assert!(line.detail.contains("the host shifts them to the targets"), "{report}");
}

/// Catches numbers of `compose` that are not finite where they count, and names that the host owns.
#[test]
fn arrays_of_compose_are_checked() {
    type Mistake = (&'static str, Compose, &'static str);
    let mistakes: [Mistake; 4] = [
        ("NaN", |rows| weighted(rows, |_, _| f64::NAN), "`weight` is NaN at token"),
        (
            "infinity per sequence",
            |rows| per_sequence(rows, "strength", |_| f64::INFINITY),
            "`strength` is inf for sequence 0",
        ),
        ("half a sequence", |rows| per_sequence(rows, names::COUNTED, |_| 0.5), "`counted` is 0.5 for sequence 0"),
        ("the reward", |rows| per_sequence(rows, names::REWARD, |_| 0.5), "`reward`, an array of the host"),
    ];
    for (mistake, compose, text) in mistakes {
        let report = verify(composing(compose, cross_entropy), None);
        let line = report.failures().find(|line| line.group == "compose");
        assert!(line.is_some_and(|line| line.detail.contains(text)), "{mistake}: {report}");
    }
}

fn per_sequence(rows: &Batch<'_>, name: &'static str, value: fn(usize) -> f64) -> Result<Option<Batch<'static>>> {
    let batch = joined(rows, 0)?.unwrap_or_default();
    let values: Vec<f64> = (0..batch.sequences()?).map(value).collect();
    Ok(Some(batch.with(name, Scope::SEQUENCE, values)))
}

/// Every second row counts.
fn half(rows: &Batch<'_>) -> Result<Option<Batch<'static>>> {
    per_sequence(rows, names::COUNTED, |s| (s % 2) as f64)
}

/// Catches normalisers of the laws that count all sequences, and a loss that ignores `counted`: its sum over all sequences is
/// divided by the tokens of some.
#[test]
fn sequences_that_do_not_count_are_in_no_normaliser() {
    let counts: fn(&Batch<'_>) -> Result<Loss> = |batch| {
        let (counted, offsets) = (batch.get(names::COUNTED)?, batch.offsets()?);
        let tape = batch.tape()?;
        let lengths = offsets.windows(2).map(|w| w[1] - w[0]);
        let counted: Vec<f64> = lengths.zip(counted).flat_map(|(n, counts)| vec![*counts; n]).collect();
        let mask: Vec<f64> = counted.iter().zip(batch.mask()?).map(|(counts, m)| counts * m).collect();
        let nll = -batch.var(&tape, "logp")?.masked_sum(&mask);
        Loss::new().term(&tape, "nll", 1.0, nll)
    };
    check("none", verify(composing(half, counts), Some("ln_vocab")), &[]);
    check("`counted` is ignored", verify(composing(half, cross_entropy), Some("ln_vocab")), &["expectations"]);
}

/// Candidates that `compose` returns: the token itself and another id.
fn with_candidates(rows: &Batch<'_>, other: fn(f64) -> f64) -> Result<Option<Batch<'static>>> {
    let batch = joined(rows, 0)?.unwrap_or_default();
    let ids: Vec<f64> = batch.get("token")?.iter().flat_map(|id| [*id, other(*id)]).collect();
    let array = Array {
        name: names::CANDIDATE_IDS.into(),
        scope: Scope::TOKEN,
        differentiable: false,
        cols: 2,
        data: ids.into(),
    };
    Ok(Some(batch.with_array(array)))
}

/// Catches candidates that are not passed on, or are shifted one by one instead of row by row, and ids that occur twice.
#[test]
fn candidates_of_compose_reach_the_loss_at_their_targets() {
    let reads: fn(&Batch<'_>) -> Result<Loss> = |batch| {
        let (ids, target) = (batch.array(names::CANDIDATE_IDS)?, batch.get(names::TARGET)?);
        let aligned = ids.cols == 2 && ids.data.chunks(2).zip(target).all(|(ids, target)| ids[0] == *target);
        if aligned { cross_entropy(batch) } else { Err(Error::new(Code::ARRAY, "candidates of another token")) }
    };
    let requirements = Requirements {
        candidates: Some(plugin_api::manifest::Candidates { from: "compose".into(), count: 2 }),
        ..Requirements::reading(["logp", "tail"])
    };
    let given = |compose: Compose| Given { requirements: requirements.clone(), ..composing(compose, reads) };
    check("none", verify(given(|rows| with_candidates(rows, |id| 49.0 - id)), None), &[]);
    let report = verify(given(|rows| with_candidates(rows, |id| id)), None);
    let line = report.failures().find(|line| line.group == "compose").expect("an id twice");
    assert!(line.detail.contains("`candidate_ids` has the id"), "{report}");
}

/// The squared distance of log-probabilities from a baseline.
fn distance(batch: &Batch<'_>, baseline: f64) -> Result<Loss> {
    let (tape, mask) = (batch.tape()?, batch.mask()?);
    let from = batch.var(&tape, "logp")? - baseline;
    Loss::new().term(&tape, "nll", 1.0, (0.5 * from * from).masked_sum(mask))
}

fn mean_logp(batch: &Batch<'_>) -> Result<f64> {
    Ok(Moments::of(batch.get("logp")?, batch.mask()?).mean)
}

/// Catches laws that give `prepare` no statistics, or differentiate through what it returns; a `prepare` that reads statistics
/// without requiring them for the window; and a baseline of the micro-batch instead of the window.
#[test]
fn prepare_reads_the_window_where_the_requirements_say_so() {
    let prepare: Prepare = |window| Ok(Batch::new().with("baseline", Scope::BATCH, vec![mean_logp(window)?]));
    let baseline = |window_statistics| Given {
        requirements: Requirements { window_statistics, ..Requirements::default() },
        prepare,
        ..composing(|_| Ok(None), |batch| distance(batch, batch.get("baseline")?[0]))
    };
    check("none", verify(baseline(true), Some("0")), &[]);
    let report = verify(baseline(false), None);
    let line = report.failures().find(|line| line.group == "prepare").expect("it reads what it does not get");
    assert!(line.detail.contains("no array `logp`"), "{report}");
    let own = composing(
        |_| Ok(None),
        |batch| {
            let baseline = plugin_api::tape::stop_gradient("baseline", [mean_logp(batch)?]);
            distance(batch, baseline[0])
        },
    );
    let report = verify(own, None);
    check("a baseline of the micro-batch", report, &["additivity"]);
}
