//! `ID[:DEVICE][@DTYPE][?OPTION=VALUE[&OPTION=VALUE]...]`: names a backend and its changes to `[backend]`.

use std::fmt;

use crate::config::{Override, experiment};

/// The compute types an experiment may name.
const DTYPES: [&str; 3] = ["f32", "bf16", "f64"];

/// A backend to compare, as the command line names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    text: String,
    plugin: String,
    device: Option<String>,
    dtype: Option<String>,
    options: Vec<(String, String)>,
}

impl Spec {
    /// Reads a spec.
    ///
    /// # Errors
    /// A message that names the wrong part.
    pub fn parse(text: &str) -> Result<Spec, String> {
        let text = text.trim();
        let (head, query) = text.split_once('?').map_or((text, None), |(head, query)| (head, Some(query)));
        let (head, dtype) = head.split_once('@').map_or((head, None), |(head, dtype)| (head, Some(dtype)));
        let (plugin, device) = head.split_once(':').map_or((head, None), |(id, device)| (id, Some(device)));
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if plugin.is_empty() || !plugin.chars().all(plain) {
            return Err(format!("\"{plugin}\" is not the id of a backend (ID[:DEVICE][@DTYPE][?OPTION=VALUE&...])"));
        }
        if device.is_some_and(|device| device.trim().is_empty()) {
            return Err("the device after `:` is missing; write for example :cuda:0".into());
        }
        if let Some(dtype) = dtype.filter(|dtype| !DTYPES.contains(dtype)) {
            return Err(format!("\"{dtype}\" after `@` is not a compute type; expected one of {}", DTYPES.join(", ")));
        }
        let mut options: Vec<(String, String)> = Vec::new();
        for option in query.into_iter().flat_map(|query| query.split('&')) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            if name.is_empty() || !name.chars().all(plain) || value.is_empty() {
                return Err(format!(
                    "\"{option}\" is not an option; expected OPTION=VALUE, as in ?path=generic, with `&` between several"
                ));
            }
            if ["plugin", "device", "dtype"].contains(&name) {
                return Err(format!("\"{option}\" is not an option of a backend; write ID[:DEVICE][@DTYPE] for it"));
            }
            if options.iter().any(|(known, _)| known == name) {
                return Err(format!("option \"{name}\" is given twice"));
            }
            options.push((name.into(), value.into()));
        }
        let [device, dtype] = [device, dtype].map(|part| part.map(str::to_owned));
        Ok(Spec { text: text.into(), plugin: plugin.into(), device, dtype, options })
    }

    /// Id of the plugin.
    pub fn plugin(&self) -> &str {
        &self.plugin
    }

    /// The number of threads, if the spec gives it.
    pub fn threads(&self) -> Option<usize> {
        self.options.iter().find(|(name, _)| name == "threads").and_then(|(_, value)| value.parse().ok())
    }

    /// Device and compute type; those that the spec does not give are the experiment's.
    pub fn device_and_dtype(&self, written: &experiment::Backend) -> (String, String) {
        let dtype = || crate::device::open::dtype(written.dtype).to_string();
        (self.device.as_ref().unwrap_or(&written.device).clone(), self.dtype.clone().unwrap_or_else(dtype))
    }

    /// The overrides that turn the experiment's `[backend]` into this one. Device, type and threads that the spec
    /// does not give are the experiment's. So are the options, but only for the experiment's own plugin: another
    /// plugin does not know them.
    pub fn overrides(&self, written: &experiment::Backend) -> Vec<Override> {
        let label = format!("--backends {}", self.text);
        let text = |key: &str, value: &str| Override::text(&label, key, value);
        let mut all = Vec::new();
        if self.plugin != written.plugin {
            all.push(Override::value(&label, "backend", &format!("{{ threads = {} }}", written.threads)));
        }
        let (device, dtype) = self.device_and_dtype(written);
        all.push(text("backend.plugin", &self.plugin));
        all.push(text("backend.device", &device));
        all.push(text("backend.dtype", &dtype));
        all.extend(self.options.iter().map(|(name, value)| Override::value(&label, &format!("backend.{name}"), value)));
        all
    }
}

/// The name of a backend among `specs`: its spec, with a number if an earlier one is equal.
pub fn label(specs: &[Spec], index: usize) -> String {
    let spec = &specs[index];
    match specs[..index].iter().filter(|earlier| *earlier == spec).count() {
        0 => spec.to_string(),
        same => format!("{spec} ({})", same + 1),
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Draft;

    fn resolved(spec: &str, backend: &str) -> (String, String, String, usize, Vec<String>) {
        let text = format!("{backend}\n[data]\nsource = \"synthetic\"\nrows = 10\n[objective]\nplugin = \"ce\"\n");
        let draft = Draft::parse("x.toml", "x", &text, &[]).unwrap();
        let overrides = Spec::parse(spec).unwrap().overrides(draft.backend().unwrap());
        let draft = Draft::parse("x.toml", "x", &text, &overrides).unwrap();
        let found = draft.backend().unwrap();
        let options = draft.plugins()[0].options.names().map(str::to_owned).collect();
        let dtype = crate::device::open::dtype(found.dtype).to_string();
        (found.plugin.clone(), found.device.clone(), dtype, found.threads, options)
    }

    /// Catches parts that are mixed up (a device contains colons), and parts that are dropped.
    #[test]
    fn every_part_reaches_its_key() {
        let (plugin, device, dtype, ..) = resolved("torch:cuda:0@bf16?tf32=true&deterministic=false", "");
        assert_eq!((plugin.as_str(), device.as_str(), dtype.as_str()), ("torch", "cuda:0", "bf16"));
        let options = resolved("torch:cuda:0@bf16?tf32=true&deterministic=false", "").4;
        assert_eq!(options, ["tf32", "deterministic"]);
    }

    /// Catches defaults that ignore the experiment, and options of one plugin that are passed to another.
    #[test]
    fn omitted_parts_come_from_the_experiment() {
        let written = "[backend]\nplugin = \"candle\"\npath = \"generic\"\nthreads = 3\ndtype = \"bf16\"";
        let cpu = |plugin: &str, options: &[&str]| {
            let options = options.iter().map(|o| o.to_string()).collect();
            (plugin.to_owned(), "cpu".to_owned(), "bf16".to_owned(), 3, options)
        };
        assert_eq!(resolved("candle", written), cpu("candle", &["path"]));
        assert_eq!(resolved("torch", written), cpu("torch", &[]));
    }

    /// Catches a message that does not name the wrong part.
    #[test]
    fn a_wrong_part_is_named() {
        for (spec, part) in [
            ("", "not the id"),
            ("can dle", "can dle"),
            (":cpu", "not the id"),
            ("candle:", "after `:`"),
            ("candle@f16", "f16"),
            ("candle@", "after `@`"),
            ("candle?", "not an option"),
            ("candle?path", "\"path\" is not an option"),
            ("candle?path=a&path=b", "twice"),
        ] {
            let message = Spec::parse(spec).unwrap_err();
            assert!(message.contains(part), "{spec}: {message}");
        }
    }
}
