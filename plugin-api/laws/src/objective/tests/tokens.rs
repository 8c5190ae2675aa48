//! Mistakes of losses per token, and of descriptions.

use super::{Sketch, broken, check, difference};
use crate::objective::{Generator, Laws};
use plugin_api::{
    Result,
    batch::Batch,
    manifest::{Expectation, MetricSpec, Normaliser, ObjectiveManifest, OptionSpec, Reduction, TermSpec},
    objective::{Loss, MetricPart, Objective, Term},
    tape::Tolerance,
};
use serde_json::json;
use std::cell::Cell;

fn manifest() -> ObjectiveManifest {
    ObjectiveManifest {
        summary: "Cross-entropy".into(),
        formula: "-logp".into(),
        terms: vec![TermSpec::new("nll", Normaliser::SUPERVISED_TOKENS, "In nats")],
        metrics: vec![MetricSpec::new("surprise", Reduction::MEAN, "In nats")],
        expectations: vec![Expectation {
            quantity: "loss".into(),
            value: "ln_vocab".into(),
            tolerance: 1e-6,
            when: "the logits are uniform".into(),
        }],
        ..Default::default()
    }
}

/// The right loss, and the parts for wrong ones.
fn right(batch: &Batch<'_>) -> Result<Loss> {
    let (mask, logp) = (batch.mask()?, batch.get("logp")?);
    let sum = selected(mask, logp).map(|x| -x).sum::<f64>() + 0.0;
    Ok(loss(sum, mask.iter().map(|m| -m).collect(), sum, mask.iter().sum()))
}

fn selected<'a>(mask: &'a [f64], values: &'a [f64]) -> impl Iterator<Item = f64> + 'a {
    mask.iter().zip(values).filter(|(m, _)| **m == 1.0).map(|(_, x)| *x)
}

fn loss(sum: f64, cotangents: Vec<f64>, metric: f64, weight: f64) -> Loss {
    Loss {
        terms: vec![Term { name: "nll".into(), coefficient: 1.0, sum, cotangents: vec![("logp".into(), cotangents)] }],
        metrics: vec![MetricPart { name: "surprise".into(), value: metric, weight }],
    }
}

type Mistake = (&'static str, fn(&Batch<'_>) -> Result<Loss>, &'static [&'static str]);

