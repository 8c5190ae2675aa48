//! Random batches for the laws: packed, ragged sequences with holes in their masks, and statistics within their ranges.
//!
//! Exactly the arrays that the host gives by data kind: pairs have `group` and `side`, labelled answers `side`, rollouts groups
//! of answers with `reward`, `reward.first` and `reward.second`, whose sum it is, the other arrays of single rewards that the
//! requirements name, `ended` and `sampler.step` (in one group all rewards are equal, one group has a single answer), running
//! text has sequences without tokens and sequences without supervised ones. Every window has `step` and `steps`, and is at
//! another step than the window before. The author adds arrays that only one objective uses, and columns of the data.

use super::{
    candidates::{self, CANDIDATES, Distributions, TAIL, is_frozen},
    extra::Extra,
    sequences,
    values::{Values, base_of, draw, within},
};
use plugin_api::{
    Code, Error, Result,
    batch::{Array, Batch, Scope, names},
    manifest::{DataKind, ObjectiveManifest, Requirements, Statistic},
    objective::{has_gradient, role_of},
};
use std::ops::RangeInclusive;
use telos_random::SplitMix64;

/// Generates batches. The same seed and the same draw give the same batch.
#[derive(Debug, Clone)]
pub struct Generator {
    seed: u64,
    units: usize,
    longest: usize,
    vocabulary: usize,
    /// Candidates per token.
    candidates: usize,
    /// Arrays of single rewards, without `reward.`, besides those of `first` and `second`.
    rewards: Vec<String>,
    extras: Vec<Extra>,
}

/// The column of labelled rows.
const LABEL: &str = "column.label";

/// Optimizer steps of a run, as `steps` says.
const STEPS: u64 = 8;

/// The rewards that every rollout has.
const FIRST_AND_SECOND: [&str; 2] = ["first", "second"];

/// Candidates per token, unless the requirements say otherwise.
const COLUMNS: usize = 3;

