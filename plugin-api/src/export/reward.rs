//! Exports a reward.

use super::guard;
use super::instance::{Identity, drop_instance, from_instance, from_json, json, status, to_instance};
use crate::{
    abi::{
        ArrayOwned, RSlice, RVec, Status,
        ratings::give_ratings,
        tables::{Instance, PluginRoot, PluginRootRef, RewardTable, SampleRef},
    },
    contract,
    options::OptionSet,
    reward::{Column, RewardPlugin, Sample},
};
use guard::Guarded;
use std::marker::PhantomData;

/// The root table of reward `T` under identity `I`.
pub fn reward_root<I: Identity, T: RewardPlugin>() -> PluginRootRef {
    let table = RewardTable {
        manifest: Slots::<I, T>::manifest,
        create: Slots::<I, T>::create,
        destroy: Slots::<I, T>::destroy,
        score: Slots::<I, T>::score,
        rate: Slots::<I, T>::rate,
        #[cfg(feature = "next-minor")]
        appended: Slots::<I, T>::appended,
    };
    PluginRoot::of_reward(table)
}

struct Slots<I, T>(PhantomData<(I, T)>);

fn sample_of(s: &SampleRef<'_>) -> Sample {
    Sample {
        prompt: s.prompt.as_str().to_owned(),
        completion: s.completion.as_str().to_owned(),
        ended: s.ended != 0,
        columns: s
            .columns
            .iter()
            .filter_map(|c| {
                let text = || c.text.as_str().to_owned();
                let value = match c.is_text {
                    0 => Column::Number(c.number),
                    1 => Column::Text(text()),
                    2 => Column::Json(text()),
                    _ => return None,
                };
                Some((c.name.as_str().to_owned(), value))
            })
            .collect(),
    }
}

impl<I: Identity, T: RewardPlugin> Slots<I, T> {
    extern "C" fn manifest(out: &mut RVec<u8>) -> Status {
        let bytes = guard::catch(I::ID, "manifest", || {
            let mut manifest = T::manifest();
            manifest.id = I::ID.into();
            manifest.version = I::VERSION.into();
            manifest.options = T::Options::specs();
            contract::finite_options(&manifest.options)?;
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

    extern "C" fn score(instance: Instance, samples: RSlice<'_, SampleRef<'_>>, out: &mut RVec<f64>) -> Status {
        // SAFETY: the host passes a live instance of this table, from one thread at a time.
        let guarded = unsafe { from_instance::<T>(instance) };
        let scores = guarded.and_then(|g| {
            g.call("score", |t| {
                let samples: Vec<Sample> = samples.iter().map(sample_of).collect();
                t.score(&samples)
            })
        });
        status(scores, |s| *out = s.into())
    }

    extern "C" fn rate(instance: Instance, samples: RSlice<'_, SampleRef<'_>>, out: &mut RVec<ArrayOwned>) -> Status {
        // SAFETY: the host passes a live instance of this table, from one thread at a time.
        let guarded = unsafe { from_instance::<T>(instance) };
        let ratings = guarded.and_then(|g| {
            g.call("rate", |t| {
                let samples: Vec<Sample> = samples.iter().map(sample_of).collect();
                let mut arrays = RVec::new();
                give_ratings(t.rate(&samples)?, &mut arrays)?;
                Ok(arrays)
            })
        });
        status(ratings, |arrays| *out = arrays)
    }

    #[cfg(feature = "next-minor")]
    extern "C" fn appended(_: Instance) -> u64 {
        11
    }
}
