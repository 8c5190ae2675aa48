//! Reads plugin headers from a library file; executes nothing.

use object::{Object, ObjectSection, ObjectSegment, ObjectSymbol};
use plugin_api::{
    Code, Error, Result,
    abi::header::{ABI_MAJOR, ABI_MINOR, HEADER_BYTES, HEADER_PREFIX, MAGIC, PluginHeader, is_plugin_id},
};
use std::{
    mem::offset_of,
    path::{Path, PathBuf},
};

/// The content of a library's header for one plugin.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PluginInfo {
    /// The plugin's id.
    pub id: String,
    /// One of [`plugin_api::manifest::kind`].
    pub kind: String,
    /// Its own version.
    pub version: String,
    /// Contract major it was built with.
    pub abi_major: u32,
    /// Contract minor it was built with.
    pub abi_minor: u32,
    /// The smallest minor version of a host that it works with.
    pub requires_minor: u32,
    /// Libraries to open first, as in [`PluginHeader::preload`].
    pub preload: Vec<String>,
    /// What to do if the library or one of those cannot be opened; empty if the header does not say.
    pub remedy: String,
    /// The file.
    pub path: PathBuf,
}

/// Prefix of a remedy among the libraries to open first.
const REMEDY: &str = "remedy:";

fn broken(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::new(Code::LAYOUT, format!("{} is not a whole library: {why}", path.display()))
}

/// The plugins in the bytes of the file at `path`.
pub(super) fn scan_bytes(path: &Path, bytes: &[u8]) -> Result<Vec<PluginInfo>> {
    let file = object::File::parse(bytes).map_err(|e| broken(path, e))?;
    // A truncated library would crash the process when the loader touches the missing pages.
    for segment in file.segments() {
        let (offset, size) = segment.file_range();
        if offset.checked_add(size).is_none_or(|end| end > bytes.len() as u64) {
            return Err(broken(path, format!("it ends after {} bytes, before its last segment", bytes.len())));
        }
    }
    let mut found = Vec::new();
    for symbol in file.dynamic_symbols().chain(file.symbols()) {
        // Mach-O puts an underscore before every symbol.
        let Ok(name) = symbol.name().map(|n| n.strip_prefix('_').unwrap_or(n)) else { continue };
        if symbol.is_undefined() || !name.starts_with(HEADER_PREFIX) {
            continue;
        }
        let section = symbol.section_index().and_then(|i| file.section_by_index(i).ok());
        let data = section.and_then(|s| s.data_range(symbol.address(), HEADER_BYTES as u64).ok().flatten());
        let data = data.ok_or_else(|| broken(path, format!("the header {name} is empty")))?;
        let info = read_header(path, data)?;
        if !found.iter().any(|other: &PluginInfo| other.id == info.id && other.kind == info.kind) {
            found.push(info);
        }
    }
    found.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(found)
}

fn read_header(path: &Path, data: &[u8]) -> Result<PluginInfo> {
    let text = |offset: usize, length: usize| -> Result<String> {
        let field = data.get(offset..offset + length).unwrap_or_default();
        let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
        String::from_utf8(field[..end].to_vec()).map_err(|_| broken(path, "its plugin header is not UTF-8"))
    };
    let number =
        |offset: usize| data.get(offset..offset + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
    if data.get(..MAGIC.len()) != Some(&MAGIC[..]) {
        return Err(broken(path, "its plugin header does not begin as it should"));
    }
    let id = text(offset_of!(PluginHeader, id), 64)?;
    if !is_plugin_id(&id) {
        return Err(broken(path, format!("it holds a plugin with the id {id:?}, expected letters, digits, - and _")));
    }
    let needs = text(offset_of!(PluginHeader, preload), 256)?;
    let (remedies, preload): (Vec<&str>, Vec<&str>) =
        needs.split(';').filter(|p| !p.is_empty()).partition(|p| p.starts_with(REMEDY));
    Ok(PluginInfo {
        id,
        kind: text(offset_of!(PluginHeader, kind), 32)?,
        version: text(offset_of!(PluginHeader, version), 32)?,
        abi_major: number(offset_of!(PluginHeader, abi_major)),
        abi_minor: number(offset_of!(PluginHeader, abi_minor)),
        requires_minor: number(offset_of!(PluginHeader, requires_minor)),
        preload: preload.into_iter().map(str::to_owned).collect(),
        remedy: remedies.first().map(|r| r[REMEDY.len()..].to_owned()).unwrap_or_default(),
        path: path.to_owned(),
    })
}

impl PluginInfo {
    /// Checks that this host supports the plugin's version of the contract.
    ///
    /// # Errors
    /// [`Code::LAYOUT`] naming both versions and the remedy.
    pub fn check_version(&self) -> Result<()> {
        let wanted = format!("{}.{}", self.abi_major, self.abi_minor);
        let remedy = if self.abi_major > ABI_MAJOR || self.requires_minor > ABI_MINOR {
            "update telos, or use an older build of the plugin"
        } else if self.abi_major < ABI_MAJOR {
            "rebuild the plugin with this host's plugin-api"
        } else {
            return Ok(());
        };
        Err(Error::new(
            Code::LAYOUT,
            format!(
                "plugin `{}` ({}) uses contract {wanted} and needs a host of {}.{} or later; this host uses \
                 {ABI_MAJOR}.{ABI_MINOR}: {remedy}",
                self.id,
                self.path.display(),
                self.abi_major,
                self.requires_minor
            ),
        ))
    }
}
