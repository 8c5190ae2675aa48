//! Terms, cotangents and metrics that come back from `loss`.

use super::fault::{Fault, fault, place, sequence_of, twice};
use crate::{
    batch::{Array, Batch, Scope, names},
    manifest::{ObjectiveManifest, Requirements},
    objective::{Loss, MetricPart, Term},
};

/// Checks the result of `loss` for `batch`.
///
/// A sum or cotangent that is not finite is the plugin's fault only if everything it read was finite: a model that has diverged
/// makes every loss NaN, and the host counts such steps.
///
/// # Errors
/// The first mistake: no term; a term, cotangent or metric that is undeclared or returned twice; a term without cotangents if the
/// batch has supervised tokens; a cotangent of a statistic that is not required or has no gradient, or of another length; a
/// coefficient that is not finite; a sum, cotangent or metric that is NaN or infinite because of the plugin; a metric's weight
/// that is negative or not finite.
pub fn loss(
    manifest: &ObjectiveManifest,
    requirements: &Requirements,
    batch: &Batch<'_>,
    loss: &Loss,
) -> Result<(), Fault> {
    if loss.terms.is_empty() {
        return fault(
            "it returned no term; return every term for every batch, with sum 0 where there is nothing to learn",
        );
    }
    if let Some(name) = twice(loss.terms.iter().map(|term| term.name.as_str())) {
        return fault(format!("it returned the term `{name}` twice"));
    }
    if let Some(name) = twice(loss.metrics.iter().map(|metric| metric.name.as_str())) {
        return fault(format!("it returned the metric `{name}` twice"));
    }
    for term in &loss.terms {
        if !manifest.terms.iter().any(|declared| declared.name == term.name) {
            return fault(format!("it returned the term `{}`, which its manifest does not declare", term.name));
        }
        form(requirements, batch, term)?;
    }
    let terms = loss.terms.iter().filter_map(|term| finite(batch, term).err());
    let metrics = loss.metrics.iter().filter_map(|metric| metric_of(manifest, metric).err());
    let mut first_number = None;
    for broken in terms.chain(metrics) {
        match broken {
            Broken::Form(why) => return Err(why),
            Broken::Number(why) => first_number = first_number.or(Some(why)),
        }
    }
    // Computed only after a mistake, because it reads the whole batch.
    match first_number {
        Some(why) if reads_finite(batch) => Err(why),
        _ => Ok(()),
    }
}

/// Kinds of mistakes: a number that is not finite, which the inputs may have caused, or anything else.
enum Broken {
    Number(Fault),
    Form(Fault),
}

/// Checks names and lengths of a term's cotangents.
fn form(requirements: &Requirements, batch: &Batch<'_>, term: &Term) -> Result<(), Fault> {
    let name = &term.name;
    if !term.coefficient.is_finite() {
        return fault(format!(
            "the coefficient of the term `{name}` is {}, expected a finite number",
            term.coefficient
        ));
    }
    if term.cotangents.is_empty() && learns(batch) {
        return fault(format!(
            "it returned no cotangents for the term `{name}`, so that nothing is learned from it; a number that is only \
             reported is a metric"
        ));
    }
    if let Some(statistic) = twice(term.cotangents.iter().map(|(statistic, _)| statistic.as_str())) {
        return fault(format!("it returned two cotangents of `{statistic}` for the term `{name}`; add them up"));
    }
    for (statistic, values) in &term.cotangents {
        let what = format!("it returned a cotangent of `{statistic}` for the term `{name}`");
        if !requirements.statistics.contains(statistic) {
            let required = requirements.statistics.join(", ");
            return fault(format!("{what}, a statistic that it does not require (it requires {required})"));
        }
        let array = match batch.find(statistic) {
            Some(array) if array.differentiable => array,
            Some(_) => return fault(format!("{what}, which has no gradient: no trained model computes it")),
            None => return fault(format!("{what}, which the batch does not have")),
        };
        if values.len() != array.data.len() {
            let (found, expected, scope) = (values.len(), array.data.len(), array.scope);
            return fault(format!(
                "it returned {found} cotangents of `{statistic}` for the term `{name}`, expected {expected}, one per {scope:?}"
            ));
        }
    }
    Ok(())
}

/// Whether a batch has anything for a term to learn from.
fn learns(batch: &Batch<'_>) -> bool {
    batch.mask().is_ok_and(|mask| mask.contains(&1.0))
}

