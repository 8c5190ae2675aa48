//! Exports an objective.

use super::guard;
use super::instance::{Identity, drop_instance, from_instance, from_json, json, status, to_instance};
use crate::{
    Error, Result,
    abi::{
        ArrayOwned, ArrayRef, RSlice, RVec, Status,
        tables::{Instance, ObjectiveTable, PluginRoot, PluginRootRef},
        wire,
    },
    contract,
    objective::{Objective, ObjectivePlugin},
    options::OptionSet,
    tape,
};
use guard::Guarded;
use std::marker::PhantomData;

/// The root table of objective `T` under identity `I`.
pub fn objective_root<I: Identity, T: ObjectivePlugin>() -> PluginRootRef {
    let table = ObjectiveTable {
        manifest: Slots::<I, T>::manifest,
        create: Slots::<I, T>::create,
        destroy: Slots::<I, T>::destroy,
        requirements: Slots::<I, T>::requirements,
        compose: Slots::<I, T>::compose,
        prepare: Slots::<I, T>::prepare,
        weigh: Slots::<I, T>::weigh,
        loss: Slots::<I, T>::loss,
        after_step: Slots::<I, T>::after_step,
        state: Slots::<I, T>::state,
        restore: Slots::<I, T>::restore,
        #[cfg(feature = "next-minor")]
        appended: Slots::<I, T>::appended,
    };
    PluginRoot::of_objective(table)
}

struct Slots<I, T>(PhantomData<(I, T)>);

impl<I: Identity, T: ObjectivePlugin> Slots<I, T> {
    extern "C" fn manifest(out: &mut RVec<u8>) -> Status {
        let bytes = guard::catch(I::ID, "manifest", || {
            let mut manifest = T::manifest();
            manifest.id = I::ID.into();
            manifest.version = I::VERSION.into();
            manifest.options = T::Options::specs();
            contract::finite_manifest(&manifest)?;
            json(&manifest)
        });
        status(bytes, |b| *out = b.into())
    }

    extern "C" fn create(options: RSlice<'_, u8>, out: &mut Instance) -> Status {
        let instance = guard::catch(I::ID, "create", || T::create(T::Options::parse(&from_json(options.as_slice())?)?));
        status(instance, |value| *out = to_instance(Guarded::new(I::ID, value)))
    }

    extern "C" fn destroy(instance: Instance) {
        // SAFETY: the host passes an instance of this table, once.
        unsafe { drop_instance::<T>(instance) }
    }

    fn call<R>(instance: Instance, what: &str, call: impl FnOnce(&mut T) -> Result<R>) -> Result<R> {
        // SAFETY: the host passes a live instance of this table, from one thread at a time.
        unsafe { from_instance::<T>(instance) }?.call(what, call)
    }

    extern "C" fn requirements(instance: Instance, out: &mut RVec<u8>) -> Status {
        let bytes = Self::call(instance, "requirements", |t| {
            let requirements = t.requirements()?;
            contract::finite_requirements(&requirements)?;
            json(&requirements)
        });
        status(bytes, |b| *out = b.into())
    }

    extern "C" fn compose(
        instance: Instance,
        rows: RSlice<'_, ArrayRef<'_>>,
        seed: u64,
        out: &mut RVec<ArrayOwned>,
    ) -> Status {
        let rows = wire::borrow(rows.as_slice());
        status(Self::call(instance, "compose", |t| t.compose(&rows, seed)), |composed| {
            if let Some(batch) = composed {
                wire::give_batch(batch, out);
            }
        })
    }

    extern "C" fn prepare(instance: Instance, batch: RSlice<'_, ArrayRef<'_>>, out: &mut RVec<ArrayOwned>) -> Status {
        let batch = wire::borrow(batch.as_slice());
        status(Self::call(instance, "prepare", |t| t.prepare(&batch)), |b| wire::give_batch(b, out))
    }

    extern "C" fn weigh(instance: Instance, batch: RSlice<'_, ArrayRef<'_>>, out: &mut RVec<ArrayOwned>) -> Status {
        let batch = wire::borrow(batch.as_slice());
        status(Self::call(instance, "weigh", |t| t.weigh(&batch)), |n| wire::give_numbers(n, out))
    }

    extern "C" fn loss(instance: Instance, batch: RSlice<'_, ArrayRef<'_>>, out: &mut RVec<ArrayOwned>) -> Status {
        // Only a law's calls have such a request.
        let (request, batch) = (wire::request(batch.as_slice()), wire::borrow(batch.as_slice()));
        let loss = |t: &mut T| match &request {
            None => Ok((t.loss(&batch)?, Vec::new())),
            Some(wire::Request::Record) => {
                let (loss, detached) = tape::record_detached(|| t.loss(&batch));
                Ok((loss?, detached))
            }
            Some(wire::Request::Replay(values)) => {
                let loss = tape::replay_detached(values, || t.loss(&batch)).map_err(Error::invalid)?;
                Ok((loss?, Vec::new()))
            }
        };
        status(Self::call(instance, "loss", loss), |(loss, detached)| {
            wire::give_loss(loss, out);
            wire::give_detached(detached, out);
        })
    }

    extern "C" fn after_step(instance: Instance, metrics: RSlice<'_, ArrayRef<'_>>, out: &mut u32) -> Status {
        let metrics: Vec<(String, f64)> = wire::borrow(metrics.as_slice())
            .arrays()
            .iter()
            .filter_map(|a| Some((a.name.to_string(), *a.data.first()?)))
            .collect();
        status(Self::call(instance, "after_step", |t| t.after_step(&metrics)), |v| *out = v.0)
    }

    extern "C" fn state(instance: Instance, out: &mut RVec<u8>) -> Status {
        status(Self::call(instance, "state", |t| t.state()), |b| *out = b.into())
    }

    extern "C" fn restore(instance: Instance, state: RSlice<'_, u8>) -> Status {
        status(Self::call(instance, "restore", |t| Objective::restore(t, state.as_slice())), |()| ())
    }

    #[cfg(feature = "next-minor")]
    extern "C" fn appended(_: Instance) -> u64 {
        11
    }
}
