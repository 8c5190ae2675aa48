//! Downloads from a server on this machine that answers on the hub's paths.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::json;
use sha2::{Digest, Sha256};

use super::fetch::{Need, Repository};
use super::id::{Id, Kind};
use super::settings::Settings;
use super::{RESOLVED, Resolved, commits_of, is_named, named_in};
use crate::data::cache::hex;
use crate::data::error::{DataError, Result as DataResult};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const OTHER: &str = "fedcba9876543210fedcba9876543210fedcba98";

/// The repositories of a server: files by kind and repository, such as "models/org/name".
struct Hub {
    address: String,
    /// The paths that were asked for.
    asked: Arc<Mutex<Vec<String>>>,
    /// The commit of the branch main.
    main: Arc<Mutex<String>>,
}

type Files = BTreeMap<&'static str, Vec<(&'static str, &'static str)>>;

impl Hub {
    fn start(files: Files) -> Hub {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (asked, main) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(COMMIT.to_owned())));
        let (heard, commit) = (asked.clone(), main.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                answer(stream, &files, &heard, &commit);
            }
        });
        Hub { address, asked, main }
    }

    fn settings(&self, cache: &tempfile::TempDir) -> Settings {
        Settings {
            cache: cache.path().to_owned(),
            endpoint: self.address.clone(),
            token: Some("secret".into()),
            offline: false,
        }
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

/// Reads one request and answers it.
fn answer(mut stream: TcpStream, files: &Files, asked: &Mutex<Vec<String>>, main: &Mutex<String>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let request = lines.next().unwrap_or_default();
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let header = |name: &str| {
        headers
            .iter()
            .find_map(|line| line.split_once(": ").filter(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, v)| v))
    };
    asked.lock().unwrap().push(path.clone());
    let mut send = |status: &str, more: &str, body: &[u8]| {
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{more}\r\n", body.len());
        _ = stream.write_all(&[head.as_bytes(), body].concat());
    };
    if header("authorization") != Some("Bearer secret") {
        return send("401 Unauthorized", "", b"");
    }
    let main = main.lock().unwrap().clone();
    for (repository, files) in files {
        let name = repository.trim_start_matches("models/");
        if let Some(revision) = path.strip_prefix(&format!("/api/{repository}/revision/")) {
            let commit = if revision == "main" { &main } else { revision };
            let siblings: Vec<_> = files.iter().map(|(file, _)| json!({"rfilename": file})).collect();
            let body = json!({"sha": commit, "siblings": siblings, "id": name}).to_string();
            return send("200 OK", "Content-Type: application/json\r\n", body.as_bytes());
        }
        let Some(rest) = path.strip_prefix(&format!("/{name}/resolve/")) else { continue };
        let (commit, file) = rest.split_once('/').unwrap_or_default();
        let Some((_, content)) = files.iter().find(|(own, _)| *own == file) else { continue };
        let whole = content.as_bytes();
        let hash = if *content == "damaged" { "0".repeat(64) } else { hex(&Sha256::digest(whole)) };
        let range = header("range").and_then(|range| range.strip_prefix("bytes=")).unwrap_or("0-");
        let (start, end) = range.split_once('-').unwrap_or(("0", ""));
        let start = start.parse::<usize>().unwrap().min(whole.len());
        let end = end.parse::<usize>().map_or(whole.len(), |end| (end + 1).min(whole.len()));
        let more = format!(
            "Content-Range: bytes {start}-{}/{}\r\nETag: \"{hash}\"\r\nX-Repo-Commit: {commit}\r\n",
            end.saturating_sub(1),
            whole.len()
        );
        return send("206 Partial Content", &more, &whole[start..end]);
    }
    send("404 Not Found", "", b"");
}

