//! Option sets to verify a plugin under: the given options, and one option changed at a time.

use plugin_api::{manifest::OptionSpec, options::OptionMap};
use serde_json::{Value, json};

/// `base`, then `base` with one option changed: every other choice of a list of strings, a flag inverted, a number moved within
/// its range. Options named in `fixed` keep their values. A plugin may refuse some sets, because options can contradict each
/// other.
pub fn variations(specs: &[OptionSpec], base: &OptionMap, fixed: &[String]) -> Vec<OptionMap> {
    let mut all = vec![base.clone()];
    for spec in specs.iter().filter(|spec| !fixed.contains(&spec.name)) {
        let now = base.get(&spec.name).unwrap_or(&spec.default);
        for value in others(spec, now) {
            let mut options = base.clone();
            options.insert(spec.name.clone(), value);
            all.push(options);
        }
    }
    all
}

/// The options that differ from the defaults, as text; `defaults` if none does.
pub fn told(specs: &[OptionSpec], options: &OptionMap) -> String {
    let differs = |(name, value): &(&String, &Value)| !specs.iter().any(|s| s.name == **name && s.default == **value);
    let parts: Vec<String> = options.iter().filter(differs).map(|(name, value)| format!("{name} = {value}")).collect();
    if parts.is_empty() { "defaults".to_owned() } else { parts.join(", ") }
}

fn others(spec: &OptionSpec, now: &Value) -> Vec<Value> {
    match (spec.kind.as_str(), now) {
        ("string", _) => spec.choices.iter().filter(|choice| now != *choice).map(|choice| json!(choice)).collect(),
        ("bool", Value::Bool(flag)) => vec![json!(!flag)],
        ("float", Value::Number(number)) => {
            number.as_f64().and_then(|x| real(spec, x)).map(|x| json!(x)).into_iter().collect()
        }
        ("int", Value::Number(number)) => {
            number.as_i64().and_then(|x| whole(spec, x)).map(|x| json!(x)).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

/// Another number of the range: for 0 a quarter of the range above it, else half of the number, else the middle between it and the
/// end of the range.
fn real(spec: &OptionSpec, x: f64) -> Option<f64> {
    let (low, high) = (spec.min.unwrap_or(f64::MIN), spec.max.unwrap_or(f64::MAX));
    let fits = |y: &f64| *y != x && (low..=high).contains(y);
    let quarter = if high < f64::MAX && low > f64::MIN { low + 0.25 * (high - low) } else { 0.25 };
    let first = if x == 0.0 { quarter } else { 0.5 * x };
    [first, 0.5 * (x + high.min(2.0 * x.abs() + 1.0)), 0.5 * (x + low.max(-2.0 * x.abs() - 1.0))].into_iter().find(fits)
}

fn whole(spec: &OptionSpec, x: i64) -> Option<i64> {
    let fits = |y: &i64| (spec.min.unwrap_or(f64::MIN)..=spec.max.unwrap_or(f64::MAX)).contains(&(*y as f64));
    [x + 1, x - 1].into_iter().find(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, kind: &str, default: Value, range: Option<(f64, f64)>, choices: &[&str]) -> OptionSpec {
        OptionSpec {
            name: name.into(),
            kind: kind.into(),
            default,
            min: range.map(|(min, _)| min),
            max: range.map(|(_, max)| max),
            choices: choices.iter().map(|c| (*c).to_owned()).collect(),
            meaning: "For a test.".into(),
        }
    }

    /// Catches a choice that is never tried, a number beyond its range, and a change of an option that the user has fixed.
    #[test]
    fn one_option_changes_at_a_time_within_its_range() {
        let specs = [
            spec("form", "string", json!("a"), None, &["a", "b", "c"]),
            spec("free", "string", json!("text"), None, &[]),
            spec("flag", "bool", json!(true), None, &[]),
            spec("share", "float", json!(0.0), Some((0.0, 1.0)), &[]),
            spec("top", "float", json!(1.0), Some((1.0, 1.5)), &[]),
            spec("open", "float", json!(0.5), None, &[]),
            spec("only", "float", json!(2.0), Some((2.0, 2.0)), &[]),
            spec("below", "float", json!(-1.0), Some((-1.5, -1.0)), &[]),
            spec("count", "int", json!(3), Some((1.0, 3.0)), &[]),
            spec("beta", "float", json!(0.1), None, &[]),
        ];
        let base: OptionMap = specs.iter().map(|s| (s.name.clone(), s.default.clone())).collect();
        let all = variations(&specs, &base, &["beta".to_owned()]);
        let texts: Vec<String> = all.iter().map(|options| told(&specs, options)).collect();
        let expected = [
            "defaults",
            "form = \"b\"",
            "form = \"c\"",
            "flag = false",
            "share = 0.25",
            "top = 1.25",
            "open = 0.25",
            "below = -1.25",
            "count = 2",
        ];
        assert_eq!(texts, expected);
    }
}
