//! Rotary positions in config.json: the keys of transformers 5 (`rope_parameters`) and of earlier versions (`rope_scaling`, and the
//! base and the rotated part beside it).

use serde_json::{Map, Value, json};

use super::keys::Reader;
use super::rope::{LongRope, Rope, Ropes, Scaling, Yarn};
use super::windows::{FULL, MOST_LAYERS, SLIDING};
use crate::error::Result;
use crate::families::family::RopeKeys;

const NEW: &str = "rope_parameters";
const OLD: &str = "rope_scaling";
const SHARE: &str = "partial_rotary_factor";
const ORIGINAL: &str = "original_max_position_embeddings";
const LAYERS: &str = "no_rope_layers";
const INTERVAL: &str = "no_rope_layer_interval";

/// Reads the keys; `context` is the model's context length.
///
/// # Errors
/// A request error that names file, key and value: a type or key that is not implemented, values that contradict each other.
pub(super) fn read(read: &Reader<'_>, keys: &RopeKeys, context: u64, layers: u64) -> Result<Ropes> {
    let object = |key: &str| match read.get(key) {
        None => Ok(None),
        // Null counts as absent.
        Some(Value::Object(map)) => {
            Ok(Some(map.iter().filter(|(_, value)| !value.is_null()).map(|(k, v)| (k.clone(), v.clone())).collect()))
        }
        Some(value) => Err(read.wrong(key, value, "an object or null")),
    };
    let (new, old): (Option<Map<String, Value>>, _) = (object(NEW)?, object(OLD)?);
    let one = Source { read, keys, context };
    let rotated = rotated(read, keys, layers)?;
    let Some(local) = keys.local else {
        let rope = one.rope(new.map(|map| (NEW.to_owned(), map)), old, keys.theta, keys.share)?;
        return Ok(Ropes { all: rope, local: None, rotated });
    };
    let of_kind = |kind: &str| match new.as_ref().and_then(|new| new.get(kind)) {
        None => Ok(None),
        Some(Value::Object(map)) => Ok(Some((format!("{NEW}.{kind}"), map.clone()))),
        Some(value) => Err(read.wrong(&format!("{NEW}.{kind}"), value, "an object or null")),
    };
    let (full, sliding) = (of_kind(FULL)?, of_kind(SLIDING)?);
    if let Some((key, value)) = new.iter().flatten().find(|(key, _)| *key != FULL && *key != SLIDING) {
        let hint = format!("{NEW} has the keys {FULL} and {SLIDING} in this family");
        return Err(read.refuse(&format!("{NEW}.{key}"), value).with_hint(hint));
    }
    let rope = one.rope(full, old, keys.theta, None)?;
    Ok(Ropes { all: rope, local: Some(one.rope(sliding, None, local, None)?), rotated })
}

/// Reads which layers are rotated.
fn rotated(read: &Reader<'_>, keys: &RopeKeys, layers: u64) -> Result<Vec<bool>> {
    // More layers are refused when the config is checked.
    if !keys.skips_layers || layers > MOST_LAYERS {
        return Ok(Vec::new());
    }
    let rotated: Vec<bool> = match read.get(LAYERS) {
        Some(value) => {
            let flag = |flag: &Value| flag.as_u64().filter(|flag| *flag < 2).map(|flag| flag == 1);
            let all: Option<Vec<bool>> = value.as_array().and_then(|list| list.iter().map(flag).collect());
            let expected = format!("1 (rotated) or 0 for each of {layers} layers");
            all.filter(|all| all.len() as u64 == layers).ok_or_else(|| read.wrong(LAYERS, value, &expected))?
        }
        None => match read.optional_size(INTERVAL)? {
            Some(interval) => (1..=layers).map(|layer| !layer.is_multiple_of(interval)).collect(),
            None => absent_layers(keys, layers),
        },
    };
    Ok(if rotated.contains(&false) { rotated } else { Vec::new() })
}

