use std::fs;

use super::super::example;
use super::*;

/// The plugin's file as it is now.
fn file(plugin: &PluginInfo) -> LibraryFile {
    LibraryFile::read(&plugin.path).unwrap()
}

fn plugin(folder: &Path, id: &str, content: &str) -> PluginInfo {
    let path = folder.join(format!("{id}.so"));
    fs::write(&path, content).unwrap();
    example("objective", id, &path)
}

/// Catches a lock that pins nothing, that accepts changed bytes, or whose update is lost.
#[test]
fn changed_bytes_are_refused_until_the_lock_is_updated() {
    let folder = tempfile::tempdir().unwrap();
    let runs = folder.path().join("runs");
    let ce = plugin(folder.path(), "ce", "abc");
    let mut lock = Lock::open(&runs, Pinning::Strict).unwrap();
    let old = lock.verify(&ce, &file(&ce)).unwrap();
    assert_eq!(old, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "FIPS 180-2, B.1");
    assert!(!runs.exists(), "nothing is left behind by a run that never starts");
    lock.save().unwrap();

    plugin(folder.path(), "ce", "changed");
    let error = Lock::open(&runs, Pinning::Strict).unwrap().verify(&ce, &file(&ce)).unwrap_err();
    let report = error.report();
    assert_eq!(error.exit_code(), 2);
    for part in ["`ce`", &old, "ce.so", "--update-lock", "plugins.lock"] {
        assert!(report.contains(part), "{part} is not in {report}");
    }
    let mut lock = Lock::open(&runs, Pinning::Ignore).unwrap();
    let (unknown, pins) = (plugin(folder.path(), "own", "mine"), fs::read(runs.join(FILE)).unwrap());
    assert!(lock.verify(&ce, &file(&ce)).is_ok() && lock.verify(&unknown, &file(&unknown)).is_ok());
    assert!(matches!(lock.unpinned(), [line] if line.contains("objective ce") && line.contains(&old)));
    lock.save().unwrap();
    assert!(fs::read(runs.join(FILE)).unwrap() == pins, "nothing is pinned while a plugin is being written");
    let mut lock = Lock::open(&runs, Pinning::Update).unwrap();
    let new = lock.verify(&ce, &file(&ce)).unwrap();
    assert!(report.contains(&new) && new != old);
    lock.save().unwrap();
    assert_eq!(Lock::open(&runs, Pinning::Strict).unwrap().verify(&ce, &file(&ce)).unwrap(), new);
}

/// Catches a pass that is lost when the process ends, one that counts for other bytes, and a lock written before
/// passes were recorded that requires them.
#[test]
fn new_bytes_are_unproved_until_they_pass() {
    let folder = tempfile::tempdir().unwrap();
    let runs = folder.path().join("runs");
    let ce = plugin(folder.path(), "ce", "abc");
    let open = |update| {
        let mut lock = Lock::open(&runs, update).unwrap();
        lock.verify(&ce, &file(&ce)).unwrap();
        lock.save().unwrap();
        lock
    };
    assert!(open(Pinning::Strict).is_unproved("objective", "ce") && !open(Pinning::Strict).is_unproved("reward", "ce"));
    let mut lock = open(Pinning::Strict);
    lock.prove("objective", "ce");
    lock.save().unwrap();
    assert!(!open(Pinning::Strict).is_unproved("objective", "ce"));
    let text = fs::read_to_string(runs.join(FILE)).unwrap();
    assert!(!text.contains("unproved"), "{text}");
    plugin(folder.path(), "ce", "changed");
    assert!(open(Pinning::Update).is_unproved("objective", "ce"));
    // Different bytes pass with --dev: the pinned ones have not passed.
    plugin(folder.path(), "ce", "while it is written");
    let mut lock = open(Pinning::Ignore);
    lock.prove("objective", "ce");
    lock.save().unwrap();
    let text = fs::read_to_string(runs.join(FILE)).unwrap();
    assert!(text.contains("unproved = true"), "{text}");
}

