//! Checks of options for objectives and rewards: values that the declaration forbids are refused by name.

use plugin_api::{Code, manifest::OptionSpec, options::OptionMap};
use serde_json::{Value, json};

/// The number of illegal values that a plugin's `create` refuses by naming the key.
///
/// # Errors
/// An illegal value that it accepts or refuses in another way; legal options that it refuses.
pub(super) fn checked(
    specs: &[OptionSpec],
    base: &OptionMap,
    create: &dyn Fn(&OptionMap) -> plugin_api::Result<()>,
) -> Result<usize, String> {
    create(base).map_err(|e| format!("{} is refused: {e}", label(base)))?;
    let mut tried = 0;
    for spec in specs {
        for bad in illegal(spec) {
            refused(create, base, &spec.name, bad)?;
            tried += 1;
        }
        if spec.default.is_null() {
            refused(create, base, &spec.name, Value::Null)?;
        }
    }
    refused(create, base, "no_such_option", json!(1))?;
    Ok(tried)
}

/// The first case's options, reduced to those that have no default.
pub(super) fn required(specs: &[OptionSpec], first: &OptionMap) -> OptionMap {
    let must = |name: &str| specs.iter().any(|o| o.name == name && o.default.is_null());
    first.iter().filter(|(name, _)| must(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Options as JSON, on one line.
pub(super) fn label(options: &OptionMap) -> String {
    serde_json::to_string(options).unwrap_or_default()
}

fn refused(
    create: &dyn Fn(&OptionMap) -> plugin_api::Result<()>,
    base: &OptionMap,
    key: &str,
    value: Value,
) -> Result<(), String> {
    let mut options = base.clone();
    options.insert(key.to_owned(), value);
    match create(&options) {
        Ok(()) => Err(format!("{} is accepted", label(&options))),
        Err(e) if e.code != Code::OPTION => {
            Err(format!("{} is refused, but not with Code::OPTION: {e}", label(&options)))
        }
        Err(e) if !e.message.contains(key) => {
            Err(format!("{} is refused without naming the option: {e}", label(&options)))
        }
        Err(_) => Ok(()),
    }
}

/// Values that the declaration forbids.
fn illegal(spec: &OptionSpec) -> Vec<Value> {
    let listed = |value: Value| if spec.kind.ends_with("list") { json!([value]) } else { value };
    let mut values = vec![json!({"a": "table"}), json!([[]])];
    values.extend(match spec.kind.as_str() {
        "bool" => vec![json!(1), json!("true")],
        "int" => vec![json!(1.5), json!("1"), json!(true)],
        "float" => vec![json!("1"), json!(true)],
        "string" => vec![json!(1), json!(true)],
        "float list" => vec![json!(1.0), json!(["1"])],
        _ => vec![json!("a"), json!([1])],
    });
    let number = |x: f64| if spec.kind.starts_with("int") { json!(x as i64) } else { json!(x) };
    values.extend(spec.min.map(|min| listed(number(min - 1.0))));
    values.extend(spec.max.map(|max| listed(number(max + 1.0))));
    if !spec.choices.is_empty() {
        values.push(listed(json!("none of these")));
    }
    values
}

/// Whether a value has the declared type and range.
pub(super) fn within(spec: &OptionSpec, value: &Value) -> bool {
    let number = |v: &Value| {
        v.as_f64().is_some_and(|x| (spec.min.unwrap_or(f64::MIN)..=spec.max.unwrap_or(f64::MAX)).contains(&x))
    };
    let text = |v: &Value| {
        v.as_str().is_some_and(|t| spec.choices.is_empty() || spec.choices.iter().any(|choice| choice == t))
    };
    let all = |of: &dyn Fn(&Value) -> bool| value.as_array().is_some_and(|items| items.iter().all(of));
    match spec.kind.as_str() {
        "bool" => value.is_boolean(),
        "int" => value.is_i64() && number(value),
        "float" => number(value),
        "string" => text(value),
        "float list" => all(&number),
        "string list" => all(&text),
        _ => false,
    }
}
