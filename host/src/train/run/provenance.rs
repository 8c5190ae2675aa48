//! The receipt of a run, which records what the run is made of: collected when it begins, compared when it is resumed.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    ANOTHER_RUN,
    row_hashes::{FILE as ROWS, RowHashes},
};
use crate::{
    data::{Source, TrainingData, hub},
    device::open::{dtype, threads},
    error::{Error, Result},
    model::Model,
    model::adapter::config::{ADAPTER_CONFIG, base_of},
    model::files::hash::weights_sha256,
    plugins::Pinning,
    runs::receipt::{BackendUse, Build, DataSource, ModelSource, RULES, Receipt, Replaced},
    setup::Setup,
    train::{learner::Learner, roles::reference_pass::reads_start},
};

/// Returns the receipt of a run that begins, or that resumes after `step` from the receipt at `earlier`, and notes for the
/// user. Replaced programs are recorded; replaced data or weights are refused.
///
/// # Errors
/// A request error for data or weights that the run did not begin with, and for replaced plugins unless they were accepted;
/// files that cannot be read.
pub fn receipt(
    setup: &Setup,
    data: &TrainingData,
    learner: &Learner,
    earlier: Option<&Path>,
    step: u64,
) -> Result<(Receipt, Vec<String>)> {
    let run = earlier.and_then(Path::parent).unwrap_or(Path::new("."));
    let is_gone = |path: &Path| fs::symlink_metadata(path).is_err_and(|e| e.kind() == io::ErrorKind::NotFound);
    let is_missing = earlier.is_some_and(is_gone);
    let earlier = earlier.filter(|_| !is_missing).map(Receipt::read).transpose()?;
    if let Some(earlier) = earlier.as_ref().filter(|earlier| earlier.rules != RULES) {
        let what = "the run began with a version of telos that has other rules for how rows become tokens, how answers end, how \
                    epochs are counted or how evaluations are cut";
        return Err(Error::request(what)
            .with_details([format!("receipt.json has rules {}, this program has rules {RULES}", earlier.rules)])
            .with_hint(format!("finish the run with the version it began with, or {ANOTHER_RUN}")));
    }
    let mut receipt = current(setup, data, learner, earlier.as_ref())?;
    let (Some(earlier), mut notes) = (earlier, Vec::new()) else {
        if is_missing {
            let what =
                "receipt.json was missing, so whether data, weights and programs changed is not known".to_owned();
            receipt.replaced.push(Replaced { after_step: step, changes: vec![what] });
        }
        return Ok((receipt, Vec::new()));
    };
    let changes = receipt.changes_since(&earlier);
    let (fixed, others): (Vec<String>, Vec<String>) = changes.inputs.into_iter().partition(|line| {
        let of_rows = line.starts_with("data[") || line.starts_with("rows.");
        setup.accepts_fixed_rows && of_rows && same_rows(&receipt, &earlier)
    });
    if !others.is_empty() {
        let changed = "the run began with other data or weights, according to its receipt.json";
        let lines = [others, fixed].concat();
        let of_rows = lines.iter().any(|line| line.starts_with("data[") || line.starts_with("rows."));
        let rows =
            "; if rows of the data files were fixed, and none was added, removed or moved, continue with --fixed-rows";
        let rows = if of_rows { rows } else { "" };
        return Err(Error::request(changed)
            .with_details(lines)
            .with_hint(format!("restore them, or {ANOTHER_RUN}{rows}")));
    }
    if !fixed.is_empty() {
        notes.push(match (RowHashes::of(data), RowHashes::read(run)?) {
            (Some(now), Some(then)) => format!("--fixed-rows: {}", now.fixed_since(&then)?),
            _ => format!("--fixed-rows: {} has no {ROWS}, so whether rows were moved is not known", run.display()),
        });
    }
    let plugins: Vec<String> = changes.programs.iter().filter(|line| line.starts_with("plugins[")).cloned().collect();
    // A replaced plugin passes with --update-lock, also if the flag was given to another run, and without a plugins.lock.
    if !plugins.is_empty() && setup.lock.pinning() == Pinning::Strict {
        return Err(Error::request("the run began with other plugins, according to its receipt.json").with_details(plugins).with_hint(
            "restore them, or accept the new ones with --update-lock: the run may then not have the same bits as without the change",
        ));
    }
    (receipt.replaced, receipt.changed) = (earlier.replaced, earlier.changed);
    receipt.unproved = earlier.unproved;
    if !changes.programs.is_empty() {
        receipt.replaced.push(Replaced { after_step: step, changes: changes.programs });
    }
    if !fixed.is_empty() {
        let fixed = fixed.into_iter().chain(notes.clone()).collect();
        receipt.changed.push(Replaced { after_step: step, changes: fixed });
    }
    Ok((receipt, notes))
}

