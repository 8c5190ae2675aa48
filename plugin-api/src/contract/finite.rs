//! NaN and infinity, which JSON cannot carry, in a plugin's description: refused by field before they are sent.

use serde_json::Value;

use crate::{
    Code, Error, Result,
    manifest::{ObjectiveManifest, OptionSpec, Requirements},
};

/// Whether all numbers of an objective's manifest are finite.
///
/// # Errors
/// [`Code::INVALID_ARGUMENT`] naming the first field that is NaN or infinite.
pub fn finite_manifest(manifest: &ObjectiveManifest) -> Result<()> {
    finite_options(&manifest.options)?;
    for expected in &manifest.expectations {
        let field = format!("the `tolerance` of the expectation of `{}`", expected.quantity);
        finite(&field, expected.tolerance)?;
        let value = expected.value.parse::<f64>().ok();
        finite(&format!("the `value` of the expectation of `{}`", expected.quantity), value.unwrap_or(0.0))?;
    }
    for metric in &manifest.metrics {
        let (low, high) = metric.healthy.unwrap_or((0.0, 0.0));
        let field = format!("the `healthy` range of the metric `{}`", metric.name);
        finite(&field, low).and_then(|()| finite(&field, high))?;
    }
    Ok(())
}

/// Whether options have finite limits and defaults.
///
/// # Errors
/// As [`finite_manifest`].
pub fn finite_options(options: &[OptionSpec]) -> Result<()> {
    for option in options {
        for (limit, value) in [("min", option.min), ("max", option.max)] {
            finite(&format!("the `{limit}` of the option `{}`", option.name), value.unwrap_or(0.0))?;
        }
        let numbers = match (option.kind.as_str(), &option.default) {
            ("float", number) => std::slice::from_ref(number),
            ("float list", Value::Array(numbers)) => numbers.as_slice(),
            _ => &[],
        };
        // A default that is not finite is stored as its name.
        let lost = numbers.iter().filter_map(Value::as_str).find_map(|text| text.parse::<f64>().ok());
        finite(&format!("the default of the option `{}`", option.name), lost.unwrap_or(0.0))?;
    }
    Ok(())
}

/// Whether all numbers of the requirements are finite.
///
/// # Errors
/// As [`finite_manifest`].
pub fn finite_requirements(requirements: &Requirements) -> Result<()> {
    finite("`temperature`", requirements.temperature)?;
    if let Some(divergence) = &requirements.divergence {
        finite("the `weight` of the divergence", divergence.weight)?;
        finite("the `temperature` of the divergence", divergence.temperature)?;
    }
    for own in &requirements.normalisers {
        finite(&format!("the constant `times` of the normaliser of `{}`", own.term), own.times)?;
    }
    for column in &requirements.columns {
        for (limit, value) in [("least", column.least), ("most", column.most)] {
            finite(&format!("`{limit}` of the column `{}`", column.name), value.unwrap_or(0.0))?;
        }
    }
    Ok(())
}

fn finite(field: &str, value: f64) -> Result<()> {
    if value.is_finite() {
        return Ok(());
    }
    Err(Error::new(Code::INVALID_ARGUMENT, format!("{field} is {value}, expected a finite number")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        manifest::{Expectation, MetricSpec, ObjectiveColumn, Reduction},
        options::OptionValue,
    };

    /// Catches NaN and infinity that cross as null: a default that then counts as missing, a limit that then does not apply, and a
    /// JSON error that names no field.
    #[test]
    fn every_number_that_is_not_finite_is_refused_by_its_field() {
        let option = |default: Value, min, max| {
            let (name, meaning) = ("beta".to_owned(), "a factor".to_owned());
            let kind = if default.is_array() { "float list" } else { "float" };
            ObjectiveManifest {
                options: vec![OptionSpec { name, kind: kind.into(), default, min, max, choices: Vec::new(), meaning }],
                ..Default::default()
            }
        };
        let expect = |value: &str, tolerance| Expectation {
            quantity: "nll".into(),
            value: value.into(),
            tolerance,
            when: "at first".into(),
        };
        let healthy =
            |range| MetricSpec { healthy: Some(range), ..MetricSpec::new("margin", Reduction::MEAN, "a margin") };
        let with = |expectations, metrics| ObjectiveManifest { expectations, metrics, ..Default::default() };
        for (manifest, part) in [
            (option(f64::NAN.to_json(), None, None), "the default of the option `beta` is NaN"),
            (option(f64::NEG_INFINITY.to_json(), None, None), "the default of the option `beta` is -inf"),
            (option(vec![1.0, f64::INFINITY].to_json(), None, None), "the default of the option `beta` is inf"),
            (option(1.0.to_json(), Some(f64::NAN), None), "the `min` of the option `beta` is NaN"),
            (option(1.0.to_json(), None, Some(f64::INFINITY)), "the `max` of the option `beta` is inf"),
            (with(vec![expect("0.5", f64::NAN)], vec![]), "the `tolerance` of the expectation of `nll` is NaN"),
            (with(vec![expect("inf", 0.1)], vec![]), "the `value` of the expectation of `nll` is inf"),
            (with(vec![], vec![healthy((0.0, f64::INFINITY))]), "the `healthy` range of the metric `margin` is inf"),
        ] {
            let why = finite_manifest(&manifest).expect_err(part);
            assert!(why.message.contains(part), "{why}");
        }
        assert!(finite_manifest(&option(vec![0.5, 1.0].to_json(), Some(0.0), None)).is_ok());
        assert!(finite_manifest(&with(vec![expect("ln_vocab", 0.1)], vec![healthy((0.0, 1.0))])).is_ok());
        let requires = |temperature| finite_requirements(&Requirements { temperature, ..Default::default() });
        assert!(requires(f64::NAN).expect_err("NaN").message.contains("`temperature` is NaN"));
        assert!(requires(0.7).is_ok());
        let column = |most| {
            let column = ObjectiveColumn { name: "labels".into(), most, ..Default::default() };
            finite_requirements(&Requirements { columns: vec![column], ..Default::default() })
        };
        assert!(column(Some(f64::NAN)).expect_err("NaN").message.contains("`most` of the column `labels` is NaN"));
        assert!(column(Some(1.0)).is_ok() && column(None).is_ok());
    }
}
