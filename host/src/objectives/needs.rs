//! What the objectives together read and need: models, statistics, candidates, whole groups and windows.

use plugin_api::{
    batch::names,
    manifest::{Candidates, DataKind, Divergence},
    objective::role_of,
};

use super::{
    Objectives,
    active::Active,
    reads::{self, Frozen, RoleReads},
};
use crate::{data::PackedBatch, model::Statistics};

/// Which models the objectives need, and which of the policy's outputs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// Any statistic of the language-model head; a reward model or a critic has no such head.
    pub tokens: bool,
    /// The scalar head's score of a sequence.
    pub score: bool,
    /// The scalar head's scores of tokens.
    pub token_score: bool,
    /// A statistic of the frozen reference.
    pub reference: bool,
    /// More of the reference than its log-probabilities of the targets, so that it runs in every step.
    pub reference_in_step: bool,
    /// A statistic of the teacher.
    pub teacher: bool,
    /// A statistic of the model that reads the same answers behind other prompts.
    pub context: bool,
    /// A critic's values.
    pub critic: bool,
    /// Rollouts: rows are prompts, and the policy answers them first.
    pub rollouts: bool,
}

impl Needs {
    /// Whether an objective reads at the end of a sequence, so that its last token is read too.
    pub fn reads_last(self) -> bool {
        self.score || self.token_score || self.critic
    }

    /// Whether a statistic of this frozen role is read.
    pub fn frozen(self, role: Frozen) -> bool {
        match role {
            Frozen::Reference => self.reference,
            Frozen::Teacher => self.teacher,
            Frozen::Context => self.context,
        }
    }
}

impl Objectives {
    /// Whether all cotangents of these micro-batches can be computed before any model runs: then a batch must have what is read of
    /// the reference.
    pub fn knows_cotangents(&self, window: &[PackedBatch]) -> bool {
        let has_reference = |packed: &PackedBatch| packed.per_token.contains_key(names::REFERENCE_LOGP);
        self.linear() && (!self.needs().reference || window.iter().all(has_reference))
    }

    /// Whether the losses let all cotangents be known before the head runs.
    fn linear(&self) -> bool {
        let needs = self.needs();
        let alone = needs.tokens && !needs.score && !needs.token_score && !needs.critic && !needs.rollouts;
        let in_step = needs.reference_in_step || needs.teacher || needs.context || self.reads(None).of_candidates();
        alone && !in_step && self.0.iter().all(|a| a.requirements.linear && !a.couples() && !a.reads("entropy"))
    }

    /// Returns which models and outputs the objectives need.
    pub fn needs(&self) -> Needs {
        let any = |name: &str| self.0.iter().any(|a| a.reads(name));
        let (policy, [reference, teacher, context]) =
            (self.reads(None), Frozen::ALL.map(|role| (self.reads(Some(role)), self.candidates_from(role))));
        let compares = [reference.0, teacher.0, context.0].iter().any(|reads| reads.kl);
        let own_ids = self.candidates().is_some_and(|candidates| candidates.from == reads::POLICY);
        let beyond_logp = RoleReads { head: false, ..reference.0 }.any() || reference.0.statistics.any() || reference.1;
        Needs {
            tokens: policy.any() || compares || own_ids,
            score: any(names::SCORE),
            token_score: any(names::TOKEN_SCORE),
            reference: reference.0.any() || reference.1,
            reference_in_step: beyond_logp,
            teacher: teacher.0.any() || teacher.1,
            context: context.0.any() || context.1,
            critic: any(names::CRITIC_VALUE) || any(names::CRITIC_VALUE_END),
            rollouts: self.0.iter().any(|a| a.manifest.data == DataKind::PROMPT),
        }
    }

    /// Whether any objective requires the statistic of this name.
    pub fn requires(&self, statistic: &str) -> bool {
        self.0.iter().any(|active| active.reads(statistic))
    }

    /// Whether all answers to a prompt must be in one micro-batch.
    pub fn whole_groups(&self) -> bool {
        self.0.iter().any(|active| active.requirements.whole_groups)
    }

    /// Returns what the objectives read of a frozen role; `None`: of the policy.
    pub fn reads(&self, role: Option<Frozen>) -> RoleReads {
        let any = |name: &str| self.0.iter().any(|active| active.reads(name));
        match role {
            None => RoleReads::of(any),
            Some(role) => RoleReads::of(|base| any(&role.statistic(base))),
        }
    }

    /// Returns which divergence the statistics `ROLE.kl` are.
    pub fn divergence(&self) -> Option<Divergence> {
        self.0.iter().find_map(|active| active.requirements.divergence)
    }

    /// Whether any model's probability of all ids that are not candidates is read.
    pub fn reads_tail(&self) -> bool {
        self.0.iter().any(|active| active.requirements.statistics.iter().any(|name| role_of(name).1 == reads::TAIL))
    }

    /// Returns which ids the statistics `candidates` and `tail` are about.
    pub fn candidates(&self) -> Option<&Candidates> {
        self.0.iter().find_map(|active| active.requirements.candidates.as_ref())
    }

    /// Returns the first objective that reads this role, and what it reads; empty if none does.
    pub fn reader_of(&self, role: &str) -> (String, String) {
        let read = |active: &Active| {
            let own = active.requirements.statistics.iter().find(|name| role_of(name).0 == role);
            let from = active.requirements.candidates.as_ref().filter(|candidates| candidates.from == role);
            let what = own.map(|name| format!("`{name}`")).or(from.map(|_| "candidates of that role".to_owned()))?;
            Some((active.id.clone(), what))
        };
        self.0.iter().find_map(read).unwrap_or_default()
    }

    /// Whether the candidates are the ids that this role finds most probable.
    fn candidates_from(&self, role: Frozen) -> bool {
        self.candidates().is_some_and(|candidates| candidates.from == role.name())
    }

    /// Whether any loss couples the whole window.
    pub fn coupled(&self) -> bool {
        self.0.iter().any(Active::couples)
    }

    /// Returns the statistics that the head must compute. The largest logit is always included, since every run reports token
    /// accuracy.
    pub fn statistics(&self) -> Statistics {
        let read = Statistics::of(|name| self.0.iter().any(|a| a.reads(name)));
        Statistics { top1: true, ..read }
    }

    /// Whether an objective's `prepare` reads the statistics of the whole window.
    pub fn reads_window(&self) -> bool {
        self.0.iter().any(|active| active.requirements.window_statistics)
    }
}
