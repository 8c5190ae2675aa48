//! Checkpoints under every interruption, every kind of damage and every order of saves.

use std::fs;
use std::sync::Arc;

use super::faults::{Faults, Stop};
use super::*;

/// In memory if the system offers that: thousands of saves should not wait for a disk.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// One save: its step, whether it is the best, and a mark that distinguishes its content from another save of the
/// same step.
#[derive(Clone, Copy)]
struct Save(u64, bool, u8);

struct World {
    folder: tempfile::TempDir,
    faults: Arc<Faults>,
    keep: usize,
}

impl World {
    fn new(keep: usize, stop: Stop) -> Self {
        let faults = Arc::new(Faults::after(usize::MAX, stop));
        Self { folder: folder(), faults, keep }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn open(&self) -> Checkpoints {
        let disk = Disk { faults: Some(self.faults.clone()) };
        let from = latest(self.path()).unwrap().map(|found| found.step);
        Checkpoints::at(self.path().to_path_buf(), self.keep, disk, from).unwrap()
    }

    fn save(&self, save: Save) -> Result<Saved> {
        self.open().save(save.0, save.1, |folder| self.write(folder, save))
    }

    /// Writes two files, one of them in a subfolder; the disk may stop in between, as with a real writer.
    fn write(&self, folder: &Path, save: Save) -> Result<()> {
        let disk = Disk { faults: Some(self.faults.clone()) };
        let write = |path: &Path, bytes: &[u8]| {
            disk.make_folder(path.parent().unwrap())?;
            fs::write(path, &bytes[..1]).unwrap();
            // The writer does not sync: the caller must, and must not forget it.
            disk.rename(path, path)?;
            fs::write(path, bytes).unwrap();
            Ok(())
        };
        write(&folder.join("model.safetensors"), &[save.2; 100])?;
        write(&folder.join("state/trainer.json"), format!("{{\"step\":{}}}", save.0).as_bytes())
    }

    /// Step and content mark of a checkpoint that was found.
    fn mark(found: &Checkpoint) -> (u64, u8) {
        (found.step, fs::read(found.path.join("model.safetensors")).unwrap()[0])
    }

    fn latest(&self) -> Option<(u64, u8)> {
        latest(self.path()).unwrap().as_ref().map(Self::mark)
    }

    fn best(&self) -> Option<(u64, u8)> {
        best(self.path()).unwrap().as_ref().map(Self::mark)
    }

    fn names(&self) -> Vec<String> {
        names(self.path()).unwrap()
    }
}

/// Stops the last of `saves` before each of its filesystem steps in turn. Wherever it stops, a reader finds the old
/// checkpoint or the new one, intact; a new process cleans up and saves again, with nothing left over.
fn stop_everywhere(keep: usize, stop: Stop, saves: &[Save]) {
    let (last, before) = saves.split_last().unwrap();
    for steps in 0.. {
        let world = World::new(keep, stop);
        for save in before {
            world.save(*save).unwrap();
        }
        let old = world.latest();
        let checkpoints = world.open();
        world.faults.arm(steps);
        let outcome = checkpoints.save(last.0, last.1, |folder| world.write(folder, *last));
        let stopped = world.faults.stopped();
        world.faults.cut_power(world.path());
        world.faults.arm(usize::MAX);

        let (new, at) = (Some((last.0, last.2)), format!("{stop:?} before step {steps}: {:?}", world.names()));
        let found = world.latest();
        assert!(found == old || found == new, "{found:?} {at}");
        match &outcome {
            Ok(saved) => {
                assert_eq!(found, new, "{at}");
                assert!(stopped || saved.warnings.is_empty(), "{:?} {at}", saved.warnings);
            }
            Err(error) if stop == Stop::Full => {
                let named = old.map_or("no earlier".to_owned(), |(step, _)| step_name(step));
                let says = format!("{error:?}");
                // After the commit the last good checkpoint is the new one.
                assert!(says.contains(&named) || found == new, "{says} {at}");
                assert!(found != new || says.contains(&step_name(last.0)), "{says} {at}");
                assert!(!world.names().iter().any(|name| name.starts_with(UNFINISHED)), "{at}");
            }
            Err(_) => {}
        }

        world.open();
        assert_eq!(world.latest(), found, "tidying up changed what is found; {at}");
        let pointer = read_pointer(world.path(), LATEST);
        assert_eq!(pointer, Ok(found.map(|(step, _)| step)), "LATEST names another one; {at}");
        world.save(Save(last.0 + 1, false, 99)).unwrap();
        assert_eq!(world.latest(), Some((last.0 + 1, 99)), "{at}");
        let odd = |name: &&String| parse_step(name).is_none() && *name != LATEST && *name != BEST;
        assert_eq!(world.names().iter().find(odd), None, "left over; {at}");
        if !stopped {
            assert!(steps > 15, "the disk counts too few steps: {steps}");
            return;
        }
    }
}

const STOPS: [Stop; 3] = [Stop::Killed, Stop::PowerCut, Stop::Full];

/// Catches a checkpoint that gets its name before it is complete, and a cleanup that leaves a part.
#[test]
fn gotcha_41_first_save_stopped_anywhere_gives_none_or_a_whole_one() {
    STOPS.into_iter().for_each(|stop| stop_everywhere(2, stop, &[Save(10, true, 1)]));
}

/// Catches LATEST that moves before the data is durable, and a rotation that leaves half a checkpoint that looks
/// intact.
#[test]
fn gotcha_41_rotation_stopped_anywhere_gives_the_old_or_the_new_one() {
    STOPS
        .into_iter()
        .for_each(|stop| stop_everywhere(1, stop, &[Save(10, true, 1), Save(20, false, 2), Save(30, true, 3)]));
}

/// Catches an overwrite that removes the old one first.
#[test]
fn saving_a_step_again_stopped_anywhere_gives_the_old_or_the_new_one() {
    STOPS
        .into_iter()
        .for_each(|stop| stop_everywhere(2, stop, &[Save(10, false, 1), Save(20, false, 2), Save(20, true, 3)]));
}

/// Catches an overwrite of the only checkpoint there is.
#[test]
fn saving_the_only_step_again_stopped_anywhere_gives_the_old_or_the_new_one() {
    STOPS.into_iter().for_each(|stop| stop_everywhere(1, stop, &[Save(20, true, 2), Save(20, true, 3)]));
}

/// Catches a manifest written before other files, a rename before the sync of what is renamed, LATEST before the sync of
/// the folder that holds the checkpoint, and a removal before LATEST is durable.
#[test]
fn gotcha_41_steps_come_in_the_order_that_makes_them_durable() {
    let world = World::new(1, Stop::Killed);
    world.save(Save(10, false, 1)).unwrap();
    world.faults.arm(usize::MAX);
    world.save(Save(20, false, 2)).unwrap();
    let log = world.faults.log();
    let folder = world.path().file_name().unwrap().to_string_lossy().into_owned();
    let position = |what: &str| log.iter().position(|step| step == what).unwrap_or_else(|| panic!("{what} in {log:?}"));
    let renamed = position("rename step-00000020");
    let first_sync_after = |from: usize| {
        let offset = log[from..].iter().position(|step| *step == format!("sync {folder}"));
        from + offset.unwrap_or_else(|| panic!("no sync after {from} in {log:?}"))
    };
    let latest = position("rename LATEST");
    let removed = position("rename .removed-step-00000010");
    let order = [
        position("sync model.safetensors"),
        position("write manifest.json"),
        position("sync manifest.json"),
        position("sync .tmp-step-00000020"),
        renamed,
        first_sync_after(renamed),
        latest,
        first_sync_after(latest),
        removed,
    ];
    assert!(order.is_sorted() && order.windows(2).all(|pair| pair[0] != pair[1]), "{order:?} {log:?}");
}

/// Catches a save that does not read back what it wrote, and one that loses the checkpoint it replaced.
#[test]
fn gotcha_41_a_disk_that_reads_back_differently_is_an_error_and_the_old_one_stays() {
    let world = World::new(2, Stop::BadDisk);
    world.save(Save(10, true, 1)).unwrap();
    let checkpoints = world.open();
    let save = |mark| checkpoints.save(20, false, |folder| world.write(folder, Save(20, false, mark)));
    save(2).unwrap();
    world.faults.arm(usize::MAX);
    save(3).unwrap();
    let renamed = world.faults.log().iter().position(|step| step == "rename step-00000020").unwrap();
    // Before the next step, which syncs the folder.
    world.faults.arm(renamed + 1);
    let report = save(4).unwrap_err().report();
    assert!(report.contains("reads back differently: model.safetensors"), "{report}");
    assert_eq!(world.latest(), Some((20, 3)));
    assert_eq!(world.names(), [BEST, LATEST, "step-00000010", "step-00000020"]);
}

/// Catches a verification that only checks lengths, or trusts the manifest: every bit of every file must be
/// checked.
#[test]
fn a_flipped_bit_in_any_file_is_seen_and_the_one_before_is_used() {
    let world = World::new(3, Stop::Killed);
    world.save(Save(10, false, 1)).unwrap();
    world.save(Save(20, false, 2)).unwrap();
    let newest = world.path().join("step-00000020");
    for name in ["model.safetensors", "state/trainer.json", MANIFEST] {
        let path = newest.join(name);
        let whole = fs::read(&path).unwrap();
        for bit in (0..whole.len() * 8).step_by(if name == MANIFEST { 1 } else { 37 }) {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &damaged).unwrap();
            let found = latest(world.path()).unwrap().unwrap();
            assert_eq!(World::mark(&found), (10, 1), "bit {bit} of {name}");
            let note = found.stand_in().unwrap();
            assert!(note.contains("step-00000020") && note.contains("using step-00000010"), "{note}");
        }
        fs::write(&path, &whole).unwrap();
        assert_eq!(world.latest(), Some((20, 2)));
    }
}

