//! The chat templates that come with a tokenizer, by name, in transformers' order of precedence: template files
//! take precedence over `tokenizer_config.json`, whose templates are not used if there are files.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::folder::{CONFIG, TEMPLATE, TEMPLATE_JSON, TEMPLATES, object, place, text, unusable};
use crate::data::error::Result;

/// The name of the template that is used if none is chosen; a single template without a name gets it.
pub const DEFAULT: &str = "default";

/// A chat template and its origin: its file, or "the chat template in" a JSON file.
#[derive(Clone)]
pub(super) struct Found {
    pub text: String,
    pub origin: String,
}

/// Returns every template by its name.
///
/// # Errors
/// A file that is not UTF-8 or not JSON; a template that is not a string; a list with items that are not templates.
pub(super) fn read(
    tokenizer: &str,
    other_files: &BTreeMap<String, Vec<u8>>,
    config: &Map<String, Value>,
) -> Result<BTreeMap<String, Found>> {
    let path = |file: &str| place(tokenizer, file).display().to_string();
    let found_in = |file: &str, text: String| Found { text, origin: path(file) };
    let mut found = BTreeMap::new();
    found.extend(text(tokenizer, other_files, TEMPLATE)?.map(|text| (DEFAULT.to_owned(), found_in(TEMPLATE, text))));
    for file in other_files.keys() {
        let name = file.strip_prefix(TEMPLATES).and_then(|name| name.strip_prefix('/')?.strip_suffix(".jinja"));
        if let Some((name, template)) = name.zip(text(tokenizer, other_files, file)?) {
            found.insert(name.to_owned(), found_in(file, template));
        }
    }
    // Read in any case, so that errors in them are reported.
    let configured = configured(config).map_err(|what| unusable(tokenizer, CONFIG, what, None))?;
    let processor = object(tokenizer, other_files, TEMPLATE_JSON)?;
    let processor = self::configured(&processor).map_err(|what| unusable(tokenizer, TEMPLATE_JSON, what, None))?;
    let all = |file: &str, templates: BTreeMap<String, String>| {
        let origin = format!("the chat template in {}", path(file));
        templates.into_iter().map(|(name, text)| (name, Found { text, origin: origin.clone() })).collect()
    };
    let by_precedence = [found, all(CONFIG, configured), all(TEMPLATE_JSON, processor)];
    Ok(by_precedence.into_iter().find(|templates| !templates.is_empty()).unwrap_or_default())
}

/// The key `chat_template`: a string, a list of `{"name", "template"}`, or an object of names and templates.
fn configured(map: &Map<String, Value>) -> Result<BTreeMap<String, String>, String> {
    let wrong = |value: &Value| {
        let expected = "a string, or a list of objects with `name` and `template`";
        format!("`chat_template` is {value}, expected {expected}")
    };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    match map.get("chat_template").unwrap_or(&Value::Null) {
        Value::Null => Ok(BTreeMap::new()),
        Value::String(template) => Ok(BTreeMap::from([(DEFAULT.to_owned(), template.clone())])),
        Value::Array(several) => {
            let named = |one: &Value| text(one.get("name")?).zip(text(one.get("template")?));
            several.iter().map(|one| named(one).ok_or_else(|| wrong(one))).collect()
        }
        Value::Object(several) => {
            several.iter().map(|(name, one)| Ok((name.clone(), text(one).ok_or_else(|| wrong(one))?))).collect()
        }
        other => Err(wrong(other)),
    }
}
