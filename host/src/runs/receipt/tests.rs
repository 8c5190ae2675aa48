//! Tests of the receipt, and of what differs between two.

use std::fs;

use super::changes::Changes;
use super::*;

fn file(path: &str, sha256: &str) -> DataSource {
    DataSource { path: path.into(), bytes: 5, sha256: sha256.into() }
}

fn receipt() -> Receipt {
    let files = Some(vec![file("config.json", "44")]);
    let critic =
        ModelSource { from: Some("runs/a".into()), sha256: Some("bb".into()), base_sha256: Some("55".into()), files };
    Receipt {
        telos: Build::this(),
        rules: RULES,
        command: vec!["telos".into(), "run".into()],
        seed: u64::MAX,
        backend: BackendUse {
            plugin: "candle".into(),
            device: "cpu".into(),
            dtype: "f32".into(),
            threads: 2,
            threads_matter: false,
            instruction_set: Some("avx2".into()),
        },
        plugins: vec![PluginUse {
            id: "ce".into(),
            kind: "objective".into(),
            version: "0.1.0".into(),
            abi: "1.0".into(),
            file: "libobjective_ce.so".into(),
            sha256: "aa".into(),
            libraries: Some(vec![LibraryUse { name: "libx.so".into(), sha256: "11".into() }]),
        }],
        model: ModelSource {
            from: None,
            sha256: None,
            base_sha256: None,
            files: Some(vec![file("config.json", "22")]),
        },
        roles: [("critic".to_owned(), critic)].into(),
        tokenizer_sha256: "cc".into(),
        tokenizer_files: Some(vec![file("tokenizer.json", "33")]),
        data: vec![file("corpus.txt", "dd")],
        hub: [("hf:org/name@main".to_owned(), "ee".to_owned())].into(),
        rows: None,
        unpinned: Vec::new(),
        replaced: Vec::new(),
        changed: Vec::new(),
        unproved: Vec::new(),
    }
}

/// Catches a damaged receipt without a way on, and the words of a library for an empty file.
#[test]
fn a_damaged_receipt_has_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("receipt.json");
    for (text, expected) in [("", "is empty"), ("\n", "is empty"), ("{\"telos\"", "is damaged")] {
        fs::write(&path, text).unwrap();
        let report = Receipt::read(&path).unwrap_err().report();
        assert!(report.contains(expected) && report.contains("delete it"), "{report}");
    }
}

/// Catches a model that is looked up under another role than its key's.
#[test]
fn a_key_of_the_experiment_has_its_model() {
    let mut receipt = receipt();
    let named = |from: &str| ModelSource { from: Some(from.to_owned()), ..receipt.model.clone() };
    let (model, adapter, reward) = (named("m"), named("a"), named("r"));
    receipt.model = model;
    receipt.roles.extend([("adapter".to_owned(), adapter), ("reward.1".to_owned(), reward)]);
    let from = |key: &str| receipt.model_of(key).and_then(|model| model.from.as_deref());
    assert_eq!(
        (from("model.from"), from("model.adapter"), from("critic.from")),
        (Some("m"), Some("a"), Some("runs/a"))
    );
    assert_eq!((from("reward.1.model"), from("reward.model"), from("reward.1.weight")), (Some("r"), None, None));
    assert_eq!((from("model.layers"), from("teacher.from"), from("seed")), (None, None, None));
}

/// Catches a field that is written and not read, and a seed that goes through a float.
#[test]
fn a_receipt_reads_back_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("receipt.json");
    receipt().write(&path).unwrap();
    assert_eq!(Receipt::read(&path).unwrap(), receipt());
    fs::write(&path, "{}").unwrap();
    assert!(Receipt::read(&path).unwrap_err().report().contains("receipt.json"));
    // Otherwise a key that a flipped bit has changed would count as absent.
    let text = serde_json::to_string(&receipt()).unwrap();
    for (key, flipped) in
        [("\"libraries\"", "\"librabies\""), ("\"files\"", "\"gfles\""), ("\"tokenizer_files\"", "\"tokenizer_fhles\"")]
    {
        assert!(text.contains(key), "{key}: {text}");
        fs::write(&path, text.replace(key, flipped)).unwrap();
        assert!(Receipt::read(&path).unwrap_err().report().contains("unknown field"), "{key}");
    }
}

/// Catches a build that does not record its compiler and target.
#[test]
fn the_build_names_its_compiler_and_target() {
    let build = Build::this();
    assert!(build.rustc.starts_with("rustc 1."), "{build:?}");
    assert!(build.target.contains('-'), "{build:?}");
}