/// Catches a missing or truncated file that passes, and an error that does not list every checkpoint tried.
#[test]
fn when_no_checkpoint_is_whole_the_error_says_why_for_each() {
    let world = World::new(3, Stop::Killed);
    world.save(Save(10, false, 1)).unwrap();
    world.save(Save(20, false, 2)).unwrap();
    fs::remove_file(world.path().join("step-00000010/model.safetensors")).unwrap();
    fs::write(world.path().join("step-00000020/model.safetensors"), [2; 50]).unwrap();
    let error = latest(world.path()).unwrap_err();
    let details = error.details().join("\n");
    assert!(details.contains("step-00000010: model.safetensors"), "{details}");
    assert!(details.contains("step-00000020, but model.safetensors has 50 bytes where 100"), "{details}");
}

/// Catches a LATEST that is followed without checks, and a fallback that is not reported.
#[test]
fn a_latest_that_is_gone_damaged_or_names_nothing_falls_back_and_says_so() {
    let world = World::new(3, Stop::Killed);
    world.save(Save(10, false, 1)).unwrap();
    world.save(Save(20, false, 2)).unwrap();
    let pointer = world.path().join(LATEST);
    for (text, says) in [
        (Some("step-00000099\n"), "names step-00000099, which is not there"),
        (Some(""), "LATEST is damaged"),
        (Some("step-20\n"), "LATEST is damaged"),
        (Some("../step-00000020"), "LATEST is damaged"),
        (None, "there is no LATEST"),
    ] {
        match text {
            Some(text) => fs::write(&pointer, text).unwrap(),
            None => fs::remove_file(&pointer).unwrap(),
        }
        let found = latest(world.path()).unwrap().unwrap();
        assert_eq!(World::mark(&found), (20, 2));
        assert!(found.note.as_ref().is_some_and(|note| note.contains(says)), "{:?}", found.note);
    }
}

