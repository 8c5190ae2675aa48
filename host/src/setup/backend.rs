//! Opens the experiment's backend.

use plugin_api::{
    backend::{Session, SessionOptions},
    manifest::DeviceSpec,
};

use super::Setup;
use crate::{
    config::Mistakes,
    device::{
        Device,
        open::{dtype, open, threads},
        profile::Record,
    },
    error::{Result, refusal_text},
    plugins::libraries,
    runs::breadcrumb,
};

impl Setup {
    /// Opens the backend's session; with `profile`, every operation is timed.
    ///
    /// # Errors
    /// A request error for a device that is not available.
    pub fn device(&self, profile: bool) -> Result<(Device, Option<Record>)> {
        let before = libraries::mapped();
        let opened = open(&self.backend.0, &self.session_options(1), dtype(self.experiment().backend.dtype), profile);
        libraries::note_mapped(self.backend.0.info(), &before, &libraries::mapped());
        opened.map_err(|e| self.loaded.refuse("backend.device", refusal_text(&e)))
    }

    /// As [`Setup::device`], without a profile; mistakes are collected. `None` if there are any about the backend.
    ///
    /// # Errors
    /// Failures that are not mistakes.
    pub fn device_or_mistakes(&self, mistakes: &mut Mistakes) -> Result<Option<Device>> {
        if !mistakes.are_free(&["backend"]) {
            return Ok(None);
        }
        Ok(mistakes.check("backend.device", self.device(false))?.map(|(device, _)| device))
    }

    /// Opens a session of the backend whose handles carry `tag`, to be wrapped in layers.
    ///
    /// # Errors
    /// A request error for a device that is not available.
    pub fn session(&self, tag: u16) -> Result<Box<dyn Session>> {
        let options = self.session_options(tag);
        let session = breadcrumb::within(&self.backend.0.info().id, "session", || self.backend.0.session(&options));
        let session = session.map_err(|e| self.loaded.refuse("backend.device", e.to_string()))?;
        Ok(Box::new(session))
    }

    /// Pins the libraries that the backend loaded when its session opened.
    ///
    /// # Errors
    /// A request error if a library changed.
    pub fn pin_opened(&mut self) -> Result<()> {
        let Some(used) = self.plugins.first_mut() else { return Ok(()) };
        let known = used.libraries.get_or_insert_default();
        libraries::add_opened(self.backend.0.info(), &mut self.lock, known)
    }

    /// The instruction set that the backend computes with, by the backend's name for it; `None` if the backend has no choice.
    pub fn instruction_set(&self) -> Option<String> {
        let chosen = self.experiment().backend.options.get("isa").and_then(|isa| isa.as_str());
        let own = chosen.filter(|isa| *isa != "auto").or(self.device_spec().map(|own| own.instruction_set.as_str()));
        own.filter(|isa| !isa.is_empty()).map(str::to_owned)
    }

    /// Whether another number of threads may give different bits, because the backend does not promise the same.
    pub fn threads_matter(&self) -> bool {
        !self.device_spec().is_some_and(|device| device.same_with_any_threads)
    }

    /// Returns the backend manifest's entry for the experiment's device.
    fn device_spec(&self) -> Option<&DeviceSpec> {
        let name = self.experiment().backend.device.split(':').next().unwrap_or_default();
        self.backend.1.devices.iter().find(|device| device.name == name)
    }

    fn session_options(&self, tag: u16) -> SessionOptions {
        let wanted = &self.experiment().backend;
        let threads = threads(wanted.threads);
        SessionOptions { device: wanted.device.clone(), threads, tag, options: wanted.options.clone() }
    }
}
