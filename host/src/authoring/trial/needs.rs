//! What an objective needs of a trial: data, other models, answers. Known from its manifest and from an instance.

use plugin_api::manifest::{AttentionMask, DataKind, kind};
use plugin_api::{batch::names, objective::role_of};
use plugin_api_load::{Library, PluginInfo};

use crate::{
    config::{Override, options, schema},
    error::{Error, Result},
    objectives::reads::Frozen,
    plugins::Registry,
    runs::breadcrumb,
};

/// What an objective needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs {
    /// The kind of data that it learns from.
    pub data: DataKind,
    /// A teacher.
    pub teacher: bool,
    /// A model that reads the same answers behind other prompts.
    pub context: bool,
    /// Answers in segments with a label per segment: it scores tokens.
    pub segments: bool,
    /// Whether the trained model can write answers: a reward model cannot, nor can one that reads in both directions.
    pub writes: bool,
    /// The smallest number of answers to a prompt.
    pub samples: u64,
}

impl Needs {
    /// The needs of an objective that learns from `data` alone.
    pub fn of_data(data: DataKind) -> Needs {
        Needs { data, teacher: false, context: false, segments: false, writes: true, samples: 1 }
    }

    /// What it learns from, as a predicate.
    pub fn learns(&self) -> String {
        let segments = if self.segments { "in labelled segments" } else { "without segments" };
        format!("learns from {} data {segments}", self.data)
    }

    /// Reads them from the objective of this id, with the options among `sets` (`objective.OPTION=VALUE`).
    ///
    /// # Errors
    /// A request error: there is no such objective, or it refuses its options. Errors of the plugin.
    pub fn read(registry: &Registry, id: &str, sets: &[Override]) -> Result<Needs> {
        let info = objective(registry, id)?;
        let library = breadcrumb::within(id, "open", || Library::load(info))?;
        let manifest = breadcrumb::within(id, "manifest", || library.objective_manifest())?;
        let given: Vec<Override> = sets.iter().filter_map(option).collect();
        let options = options::from_command_line(&manifest.options, &given)?;
        let instance = breadcrumb::within(id, "create", || library.objective(&options))?;
        let requirements =
            breadcrumb::within(id, "requirements", || plugin_api::objective::Objective::requirements(&instance))?;
        let reads = |name: &str| requirements.statistics.iter().any(|own| own == name);
        let from = requirements.candidates.as_ref().map(|candidates| candidates.from.as_str());
        let of = |role: Frozen| {
            from == Some(role.name()) || requirements.statistics.iter().any(|own| role_of(own).0 == role.name())
        };
        let scores = reads(names::TOKEN_SCORE) || reads(names::SCORE);
        Ok(Needs {
            teacher: of(Frozen::Teacher),
            context: of(Frozen::Context),
            segments: reads(names::TOKEN_SCORE) && manifest.data == DataKind::PROMPT_COMPLETION,
            writes: !scores && requirements.attention != AttentionMask::BIDIRECTIONAL,
            samples: requirements.samples,
            data: manifest.data,
        })
    }
}

/// An override of one of the plugin's options, by the option's own name.
fn option(set: &Override) -> Option<Override> {
    let name = set.path().strip_prefix("objective.")?;
    let own = name.split('.').next().unwrap_or_default();
    schema::children("objective").all(|key| key != own).then(|| set.at(name))
}

/// The objective of this id.
fn objective<'a>(registry: &'a Registry, id: &str) -> Result<&'a PluginInfo> {
    if let Ok(found) = registry.find_any(id)
        && let [only] = found.as_slice()
        && only.kind != kind::OBJECTIVE
    {
        let hint = match only.kind.as_str() {
            kind::BACKEND => format!("compare a backend with telos compare FILE --backends candle,{id}"),
            _ => "train with a reward by an experiment of your own: telos run FILE".to_owned(),
        };
        return Err(Error::request(format!("`{id}` is of kind {}, and only an objective can be tried", only.kind))
            .with_hint(hint));
    }
    registry.find(kind::OBJECTIVE, id)
}
