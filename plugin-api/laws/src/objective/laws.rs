//! What is verified: an objective, its options, the source of batches, and the selection of laws.

use super::windows::{Generator, Values, sequences};
use plugin_api::{
    Code, Result,
    batch::names,
    export::guard,
    manifest::{DataKind, ObjectiveManifest},
    objective::{Objective, ObjectivePlugin},
    options::{OptionMap, OptionSet},
    tape::Tolerance,
};

pub(super) type Create = Box<dyn Fn(&OptionMap) -> Result<Box<dyn Objective>>>;

/// What is verified, and on which cases.
pub struct Laws {
    pub(super) manifest: ObjectiveManifest,
    pub(super) create: Create,
    pub(super) options: Vec<OptionMap>,
    pub(super) generator: Generator,
    pub(super) tolerance: Tolerance,
    pub(super) exempt: Vec<(String, String)>,
    pub(super) only: Option<Vec<String>>,
    pub(super) watch: Box<dyn Fn(&str)>,
}

impl Laws {
    /// The laws for an objective that implements this crate's traits.
    pub fn of<T: ObjectivePlugin>() -> Self {
        let manifest = guard::catch("", "manifest", || Ok(T::manifest())).unwrap_or_default();
        let manifest = ObjectiveManifest { options: T::Options::specs(), ..manifest };
        Self::new(manifest, |options| T::create(T::Options::parse(options)?))
    }

    /// The laws for anything with a manifest and instances, such as a loaded plugin: `Laws::new(library.objective_manifest()?,
    /// move |options| library.objective(options))`.
    pub fn new<O: Objective + 'static>(
        manifest: ObjectiveManifest,
        create: impl Fn(&OptionMap) -> Result<O> + 'static,
    ) -> Self {
        Self {
            manifest,
            create: Box::new(move |options| Ok(Box::new(create(options)?))),
            options: Vec::new(),
            generator: Generator::new(0x7e105),
            tolerance: Tolerance::default(),
            exempt: Vec::new(),
            only: None,
            watch: Box::new(|_| ()),
        }
    }

    /// Adds a case. Without any, the defaults are the only case.
    #[must_use]
    pub fn with_options(mut self, options: OptionMap) -> Self {
        self.options.push(options);
        self
    }

    /// Replaces the source of batches, for more arrays or other sizes.
    #[must_use]
    pub fn with_generator(mut self, generator: Generator) -> Self {
        self.generator = generator;
        self
    }

    /// Replaces the tolerance of the law `cotangents`.
    #[must_use]
    pub fn with_tolerance(mut self, tolerance: Tolerance) -> Self {
        self.tolerance = tolerance;
        self
    }

    /// Skips a law, for a reason that the report gives.
    #[must_use]
    pub fn exempt(mut self, law: &str, reason: &str) -> Self {
        self.exempt.push((law.to_owned(), reason.to_owned()));
        self
    }

    /// Checks only these laws, by the names of [`LAWS`](super::LAWS).
    #[must_use]
    pub fn only(mut self, laws: &[&str]) -> Self {
        self.only = Some(laws.iter().map(|law| (*law).to_owned()).collect());
        self
    }

    /// Calls `watch` with the law and the case before each check, so that the place is known if a plugin ends the process.
    #[must_use]
    pub fn watched(mut self, watch: impl Fn(&str) + 'static) -> Self {
        self.watch = Box::new(watch);
        self
    }

    /// The names of data columns that the objective reads and the generator does not provide yet. An objective does not declare
    /// columns, so they are found from its errors. `NAME.length` stands for the column NAME if its values are lists.
    pub fn columns_asked_for(&self) -> Vec<String> {
        let mut generator = self.generator.clone();
        let mut found: Vec<String> = Vec::new();
        let defaults = [OptionMap::new()];
        for options in if self.options.is_empty() { &defaults[..] } else { &self.options } {
            let missing = |generator: &Generator| {
                let refusal = guard::catch("", "columns", || self.run_window(options, generator)).err()?;
                let name = refusal.message.split('`').nth(1)?.strip_prefix(names::COLUMN)?.to_owned();
                (refusal.code == Code::ARRAY).then_some(name)
            };
            while let Some(name) = missing(&generator).filter(|name| !found.contains(name)) {
                match name.strip_suffix(names::LENGTH) {
                    Some(list) => {
                        found.retain(|known| known != list);
                        generator = generator.with_list(list, 0.0..=1.0);
                    }
                    None => generator = generator.with_column(&name),
                }
                found.push(name);
            }
        }
        found
    }

    /// Runs all calls of a window; the first error names what is missing.
    fn run_window(&self, options: &OptionMap, generator: &Generator) -> Result<()> {
        let mut objective = (self.create)(options)?;
        let requirements = objective.requirements()?;
        let generator = &generator.for_requirements(&requirements);
        let statistics = requirements.statistics;
        let composed = objective.compose(&generator.rows(&self.manifest, 0), 0)?;
        let composed = composed.filter(|_| self.manifest.data != DataKind::PROMPT);
        let data = match composed {
            Some(composed) => generator.completed(sequences::window_of(&composed)?, 0),
            None => generator.data(&self.manifest, 0),
        };
        let window = generator.fill(&data, &statistics, Values::Random(0))?;
        let rollouts = self.manifest.data == DataKind::PROMPT;
        let seen = if rollouts || requirements.window_statistics { &window } else { &data };
        let batch = sequences::prepared(objective.as_mut(), seen, &window, rollouts)?;
        objective.weigh(&batch)?;
        objective.loss(&batch).map(drop)
    }
}
