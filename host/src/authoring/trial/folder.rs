//! The folder of a trial: replaced by the next trial of the same objective, if telos itself made it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::runs::{RunFolder, folder::PIPELINE_FILE};

/// The experiment of a trial, in its folder.
pub const EXPERIMENT: &str = "try.toml";
/// The experiment that was there before, since it may have been edited.
const EARLIER: &str = "try.before.toml";
/// The picture.
pub const PICTURE: &str = "try.svg";
/// The beginning of the experiment: the sign that telos made the folder.
pub const HEAD: &str = "# telos plugins try ";

/// Runs folder, name and path of a trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrialFolder {
    /// The folder.
    pub path: PathBuf,
    /// Its parent, the folder of runs.
    pub runs_dir: String,
    /// Its name, and that of the pipeline.
    pub name: String,
}

impl TrialFolder {
    /// The folder `path`, which may exist only if an earlier trial made it.
    ///
    /// # Errors
    /// A request error: the path has no name or is not UTF-8, or something else is there.
    pub fn new(path: &Path) -> Result<TrialFolder> {
        let wrong = |why: &str| {
            Error::request(format!("--out {}: {why}", path.display()))
                .with_hint("name a folder that does not exist yet, or that of an earlier trial")
        };
        let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| wrong("not a name for a folder"))?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let runs_dir = parent.to_str().ok_or_else(|| wrong("the path is not UTF-8"))?;
        let is_empty = fs::read_dir(path).map_or(!path.exists(), |mut entries| entries.next().is_none());
        let is_ours = || fs::read_to_string(path.join(EXPERIMENT)).is_ok_and(|text| text.starts_with(HEAD));
        if !is_empty && !is_ours() {
            return Err(wrong("it exists and is not the folder of an earlier trial"));
        }
        Ok(TrialFolder { path: path.to_owned(), runs_dir: runs_dir.to_owned(), name: name.to_owned() })
    }

    /// Removes the runs of an earlier trial and writes the new experiment; keeps the earlier experiment under another
    /// name if it differs.
    ///
    /// # Errors
    /// Another process writes one of the runs, or the file system failed.
    pub fn replace(&self, experiment: &str) -> Result<()> {
        let failed = |path: &Path| {
            let message = format!("cannot replace {}", path.display());
            move |cause: std::io::Error| Error::run(message).with_cause(cause)
        };
        fs::create_dir_all(&self.path).map_err(failed(&self.path))?;
        for entry in fs::read_dir(&self.path).map_err(failed(&self.path))? {
            let path = entry.map_err(failed(&self.path))?.path();
            let Some(stage) = path.file_name().and_then(|name| name.to_str()).filter(|_| path.is_dir()) else {
                continue;
            };
            if path.join("experiment.toml").is_file() {
                // Fails if another process writes it.
                drop(RunFolder::open(Path::new(&self.runs_dir), &format!("{}/{stage}", self.name))?);
                fs::remove_dir_all(&path).map_err(failed(&path))?;
            }
        }
        let own = self.path.join(EXPERIMENT);
        if fs::read_to_string(&own).is_ok_and(|text| text != experiment) {
            fs::rename(&own, self.path.join(EARLIER)).map_err(failed(&own))?;
        }
        for file in [PICTURE, PIPELINE_FILE] {
            match fs::remove_file(self.path.join(file)) {
                Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
                    return Err(failed(&self.path.join(file))(cause));
                }
                _ => {}
            }
        }
        fs::write(&own, experiment).map_err(failed(&own))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a trial that removes a folder of the user, a file of the user in its own folder, or an edited
    /// experiment.
    #[test]
    fn only_what_a_trial_made_is_replaced() {
        let lab = tempfile::tempdir().unwrap();
        let path = lab.path().join("try-x");
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("thesis.tex"), "years of work").unwrap();
        assert!(TrialFolder::new(&path).unwrap_err().report().contains("not the folder of an earlier trial"));
        fs::write(path.join(EXPERIMENT), format!("{HEAD}x\nedited")).unwrap();
        fs::write(path.join(PICTURE), "<svg>").unwrap();
        fs::create_dir_all(path.join("ce")).unwrap();
        fs::write(path.join("ce/experiment.toml"), "").unwrap();
        fs::create_dir_all(path.join("notes")).unwrap();
        TrialFolder::new(&path).unwrap().replace(&format!("{HEAD}x\nnew")).unwrap();
        assert!(path.join("thesis.tex").is_file() && path.join("notes").is_dir());
        assert!(!path.join("ce").exists() && !path.join(PICTURE).exists());
        assert!(fs::read_to_string(path.join(EARLIER)).unwrap().ends_with("edited"));
        assert!(fs::read_to_string(path.join(EXPERIMENT)).unwrap().ends_with("new"));
    }
}
