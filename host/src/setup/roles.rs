//! The models other than the policy that an experiment names.

use super::Setup;
use crate::config::experiment::{Model as ModelSource, POLICY, ReferenceAdapter, RewardSource, SELF, SHARED};

impl Setup {
    /// The models that the experiment names in addition to `model.from`, by role.
    pub fn role_paths(&self) -> Vec<(String, &str)> {
        let experiment = self.experiment();
        let reference = experiment.reference.as_ref().map(|table| ("reference".to_owned(), table.from.as_str()));
        let teacher = experiment.teacher.as_ref().map(|table| ("teacher".to_owned(), table.from.as_str()));
        let context = experiment.context.as_ref().map(|table| ("context".to_owned(), table.from.as_str()));
        let critic = experiment.critic.as_ref().map(|table| ("critic".to_owned(), table.from.as_str()));
        let rewards = experiment.reward.iter().enumerate().filter_map(|(index, reward)| match &reward.source {
            RewardSource::Model { model } => Some((format!("reward.{index}"), model.as_str())),
            RewardSource::Plugin { .. } => None,
        });
        let adapter = match &experiment.model {
            ModelSource::From { adapter: Some(path), .. } => Some(("adapter".to_owned(), path.as_str())),
            _ => None,
        };
        let reference = adapter.into_iter().chain(reference);
        let named = reference.chain(teacher).chain(context).chain(critic).chain(rewards);
        named.filter(|(_, path)| ![SELF, POLICY, SHARED].contains(path)).collect()
    }

    /// Whether checkpoints contain the model of this role, so that a resumed run does not read it from the path in the
    /// experiment.
    pub fn is_saved(&self, role: &str) -> bool {
        let follows = || self.experiment().reference.as_ref().is_some_and(|table| table.follow.is_some());
        let starts = || {
            let adapter = self.experiment().reference.as_ref().and_then(|table| table.adapter);
            adapter == Some(ReferenceAdapter::Start) && !follows()
        };
        role == "critic" || role == "reference" && follows() || role == "adapter" && !starts()
    }
}
