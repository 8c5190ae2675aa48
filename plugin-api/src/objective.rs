//! The objective contract: from numbers per token to a loss and its cotangents.
//!
//! An objective never gets logits, models or devices. It opens no file, reads no clock and draws no random number of its own. Its
//! calls come in this order: `create`; once per window `compose` (if it has one), `prepare` (with rollouts once per rollout, and again
//! after a `request`), `weigh` (if a term has a custom normaliser), `loss` per micro-batch, `after_step`; `requirements` at any time.
//! Only `prepare` and `after_step` may change its state, so that a window can
//! be split into micro-batches anywhere. All calls come from one thread.
//!
//! Before the first step the host tries a batch: it calls `compose`, `prepare`, `weigh` and `loss` with the longest rows of the
//! data, and restores the state. Prompts have made-up answers there (as many per prompt as the experiment samples), with rewards
//! of 0, 0.5 and 1; every second answer ended. The parts of rewards and their numbers per token are made up too, each by itself.

use crate::{
    Result,
    batch::Batch,
    manifest::{ObjectiveManifest, Requirements, Statistic},
    options::OptionSet,
};

/// An objective with its options.
pub trait Objective {
    /// Returns the statistics that this instance reads, and what else it needs. It depends on the options alone: the host ends a run in
    /// which it changes.
    ///
    /// # Errors
    /// The plugin's own.
    fn requirements(&self) -> Result<Requirements> {
        Ok(Requirements::default())
    }

