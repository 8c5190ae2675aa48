//! The file of a library, read once: the bytes that are scanned, hashed by the host, and opened are the same.
//!
//! On Linux a library is opened from a sealed copy of its bytes in memory. A file that is replaced between hash and opening is
//! therefore not opened, and overwriting it in place during a run changes nothing. A copy has no folder, so the libraries that the
//! plugin finds by `$ORIGIN` are opened first, by their paths. If no such copy can be made (another system, or a system that
//! forbids it), the file is opened by its path, and refused if it is not the one that was read.

use std::{
    fs::{File, Metadata, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};
#[cfg(target_os = "linux")]
use std::{
    os::fd::AsRawFd as _,
    sync::{Mutex, PoisonError},
};

use libloading::os::unix::{Library as Dynamic, RTLD_GLOBAL, RTLD_LOCAL, RTLD_NOW};
use object::read::elf::{Dyn as _, ElfFile, FileHeader};

use super::scan::{PluginInfo, scan_bytes};
use plugin_api::{Code, Error, Result};

/// A library's file as it was read.
#[derive(Debug)]
pub struct LibraryFile {
    path: PathBuf,
    bytes: Vec<u8>,
    identity: Identity,
}

/// The plugins in a file; none for a valid library without plugins.
///
/// # Errors
/// [`Code::LAYOUT`] if the file cannot be read, is not a library, is truncated, or has a damaged header.
pub fn scan(path: &Path) -> Result<Vec<PluginInfo>> {
    LibraryFile::read(path)?.plugins()
}

/// Identifies a file as it was read: the system changes one of these with every write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Identity {
    /// Device.
    pub device: u64,
    /// Inode.
    pub inode: u64,
    /// Length.
    pub size: u64,
    /// When the content changed, in seconds and nanoseconds.
    pub modified: (i64, i64),
    /// When the inode changed, in seconds and nanoseconds.
    pub changed: (i64, i64),
}

impl From<&Metadata> for Identity {
    fn from(of: &Metadata) -> Identity {
        Identity {
            device: of.dev(),
            inode: of.ino(),
            size: of.len(),
            modified: (of.mtime(), of.mtime_nsec()),
            changed: (of.ctime(), of.ctime_nsec()),
        }
    }
}

/// A library that is opened before the plugin's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Companion {
    /// Its path; for a library outside the plugin's folder only its name, which the system's loader searches for.
    pub path: PathBuf,
    /// Whether its symbols are visible to every library opened later.
    pub global: bool,
}