fn models() -> Files {
    BTreeMap::from([
        (
            "models/org/name",
            vec![
                ("config.json", "{}"),
                ("tokenizer.json", "[]"),
                ("README.md", "text"),
                ("pytorch_model.bin", "code"),
                (
                    "model.safetensors.index.json",
                    r#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}"#,
                ),
                ("model-1.safetensors", "one"),
                ("model-2.safetensors", "two"),
            ],
        ),
        (
            "models/org/small",
            vec![
                ("config.json", "{}"),
                ("generation_config.json", "{}"),
                ("tokenizer.json", "[]"),
                ("chat_template.jinja", "text"),
                ("model.safetensors", "weights"),
            ],
        ),
        (
            "models/org/lora",
            vec![("README.md", "text"), ("adapter_config.json", "{}"), ("adapter_model.safetensors", "factors")],
        ),
        ("models/org/pickle", vec![("config.json", "{}"), ("pytorch_model.bin", "code")]),
        ("models/org/damaged", vec![("model.safetensors", "damaged")]),
        ("datasets/org/rows", vec![("data/train.jsonl", "{}"), ("data/test.jsonl", "[]"), ("README.md", "text")]),
    ])
}

fn id(text: &str, kind: Kind) -> Id {
    Id::parse(text, kind).unwrap().unwrap()
}

/// The whole repository.
fn opened<'a>(id: &'a Id, settings: &Settings, pinned: Option<&str>) -> DataResult<Repository<'a>> {
    Repository::open(id, settings, pinned, Need::Whole)
}

/// These settings with an address where no server is.
fn nowhere(settings: &Settings) -> Settings {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    Settings { endpoint: format!("http://{closed}"), ..settings.clone() }
}

fn message(error: DataError) -> String {
    format!("{error}; {}", error.hint().unwrap_or_default())
}

/// Catches a pickle or another file that is downloaded, a shard that is missing, a second download of the same file, and a branch
/// that moved although its commit is pinned, and a pinned commit that moves the branch of the cache.
#[test]
fn a_model_is_downloaded_once_and_stays_at_its_commit() {
    let (hub, cache) = (Hub::start(models()), tempfile::tempdir().unwrap());
    let (settings, id) = (hub.settings(&cache), id("hf:org/name", Kind::Model));
    let repository = opened(&id, &settings, None).unwrap();
    let folder = repository.model().unwrap();
    assert_eq!(repository.commit(), COMMIT);
    assert_eq!(folder, cache.path().join("models--org--name/snapshots").join(COMMIT));
    let mut names: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    let expected =
        ["config.json", "model-1.safetensors", "model-2.safetensors", "model.safetensors.index.json", "tokenizer.json"];
    assert_eq!(names, expected);
    assert_eq!(fs::read_to_string(folder.join("model-2.safetensors")).unwrap(), "two");
    assert!(hub.asked().iter().all(|path| !path.contains("pytorch")));
    // The same again: only the list of files is asked for.
    opened(&id, &settings, None).unwrap().model().unwrap();
    assert_eq!(hub.asked(), ["/api/models/org/name/revision/main"]);
    // A pinned commit that is complete needs no network, whatever the branch names now.
    *hub.main.lock().unwrap() = OTHER.to_owned();
    let pinned = opened(&id, &settings, Some(COMMIT)).unwrap();
    assert_eq!((pinned.model().unwrap(), hub.asked().len()), (folder.clone(), 0));
    // Nor does a revision that is this commit, by which an adapter names its base.
    let by_commit = Id { revision: COMMIT.to_owned(), ..id.clone() };
    assert_eq!(opened(&by_commit, &settings, None).unwrap().model().unwrap(), folder);
    let known = Resolved { commit: COMMIT.to_owned(), is_pinned: false, snapshot: Some(folder.clone()) };
    let named = |path: &Path| named_in(path, "hf:org/name@main", &known);
    assert_eq!(named(&folder), Some(by_commit.clone()));
    let file = Some(Id { path: Some("a/b.gguf".to_owned()), ..by_commit });
    assert_eq!((named(&folder.join("a/b.gguf")), named(cache.path())), (file, None));
    assert_eq!(hub.asked().len(), 0);
    let offline = Settings { offline: true, ..settings.clone() };
    assert_eq!(opened(&id, &offline, None).unwrap().model().unwrap(), folder);
    assert_eq!(hub.asked().len(), 0);
    // A pinned commit that is not complete is completed at that commit.
    fs::remove_file(folder.join("model-1.safetensors")).unwrap();
    let branch = cache.path().join("models--org--name/refs/main");
    fs::write(&branch, OTHER).unwrap();
    opened(&id, &settings, Some(COMMIT)).unwrap().model().unwrap();
    assert_eq!(fs::read_to_string(folder.join("model-1.safetensors")).unwrap(), "one");
    assert_eq!(fs::read_to_string(branch).unwrap(), OTHER);
    assert!(hub.asked().iter().all(|path| path.contains(COMMIT)));
    assert_eq!(opened(&id, &settings, None).unwrap().commit(), OTHER);
}

