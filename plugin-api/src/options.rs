//! Typed options from one declaration of name, type, default, range and help.
//!
//! The host checks an experiment's values against the declaration before the plugin sees them. The check here repeats this for
//! callers other than the host.

use crate::{Code, Error, Result, manifest::OptionSpec};
use serde_json::Value;

/// Options by name, in the form in which they cross.
pub type OptionMap = serde_json::Map<String, Value>;

/// A type that an option may have.
pub trait OptionValue: Sized {
    /// Its name in the manifest.
    const KIND: &'static str;
    /// From JSON; `None` for a value of another type.
    fn from_json(value: &Value) -> Option<Self>;
    /// To JSON.
    fn to_json(&self) -> Value;
}

macro_rules! option_values {
    ($($ty:ty, $kind:literal, $v:ident => $from:expr;)*) => {
        $(impl OptionValue for $ty {
            const KIND: &'static str = $kind;
            fn from_json($v: &Value) -> Option<Self> {
                $from
            }
            fn to_json(&self) -> Value {
                serde_json::json!(self)
            }
        })*
    };
}

option_values! {
    bool, "bool", v => v.as_bool();
    i64, "int", v => v.as_i64();
    String, "string", v => v.as_str().map(str::to_owned);
    Vec<String>, "string list", v => v.as_array()?.iter().map(|x| x.as_str().map(str::to_owned)).collect();
}

impl OptionValue for f64 {
    const KIND: &'static str = "float";

    fn from_json(value: &Value) -> Option<Self> {
        value.as_f64()
    }

    /// NaN and infinity, which JSON lacks, become their names: the manifest's check finds them there.
    fn to_json(&self) -> Value {
        serde_json::Number::from_f64(*self).map_or_else(|| Value::String(self.to_string()), Value::Number)
    }
}

impl OptionValue for Vec<f64> {
    const KIND: &'static str = "float list";

    fn from_json(value: &Value) -> Option<Self> {
        value.as_array()?.iter().map(Value::as_f64).collect()
    }

    fn to_json(&self) -> Value {
        self.iter().map(OptionValue::to_json).collect()
    }
}

/// A struct made by [`options!`](crate::options!).
pub trait OptionSet: Sized {
    /// The declarations, for the manifest.
    fn specs() -> Vec<OptionSpec>;

    /// From values by name; a missing option gets its default.
    ///
    /// # Errors
    /// [`Code::OPTION`] naming the key.
    fn parse(values: &OptionMap) -> Result<Self>;
}

/// For plugins without options.
impl OptionSet for () {
    fn specs() -> Vec<OptionSpec> {
        Vec::new()
    }

    fn parse(values: &OptionMap) -> Result<Self> {
        refuse_unknown(&[], values)
    }
}

/// Reads one option; used by the macro.
///
/// # Errors
/// [`Code::OPTION`] for an option that is missing, has another type, is out of range or is not one of the choices.
pub fn read<T: OptionValue>(spec: &OptionSpec, values: &OptionMap) -> Result<T> {
    let refuse = |why: String| Error::new(Code::OPTION, format!("option `{}`: {why}", spec.name));
    let value = values.get(&spec.name).unwrap_or(&spec.default);
    if value.is_null() {
        return Err(refuse("must be given".into()));
    }
    let typed = T::from_json(value).ok_or_else(|| refuse(format!("{value} is not a {}", T::KIND)))?;
    let numbers: Vec<f64> = match value {
        Value::Array(items) => items.iter().filter_map(Value::as_f64).collect(),
        other => other.as_f64().into_iter().collect(),
    };
    for number in numbers {
        let (min, max) = (spec.min.unwrap_or(f64::NEG_INFINITY), spec.max.unwrap_or(f64::INFINITY));
        if !(min..=max).contains(&number) {
            return Err(refuse(format!("{number} is outside {min} to {max}")));
        }
    }
    if let Some(text) = value.as_str()
        && !spec.choices.is_empty()
        && !spec.choices.iter().any(|c| c == text)
    {
        return Err(refuse(format!("`{text}` is not one of {}", spec.choices.join(", "))));
    }
    Ok(typed)
}

/// The legal strings of an option; used by the macro.
pub fn choices<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    names.into_iter().map(str::to_owned).collect()
}

/// Why a list of names is refused in which one occurs twice; `None` if none does.
///
/// ```
/// let names = ["style", "length", "style"].map(str::to_owned);
/// let why = plugin_api::options::named_twice("rewards", &names);
/// assert_eq!(why.as_deref(), Some("option `rewards`: names `style` twice"));
/// ```
pub fn named_twice(option: &str, names: &[String]) -> Option<String> {
    let at = (1..names.len()).find(|at| names[..*at].contains(&names[*at]))?;
    Some(format!("option `{option}`: names `{}` twice", names[at]))
}