/// Catches a choice of the highest number although LATEST names another, and of a folder that has no manifest.
#[test]
fn latest_decides_and_an_incomplete_folder_is_never_picked() {
    let world = World::new(3, Stop::Killed);
    world.save(Save(10, false, 1)).unwrap();
    world.save(Save(20, false, 2)).unwrap();
    fs::write(world.path().join(LATEST), "step-00000010\n").unwrap();
    let found = latest(world.path()).unwrap().unwrap();
    assert_eq!((World::mark(&found), found.note), ((10, 1), None));
    fs::remove_file(world.path().join(LATEST)).unwrap();
    fs::create_dir(world.path().join("step-00000030")).unwrap();
    fs::write(world.path().join("step-00000030/model.safetensors"), [3; 100]).unwrap();
    assert_eq!(world.latest(), Some((20, 2)));
}

/// Catches a checkpoint's folder that is accepted as another's after a copy.
#[test]
fn a_checkpoint_copied_under_another_steps_name_is_refused() {
    let world = World::new(3, Stop::Killed);
    world.save(Save(10, false, 1)).unwrap();
    fs::rename(world.path().join("step-00000010"), world.path().join("step-00000020")).unwrap();
    let error = latest(world.path()).unwrap_err();
    assert!(error.details().join("\n").contains("manifest is that of step 10"), "{error:?}");
}