impl Generator {
    /// Six units (sequences, pairs, or groups of answers) of up to seven tokens over a vocabulary of 50.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            units: 6,
            longest: 7,
            vocabulary: 50,
            candidates: COLUMNS,
            rewards: Vec::new(),
            extras: Vec::new(),
        }
    }

    /// Sets the number of sequences, pairs or groups (at least 3), and the greatest length (at least 2).
    #[must_use]
    pub fn with_sizes(mut self, units: usize, longest: usize) -> Self {
        (self.units, self.longest) = (units.max(3), longest.max(2));
        self
    }

    /// Sets the number of tokens of the vocabulary, at least 1.
    #[must_use]
    pub fn with_vocabulary(mut self, tokens: usize) -> Self {
        self.vocabulary = tokens.max(1);
        self
    }

    /// Sets the number of candidates per token, at least 1: that of [`Requirements::candidates`](plugin_api::manifest::Requirements).
    #[must_use]
    pub fn with_candidates(mut self, count: usize) -> Self {
        self.candidates = count.max(1);
        self
    }

    /// Sets what an instance requires of its batches: the number of candidates, and the arrays of single rewards.
    pub(in crate::objective) fn for_requirements(&self, requirements: &Requirements) -> Self {
        let own = self.clone();
        let own = match &requirements.candidates {
            Some(candidates) => own.with_candidates(candidates.count as usize),
            None => own,
        };
        let given = |name: &&String| !FIRST_AND_SECOND.contains(&name.as_str());
        Self { rewards: requirements.reward_names.iter().filter(given).cloned().collect(), ..own }
    }

    /// Adds an array of real numbers, such as `column.margin` per sequence.
    #[must_use]
    pub fn with_array(self, name: &str, scope: Scope, range: RangeInclusive<f64>) -> Self {
        self.extra(name, scope, range, false)
    }

    /// Adds a numeric column of the data, per sequence, between 0.5 and 2.
    #[must_use]
    pub fn with_column(self, name: &str) -> Self {
        self.with_array(&format!("{}{name}", names::COLUMN), Scope::SEQUENCE, 0.5..=2.0)
    }

    /// Adds an array of whole numbers, such as flags from 0 to 1.
    #[must_use]
    pub fn with_integers(self, name: &str, scope: Scope, range: RangeInclusive<i32>) -> Self {
        self.extra(name, scope, f64::from(*range.start())..=f64::from(*range.end()), true)
    }

    /// Adds segments: `segment_end`, 1 at some tokens. Add lists that belong to them afterwards.
    #[must_use]
    pub fn with_segments(self) -> Self {
        self.with_integers(names::SEGMENT_END, Scope::TOKEN, 0..=1)
    }

    /// Adds a column of lists: for every segment of a sequence a value, and sometimes one more, as for a truncated answer; without
    /// segments up to three values.
    #[must_use]
    pub fn with_list(self, column: &str, range: RangeInclusive<f64>) -> Self {
        self.with_array(&format!("{}{column}", names::COLUMN), Scope::LIST, range)
    }

    /// The same with another number of sequences, pairs or groups.
    pub(in crate::objective) fn with_units(&self, units: usize) -> Self {
        Self { units, ..self.clone() }
    }

    fn extra(mut self, name: &str, scope: Scope, range: RangeInclusive<f64>, whole: bool) -> Self {
        self.extras.push(Extra { name: name.to_owned(), scope, low: *range.start(), high: *range.end(), whole });
        self
    }

    /// Number of tokens of the vocabulary.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// The logarithm of the vocabulary's size: the negative log-probability of every token under uniform logits.
    pub fn ln_vocab(&self) -> f64 {
        (self.vocabulary as f64).ln()
    }

    fn rng(&self, purpose: u64, draw: u64) -> SplitMix64 {
        let mut mixed = SplitMix64::new(self.seed ^ draw.rotate_left(32) ^ purpose.rotate_left(56));
        SplitMix64::new(mixed.bits())
    }

    /// A window's data, before any model has been applied.
    pub fn data(&self, manifest: &ObjectiveManifest, draw: u64) -> Batch<'static> {
        let mut rng = self.rng(1, draw);
        let members = self.members(&manifest.data, &mut rng);
        let (mut offsets, mut mask, mut position) = (vec![0.0], Vec::new(), Vec::new());
        for (s, member) in members.iter().enumerate() {
            let labelled = member.group.is_some() || member.side.is_some();
            let tokens = self.supervision(&manifest.data, s, labelled, &mut rng);
            position.extend((0..tokens.len()).map(|p| p as f64));
            mask.extend(tokens);
            offsets.push(mask.len() as f64);
        }
        let target: Vec<f64> = mask.iter().map(|_| rng.below(self.vocabulary) as f64).collect();
        let mut batch = Batch::new()
            .with(names::OFFSETS, Scope::BATCH, offsets)
            .with(names::TARGET, Scope::TOKEN, target)
            .with(names::MASK, Scope::TOKEN, mask)
            .with(names::POSITION, Scope::TOKEN, position);
        for (name, of) in [(names::GROUP, Member::group as fn(&Member) -> _), (names::SIDE, Member::side)] {
            if let Some(values) = members.iter().map(of).collect::<Option<Vec<f64>>>() {
                batch = batch.with(name, Scope::SEQUENCE, values);
            }
        }
        if manifest.data == DataKind::PROMPT {
            batch = self.labelled(batch, draw);
        }
        if manifest.data == DataKind::UNPAIRED {
            // The label is also a column of the row.
            let label = batch.find(names::SIDE).map(|a| a.data.to_vec()).unwrap_or_default();
            batch = batch.with(LABEL, Scope::SEQUENCE, label);
        }
        let batch = at_step(batch, draw);
        self.extras.iter().fold(batch, |batch, extra| extra.add(batch, &mut rng))
    }

    /// Rollouts with what the host adds for each answer: a reward, equal over the first group, and whether it ended.
    fn labelled(&self, batch: Batch<'static>, draw: u64) -> Batch<'static> {
        let mut rng = self.rng(5, draw);
        let groups = batch.find(names::GROUP).map(|a| a.data.to_vec()).unwrap_or_default();
        let mut reward: Vec<f64> = groups.iter().map(|_| rng.between(-1.0, 1.0)).collect();
        let ended: Vec<f64> = groups.iter().map(|_| f64::from(rng.unit() < 0.7)).collect();
        for s in 1..groups.len() {
            if groups[s] == groups[0] {
                reward[s] = reward[0];
            }
        }
        // A share of each reward, the same for equal rewards.
        let first: Vec<f64> = reward.iter().map(|reward| 0.25 * reward * (1.0 + reward)).collect();
        let second: Vec<f64> = reward.iter().zip(&first).map(|(reward, first)| reward - first).collect();
        let step = vec![(10 * draw) as f64; groups.len()];
        let named = |name: &str| format!("{}{name}", names::REWARD_OF);
        let batch = self.rewards.iter().enumerate().fold(batch, |batch, (i, name)| match name.ends_with(".token") {
            true => {
                let tokens = batch.find(names::MASK).map_or(0, |mask| mask.data.len());
                batch.with(named(name), Scope::TOKEN, (0..tokens).map(|_| rng.between(-1.0, 1.0)).collect::<Vec<f64>>())
            }
            // Equal for equal rewards, as `first` and `second` are.
            false => {
                let own = reward.iter().map(|reward| reward * (1.0 + reward / (i + 2) as f64));
                batch.with(named(name), Scope::SEQUENCE, own.collect::<Vec<f64>>())
            }
        });
        batch
            .with(names::REWARD, Scope::SEQUENCE, reward)
            .with(names::ENDED, Scope::SEQUENCE, ended)
            .with(named("first"), Scope::SEQUENCE, first)
            .with(named("second"), Scope::SEQUENCE, second)
            .with(names::SAMPLER_STEP, Scope::SEQUENCE, step)
    }

    /// A window's rows as `compose` reads them: `offsets` over parts, `token` and `mask` per token, `row` and `part` per part,
    /// `longest`, and the columns that were added. In every second window no sequence may be longer than the longest row.
    pub fn rows(&self, manifest: &ObjectiveManifest, draw: u64) -> Batch<'static> {
        let mut rng = self.rng(6, draw);
        let parts: &[f64] = match manifest.data.as_str() {
            "prompt-completion" | "unpaired" => &[1.0, 2.0],
            "preference" => &[1.0, 3.0, 1.0, 4.0],
            "prompt" => &[1.0],
            _ => &[0.0],
        };
        let (mut offsets, mut token, mut mask) = (vec![0.0], Vec::new(), Vec::new());
        let (mut part, mut row) = (Vec::new(), Vec::new());
        for unit in 0..self.units {
            for kind in parts {
                // A row has a target: running text is alone in its row, other parts have neighbours.
                let least = if *kind == 0.0 { 2 } else { 1 };
                for _ in 0..least + rng.below(self.longest + 1 - least) {
                    token.push(rng.below(self.vocabulary) as f64);
                    // A completion starts with its first supervised token; the first token of a text is only read.
                    let first = offsets.last() == Some(&((token.len() - 1) as f64));
                    let may = if *kind == 0.0 { !first } else { *kind >= 2.0 && (first || rng.unit() < 0.8) };
                    mask.push(f64::from(may));
                }
                offsets.push(token.len() as f64);
                part.push(*kind);
                // Not consecutive: a row's number is its index in the data set.
                row.push((5 * unit + 2) as f64);
            }
        }
        let longest = longest(&offsets, parts.len(), draw);
        let batch = Batch::new()
            .with(names::OFFSETS, Scope::BATCH, offsets)
            .with(names::LONGEST, Scope::BATCH, vec![longest])
            .with("token", Scope::TOKEN, token)
            .with(names::MASK, Scope::TOKEN, mask)
            .with("part", Scope::SEQUENCE, part)
            .with("row", Scope::SEQUENCE, row);
        let batch = match manifest.data == DataKind::UNPAIRED {
            true => {
                let row = batch.find("row").map(|a| a.data.to_vec()).unwrap_or_default();
                let label = row.iter().map(|row| f64::from((*row as usize / 5).is_multiple_of(3))).collect::<Vec<_>>();
                batch.with(LABEL, Scope::SEQUENCE, label)
            }
            false => batch,
        };
        let of_rows = |extra: &&Extra| extra.name.starts_with(names::COLUMN) || extra.name == names::SEGMENT_END;
        let columns = self.extras.iter().filter(of_rows);
        columns.fold(batch, |batch, extra| extra.add(batch, &mut rng))
    }

    /// A window of composed sequences, which has its columns already, with the other arrays that were added.
    pub(in crate::objective) fn completed(&self, window: Batch<'static>, draw: u64) -> Batch<'static> {
        let mut rng = self.rng(7, draw);
        let missing = self.extras.iter().filter(|extra| !extra.name.starts_with(names::COLUMN));
        missing.fold(at_step(window, draw), |batch, extra| extra.add(batch, &mut rng))
    }

    /// The sequences of a window: pairs with their sides in either order, desirable and undesirable rows, groups of two answers.
    fn members(&self, data: &DataKind, rng: &mut SplitMix64) -> Vec<Member> {
        // Numbers that are neither consecutive nor ordered: a group's number is only a name.
        let group = |unit: usize| Some((7 * (self.units - unit) + 3) as f64);
        let one = |unit: usize| match data.as_str() {
            "preference" => {
                let first = f64::from(rng.unit() < 0.5);
                [first, 1.0 - first].map(|side| Member { group: group(unit), side: Some(side) }).to_vec()
            }
            "unpaired" => vec![Member { group: None, side: Some(f64::from(unit.is_multiple_of(3))) }],
            "prompt" => {
                let answers = if unit + 1 == self.units { 1 } else { 2 + unit % 2 };
                vec![Member { group: group(unit), side: None }; answers]
            }
            _ => vec![Member { group: None, side: None }],
        };
        (0..self.units).flat_map(one).collect()
    }

    /// One sequence's mask.
    fn supervision(&self, data: &DataKind, sequence: usize, grouped: bool, rng: &mut SplitMix64) -> Vec<f64> {
        let length = 1 + rng.below(self.longest);
        let prompt = if *data == DataKind::TEXT { 0 } else { rng.below(length) };
        let mut mask: Vec<f64> = (0..length).map(|p| f64::from(p >= prompt && rng.unit() < 0.8)).collect();
        match (grouped, sequence) {
            // If rows are compared with each other, the host drops a row whose completion is empty.
            (true, _) => mask[length - 1] = 1.0,
            (false, 0) => mask[0] = 1.0,
            (false, 1) => mask.clear(),
            (false, 2) => mask.fill(0.0),
            _ => {}
        }
        mask
    }

    /// `data` with statistics of `values`, and with the ids of candidates if the statistics are about some.
    ///
    /// # Errors
    /// [`Code::ARRAY`] for a statistic that this minor version and earlier ones do not have.
    pub fn fill(&self, data: &Batch<'_>, statistics: &[String], values: Values) -> Result<Batch<'static>> {
        let mut rng = match values {
            Values::Random(draw) => self.rng(2, draw),
            Values::Near(draw) | Values::Shifted(draw, _) => self.rng(3, draw),
            Values::Zero | Values::Uniform => self.rng(4, 0),
        };
        let mut batch = sequences::owned(data);
        if statistics.iter().any(|name| is_of_candidates(name)) && batch.find(names::CANDIDATE_IDS).is_none() {
            let ids = candidates::ids(&batch, self.candidates, self.vocabulary, &mut self.rng(8, 0))?;
            batch = batch.with_array(ids);
        }
        let before = batch.clone();
        for name in statistics {
            if is_of_candidates(name) {
                let array = self.of_candidates(&before, name, values)?;
                batch = batch.with_array(array);
                continue;
            }
            let unknown = || Error::new(Code::ARRAY, format!("`{name}` is not a statistic of this contract"));
            let form = Statistic::form(name).ok_or_else(unknown)?;
            let rows = if form.scope == Scope::TOKEN { batch.tokens()? } else { batch.sequences()? };
            let old = batch.find(name).map(|a| a.data.to_vec());
            let new: Vec<f64> = (0..rows)
                .map(|i| match (values, old.as_ref().and_then(|old| old.get(i))) {
                    (Values::Zero, _) => 0.0,
                    (Values::Uniform, _) => self.uniform(form.name),
                    (Values::Near(_) | Values::Shifted(..), Some(old)) if is_frozen(name, role_of(name).0) => *old,
                    (Values::Near(_), Some(old)) => within(form, old + rng.between(-0.3, 0.3)),
                    (Values::Shifted(_, by), Some(old)) => within(form, old + by + rng.between(-0.3, 0.3)),
                    _ => draw(form, base_of(&batch, name, i), &mut rng),
                })
                .collect();
            let differentiable = has_gradient(name);
            let array =
                Array { name: name.clone().into(), scope: form.scope, differentiable, cols: 1, data: new.into() };
            batch = batch.with_array(array);
        }
        Ok(batch)
    }

    /// The log-probabilities of candidates, or their tail. Both of one role are drawn alike, so that they fit each other.
    fn of_candidates(&self, before: &Batch<'_>, name: &str, values: Values) -> Result<Array<'static>> {
        let (role, base) = name.rsplit_once('.').unwrap_or(("", name));
        let draw = match values {
            Values::Random(draw) | Values::Near(draw) | Values::Shifted(draw, _) => draw,
            Values::Zero | Values::Uniform => 0,
        };
        let purpose = role.bytes().fold(9, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        let mut rng = self.rng(purpose, draw);
        let Distributions { candidates, tail } =
            candidates::distributions(before, role, values, self.vocabulary, &mut rng)?;
        let cols = before.array(names::CANDIDATE_IDS)?.cols;
        let (cols, data) = if base == CANDIDATES { (cols, candidates) } else { (1, tail) };
        let (name, differentiable) = (name.to_owned().into(), has_gradient(name));
        Ok(Array { name, scope: Scope::TOKEN, differentiable, cols, data: data.into() })
    }

    fn uniform(&self, base: &str) -> f64 {
        match base {
            "logp" => -self.ln_vocab(),
            "lse" | "entropy" => self.ln_vocab(),
            "top1" => f64::from(self.vocabulary == 1),
            _ => 0.0,
        }
    }
}

fn is_of_candidates(name: &str) -> bool {
    [CANDIDATES, TAIL].contains(&role_of(name).1)
}

/// The window of the number `draw`, at a step of its own: 1, 4, 7, 2, 5, 8, 3, 6.
fn at_step(window: Batch<'static>, draw: u64) -> Batch<'static> {
    let steps = window.with(names::STEPS, Scope::BATCH, vec![STEPS as f64]);
    steps.with(names::STEP, Scope::BATCH, vec![(1 + 3 * (draw % STEPS) % STEPS) as f64])
}

/// The greatest length of a composed sequence: that of the longest row, or of all rows together.
fn longest(offsets: &[f64], parts: usize, draw: u64) -> f64 {
    let rows = offsets.windows(parts + 1).step_by(parts).map(|ends| ends[parts] - ends[0]);
    match draw.is_multiple_of(2) {
        true => offsets.last().copied().unwrap_or(0.0),
        false => rows.fold(0.0, f64::max),
    }
}

#[derive(Clone)]
struct Member {
    group: Option<f64>,
    side: Option<f64>,
}

impl Member {
    fn group(&self) -> Option<f64> {
        self.group
    }

    fn side(&self) -> Option<f64> {
        self.side
    }
}
