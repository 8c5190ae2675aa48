//! A crate to start a plugin from, outside of any workspace: it builds with plain `cargo build --release`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;

use plugin_api::manifest::kind;
use serde::Serialize;

use super::{
    names,
    sdk::{CONTRACT, LAWS, REFERENCE, Sdk},
    templates::{self, Template},
};
use crate::error::{Error, Result};
use crate::plugins::Registry;

pub use super::templates::DATA;

/// What to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The plugin's kind, by the contract's name.
    pub kind: &'static str,
    /// For an objective, the kind of its data, a name of [`DATA`].
    pub data: String,
    /// The package, the crate and the plugin's id.
    pub name: String,
    /// The folder; by default `name` in the current folder.
    pub folder: Option<PathBuf>,
    /// The SDK's folder; by default it is searched.
    pub sdk: Option<PathBuf>,
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Created {
    /// The plugin's kind.
    pub kind: &'static str,
    /// Its id.
    pub name: String,
    /// The crate's folder.
    pub folder: PathBuf,
    /// The SDK that it is built with.
    pub sdk: PathBuf,
    /// Its files, relative to the folder.
    pub files: Vec<String>,
    /// Lines of `src/lib.rs`.
    pub lines: usize,
}

/// Makes the crate. The folder appears with all its files or not at all.
///
/// # Errors
/// A request error for a name that is illegal or taken, a folder that has content, a kind of data that no template has,
/// or an SDK that is not found; a failed run if the file system fails.
pub fn create(request: &Request, registry: &Registry) -> Result<Created> {
    let sdk = Sdk::find(request.sdk.as_deref())?;
    names::check(&request.name, &sdk, registry)?;
    let folder = request.folder.clone().unwrap_or_else(|| request.name.clone().into());
    if !is_empty(&folder) {
        return Err(Error::request(format!("{} exists already and is not an empty folder", folder.display()))
            .with_hint("choose another name, or another folder with --path DIR"));
    }
    let template = template(request)?;
    let files = files(request, &template, &sdk)?;
    let failed = |path: &Path| {
        let message = format!("cannot write {}", path.display());
        move |cause: std::io::Error| Error::run(message).with_cause(cause)
    };
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(failed(parent))?;
    let fresh = parent.join(format!(".new-{}-{}", request.name, process::id()));
    _ = fs::remove_dir_all(&fresh);
    let written = files.iter().try_for_each(|(name, text)| {
        let path = fresh.join(name);
        path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&path, text)).map_err(failed(&path))
    });
    // A rename replaces an empty folder.
    if let Err(error) = written.and_then(|()| fs::rename(&fresh, &folder).map_err(failed(&folder))) {
        _ = fs::remove_dir_all(&fresh);
        return Err(error);
    }
    let lines = files.iter().find(|(name, _)| name == LIBRARY).map_or(0, |(_, text)| text.lines().count());
    Ok(Created {
        kind: request.kind,
        name: request.name.clone(),
        folder: std::path::absolute(&folder).unwrap_or(folder),
        sdk: sdk.folder().to_owned(),
        files: files.into_iter().map(|(name, _)| name).collect(),
        lines,
    })
}

const LIBRARY: &str = "src/lib.rs";

/// Whether there is nothing, or an empty folder.
fn is_empty(folder: &Path) -> bool {
    match fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_none(),
        Err(_) => fs::symlink_metadata(folder).is_err(),
    }
}

fn template(request: &Request) -> Result<Template> {
    match request.kind {
        kind::REWARD => Ok(templates::REWARD),
        kind::BACKEND => Ok(templates::BACKEND),
        _ => templates::objective(&request.data).ok_or_else(|| {
            Error::request(format!("--data {}: there is no template for this kind of data", request.data))
                .with_hint(format!("one of {}", DATA.join(", ")))
        }),
    }
}

