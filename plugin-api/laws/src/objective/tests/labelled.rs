//! Labelled answers whose rows meet in a reference point that is held constant (KTO): with a tape, by hand, and not detached.

use super::{Sketch, broken, check};
use crate::objective::{Generator, Laws};
use plugin_api::{
    Result,
    batch::{Batch, Scope},
    manifest::{DataKind, Normaliser, ObjectiveManifest, Requirements, StopGradient, TermSpec},
    objective::{Loss, Objective, Term},
    tape::{Mask, Var, stop_gradient},
};

const BETA: f64 = 0.3;

fn manifest() -> ObjectiveManifest {
    ObjectiveManifest {
        summary: "KTO".into(),
        formula: "sum over answers of 1 - sigmoid(+-beta (r - z)), z = max(0, mean r) detached".into(),
        data: DataKind::UNPAIRED,
        terms: vec![TermSpec::new("kto", Normaliser::SEQUENCES, "1 - value")],
        coupled: true,
        ..Default::default()
    }
}

fn declared() -> ObjectiveManifest {
    ObjectiveManifest {
        stop_gradients: vec![StopGradient::new("reference_point", "max(0, mean log-ratio)")],
        ..manifest()
    }
}

/// KTO on a tape; `hold` detaches the reference point, or does not.
fn kto(batch: &Batch<'_>, hold: for<'t> fn(Var<'t>) -> Var<'t>) -> Result<Loss> {
    let tape = batch.tape()?;
    let ratio = (batch.var(&tape, "logp")? - batch.var(&tape, "reference.logp")?).seq_sum(batch.mask()?);
    let point = hold(ratio.mean().relu());
    let sign = tape.constant(batch.get("side")?.iter().map(|side| 2.0 * side - 1.0).collect::<Vec<_>>());
    let loss = (1.0 - (BETA * sign * (ratio - point)).sigmoid()).sum();
    Loss::new().term(&tape, "kto", 1.0, loss)
}

/// The same by hand; `hold` as above.
fn by_hand(batch: &Batch<'_>, hold: fn(f64) -> f64) -> Result<Loss> {
    let (logp, reference, mask) = (batch.get("logp")?, batch.get("reference.logp")?, batch.mask()?);
    let (side, offsets) = (batch.get("side")?, batch.offsets()?);
    let tokens = |w: &[usize]| (w[0]..w[1]).filter(|n| mask[*n] == 1.0).map(|n| logp[n] - reference[n]).sum::<f64>();
    let ratio: Vec<f64> = offsets.windows(2).map(tokens).collect();
    let point = hold((ratio.iter().sum::<f64>() / ratio.len().max(1) as f64).max(0.0));
    let (mut sum, mut cotangents) = (0.0, vec![0.0; mask.len()]);
    for (s, bounds) in offsets.windows(2).enumerate() {
        let sign = 2.0 * side[s] - 1.0;
        let value = 1.0 / (1.0 + (-BETA * sign * (ratio[s] - point)).exp());
        sum += 1.0 - value;
        for n in (bounds[0]..bounds[1]).filter(|n| mask[*n] == 1.0) {
            cotangents[n] = -BETA * sign * value * (1.0 - value);
        }
    }
    let term = Term { name: "kto".into(), coefficient: 1.0, sum, cotangents: vec![("logp".into(), cotangents)] };
    Ok(Loss { terms: vec![term], metrics: Vec::new() })
}

fn sketch(loss: fn(&Batch<'_>) -> Result<Loss>) -> Sketch {
    Sketch::new(&["logp", "reference.logp"], false, loss)
}

/// Catches differences that move the reference point: the right loss would break `cotangents`, and the one without the detach
/// would pass.
#[test]
fn gotcha_56_a_detached_reference_point_passes_and_a_forgotten_one_fails() {
    type Mistake = (&'static str, fn() -> ObjectiveManifest, fn(&Batch<'_>) -> Result<Loss>, &'static [&'static str]);
    let table: [Mistake; 7] = [
        ("detached", manifest, |b| kto(b, |z| z.detach()), &[]),
        ("detached under its name", declared, |b| kto(b, |z| z.detach_as("reference_point")), &[]),
        ("declared by hand", declared, |b| by_hand(b, |z| stop_gradient("reference_point", [z])[0]), &[]),
        ("forgotten", manifest, |b| kto(b, |z| z), &["stop-gradients"]),
        ("forgotten though declared", declared, |b| kto(b, |z| z), &["stop-gradients"]),
        ("by hand, undeclared", manifest, |b| by_hand(b, |z| z), &["cotangents", "stop-gradients"]),
        ("under another name", declared, |b| kto(b, |z| z.detach_as("z")), &["stop-gradients"]),
    ];
    for (mistake, manifest, loss, expected) in table {
        check(mistake, broken(manifest(), sketch(loss)), expected);
        for seed in [1, 17, 0x7e105] {
            let laws = Laws::new(manifest(), move |options| {
                plugin_api::options::refuse_unknown(&[], options)?;
                Ok(sketch(loss))
            });
            check(mistake, laws.with_generator(Generator::new(seed)).verify(), expected);
        }
    }
}