/// Catches a save that drops the plugins another process pinned since the lock was read.
#[test]
fn two_processes_pin_into_one_lock() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (plugin(folder.path(), "one", "1"), plugin(folder.path(), "two", "2"));
    let mut first = Lock::open(folder.path(), Pinning::Strict).unwrap();
    let mut second = Lock::open(folder.path(), Pinning::Strict).unwrap();
    first.verify(&one, &file(&one)).unwrap();
    second.verify(&two, &file(&two)).unwrap();
    first.save().unwrap();
    second.save().unwrap();
    assert_eq!(Lock::open(folder.path(), Pinning::Strict).unwrap().pins.len(), 2);
}

/// Catches a save that writes the marks as they were when the lock was read (of two runs that pass the quick laws
/// at once, the later one would remove the mark of the earlier), and one that pins other bytes over a pin made
/// meanwhile.
#[test]
fn two_processes_mark_plugins_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let [one, two] = ["one", "two"].map(|id| plugin(folder.path(), id, id));
    let open = || {
        let mut lock = Lock::open(folder.path(), Pinning::Strict).unwrap();
        for plugin in [&one, &two] {
            lock.verify(plugin, &file(plugin)).unwrap();
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
    // A process that proved bytes which another one has replaced meanwhile marks nothing.
    let mut late = open();
    let changed = plugin(folder.path(), "one", "changed");
    let mut update = Lock::open(folder.path(), Pinning::Update).unwrap();
    update.verify(&changed, &file(&changed)).unwrap();
    update.save().unwrap();
    late.proved = late.pins.clone();
    late.save().unwrap();
    assert!(Lock::open(folder.path(), Pinning::Strict).unwrap().is_unproved("objective", "one"));
    // Both pin a new plugin, with different bytes.
    let new = plugin(folder.path(), "new", "a");
    let [mut a, mut b] = [(); 2].map(|()| Lock::open(folder.path(), Pinning::Strict).unwrap());
    a.verify(&new, &file(&new)).unwrap();
    let other = plugin(folder.path(), "new", "b");
    b.verify(&other, &file(&other)).unwrap();
    a.save().unwrap();
    let why = b.save().unwrap_err();
    assert!(
        why.exit_code() == 2 && why.report().contains("`new`") && why.report().contains("--update-lock"),
        "{}",
        why.report()
    );
}

/// Catches a damaged lock that is treated as an empty one, and a report without the line number.
#[test]
fn a_damaged_lock_names_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    for (text, line) in [
        ("\n\n[[plugin]\n", 3),
        ("# pins\n[[plugin]]\nkind = \"objective\"\nid = \"ce\"\nversion = \"1\"\nsha256 = \"abc\"\n", 6),
        ("\nplugins = 3\n", 2),
        ("", 1),
        ("# The bytes of the plugins\n", 1),
    ] {
        fs::write(folder.path().join(FILE), text).unwrap();
        let error = Lock::open(folder.path(), Pinning::Strict).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.message().contains(&format!("plugins.lock:{line}: ")), "{}", error.message());
    }
}

/// Catches a lock that was truncated, emptied or lost a pin and is read as one that pins less; a lock written
/// before the seal was introduced that is refused; and `--update-lock` that does not replace a damaged one.
#[test]
fn an_incomplete_lock_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    let plugins = ["a", "b", "c"].map(|id| plugin(folder.path(), id, id));
    let mut lock = Lock::open(folder.path(), Pinning::Strict).unwrap();
    plugins.iter().for_each(|plugin| _ = lock.verify(plugin, &file(plugin)).unwrap());
    lock.verify_library(&plugins[1], Path::new("libx.so"), &library("libx.so", 'a')).unwrap();
    lock.save().unwrap();
    let whole = fs::read_to_string(&path).unwrap();
    let refused = |text: &str| {
        fs::write(&path, text).unwrap();
        let error = Lock::open(folder.path(), Pinning::Strict).expect_err(text);
        assert!(error.exit_code() == 2 && error.report().contains("--update-lock"), "{text}\n{}", error.report());
        assert!(Lock::open(folder.path(), Pinning::Ignore).is_err());
    };
    for cut in (0..whole.trim_end().len()).filter(|cut| whole.is_char_boundary(*cut)) {
        refused(&whole[..cut]);
    }
    // Text missing from the beginning, and a pin missing from the middle.
    for (at, _) in whole.match_indices('\n').filter(|(at, _)| at + 1 < whole.len()) {
        refused(&whole[at + 1..]);
    }
    let pins: Vec<usize> = whole.match_indices("[[plugin]]").map(|(at, _)| at).collect();
    refused(&[&whole[..pins[1]], &whole[pins[2]..]].concat());
    refused(&whole.replacen("id = \"b\"", "id = \"d\"", 1));
    let mut update = Lock::open(folder.path(), Pinning::Update).unwrap();
    update.verify(&plugins[0], &file(&plugins[0])).unwrap();
    update.save().unwrap();
    assert_eq!(Lock::open(folder.path(), Pinning::Strict).unwrap().pins.len(), 1);
    let seal = whole.find("\n[seal]").unwrap();
    fs::write(&path, whole[..seal].replace("pins = 3\n", "")).unwrap();
    assert_eq!(Lock::open(folder.path(), Pinning::Strict).unwrap().pins.len(), 3);
}

