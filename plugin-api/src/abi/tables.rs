//! The function tables that a plugin exports. Append-only: slots are never moved, removed or retyped within a major version.
//!
//! Every slot catches the plugin's panics and returns a [`Status`]. It is called from one thread at a time per instance.

use super::types::*;
use crate::reward::Column;
use abi_stable::{
    StableAbi, declare_root_module_statics,
    library::RootModule,
    package_version_strings,
    sabi_types::VersionStrings,
    std_types::{ROption, RSlice, RStr, RVec},
};

/// An instance behind a pointer whose target type only its plugin has.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instance(pub *mut ());

/// The root of a plugin. Exactly the table of its kind is present.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = PluginRootRef)))]
#[sabi(missing_field(option))]
pub struct PluginRoot {
    /// The table of an objective.
    pub objective: ROption<ObjectiveTableRef>,
    /// The table of a backend.
    pub backend: ROption<BackendTableRef>,
    /// The table of a reward.
    #[sabi(last_prefix_field)]
    pub reward: ROption<RewardTableRef>,
    /// Appended by the next minor, for the test that crosses minors.
    #[cfg(feature = "next-minor")]
    pub appended: u64,
}

impl RootModule for PluginRootRef {
    declare_root_module_statics! {PluginRootRef}
    const BASE_NAME: &'static str = "telos_plugin";
    const NAME: &'static str = "telos_plugin";
    const VERSION_STRINGS: VersionStrings =
        if cfg!(feature = "next-minor") { VersionStrings::new("1.1.0") } else { package_version_strings!() };
}