/// Catches a model that counts as downloaded although another program has cached only its config.json and its weights: the tokenizer
/// and the chat template would be missing.
#[test]
fn a_model_that_is_cached_in_part_is_completed() {
    let (hub, cache) = (Hub::start(models()), tempfile::tempdir().unwrap());
    let (settings, id) = (hub.settings(&cache), id(&format!("hf:org/small@{COMMIT}"), Kind::Model));
    let folder = cache.path().join("models--org--small/snapshots").join(COMMIT);
    fs::create_dir_all(&folder).unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::write(folder.join(name), "{}").unwrap();
    }
    // Without a network, what is there is taken.
    let open = |settings: &Settings| opened(&id, settings, None).unwrap().model().unwrap();
    let offline = Settings { offline: true, ..settings.clone() };
    assert_eq!((open(&offline), hub.asked().len()), (folder.clone(), 0));
    open(&settings);
    let small = ["tokenizer.json", "chat_template.jinja", "generation_config.json"];
    assert!(small.iter().all(|name| folder.join(name).exists()));
    hub.asked();
    open(&settings);
    assert_eq!(hub.asked().len(), 0);
    fs::remove_file(folder.join("chat_template.jinja")).unwrap();
    open(&settings);
    assert!(folder.join("chat_template.jinja").exists());
}

/// Catches a complete cache that needs a network because no list of files is stored, as after `hf download`; one that is not complete
/// and is used; and an answer of the hub that counts as no network.
#[test]
fn a_cache_without_a_list_of_files_needs_no_network() {
    let (hub, cache) = (Hub::start(models()), tempfile::tempdir().unwrap());
    let settings = hub.settings(&cache);
    let (away, stranger) = (nowhere(&settings), Settings { token: Some("wrong".into()), ..settings });
    let write = |repository: &str, names: &[&str]| {
        for name in names {
            let file = cache.path().join(repository).join("snapshots").join(COMMIT).join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "{}").unwrap();
        }
    };
    let small = id("hf:org/small", Kind::Model);
    let model = |id: &Id, pinned, settings: &Settings| opened(id, settings, pinned).and_then(|all| all.model());
    write("models--org--small", &["config.json", "model.safetensors"]);
    let error = message(model(&small, Some(COMMIT), &away).unwrap_err());
    assert!(
        error.contains("list of files")
            && error.contains(&format!("HF_HUB_OFFLINE=1 to use what is in the cache (commit {COMMIT})")),
        "{error}"
    );
    write("models--org--small", &["tokenizer.json"]);
    assert!(model(&small, Some(COMMIT), &away).is_ok());
    assert!(model(&Id { revision: COMMIT.to_owned(), ..small.clone() }, None, &away).is_ok());
    assert!(message(model(&small, Some(COMMIT), &stranger).unwrap_err()).contains("401"));
    assert!(model(&small, None, &away).is_err());
    // A tokenizer alone is not enough for a model.
    write("models--org--name", &["tokenizer.json"]);
    let name = id("hf:org/name", Kind::Model);
    let tokenizer = Repository::open(&name, &away, Some(COMMIT), Need::Small).and_then(|all| all.tokenizer());
    assert!(tokenizer.is_ok() && model(&name, Some(COMMIT), &away).is_err());
    // An adapter has the tokenizer of its base.
    write("models--org--lora", &["adapter_config.json", "adapter_model.safetensors"]);
    assert!(model(&id("hf:org/lora", Kind::Model), Some(COMMIT), &away).is_ok());
    // A pattern may stand for more files than are there; a receipt has the hashes of those that were read.
    write("datasets--org--rows", &["data/train.jsonl"]);
    let rows = id(&format!("hf:datasets/org/rows/data/*.jsonl@{COMMIT}"), Kind::Dataset);
    let data = |pinned| opened(&rows, &away, pinned).and_then(|all| all.data());
    assert_eq!((data(Some(COMMIT)).unwrap().len(), data(None).is_err()), (1, true));
}