/// KTO whose reference point is the mean over prompts with another row's answer, which `compose` adds to the rows.
struct Mismatched {
    detached: bool,
}

impl Objective for Mismatched {
    fn requirements(&self) -> Result<Requirements> {
        let statistics = vec!["logp".to_owned(), "reference.logp".to_owned()];
        Ok(Requirements { statistics, ..Requirements::default() })
    }

    fn compose(&self, rows: &Batch<'_>, _: u64) -> Result<Option<Batch<'static>>> {
        let (offsets, token, mask) = (rows.offsets()?, rows.get("token")?, rows.mask()?);
        let (row, label, count) = (rows.get("row")?, rows.column("label")?, rows.sequences()? / 2);
        let (mut ends, mut tokens, mut masks) = (vec![0.0], Vec::new(), Vec::new());
        let (mut owners, mut labels, mut mismatched) = (Vec::new(), Vec::new(), Vec::new());
        for (index, shift) in (0..2).flat_map(|shift| (0..count).map(move |index| (index, shift))) {
            for part in [2 * index, 2 * ((index + shift) % count) + 1] {
                tokens.extend(&token[offsets[part]..offsets[part + 1]]);
                masks.extend(&mask[offsets[part]..offsets[part + 1]]);
            }
            ends.push(tokens.len() as f64);
            owners.push(row[2 * index]);
            labels.push(label[2 * index]);
            mismatched.push(shift as f64);
        }
        let batch = Batch::new().with("offsets", Scope::BATCH, ends).with("token", Scope::TOKEN, tokens);
        let batch = batch.with("mask", Scope::TOKEN, masks).with("row", Scope::SEQUENCE, owners);
        Ok(Some(batch.with("column.label", Scope::SEQUENCE, labels).with(
            "column.mismatched",
            Scope::SEQUENCE,
            mismatched,
        )))
    }

    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        let tape = batch.tape()?;
        let ratio = (batch.var(&tape, "logp")? - batch.var(&tape, "reference.logp")?).seq_sum(batch.mask()?);
        let (label, mismatched) = (batch.column("label")?, batch.column("mismatched")?);
        let point = ratio.masked_mean(Mask::from(mismatched)).relu();
        let point = if self.detached { point.detach() } else { point };
        let sign = tape.constant(label.iter().map(|label| 2.0 * label - 1.0).collect::<Vec<_>>());
        let own: Vec<f64> = mismatched.iter().map(|m| 1.0 - m).collect();
        let loss = (1.0 - (BETA * sign * (ratio - point)).sigmoid()).masked_sum(Mask::from(own.as_slice()));
        Loss::new().term(&tape, "kto", 1.0, loss)
    }
}

/// Catches laws on windows that the objective never gets: it composes its own, and reads columns that only these have.
#[test]
fn an_objective_that_composes_is_checked_on_its_composed_sequences() {
    for (mistake, detached, expected) in [("none", true, &[][..]), ("forgotten", false, &["stop-gradients"])] {
        let laws = Laws::new(manifest(), move |options| {
            plugin_api::options::refuse_unknown(&[], options)?;
            Ok(Mismatched { detached })
        });
        assert_eq!(laws.columns_asked_for(), Vec::<String>::new(), "labels are the data's, the other is its own");
        check(mistake, laws.with_generator(Generator::new(5)).verify(), expected);
    }
}

/// Catches a law that accepts a wrong factor as a stop-gradient because something else is detached.
#[test]
fn a_wrong_factor_next_to_a_detached_value_is_detected() {
    let wrong: fn(&Batch<'_>) -> Result<Loss> = |batch| {
        let mut loss = by_hand(batch, |z| stop_gradient("", [z])[0])?;
        loss.terms[0].cotangents[0].1.iter_mut().for_each(|c| *c *= 0.5);
        Ok(loss)
    };
    check("half the gradient", broken(manifest(), sketch(wrong)), &["cotangents"]);
}

/// Catches a comparison with a shifted point that is in another branch.
#[test]
fn a_loss_that_detaches_in_one_branch_only_is_reported() {
    let branching: fn(&Batch<'_>) -> Result<Loss> = |batch| {
        let tape = batch.tape()?;
        let logp = batch.var(&tape, "logp")?;
        let sum = logp.masked_sum(batch.mask()?);
        // The last bits decide: in about every second case a shifted point is in the other branch.
        let odd = (sum.scalar()? * 1e9).floor().rem_euclid(2.0) == 1.0;
        let factor = if odd { sum.exp().detach() } else { sum.exp() };
        Loss::new().term(&tape, "kto", 1.0, factor.detach())
    };
    let report = broken(manifest(), sketch(branching));
    let line = report.failures().find(|line| line.group == "cotangents").expect("a broken law");
    assert!(line.detail.contains("detach in every branch, in the same order"), "{report}");
}