    /// Makes sequences from tokenised rows, before the forward pass; `None` selects the host's default for the data kind.
    ///
    /// A table in the [crate's documentation](crate#which-arrays-there-are) lists the arrays that go in and come out. The sequences
    /// that go in are parts of rows: `part` is 0 for a text, 1 for a prompt, 2 for a completion from its first supervised token on,
    /// 3 for a chosen and 4 for a rejected answer. Arrays of other names than the host's reach `prepare`, `weigh` and `loss`; entry i
    /// per token belongs to token i, and the host shifts.
    ///
    /// Ids are within the vocabulary. The parts of a row are put together: a sequence has at least two tokens, one of them behind
    /// the first one and with `mask` 1, and at most as many as the array `longest` says; `mask`, `side` and `counted` are 0 or 1;
    /// each `row` is one of those given. Not called for prompts. The host refuses everything that [`crate::contract::composed`]
    /// lists.
    ///
    /// # Errors
    /// The plugin's own.
    fn compose(&self, rows: &Batch<'_>, seed: u64) -> Result<Option<Batch<'static>>> {
        let _ = (rows, seed);
        Ok(None)
    }

    /// Computes over the whole window or rollout before it is split: shaped rewards, advantages, whitening. The arrays returned
    /// are added to this objective's batches: per token or sequence of the window, without rollouts also per batch. All numbers must
    /// be finite, except those of tokens whose mask is 0. The host refuses names of its own arrays (`mask`, `group`, `reward`,
    /// `column.NAME` ...) and everything else that [`crate::contract::prepared`] lists. What it returns is constant in the gradient, also
    /// where it read statistics ([`Requirements::window_statistics`]). Also called for batches that are only
    /// evaluated; the state is restored afterwards.
    ///
    /// With rollouts two more arrays have a meaning. `keep` (per sequence, 0 or 1) drops answers; if nothing is left in the end,
    /// the run fails. `request` ([`Scope::BATCH`](crate::batch::Scope::BATCH), one whole number from 0) asks for so many more
    /// prompts. The host then draws answers to that many further prompts, puts the instance back into the state that it had before
    /// the rollout, and calls `prepare` again, as if all had been drawn at once: with the answers to each prompt of which one answer
    /// was kept, and with the new ones. Their statistics are those of the same policy, and their groups have different numbers. A
    /// prompt of which no answer was kept does not come back; the others come back with all of their answers, so that means over
    /// groups do not change. This repeats until nothing is requested, the experiment's `rollout.max_prompts` have been drawn, or
    /// the data has ended; the last call's results then count, so every call must return results for what it was given. If several
    /// objectives request prompts, the largest number counts.
    ///
    /// ```
    /// use plugin_api::prelude::*;
    /// # struct Dynamic { groups: usize }
    /// # impl Objective for Dynamic {
    ///
    /// /// Keeps groups whose rewards differ, and asks for more until there are enough of them.
    /// fn prepare(&mut self, rollout: &Batch<'_>) -> Result<Batch<'static>> {
    ///     let (reward, group) = (rollout.get("reward")?, rollout.get("group")?);
    ///     let differs = |s: usize| (0..group.len()).any(|other| group[other] == group[s] && reward[other] != reward[s]);
    ///     let keep: Vec<f64> = (0..group.len()).map(|s| f64::from(differs(s))).collect();
    ///     let mut kept: Vec<u64> = (0..group.len()).filter(|s| keep[*s] == 1.0).map(|s| group[s].to_bits()).collect();
    ///     kept.dedup();
    ///     let request = self.groups.saturating_sub(kept.len()) as f64;
    ///     Ok(Batch::new().with("keep", Scope::SEQUENCE, keep).with("request", Scope::BATCH, vec![request]))
    /// }
    /// #   fn loss(&self, _: &Batch<'_>) -> Result<Loss> { Ok(Loss::new()) }
    /// # }
    /// let rollout = Batch::new().with("reward", Scope::SEQUENCE, vec![1.0, 0.0, 1.0, 1.0]);
    /// let made = Dynamic { groups: 2 }.prepare(&rollout.with("group", Scope::SEQUENCE, vec![0.0, 0.0, 1.0, 1.0]))?;
    /// assert_eq!((made.get("keep")?, made.get("request")?), (&[1.0, 1.0, 0.0, 0.0][..], &[1.0][..]));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// The plugin's own.
    fn prepare(&mut self, rollouts: &Batch<'_>) -> Result<Batch<'static>> {
        let _ = rollouts;
        Ok(Batch::new())
    }

    /// Returns a micro-batch's share of each custom normaliser, by term name; it depends only on data and `prepare`. Every such
    /// term is returned once, with a number of at least 0. If the shares of a window add up to 0, the term's sum must be 0 too.
    ///
    /// # Errors
    /// The plugin's own.
    fn weigh(&self, batch: &Batch<'_>) -> Result<Vec<(String, f64)>> {
        let _ = batch;
        Ok(Vec::new())
    }

    /// Returns the loss of a micro-batch: each term's *sum* (never a mean; 0 for a batch
    /// without sequences, and of a term per supervised token for one without such tokens) and its cotangents. Every term that the options enable is
    /// returned for every batch, once, with a cotangent for each statistic that it depends on, and none for statistics that are not
    /// required. The host refuses everything that [`crate::contract::loss`] lists.
    ///
    /// # Errors
    /// The plugin's own; [`crate::Code::ARRAY`] for an array that the batch lacks.
    fn loss(&self, batch: &Batch<'_>) -> Result<Loss>;

    /// Called once per window, when its gradient is computed and before the weights are updated; also if they will not be, because
    /// the loss or the gradient is not finite. `metrics` are the window's numbers by name, and nothing else: every term's mean (its
    /// sum over its normaliser), and every metric that `loss` returned, unless its weights add up to 0. They may be NaN. The
    /// verdict takes effect after the update. [`Verdict::END_ROLLOUT`] is refused without rollouts.
    ///
    /// # Errors
    /// The plugin's own.
    fn after_step(&mut self, metrics: &[(String, f64)]) -> Result<Verdict> {
        let _ = metrics;
        Ok(Verdict::CONTINUE)
    }

    /// The state that `prepare` and `after_step` change, as bytes; empty for an objective without state. An objective with a state
    /// returns it from its creation on, never empty: empty bytes are not given to [`restore`](Objective::restore), and the host
    /// could not put the instance back.
    ///
    /// # Errors
    /// The plugin's own.
    fn state(&self) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    /// Restores saved state, so that a resumed run continues bit for bit: `state` then returns the same bytes.
    ///
    /// ```
    /// use plugin_api::prelude::*;
    ///
    /// struct Baseline { mean: f64 }
    ///
    /// impl Objective for Baseline {
    ///     fn state(&self) -> Result<Vec<u8>> {
    ///         Ok(self.mean.to_le_bytes().to_vec())
    ///     }
    ///
    ///     fn restore(&mut self, state: &[u8]) -> Result<()> {
    ///         let refused = |_| Error::new(Code::STATE, format!("{} bytes of state, expected 8", state.len()));
    ///         self.mean = f64::from_le_bytes(state.try_into().map_err(refused)?);
    ///         Ok(())
    ///     }
    /// #   fn loss(&self, _: &Batch<'_>) -> Result<Loss> { Ok(Loss::new()) }
    /// }
    /// # let mut other = Baseline { mean: 0.0 };
    /// # other.restore(&Baseline { mean: 0.5 }.state()?)?;
    /// # assert!(other.mean == 0.5 && other.restore(b"short").is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`crate::Code::STATE`] for bytes that are not this objective's state.
    fn restore(&mut self, state: &[u8]) -> Result<()> {
        if state.is_empty() {
            return Ok(());
        }
        Err(crate::Error::new(
            crate::Code::STATE,
            format!("{} bytes of state for an objective without state", state.len()),
        ))
    }
}

/// An objective as a plugin: its description and how an instance is created.
pub trait ObjectivePlugin: Objective + Sized + 'static {
    /// Declared by [`options!`](crate::options!); `()` for none.
    type Options: OptionSet;

    /// Returns its description. The export fills in id, version and options.
    fn manifest() -> ObjectiveManifest;

    /// Creates an instance.
    ///
    /// # Errors
    /// [`crate::Code::OPTION`] naming the keys of options that contradict each other.
    fn create(options: Self::Options) -> Result<Self>;
}

/// A term's sum over a micro-batch and the derivative of that sum by each statistic.
#[derive(Debug, Clone, PartialEq)]
pub struct Term {
    /// As declared in the manifest.
    pub name: String,
    /// Its weight in the total loss.
    pub coefficient: f64,
    /// Sum over the micro-batch; the host divides by the window's normaliser.
    pub sum: f64,
    /// By statistic name: d sum / d statistic, without the coefficient; the statistic's length.
    pub cotangents: Vec<(String, Vec<f64>)>,
}

/// A metric's part from one micro-batch.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricPart {
    /// As declared in the manifest.
    pub name: String,
    /// The sum over the micro-batch (MEAN, SUM), or the smallest or largest value (MIN, MAX).
    pub value: f64,
    /// MEAN: what the sum of all `value`s is divided by, together with the other parts' weights, such as the number of tokens. SUM,
    /// MIN and MAX: 1. Of 0, the part is left out.
    pub weight: f64,
}

/// What `loss` returns.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Loss {
    /// Terms.
    pub terms: Vec<Term>,
    /// Metrics, detached.
    pub metrics: Vec<MetricPart>,
}

