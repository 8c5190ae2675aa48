//! `plugins.lock`: the bytes of each plugin that a folder of runs was made with.
//!
//! A plugin is pinned when it is first used. Later, other bytes under the same name stop the run, so that nobody
//! compares two runs that were not made by the same code. It pins identity, not behaviour: a plugin is trusted code.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use plugin_api::{load::PluginInfo, manifest::kind};
use serde::{Deserialize, Deserializer, Serialize, de};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// The file's name.
pub const FILE: &str = "plugins.lock";

/// The file that a process locks while it writes `plugins.lock`.
const ALONE: &str = ".plugins.lock";
const HEADER: &str = "\
# The bytes of the plugins that the runs in this folder were made with. Written by telos; keep it with the runs.
# `telos run --update-lock` accepts changed plugins.
";

/// One pinned plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pin {
    kind: String,
    id: String,
    version: String,
    #[serde(deserialize_with = "sha256")]
    sha256: String,
    /// Whether these bytes are still to be checked against the quick laws.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    unproved: bool,
}

impl Pin {
    /// Whether both pin the same plugin.
    fn is_of(&self, other: &Pin) -> bool {
        (&self.kind, &self.id) == (&other.kind, &other.id)
    }

    fn same(&self, other: &Pin) -> bool {
        (&self.kind, &self.id, &self.version, &self.sha256) == (&other.kind, &other.id, &other.version, &other.sha256)
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    plugin: Vec<Pin>,
}

fn sha256<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<String, D::Error> {
    let text = String::deserialize(from)?;
    if text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return Ok(text);
    }
    Err(de::Error::custom("expected 64 hexadecimal digits"))
}

/// What to do about a plugin whose bytes are not the pinned ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pinning {
    /// Refuse it.
    #[default]
    Strict,
    /// Accept it and pin it instead (`--update-lock`).
    Update,
    /// Accept it and pin nothing, new plugins included: while a plugin is being written (`--dev`).
    Ignore,
}

/// The pinned plugins of a folder of runs.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    pins: Vec<Pin>,
    pinning: Pinning,
    /// What this process pinned and has not written yet.
    pinned: Vec<Pin>,
    /// Pins whose bytes passed the quick laws in this process and are not written yet.
    proved: Vec<Pin>,
    /// Of each plugin that was accepted although another one is pinned, a line.
    unpinned: Vec<String>,
    /// Kind and id of each plugin that was accepted without a pin of its bytes.
    unlisted: Vec<(String, String)>,
}

impl Lock {
    /// Reads the lock of `folder`; one that is not there pins nothing yet.
    ///
    /// # Errors
    /// A request error naming file and line of a damaged lock, or the file that cannot be read.
    pub fn open(folder: &Path, pinning: Pinning) -> Result<Lock> {
        let path = folder.join(FILE);
        let pins = read(&path)?;
        let (pinned, proved, unpinned, unlisted) = Default::default();
        Ok(Lock { path, pins, pinning, pinned, proved, unpinned, unlisted })
    }

    /// What is done about changed plugins.
    pub fn pinning(&self) -> Pinning {
        self.pinning
    }

    /// A line for each plugin that [`Pinning::Ignore`] accepted although other bytes are pinned.
    pub fn unpinned(&self) -> &[String] {
        &self.unpinned
    }

    /// Hashes the plugin's file (do this right before loading it) and compares with what is pinned; pins it where
    /// nothing is. Returns the hash, in lower-case hexadecimal digits.
    ///
    /// # Errors
    /// A request error naming plugin, file, both hashes and the remedy where the bytes changed.
    pub fn verify(&mut self, plugin: &PluginInfo) -> Result<String> {
        let found = Pin {
            kind: plugin.kind.clone(),
            id: plugin.id.clone(),
            version: plugin.version.clone(),
            sha256: sha256_of(&plugin.path)?,
            unproved: plugin.kind == kind::OBJECTIVE,
        };
        let sha256 = found.sha256.clone();
        let pinned = self.pins.iter_mut().find(|pin| pin.kind == found.kind && pin.id == found.id);
        match pinned {
            Some(pin) if pin.same(&found) => return Ok(sha256),
            Some(pin) if pin.sha256 != sha256 && self.pinning == Pinning::Strict => {
                return Err(changed(&self.path, plugin, pin, &found));
            }
            Some(pin) if self.pinning == Pinning::Ignore => {
                let Pin { kind, id, sha256: old, .. } = pin;
                self.unpinned.push(format!("{kind} {id}: pinned sha256 {old}, used {sha256}"));
                self.unlisted.push((found.kind, found.id));
                return Ok(sha256);
            }
            None if self.pinning == Pinning::Ignore => {
                self.unlisted.push((found.kind, found.id));
                return Ok(sha256);
            }
            Some(pin) => *pin = found.clone(),
            None => self.pins.push(found.clone()),
        }
        self.pinned.push(found);
        Ok(sha256)
    }

