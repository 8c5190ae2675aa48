//! Rotary position embeddings: the base of the frequencies and their scaling, as config.json gives them.

use serde_json::{Map, Value, json};

use super::keys::Reader;
use crate::error::Result;

/// The frequencies of a rotary position embedding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f64,
    /// How they are scaled to a longer context.
    pub scaling: Scaling,
}

/// How frequencies are scaled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scaling {
    /// As they are.
    Unscaled,
    /// All are divided by a factor (position interpolation, Chen et al. 2023, arXiv 2306.15595).
    Linear {
        /// The factor.
        factor: f64,
    },
    /// As in Llama 3.1: low frequencies are divided by a factor, high ones are kept, those between are interpolated.
    Llama3 {
        /// The factor.
        factor: f64,
        /// Frequencies of fewer periods than this in the original context are divided.
        low: f64,
        /// Frequencies of more periods than this are kept.
        high: f64,
        /// The context length before scaling.
        original: u64,
    },
}

/// The types of scaling that are implemented, by their names in config.json.
const KNOWN: &str = "default, linear, llama3";

impl Rope {
    /// Unscaled frequencies.
    pub fn new(theta: f64) -> Rope {
        Rope { theta, scaling: Scaling::Unscaled }
    }

    /// Returns the frequency of each pair of a head of this width, in radians per position: `theta^(-2 i / width)`, scaled.
    pub fn frequencies(&self, head_dim: u64) -> Vec<f64> {
        let plain = (0..head_dim / 2).map(|pair| self.theta.powf(-((2 * pair) as f64) / head_dim as f64));
        plain.map(|frequency| self.scaled(frequency)).collect()
    }

    fn scaled(&self, frequency: f64) -> f64 {
        match self.scaling {
            Scaling::Unscaled => frequency,
            Scaling::Linear { factor } => frequency / factor,
            Scaling::Llama3 { factor, low, high, original } => {
                let periods = original as f64 * frequency / std::f64::consts::TAU;
                let kept = ((periods - low) / (high - low)).clamp(0.0, 1.0);
                (1.0 - kept) * frequency / factor + kept * frequency
            }
        }
    }

    /// Checks the numbers.
    pub(super) fn check(&self) -> Result<(), String> {
        if !(self.theta > 1.0 && self.theta.is_finite()) {
            return Err(format!("rope_theta is {}, expected a number above 1", self.theta));
        }
        let factor = match self.scaling {
            Scaling::Unscaled => 1.0,
            Scaling::Linear { factor } | Scaling::Llama3 { factor, .. } => factor,
        };
        if !(factor >= 1.0 && factor.is_finite()) {
            return Err(format!("the factor of the rotary scaling is {factor}, expected a number from 1"));
        }
        match self.scaling {
            Scaling::Llama3 { low, high, .. } if !(low > 0.0 && high > low && high.is_finite()) => Err(format!(
                "low_freq_factor is {low} and high_freq_factor {high}, expected numbers above 0, the second one greater"
            )),
            _ => Ok(()),
        }
    }

    /// Reads the keys of both layouts: transformers 5 stores `rope_parameters`; earlier versions have `rope_theta` and
    /// `rope_scaling`.
    ///
    /// # Errors
    /// A request error that names file, key and value: a type or key that is not implemented, values that contradict each other.
    pub(super) fn read(read: &Reader<'_>) -> Result<Rope> {
        let mut found: Option<(Option<f64>, Scaling)> = None;
        for key in ["rope_parameters", "rope_scaling"] {
            let Some(value) = read.get(key) else { continue };
            let Value::Object(map) = value else { return Err(read.wrong(key, value, "an object or null")) };
            // Null counts as absent.
            let map = &map.iter().filter(|(_, value)| !value.is_null()).map(|(k, v)| (k.clone(), v.clone())).collect();
            let own = Table { read, key, map }.rope()?;
            found = match found {
                Some((theta, scaling)) if scaling != own.1 || theta.zip(own.0).is_some_and(|(a, b)| a != b) => {
                    return Err(read.wrong(key, value, "the same as `rope_parameters`"));
                }
                Some((theta, scaling)) => Some((theta.or(own.0), scaling)),
                None => Some(own),
            };
        }
        let (inside, scaling) = found.unwrap_or((None, Scaling::Unscaled));
        let alone = read.get("rope_theta").map(|value| read.float("rope_theta", 0.0).map(|theta| (theta, value)));
        let theta = match (inside, alone.transpose()?) {
            (Some(inside), Some((alone, value))) if inside != alone => {
                return Err(read.wrong("rope_theta", value, &format!("{inside} as in `rope_parameters`")));
            }
            (Some(theta), _) | (None, Some((theta, _))) => theta,
            (None, None) => 10_000.0,
        };
        Ok(Rope { theta, scaling })
    }