fn library(name: &str, digit: char) -> LibraryUse {
    LibraryUse { name: name.into(), sha256: digit.to_string().repeat(64) }
}

/// Catches a library that is not pinned with its plugin, one that changes undetected, pins of libraries that a
/// second process or a later plugin removes, and new bytes of a plugin that keep the libraries of the old ones.
#[test]
fn libraries_are_pinned_with_their_plugin() {
    let folder = tempfile::tempdir().unwrap();
    let torch = plugin(folder.path(), "torch", "1");
    let at = Path::new("/where/libx.so");
    let open = |pinning| {
        let mut lock = Lock::open(folder.path(), pinning).unwrap();
        lock.verify(&torch, &file(&torch)).unwrap();
        lock
    };
    let (mut first, mut second) = (open(Pinning::Strict), open(Pinning::Strict));
    first.verify_library(&torch, at, &library("libx.so", 'a')).unwrap();
    second.verify_library(&torch, at, &library("liby.so", 'b')).unwrap();
    first.save().unwrap();
    second.save().unwrap();
    let error = open(Pinning::Strict).verify_library(&torch, at, &library("libx.so", 'c')).unwrap_err();
    let report = error.report();
    for part in ["libx.so", "`torch`", "aaaa", "cccc", "/where/libx.so", "--update-lock", "plugins.lock"] {
        assert!(report.contains(part), "{part} is not in {report}");
    }
    let mut lock = open(Pinning::Strict);
    lock.verify_library(&torch, at, &library("liby.so", 'b')).unwrap();
    lock.save().unwrap();
    let mut dev = open(Pinning::Ignore);
    dev.verify_library(&torch, at, &library("libx.so", 'c')).unwrap();
    assert!(matches!(dev.unpinned(), [line] if line.contains("libx.so") && line.contains("torch")), "{dev:?}");
    dev.save().unwrap();
    assert_eq!(Lock::open(folder.path(), Pinning::Strict).unwrap().pins[0].libraries.len(), 2);
    // Another run pins different bytes of the library meanwhile.
    let mut late = open(Pinning::Update);
    late.verify_library(&torch, at, &library("libx.so", 'c')).unwrap();
    let mut strict = open(Pinning::Strict);
    strict.verify_library(&torch, at, &library("libz.so", 'd')).unwrap();
    strict.verify_library(&torch, at, &library("libx.so", 'a')).unwrap();
    late.save().unwrap();
    let pins = |lock: &Lock| lock.pins[0].libraries.iter().map(|own| own.sha256[..1].to_owned()).collect::<String>();
    assert_eq!(pins(&late), "cb");
    let why = strict.save().unwrap_err().report();
    assert!(why.contains("meanwhile") && why.contains("libx.so"), "{why}");
    plugin(folder.path(), "torch", "2");
    let mut new = open(Pinning::Update);
    new.verify_library(&torch, at, &library("libx.so", 'e')).unwrap();
    new.save().unwrap();
    assert_eq!(pins(&new), "e");
}
