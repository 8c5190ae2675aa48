//! Downloads from the hub into its cache, by the `hf-hub` crate: into the same places as the Python library.

use std::error::Error as StdError;
use std::fs;
use std::io::IsTerminal;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hf_hub::api::RepoInfo;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
use hf_hub::{Cache, Repo, RepoType};
use sha2::{Digest, Sha256};

use super::id::{Id, Kind, is_inside};
use super::settings::Settings;
use super::wanted::{self, INDEX, Model};
use crate::data::cache::hex;
use crate::data::error::{DataError, Result};
use crate::data::reading::guard::caught;

/// How long the list of files may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it may take if the cache is enough without it.
const SHORT_PATIENCE: Duration = Duration::from_secs(10);
/// Times that an interrupted download is continued.
const RETRIES: usize = 2;

/// What of a repository is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Data, or a model with its weights.
    Whole,
    /// A model without its weights, for its tokenizer.
    Small,
}

/// A repository at one commit.
pub(super) struct Repository<'a> {
    id: &'a Id,
    cache: Cache,
    commit: String,
    /// Whether downloads make the cache's reference of the revision name the commit: not if the commit was pinned.
    pub follows: bool,
    /// Its files and the connection; `None` if only the cache is used.
    online: Option<(Vec<String>, Api)>,
}