/// Returns whether both have the same number of rows on each side: then the order of the remaining rows is the same.
fn same_rows(receipt: &Receipt, earlier: &Receipt) -> bool {
    let counts = |receipt: &Receipt| receipt.rows.as_ref().map(|rows| (rows.train, rows.held_out));
    counts(receipt).is_some() && counts(receipt) == counts(earlier)
}

/// Returns the lines that report a replacement to the user.
pub fn replacement_lines(replaced: &Replaced) -> Vec<String> {
    let Replaced { after_step, changes } = replaced;
    let head =
        format!("note: replaced after step {after_step}, so the run may not have the same bits as without the change:");
    [head].into_iter().chain(changes.iter().map(|change| format!("  {change}"))).collect()
}

fn current(setup: &Setup, data: &TrainingData, learner: &Learner, earlier: Option<&Receipt>) -> Result<Receipt> {
    let experiment = setup.experiment();
    // For a resumed run, models in its checkpoint may no longer be at their original path, or may have changed there.
    let saved = |role: &str| earlier.filter(|_| setup.is_saved(role)).and_then(|earlier| earlier.roles.get(role));
    let (mut roles, mut bases) = (BTreeMap::new(), Vec::new());
    for (role, path) in setup.role_paths() {
        let source = match saved(&role) {
            Some(source) => match base_in_checkpoint(learner, &role) {
                Some(base) => over(source, model_source(Some(base))?.sha256),
                None => source.clone(),
            },
            None => {
                let named = setup.named_model(path)?;
                let files = named.config.files.iter().chain(named.tokenizer.read_from());
                let files = Some(files.map(source).collect());
                let (source, base) = role_source(&role, named.folder.as_deref())?;
                bases.extend(base);
                ModelSource { files, ..source }
            }
        };
        roles.insert(role, source);
    }
    let start = earlier.filter(|_| !reads_start(setup, learner.objectives.needs()));
    let model = match start {
        Some(earlier) => earlier.model.clone(),
        None => model_source(setup.model_folder.as_deref())?,
    };
    // These files are read even if the weights are not.
    let files = setup.model_folder.is_some().then(|| setup.config.files.iter().map(source).collect());
    let model = ModelSource { files, ..model };
    let mut hub = serde_json::to_value(experiment).map(|all| hub::commits_of(&all, &bases)).unwrap_or_default();
    // The bases of models in the checkpoint were not searched for.
    for (name, commit) in earlier.into_iter().flat_map(|earlier| &earlier.hub) {
        hub.entry(name.clone()).or_insert_with(|| commit.clone());
    }
    Ok(Receipt {
        telos: Build::this(),
        rules: RULES,
        command: std::env::args().collect(),
        seed: experiment.seed,
        backend: BackendUse {
            plugin: experiment.backend.plugin.clone(),
            device: experiment.backend.device.clone(),
            dtype: dtype(experiment.backend.dtype).to_string(),
            threads: threads(experiment.backend.threads),
            threads_matter: setup.threads_matter(),
            instruction_set: setup.instruction_set(),
        },
        plugins: setup.plugins.clone(),
        model,
        roles,
        tokenizer_sha256: setup.tokenizer.hash(),
        tokenizer_files: Some(setup.tokenizer.read_from().iter().map(source).collect()),
        data: data.sources.iter().chain(learner.auxiliary.iter().flat_map(|one| &one.sources)).map(source).collect(),
        hub,
        rows: data.rows.clone(),
        unpinned: setup.lock.unpinned().to_vec(),
        replaced: Vec::new(),
        changed: Vec::new(),
        unproved: Vec::new(),
    })
}

fn source(of: &Source) -> DataSource {
    DataSource { path: hub::shown(&of.path), bytes: of.bytes, sha256: of.sha256.clone() }
}

/// Returns the source of the weights of a role, and the folder of those under them if they are an adapter. The run's own adapter is put
/// over the weights of `model.from`, whatever base its files name.
fn role_source(role: &str, folder: Option<&Path>) -> Result<(ModelSource, Option<PathBuf>)> {
    let own = model_source(folder)?;
    let Some(folder) = folder.filter(|_| role != "adapter") else { return Ok((own, None)) };
    let base = base_of(folder)?;
    if base == folder {
        return Ok((own, None));
    }
    let base_sha256 = model_source(Some(&base))?.sha256;
    Ok((ModelSource { base_sha256, ..own }, Some(base)))
}