/// Refuses a key that no declaration has; used by the macro.
///
/// # Errors
/// [`Code::OPTION`].
pub fn refuse_unknown(specs: &[OptionSpec], values: &OptionMap) -> Result<()> {
    match values.keys().find(|key| !specs.iter().any(|s| s.name == **key)) {
        None => Ok(()),
        Some(key) => {
            let known: Vec<_> = specs.iter().map(|s| s.name.as_str()).collect();
            Err(Error::new(Code::OPTION, format!("option `{key}` is unknown; known: {}", known.join(", "))))
        }
    }
}

/// Declares a plugin's options: a struct with types, defaults, legal values and help. After `of` come the legal strings: a list, or
/// the names of a table (`of TABLE.iter().map(|row| row.name)`).
///
/// ```
/// plugin_api::options! {
///     /// Options of the example.
///     pub struct ExampleOptions {
///         /// Strength of the penalty.
///         beta: f64 = 0.1, in 0.0..=10.0;
///         /// Which form.
///         form: String = "sigmoid".into(), of ["sigmoid", "hinge"];
///         /// Whether to average.
///         average: bool = false;
///     }
/// }
/// use plugin_api::options::OptionSet;
/// let options = ExampleOptions::parse(&Default::default()).unwrap();
/// assert_eq!(options.beta, 0.1);
/// assert_eq!(ExampleOptions::specs()[1].meaning, "Which form.");
/// ```
#[macro_export]
macro_rules! options {
    ($(#[$meta:meta])* $vis:vis struct $Name:ident {
        $($(#[doc = $doc:literal])+ $field:ident: $ty:ty = $default:expr
            $(, in $min:literal..=$max:literal)? $(, from $least:literal)? $(, of $choices:expr)? ;)*
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        $vis struct $Name {
            $($(#[doc = $doc])+ pub $field: $ty,)*
        }

        impl $crate::options::OptionSet for $Name {
            fn specs() -> Vec<$crate::manifest::OptionSpec> {
                vec![$({
                    let default: $ty = $default;
                    #[allow(unused_mut)]
                    let mut spec = $crate::manifest::OptionSpec {
                        name: stringify!($field).into(),
                        kind: <$ty as $crate::options::OptionValue>::KIND.into(),
                        default: $crate::options::OptionValue::to_json(&default),
                        min: None,
                        max: None,
                        choices: Vec::new(),
                        meaning: concat!($($doc),+).trim().into(),
                    };
                    $(spec.min = Some($min as f64); spec.max = Some($max as f64);)?
                    $(spec.min = Some($least as f64);)?
                    $(spec.choices = $crate::options::choices($choices);)?
                    spec
                },)*]
            }

            fn parse(values: &$crate::options::OptionMap) -> $crate::Result<Self> {
                let specs = Self::specs();
                $crate::options::refuse_unknown(&specs, values)?;
                let mut specs = specs.iter();
                Ok(Self {
                    $($field: match specs.next() {
                        Some(spec) => $crate::options::read::<$ty>(spec, values)?,
                        None => return Err($crate::Error::internal("options and specs differ")),
                    },)*
                })
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    options! {
        /// For the tests.
        struct Sample {
            /// A rate.
            rate: f64 = 0.5, in 0.0..=1.0;
            /// A count.
            count: i64 = 3, from 1;
            /// A name.
            kind: String = "a".into(), of ["a", "b"];
            /// Some numbers.
            levels: Vec<f64> = vec![1.0, 2.0];
        }
    }

    fn parse(json: &str) -> Result<Sample> {
        Sample::parse(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn missing_options_get_their_defaults() {
        let sample = parse(r#"{"rate": 1}"#).unwrap();
        assert_eq!(sample, Sample { rate: 1.0, count: 3, kind: "a".into(), levels: vec![1.0, 2.0] });
    }

    #[test]
    fn every_refusal_names_the_key() {
        for (json, key) in [
            (r#"{"rate": 1.5}"#, "`rate`: 1.5 is outside 0 to 1"),
            (r#"{"rate": "x"}"#, "`rate`"),
            (r#"{"count": 0}"#, "`count`"),
            (r#"{"count": 2.5}"#, "`count`"),
            (r#"{"kind": "c"}"#, "`kind`: `c` is not one of a, b"),
            (r#"{"levels": [1, "x"]}"#, "`levels`"),
            (r#"{"beta": 1}"#, "`beta` is unknown"),
        ] {
            let error = parse(json).unwrap_err();
            assert_eq!(error.code, Code::OPTION);
            assert!(error.message.contains(key), "{error}");
        }
    }
}