impl LibraryFile {
    /// Reads the file.
    ///
    /// # Errors
    /// [`Code::LAYOUT`] if it is not a regular file, cannot be read, or changes while it is read.
    pub fn read(path: &Path) -> Result<LibraryFile> {
        let refused =
            |why: String| Error::new(Code::LAYOUT, format!("{} is not a whole library: {why}", path.display()));
        let (mut file, identity) = open_regular(path).map_err(|e| refused(e.to_string()))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|e| refused(e.to_string()))?;
        let after = file.metadata().map_err(|e| refused(e.to_string()))?;
        if identity != Identity::from(&after) || bytes.len() as u64 != identity.size {
            return Err(refused("it changed while it was read".into()));
        }
        Ok(LibraryFile { path: path.to_owned(), bytes, identity })
    }

    /// The path it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes that were read.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The plugins in it; none for a valid library without plugins.
    ///
    /// # Errors
    /// [`Code::LAYOUT`] if it is not a library, is truncated, or has a damaged header.
    pub fn plugins(&self) -> Result<Vec<PluginInfo>> {
        scan_bytes(&self.path, &self.bytes)
    }

    /// The libraries to open before the one of `info`, in order: those that its header names, then those that it needs and finds
    /// in its own folder, by a run path with `$ORIGIN`.
    pub fn companions(&self, info: &PluginInfo) -> Vec<Companion> {
        let folder = info.path.parent().unwrap_or(Path::new("."));
        let mut found: Vec<Companion> = Vec::new();
        for wanted in &info.preload {
            // Entries of other kinds are of a later version, for a host that knows them.
            let Some((visibility @ ("local" | "global"), place)) = wanted.split_once(':') else { continue };
            let place = Path::new(place);
            // The system's loader searches for a bare name only.
            let path = Some(folder.join(place)).filter(|path| path.is_file());
            let path = path.unwrap_or_else(|| place.file_name().unwrap_or_default().into());
            found.push(Companion { path, global: visibility == "global" });
        }
        let needed = match object::File::parse(self.bytes.as_slice()) {
            Ok(object::File::Elf64(elf)) => beside(&elf, folder),
            Ok(object::File::Elf32(elf)) => beside(&elf, folder),
            _ => Vec::new(),
        };
        for path in needed {
            if !found.iter().any(|known| known.path == path) {
                found.push(Companion { path, global: false });
            }
        }
        found
    }

    /// Opens the library of `info` until the process ends.
    ///
    /// # Errors
    /// The message of the system's loader; for a library opened before, also its name.
    pub(super) fn open(&self, info: &PluginInfo) -> std::result::Result<&'static Dynamic, String> {
        for Companion { path, global } in self.companions(info) {
            let flags = RTLD_NOW | if global { RTLD_GLOBAL } else { RTLD_LOCAL };
            dynamic(&path, flags).map_err(|e| format!("it needs {}: {e}", path.display()))?;
        }
        // A copy that cannot be opened has not run anything yet: libraries are found and bound before any of their code runs.
        match self.open_copy() {
            Ok(opened) => Ok(opened),
            Err(_) => self.open_by_path(),
        }
    }

    fn open_by_path(&self) -> std::result::Result<&'static Dynamic, String> {
        let is_the_same = || self.path.metadata().is_ok_and(|now| Identity::from(&now) == self.identity);
        let changed = || "it changed after it was read".to_owned();
        if !is_the_same() {
            return Err(changed());
        }
        let opened = dynamic(&self.path, RTLD_NOW | RTLD_LOCAL)?;
        if is_the_same() { Ok(opened) } else { Err(changed()) }
    }

    #[cfg(not(target_os = "linux"))]
    fn open_copy(&self) -> std::result::Result<&'static Dynamic, String> {
        Err("only Linux opens a library from memory".into())
    }

    /// Opens a sealed copy in memory, or reuses an open copy with the same bytes: plugins of one library share it.
    #[cfg(target_os = "linux")]
    fn open_copy(&self) -> std::result::Result<&'static Dynamic, String> {
        let mut copies = COPIES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(copy) = copies.iter().find(|copy| copy.holds(&self.bytes)) {
            return Ok(copy.library);
        }
        let file = sealed_copy(&self.path, &self.bytes).map_err(|e| e.to_string())?;
        let name = format!("/proc/self/fd/{}", file.as_raw_fd());
        let library = dynamic(Path::new(&name), RTLD_NOW | RTLD_LOCAL)?;
        copies.push(Copy { file, library });
        Ok(library)
    }
}

/// An open copy.
#[cfg(target_os = "linux")]
struct Copy {
    /// Stays open as long as the process: the loader identifies the library by the descriptor's name, which no other file must
    /// get.
    file: File,
    library: &'static Dynamic,
}

#[cfg(target_os = "linux")]
impl Copy {
    fn holds(&self, bytes: &[u8]) -> bool {
        use std::os::unix::fs::FileExt as _;
        let same_length = self.file.metadata().is_ok_and(|own| own.len() == bytes.len() as u64);
        let mut own = vec![0; if same_length { bytes.len() } else { 0 }];
        same_length && self.file.read_exact_at(&mut own, 0).is_ok() && own == bytes
    }
}

#[cfg(target_os = "linux")]
static COPIES: Mutex<Vec<Copy>> = Mutex::new(Vec::new());

