//! Which checkpoint is the latest, which is the best, and which are removed.

use super::*;

/// Catches a file of the user in a checkpoint that does not count as one, and files of telos that do.
#[test]
fn what_telos_did_not_write_is_named() {
    let world = World::new(2, Stop::Killed);
    (1..4).for_each(|step| drop(world.save(Save(step, step == 2, 1)).unwrap()));
    assert_eq!(foreign(world.path()), [""; 0]);
    fs::create_dir(world.path().join(".tmp-step-00000004")).unwrap();
    assert_eq!(foreign(world.path()), [""; 0]);
    fs::write(world.path().join("step-00000003/model.gguf"), "mine").unwrap();
    fs::create_dir(world.path().join("step-00000009")).unwrap();
    fs::create_dir(world.path().join(".git")).unwrap();
    assert_eq!(foreign(world.path()), [".git", "step-00000003/model.gguf", "step-00000009"]);
}

/// Catches a LATEST that is followed without checks, and a fallback that is not reported.
#[test]
fn a_missing_or_damaged_latest_falls_back_with_a_note() {
    let world = World::new(3, Stop::Killed);
    world.save(Save(10, false, 1)).unwrap();
    world.save(Save(20, false, 2)).unwrap();
    let pointer = world.path().join(LATEST);
    for (text, expected) in [
        (Some("step-00000099\n"), "names step-00000099, which does not exist"),
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
        assert!(found.note.as_ref().is_some_and(|note| note.contains(expected)), "{:?}", found.note);
    }
}

/// Catches a choice of the highest number although LATEST names another, and of a folder that has no manifest.
#[test]
fn latest_is_followed_and_an_incomplete_folder_is_never_used() {
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
fn gotcha_43_the_best_checkpoint_is_kept_after_many_worse_ones() {
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
fn resuming_before_the_best_checkpoint_restores_the_previous_best() {
    let world = World::new(5, Stop::Killed);
    for save in [Save(10, true, 1), Save(20, false, 2), Save(30, true, 3)] {
        world.save(save).unwrap();
    }
    world.save(Save(25, false, 4)).unwrap();
    assert_eq!(world.best(), Some((10, 1)));
    assert_eq!(world.names(), [BEST, LATEST, "step-00000010", "step-00000020", "step-00000025"]);
}

/// Catches a reader that creates folders, or reports a missing folder as an error.
#[test]
fn a_missing_folder_has_no_checkpoint_and_is_not_created() {
    let folder = tempfile::tempdir().unwrap();
    let absent = folder.path().join("checkpoints");
    assert_eq!((latest(&absent).unwrap(), best(&absent).unwrap()), (None, None));
    Checkpoints::at(absent.clone(), 1, Disk::default(), None).unwrap();
    assert!(!absent.exists());
}

/// Catches a best checkpoint that is not found because the process was killed before BEST named it, and one of a
/// later step than LATEST that is used instead.
#[test]
fn gotcha_61_the_best_checkpoint_is_found_in_the_manifests_if_best_is_outdated() {
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
