//! The place of a plugin that the parent found, so that the child opens the same bytes.

use plugin_api_load::{Library, LibraryFile, PluginInfo};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::runs::disk::hex;

/// The place of a plugin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Place {
    file: std::path::PathBuf,
    kind: String,
    id: String,
    /// sha256 of the file, which the parent reports.
    sha256: String,
}

impl Place {
    /// The place of a plugin that was found.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn of(info: &PluginInfo) -> Result<Place> {
        let sha256 = hex(&Sha256::digest(LibraryFile::read(&info.path)?.bytes()));
        Ok(Place { file: info.path.clone(), kind: info.kind.clone(), id: info.id.clone(), sha256 })
    }

    /// sha256 of the file.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Opens the library.
    ///
    /// # Errors
    /// The file is not the one that the parent read, or does not load.
    pub fn load(&self) -> Result<Library> {
        let file = LibraryFile::read(&self.file)?;
        if hex(&Sha256::digest(file.bytes())) != self.sha256 {
            let message = format!("{} changed while `{}` was verified", self.file.display(), self.id);
            return Err(Error::run(message).with_hint("verify it again when the file is no longer being replaced"));
        }
        let info = file.plugins()?.into_iter().find(|info| info.kind == self.kind && info.id == self.id);
        let info = info.ok_or_else(|| {
            Error::run(format!("{} no longer contains the plugin `{}`", self.file.display(), self.id))
        })?;
        Ok(Library::load_from(&file, &info)?)
    }
}
