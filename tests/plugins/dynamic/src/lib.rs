//! Dynamic sampling for tests: REINFORCE on groups whose rewards differ, with metrics of everything that rollouts give. With r the
//! rewards of the answers to one prompt (a group), for a supervised token t of answer s
//!
//! ```text
//! policy[t] = -(r[s] - mean r - 0.01 baseline) logp[t]
//! baseline  = 0.9 baseline + 0.1 (mean reward of the rollout), updated once per rollout
//! ```
//!
//! Groups of equal rewards are dropped, and prompts are requested until `groups` groups are left. The advantage is an array of
//! `prepare`, so that the answers to a prompt may be cut apart. The state is the number of rollouts and the baseline.

mod spelled;

use plugin_api::{batch::names, prelude::*};

pub use spelled::Spelled;

/// Per sequence, from `prepare`.
const ADVANTAGE: &str = "advantage";
/// Per token, from `prepare`: `sampler.logp` minus `logp`, both of the policy that answered.
const GAP: &str = "gap";
/// Per token, from `prepare`: `sampler.entropy` minus `entropy`.
const ENTROPY_GAP: &str = "entropy_gap";
/// Per sequence, from `prepare`: rollouts so far, this one included.
const ROLLOUTS: &str = "rollouts";
/// Per sequence, from `prepare`: the sum of `reward.NAME.token`, minus `reward.NAME`.
const SPANS: &str = "spans";
/// Per sequence, from `prepare`: [`list_gap`].
const LIST_GAP: &str = "list_gap";

options! {
    /// Options.
    pub struct Config {
        /// Groups of different rewards that a rollout must have; 0 drops nothing.
        groups: i64 = 0, from 0;
        /// Answers to a prompt that are needed at least.
        least: i64 = 2, from 1;
        /// Name of a reward whose array per token is summed; empty: none.
        steps_of: String = "".into();
    }
}

/// The objective.
pub struct Dynamic {
    config: Config,
    rollouts: u32,
    baseline: f64,
}

impl ObjectivePlugin for Dynamic {
    type Options = Config;

    fn manifest() -> ObjectiveManifest {
        let smallest = |name, meaning| MetricSpec::new(name, Reduction::MIN, meaning);
        let largest = |name, meaning| MetricSpec::new(name, Reduction::MAX, meaning);
        ObjectiveManifest {
            summary: "REINFORCE on groups whose rewards differ, for tests".into(),
            formula: "-(r - mean r - 0.01 baseline) logp".into(),
            paper: "Yu et al. 2025, arXiv 2503.14476, for the sampling".into(),
            data: DataKind::PROMPT,
            terms: vec![TermSpec::new("policy", Normaliser::SUPERVISED_TOKENS, "The surrogate")],
            metrics: vec![
                smallest("gap_min", "Smallest `sampler.logp` - `logp` at the rollout"),
                largest("gap_max", "Largest `sampler.logp` - `logp` at the rollout"),
                smallest("entropy_gap_min", "Smallest `sampler.entropy` - `entropy` at the rollout"),
                largest("entropy_gap_max", "Largest `sampler.entropy` - `entropy` at the rollout"),
                largest("drawn_at", "`sampler.step`"),
                largest("rollouts", "Rollouts so far"),
                largest("groups", "The largest number of a group"),
                smallest("spans_min", "Smallest sum of an answer's tokens minus its score; there only with `steps_of`"),
                largest("spans_max", "Largest sum of an answer's tokens minus its score; there only with `steps_of`"),
                largest("list_gap", "Distance of the list `marks` from what the column `n` says; there only with both"),
            ],
            ..Default::default()
        }
    }

    fn create(config: Config) -> Result<Self> {
        Ok(Dynamic { config, rollouts: 0, baseline: 0.0 })
    }
}

impl Objective for Dynamic {
    fn requirements(&self) -> Result<Requirements> {
        let statistics = ["logp", "entropy", names::SAMPLER_LOGP, names::SAMPLER_ENTROPY];
        Ok(Requirements { samples: self.config.least as u64, whole_groups: false, ..Requirements::reading(statistics) })
    }

