//! Which backend a bench runs on, as text: `ID[:DEVICE][@DTYPE][?option=value,...]`.
//!
//! `candle`, `candle?path=generic`, `torch:cuda:0@bf16`. Several stand in a row with commas between them.

use std::{fmt, str::FromStr};

use plugin_api::backend::DType;
use telos::config::Override;

/// A backend, the device and dtype it computes in, and some of its options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Id of the plugin.
    pub id: String,
    /// Device in the plugin's words; `cpu` where none is named.
    pub device: String,
    /// What it computes in; f32 where none is named.
    pub dtype: DType,
    /// Options by name, their values as TOML or, failing that, text.
    pub options: Vec<(String, String)>,
}

impl Spec {
    /// The backend `id` on the processor, with its defaults.
    pub fn of(id: &str) -> Spec {
        Spec { id: id.to_owned(), device: "cpu".into(), dtype: DType::F32, options: Vec::new() }
    }

    /// A list of specs. A part that is an option (`b=2` in `x?a=1,b=2`) belongs to the spec before it.
    ///
    /// # Errors
    /// The first part that is none, and why.
    pub fn list(text: &str) -> Result<Vec<Spec>, String> {
        let mut parts: Vec<String> = Vec::new();
        for part in text.split(',').map(str::trim) {
            match parts.last_mut() {
                Some(last) if last.contains('?') && part.contains('=') && !part.contains('?') => {
                    *last = format!("{last},{part}");
                }
                _ => parts.push(part.to_owned()),
            }
        }
        parts.iter().map(|part| part.parse()).collect()
    }

    /// The same as overrides of an experiment's `[backend]`.
    ///
    /// # Errors
    /// An option without a value.
    pub fn overrides(&self) -> Result<Vec<Override>, String> {
        let text = |key: &str, value: &str| Override::text("--backend", &format!("backend.{key}"), value);
        let own = [text("plugin", &self.id), text("device", &self.device), text("dtype", &self.dtype.to_string())];
        let options = self.options.iter().map(|(name, value)| Override::parse(&format!("backend.{name}={value}")));
        own.into_iter().map(Ok).chain(options).collect()
    }
}

impl FromStr for Spec {
    type Err = String;

    fn from_str(text: &str) -> Result<Spec, String> {
        let wrong = |why: &str| format!("backend `{text}`: {why}; write ID[:DEVICE][@DTYPE][?option=value,...]");
        let (front, options) = text.split_once('?').unwrap_or((text, ""));
        let (front, dtype) = front.split_once('@').unwrap_or((front, "f32"));
        let (id, device) = front.split_once(':').unwrap_or((front, "cpu"));
        if id.is_empty() || device.is_empty() {
            return Err(wrong("it has no id, or an empty device"));
        }
        let dtype = match dtype {
            "f32" => DType::F32,
            "bf16" => DType::BF16,
            "f64" => DType::F64,
            _ => return Err(wrong(&format!("`{dtype}` is no dtype (f32, bf16, f64)"))),
        };
        let option = |part: &str| match part.split_once('=') {
            Some((name, value)) if !name.is_empty() && !value.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => Err(wrong(&format!("`{part}` is no option=value"))),
        };
        let options = options.split(',').filter(|part| !part.is_empty()).map(option).collect::<Result<_, _>>()?;
        Ok(Spec { id: id.into(), device: device.into(), dtype, options })
    }
}

impl fmt::Display for Spec {
    /// As short as it can be written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)?;
        if self.device != "cpu" {
            write!(f, ":{}", self.device)?;
        }
        if self.dtype != DType::F32 {
            write!(f, "@{}", self.dtype)?;
        }
        for (index, (name, value)) in self.options.iter().enumerate() {
            write!(f, "{}{name}={value}", if index == 0 { '?' } else { ',' })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a device cut at its own colon, a second option taken for a backend, and text that does not read back.
    #[test]
    fn specs_are_read_and_written() {
        let all = "candle,candle?path=generic,torch:cuda:0@bf16?tf32=true,deterministic=false,reference@f64";
        let specs = Spec::list(all).unwrap();
        let short: Vec<String> = specs.iter().map(Spec::to_string).collect();
        assert_eq!(short.join(","), all);
        assert_eq!(specs[0], Spec::of("candle"));
        let (name, value) = ("deterministic".to_owned(), "false".to_owned());
        assert_eq!(
            (specs[2].device.as_str(), specs[2].dtype, &specs[2].options[1]),
            ("cuda:0", DType::BF16, &(name, value))
        );
    }

    /// Catches a mistake that is passed over.
    #[test]
    fn what_is_no_spec_is_refused_with_its_part() {
        for (text, part) in [("", "no id"), ("torch@f16", "`f16`"), ("candle?path", "`path`"), ("torch:", "device")] {
            let error = Spec::list(text).unwrap_err();
            assert!(error.contains(part) && error.contains("ID[:DEVICE]"), "{error}");
        }
    }
}