/// Catches a rotation by date, or one that counts from the wrong end: with keep = 1, and the clock of the new
/// checkpoint in the past, the one just written stays.
#[test]
fn gotcha_41_rotation_never_removes_the_checkpoint_just_written() {
    let world = World::new(1, Stop::Killed);
    for step in [10, 20, 30] {
        world.save(Save(step, false, 1)).unwrap();
        let path = world.path().join(step_name(step));
        let past = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1000 - step);
        fs::File::open(&path).unwrap().set_modified(past).unwrap();
        assert_eq!(world.names(), [LATEST.to_owned(), step_name(step)]);
    }
    // A checkpoint of a later step, written before the run was resumed from an earlier step, does not displace the
    // new one.
    world.save(Save(15, false, 2)).unwrap();
    assert_eq!((world.latest(), world.names().len()), (Some((15, 2)), 2));
}

/// Catches a rotation that removes the best checkpoint while worse ones follow it, and a BEST that is not updated.
#[test]
fn gotcha_43_the_best_one_stays_however_many_worse_ones_follow() {
    let world = World::new(2, Stop::Killed);
    world.save(Save(10, true, 1)).unwrap();
    for step in 11..20 {
        world.save(Save(step, false, 2)).unwrap();
    }
    assert_eq!((world.best(), world.latest()), (Some((10, 1)), Some((19, 2))));
    assert_eq!(world.names(), [BEST, LATEST, "step-00000010", "step-00000018", "step-00000019"]);
    world.save(Save(20, true, 3)).unwrap();
    assert_eq!(world.best(), Some((20, 3)));
    assert_eq!(world.names(), [BEST, LATEST, "step-00000019", "step-00000020"]);
}

/// Catches a BEST that names a checkpoint from before the run was resumed at an earlier step.
#[test]
fn resuming_before_the_best_one_makes_the_best_one_before_it_best_again() {
    let world = World::new(5, Stop::Killed);
    for save in [Save(10, true, 1), Save(20, false, 2), Save(30, true, 3)] {
        world.save(save).unwrap();
    }
    world.save(Save(25, false, 4)).unwrap();
    assert_eq!(world.best(), Some((10, 1)));
    assert_eq!(world.names(), [BEST, LATEST, "step-00000010", "step-00000020", "step-00000025"]);
}

/// Catches a failure of the caller's writer that is swallowed, loses the earlier checkpoint, or does not say which
/// one is intact. The full disk is the kernel's own: writing to /dev/full.
#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_keeps_the_checkpoint_before_and_says_which() {
    let world = World::new(1, Stop::Killed);
    world.save(Save(10, false, 1)).unwrap();
    let error = world
        .open()
        .save(20, false, |folder| {
            fs::write(folder.join("half"), "half").unwrap();
            fs::write("/dev/full", "x").map_err(|cause| Error::run("cannot write model.safetensors").with_cause(cause))
        })
        .unwrap_err();
    let report = error.report();
    for part in
        ["step 20", "model.safetensors", "No space left", "last good checkpoint is", "step-00000010", "--resume"]
    {
        assert!(report.contains(part), "{part} is missing in\n{report}");
    }
    assert_eq!((world.latest(), world.names().len()), (Some((10, 1)), 2));
}

/// Catches a reader that creates folders, or reports a missing folder as an error.
#[test]
fn no_folder_is_no_checkpoint_and_stays_no_folder() {
    let folder = tempfile::tempdir().unwrap();
    let absent = folder.path().join("checkpoints");
    assert_eq!((latest(&absent).unwrap(), best(&absent).unwrap()), (None, None));
    Checkpoints::at(absent.clone(), 1, Disk::default(), None).unwrap();
    assert!(!absent.exists());
}

/// Catches a rotation that treats an unreadable manifest as that of a worse checkpoint, and removes the best one.
#[test]
fn a_manifest_that_cannot_be_read_costs_no_checkpoint() {
    let world = World::new(1, Stop::Killed);
    for save in [Save(1, true, 1), Save(2, false, 2)] {
        world.save(save).unwrap();
    }
    let manifest = world.path().join("step-00000001").join(MANIFEST);
    let kept = fs::read(&manifest).unwrap();
    // A folder in its place exists and cannot be read.
    fs::remove_file(&manifest).unwrap();
    fs::create_dir(&manifest).unwrap();
    let saved = world.save(Save(3, false, 3)).unwrap();
    assert!(saved.warnings.iter().any(|line| line.contains("step-00000001")), "{:?}", saved.warnings);
    assert_eq!(read_pointer(world.path(), BEST), Ok(Some(1)));
    fs::remove_dir(&manifest).unwrap();
    fs::write(&manifest, kept).unwrap();
    let saved = world.save(Save(4, false, 4)).unwrap();
    assert!(saved.warnings.is_empty(), "{:?}", saved.warnings);
    assert_eq!((world.best(), world.latest()), (Some((1, 1)), Some((4, 4))));
    assert!(!world.names().contains(&"step-00000003".to_owned()));
}