/// The crate's files, each with its text.
fn files(request: &Request, template: &Template, sdk: &Sdk) -> Result<Vec<(String, String)>> {
    let path = |krate: &str| -> Result<String> {
        let path = sdk.path(krate);
        let text = path.to_str().ok_or_else(|| {
            Error::request(format!("{} is not UTF-8, and a Cargo.toml cannot name it", path.display()))
        })?;
        Ok(toml::Value::from(text).to_string())
    };
    let reference = match request.kind {
        kind::BACKEND => format!("backend-reference = {{ path = {} }}\n", path(REFERENCE)?),
        _ => String::new(),
    };
    let manifest = templates::MANIFEST
        .replace("@CONTRACT@", &path(CONTRACT)?)
        .replace("@LAWS@", &path(LAWS)?)
        .replace("@REFERENCE@\n", &(reference + "\n"));
    let texts = [
        ("Cargo.toml", manifest.as_str()),
        (LIBRARY, template.library),
        ("tests/laws.rs", template.tests),
        ("experiment.toml", template.experiment),
        ("README.md", template.readme),
        (".gitignore", templates::IGNORED),
        ("rustfmt.toml", templates::FORMAT),
    ];
    let named = |text: &str| text.replace("@NAME@", &request.name).replace("@CRATE@", &request.name.replace('-', "_"));
    let mut files: Vec<(String, String)> =
        texts.into_iter().map(|(name, text)| (name.to_owned(), named(text))).collect();
    files.push(("Cargo.lock".to_owned(), sdk.versions()?));
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Plan;

    fn repository() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
    }

    fn request(kind: &'static str, data: &str, folder: &Path) -> Request {
        let (folder, sdk) = (Some(folder.to_owned()), Some(repository()));
        Request { kind, data: data.to_owned(), name: "my-own-loss".into(), folder, sdk }
    }

    /// Every kind of crate that can be made.
    fn kinds() -> Vec<(&'static str, &'static str)> {
        DATA.iter().map(|data| (kind::OBJECTIVE, *data)).chain([(kind::REWARD, ""), (kind::BACKEND, "")]).collect()
    }

    /// Catches a new backend without the line of a newer group of operations, which does not compile.
    #[test]
    fn the_new_backend_names_every_group_of_operations() {
        let lab = tempfile::tempdir().unwrap();
        let folder = lab.path().join("made");
        create(&request(kind::BACKEND, "", &folder), &Registry::default()).unwrap();
        let made = fs::read_to_string(folder.join("src/lib.rs")).unwrap();
        let sdk = fs::read_to_string(repository().join("plugin-api/src/backend/ops/mod.rs")).unwrap();
        let (_, groups) = sdk.split_once("\ngroups! {\n").expect("the list of groups");
        let groups = groups.lines().take_while(|line| *line != "}");
        let missing: Vec<&str> = groups
            .filter_map(|line| line.trim().trim_end_matches(',').split(' ').nth(1))
            .filter(|group| !made.contains(&format!("{group} for Device")))
            .collect();
        assert_eq!(missing, [""; 0]);
    }

    /// Catches a placeholder that is not filled in, an experiment that cannot be read, and a text objective of more
    /// than 40 lines.
    #[test]
    fn every_template_is_filled_in_and_its_experiment_is_valid() {
        let lab = tempfile::tempdir().unwrap();
        for (kind, data) in kinds() {
            let folder = lab.path().join(format!("{kind} {data}"));
            let created = create(&request(kind, data, &folder), &Registry::default()).unwrap();
            for file in created.files.iter().filter(|file| *file != "Cargo.lock") {
                let text = fs::read_to_string(folder.join(file)).unwrap();
                assert!(!text.contains('@'), "{kind} {data}: {file}:\n{text}");
                assert!(text.lines().all(|line| line.chars().count() <= 130), "{kind} {data}: {file}");
            }
            let manifest: toml::Table = fs::read_to_string(folder.join("Cargo.toml")).unwrap().parse().unwrap();
            assert_eq!(manifest["package"]["name"].as_str(), Some("my-own-loss"));
            assert!(manifest.contains_key("workspace") && manifest.contains_key("dev-dependencies"));
            match Plan::read(&folder.join("experiment.toml"), &[], None).unwrap() {
                Plan::Experiment(draft) => assert!(draft.plugins().iter().any(|plugin| plugin.id == "my-own-loss")),
                Plan::Pipeline(pipeline) => assert!(pipeline.stages().len() > 1),
                Plan::Study(study) => panic!("{study:?}"),
            }
            assert!(data != "text" || created.lines <= 40, "{} lines", created.lines);
        }
    }

    /// Catches a folder of the user that is overwritten, and files that are left after a refusal.
    #[test]
    fn a_folder_with_content_is_refused_and_an_empty_one_is_used() {
        let lab = tempfile::tempdir().unwrap();
        let folder = lab.path().join("mine");
        fs::create_dir(&folder).unwrap();
        create(&request(kind::REWARD, "", &folder), &Registry::default()).unwrap();
        let error = create(&request(kind::REWARD, "", &folder), &Registry::default()).unwrap_err().report();
        assert!(error.contains("not an empty folder") && error.contains("--path"), "{error}");
        let file = lab.path().join("file");
        fs::write(&file, "mine").unwrap();
        assert!(create(&request(kind::REWARD, "", &file), &Registry::default()).is_err());
        assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
        assert_eq!(fs::read_dir(lab.path()).unwrap().count(), 2, "something was left");
        // A package that the SDK is built with.
        let taken = Request { name: "serde".into(), ..request(kind::REWARD, "", &lab.path().join("new")) };
        assert!(create(&taken, &Registry::default()).unwrap_err().report().contains("is taken"));
    }
}
