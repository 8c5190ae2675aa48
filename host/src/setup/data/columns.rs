//! The columns that an experiment reads, so that others can be reported.

use std::collections::BTreeSet;

use plugin_api::manifest::ObjectiveManifest;

use crate::{error::Result, runs::breadcrumb, setup::Setup};

impl Setup {
    /// Whether an objective's description names this column, as `NAME` or column.NAME.
    pub(super) fn names_column(&self, name: &str) -> bool {
        let texts = |manifest: &ObjectiveManifest| {
            let terms = manifest.terms.iter().map(|term| &term.meaning);
            let options = manifest.options.iter().map(|option| &option.meaning);
            let texts = [&manifest.summary, &manifest.formula].into_iter().chain(terms).chain(options);
            texts.cloned().collect::<Vec<_>>().join("\n")
        };
        let plain = format!("column.{name}");
        let is_named = |text: String| {
            let ends = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
            text.contains(&format!("`{name}`")) || text.split(&plain).skip(1).any(ends)
        };
        self.objectives.iter().any(|(_, manifest)| is_named(texts(manifest)))
    }

    /// Columns that the split reads, that rewards declare, or that an option names.
    pub(super) fn read_columns(&self) -> Result<BTreeSet<String>> {
        let experiment = self.experiment();
        let mut read: BTreeSet<String> = experiment.data.source().split_columns().into_iter().collect();
        read.extend(experiment.context.as_ref().map(|table| table.prompt.clone()));
        for library in &self.rewards {
            let manifest = breadcrumb::within(&library.info().id, "manifest", || library.reward_manifest())?;
            read.extend(manifest.declared_columns().into_iter().map(|column| column.name));
            read.extend(manifest.columns);
        }
        let of_objectives = experiment.objective.iter().flat_map(|objective| objective.options.values());
        let of_rewards = experiment.reward.iter().flat_map(|reward| reward.options.values());
        for option in of_rewards.chain(of_objectives) {
            let list = option.as_array().map(Vec::as_slice).unwrap_or(std::slice::from_ref(option));
            read.extend(list.iter().filter_map(|value| value.as_str()).map(str::to_owned));
        }
        Ok(read)
    }
}