    /// Whether the bytes of a plugin have not passed the quick laws yet, as far as the lock tells: bytes that it does not pin
    /// have not.
    pub fn is_unproved(&self, kind: &str, id: &str) -> bool {
        self.pins.iter().any(|pin| pin.kind == kind && pin.id == id && pin.unproved)
            || self.unlisted.iter().any(|(own_kind, own_id)| own_kind == kind && own_id == id)
    }

    /// Notes that the pinned bytes of a plugin have passed the quick laws.
    pub fn prove(&mut self, kind: &str, id: &str) {
        if self.unlisted.iter().any(|(own_kind, own_id)| own_kind == kind && own_id == id) {
            // Other bytes than these are pinned.
            return;
        }
        for pin in self.pins.iter_mut().filter(|pin| pin.kind == kind && pin.id == id && pin.unproved) {
            pin.unproved = false;
            self.proved.push(pin.clone());
        }
    }

    /// Writes what this process pinned and proved, in one step, so that no reader sees half of it. The file is read again first, while
    /// no other process writes it: what another one pinned or proved meanwhile stays.
    ///
    /// # Errors
    /// A failed run naming the file that cannot be written; a request error where another process pinned other bytes meanwhile.
    pub fn save(&mut self) -> Result<()> {
        if self.pinned.is_empty() && self.proved.is_empty() {
            return Ok(());
        }
        let failed = |cause: io::Error| Error::run(format!("cannot write {}", self.path.display())).with_cause(cause);
        let folder = self.path.parent().unwrap_or(Path::new("."));
        // Held until the end of this function.
        let _alone = fs::create_dir_all(folder).and_then(|()| alone(&folder.join(ALONE))).map_err(failed)?;
        let mut pins = read(&self.path)?;
        for own in &self.pinned {
            match pins.iter_mut().find(|pin| pin.is_of(own)) {
                Some(pin) if pin.same(own) => {}
                Some(pin) if pin.sha256 != own.sha256 && self.pinning == Pinning::Strict => {
                    return Err(pinned_meanwhile(&self.path, pin, own));
                }
                Some(pin) => *pin = own.clone(),
                None => pins.push(own.clone()),
            }
        }
        for own in &self.proved {
            pins.iter_mut().filter(|pin| pin.same(own)).for_each(|pin| pin.unproved = false);
        }
        pins.sort_by(|a, b| (&a.kind, &a.id).cmp(&(&b.kind, &b.id)));
        let written = toml::to_string(&Written { plugin: pins.clone() });
        let written = written.map_err(|cause| failed(io::Error::other(cause)))?;
        replace(&self.path, &format!("{HEADER}\n{written}")).map_err(failed)?;
        self.pins = pins;
        self.pinned.clear();
        self.proved.clear();
        Ok(())
    }
}

/// Waits until no other process holds the file at `path`, and holds it as long as the returned file is open. The file is opened for
/// writing, which NFS requires of a lock; a file system without locks lets every process through.
fn alone(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    match file.lock() {
        Err(error) if error.kind() != io::ErrorKind::Unsupported => Err(error),
        _ => Ok(file),
    }
}

fn read(path: &Path) -> Result<Vec<Pin>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(cause) => return Err(Error::request(format!("cannot read {}", path.display())).with_cause(cause)),
    };
    toml::from_str::<Written>(&text).map(|written| written.plugin).map_err(|cause| {
        let before = cause.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = 1 + before.matches('\n').count();
        Error::request(format!("{}:{line}: the lock is damaged: {}", path.display(), cause.message()))
            .with_hint("restore the file, or remove it to pin the plugins anew")
    })
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    File::open(folder)?.sync_all()
}