fn finite(batch: &Batch<'_>, term: &Term) -> Result<(), Broken> {
    let Term { name, sum, .. } = term;
    let bad = |values: &[f64]| values.iter().position(|value| !value.is_finite());
    // Cotangents first: their message names the token.
    for (statistic, values) in &term.cotangents {
        let Some(n) = bad(values) else { continue };
        let per_token = batch.find(statistic).is_none_or(|array| array.scope == Scope::TOKEN);
        let offsets = batch.offsets().unwrap_or_default();
        let (at, sequence) = match per_token {
            true => (place(&offsets, n), sequence_of(&offsets, n)),
            false => (format!("sequence {n}"), Some(n)),
        };
        let value = values[n];
        let text = format!("the term `{name}`: the cotangent of `{statistic}` is {value} at {at}, {FINITE}");
        return Err(Broken::Number(Fault::at(text, sequence)));
    }
    if sum.is_finite() {
        return Ok(());
    }
    Err(Broken::Number(Fault::new(format!("the sum of the term `{name}` is {sum}, {FINITE}"))))
}

const FINITE: &str = "although every number that it read is finite";

fn metric_of(manifest: &ObjectiveManifest, metric: &MetricPart) -> Result<(), Broken> {
    let MetricPart { name, value, weight } = metric;
    let form = |text: String| Err(Broken::Form(Fault::new(text)));
    if !manifest.metrics.iter().any(|declared| declared.name == *name) {
        return form(format!("it returned the metric `{name}`, which its manifest does not declare"));
    }
    if weight.is_finite() && *weight < 0.0 {
        return form(format!("the weight of the metric `{name}` is {weight}, expected a number from 0"));
    }
    if weight.is_finite() && (*weight == 0.0 || value.is_finite()) {
        return Ok(());
    }
    let text = format!("the metric `{name}` has the value {value} and the weight {weight}, {FINITE}");
    Err(Broken::Number(Fault::new(text + "; weight 0 means that a batch has nothing to report")))
}

/// Whether all numbers of a batch that count are finite: those per token where the mask is 1, all others everywhere.
fn reads_finite(batch: &Batch<'_>) -> bool {
    let mask = batch.mask().unwrap_or_default();
    let counts =
        |array: &Array<'_>, i: usize| array.scope != Scope::TOKEN || mask.get(i / array.cols.max(1)) == Some(&1.0);
    let sound = |array: &Array<'_>| (0..array.data.len()).all(|i| array.data[i].is_finite() || !counts(array, i));
    batch.arrays().iter().all(|array| array.name == names::OFFSETS || sound(array))
}

/// Compares the cotangents of two calls of `loss`: `before` with all statistics 0, `after` with the models' statistics. They are
/// equal if [`Requirements::linear`] is true. Differences from another order of addition are tolerated. `batch` has the models' statistics;
/// where these are not finite, nothing is compared.
///
/// # Errors
/// The term, statistic and token or sequence where they differ, with both numbers.
pub fn linear(batch: &Batch<'_>, before: &Loss, after: &Loss) -> Result<(), Fault> {
    match same_cotangents(before, after) {
        Err(_) if !reads_finite(batch) => Ok(()),
        compared => compared,
    }
}