    fn prepare(&mut self, rollout: &Batch<'_>) -> Result<Batch<'static>> {
        let (mask, reward, group) = (rollout.mask()?, rollout.get(names::REWARD)?, rollout.get(names::GROUP)?);
        let difference = |own: &str, policy: &str| -> Result<Vec<f64>> {
            let pairs = rollout.get(own)?.iter().zip(rollout.get(policy)?).zip(mask);
            Ok(pairs.map(|((own, policy), mask)| if *mask == 1.0 { own - policy } else { 0.0 }).collect())
        };
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
        let members =
            |s: usize| (0..group.len()).filter(move |other| group[*other] == group[s]).map(|other| reward[other]);
        let is_kept = |s: &usize| self.config.groups == 0 || members(*s).any(|other| other != reward[*s]);
        let keep: Vec<f64> = (0..group.len()).map(|s| f64::from(is_kept(&s))).collect();
        let mut kept: Vec<u64> = (0..group.len()).filter(is_kept).map(|s| group[s].to_bits()).collect();
        kept.sort_unstable();
        kept.dedup();
        self.rollouts += 1;
        self.baseline = 0.9 * self.baseline + 0.1 * mean(reward);
        let advantage = |s: usize| reward[s] - mean(&members(s).collect::<Vec<f64>>()) - 0.01 * self.baseline;
        let mut made = Batch::new()
            .with(ADVANTAGE, Scope::SEQUENCE, (0..group.len()).map(advantage).collect::<Vec<f64>>())
            .with(GAP, Scope::TOKEN, difference(names::SAMPLER_LOGP, "logp")?)
            .with(ENTROPY_GAP, Scope::TOKEN, difference(names::SAMPLER_ENTROPY, "entropy")?)
            .with(ROLLOUTS, Scope::SEQUENCE, vec![f64::from(self.rollouts); group.len()]);
        if !self.config.steps_of.is_empty() {
            let array = format!("{}{}.token", names::REWARD_OF, self.config.steps_of);
            let (tokens, offsets) = (rollout.get(&array)?, rollout.offsets()?);
            let scores = rollout.get(&format!("{}{}", names::REWARD_OF, self.config.steps_of))?;
            let sums = offsets.windows(2).map(|ends| tokens[ends[0]..ends[1]].iter().sum::<f64>());
            let differences: Vec<f64> = sums.zip(scores).map(|(sum, score)| sum - score).collect();
            made = made.with(SPANS, Scope::SEQUENCE, differences);
        }
        if let Some(gaps) = list_gap(rollout)? {
            made = made.with(LIST_GAP, Scope::SEQUENCE, gaps);
        }
        if self.config.groups == 0 {
            return Ok(made);
        }
        let request = (self.config.groups as usize).saturating_sub(kept.len()) as f64;
        Ok(made.with(names::KEEP, Scope::SEQUENCE, keep).with(names::REQUEST, Scope::BATCH, vec![request]))
    }

    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        let (tape, mask) = (batch.tape()?, batch.mask()?);
        let policy = -(batch.var(&tape, "logp")? * batch.var(&tape, ADVANTAGE)?.to_tokens()).masked_sum(mask);
        let mut loss = Loss::new().term(&tape, "policy", 1.0, policy)?;
        for (name, array) in [("gap", GAP), ("entropy_gap", ENTROPY_GAP)] {
            let values = batch.get(array)?.iter().zip(mask).filter(|(_, mask)| **mask == 1.0).map(|(value, _)| *value);
            loss = extremes(loss, name, values);
        }
        for (name, array) in [("drawn_at", names::SAMPLER_STEP), ("rollouts", ROLLOUTS), ("groups", names::GROUP)] {
            loss = largest(loss, name, batch.get(array)?.iter().copied());
        }
        if let Some(now) = list_gap(batch)? {
            loss = largest(loss, LIST_GAP, now.iter().chain(batch.get(LIST_GAP)?).copied());
        }
        match batch.find(SPANS) {
            Some(spans) => Ok(extremes(loss, "spans", spans.data.iter().copied())),
            None => Ok(loss),
        }
    }

    fn state(&self) -> Result<Vec<u8>> {
        Ok([&self.rollouts.to_le_bytes()[..], &self.baseline.to_le_bytes()].concat())
    }

    fn restore(&mut self, state: &[u8]) -> Result<()> {
        let refused = || Error::new(Code::STATE, format!("{} bytes of state, expected 12", state.len()));
        let (rollouts, baseline) = state.split_at_checked(4).ok_or_else(refused)?;
        self.rollouts = u32::from_le_bytes(rollouts.try_into().map_err(|_| refused())?);
        self.baseline = f64::from_le_bytes(baseline.try_into().map_err(|_| refused())?);
        Ok(())
    }
}

/// Per sequence, the distance of the sum of its list `marks`, n % 3 times the number n, from what it is by the column `n`.
fn list_gap(batch: &Batch<'_>) -> Result<Option<Vec<f64>>> {
    if batch.find("column.marks").is_none() {
        return Ok(None);
    }
    let (mut marks, lengths) = (batch.column("marks")?.iter(), batch.lengths("column.marks")?);
    let gap = |(length, n): (usize, &f64)| (marks.by_ref().take(length).sum::<f64>() - n * (n % 3.0)).abs();
    Ok(Some(lengths.into_iter().zip(batch.column("n")?).map(gap).collect()))
}

fn extremes(loss: Loss, name: &str, values: impl Iterator<Item = f64> + Clone) -> Loss {
    let least = values.clone().fold(f64::INFINITY, f64::min);
    let loss = if least.is_finite() { loss.metric(&format!("{name}_min"), least, 1.0) } else { loss };
    largest(loss, &format!("{name}_max"), values)
}

fn largest(loss: Loss, name: &str, values: impl Iterator<Item = f64>) -> Loss {
    let most = values.fold(f64::NEG_INFINITY, f64::max);
    if most.is_finite() { loss.metric(name, most, 1.0) } else { loss }
}

export_objective!("dynamic", Dynamic);