/// Returns the place of the frozen weights under the adapter of a role whose model is in the run's checkpoints: the checkpoint does not
/// contain them.
fn base_in_checkpoint<'a>(learner: &'a Learner, role: &str) -> Option<&'a Path> {
    let roles = &learner.roles;
    let model = match role {
        "critic" => roles.critic.as_ref().map(|critic| &critic.model),
        "reference" => roles.reference.as_ref().and_then(|reference| reference.model.as_ref()),
        _ => None,
    };
    model.and_then(Model::base_folder)
}

/// Returns the source of a role whose adapter in the checkpoint is now over weights with this hash: they are those of the role itself,
/// or those under it if it is an adapter.
fn over(saved: &ModelSource, base: Option<String>) -> ModelSource {
    let is_config = |file: &DataSource| Path::new(&file.path).ends_with(ADAPTER_CONFIG);
    let began_as_adapter = |files: &Vec<DataSource>| saved.base_sha256.is_some() || files.iter().any(is_config);
    match saved.files.as_ref().map(began_as_adapter) {
        Some(true) => ModelSource { base_sha256: base, ..saved.clone() },
        Some(false) => ModelSource { sha256: base, ..saved.clone() },
        // An older receipt does not record which of the two.
        None => saved.clone(),
    }
}

/// Returns the source of the weights that are now in `folder`; without a folder, of fresh ones.
///
/// # Errors
/// No weights, or files that cannot be read.
pub fn model_source(folder: Option<&Path>) -> Result<ModelSource> {
    let Some(folder) = folder else {
        return Ok(ModelSource { from: None, sha256: None, base_sha256: None, files: None });
    };
    Ok(ModelSource {
        from: Some(hub::shown(folder)),
        sha256: Some(weights_sha256(folder)?),
        base_sha256: None,
        files: None,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Catches a teacher or reward that is an adapter and whose base was replaced, and the base that the run's own adapter names in its
    /// file, which the run does not read.
    #[test]
    fn the_base_of_a_role_counts() {
        let folder = tempfile::tempdir().unwrap();
        let [adapter, base] = ["peft", "base"].map(|name| folder.path().join(name));
        [&adapter, &base].iter().for_each(|place| fs::create_dir(place).unwrap());
        let config = r#"{"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["q_proj"],
            "base_model_name_or_path": "../base"}"#;
        fs::write(adapter.join("adapter_config.json"), config).unwrap();
        fs::write(adapter.join("adapter_model.safetensors"), "abc").unwrap();
        let of = |role: &str, place: &Path| {
            let (source, base) = role_source(role, Some(place)).unwrap();
            (source.sha256.unwrap(), source.base_sha256, base.is_some())
        };
        fs::write(base.join("model.safetensors"), "de").unwrap();
        let first = of("teacher", &adapter);
        assert!(first.1.is_some() && first.2, "{first:?}");
        fs::write(base.join("model.safetensors"), "df").unwrap();
        let second = of("teacher", &adapter);
        assert!(first.0 == second.0 && first.1 != second.1, "{first:?} {second:?}");
        assert_eq!(of("teacher", &base).1, None);
        assert_eq!(of("adapter", &adapter), (first.0, None, false));
    }

    /// Catches a resumed critic or reference whose adapter is put over weights that were replaced or that are those of a later
    /// checkpoint, whether the run began with an adapter or made one.
    #[test]
    fn a_saved_adapter_is_compared_with_the_weights_under_it() {
        let file = |path: &str| DataSource { path: path.to_owned(), bytes: 1, sha256: "cc".to_owned() };
        let source = |base_sha256: Option<&str>, files: Option<&str>| ModelSource {
            from: Some("runs/rm".to_owned()),
            sha256: Some("aa".to_owned()),
            base_sha256: base_sha256.map(str::to_owned),
            files: files.map(|path| vec![file(path)]),
        };
        let now = |saved: &ModelSource| {
            let ModelSource { sha256, base_sha256, .. } = over(saved, Some("now".to_owned()));
            (sha256.unwrap(), base_sha256)
        };
        let (own, base) = ("aa".to_owned(), Some("now".to_owned()));
        assert_eq!(now(&source(Some("bb"), Some("runs/rm/adapter_config.json"))), (own.clone(), base.clone()));
        assert_eq!(now(&source(None, Some("runs/rm/config.json"))), ("now".to_owned(), None));
        // Older receipts, whose comparison leaves out what they do not record.
        assert_eq!(now(&source(None, Some("runs/rm/adapter_config.json"))), (own.clone(), base));
        assert_eq!(now(&source(None, None)), (own, None));
    }
}
