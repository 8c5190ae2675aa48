//! Checkpoints under every interruption, every kind of damage and every order of saves.

mod chosen;
mod damaged;
mod interrupted;

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
