//! Saves that are stopped anywhere, on disks that fail or are full.

use super::*;

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
                let report = format!("{error:?}");
                // After the commit the last good checkpoint is the new one.
                assert!(report.contains(&named) || found == new, "{report} {at}");
                assert!(found != new || report.contains(&step_name(last.0)), "{report} {at}");
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
fn gotcha_41_a_first_save_stopped_anywhere_leaves_none_or_an_intact_one() {
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
fn gotcha_41_filesystem_steps_are_in_a_durable_order() {
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

/// Catches a failure of the caller's writer that is swallowed, loses the earlier checkpoint, or does not say which
/// one is intact. The full disk is the kernel's own: writing to /dev/full.
#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_keeps_the_checkpoint_before_and_names_it() {
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