/// Which layers are rotated if config.json does not say; empty if all are.
pub(super) fn absent_layers(keys: &RopeKeys, layers: u64) -> Vec<bool> {
    let rotated: Vec<bool> = (1..=layers).map(|layer| !(keys.skips_layers && layer.is_multiple_of(4))).collect();
    if rotated.contains(&false) { rotated } else { Vec::new() }
}

/// Where one [`Rope`] is read from.
struct Source<'a> {
    read: &'a Reader<'a>,
    keys: &'a RopeKeys,
    context: u64,
}

impl Source<'_> {
    /// Reads one embedding from the objects `new` (with its name) and `old`, and from the keys outside of them, with their defaults.
    fn rope(
        &self,
        new: Option<(String, Map<String, Value>)>,
        old: Option<Map<String, Value>>,
        theta: (&str, f64),
        share: Option<(&str, f64)>,
    ) -> Result<Rope> {
        let read = self.read;
        let mut found: Option<Found> = None;
        for (key, map) in new.into_iter().chain(old.map(|map| (OLD.to_owned(), map))) {
            let own = Table { source: self, key: &key, map: &map }.read()?;
            found = match found {
                Some(first) if !first.agrees(&own) => {
                    return Err(read.wrong(&key, &Value::Object(map), &format!("the same as `{NEW}`")));
                }
                Some(first) => {
                    Some(Found { theta: first.theta.or(own.theta), share: first.share.or(own.share), ..first })
                }
                None => Some(own),
            };
        }
        let inside = found.unwrap_or(Found { theta: None, share: None, scaling: Scaling::Unscaled });
        // A value outside of the objects must not contradict one inside.
        let combined = |key: &str, inside: Option<f64>, default: f64| {
            let outside = read.get(key).map(|_| read.float(key, default)).transpose()?;
            match (inside, outside) {
                (Some(inside), Some(outside)) if inside != outside => {
                    Err(read.wrong(key, &json!(outside), &format!("{inside} as in `{NEW}`")))
                }
                _ => Ok(inside.or(outside).unwrap_or(default)),
            }
        };
        Ok(Rope {
            theta: combined(theta.0, inside.theta, theta.1)?,
            share: match share {
                Some((key, default)) => combined(key, inside.share, default)?,
                None => inside.share.unwrap_or(1.0),
            },
            scaling: inside.scaling,
        })
    }
}

/// What one object gives.
struct Found {
    theta: Option<f64>,
    share: Option<f64>,
    scaling: Scaling,
}

impl Found {
    fn agrees(&self, other: &Found) -> bool {
        let same = |a: Option<f64>, b: Option<f64>| a.zip(b).is_none_or(|(a, b)| a == b);
        self.scaling == other.scaling && same(self.theta, other.theta) && same(self.share, other.share)
    }
}

/// One object of config.json.
struct Table<'a> {
    source: &'a Source<'a>,
    key: &'a str,
    map: &'a Map<String, Value>,
}

