//! Limits the size that a compressed file may unpack to, and that a file may have if it is read whole.

use std::path::Path;

use super::refusal::refuse;
use crate::capacity;
use crate::data::error::DataError;

/// The error for a file that unpacks to more than `most` bytes, which is half of the available memory.
pub(super) fn too_large(path: &Path, most: u64) -> DataError {
    let (most, available) = (capacity::shown(most), capacity::shown(most.saturating_mul(2)));
    let what =
        format!("a compressed file that unpacks to more than {most}, half of the {available} of available memory");
    refuse(path, &what, "use fewer files, or a machine with more memory")
}

/// The error for `what` that takes more than `most` bytes, which is half of the available memory.
pub(in crate::data) fn too_large_whole(path: &Path, what: &str, most: u64, remedy: &str) -> DataError {
    let (most, available) = (capacity::shown(most), capacity::shown(most.saturating_mul(2)));
    refuse(path, &format!("{what} of more than {most}, half of the {available} of available memory"), remedy)
}

/// The most bytes that a compressed file may unpack to, because a few compressed bytes can unpack to any number.
/// The other half of the memory is for what is computed from these bytes.
pub(in crate::data) fn most_unpacked() -> u64 {
    capacity::available().map_or(u64::MAX, |bytes| bytes / 2)
}