fn same_cotangents(before: &Loss, after: &Loss) -> Result<(), Fault> {
    const CLAIM: &str = "its requirements claim `linear`, but";
    let same = |a: f64, b: f64| (a - b).abs() <= 1e-10 * a.abs().max(b.abs()).max(1.0) || (a.is_nan() && b.is_nan());
    if before.terms.len() != after.terms.len() {
        return fault(format!("{CLAIM} with statistics of 0 it returns other terms"));
    }
    for term in &after.terms {
        let name = &term.name;
        let Some(other) = before.terms.iter().find(|other| other.name == *name) else {
            return fault(format!("{CLAIM} with statistics of 0 it does not return the term `{name}`"));
        };
        if !same(other.coefficient, term.coefficient) {
            return fault(format!("{CLAIM} the coefficient of the term `{name}` depends on the statistics"));
        }
        for (statistic, values) in &term.cotangents {
            let zero = other.cotangents.iter().find(|(own, _)| own == statistic).map(|(_, values)| values);
            let zero = zero.filter(|zero| zero.len() == values.len());
            let at = zero.map_or(Some(0), |zero| zero.iter().zip(values).position(|(a, b)| !same(*a, *b)));
            if let Some(n) = at {
                let was = zero.and_then(|zero| zero.get(n)).map_or("missing".to_owned(), f64::to_string);
                let is = values.get(n).copied().unwrap_or(f64::NAN);
                return fault(format!(
                    "{CLAIM} the cotangent of `{statistic}` for the term `{name}` at token {n} is {was} with statistics of 0 \
                     and {is} with the true ones; leave `linear` false"
                ));
            }
        }
        if other.cotangents.len() != term.cotangents.len() {
            return fault(format!("{CLAIM} with statistics of 0 the term `{name}` has other cotangents"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{MetricSpec, Normaliser, Reduction, TermSpec};

    fn manifest() -> ObjectiveManifest {
        ObjectiveManifest {
            terms: ["a", "b"].map(|name| TermSpec::new(name, Normaliser::SUPERVISED_TOKENS, "")).to_vec(),
            metrics: vec![MetricSpec::new("m", Reduction::MAX, "")],
            ..Default::default()
        }
    }

    fn batch() -> Batch<'static> {
        Batch::new()
            .with(names::OFFSETS, Scope::BATCH, vec![0.0, 1.0, 3.0])
            .with(names::MASK, Scope::TOKEN, vec![1.0, 0.0, 1.0])
            .with_statistic("logp", Scope::TOKEN, vec![-1.0, 0.0, -2.0])
            .with_statistic("lse", Scope::TOKEN, vec![1.0; 3])
            .with(names::REFERENCE_LOGP, Scope::TOKEN, vec![-1.0; 3])
    }

    fn term(name: &str, cotangents: &[(&str, &[f64])]) -> Term {
        let cotangents = cotangents.iter().map(|(name, values)| ((*name).to_owned(), values.to_vec())).collect();
        Term { name: name.into(), coefficient: 1.0, sum: 3.0, cotangents }
    }

    fn good() -> Loss {
        Loss { terms: vec![term("a", &[("logp", &[-1.0, 0.0, -1.0])])], metrics: Vec::new() }
    }

    fn check(batch: &Batch<'_>, answer: &Loss) -> Result<(), Fault> {
        let statistics = vec!["logp".to_owned(), names::REFERENCE_LOGP.to_owned()];
        loss(&manifest(), &Requirements { statistics, ..Default::default() }, batch, answer)
    }

    #[track_caller]
    fn refused(spoil: impl FnOnce(&mut Loss), part: &str) {
        let mut answer = good();
        spoil(&mut answer);
        let why = check(&batch(), &answer).expect_err(part).text;
        assert!(why.contains(part), "{part} is missing in {why}");
    }

    /// Catches a run that learns nothing, or twice as much, and exits with 0.
    #[test]
    fn terms_and_cotangents_are_unique_declared_and_required() {
        assert_eq!(check(&batch(), &good()), Ok(()));
        refused(|loss| loss.terms.clear(), "no term");
        refused(|loss| loss.terms[0].cotangents.clear(), "no cotangents for the term `a`");
        refused(|loss| loss.terms.push(loss.terms[0].clone()), "the term `a` twice");
        refused(|loss| loss.terms.push(term("c", &[])), "the term `c`, which its manifest does not declare");
        refused(
            |loss| loss.terms[0].cotangents.push(("logp".into(), vec![0.0; 3])),
            "two cotangents of `logp` for the term `a`",
        );
        refused(
            |loss| loss.terms[0].cotangents[0].0 = "lse".into(),
            "`lse` for the term `a`, a statistic that it does",
        );
        refused(|loss| loss.terms[0].cotangents[0].0 = names::REFERENCE_LOGP.into(), "has no gradient");
        refused(|loss| _ = loss.terms[0].cotangents[0].1.pop(), "2 cotangents of `logp` for the term `a`, expected 3");
        refused(|loss| loss.terms[0].coefficient = f64::NAN, "the coefficient of the term `a` is NaN");
    }

    /// Catches a batch without supervised tokens that is refused because it has no cotangents.
    #[test]
    fn gotcha_05_a_batch_without_supervised_tokens_needs_no_cotangents() {
        let nothing = batch().with(names::MASK, Scope::TOKEN, vec![0.0; 3]);
        let mut answer = good();
        answer.terms[0].cotangents.clear();
        answer.terms[0].sum = 0.0;
        assert_eq!(check(&nothing, &answer), Ok(()));
    }

    /// Catches a plugin's NaN that is reported as a diverged model, and a diverged model's NaN that is reported as the plugin's fault.
    #[test]
    fn gotcha_43_nan_is_blamed_on_the_plugin_if_its_input_had_none() {
        let spoilt = |at: usize| {
            let mut answer = good();
            answer.terms[0].cotangents[0].1[at] = f64::NAN;
            answer
        };
        let why = check(&batch(), &spoilt(2)).unwrap_err();
        assert!(why.text.contains("`a`: the cotangent of `logp` is NaN at token 2 (token 1 of sequence 1)"), "{why}");
        assert_eq!(why.sequence, Some(1));
        refused(|loss| loss.terms[0].sum = f64::INFINITY, "the sum of the term `a` is inf");
        let diverged = batch().with_statistic("logp", Scope::TOKEN, vec![f64::NAN, 0.0, -2.0]);
        assert_eq!(check(&diverged, &spoilt(2)), Ok(()));
        // A NaN behind the mask does not excuse the plugin's own.
        let hidden = batch().with_statistic("logp", Scope::TOKEN, vec![-1.0, f64::NAN, -2.0]);
        assert!(check(&hidden, &spoilt(2)).is_err());
        // A NaN in the inputs excuses no other mistake.
        let mut twice = spoilt(2);
        twice.terms.push(twice.terms[0].clone());
        assert!(check(&diverged, &twice).is_err());
    }

    /// Catches metrics that are summed twice, subtract from others, or make a mean NaN.
    #[test]
    fn metrics_are_declared_unique_and_have_weights_of_at_least_0() {
        let metric = |name: &str, value, weight| {
            let mut loss = good();
            loss.metrics.push(MetricPart { name: name.into(), value, weight });
            loss
        };
        for (value, weight) in [(1.0, 2.0), (-1.0, 1e300), (f64::NAN, 0.0), (f64::INFINITY, 0.0)] {
            assert_eq!(check(&batch(), &metric("m", value, weight)), Ok(()), "{value}, {weight}");
        }
        for (value, weight) in
            [(1.0, -1.0), (1.0, f64::NAN), (1.0, f64::INFINITY), (f64::NAN, 1.0), (f64::INFINITY, 1.0)]
        {
            let why = check(&batch(), &metric("m", value, weight)).expect_err("it is wrong").text;
            assert!(why.contains("the metric `m`"), "{why}");
        }
        refused(
            |loss| loss.metrics = metric("n", 1.0, 1.0).metrics,
            "the metric `n`, which its manifest does not declare",
        );
        refused(
            |loss| loss.metrics = [metric("m", 1.0, 1.0).metrics, metric("m", 1.0, 0.0).metrics].concat(),
            "the metric `m` twice",
        );
    }

    /// Catches a false claim of linearity, which would train on the gradient at statistics of 0.
    #[test]
    fn a_false_claim_of_linearity_is_reported_with_its_place() {
        let with = |values: &[f64]| Loss { terms: vec![term("a", &[("logp", values)])], metrics: Vec::new() };
        assert_eq!(linear(&batch(), &with(&[-1.0, 0.5]), &with(&[-1.0, 0.5 + 1e-13])), Ok(()));
        let why = linear(&batch(), &with(&[-1.0, 0.0]), &with(&[-1.0, -4.0])).unwrap_err().text;
        assert!(why.contains("`logp` for the term `a` at token 1 is 0 with statistics of 0 and -4"), "{why}");
        assert!(linear(&batch(), &with(&[-1.0]), &with(&[-1.0, 0.0])).is_err());
        assert!(linear(&batch(), &Loss::default(), &with(&[-1.0])).is_err());
        let none = Loss { terms: vec![term("a", &[])], metrics: Vec::new() };
        assert!(linear(&batch(), &none, &with(&[-1.0])).is_err() && linear(&batch(), &with(&[-1.0]), &none).is_err());
        let diverged = batch().with_statistic("logp", Scope::TOKEN, vec![f64::NAN, 0.0, -2.0]);
        assert_eq!(linear(&diverged, &with(&[-1.0]), &with(&[f64::NAN])), Ok(()));
        let mut scaled = with(&[-1.0]);
        scaled.terms[0].coefficient = 2.0;
        assert!(linear(&batch(), &scaled, &with(&[-1.0])).unwrap_err().text.contains("coefficient"));
    }
}