/// What happens after a step.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict(pub u32);

impl Verdict {
    /// Continue.
    pub const CONTINUE: Verdict = Verdict(0);
    /// End this rollout early and sample the next one.
    pub const END_ROLLOUT: Verdict = Verdict(1);
    /// End the run.
    pub const STOP: Verdict = Verdict(2);
}

/// The role that a statistic is read from, and the statistic's plain name: `reference.logp` is `logp` of the reference, `logp` that of
/// the policy.
pub fn role_of(statistic: &str) -> (&str, &str) {
    statistic.rsplit_once('.').unwrap_or((POLICY, statistic))
}

/// Whether a role's model is trained, so that its statistics may have cotangents.
pub fn trains(role: &str) -> bool {
    [POLICY, "critic"].contains(&role)
}

/// Whether a loss may return cotangents of the statistic of this name: it has a backward, and its gradient is that of a trained
/// model. `ROLE.kl` compares the policy with a frozen role, so that its gradient is the policy's.
pub fn has_gradient(statistic: &str) -> bool {
    let (role, base) = role_of(statistic);
    Statistic::form(statistic).is_some_and(|form| form.differentiable)
        && (trains(role) || base == Statistic::KL.as_str())
}

const POLICY: &str = "policy";

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a prefix that is read as the statistic, and a frozen model with cotangents.
    #[test]
    fn a_statistic_names_its_role() {
        assert_eq!([role_of("logp"), role_of("critic.value")], [("policy", "logp"), ("critic", "value")]);
        assert_eq!(["policy", "critic", "reference", "teacher"].map(trains), [true, true, false, false]);
        let gradients = ["logp", "critic.value", "teacher.kl", "teacher.logp", "top1", "unknown"].map(has_gradient);
        assert_eq!(gradients, [true, true, true, false, false, false]);
    }
}