#[cfg(target_os = "linux")]
fn sealed_copy(path: &Path, bytes: &[u8]) -> io::Result<File> {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
    let name = path.file_name().unwrap_or_default();
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Linux has the flag since 6.3. From then on it may forbid executable memory without the flag.
    let made = memfd_create(name, flags | MemfdFlags::EXEC).or_else(|_| memfd_create(name, flags))?;
    let mut file = File::from(made);
    io::Write::write_all(&mut file, bytes)?;
    fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    Ok(file)
}

/// Opens a regular file, and returns its identity. Does not wait for a pipe, and does not open devices, because that can have
/// effects.
fn open_regular(path: &Path) -> io::Result<(File, Identity)> {
    let regular = |metadata: Metadata| match metadata.is_file() {
        true => Ok(Identity::from(&metadata)),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")),
    };
    regular(path.metadata()?)?;
    let non_blocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let file = OpenOptions::new().read(true).custom_flags(non_blocking).open(path)?;
    let identity = regular(file.metadata()?)?;
    Ok((file, identity))
}

/// Opens a library until the process ends.
fn dynamic(path: &Path, flags: std::ffi::c_int) -> std::result::Result<&'static Dynamic, String> {
    use std::error::Error as _;
    // SAFETY: loading runs the library's initialisers. That is accepted for a trusted plugin, and the caller chose the file. It is
    // never closed, so its code stays mapped as long as the process lives.
    let opened = unsafe { Dynamic::open(Some(path), flags) };
    // The cause names the missing library or symbol.
    opened
        .map(|library| &*Box::leak(Box::new(library)))
        .map_err(|e| e.source().map_or_else(|| e.to_string(), ToString::to_string))
}

