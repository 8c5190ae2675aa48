//! The header that every plugin carries as inline bytes, so that a host can identify a library without running it.
//!
//! The symbol is `telos_plugin_<id>`; a library may carry several. Text is UTF-8, padded with zeros, and not a pointer: the loader
//! fills in pointers, so that one would read as zeros in the file.

/// Prefix of the header's symbol.
pub const HEADER_PREFIX: &str = "telos_plugin_";
/// Prefix of the root table's symbol.
pub const ROOT_PREFIX: &str = "telos_root_";
/// First bytes of every header.
pub const MAGIC: [u8; 16] = *b"telos plugin\0\0\0\x01";
/// Major version of the contract: versions with different majors are incompatible.
pub const ABI_MAJOR: u32 = 1;
/// Minor version of the contract: incremented when slots, operations or codes are appended.
pub const ABI_MINOR: u32 = if cfg!(feature = "next-minor") { 1 } else { 0 };

/// A plugin's header.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PluginHeader {
    /// [`MAGIC`].
    pub magic: [u8; 16],
    /// Size of this struct; a newer minor may append fields.
    pub bytes: u32,
    /// Contract major the plugin was built with.
    pub abi_major: u32,
    /// Contract minor the plugin was built with.
    pub abi_minor: u32,
    /// The smallest minor version of a host that it works with.
    pub requires_minor: u32,
    /// One of [`crate::manifest::kind`].
    pub kind: [u8; 32],
    /// Its id.
    pub id: [u8; 64],
    /// Its own version.
    pub version: [u8; 32],
    /// What the library needs, separated by `;`: libraries that the host opens first, each with its visibility, `global` or `local`,
    /// and its path relative to this one's folder (`global:libtorch/lib/libc10.so`; if it is not there, the system searches for its
    /// name), and `remedy:TEXT`, the advice to the user if they or this library cannot be opened. A host ignores entries that begin
    /// otherwise.
    pub preload: [u8; 256],
}

/// Size of [`PluginHeader`].
pub const HEADER_BYTES: usize = size_of::<PluginHeader>();

/// Copies `text` into zero-padded bytes; fails to compile (or panics) if it is too long.
pub const fn padded<const N: usize>(text: &str) -> [u8; N] {
    let bytes = text.as_bytes();
    assert!(bytes.len() < N, "text of a plugin header is too long");
    let mut out = [0; N];
    let mut i = 0;
    while i < bytes.len() {
        out[i] = bytes[i];
        i += 1;
    }
    out
}

/// Whether a plugin may have this id: ASCII letters, digits, `-` and `_`, at least one of them. It is a part of symbols, of the
/// names of metrics and arrays, and of the keys of messages.
pub const fn is_plugin_id(id: &str) -> bool {
    let (bytes, mut i) = (id.as_bytes(), 0);
    while i < bytes.len() {
        if !(bytes[i].is_ascii_alphanumeric() || bytes[i] == b'-' || bytes[i] == b'_') {
            return false;
        }
        i += 1;
    }
    !bytes.is_empty()
}

impl PluginHeader {
    /// A header of this contract's version. Fails to compile (or panics) for an id that [`is_plugin_id`] refuses.
    pub const fn new(kind: &str, id: &str, version: &str, preload: &str) -> Self {
        assert!(is_plugin_id(id), "the id of a plugin consists of letters, digits, - and _");
        PluginHeader {
            magic: MAGIC,
            bytes: HEADER_BYTES as u32,
            abi_major: ABI_MAJOR,
            abi_minor: ABI_MINOR,
            requires_minor: 0,
            kind: padded(kind),
            id: padded(id),
            version: padded(version),
            preload: padded(preload),
        }
    }
}
