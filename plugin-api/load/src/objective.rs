//! A loaded objective.

use super::answers::{check, from_json, json};
use plugin_api::{
    Error, Result,
    abi::{
        ArrayRef, RSlice, RStr, RVec,
        tables::{Instance, ObjectiveTableRef},
        wire,
    },
    batch::{Batch, Scope},
    manifest::Requirements,
    objective::{Loss, Objective, Verdict},
    options::OptionMap,
    tape::{self, Wanted},
};

/// An objective behind its table; used like a local one.
pub struct LoadedObjective {
    plugin: String,
    table: ObjectiveTableRef,
    instance: Instance,
}

impl LoadedObjective {
    pub(super) fn create(plugin: &str, table: ObjectiveTableRef, options: &OptionMap) -> Result<Self> {
        let mut instance = Instance(std::ptr::null_mut());
        let options = json(options)?;
        check((table.create())(RSlice::from_slice(&options), &mut instance))?;
        if instance.0.is_null() {
            return Err(Error::internal("`create` returned no instance").in_plugin(plugin));
        }
        Ok(Self { plugin: plugin.to_owned(), table, instance })
    }

    /// Adds the name of `call` to an error about its result.
    fn in_call(&self, call: &str, mut error: Error) -> Error {
        error.message = format!("`{call}`: {}", error.message);
        error.in_plugin(&self.plugin)
    }

    /// Returns the value of a slot appended by the next minor version, or `None` if the slot is missing: for the test that crosses
    /// minor versions.
    #[cfg(feature = "next-minor")]
    pub fn appended(&self) -> Option<u64> {
        self.table.appended().map(|slot| slot(self.instance))
    }
}

impl Drop for LoadedObjective {
    fn drop(&mut self) {
        (self.table.destroy())(self.instance);
    }
}

impl Objective for LoadedObjective {
    fn requirements(&self) -> Result<Requirements> {
        let mut out = RVec::new();
        check((self.table.requirements())(self.instance, &mut out))?;
        from_json(&self.plugin, "requirements", &out)
    }

    fn compose(&self, rows: &Batch<'_>, seed: u64) -> Result<Option<Batch<'static>>> {
        let mut out = RVec::new();
        check((self.table.compose())(self.instance, RSlice::from_slice(&wire::lend(rows)), seed, &mut out))?;
        wire::take_batch(out).map_err(|e| self.in_call("compose", e))
    }

    fn prepare(&mut self, rollouts: &Batch<'_>) -> Result<Batch<'static>> {
        let mut out = RVec::new();
        check((self.table.prepare())(self.instance, RSlice::from_slice(&wire::lend(rollouts)), &mut out))?;
        Ok(wire::take_batch(out).map_err(|e| self.in_call("prepare", e))?.unwrap_or_default())
    }

    fn weigh(&self, batch: &Batch<'_>) -> Result<Vec<(String, f64)>> {
        let mut out = RVec::new();
        check((self.table.weigh())(self.instance, RSlice::from_slice(&wire::lend(batch)), &mut out))?;
        wire::take_numbers(out).map_err(|e| self.in_call("weigh", e))
    }

    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        let mut arrays = wire::lend(batch);
        let wanted = tape::wanted_detached();
        let names: Vec<String> = match &wanted {
            Wanted::These(values) => values.iter().map(|v| format!("{}{}", wire::DETACHED, v.name)).collect(),
            Wanted::Nothing | Wanted::Recorded => Vec::new(),
        };
        match &wanted {
            Wanted::Nothing => {}
            Wanted::Recorded => arrays.push(wire::reserved(wire::RECORD, &[])),
            Wanted::These(values) => {
                arrays.push(wire::reserved(wire::REPLAY, &[]));
                arrays.extend(names.iter().zip(values).map(|(name, v)| wire::reserved(name, &v.values)));
            }
        }
        let mut out = RVec::new();
        check((self.table.loss())(self.instance, RSlice::from_slice(&arrays), &mut out))?;
        if matches!(wanted, Wanted::Recorded) {
            tape::add_detached(wire::take_detached(&out));
        }
        wire::take_loss(out).map_err(|e| self.in_call("loss", e))
    }

    fn after_step(&mut self, metrics: &[(String, f64)]) -> Result<Verdict> {
        let arrays: Vec<ArrayRef<'_>> = metrics
            .iter()
            .map(|(name, value)| ArrayRef {
                name: RStr::from_str(name),
                scope: Scope::BATCH.0,
                differentiable: 0,
                rows: 1,
                cols: 1,
                data: RSlice::from_slice(std::slice::from_ref(value)),
            })
            .collect();
        let mut verdict = 0;
        check((self.table.after_step())(self.instance, RSlice::from_slice(&arrays), &mut verdict))?;
        Ok(Verdict(verdict))
    }

    fn state(&self) -> Result<Vec<u8>> {
        let mut out = RVec::new();
        check((self.table.state())(self.instance, &mut out))?;
        Ok(out.into_vec())
    }

    fn restore(&mut self, state: &[u8]) -> Result<()> {
        check((self.table.restore())(self.instance, RSlice::from_slice(state)))
    }
}