/// Catches a tokenizer without its model that asks for a network although it was downloaded, because the weights were not.
#[test]
fn a_tokenizer_is_complete_without_the_weights() {
    let (hub, cache) = (Hub::start(models()), tempfile::tempdir().unwrap());
    let (settings, id) = (hub.settings(&cache), id("hf:org/name", Kind::Model));
    let tokenizer = |pinned| Repository::open(&id, &settings, pinned, Need::Small).unwrap().tokenizer().unwrap();
    let folder = tokenizer(None);
    assert!(!folder.join("model-1.safetensors").exists());
    hub.asked();
    assert_eq!((tokenizer(Some(COMMIT)), hub.asked().len()), (folder.clone(), 0));
    opened(&id, &settings, Some(COMMIT)).unwrap().model().unwrap();
    assert!(folder.join("model-1.safetensors").exists());
}

/// Catches an adapter on the hub that is refused or not downloaded whole, and a path that counts as a name.
#[test]
fn an_adapter_is_downloaded() {
    let (hub, cache) = (Hub::start(models()), tempfile::tempdir().unwrap());
    let folder = opened(&id("hf:org/lora", Kind::Model), &hub.settings(&cache), None).unwrap().model().unwrap();
    assert!(folder.join("adapter_config.json").exists());
    assert_eq!(fs::read_to_string(folder.join("adapter_model.safetensors")).unwrap(), "factors");
    assert_eq!(["hf:org/lora", "hf:lora", "org/lora", "runs/lora"].map(is_named), [true, true, false, false]);
}

/// Catches data that are refused because the cache cannot be written to, although all of them are there, and a list of files that
/// other users of the cache cannot read.
#[test]
fn a_cache_of_other_users_is_read() {
    let (hub, cache) = (Hub::start(models()), tempfile::tempdir().unwrap());
    let (settings, id) = (hub.settings(&cache), id("hf:datasets/org/rows/data/*.jsonl", Kind::Dataset));
    let data = || opened(&id, &settings, None).unwrap().data();
    let lists = cache.path().join("datasets--org--rows/telos");
    fs::create_dir_all(lists.parent().unwrap()).unwrap();
    fs::write(&lists, "").unwrap();
    assert_eq!(data().unwrap().len(), 2);
    fs::remove_file(&lists).unwrap();
    assert_eq!(data().unwrap().len(), 2);
    let (list, usual) = (lists.join(format!("{COMMIT}.json")), cache.path().join("usual"));
    fs::write(&usual, "").unwrap();
    let metadata = |path: &Path| fs::metadata(path).unwrap();
    assert_eq!(metadata(&list).permissions(), metadata(&usual).permissions());
    // The same list is not written again.
    let written = metadata(&list).ino();
    data().unwrap();
    assert_eq!(metadata(&list).ino(), written);
}