impl Table<'_> {
    fn read(&self) -> Result<Found> {
        let (read, keys) = (self.source.read, self.source.keys);
        let name = if self.map.contains_key("rope_type") { "rope_type" } else { "type" };
        let kind = match self.map.get(name) {
            Some(Value::String(kind)) => kind.as_str(),
            Some(value) => return Err(read.wrong(&self.path(name), value, "a string")),
            None => "default",
        };
        if !keys.scalings.contains(&kind) {
            let error = read.refuse(&self.path(name), &json!(kind));
            return Err(error.with_hint(format!("implemented are {}", keys.scalings.join(", "))));
        }
        let (scaling, own): (Scaling, &[&str]) = match kind {
            "linear" => (Scaling::Linear { factor: self.number("factor")? }, &["factor"]),
            "dynamic" => (Scaling::Dynamic { factor: self.number("factor")? }, &["factor"]),
            "llama3" => {
                let scaling = Scaling::Llama3 {
                    factor: self.number("factor")?,
                    low: self.number("low_freq_factor")?,
                    high: self.number("high_freq_factor")?,
                    original: self.original()?,
                };
                (scaling, &["factor", "low_freq_factor", "high_freq_factor", ORIGINAL])
            }
            "yarn" => (Scaling::Yarn(self.yarn()?), YARN),
            "longrope" | "su" => (Scaling::LongRope(self.long_rope()?), LONG),
            _ => (Scaling::Unscaled, &[]),
        };
        for (inner, value) in self.map.iter().filter(|(inner, _)| !own.contains(&inner.as_str())) {
            match inner.as_str() {
                "rope_type" | "type" | "rope_theta" => {}
                SHARE if keys.share.is_some() || value.as_f64() == Some(1.0) => {}
                // The plain frequencies do not read it.
                ORIGINAL if scaling == Scaling::Unscaled && keys.original.is_some() => {}
                _ => return Err(read.refuse(&self.path(inner), value)),
            }
        }
        Ok(Found { theta: self.optional("rope_theta")?, share: self.optional(SHARE)?, scaling })
    }

    fn yarn(&self) -> Result<Yarn> {
        let original = self.original()?;
        let mscale = self.optional("mscale")?.zip(self.optional("mscale_all_dim")?);
        Ok(Yarn {
            factor: self.optional("factor")?.unwrap_or(self.source.context as f64 / original as f64),
            original,
            attention: self.optional("attention_factor")?,
            fast: self.optional("beta_fast")?.unwrap_or(32.0),
            slow: self.optional("beta_slow")?.unwrap_or(1.0),
            // 0 counts as absent.
            mscale: mscale.filter(|(above, below)| *above != 0.0 && *below != 0.0),
            truncate: match self.map.get("truncate") {
                Some(Value::Bool(truncate)) => *truncate,
                Some(value) => return Err(self.source.read.wrong(&self.path("truncate"), value, "true or false")),
                None => true,
            },
        })
    }

    fn long_rope(&self) -> Result<LongRope> {
        Ok(LongRope {
            short: self.numbers("short_factor")?,
            long: self.numbers("long_factor")?,
            factor: self.optional("factor")?,
            attention: self.optional("attention_factor")?,
            original: self.original()?,
            context: self.source.context,
        })
    }

    /// The context length before scaling: a key outside of the object has priority over the one inside.
    fn original(&self) -> Result<u64> {
        let Source { read, keys, context } = self.source;
        if let Some(original) = read.optional_size(ORIGINAL)?.or(keys.original) {
            return Ok(original);
        }
        let Some(value) = self.map.get(ORIGINAL) else { return Ok(*context) };
        let size = value.as_u64().filter(|size| *size > 0);
        size.ok_or_else(|| read.wrong(&self.path(ORIGINAL), value, "an integer from 1"))
    }

    fn number(&self, inner: &str) -> Result<f64> {
        let value = self.map.get(inner).unwrap_or(&Value::Null);
        value.as_f64().ok_or_else(|| self.source.read.wrong(&self.path(inner), value, "a number"))
    }

    fn optional(&self, inner: &str) -> Result<Option<f64>> {
        self.map.contains_key(inner).then(|| self.number(inner)).transpose()
    }

    fn numbers(&self, inner: &str) -> Result<Vec<f64>> {
        let value = self.map.get(inner).unwrap_or(&Value::Null);
        let numbers = value.as_array().and_then(|list| list.iter().map(Value::as_f64).collect());
        numbers.ok_or_else(|| self.source.read.wrong(&self.path(inner), value, "a list of numbers"))
    }

    fn path(&self, inner: &str) -> String {
        format!("{}.{inner}", self.key)
    }
}

/// Keys of YaRN.
const YARN: &[&str] = &[
    "factor",
    ORIGINAL,
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "mscale",
    "mscale_all_dim",
    "truncate",
    // Says how the model was trained; transformers ignores it.
    "finetuned",
];

