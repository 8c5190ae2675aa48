//! Checkpoints whose files are damaged, missing or those of another one.

use super::*;

/// Catches a verification that only checks lengths, or trusts the manifest: every bit of every file must be
/// checked.
#[test]
fn a_flipped_bit_in_any_file_is_found_and_the_checkpoint_before_is_used() {
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
fn when_no_checkpoint_is_intact_the_error_gives_the_reason_for_each() {
    let world = World::new(3, Stop::Killed);
    world.save(Save(10, false, 1)).unwrap();
    world.save(Save(20, false, 2)).unwrap();
    fs::remove_file(world.path().join("step-00000010/model.safetensors")).unwrap();
    fs::write(world.path().join("step-00000020/model.safetensors"), [2; 50]).unwrap();
    let error = latest(world.path()).unwrap_err();
    let details = error.details().join("\n");
    assert!(details.contains("step-00000010: model.safetensors"), "{details}");
    assert!(details.contains("step-00000020, but model.safetensors has 50 bytes instead of 100"), "{details}");
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

/// Catches a rotation that treats an unreadable manifest as that of a worse checkpoint, and removes the best one.
#[test]
fn an_unreadable_manifest_removes_no_checkpoint() {
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
fn gotcha_61_a_checkpoint_named_by_its_folder_is_compared_with_its_manifest() {
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

/// Catches a rotation that silently removes the best checkpoint, and BEST with it, because its manifest is damaged
/// or missing.
#[test]
fn a_damaged_best_checkpoint_stays_and_is_reported() {
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