/// The hash of a file, in lower-case hexadecimal digits.
///
/// # Errors
/// A request error naming a file that cannot be read.
pub fn sha256_of(path: &Path) -> Result<String> {
    hash(path).map_err(|cause| Error::request(format!("cannot read {}", path.display())).with_cause(cause))
}

fn hash(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    io::copy(&mut File::open(path)?, &mut hasher)?;
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn pinned_meanwhile(lock: &Path, pin: &Pin, own: &Pin) -> Error {
    let Pin { kind, id, sha256, .. } = pin;
    Error::request(format!("another run pinned other bytes of the {kind} `{id}` in {} meanwhile", lock.display()))
        .with_details([format!("pinned: sha256 {sha256}"), format!("used:   sha256 {}", own.sha256)])
        .with_hint(
            "run with --update-lock to accept this one; runs made before are then not comparable with runs made after",
        )
}

fn changed(lock: &Path, plugin: &PluginInfo, pin: &Pin, found: &Pin) -> Error {
    Error::request(format!("the {} `{}` is not the one pinned in {}", pin.kind, pin.id, lock.display()))
        .with_details([
            format!("pinned: version {}, sha256 {}", pin.version, pin.sha256),
            format!("found:  version {}, sha256 {}", found.version, found.sha256),
            format!("file:   {}", plugin.path.display()),
        ])
        .with_hint("run with --update-lock to accept the new one; runs made before are then not comparable with runs made after. While you \
             write a plugin, run with --dev")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugin(folder: &Path, id: &str, content: &str) -> PluginInfo {
        let path = folder.join(format!("{id}.so"));
        fs::write(&path, content).unwrap();
        PluginInfo {
            id: id.into(),
            kind: "objective".into(),
            version: "1.0.0".into(),
            abi_major: 1,
            abi_minor: 0,
            requires_minor: 0,
            preload: Vec::new(),
            remedy: String::new(),
            path,
        }
    }

    /// Catches a lock that pins nothing, that accepts changed bytes, or whose update is forgotten.
    #[test]
    fn changed_bytes_are_refused_until_the_lock_is_updated() {
        let folder = tempfile::tempdir().unwrap();
        let runs = folder.path().join("runs");
        let ce = plugin(folder.path(), "ce", "abc");
        let mut lock = Lock::open(&runs, Pinning::Strict).unwrap();
        let old = lock.verify(&ce).unwrap();
        assert_eq!(old, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "FIPS 180-2, B.1");
        assert!(!runs.exists(), "nothing is left behind by a run that never starts");
        lock.save().unwrap();

        plugin(folder.path(), "ce", "changed");
        let error = Lock::open(&runs, Pinning::Strict).unwrap().verify(&ce).unwrap_err();
        let report = error.report();
        assert_eq!(error.exit_code(), 2);
        for part in ["`ce`", &old, "ce.so", "--update-lock", "plugins.lock"] {
            assert!(report.contains(part), "{part} is not in {report}");
        }
        let mut lock = Lock::open(&runs, Pinning::Ignore).unwrap();
        let (unknown, pins) = (plugin(folder.path(), "own", "mine"), fs::read(runs.join(FILE)).unwrap());
        assert!(lock.verify(&ce).is_ok() && lock.verify(&unknown).is_ok());
        assert!(matches!(lock.unpinned(), [line] if line.contains("objective ce") && line.contains(&old)));
        lock.save().unwrap();
        assert!(fs::read(runs.join(FILE)).unwrap() == pins, "nothing is pinned while a plugin is being written");
        let mut lock = Lock::open(&runs, Pinning::Update).unwrap();
        let new = lock.verify(&ce).unwrap();
        assert!(report.contains(&new) && new != old);
        lock.save().unwrap();
        assert_eq!(Lock::open(&runs, Pinning::Strict).unwrap().verify(&ce).unwrap(), new);
    }

    /// Catches a pass that is forgotten with the process, one that counts for other bytes, and a lock from before such passes that
    /// asks for them.
    #[test]
    fn new_bytes_are_unproved_until_they_pass() {
        let folder = tempfile::tempdir().unwrap();
        let runs = folder.path().join("runs");
        let ce = plugin(folder.path(), "ce", "abc");
        let open = |update| {
            let mut lock = Lock::open(&runs, update).unwrap();
            lock.verify(&ce).unwrap();
            lock.save().unwrap();
            lock
        };
        assert!(
            open(Pinning::Strict).is_unproved("objective", "ce") && !open(Pinning::Strict).is_unproved("reward", "ce")
        );
        let mut lock = open(Pinning::Strict);
        lock.prove("objective", "ce");
        lock.save().unwrap();
        assert!(!open(Pinning::Strict).is_unproved("objective", "ce"));
        let text = fs::read_to_string(runs.join(FILE)).unwrap();
        assert!(!text.contains("unproved"), "{text}");
        plugin(folder.path(), "ce", "changed");
        assert!(open(Pinning::Update).is_unproved("objective", "ce"));
        // Other bytes pass with --dev: the pinned ones have not passed.
        plugin(folder.path(), "ce", "while it is written");
        let mut lock = open(Pinning::Ignore);
        lock.prove("objective", "ce");
        lock.save().unwrap();
        let text = fs::read_to_string(runs.join(FILE)).unwrap();
        assert!(text.contains("unproved = true"), "{text}");
    }

    /// Catches a save that forgets the plugins another process pinned since the lock was read.
    #[test]
    fn two_processes_pin_into_one_lock() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (plugin(folder.path(), "one", "1"), plugin(folder.path(), "two", "2"));
        let mut first = Lock::open(folder.path(), Pinning::Strict).unwrap();
        let mut second = Lock::open(folder.path(), Pinning::Strict).unwrap();
        first.verify(&one).unwrap();
        second.verify(&two).unwrap();
        first.save().unwrap();
        second.save().unwrap();
        assert_eq!(Lock::open(folder.path(), Pinning::Strict).unwrap().pins.len(), 2);
    }

    /// Catches a save that writes the marks as they were when the lock was read: of two runs that pass the quick laws at once, the
    /// later one would take back the mark of the earlier; and one that pins other bytes over a pin made meanwhile.
    #[test]
    fn two_processes_mark_plugins_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|id| plugin(folder.path(), id, id));
        let open = || {
            let mut lock = Lock::open(folder.path(), Pinning::Strict).unwrap();
            for plugin in [&one, &two] {
                lock.verify(plugin).unwrap();
            }
            lock
        };
        open().save().unwrap();
        let (mut first, mut second) = (open(), open());
        first.prove("objective", "one");
        second.prove("objective", "two");
        first.save().unwrap();
        second.save().unwrap();
        let now = open();
        assert!(!now.is_unproved("objective", "one") && !now.is_unproved("objective", "two"), "{now:?}");
        // A process that proved bytes which another one replaced meanwhile marks nothing.
        let mut late = open();
        let changed = plugin(folder.path(), "one", "changed");
        let mut update = Lock::open(folder.path(), Pinning::Update).unwrap();
        update.verify(&changed).unwrap();
        update.save().unwrap();
        late.proved = late.pins.clone();
        late.save().unwrap();
        assert!(Lock::open(folder.path(), Pinning::Strict).unwrap().is_unproved("objective", "one"));
        // Both pin a new plugin, with other bytes.
        let new = plugin(folder.path(), "new", "a");
        let [mut a, mut b] = [(); 2].map(|()| Lock::open(folder.path(), Pinning::Strict).unwrap());
        a.verify(&new).unwrap();
        b.verify(&plugin(folder.path(), "new", "b")).unwrap();
        a.save().unwrap();
        let why = b.save().unwrap_err();
        assert!(
            why.exit_code() == 2 && why.report().contains("`new`") && why.report().contains("--update-lock"),
            "{}",
            why.report()
        );
    }

    /// Catches a damaged lock that is taken for an empty one, and a report without the line.
    #[test]
    fn a_damaged_lock_names_file_and_line() {
        let folder = tempfile::tempdir().unwrap();
        for (text, line) in [
            ("\n\n[[plugin]\n", 3),
            ("# pins\n[[plugin]]\nkind = \"objective\"\nid = \"ce\"\nversion = \"1\"\nsha256 = \"abc\"\n", 6),
            ("\nplugins = 3\n", 2),
        ] {
            fs::write(folder.path().join(FILE), text).unwrap();
            let error = Lock::open(folder.path(), Pinning::Strict).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.message().contains(&format!("plugins.lock:{line}: ")), "{}", error.message());
        }
    }
}
