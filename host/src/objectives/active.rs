//! An objective of the experiment: its requirements, its state, and the errors of its calls.

use plugin_api::{
    batch::names,
    contract,
    error::Code,
    manifest::{ObjectiveManifest, Requirements},
    objective::Objective,
};

use crate::{
    error::{Error, Result},
    objectives::reads,
    runs::breadcrumb::{self, LeftAtDrop},
};

/// An objective of the experiment.
pub struct Active {
    /// Id of the plugin.
    pub id: String,
    /// Its index among the experiment's objectives.
    pub table: usize,
    /// Factor on its terms.
    pub weight: f64,
    /// Prefix of the names of its metrics; empty if it is the only objective.
    pub prefix: String,
    /// Its manifest.
    pub manifest: ObjectiveManifest,
    /// What this instance requires.
    pub requirements: Requirements,
    /// The instance.
    pub instance: Box<dyn Objective>,
    /// The last field, because it ends the mark that `drop` begins.
    _left: LeftAtDrop,
}

impl Active {
    /// Creates an objective: reads the instance's requirements and checks that this host can meet them.
    ///
    /// # Errors
    /// A request error for data or statistics that this host does not offer, and for requirements that are impossible or change
    /// from call to call.
    pub fn new(
        id: &str,
        weight: f64,
        prefix: String,
        manifest: ObjectiveManifest,
        instance: Box<dyn Objective>,
        data: &str,
    ) -> Result<Active> {
        let requirements = breadcrumb::within(id, "requirements", || instance.requirements())?;
        check_data(id, &manifest, data)?;
        contract::requirements(&manifest, &requirements)
            .map_err(|why| Error::request(format!("objective \"{id}\", call `requirements`: {why}")))?;
        if let Some(why) = reads::unknown_role(&requirements) {
            return Err(Error::request(format!("objective \"{id}\" {why}")));
        }
        if let Some(name) = not_offered(&requirements) {
            return Err(Error::request(format!(
                "objective \"{id}\" reads the statistic `{name}`, which this host does not compute"
            ))
            .with_hint(format!("computed here: {}", offered_statistics().join(", "))));
        }
        let active =
            Active { id: id.to_owned(), table: 0, weight, prefix, manifest, requirements, instance, _left: LeftAtDrop };
        active.check_requirements()?;
        Ok(active)
    }

    /// Sets the objective's index among the experiment's objectives.
    #[must_use]
    pub fn of_table(mut self, table: usize) -> Active {
        self.table = table;
        self
    }

    /// Checks that the instance's requirements are still those at its creation: the models were set up for these.
    ///
    /// # Errors
    /// Errors of the plugin; changed requirements, with both versions.
    pub fn check_requirements(&self) -> Result<()> {
        let now = breadcrumb::within(&self.id, "requirements", || self.instance.requirements())?;
        if now == self.requirements {
            return Ok(());
        }
        Err(Error::run(format!(
            "objective \"{}\", call `requirements`: they changed after the objective was created",
            self.id
        ))
        .with_details([format!("before: {:?}", self.requirements), format!("now:    {now:?}")])
        .with_hint("requirements may depend only on the options"))
    }

    /// Restores a state of the instance and checks that the instance then returns the same state. Empty bytes mean that it had
    /// none, and has none now.
    ///
    /// # Errors
    /// Errors of the plugin; a state that it refuses, or does not return afterwards: a resumed run would be a different run.
    pub fn restore_exactly(&mut self, state: &[u8]) -> Result<()> {
        let now = |own: &Active| {
            let now = breadcrumb::within(&own.id, "state", || own.instance.state());
            now.map_err(|e| failed(&own.id, "state", e))
        };
        if state.is_empty() {
            let now = now(self)?;
            return if now.is_empty() { Ok(()) } else { Err(self.had_no_state(now.len())) };
        }
        self.restore(state)?;
        if now(self)? != state {
            return Err(Error::run(format!(
                "objective \"{}\", call `restore`: after a state of {} bytes was restored, `state` returns a different one, \
                 so a resumed run would be a different run",
                self.id,
                state.len()
            )));
        }
        Ok(())
    }

    /// The error of an instance that cannot be put back: it had no state, and has one now.
    fn had_no_state(&self, bytes: usize) -> Error {
        let what = format!(
            "objective \"{}\", call `state`: it returned no bytes before and returns {bytes} now, so that it cannot be put back",
            self.id
        );
        Error::run(what).with_hint("an objective with a state returns it from the beginning")
    }

    /// Whether its loss couples the whole window, with its options.
    pub(super) fn couples(&self) -> bool {
        self.manifest.coupled || self.requirements.coupled
    }

    pub(super) fn reads(&self, statistic: &str) -> bool {
        self.requirements.statistics.iter().any(|s| s == statistic)
    }
}

impl Active {
    /// Restores a state that this instance, or one of an earlier process, returned.
    ///
    /// # Errors
    /// Errors of the plugin.
    pub fn restore(&mut self, state: &[u8]) -> Result<()> {
        let Active { id, instance, .. } = self;
        breadcrumb::within(id, "restore", || instance.restore(state)).map_err(|e| failed(id, "restore", e))
    }
}

impl Drop for Active {
    /// Records that the plugin is destroying its instance, so that a crash names the plugin.
    fn drop(&mut self) {
        breadcrumb::entering(&self.id, "destroy");
    }
}

/// Returns the error of a call that an objective refused; adds the call's name if the plugin's message lacks it.
pub fn failed(id: &str, call: &str, error: plugin_api::Error) -> Error {
    let mut error = error.in_plugin(id);
    if ![Code::PANIC, Code::POISONED, Code::OUT_OF_MEMORY].contains(&error.code)
        && !error.message.contains(&format!("`{call}`"))
    {
        error.message = format!("`{call}`: {}", error.message);
    }
    error.into()
}

/// Returns the error of a result that breaks the contract. `rows` are the rows of the data that the batch's sequences come
/// from.
pub fn broken(id: &str, call: &str, fault: contract::Fault, rows: &[u64]) -> Error {
    let error = Error::run(format!("objective \"{id}\", call `{call}`: {fault}"));
    match fault.sequence.and_then(|sequence| rows.get(sequence)) {
        Some(row) => error.with_details([format!("the sequence is row {row} of the data, counted from 0")]),
        None => error,
    }
}

/// Checks that an objective learns from this kind of data.
///
/// # Errors
/// A request error if it does not.
pub fn check_data(id: &str, manifest: &ObjectiveManifest, data: &str) -> Result<()> {
    if manifest.data.as_str() == data {
        return Ok(());
    }
    let what = format!("objective \"{id}\" learns from {} data, but [data] yields {data} data", manifest.data);
    let remedy = match manifest.data.as_str() {
        "text" => "choose data.source = \"text\" or \"synthetic\"",
        _ => "choose data.source = \"jsonl\" or \"synthetic\"",
    };
    Err(Error::request(what).with_hint(format!("{remedy}, or another objective")))
}

/// Returns the first required statistic that this host does not compute.
pub fn not_offered(requirements: &Requirements) -> Option<&str> {
    let offered = offered_statistics();
    requirements.statistics.iter().map(String::as_str).find(|name| !offered.iter().any(|own| own == name))
}

/// Returns the statistics that this host computes.
pub fn offered_statistics() -> Vec<String> {
    let others = [
        names::SCORE,
        names::TOKEN_SCORE,
        names::CRITIC_VALUE,
        names::CRITIC_VALUE_END,
        names::SAMPLER_LOGP,
        names::SAMPLER_ENTROPY,
    ];
    reads::of_heads().chain(others.map(str::to_owned)).collect()
}