/// The libraries in `folder` that a library needs and finds by `$ORIGIN`, if it lies there. Libraries that an earlier part of its
/// run path finds are left to the system's loader.
fn beside<Elf: FileHeader<Endian = object::Endianness>>(elf: &ElfFile<'_, Elf>, folder: &Path) -> Vec<PathBuf> {
    let (endian, sections, data) = (elf.endian(), elf.elf_section_table(), elf.data());
    let Ok(Some((entries, strings))) = sections.dynamic(endian, data) else { return Vec::new() };
    let Ok(strings) = sections.strings(endian, data, strings) else { return Vec::new() };
    let texts = |tag: u32| {
        let of_tag = entries.iter().filter(move |entry| entry.tag32(endian) == Some(tag));
        of_tag.filter_map(|entry| Some(std::str::from_utf8(entry.string(endian, strings).ok()?).ok()?.to_owned()))
    };
    // A run path of the newer kind (DT_RUNPATH) disables the older one (DT_RPATH).
    let run_path = texts(object::elf::DT_RUNPATH).next().or_else(|| texts(object::elf::DT_RPATH).next());
    let Some(run_path) = run_path else { return Vec::new() };
    let first_with = |name: &str| {
        run_path.split(':').find_map(|place| {
            let own = place.strip_prefix("$ORIGIN").or_else(|| place.strip_prefix("${ORIGIN}"));
            let file = match own {
                Some(rest) => folder.join(rest.trim_start_matches('/')),
                None => PathBuf::from(place),
            };
            Some(file.join(name)).filter(|file| file.is_file()).map(|file| own.is_some().then_some(file))
        })
    };
    texts(object::elf::DT_NEEDED).filter_map(|name| first_with(&name).flatten()).collect()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::{fs, process::Command};

    use super::*;

    /// Builds the library `name` with a function `answer` that has the body `body`.
    fn build(folder: &Path, name: &str, body: &str, more: &[&str]) -> PathBuf {
        let (source, library) = (folder.join(format!("{name}.c")), folder.join(name));
        fs::create_dir_all(library.parent().unwrap()).unwrap();
        fs::write(&source, body).unwrap();
        // Creates a new inode, as an installer does.
        _ = fs::remove_file(&library);
        let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).args(more).output();
        let built = built.expect("cc runs");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        library
    }

    fn info(path: &Path) -> PluginInfo {
        PluginInfo {
            id: "one".into(),
            kind: "objective".into(),
            version: "1.0.0".into(),
            abi_major: 1,
            abi_minor: 0,
            requires_minor: 0,
            preload: Vec::new(),
            remedy: String::new(),
            path: path.to_owned(),
        }
    }

    fn answer(library: &Dynamic) -> i32 {
        // SAFETY: the function is in the C source that the test compiled, with this type.
        let function = unsafe { library.get::<unsafe extern "C" fn() -> i32>(b"answer") }.unwrap();
        // SAFETY: as above.
        unsafe { function() }
    }

    /// Catches a need of a later version's kind that is opened as if it were a library.
    #[test]
    fn needs_of_unknown_kinds_are_skipped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lib.so");
        fs::write(&path, "no library").unwrap();
        let preload = ["later:x", "libx.so", "local:liby.so", "global:libz.so"].map(str::to_owned).to_vec();
        let found = LibraryFile::read(&path).unwrap().companions(&PluginInfo { preload, ..info(&path) });
        let found: Vec<_> = found.iter().map(|one| (one.path.to_str().unwrap(), one.global)).collect();
        assert_eq!(found, [("liby.so", false), ("libz.so", true)]);
    }

    /// Catches a library that is opened by its path after its bytes were read: a file that replaced it would run instead, and one
    /// that is overwritten in place would change under a run.
    #[test]
    fn the_bytes_that_were_read_are_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let path = build(folder.path(), "lib.so", "int answer(void) { return 1; }", &[]);
        let first = LibraryFile::read(&path).unwrap();
        build(folder.path(), "lib.so", "int answer(void) { return 2; }", &[]);
        let opened = first.open(&info(&path)).unwrap();
        assert_eq!(answer(opened), 1);
        let second = LibraryFile::read(&path).unwrap();
        let after = second.open(&info(&path)).unwrap();
        assert_eq!((answer(after), answer(opened)), (2, 1));
        let again = LibraryFile::read(&path).unwrap().open(&info(&path)).unwrap();
        assert!(std::ptr::eq(after, again), "plugins of one library share it");
        fs::write(&path, vec![0; second.bytes().len()]).unwrap();
        assert_eq!(answer(after), 2);
    }

    /// Catches a copy in memory, which has no folder, that no longer finds the library in the plugin's folder, and a fallback to
    /// opening the path.
    #[test]
    fn libraries_next_to_a_plugin_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let helper =
            build(folder.path(), "sub/libhelper.so", "int help(void) { return 40; }", &["-Wl,-soname,libhelper.so"]);
        let sub = helper.parent().unwrap().to_str().unwrap();
        let body = "int help(void); int answer(void) { return help() + 2; }";
        let path = build(folder.path(), "lib.so", body, &["-L", sub, "-lhelper", "-Wl,-rpath,/nowhere:$ORIGIN/sub"]);
        let file = LibraryFile::read(&path).unwrap();
        assert_eq!(file.companions(&info(&path)), [Companion { path: helper, global: false }]);
        assert_eq!(answer(file.open(&info(&path)).unwrap()), 42);
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        assert!(!maps.contains(path.to_str().unwrap()), "it was opened by its path");
    }

    /// Catches opening by path that accepts a file other than the one that was read.
    #[test]
    fn a_replaced_file_is_not_opened_by_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = build(folder.path(), "lib.so", "int answer(void) { return 3; }", &[]);
        let file = LibraryFile::read(&path).unwrap();
        assert_eq!(answer(file.open_by_path().unwrap()), 3);
        build(folder.path(), "lib.so", "int answer(void) { return 4; }", &[]);
        assert!(file.open_by_path().unwrap_err().contains("changed"));
    }

    /// Catches waiting for a pipe, and a folder or a dangling link that is refused without a reason.
    #[test]
    fn a_path_that_is_not_a_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe.so");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for path in [&pipe, folder.path(), &folder.path().join("none.so")] {
            let error = LibraryFile::read(path).unwrap_err();
            assert!(error.message.contains(path.to_str().unwrap()), "{error}");
        }
    }
}
