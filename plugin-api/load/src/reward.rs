//! A loaded reward.

use super::answers::{check, json};
use plugin_api::{
    Code, Error, Result,
    abi::{
        RSlice, RStr, RVec,
        ratings::take_ratings,
        tables::{ColumnRef, Instance, RewardTableRef, SampleRef},
    },
    options::OptionMap,
    reward::{Rating, Reward, Sample},
};

/// A reward behind its table; used like a local one.
pub struct LoadedReward {
    plugin: String,
    table: RewardTableRef,
    instance: Instance,
}

impl LoadedReward {
    pub(super) fn create(plugin: &str, table: RewardTableRef, options: &OptionMap) -> Result<Self> {
        let mut instance = Instance(std::ptr::null_mut());
        let options = json(options)?;
        check((table.create())(RSlice::from_slice(&options), &mut instance))?;
        if instance.0.is_null() {
            return Err(Error::internal("`create` returned no instance").in_plugin(plugin));
        }
        Ok(Self { plugin: plugin.to_owned(), table, instance })
    }

    /// Returns the value of a slot appended by the next minor version, or `None` if the slot is missing: for the test that crosses
    /// minor versions.
    #[cfg(feature = "next-minor")]
    pub fn appended(&self) -> Option<u64> {
        self.table.appended().map(|slot| slot(self.instance))
    }
}

impl Drop for LoadedReward {
    fn drop(&mut self) {
        (self.table.destroy())(self.instance);
    }
}

fn columns_of(sample: &Sample) -> Vec<ColumnRef<'_>> {
    sample.columns.iter().map(|(name, value)| ColumnRef::new(name, value)).collect()
}

fn lend<'a>(samples: &'a [Sample], columns: &'a [Vec<ColumnRef<'a>>]) -> Vec<SampleRef<'a>> {
    samples
        .iter()
        .zip(columns)
        .map(|(sample, columns)| SampleRef {
            prompt: RStr::from_str(&sample.prompt),
            completion: RStr::from_str(&sample.completion),
            ended: u32::from(sample.ended),
            reserved: 0,
            columns: RSlice::from_slice(columns),
        })
        .collect()
}

impl Reward for LoadedReward {
    fn score(&self, samples: &[Sample]) -> Result<Vec<f64>> {
        let columns: Vec<Vec<ColumnRef<'_>>> = samples.iter().map(columns_of).collect();
        let mut scores = RVec::new();
        check((self.table.score())(self.instance, RSlice::from_slice(&lend(samples, &columns)), &mut scores))?;
        if scores.len() != samples.len() {
            let message = format!("{} scores were returned for {} samples", scores.len(), samples.len());
            return Err(Error::new(Code::INTERNAL, message).in_plugin(&self.plugin));
        }
        Ok(scores.into_vec())
    }

    fn rate(&self, samples: &[Sample]) -> Result<Vec<Rating>> {
        // A plugin that was built before this slot existed has scores only.
        let Some(rate) = self.table.rate() else {
            return Ok(self.score(samples)?.into_iter().map(Rating::from).collect());
        };
        let columns: Vec<Vec<ColumnRef<'_>>> = samples.iter().map(columns_of).collect();
        let mut arrays = RVec::new();
        check(rate(self.instance, RSlice::from_slice(&lend(samples, &columns)), &mut arrays))?;
        take_ratings(arrays, samples.len())
            .map_err(|e| Error { message: format!("`rate`: {}", e.message), ..e }.in_plugin(&self.plugin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi_stable::{StableAbi, prefix_type::PrefixTypeTrait};
    use plugin_api::{abi::RResult::ROk, abi::Status};

    /// The table as it was before `rate` was appended; its own accessors are not used.
    #[allow(dead_code)]
    mod earlier {
        use super::*;

        #[repr(C)]
        #[derive(StableAbi)]
        #[sabi(kind(Prefix(prefix_ref = EarlierTableRef)))]
        #[sabi(missing_field(option))]
        pub struct EarlierTable {
            pub manifest: extern "C" fn(out: &mut RVec<u8>) -> Status,
            pub create: extern "C" fn(options: RSlice<'_, u8>, out: &mut Instance) -> Status,
            pub destroy: extern "C" fn(instance: Instance),
            #[sabi(last_prefix_field)]
            pub score:
                extern "C" fn(instance: Instance, samples: RSlice<'_, SampleRef<'_>>, out: &mut RVec<f64>) -> Status,
        }
    }

    use earlier::{EarlierTable, EarlierTableRef};

    extern "C" fn manifest(_: &mut RVec<u8>) -> Status {
        ROk(())
    }

    extern "C" fn create(_: RSlice<'_, u8>, out: &mut Instance) -> Status {
        *out = Instance(std::ptr::dangling_mut());
        ROk(())
    }

    extern "C" fn destroy(_: Instance) {}

    extern "C" fn score(_: Instance, samples: RSlice<'_, SampleRef<'_>>, out: &mut RVec<f64>) -> Status {
        *out = samples.iter().map(|sample| sample.completion.len() as f64).collect();
        ROk(())
    }

    /// Catches a call of a slot that a plugin built before it does not have, which would read past the end of its table.
    #[test]
    fn a_plugin_without_the_slot_is_rated_by_its_scores() {
        let table = EarlierTable { manifest, create, destroy, score }.leak_into_prefix();
        // SAFETY: the fields are the first ones of a `RewardTable`, and the accessors read their number from the table.
        let table = unsafe { std::mem::transmute::<EarlierTableRef, RewardTableRef>(table) };
        assert!(table.rate().is_none());
        let reward = LoadedReward::create("earlier", table, &OptionMap::new()).unwrap();
        let samples = ["", "abc"].map(|text| Sample { completion: text.into(), ..Sample::default() });
        assert_eq!(reward.rate(&samples).unwrap(), [Rating::from(0.0), Rating::from(3.0)]);
    }
}
