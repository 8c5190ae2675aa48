//! The file `plugins.lock`: its format, and the check that it is complete and unchanged.
//!
//! The file begins with the number of pins and ends with a hash of everything above it, so that a truncated or edited
//! file is recognized. Older files have neither.

use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize, de};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::files;
use crate::runs::{
    disk::{hex, write_durably},
    receipt::LibraryUse,
};

const HEADER: &str = "\
# The bytes of the plugins that the runs in this folder were made with. Written by telos; keep it with the runs.
# `telos run --update-lock` accepts changed plugins.
";
/// Start of the file's last table.
const SEAL: &str = "\n[seal]\n";

/// One pinned plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pin {
    pub(super) kind: String,
    pub(super) id: String,
    pub(super) version: String,
    #[serde(deserialize_with = "sha256")]
    pub(super) sha256: String,
    /// Whether these bytes have not passed the quick laws yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) unproved: bool,
    /// The libraries that it loads.
    #[serde(default, skip_serializing_if = "Vec::is_empty", rename = "library")]
    pub(super) libraries: Vec<LibraryUse>,
}

impl Pin {
    /// Whether both pin the same plugin.
    pub(super) fn is_of(&self, other: &Pin) -> bool {
        (&self.kind, &self.id) == (&other.kind, &other.id)
    }

    /// Whether both pin the same version and bytes of the plugin.
    pub(super) fn same(&self, other: &Pin) -> bool {
        (&self.kind, &self.id, &self.version, &self.sha256) == (&other.kind, &other.id, &other.version, &other.sha256)
    }

    /// The library pinned under this name.
    pub(super) fn library(&mut self, name: &str) -> Option<&mut LibraryUse> {
        self.libraries.iter_mut().find(|library| library.name == name)
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    /// The number of pins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pins: Option<usize>,
    #[serde(default)]
    plugin: Vec<Pin>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seal: Option<Seal>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seal {
    /// Hash of all bytes of the file above this table.
    #[serde(deserialize_with = "sha256")]
    sha256: String,
}

fn sha256<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<String, D::Error> {
    let text = String::deserialize(from)?;
    if text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return Ok(text);
    }
    Err(de::Error::custom("expected 64 hexadecimal digits"))
}

fn hash(text: &str) -> String {
    hex(&Sha256::digest(text))
}

/// Returns the pins in the file at `path`; none if the file is missing, or is damaged and is to be replaced.
///
/// # Errors
/// A request error with file and line if the file is damaged, or with the file if it cannot be read.
pub(super) fn read(path: &Path, replaces_damaged: bool) -> Result<Vec<Pin>> {
    let bytes = match files::read(path) {
        Ok(bytes) => bytes,
        Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(cause) => return Err(Error::request(format!("cannot read {}", path.display())).with_cause(cause)),
    };
    match parse(path, &bytes) {
        Err(_) if replaces_damaged => Ok(Vec::new()),
        parsed => parsed,
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Vec<Pin>> {
    let Ok(text) = std::str::from_utf8(bytes) else { return Err(damaged(path, 1, "it is not UTF-8 text")) };
    let written = toml::from_str::<Written>(text).map_err(|cause| {
        let before = cause.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        damaged(path, 1 + before.matches('\n').count(), cause.message())
    })?;
    let end = text.lines().count().max(1);
    match &written {
        Written { plugin, .. } if plugin.is_empty() => Err(damaged(path, end, "it contains no pins")),
        // Written before the seal was introduced.
        Written { pins: None, seal: None, plugin } => Ok(plugin.clone()),
        Written { pins: Some(pins), seal: Some(seal), plugin } if *pins == plugin.len() => {
            let sealed = text.rfind(SEAL).and_then(|at| text.get(..at));
            match sealed.is_some_and(|sealed| hash(sealed) == seal.sha256) {
                true => Ok(plugin.clone()),
                false => {
                    Err(damaged(path, end, "its content does not match its seal: it was changed after telos wrote it"))
                }
            }
        }
        _ => Err(damaged(path, end, "a part of it is missing")),
    }
}

fn damaged(path: &Path, line: usize, why: &str) -> Error {
    Error::request(format!("{}:{line}: the lock is damaged: {why}", path.display())).with_hint(
        "restore the file from a copy, or run with --update-lock to pin the current plugins; it is then not known whether \
         earlier runs used the same plugins",
    )
}

/// Replaces the file with these pins, by one rename.
///
/// # Errors
/// The path and the system's error.
pub(super) fn write(path: &Path, pins: &[Pin]) -> Result<()> {
    let written = Written { pins: Some(pins.len()), plugin: pins.to_vec(), seal: None };
    let failed = |cause| Error::run(format!("cannot write {}", path.display())).with_cause(cause);
    let text = format!("{HEADER}\n{}", toml::to_string(&written).map_err(failed)?);
    write_durably(path, format!("{text}{SEAL}sha256 = \"{}\"\n", hash(&text)).as_bytes())
}