/// Catches the base of an adapter, which no experiment names, that is not recorded and so moves with its branch, and a name of another
/// run of this process that is recorded.
#[test]
fn commits_are_those_of_the_experiment_and_of_the_bases() {
    let cache = tempfile::tempdir().unwrap();
    let names = ["named", "base", "other"].map(|name| format!("hf:recorded/{name}@main"));
    for (index, key) in names.iter().enumerate() {
        let known = Resolved {
            commit: format!("{index}"),
            is_pinned: false,
            snapshot: Some(cache.path().join(format!("{index}"))),
        };
        RESOLVED.lock().unwrap().insert(key.clone(), known);
    }
    let experiment = json!({"model": {"from": "hf:recorded/named"}, "teacher": {"from": "peft"}});
    let found = commits_of(&experiment, &[cache.path().join("1"), cache.path().join("none")]);
    let expected = [(names[0].clone(), "0".to_owned()), (names[1].clone(), "1".to_owned())];
    assert_eq!(found, BTreeMap::from(expected));
}

/// Catches data that are not those of the name, and a folder that is downloaded whole although one file was named.
#[test]
fn data_are_downloaded_by_name() {
    let (hub, cache) = (Hub::start(models()), tempfile::tempdir().unwrap());
    let settings = hub.settings(&cache);
    let files = |text: &str| opened(&id(text, Kind::Dataset), &settings, None).and_then(|all| all.data());
    let found = files("hf:datasets/org/rows/data/train.jsonl").unwrap();
    assert_eq!(found, [cache.path().join("datasets--org--rows/snapshots").join(COMMIT).join("data/train.jsonl")]);
    assert_eq!(fs::read_to_string(&found[0]).unwrap(), "{}");
    assert!(hub.asked().iter().all(|path| !path.contains("test.jsonl")));
    // Without a network, a pattern does not stand for fewer files than it would with one.
    let offline = Settings { offline: true, ..settings.clone() };
    let pattern = id("hf:datasets/org/rows/data/*.jsonl", Kind::Dataset);
    let cached = |settings: &Settings, commit| opened(&pattern, settings, commit).and_then(|all| all.data());
    assert!(message(cached(&offline, None).unwrap_err()).contains("its file data/test.jsonl is not in the cache"));
    assert_eq!(files("hf:datasets/org/rows/data/*.jsonl").unwrap().len(), 2);
    assert_eq!(cached(&offline, None).unwrap().len(), 2);
    // A pinned commit whose files are all there needs no network.
    hub.asked();
    assert_eq!((cached(&settings, Some(COMMIT)).unwrap().len(), hub.asked().len()), (2, 0));
    let error = message(files("hf:datasets/org/rows").unwrap_err());
    assert!(error.contains("several data files: data/train.jsonl, data/test.jsonl"), "{error}");
}

/// Catches an error that does not name the repository, the reason or the remedy, a damaged download that is used, and a wait for a
/// server that does not exist.
#[test]
fn failures_name_the_repository_and_the_remedy() {
    let (hub, cache) = (Hub::start(models()), tempfile::tempdir().unwrap());
    let settings = hub.settings(&cache);
    let fails = |text: &str, settings: &Settings| {
        let id = id(text, Kind::Model);
        let found = opened(&id, settings, None).and_then(|all| all.model());
        let error = message(found.unwrap_err());
        assert!(error.contains(text), "{error}");
        error
    };
    let has = |error: String, parts: &[&str]| parts.iter().for_each(|part| assert!(error.contains(part), "{error}"));
    has(fails("hf:org/none", &settings), &["404", "private", "HF_TOKEN"]);
    let stranger = Settings { token: Some("wrong".into()), ..settings.clone() };
    has(fails("hf:org/name", &stranger), &["401", "access is denied", "HF_TOKEN"]);
    has(fails("hf:org/pickle", &settings), &["no model in safetensors", "pickles, which run code"]);
    has(fails("hf:org/damaged", &settings), &["damaged", "start again"]);
    assert!(!cache.path().join("models--org--damaged/snapshots").join(COMMIT).join("model.safetensors").exists());
    has(fails("hf:org/name", &nowhere(&settings)), &["list of files", "check the network", "hf download org/name"]);
    let offline = Settings { offline: true, ..settings };
    has(fails("hf:org/name", &offline), &["not in the cache", "HF_HUB_OFFLINE"]);
}