const MISTAKES: &[Mistake] = &[
    ("none", right, &[]),
    (
        "gotcha_01: a mean instead of a sum",
        |batch| {
            let mut loss = right(batch)?;
            let count = batch.mask()?.iter().sum::<f64>().max(1.0);
            loss.terms[0].sum /= count;
            loss.terms[0].cotangents[0].1.iter_mut().for_each(|c| *c /= count);
            Ok(loss)
        },
        &["additivity", "expectations"],
    ),
    (
        "gotcha_08: multiplied by the mask instead of selected",
        |batch| {
            let mut loss = right(batch)?;
            loss.terms[0].sum = batch.mask()?.iter().zip(batch.get("logp")?).map(|(m, x)| -m * x).sum::<f64>() + 0.0;
            Ok(loss)
        },
        &["masked", "empty"],
    ),
    (
        "gotcha_09: a metric over all tokens",
        |batch| {
            let mut loss = right(batch)?;
            let logp = batch.get("logp")?;
            loss.metrics[0].value = -logp.iter().sum::<f64>();
            Ok(loss)
        },
        // The finest split has pieces without supervised tokens, whose metrics have weight 0.
        &["additivity", "masked"],
    ),
    (
        "a metric as a mean, without its weight",
        |batch| {
            let mut loss = right(batch)?;
            let part = &mut loss.metrics[0];
            (part.value, part.weight) = (part.value / part.weight.max(1.0), f64::from(part.weight > 0.0));
            Ok(loss)
        },
        &["additivity"],
    ),
    (
        "gotcha_05: 0 / 0 where nothing is supervised",
        |batch| {
            let mut loss = right(batch)?;
            let count = batch.mask()?.iter().sum::<f64>();
            loss.terms[0].sum = loss.terms[0].sum / count * count;
            Ok(loss)
        },
        // The pieces of the finest split include such sequences.
        &["additivity", "empty"],
    ),
    (
        "no term where nothing is supervised",
        |batch| {
            let mut loss = right(batch)?;
            if batch.mask()?.iter().all(|m| *m == 0.0) {
                loss.terms.clear();
            }
            Ok(loss)
        },
        &["additivity", "empty"],
    ),
    (
        "a cotangent's sign",
        |batch| {
            let mut loss = right(batch)?;
            loss.terms[0].cotangents[0].1.iter_mut().for_each(|c| *c = -*c);
            Ok(loss)
        },
        &["cotangents"],
    ),
    (
        "the coefficient inside the cotangents",
        |batch| {
            let mut loss = right(batch)?;
            loss.terms[0].coefficient = 0.5;
            loss.terms[0].cotangents[0].1.iter_mut().for_each(|c| *c *= 0.5);
            Ok(loss)
        },
        &["cotangents", "expectations"],
    ),
    (
        "cotangents forgotten",
        |batch| {
            let mut loss = right(batch)?;
            loss.terms[0].cotangents.clear();
            Ok(loss)
        },
        &["declared", "cotangents"],
    ),
    (
        "a cotangent where the mask is 0",
        |batch| {
            let mut loss = right(batch)?;
            loss.terms[0].cotangents[0].1.fill(-1.0);
            Ok(loss)
        },
        &["cotangents", "masked"],
    ),
    (
        "cotangents of another length",
        |batch| {
            let mut loss = right(batch)?;
            loss.terms[0].cotangents[0].1.push(0.0);
            Ok(loss)
        },
        EVERYTHING_COMPARED,
    ),
    (
        "a loss by row number",
        |batch| {
            let (mask, logp) = (batch.mask()?, batch.get("logp")?);
            let weight = |n: usize| if mask[n] == 1.0 { 1.0 + n as f64 } else { 0.0 };
            let sum = (0..mask.len()).filter(|n| mask[*n] == 1.0).map(|n| -weight(n) * logp[n]).sum::<f64>() + 0.0;
            Ok(loss(sum, (0..mask.len()).map(|n| -weight(n)).collect(), 0.0, 0.0))
        },
        &["additivity", "order", "expectations", "used"],
    ),
    (
        "a square that is said to be linear",
        |batch| {
            let (mask, logp) = (batch.mask()?, batch.get("logp")?);
            let sum = selected(mask, logp).map(|x| x * x).sum::<f64>() + 0.0;
            let cotangent = |(m, x): (&f64, &f64)| if *m == 1.0 { 2.0 * x } else { 0.0 };
            Ok(loss(sum, mask.iter().zip(logp).map(cotangent).collect(), 0.0, 1.0))
        },
        &["additivity", "linear", "expectations"],
    ),
    (
        "an undeclared metric",
        |batch| {
            let mut loss = right(batch)?;
            loss.metrics.push(MetricPart { name: "margin".into(), value: 0.0, weight: 0.0 });
            Ok(loss)
        },
        &["declared"],
    ),
    (
        "an undeclared term",
        |batch| {
            let mut loss = right(batch)?;
            loss.terms.push(Term { name: "kl".into(), coefficient: 0.0, sum: 0.0, cotangents: Vec::new() });
            Ok(loss)
        },
        &["declared"],
    ),
    (
        "a statistic read that is not required",
        |batch| {
            batch.get("lse")?;
            right(batch)
        },
        EVERYTHING,
    ),
    ("a panic", |_| panic!("index out of bounds"), EVERYTHING),
    (
        "gotcha_10: bits instead of nats",
        |batch| {
            let mut loss = right(batch)?;
            loss.terms[0].coefficient = std::f64::consts::LOG2_E;
            Ok(loss)
        },
        &["expectations"],
    ),
];

/// The laws that a loss that always fails breaks.
const EVERYTHING: &[&str] = &[
    "declared",
    "used",
    "cotangents",
    "stop-gradients",
    "additivity",
    "order",
    "masked",
    "empty",
    "linear",
    "repeatable",
    "state",
    "expectations",
];
/// The same for a loss that can be computed, but not compared with its batch.
const EVERYTHING_COMPARED: &[&str] =
    &["declared", "cotangents", "additivity", "order", "masked", "empty", "linear", "repeatable", "state"];