/// Keys of LongRoPE.
const LONG: &[&str] = &["short_factor", "long_factor", "factor", "attention_factor", ORIGINAL];

/// Adds the keys of both layouts.
pub(super) fn write(ropes: &Ropes, keys: &RopeKeys, layers: u64, put: &mut impl FnMut(&str, Value)) {
    let Ropes { all: rope, local, rotated } = ropes;
    if let Some(scaling) = rope.old() {
        put(OLD, Value::Object(scaling));
    }
    let new = |rope: &Rope| {
        let mut map = rope.parameters();
        map.insert("rope_theta".into(), json!(rope.theta));
        if keys.share.is_some() {
            map.insert(SHARE.into(), json!(rope.share));
        }
        Value::Object(map)
    };
    put(keys.theta.0, json!(rope.theta));
    if let Some((key, _)) = keys.share {
        put(key, json!(rope.share));
    }
    match (local, keys.local) {
        (Some(local), Some((key, _))) => {
            put(key, json!(local.theta));
            put(NEW, json!({FULL: new(rope), SLIDING: new(local)}));
        }
        _ => put(NEW, new(rope)),
    }
    if let (Scaling::LongRope(long), Some(_)) = (&rope.scaling, keys.original) {
        put(ORIGINAL, json!(long.original));
    }
    if keys.skips_layers {
        let rotated = (0..layers as usize).map(|layer| u8::from(rotated.get(layer).copied().unwrap_or(true)));
        put(LAYERS, json!(rotated.collect::<Vec<_>>()));
    }
}

impl Rope {
    /// The scaling in the older layout; `None` without one.
    fn old(&self) -> Option<Map<String, Value>> {
        let mut map = self.parameters();
        if let Scaling::LongRope(_) = self.scaling {
            // Transformers 4 accepts exactly these keys.
            map.retain(|key, _| key != "rope_type" && key != ORIGINAL);
            map.insert("type".into(), json!("longrope"));
        }
        (self.scaling != Scaling::Unscaled).then_some(map)
    }

    /// Type and numbers of the scaling.
    fn parameters(&self) -> Map<String, Value> {
        let pairs = |pairs: &[(&str, Value)]| {
            pairs.iter().filter(|(_, value)| !value.is_null()).map(|(k, v)| ((*k).to_owned(), v.clone())).collect()
        };
        match &self.scaling {
            Scaling::Unscaled => pairs(&[("rope_type", json!("default"))]),
            Scaling::Linear { factor } => pairs(&[("rope_type", json!("linear")), ("factor", json!(factor))]),
            Scaling::Dynamic { factor } => pairs(&[("rope_type", json!("dynamic")), ("factor", json!(factor))]),
            Scaling::Llama3 { factor, low, high, original } => pairs(&[
                ("rope_type", json!("llama3")),
                ("factor", json!(factor)),
                ("low_freq_factor", json!(low)),
                ("high_freq_factor", json!(high)),
                (ORIGINAL, json!(original)),
            ]),
            Scaling::Yarn(yarn) => pairs(&[
                ("rope_type", json!("yarn")),
                ("factor", json!(yarn.factor)),
                (ORIGINAL, json!(yarn.original)),
                ("attention_factor", json!(yarn.attention)),
                ("beta_fast", json!(yarn.fast)),
                ("beta_slow", json!(yarn.slow)),
                ("mscale", json!(yarn.mscale.map(|(above, _)| above))),
                ("mscale_all_dim", json!(yarn.mscale.map(|(_, below)| below))),
                ("truncate", json!(yarn.truncate)),
            ]),
            Scaling::LongRope(long) => pairs(&[
                ("rope_type", json!("longrope")),
                ("short_factor", json!(long.short)),
                ("long_factor", json!(long.long)),
                ("factor", json!(long.factor)),
                ("attention_factor", json!(long.attention)),
                (ORIGINAL, json!(long.original)),
            ]),
        }
    }
}
