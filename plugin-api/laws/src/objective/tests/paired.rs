//! Preference losses and custom normalisers: right ones pass, and mistakes that only they can have are found.

use super::{Sketch, broken, check};
use crate::objective::{Generator, Laws};
use plugin_api::{
    Error, Result,
    batch::{Batch, Scope},
    manifest::{DataKind, Expectation, MetricSpec, Normaliser, ObjectiveManifest, Reduction, TermSpec},
    objective::Loss,
    tape::Var,
};

fn manifest() -> ObjectiveManifest {
    ObjectiveManifest {
        summary: "Preference by log-ratios".into(),
        formula: "-log sigmoid(beta margin)".into(),
        data: DataKind::PREFERENCE,
        terms: vec![TermSpec::new("preference", Normaliser::PAIRS, "In nats")],
        metrics: vec![MetricSpec::new("least_margin", Reduction::MIN, "The smallest margin")],
        expectations: vec![Expectation {
            quantity: "loss".into(),
            value: std::f64::consts::LN_2.to_string(),
            tolerance: 1e-9,
            when: "the policy is the reference".into(),
        }],
        ..Default::default()
    }
}

fn ratios<'t>(batch: &Batch<'_>, tape: &'t plugin_api::tape::Tape) -> Result<Var<'t>> {
    Ok((batch.var(tape, "logp")? - batch.var(tape, "reference.logp")?).seq_sum(batch.mask()?))
}

fn of_margins(tape: &plugin_api::tape::Tape, margins: Var<'_>) -> Result<Loss> {
    let loss = Loss::new().term(tape, "preference", 1.0, -(0.5 * margins).log_sigmoid().sum())?;
    let least = margins.to_vec()?.into_iter().fold(f64::INFINITY, f64::min);
    Ok(if least.is_finite() { loss.metric("least_margin", least, 1.0) } else { loss })
}

fn right(batch: &Batch<'_>) -> Result<Loss> {
    let tape = batch.tape()?;
    let (ratios, group, side) = (ratios(batch, &tape)?, batch.get("group")?, batch.get("side")?);
    of_margins(&tape, ratios.chosen(group, side) - ratios.rejected(group, side))
}

/// Treats even rows as chosen and odd rows as rejected, as an author may assume of a loader that never shuffles.
fn chosen_first(batch: &Batch<'_>) -> Result<Loss> {
    let tape = batch.tape()?;
    let ratios = ratios(batch, &tape)?;
    let rows = |first: usize| (first..batch.sequences().unwrap_or(0)).step_by(2).collect::<Vec<_>>();
    of_margins(&tape, ratios.index_select(&rows(0)) - ratios.index_select(&rows(1)))
}

/// Margins less the batch's mean, as for a reward normalised within the micro-batch.
fn centred(batch: &Batch<'_>) -> Result<Loss> {
    let tape = batch.tape()?;
    let (ratios, group, side) = (ratios(batch, &tape)?, batch.get("group")?, batch.get("side")?);
    let margins = ratios.chosen(group, side) - ratios.rejected(group, side);
    of_margins(&tape, margins - margins.mean())
}

const STATISTICS: &[&str] = &["logp", "reference.logp"];

#[test]
fn a_preference_loss_passes_and_its_mistakes_are_detected() {
    check("none", broken(manifest(), Sketch::new(STATISTICS, false, right)), &[]);
    check("chosen first", broken(manifest(), Sketch::new(STATISTICS, false, chosen_first)), &["order"]);
    check("centred", broken(manifest(), Sketch::new(STATISTICS, false, centred)), &["additivity"]);
    let coupled = ObjectiveManifest { coupled: true, ..manifest() };
    check("centred, and said to be coupled", broken(coupled, Sketch::new(STATISTICS, false, centred)), &[]);
    let mut instance = Sketch::new(STATISTICS, false, centred);
    instance.requirements.coupled = true;
    check("centred, and coupled under these options", broken(manifest(), instance), &[]);
}

#[test]
fn a_cotangent_for_a_frozen_model_is_detected() {
    let both: fn(&Batch<'_>) -> Result<Loss> = |batch| {
        let mut loss = right(batch)?;
        let against = loss.terms[0].cotangents[0].1.iter().map(|c| -c).collect();
        loss.terms[0].cotangents.push(("reference.logp".into(), against));
        Ok(loss)
    };
    check("reference", broken(manifest(), Sketch::new(STATISTICS, false, both)), &["declared"]);
}

/// Tokens weighted by a column of the data set, and divided by the sum of the weights.
fn weighted() -> (ObjectiveManifest, Sketch) {
    let manifest = ObjectiveManifest {
        summary: "Weighted cross-entropy".into(),
        formula: "-w logp".into(),
        data: DataKind::PROMPT_COMPLETION,
        terms: vec![TermSpec::new("nll", Normaliser::CUSTOM, "In nats")],
        ..Default::default()
    };
    let mut sketch = Sketch::new(&["logp"], true, |batch| {
        let tape = batch.tape()?;
        let weight = tape.constant(batch.column("weight")?).to_tokens();
        let nll = -(weight * batch.var(&tape, "logp")?).masked_sum(batch.mask()?);
        Loss::new().term(&tape, "nll", 1.0, nll)
    });
    sketch.weigh = |batch| {
        let tape = batch.tape()?;
        let weight = tape.constant(batch.column("weight")?).to_tokens();
        Ok(vec![("nll".into(), weight.masked_sum(batch.mask()?).scalar().map_err(Error::from)?)])
    };
    (manifest, sketch)
}

fn check_weighted(mistake: &str, manifest: ObjectiveManifest, sketch: Sketch, expected: &[&str]) {
    let laws = Laws::new(manifest, move |options| {
        plugin_api::options::refuse_unknown(&[], options)?;
        Ok(sketch.clone())
    });
    let generator = Generator::new(5).with_array("column.weight", Scope::SEQUENCE, 0.5..=2.0);
    check(mistake, laws.with_generator(generator).verify(), expected);
}

#[test]
fn custom_normalisers_must_exist_depend_on_data_only_and_add_up() {
    let (manifest, sketch) = weighted();
    check_weighted("none", manifest.clone(), sketch.clone(), &[]);
    let silent = Sketch { weigh: |_| Ok(Vec::new()), ..sketch.clone() };
    check_weighted("not there", manifest.clone(), silent, &["normalisers"]);
    let late =
        Sketch { weigh: |batch| Ok(vec![("nll".into(), -batch.get("logp")?.iter().sum::<f64>())]), ..sketch.clone() };
    check_weighted("by log-probability", manifest.clone(), late, &["normalisers"]);
    let mean = Sketch { weigh: |_| Ok(vec![("nll".into(), 1.0)]), ..sketch };
    check_weighted("not a sum", manifest, mean, &["normalisers"]);
}
