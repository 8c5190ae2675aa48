//! What objectives read of each model: the statistics that this host computes, by role.

use plugin_api::{
    batch::names,
    manifest::{Candidates, Requirements},
    objective::role_of,
};

use crate::model::Statistics;

/// The policy's name as a role.
pub const POLICY: &str = "policy";

/// A frozen model whose statistics objectives read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Frozen {
    /// `[reference]`.
    Reference,
    /// `[teacher]`.
    Teacher,
    /// `[context]`.
    Context,
}

impl Frozen {
    /// All of them.
    pub const ALL: [Frozen; 3] = [Frozen::Reference, Frozen::Teacher, Frozen::Context];

    /// The role's name, in statistics and as a table of an experiment.
    pub fn name(self) -> &'static str {
        match self {
            Frozen::Reference => "reference",
            Frozen::Teacher => "teacher",
            Frozen::Context => "context",
        }
    }

    /// The role of this name.
    pub fn of(name: &str) -> Option<Frozen> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }

    /// The name of one of its statistics: `teacher.kl`.
    pub fn statistic(self, base: &str) -> String {
        format!("{}.{base}", self.name())
    }
}

/// Statistic that compares the policy with a frozen role.
pub const KL: &str = "kl";
/// Log-probabilities of the ids that [`Requirements::candidates`] describes.
pub const CANDIDATES: &str = "candidates";
/// Logarithm of the probability of all other ids.
pub const TAIL: &str = "tail";

/// What is read of one model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RoleReads {
    /// A statistic of the language-model head.
    pub head: bool,
    /// Those beyond the log-probability of the target.
    pub statistics: Statistics,
    /// The divergence of the policy from it.
    pub kl: bool,
    /// Log-probabilities of the candidates.
    pub candidates: bool,
    /// Their tail.
    pub tail: bool,
}

impl RoleReads {
    /// What is read of a model if `reads` says whether its statistic of a plain name is read.
    pub fn of(reads: impl Fn(&str) -> bool) -> RoleReads {
        RoleReads {
            head: Statistics::names().any(&reads),
            statistics: Statistics::of(&reads),
            kl: reads(KL),
            candidates: reads(CANDIDATES),
            tail: reads(TAIL),
        }
    }

    /// Whether anything is read.
    pub fn any(self) -> bool {
        self.head || self.kl || self.of_candidates()
    }

    /// Whether log-probabilities of candidates or their tail are read.
    pub fn of_candidates(self) -> bool {
        self.candidates || self.tail
    }
}

/// Statistics of a frozen role: those of its head that have a value at every target, and those that compare.
fn of_frozen(role: Frozen) -> impl Iterator<Item = String> {
    let bases = Statistics::DIFFERENTIABLE.into_iter().chain([KL, CANDIDATES, TAIL]);
    bases.map(move |base| role.statistic(base))
}

/// Returns the statistics of language-model heads that this host computes, by name.
pub fn of_heads() -> impl Iterator<Item = String> {
    let own = Statistics::names().chain([CANDIDATES, TAIL]).map(str::to_owned);
    own.chain(Frozen::ALL.into_iter().flat_map(of_frozen))
}

/// Returns why this host cannot meet what an instance requires of roles: a statistic of an unknown role, or candidates from one.
pub fn unknown_role(requirements: &Requirements) -> Option<String> {
    let known = || Frozen::ALL.map(Frozen::name).join(", ");
    for name in &requirements.statistics {
        let (role, _) = role_of(name);
        if ![POLICY, "critic", "sampler"].contains(&role) && Frozen::of(role).is_none() {
            return Some(format!("reads `{name}` of an unknown role `{role}`; there are {}, critic, sampler", known()));
        }
    }
    let from = &requirements.candidates.as_ref()?.from;
    let is_known = [POLICY, Candidates::COMPOSED].contains(&from.as_str()) || Frozen::of(from).is_some();
    (!is_known).then(|| {
        let known = format!("{POLICY}, {}, {}", known(), Candidates::COMPOSED);
        format!("takes its candidates from an unknown role `{from}`; expected one of {known}")
    })
}

/// Whether an objective with these requirements reads at the end of a sequence.
pub fn reads_last(requirements: &Requirements) -> bool {
    let at_ends = [names::SCORE, names::TOKEN_SCORE, names::CRITIC_VALUE, names::CRITIC_VALUE_END];
    requirements.statistics.iter().any(|name| at_ends.contains(&name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a statistic that is computed for one role but not offered for another, and a plain `kl`.
    #[test]
    fn every_frozen_role_offers_the_same_statistics() {
        let offered: Vec<String> = of_heads().collect();
        for role in Frozen::ALL {
            for base in ["logp", "lse", "entropy", "mean_logit", "kl", "candidates", "tail"] {
                assert!(offered.contains(&role.statistic(base)), "{} {base}", role.name());
            }
            assert!(!offered.contains(&role.statistic("top1")));
            assert_eq!(Frozen::of(role.name()), Some(role));
        }
        assert!(offered.contains(&"candidates".to_owned()) && !offered.contains(&"kl".to_owned()));
    }

    /// Catches an unknown role that is accepted, or one that is refused without the list of roles.
    #[test]
    fn unknown_roles_are_refused_with_those_that_exist() {
        let reading = |name: &str| Requirements::reading([name]);
        assert_eq!(unknown_role(&reading("teacher.kl")), None);
        assert_eq!(unknown_role(&reading("logp")), None);
        assert_eq!(unknown_role(&reading("sampler.logp")), None);
        let why = unknown_role(&reading("tutor.kl")).unwrap();
        assert!(why.contains("`tutor`") && why.contains("reference, teacher, context"), "{why}");
        let from = |from: &str| Requirements {
            candidates: Some(Candidates { from: from.to_owned(), count: 2 }),
            ..reading("candidates")
        };
        for known in ["policy", "reference", "teacher", "context", "compose"] {
            assert_eq!(unknown_role(&from(known)), None);
        }
        assert!(unknown_role(&from("critic")).unwrap().contains("`critic`"));
    }
}