#[test]
fn each_mistake_breaks_its_law_and_no_other() {
    let row = |(mistake, loss, laws): &Mistake| {
        difference(mistake, &broken(manifest(), Sketch::new(&["logp"], true, *loss)), laws)
    };
    let differences: Vec<String> = MISTAKES.iter().filter_map(row).collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn an_unused_declaration_is_detected() {
    let mut leftover = manifest();
    leftover.terms.push(TermSpec::new("kl", Normaliser::SUPERVISED_TOKENS, "Forgotten"));
    check("a term nobody returns", broken(leftover, Sketch::new(&["logp"], true, right)), &["used"]);
}

/// Catches a generator that draws numbers for a name that it does not know.
#[test]
fn an_unknown_statistic_is_detected() {
    let report = broken(manifest(), Sketch::new(&["logp", "logits"], true, right));
    assert!(report.failures().any(|line| line.group == "declared"), "{report}");
}

#[test]
fn an_incomplete_manifest_is_found() {
    type Spoil = fn(&mut ObjectiveManifest);
    let spoils: [(&str, Spoil); 6] = [
        ("no formula", |m| m.formula.clear()),
        ("a metric without a meaning", |m| m.metrics[0].meaning.clear()),
        ("an unknown reduction", |m| m.metrics[0].reduction = Reduction("median".into())),
        ("an expectation of nothing", |m| m.expectations[0].quantity = "losss".into()),
        ("a metric that the host writes", |m| m.metrics[0].name = "token_accuracy".into()),
        ("an option without help", |m| m.options.push(spec("beta", ""))),
    ];
    for (mistake, spoil) in spoils {
        let mut spoiled = manifest();
        spoil(&mut spoiled);
        assert!(complains(&broken(spoiled, Sketch::new(&["logp"], true, right))), "{mistake}");
    }
    let mut twice = manifest();
    twice.metrics[0].name = "nll".into();
    assert!(complains(&broken(twice, Sketch::new(&["logp"], true, right))), "a term and a metric of one name");
}

fn complains(report: &crate::Report) -> bool {
    report.failures().any(|line| line.group == "manifest")
}

fn spec(name: &str, meaning: &str) -> OptionSpec {
    OptionSpec {
        name: name.into(),
        kind: "float".into(),
        default: json!(0.5),
        min: Some(0.0),
        max: Some(1.0),
        choices: Vec::new(),
        meaning: meaning.into(),
    }
}

/// A plugin with an option `beta` that only `create` checks.
fn with_option(create: fn(&OptionSpec, &plugin_api::options::OptionMap) -> Result<()>) -> crate::Report {
    let manifest = ObjectiveManifest { options: vec![spec("beta", "A share.")], ..manifest() };
    let create = move |options: &plugin_api::options::OptionMap| {
        create(&spec("beta", "A share."), options)?;
        Ok(Sketch::new(&["logp"], true, right))
    };
    Laws::new(manifest, create).verify()
}

#[test]
fn unchecked_options_are_detected() {
    use plugin_api::options::{read, refuse_unknown};
    let careful = with_option(|spec, options| {
        refuse_unknown(std::slice::from_ref(spec), options)?;
        read::<f64>(spec, options).map(drop)
    });
    check("none", careful, &[]);
    check("an unknown key is ignored", with_option(|spec, o| read::<f64>(spec, o).map(drop)), &["options"]);
    let unread = with_option(|spec, o| refuse_unknown(std::slice::from_ref(spec), o));
    check("a value is not looked at", unread, &["options"]);
    let nameless = with_option(|spec, options| {
        refuse_unknown(std::slice::from_ref(spec), options)?;
        read::<f64>(spec, options).map_err(|e| plugin_api::Error::new(e.code, "something is wrong")).map(drop)
    });
    check("the key is not named", nameless, &["options"]);
}

/// Counts its calls.
struct Counting(Cell<u32>);

impl Objective for Counting {
    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        self.0.set(self.0.get() + 1);
        right(batch).map(|mut loss| {
            loss.metrics[0].value += f64::from(self.0.get()) * f64::EPSILON * 64.0;
            loss
        })
    }

    fn state(&self) -> Result<Vec<u8>> {
        Ok(self.0.get().to_le_bytes().to_vec())
    }
}

#[test]
fn a_counter_in_loss_is_detected() {
    let laws = Laws::new(manifest(), |options| {
        plugin_api::options::refuse_unknown(&[], options)?;
        Ok(Counting(Cell::new(0)))
    });
    let report = laws.verify();
    check("a counter", report, &["masked", "repeatable", "state"]);
}

#[test]
fn an_exemption_is_reported_with_its_reason() {
    let flipped = MISTAKES.iter().find(|(name, ..)| *name == "a cotangent's sign").unwrap().1;
    let laws = Laws::new(manifest(), move |options| {
        plugin_api::options::refuse_unknown(&[], options)?;
        Ok(Sketch::new(&["logp"], true, flipped))
    });
    let report = laws.with_generator(Generator::new(1)).exempt("cotangents", "known, to be mended").verify();
    report.assert_ok();
    assert!(report.to_string().contains("exempt: known, to be mended"), "{report}");
}

#[test]
fn a_wider_tolerance_lets_a_small_error_pass() {
    let slightly: fn(&Batch<'_>) -> Result<Loss> = |batch| {
        let mut loss = right(batch)?;
        loss.terms[0].cotangents[0].1.iter_mut().for_each(|c| *c *= 1.0 + 1e-4);
        Ok(loss)
    };
    check("an error of 1e-4", broken(manifest(), Sketch::new(&["logp"], true, slightly)), &["cotangents"]);
    let laws = Laws::new(manifest(), move |options| {
        plugin_api::options::refuse_unknown(&[], options)?;
        Ok(Sketch::new(&["logp"], true, slightly))
    });
    check("the same, allowed", laws.with_tolerance(Tolerance { relative: 1e-3, absolute: 1e-6 }).verify(), &[]);
}
