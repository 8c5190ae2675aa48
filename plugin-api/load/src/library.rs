//! Opens a plugin's library and checks its layout. This file, [`plugin_api::abi`] and [`plugin_api::export`] are the only users of
//! `abi_stable`.

use super::answers::{check, from_json};
use super::file::LibraryFile;
use super::scan::PluginInfo;
use crate::{LoadedObjective, LoadedReward, LoadedSession};
use abi_stable::{
    StableAbi,
    abi_stability::abi_checking::check_layout_compatibility,
    library::{AbiHeader, AbiHeaderRef, LibHeader},
    type_layout::{TLFieldOrFunction, TypeLayout},
};
use libloading::os::unix::Library as Dynamic;
use plugin_api::{
    Code, Error, Result,
    abi::{
        RVec,
        header::{ABI_MINOR, ROOT_PREFIX},
        tables::{BackendTableRef, ObjectiveTableRef, PluginRootRef, RewardTableRef},
    },
    backend::SessionOptions,
    manifest::{BackendManifest, ObjectiveManifest, RewardManifest, kind},
    options::OptionMap,
};
use std::cmp::Ordering;

/// A loaded plugin. The library stays open until the process ends.
#[derive(Clone)]
pub struct Library {
    info: PluginInfo,
    root: PluginRootRef,
}

impl Library {
    /// Opens the library of `info` (as [`crate::scan()`] found it), checks its layout and gets its root table.
    ///
    /// Loading runs the library's initialisers: a plugin is fully trusted code.
    ///
    /// # Errors
    /// [`Code::LAYOUT`] naming the file and the mismatch.
    pub fn load(info: &PluginInfo) -> Result<Library> {
        Library::load_from(&LibraryFile::read(&info.path)?, info)
    }

    /// Like [`Library::load`], from a file that was read already: the bytes that were read are the code that runs.
    ///
    /// # Errors
    /// As [`Library::load`].
    pub fn load_from(file: &LibraryFile, info: &PluginInfo) -> Result<Library> {
        info.check_version()?;
        let library = file.open(info).map_err(|e| cannot_open(info, e))?;
        let header = header_of(library, info)?;
        let root = match info.abi_minor.cmp(&ABI_MINOR) {
            Ordering::Less => older(info, header)?,
            Ordering::Equal | Ordering::Greater => same_or_newer(info, header)?,
        };
        let library = Library { info: info.clone(), root };
        library.check_kind()?;
        Ok(library)
    }

    /// Checks that the table of the kind that its header names is present. A kind of a newer minor version has no table here;
    /// using it reports that.
    fn check_kind(&self) -> Result<()> {
        match self.info.kind.as_str() {
            kind::OBJECTIVE => self.objective_table().map(drop),
            kind::BACKEND => self.backend_table().map(drop),
            kind::REWARD => self.reward_table().map(drop),
            _ => Ok(()),
        }
    }

    /// The content of its header.
    pub fn info(&self) -> &PluginInfo {
        &self.info
    }

    /// Returns the value of a slot appended by the next minor version, or `None` if the slot is missing: for the test that crosses
    /// minor versions.
    #[cfg(feature = "next-minor")]
    pub fn appended(&self) -> Option<u64> {
        self.root.appended()
    }

    /// Checks a plugin only with `abi_stable`'s own check: for the test that crosses minor versions.
    ///
    /// # Errors
    /// [`Code::LAYOUT`] if it refuses the plugin.
    #[cfg(feature = "next-minor")]
    pub fn own_check_alone(info: &PluginInfo) -> Result<()> {
        let library = LibraryFile::read(&info.path)?.open(info).map_err(|e| refuse(info, e))?;
        same_or_newer(info, header_of(library, info)?).map(drop)
    }

    fn wrong_kind<T>(&self, wanted: &str) -> Result<T> {
        let Self { info, .. } = self;
        let why = if info.kind == wanted {
            "its header and its function tables contradict each other"
        } else {
            "it was requested as another kind"
        };
        Err(refuse(info, format!("it is of kind {}, expected {wanted}: {why}", info.kind)))
    }

    fn objective_table(&self) -> Result<ObjectiveTableRef> {
        self.root.objective().into_option().map_or_else(|| self.wrong_kind(kind::OBJECTIVE), Ok)
    }

    fn backend_table(&self) -> Result<BackendTableRef> {
        self.root.backend().into_option().map_or_else(|| self.wrong_kind(kind::BACKEND), Ok)
    }

    fn reward_table(&self) -> Result<RewardTableRef> {
        self.root.reward().into_option().map_or_else(|| self.wrong_kind(kind::REWARD), Ok)
    }

    /// An objective's manifest.
    ///
    /// # Errors
    /// Another kind of plugin; the plugin's own.
    pub fn objective_manifest(&self) -> Result<ObjectiveManifest> {
        let mut bytes = RVec::new();
        check((self.objective_table()?.manifest())(&mut bytes))?;
        from_json(&self.info.id, "a manifest", &bytes)
    }

    /// A backend's manifest.
    ///
    /// # Errors
    /// Another kind of plugin; the plugin's own.
    pub fn backend_manifest(&self) -> Result<BackendManifest> {
        let mut bytes = RVec::new();
        check((self.backend_table()?.manifest())(&mut bytes))?;
        from_json(&self.info.id, "a manifest", &bytes)
    }