/// Catches a checkpoint that is used by its folder's name although a byte of it has changed, and folders of the
/// user that are refused because of a file with the manifest's name.
#[test]
fn gotcha_61_a_checkpoint_named_by_its_folder_is_held_against_its_manifest() {
    let world = World::new(1, Stop::Killed);
    world.save(Save(7, false, 1)).unwrap();
    let place = world.path().join("step-00000007");
    find::verify_named(&place).unwrap();
    let copy = world.path().join("copy");
    let copied = || {
        _ = fs::remove_dir_all(&copy);
        fs::create_dir_all(copy.join("state")).unwrap();
        for file in ["model.safetensors", "state/trainer.json", MANIFEST] {
            fs::copy(place.join(file), copy.join(file)).unwrap();
        }
    };
    for file in ["model.safetensors", "state/trainer.json", MANIFEST] {
        for at in 0..fs::read(place.join(file)).unwrap().len() {
            copied();
            let mut bytes = fs::read(copy.join(file)).unwrap();
            bytes[at] ^= 1;
            fs::write(copy.join(file), bytes).unwrap();
            let error = find::verify_named(&copy).unwrap_err();
            assert!(error.message().contains("copy") && error.hint().unwrap().contains(MANIFEST), "{error:?}");
        }
    }
    copied();
    fs::remove_file(copy.join(MANIFEST)).unwrap();
    find::verify_named(&copy).unwrap();
    fs::write(copy.join(MANIFEST), "{\"name\": \"a web app\"}").unwrap();
    find::verify_named(&copy).unwrap();
    fs::remove_file(place.join(MANIFEST)).unwrap();
    assert!(find::verify_named(&place).is_err());
}

/// Catches a best checkpoint that is not found because the process was killed before BEST named it, and one of a
/// later step than LATEST that is used instead.
#[test]
fn gotcha_61_the_best_checkpoint_is_the_one_of_the_manifests_where_best_is_behind() {
    let world = World::new(3, Stop::Killed);
    for save in [Save(1, true, 1), Save(2, true, 2), Save(3, true, 3)] {
        world.save(save).unwrap();
    }
    fs::write(world.path().join(BEST), "step-00000001\n").unwrap();
    assert_eq!(world.best(), Some((3, 3)));
    fs::remove_file(world.path().join(BEST)).unwrap();
    assert_eq!(world.best(), Some((3, 3)));
    fs::write(world.path().join(LATEST), "step-00000002\n").unwrap();
    assert_eq!(world.best(), Some((2, 2)));
    world.open();
    assert_eq!(read_pointer(world.path(), BEST), Ok(Some(2)));
}

/// Catches a rotation that silently removes the best checkpoint, and BEST with it, because its manifest is damaged
/// or missing.
#[test]
fn a_damaged_best_checkpoint_stays_and_is_told() {
    for damage in [&b"{"[..], b""] {
        let world = World::new(1, Stop::Killed);
        for save in [Save(1, true, 1), Save(2, false, 2)] {
            world.save(save).unwrap();
        }
        let manifest = world.path().join("step-00000001").join(MANIFEST);
        fs::write(&manifest, damage).unwrap();
        if damage.is_empty() {
            fs::remove_file(&manifest).unwrap();
        }
        for step in 3..5 {
            let saved = world.save(Save(step, false, 3)).unwrap();
            assert!(saved.warnings.iter().any(|line| line.contains("step-00000001")), "{:?}", saved.warnings);
        }
        assert_eq!(read_pointer(world.path(), BEST), Ok(Some(1)));
        assert_eq!(world.names(), [BEST, LATEST, "step-00000001", "step-00000004"]);
        // A better one replaces it.
        assert!(world.save(Save(5, true, 5)).unwrap().warnings.is_empty());
        assert_eq!((world.best(), world.names().len()), (Some((5, 5)), 3));
    }
}
