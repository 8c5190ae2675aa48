//! Objectives that learn from running text in addition to the rows of the first objective, as PPO with a pre-training term does
//! (PPO-ptx: Ouyang et al. 2022, arXiv 2203.02155, equation 2). Each has its own data order; its gradient is added in every
//! optimizer step.

use plugin_api::manifest::DataKind;

use super::memory::{largest_rows::Rows, micro_batch::micro_batch_tokens};
use crate::{
    config::Mistakes,
    config::experiment::{Batch, Objective},
    data::{BatchSize, Batcher, BatcherOptions, PackedBatch, Source, TextOptions, Window},
    error::{Error, Result},
    objectives::{Objectives, active::Active, micro_batch::cut},
    runs::breadcrumb::{self, CrashMarker},
    setup::Setup,
};

/// An objective with its own text.
pub struct AuxiliaryObjective {
    /// The objective.
    pub objectives: Objectives,
    /// Its place in its text.
    pub batcher: Batcher,
    /// The files of its text.
    pub sources: Vec<Source>,
    context: usize,
    /// Tokens per step.
    tokens: usize,
    micro_batch: usize,
    seed: u64,
}

impl AuxiliaryObjective {
    /// Opens the objectives that learn from their own text. `None` after mistakes, which are collected: text that is missing or
    /// unused.
    ///
    /// # Errors
    /// Errors of plugins that are not mistakes.
    pub fn all(setup: &Setup, mistakes: &mut Mistakes) -> Result<Option<Vec<AuxiliaryObjective>>> {
        let wanted = setup.experiment().objective.iter().zip(&setup.objectives).enumerate();
        let (mut all, mut complete) = (Vec::new(), true);
        for (index, (own, (library, manifest))) in wanted {
            let key = |name: &str| match setup.objectives.len() {
                1 => format!("objective.{name}"),
                _ => format!("objective.{index}.{name}"),
            };
            if !setup.has_own_text(index, manifest) {
                for (name, given) in [("text", own.text.is_some()), ("tokens", own.tokens.is_some())] {
                    if given {
                        let why = "unused: this objective learns from [data]; only an objective of running text has its own text, if [data] has rows";
                        mistakes.refuse(&key(name), why);
                        complete = false;
                    }
                }
                continue;
            }
            let Some(tokens) = own.tokens else {
                let why = "missing: the number of tokens of its own text per step; for example tokens = 2048";
                mistakes.refuse(&key("tokens"), why);
                complete = false;
                continue;
            };
            let instance = breadcrumb::within(&own.plugin, "create", || library.objective(&own.options));
            let prefix = format!("{}/", own.plugin);
            let objectives = instance.map_err(Error::from).and_then(|instance| {
                let active =
                    Active::new(&own.plugin, own.weight, prefix, manifest.clone(), Box::new(instance), "text")?;
                Objectives::new(vec![active.of_table(index)])
            });
            let objectives = mistakes.check(&setup.loaded.key_of("objective", index), objectives)?;
            let text = mistakes.check(&key("text"), text_of(setup, own, &key("text"), tokens))?;
            let (Some(mut objectives), Some((batcher, sources))) = (objectives, text) else {
                complete = false;
                continue;
            };
            let key = setup.loaded.key_of("objective", index);
            for active in objectives.iter() {
                setup.check_least_context(&key, &active.requirements, mistakes);
                if setup.check_reserved_ids(&key, &active.requirements, mistakes) {
                    let text = batcher.examples();
                    setup.check_reserved_texts(&key, &active.requirements, text, mistakes);
                }
            }
            objectives.limit(setup.config.vocab, setup.config.context as usize);
            all.push(AuxiliaryObjective {
                micro_batch: micro_batch_tokens(setup, &objectives),
                objectives,
                batcher,
                sources,
                context: setup.config.context as usize,
                tokens,
                seed: setup.experiment().seed,
            });
        }
        Ok(complete.then_some(all))
    }

    /// Returns the worst micro-batch of at most `most` positions that its text can give, as a window of its own. The place in
    /// the text does not change.
    ///
    /// # Errors
    /// Text that cannot be packed; errors of plugins.
    pub fn worst_window(&self, most: usize) -> Result<Vec<PackedBatch>> {
        let most = most.min(self.micro_batch);
        let reads_last = self.objectives.needs().reads_last();
        let rows = Rows::of(&self.batcher, self.context, reads_last, Batch::Tokens(self.tokens));
        let window = Window::new(rows.worst(most))?;
        cut(&self.objectives.compose(window, self.seed, &CrashMarker::default())?, most)
    }

    /// Returns the next window in micro-batches without advancing the place in the text.
    ///
    /// # Errors
    /// As [`AuxiliaryObjective::window`].
    pub fn peek(&mut self) -> Result<Vec<PackedBatch>> {
        let place = self.batcher.state().clone();
        let micro_batches = self.window(&CrashMarker::default())?;
        self.batcher.restore(place)?;
        Ok(micro_batches)
    }

    /// The next window, in micro-batches.
    ///
    /// # Errors
    /// Text that cannot be read or packed; errors of plugins.
    pub fn window(&mut self, marker: &CrashMarker) -> Result<Vec<PackedBatch>> {
        let window = self.batcher.next_window(self.context)?;
        let window = window.ok_or_else(|| Error::run("the objective's own text has ended"))?;
        // The place in the text, which a resumed run has too, tells windows apart.
        let seed = self.seed ^ self.batcher.state().positions;
        cut(&self.objectives.compose(window, seed, marker)?, self.micro_batch)
    }
}

fn text_of(setup: &Setup, own: &Objective, key: &str, tokens: usize) -> Result<(Batcher, Vec<Source>)> {
    let corpus = match (&own.text, setup.experiment().data.source()) {
        (Some(paths), _) => TextOptions { paths: paths.clone(), eval_paths: Vec::new(), held_out: 0.0 }.read()?,
        (None, source) if source.usual_kind() == DataKind::TEXT => setup.generated_text()?,
        (None, _) => {
            let why = "missing: the text that this objective learns from; for example text = \"corpus/*.txt\"";
            return Err(setup.loaded.refuse(key, why));
        }
    };
    let context = setup.config.context as usize;
    let data = corpus.tokenize(&setup.tokenizer, context, None)?;
    let (seed, prefix) = (setup.experiment().seed, setup.tokenizer.prefix());
    let options = BatcherOptions { seed, batch: BatchSize::Tokens(tokens), prefix, epochs: None };
    Ok((Batcher::new(data.train, options)?, data.sources))
}