/// An objective's calls; see [`crate::objective`].
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = ObjectiveTableRef)))]
#[sabi(missing_field(option))]
pub struct ObjectiveTable {
    /// The manifest as JSON.
    pub manifest: extern "C" fn(out: &mut RVec<u8>) -> Status,
    /// Creates an instance from options as JSON.
    pub create: extern "C" fn(options: RSlice<'_, u8>, out: &mut Instance) -> Status,
    /// Destroys an instance.
    pub destroy: extern "C" fn(instance: Instance),
    /// Requirements as JSON.
    pub requirements: extern "C" fn(instance: Instance, out: &mut RVec<u8>) -> Status,
    /// Sequences from rows; `out` stays empty if the host's default applies.
    pub compose: extern "C" fn(
        instance: Instance,
        rows: RSlice<'_, ArrayRef<'_>>,
        seed: u64,
        out: &mut RVec<ArrayOwned>,
    ) -> Status,
    /// Arrays that are added to the batch.
    pub prepare:
        extern "C" fn(instance: Instance, batch: RSlice<'_, ArrayRef<'_>>, out: &mut RVec<ArrayOwned>) -> Status,
    /// Custom normalisers.
    pub weigh: extern "C" fn(instance: Instance, batch: RSlice<'_, ArrayRef<'_>>, out: &mut RVec<ArrayOwned>) -> Status,
    /// Terms, cotangents and metrics.
    pub loss: extern "C" fn(instance: Instance, batch: RSlice<'_, ArrayRef<'_>>, out: &mut RVec<ArrayOwned>) -> Status,
    /// Verdict on the window's terms and metrics.
    pub after_step: extern "C" fn(instance: Instance, metrics: RSlice<'_, ArrayRef<'_>>, out: &mut u32) -> Status,
    /// State as bytes.
    pub state: extern "C" fn(instance: Instance, out: &mut RVec<u8>) -> Status,
    /// State from bytes.
    #[sabi(last_prefix_field)]
    pub restore: extern "C" fn(instance: Instance, state: RSlice<'_, u8>) -> Status,
    /// Appended by the next minor, for the test that crosses minors.
    #[cfg(feature = "next-minor")]
    pub appended: extern "C" fn(instance: Instance) -> u64,
}

/// A backend's calls; see [`crate::backend::Session`].
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = BackendTableRef)))]
#[sabi(missing_field(option))]
pub struct BackendTable {
    /// The manifest as JSON.
    pub manifest: extern "C" fn(out: &mut RVec<u8>) -> Status,
    /// Opens a session with options as JSON.
    pub open: extern "C" fn(options: RSlice<'_, u8>, out: &mut Instance) -> Status,
    /// Closes a session.
    pub close: extern "C" fn(session: Instance),
    /// Runs an operation.
    pub invoke: extern "C" fn(session: Instance, call: &Call<'_>) -> Status,
    /// Allocates a buffer.
    pub alloc: extern "C" fn(session: Instance, dtype: DType, elements: u64, out: &mut Handle) -> Status,
    /// Frees a buffer.
    pub free: extern "C" fn(session: Instance, buffer: Handle) -> Status,
    /// Writes elements.
    pub upload: extern "C" fn(session: Instance, buffer: Handle, offset: u64, bytes: RSlice<'_, u8>) -> Status,
    /// Reads elements into `bytes` of length `length`.
    pub download: extern "C" fn(session: Instance, buffer: Handle, offset: u64, bytes: *mut u8, length: u64) -> Status,
    /// How often the buffer has been written.
    pub write_version: extern "C" fn(session: Instance, buffer: Handle, out: &mut u64) -> Status,
    /// 1 if the operation is supported.
    pub supports: extern "C" fn(session: Instance, op: u32, dtype: DType) -> u32,
    /// Scratch bytes of a call.
    pub workspace: extern "C" fn(session: Instance, call: &Call<'_>) -> u64,
    /// Memory in use and cached.
    pub memory: extern "C" fn(session: Instance) -> Memory,
    /// Frees cached memory.
    pub trim: extern "C" fn(session: Instance),
    /// Waits for all work.
    #[sabi(last_prefix_field)]
    pub sync: extern "C" fn(session: Instance) -> Status,
    /// Appended by the next minor, for the test that crosses minors.
    #[cfg(feature = "next-minor")]
    pub appended: extern "C" fn(session: Instance) -> u64,
}

/// A column of a sample's row.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct ColumnRef<'a> {
    /// Its name.
    pub name: RStr<'a>,
    /// Its text, where `is_text` is 1, or its JSON, where it is 2.
    pub text: RStr<'a>,
    /// Its number, where `is_text` is 0.
    pub number: f64,
    /// Which of the three it is. A plugin skips columns with another value.
    pub is_text: u32,
    /// Always 0.
    pub reserved: u32,
}

impl<'a> ColumnRef<'a> {
    /// Lends a column.
    pub fn new(name: &'a str, value: &'a Column) -> Self {
        let (text, number, is_text) = match value {
            Column::Text(text) => (text.as_str(), 0.0, 1),
            Column::Number(number) => ("", *number, 0),
            Column::Json(text) => (text.as_str(), 0.0, 2),
        };
        Self { name: RStr::from_str(name), text: RStr::from_str(text), number, is_text, reserved: 0 }
    }
}

/// A sample to score.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct SampleRef<'a> {
    /// The prompt.
    pub prompt: RStr<'a>,
    /// The completion.
    pub completion: RStr<'a>,
    /// 1 if the model ended the answer, 0 if it was cut off at the length limit.
    pub ended: u32,
    /// Always 0.
    pub reserved: u32,
    /// The row's other columns.
    pub columns: RSlice<'a, ColumnRef<'a>>,
}

/// A reward's calls; see [`crate::reward`].
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = RewardTableRef)))]
#[sabi(missing_field(option))]
pub struct RewardTable {
    /// The manifest as JSON.
    pub manifest: extern "C" fn(out: &mut RVec<u8>) -> Status,
    /// Creates an instance from options as JSON.
    pub create: extern "C" fn(options: RSlice<'_, u8>, out: &mut Instance) -> Status,
    /// Destroys an instance.
    pub destroy: extern "C" fn(instance: Instance),
    /// One score per sample.
    #[sabi(last_prefix_field)]
    pub score: extern "C" fn(instance: Instance, samples: RSlice<'_, SampleRef<'_>>, out: &mut RVec<f64>) -> Status,
    /// Ratings, as [`super::ratings`] writes them. Plugins built before this slot existed lack it.
    pub rate:
        extern "C" fn(instance: Instance, samples: RSlice<'_, SampleRef<'_>>, out: &mut RVec<ArrayOwned>) -> Status,
    /// Appended by the next minor, for the test that crosses minors.
    #[cfg(feature = "next-minor")]
    pub appended: extern "C" fn(instance: Instance) -> u64,
}