    /// Adds the keys of both layouts.
    pub(super) fn write(&self, put: &mut impl FnMut(&str, Value)) {
        let mut parameters = Map::new();
        match self.scaling {
            Scaling::Unscaled => _ = parameters.insert("rope_type".into(), json!("default")),
            Scaling::Linear { factor } => {
                parameters.extend([("rope_type".into(), json!("linear")), ("factor".into(), json!(factor))]);
            }
            Scaling::Llama3 { factor, low, high, original } => parameters.extend([
                ("rope_type".into(), json!("llama3")),
                ("factor".into(), json!(factor)),
                ("low_freq_factor".into(), json!(low)),
                ("high_freq_factor".into(), json!(high)),
                ("original_max_position_embeddings".into(), json!(original)),
            ]),
        }
        if self.scaling != Scaling::Unscaled {
            put("rope_scaling", Value::Object(parameters.clone()));
        }
        parameters.insert("rope_theta".into(), json!(self.theta));
        put("rope_parameters", Value::Object(parameters));
        put("rope_theta", json!(self.theta));
    }
}

/// One of the two objects of config.json.
struct Table<'a> {
    read: &'a Reader<'a>,
    key: &'a str,
    map: &'a Map<String, Value>,
}

impl Table<'_> {
    fn rope(&self) -> Result<(Option<f64>, Scaling)> {
        let name = if self.map.contains_key("rope_type") { "rope_type" } else { "type" };
        let kind = match self.map.get(name) {
            Some(Value::String(kind)) => kind.as_str(),
            Some(value) => return Err(self.read.wrong(&format!("{}.{name}", self.key), value, "a string")),
            None => "default",
        };
        let (scaling, own): (Scaling, &[&str]) = match kind {
            "default" => (Scaling::Unscaled, &[]),
            "linear" => (Scaling::Linear { factor: self.number("factor")? }, &["factor"]),
            "llama3" => {
                let scaling = Scaling::Llama3 {
                    factor: self.number("factor")?,
                    low: self.number("low_freq_factor")?,
                    high: self.number("high_freq_factor")?,
                    original: self.size("original_max_position_embeddings")?,
                };
                (scaling, &["factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"])
            }
            _ => {
                let error = self.read.refuse(&format!("{}.{name}", self.key), &json!(kind));
                return Err(error.with_hint(format!("implemented are {KNOWN}")));
            }
        };
        for (inner, value) in self.map.iter().filter(|(inner, _)| !own.contains(&inner.as_str())) {
            match inner.as_str() {
                "rope_type" | "type" | "rope_theta" => {}
                "partial_rotary_factor" if value.as_f64() == Some(1.0) => {}
                _ => return Err(self.read.refuse(&format!("{}.{inner}", self.key), value)),
            }
        }
        let theta = self.map.contains_key("rope_theta").then(|| self.number("rope_theta")).transpose()?;
        Ok((theta, scaling))
    }

    fn size(&self, inner: &str) -> Result<u64> {
        let value = self.map.get(inner).unwrap_or(&Value::Null);
        let size = value.as_u64().filter(|size| *size > 0);
        size.ok_or_else(|| self.read.wrong(&format!("{}.{inner}", self.key), value, "an integer from 1"))
    }

    fn number(&self, inner: &str) -> Result<f64> {
        let value = self.map.get(inner).unwrap_or(&Value::Null);
        value.as_f64().ok_or_else(|| self.read.wrong(&format!("{}.{inner}", self.key), value, "a number"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a scaling whose ends are swapped, or that jumps between them: with 32 positions before scaling, a period of 8 is kept,
    /// one of 32 positions divided by 4, and one of 32 / 2.5 is half-way.
    #[test]
    fn llama3_divides_low_frequencies_and_keeps_high_ones() {
        let scaling = Scaling::Llama3 { factor: 4.0, low: 1.0, high: 4.0, original: 32 };
        let rope = Rope { theta: 1000.0, scaling };
        let of_period = |period: f64| std::f64::consts::TAU / period;
        for (period, share) in [(8.0, 1.0), (2.0, 1.0), (32.0, 0.25), (500.0, 0.25), (32.0 / 2.5, 0.625)] {
            let plain = of_period(period);
            assert!((rope.scaled(plain) - share * plain).abs() < 1e-15, "{period}");
        }
        let linear = Rope { theta: 100.0, scaling: Scaling::Linear { factor: 2.0 } };
        assert_eq!(linear.frequencies(4), [0.5, 0.05]);
        assert_eq!(Rope::new(100.0).frequencies(4), [1.0, 0.1]);
    }
}