/// Catches a comparison that misses a changed, added or removed part, or reports what cannot change the result.
#[test]
fn changes_are_reported_except_threads_and_command_line() {
    let (old, mut new) = (receipt(), receipt());
    new.command.push("--resume".into());
    new.backend.threads = 16;
    new.replaced.push(Replaced { after_step: 3, changes: Vec::new() });
    new.unpinned.push("objective ce: pinned sha256 aa, used bb".into());
    assert_eq!(new.changes_since(&old), Changes::default());
    let older = Receipt { backend: BackendUse { instruction_set: None, ..old.backend.clone() }, ..receipt() };
    assert_eq!(new.changes_since(&older), Changes::default(), "an older receipt does not say which it was");
    new.backend.instruction_set = Some("avx512".into());
    assert_eq!(new.changes_since(&old).programs, [r#"backend.instruction_set: "avx2" is now "avx512""#]);
    new.backend.instruction_set = old.backend.instruction_set.clone();
    new.plugins[0].sha256 = "bb".into();
    new.backend.dtype = "bf16".into();
    new.model.from = Some("runs/sft".into());
    new.data[0].sha256 = "ee".into();
    new.data.insert(0, file("more.txt", "ff"));
    let Changes { programs, inputs } = new.changes_since(&old);
    let expected = [r#"backend.dtype: "f32" is now "bf16""#, r#"plugins[ce].sha256: "aa" is now "bb""#];
    assert_eq!(programs, expected);
    let expected = [
        r#"model.from: null is now "runs/sft""#,
        r#"data[corpus.txt].sha256: "dd" is now "ee""#,
        "data[more.txt]: null is now {",
    ];
    for part in expected {
        assert!(inputs.iter().any(|line| line.starts_with(part)), "{part} is missing in {inputs:?}");
    }
    assert_eq!(inputs.len(), expected.len(), "{inputs:?}");
    (new.data, new.model.from) = (vec![file("a", "1"), file("b", "2")], old.model.from.clone());
    let mut reversed = new.clone();
    reversed.data.reverse();
    assert_eq!(reversed.changes_since(&new).inputs, ["data: the order a, b is now b, a"]);
}

/// Catches another library, shape, template or number of threads that is not reported, and an older receipt,
/// which does not record them, that is read as one that records none.
#[test]
fn fields_that_an_older_receipt_lacks_are_not_compared() {
    let (old, mut new) = (receipt(), receipt());
    new.plugins[0].libraries = Some(vec![LibraryUse { name: "libx.so".into(), sha256: "12".into() }]);
    new.model.files = Some(vec![file("config.json", "22"), file("generation_config.json", "23")]);
    let critic = new.roles.get_mut("critic").unwrap();
    (critic.base_sha256, critic.files) = (Some("56".into()), Some(vec![file("config.json", "45")]));
    new.hub.insert("hf:org/base@main".into(), "66".into());
    new.tokenizer_files = Some(vec![file("chat_template.jinja", "34"), file("tokenizer.json", "33")]);
    let Changes { programs, inputs } = new.changes_since(&old);
    assert_eq!(programs, [r#"plugins[ce].libraries[libx.so].sha256: "11" is now "12""#]);
    let expected = [
        "model.files[generation_config.json]: null is now {",
        r#"roles.critic.base_sha256: "55" is now "56""#,
        r#"roles.critic.files[config.json].sha256: "44" is now "45""#,
        "tokenizer_files[chat_template.jinja]: null is now {",
    ];
    assert_eq!(inputs.len(), expected.len(), "{inputs:?}");
    for part in expected {
        assert!(inputs.iter().any(|line| line.starts_with(part)), "{part} is missing in {inputs:?}");
    }
    let mut older = receipt();
    older.plugins[0].libraries = None;
    (older.model.files, older.tokenizer_files) = (None, None);
    let critic = older.roles.get_mut("critic").unwrap();
    (critic.base_sha256, critic.files) = (None, None);
    assert_eq!(new.changes_since(&older), Changes::default());
    let matters = |threads| {
        let mut receipt = receipt();
        (receipt.backend.threads, receipt.backend.threads_matter) = (threads, true);
        receipt
    };
    assert_eq!(matters(3).changes_since(&matters(2)).programs, ["backend.threads: 2 is now 3"]);
    assert_eq!(matters(3).changes_since(&old), Changes::default());
}