    /// A reward's manifest.
    ///
    /// # Errors
    /// Another kind of plugin; the plugin's own.
    pub fn reward_manifest(&self) -> Result<RewardManifest> {
        let mut bytes = RVec::new();
        check((self.reward_table()?.manifest())(&mut bytes))?;
        from_json(&self.info.id, "a manifest", &bytes)
    }

    /// An instance of the objective.
    ///
    /// # Errors
    /// Another kind of plugin; the plugin's own, naming the option.
    pub fn objective(&self, options: &OptionMap) -> Result<LoadedObjective> {
        LoadedObjective::create(&self.info.id, self.objective_table()?, options)
    }

    /// A session of the backend.
    ///
    /// # Errors
    /// Another kind of plugin; the plugin's own, naming the device or option.
    pub fn session(&self, options: &SessionOptions) -> Result<LoadedSession> {
        LoadedSession::open(self.backend_table()?, options)
    }

    /// An instance of the reward.
    ///
    /// # Errors
    /// Another kind of plugin; the plugin's own, naming the option.
    pub fn reward(&self, options: &OptionMap) -> Result<LoadedReward> {
        LoadedReward::create(&self.info.id, self.reward_table()?, options)
    }
}

fn refuse(info: &PluginInfo, why: impl std::fmt::Display) -> Error {
    Error::new(Code::LAYOUT, format!("cannot use plugin `{}` from {}: {why}", info.id, info.path.display()))
}

/// The error for a library that cannot be opened, with the remedy from its header.
fn cannot_open(info: &PluginInfo, why: impl std::fmt::Display) -> Error {
    if info.remedy.is_empty() { refuse(info, why) } else { refuse(info, format!("{why}; {}", info.remedy)) }
}

fn header_of(library: &'static Dynamic, info: &PluginInfo) -> Result<&'static LibHeader> {
    let symbol = format!("{ROOT_PREFIX}{}", info.id);
    // SAFETY: a plugin's root symbol is a static `LibHeader`; that it starts with a valid `AbiHeader` is checked below before
    // anything else of it is read.
    let found = unsafe { library.get::<*const AbiHeader>(symbol.as_bytes()) };
    let address: *const AbiHeader = *found.map_err(|e| refuse(info, e))?;
    // SAFETY: the symbol is a static of a library that is never closed, so the reference is valid for 'static.
    let header: &'static AbiHeader =
        unsafe { address.as_ref() }.ok_or_else(|| refuse(info, format!("{symbol} is null")))?;
    if !header.is_valid() {
        return Err(refuse(info, "it was built with another abi_stable"));
    }
    // SAFETY: `AbiHeaderRef` is a transparent wrapper of a reference to an `AbiHeader` at the start of a `LibHeader`; it has no
    // public constructor because the crate's own loader knows one symbol name only.
    let header: AbiHeaderRef = unsafe { std::mem::transmute::<&'static AbiHeader, AbiHeaderRef>(header) };
    header.upgrade().map_err(|e| refuse(info, e))
}

/// The root of a plugin of this minor version or a later one: its tables are at least as long as this host's.
fn same_or_newer(info: &PluginInfo, header: &'static LibHeader) -> Result<PluginRootRef> {
    let plugin = header.layout().ok_or_else(|| refuse(info, "it carries no layout"))?;
    root_of(info, header, <PluginRootRef as StableAbi>::LAYOUT, plugin)
}

/// The root of a plugin of an older minor version: its tables are prefixes of this host's, which `abi_stable`'s own check refuses
/// ("the interface has more fields"). So the check runs with the roles exchanged; accessors of missing slots return `None`.
fn older(info: &PluginInfo, header: &'static LibHeader) -> Result<PluginRootRef> {
    let plugin = header.layout().ok_or_else(|| refuse(info, "it carries no layout"))?;
    root_of(info, header, plugin, <PluginRootRef as StableAbi>::LAYOUT)
}

/// The root, after checking that every field of `shorter` is at the same place in `longer`.
fn root_of(
    info: &PluginInfo,
    header: &'static LibHeader,
    shorter: &'static TypeLayout,
    longer: &'static TypeLayout,
) -> Result<PluginRootRef> {
    check_layout_compatibility(shorter, longer).map_err(|e| {
        let why = e.errors.iter().max_by_key(|e| e.stack_trace.len()).map(|e| {
            let place = e.stack_trace.iter().filter_map(|frame| name_of(&frame.found)).collect::<Vec<_>>();
            shortened(&place.join("."), &e.to_string())
        });
        refuse(info, why.unwrap_or_else(|| "its layout is another".to_owned()))
    })?;
    // SAFETY: the check above ensures that every field present on both sides is at the same place and of the same type.
    unsafe { header.init_root_module_with_unchecked_layout::<PluginRootRef>() }.map_err(|e| refuse(info, e))
}

fn name_of(frame: &TLFieldOrFunction) -> Option<String> {
    match frame {
        TLFieldOrFunction::Field(field) => Some(format!("{} ({})", field.name(), field.layout().name())),
        TLFieldOrFunction::Function(_) => None,
    }
}

/// Shortens `abi_stable`'s report, which prints both layouts in full.
fn shortened(place: &str, report: &str) -> String {
    let errors = report.split("\nError:").skip(1);
    let errors = errors.map(|e| e.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>();
    format!(
        "the layout of what crosses is another at {place}: {}; build it again with this host's plugin-api",
        errors.join("; ")
    )
}
