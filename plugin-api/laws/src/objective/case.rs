//! An objective under one set of options, and the windows that laws use.

use super::{
    compare,
    laws::Laws,
    outcome::Fault,
    windows::{Cut, Generator, Values, sequences},
};
use plugin_api::{
    Result,
    batch::{Batch, names},
    manifest::{DataKind, ObjectiveManifest, Requirements},
    objective::{Loss, Objective},
    options::OptionMap,
};

/// An objective under one set of options.
pub(super) struct Case<'a> {
    pub(super) laws: &'a Laws,
    pub(super) options: &'a OptionMap,
    pub(super) requirements: Requirements,
    /// Generates batches with everything that the requirements name.
    generator: Generator,
    /// The windows that each law uses, by the numbers they are drawn with.
    pub(super) draws: Vec<u64>,
    /// The part of each window that is kept; all of it if `None`.
    pub(super) cut: Option<Cut>,
}

/// How many different windows each law uses.
pub(super) const WINDOWS: u64 = 3;

impl<'a> Case<'a> {
    pub(super) fn new(laws: &'a Laws, options: &'a OptionMap) -> Result<Self, Fault> {
        let requirements = (laws.create)(options)?.requirements()?;
        let generator = laws.generator.for_requirements(&requirements);
        Ok(Self { laws, options, requirements, generator, draws: (0..WINDOWS).collect(), cut: None })
    }

    /// The same with only one window, or with a part of it.
    pub(super) fn only(&self, draw: u64, cut: Option<Cut>) -> Case<'a> {
        let Self { laws, options, requirements, generator, .. } = self;
        let (requirements, generator) = (requirements.clone(), generator.clone());
        Case { laws, options, requirements, generator, draws: vec![draw], cut }
    }

    pub(super) fn windows(&self) -> impl Iterator<Item = u64> {
        self.draws.iter().copied()
    }

    /// The first of the windows.
    pub(super) fn first(&self) -> u64 {
        self.draws.first().copied().unwrap_or(0)
    }

    pub(super) fn manifest(&self) -> &ObjectiveManifest {
        &self.laws.manifest
    }

    pub(super) fn generator(&self) -> &Generator {
        &self.generator
    }

    pub(super) fn instance(&self) -> Result<Box<dyn Objective>> {
        (self.laws.create)(self.options)
    }

    /// Data without statistics.
    pub(super) fn data(&self, draw: u64) -> Batch<'static> {
        let whole = self.composed(draw).unwrap_or_else(|| self.generator().data(self.manifest(), draw));
        self.cut.as_ref().and_then(|cut| cut.of(&whole).ok()).unwrap_or(whole)
    }

    /// The window that the objective composes from generated rows; `None` if it leaves this to the host, or returns something that
    /// the law `compose` refuses.
    fn composed(&self, draw: u64) -> Option<Batch<'static>> {
        if self.rollouts() {
            return None;
        }
        let composed = self.instance().ok()?.compose(&self.generator().rows(self.manifest(), draw), draw).ok()??;
        composed.check().ok()?;
        Some(self.generator().completed(sequences::window_of(&composed).ok()?, draw))
    }

    /// The same data with statistics of `values`.
    pub(super) fn fill(&self, data: &Batch<'_>, values: Values) -> Result<Batch<'static>> {
        self.generator.fill(data, &self.requirements.statistics, values)
    }

    /// An instance and a batch that is ready for its `loss`.
    pub(super) fn ready(&self, draw: u64) -> Result<(Box<dyn Objective>, Batch<'static>)> {
        self.ready_from(&self.fill(&self.data(draw), Values::Random(draw))?, draw)
    }

    /// The same for a given window: after `prepare` over rollouts, the trained models have changed.
    pub(super) fn ready_from(&self, window: &Batch<'_>, draw: u64) -> Result<(Box<dyn Objective>, Batch<'static>)> {
        let mut objective = self.instance()?;
        let batch = self.prepared(objective.as_mut(), window)?;
        if !self.rollouts() {
            return Ok((objective, batch));
        }
        let moved = self.fill(&batch, Values::Near(draw))?;
        Ok((objective, moved))
    }

    /// `window` with the arrays from `prepare`: a rollout has its statistics before, a window of rows only if the requirements
    /// say so.
    pub(super) fn prepared(&self, objective: &mut dyn Objective, window: &Batch<'_>) -> Result<Batch<'static>> {
        let seen = self.arrays_for_prepare(window);
        sequences::prepared(objective, &seen, window, self.rollouts())
    }

    /// The arrays of a window that `prepare` gets.
    pub(super) fn arrays_for_prepare(&self, window: &Batch<'_>) -> Batch<'static> {
        let ids = self.requirements.candidates.is_some() && self.requirements.composed_candidates().is_none();
        // The ids that a role finds are computed with the statistics.
        let is_statistic = |name: &str| {
            self.requirements.statistics.iter().any(|s| s == name) || (ids && name == names::CANDIDATE_IDS)
        };
        let seen = window.arrays().iter().filter(|a| self.prepares_statistics() || !is_statistic(&a.name));
        seen.fold(Batch::new(), |all, a| all.with_array(sequences::with_data(a, a.data.to_vec())))
    }

    /// Whether `prepare` gets statistics: those of a rollout, or of a window where the requirements say so.
    pub(super) fn prepares_statistics(&self) -> bool {
        self.rollouts() || self.requirements.window_statistics
    }

    /// Sequences that stay in one micro-batch when the host splits windows.
    pub(super) fn units(&self, batch: &Batch<'_>) -> Result<Vec<Vec<usize>>> {
        match self.rollouts() && !self.requirements.whole_groups {
            true => Ok((0..batch.sequences()?).map(|s| vec![s]).collect()),
            false => sequences::units(batch),
        }
    }

    /// Whether the objective learns from rollouts.
    pub(super) fn rollouts(&self) -> bool {
        self.manifest().data == DataKind::PROMPT
    }

    /// The loss in a form that can be compared.
    pub(super) fn loss(&self, objective: &dyn Objective, batch: &Batch<'_>) -> Result<compare::Flat, Fault> {
        compare::Flat::of(self.manifest(), &objective.loss(batch)?, batch)
    }

    /// Whether a window is never split.
    pub(super) fn coupled(&self) -> bool {
        self.manifest().coupled || self.requirements.coupled
    }
}

/// A term's weighted part of the total.
pub(super) fn weighted(loss: &Loss) -> impl Iterator<Item = (&str, f64)> {
    loss.terms.iter().map(|t| (t.name.as_str(), t.coefficient * t.sum))
}