impl<'a> Repository<'a> {
    /// Opens a repository at the `pinned` commit, or at the one that its revision names now.
    ///
    /// # Errors
    /// No network, and the cache is not enough; a repository or revision that does not exist, or is not in the cache if the network is
    /// not used.
    pub fn open(id: &'a Id, settings: &Settings, pinned: Option<&str>, need: Need) -> Result<Repository<'a>> {
        let cache = Cache::new(settings.cache.clone());
        let mut own = Repository { id, cache, commit: String::new(), follows: pinned.is_none(), online: None };
        // A revision that is a whole commit never moves.
        let in_cache = settings.offline || id.revision.len() == 40 && is_commit(&id.revision);
        let known = pinned.map(str::to_owned).or_else(|| in_cache.then(|| own.cached_commit()).flatten());
        if let Some(commit) = known {
            own.commit = commit;
            // A commit that was downloaded needs no network.
            if settings.offline || own.is_complete(need) {
                return Ok(own);
            }
        } else if settings.offline {
            return Err(own.fail(
                "is not in the cache, and HF_HUB_OFFLINE is set",
                &format!(
                    "unset it, or download the repository to {} on a machine with a network",
                    settings.cache.display()
                ),
                None,
            ));
        }
        let api = own.connect(settings)?;
        let revision = if own.commit.is_empty() { id.revision.clone() } else { own.commit.clone() };
        let is_enough = own.is_enough(need, pinned.is_some());
        let info = match own.info(&api, revision, if is_enough { SHORT_PATIENCE } else { PATIENCE }) {
            Err(Failure { had_answer: false, .. }) if is_enough => return Ok(own),
            answer => answer.map_err(|failure| failure.error)?,
        };
        if !is_commit(&info.sha) || (!own.commit.is_empty() && own.commit != info.sha) {
            let what = format!("the hub answered with the commit {:?}", info.sha);
            return Err(own.fail(&what, "check HF_ENDPOINT", None));
        }
        own.commit = info.sha;
        // Paths that leave the folder would be written outside of the cache.
        let files = info.siblings.into_iter().map(|file| file.rfilename).filter(|file| is_inside(file)).collect();
        own.online = Some((files, api));
        Ok(own)
    }

    /// The commit.
    pub fn commit(&self) -> &str {
        &self.commit
    }

    /// Downloads what a model needs and returns its folder, or its GGUF file.
    ///
    /// # Errors
    /// Weights in a format that is not read; failed downloads; files missing from the cache if the network is not used.
    pub fn model(&self) -> Result<PathBuf> {
        let chosen = wanted::model(&self.files()?, self.id.path.as_deref());
        let mut found = self.snapshot();
        match chosen.map_err(|[what, remedy]| self.fail(&what, &remedy, None))? {
            Model::Gguf(file) => found = self.get(&file)?,
            Model::Folder(files) => _ = self.all(&files)?,
            Model::Sharded(files) => {
                self.all(&files)?;
                let index = fs::read(found.join(INDEX)).map_err(DataError::io("read", &found.join(INDEX)))?;
                let shards = wanted::shards(&index).map_err(|what| self.fail(&what, "name another revision", None))?;
                self.all(&shards)?;
            }
        }
        self.store_list();
        Ok(found)
    }

    /// Downloads the files of a model besides its weights and returns its folder.
    ///
    /// # Errors
    /// Failed downloads; files missing from the cache if the network is not used.
    pub fn tokenizer(&self) -> Result<PathBuf> {
        self.all(&wanted::small(&self.files()?))?;
        self.store_list();
        Ok(self.snapshot())
    }

    /// Downloads data files and returns their paths.
    ///
    /// # Errors
    /// As [`Repository::model`].
    pub fn data(&self) -> Result<Vec<PathBuf>> {
        let chosen = wanted::data(&self.files()?, self.id.path.as_deref());
        let found = self.all(&chosen.map_err(|[what, remedy]| self.fail(&what, &remedy, None))?)?;
        self.store_list();
        Ok(found)
    }

    /// The file in the cache with the names of the commit's files, so that a model, a folder or a pattern stands for the same files
    /// without a network, also if only some of them were downloaded, by this program or another.
    fn list(&self) -> PathBuf {
        let folder = self.cache.path().join(self.repo(String::new()).folder_name());
        folder.join("telos").join(format!("{}.json", self.commit))
    }

    /// Stores the list if it can be stored. In a cache that others own it cannot: then the hub is asked for it every time.
    fn store_list(&self) {
        let Some((files, _)) = &self.online else { return };
        if self.stored_list().as_ref() != Some(files) {
            _ = write_list(&self.list(), files);
        }
    }

    /// The stored names of the commit's files.
    fn stored_list(&self) -> Option<Vec<String>> {
        let files: Vec<String> = serde_json::from_slice(&fs::read(self.list()).ok()?).ok()?;
        Some(files.into_iter().filter(|file| is_inside(file)).collect())
    }

    fn all(&self, files: &[String]) -> Result<Vec<PathBuf>> {
        files.iter().map(|file| self.get(file)).collect()
    }

    /// The repository's files, or those in the cache.
    fn files(&self) -> Result<Vec<String>> {
        if let Some((files, _)) = &self.online {
            return Ok(files.clone());
        }
        if let Some(files) = self.stored_list() {
            return Ok(files);
        }
        let mut files = Vec::new();
        let snapshot = self.snapshot();
        let mut open = vec![snapshot.clone()];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(&folder).map_err(DataError::io("list", &folder))? {
                let entry = entry.map_err(DataError::io("list", &folder))?;
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    open.push(entry.path());
                } else if let Ok(name) = entry.path().strip_prefix(&snapshot) {
                    files.push(name.to_string_lossy().into_owned());
                }
            }
        }
        Ok(files)
    }

    /// Returns the path of a file in the cache; downloads it if it is not there.
    fn get(&self, file: &str) -> Result<PathBuf> {
        let path = self.snapshot().join(file);
        // A link to a removed blob does not exist.
        if path.exists() {
            return Ok(path);
        }
        let Some((_, api)) = &self.online else {
            let what = format!("its file {file} is not in the cache, and the network is not used (HF_HUB_OFFLINE)");
            return Err(self.fail(&what, "unset HF_HUB_OFFLINE to download it", None));
        };
        let repository = api.repo(self.repo(self.commit.clone()));
        let found = self.guarded(&format!("its file {file} cannot be downloaded"), || repository.download(file))?;
        self.verify(file, &found)?;
        // The Python library, and this one when offline, find the commit by the branch.
        if self.follows {
            let named = self.cache.repo(self.repo(self.id.revision.clone()));
            named.create_ref(&self.commit).map_err(DataError::io("write", self.cache.path()))?;
        }
        Ok(found)
    }

    /// Compares a large file with its name in the cache, which is its sha256.
    fn verify(&self, file: &str, path: &Path) -> Result<()> {
        let blob = fs::canonicalize(path).map_err(DataError::io("find", path))?;
        let name = blob.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.len() != 64 || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(());
        }
        let mut hash = Sha256::new();
        let mut open = crate::files::open(&blob).map_err(DataError::io("read", &blob))?;
        std::io::copy(&mut open, &mut hash).map_err(DataError::io("read", &blob))?;
        if hex(&hash.finalize()) == name {
            return Ok(());
        }
        _ = fs::remove_file(&blob);
        _ = fs::remove_file(path);
        Err(self.fail(&format!("the download of its file {file} was damaged and is removed"), "start again", None))
    }

    fn connect(&self, settings: &Settings) -> Result<Api> {
        let builder = ApiBuilder::from_cache(self.cache.clone())
            .with_endpoint(settings.endpoint.clone())
            .with_token(settings.token.clone())
            .with_progress(std::io::stderr().is_terminal())
            .with_retries(RETRIES)
            .with_user_agent("telos", env!("CARGO_PKG_VERSION"));
        self.guarded("the connection cannot be prepared", || builder.build())
    }

    fn info(&self, api: &Api, revision: String, patience: Duration) -> Result<RepoInfo, Failure> {
        let repository = api.repo(self.repo(revision));
        self.tried("its list of files cannot be read", || {
            let request = repository.info_request().config().timeout_global(Some(patience)).build();
            let mut response = request.call().map_err(Box::new)?;
            Ok(response.body_mut().read_json().map_err(Box::new)?)
        })
    }

    /// Calls the library; its panics and errors become errors of the repository.
    fn guarded<T>(&self, what: &str, call: impl FnOnce() -> Result<T, ApiError>) -> Result<T> {
        self.tried(what, call).map_err(|failure| failure.error)
    }

    /// As [`Repository::guarded`], and says whether the hub answered.
    fn tried<T>(&self, what: &str, call: impl FnOnce() -> Result<T, ApiError>) -> Result<T, Failure> {
        let error = match caught(call) {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(error)) => error,
            Err(panic) => {
                let error = self.fail(&format!("{what}: {panic}"), "check HF_ENDPOINT", None);
                return Err(Failure { error, had_answer: true });
            }
        };
        let mut had_answer = false;
        let (mut reason, mut remedy) = (String::new(), String::new());
        if let ApiError::RequestError(request) = &error
            && let ureq::Error::StatusCode(code) = **request
        {
            let (why, how) = match code {
                401 | 403 => {
                    ("access is denied", "accept its terms on its page, and set HF_TOKEN to a token of your account")
                }
                404 => (
                    "the hub has no such repository or revision, or it is private",
                    "check the name; for a private one set HF_TOKEN",
                ),
                429 => ("the hub refuses more requests for now", "try again later"),
                _ => ("the hub failed", "try again later"),
            };
            (reason, remedy, had_answer) = (format!(" ({code}: {why})"), how.to_owned(), true);
        }
        if remedy.is_empty() {
            let known = Some(&self.commit).filter(|commit| !commit.is_empty() && self.snapshot().is_dir()).cloned();
            let cached = if self.commit.is_empty() { self.cached_commit() } else { known };
            let cached = cached.map_or_else(String::new, |commit| {
                format!("set HF_HUB_OFFLINE=1 to use what is in the cache (commit {commit}); otherwise ")
            });
            remedy = format!(
                "{cached}check the network, or download it on a machine that has one (`hf download {}{}`) and name the folder",
                self.id.repository,
                if self.id.kind == Kind::Dataset { " --repo-type dataset" } else { "" }
            );
        }
        Err(Failure { error: self.fail(&format!("{what}{reason}"), &remedy, Some(error.into())), had_answer })
    }

    fn repo(&self, revision: String) -> Repo {
        let kind = match self.id.kind {
            Kind::Model => RepoType::Model,
            Kind::Dataset => RepoType::Dataset,
        };
        Repo::with_revision(self.id.repository.clone(), kind, revision)
    }

    /// The commit's folder in the cache.
    pub fn snapshot(&self) -> PathBuf {
        self.cache.repo(self.repo(self.commit.clone())).pointer_path(&self.commit)
    }

    /// The commit in the cache that the revision names: by a reference, or because it is a commit.
    fn cached_commit(&self) -> Option<String> {
        let folder = self.cache.path().join(self.repo(String::new()).folder_name());
        let named = fs::read_to_string(folder.join("refs").join(&self.id.revision)).ok();
        let commit = named.map(|text| text.trim().to_owned()).unwrap_or_else(|| self.id.revision.clone());
        (is_commit(&commit) && folder.join("snapshots").join(&commit).is_dir()).then_some(commit)
    }

    /// Whether the cache has everything that is needed at this commit. This is known if the list of files is stored, or if one file is
    /// named: other programs download only some of a model's files.
    fn is_complete(&self, need: Need) -> bool {
        if let Some(files) = self.stored_list() {
            return self.has_of(&files, need);
        }
        let exact = self.id.path.as_deref().filter(|path| need == Need::Whole && !path.contains(['*', '?', '[']));
        exact.is_some_and(|path| self.snapshot().join(path).is_file())
    }

    /// Whether the cache has enough at this commit to go on if the hub does not answer, although no list of files is stored, so that
    /// more may belong to it: a model that can be used with its tokenizer; data only if an earlier run `pinned` them, whose receipt
    /// has their hashes.
    fn is_enough(&self, need: Need, pinned: bool) -> bool {
        if self.commit.is_empty() || self.stored_list().is_some() {
            return false;
        }
        let Ok(files) = self.files() else { return false };
        let can_be_used = match (self.id.kind, need) {
            (Kind::Dataset, _) => pinned,
            (Kind::Model, Need::Small) => wanted::has_tokenizer(&files),
            (Kind::Model, Need::Whole) => wanted::is_usable(&files, self.id.path.as_deref()),
        };
        can_be_used && self.has_of(&files, need)
    }

    /// Whether the cache has what is needed of these files.
    fn has_of(&self, files: &[String], need: Need) -> bool {
        let (snapshot, path) = (self.snapshot(), self.id.path.as_deref());
        let has = |names: &[String]| names.iter().all(|name| snapshot.join(name).exists());
        if self.id.kind == Kind::Dataset {
            return wanted::data(files, path).is_ok_and(|data| has(&data));
        }
        if need == Need::Small {
            return has(&wanted::small(files));
        }
        let shards = || fs::read(snapshot.join(INDEX)).ok().and_then(|index| wanted::shards(&index).ok());
        match wanted::model(files, path) {
            Ok(Model::Gguf(file)) => has(&[file]),
            Ok(Model::Folder(files)) => has(&files),
            Ok(Model::Sharded(files)) => has(&files) && shards().is_some_and(|shards| has(&shards)),
            Err(_) => false,
        }
    }

    fn fail(&self, what: &str, remedy: &str, source: Option<Box<dyn StdError + Send + Sync>>) -> DataError {
        DataError::Unusable { path: self.id.key().into(), what: what.to_owned(), remedy: remedy.to_owned(), source }
    }
}

/// An error, and whether it is an answer of the hub.
struct Failure {
    error: DataError,
    had_answer: bool,
}

/// Writes a list of files so that other processes and users may read it meanwhile.
fn write_list(path: &Path, files: &[String]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder)?;
    // The user's umask decides which users may read it, as of the other files in the cache.
    let mut builder = tempfile::Builder::new();
    let mut file = builder.permissions(fs::Permissions::from_mode(0o666)).tempfile_in(folder)?;
    serde_json::to_writer(&mut file, files)?;
    file.persist(path)?;
    Ok(())
}

/// Whether a text is a commit's hash.
fn is_commit(text: &str) -> bool {
    (7..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
