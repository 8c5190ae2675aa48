//! A loaded reward.

use super::answers::{check, json};
use plugin_api::{
    Code, Error, Result,
    abi::{
        RSlice, RStr, RVec,
        tables::{ColumnRef, Instance, RewardTableRef, SampleRef},
    },
    options::OptionMap,
    reward::{Column, Reward, Sample},
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
    sample
        .columns
        .iter()
        .map(|(name, value)| {
            let (text, number, is_text) = match value {
                Column::Text(text) => (text.as_str(), 0.0, 1),
                Column::Number(number) => ("", *number, 0),
                Column::Json(text) => (text.as_str(), 0.0, 2),
            };
            ColumnRef { name: RStr::from_str(name), text: RStr::from_str(text), number, is_text, reserved: 0 }
        })
        .collect()
}

impl Reward for LoadedReward {
    fn score(&self, samples: &[Sample]) -> Result<Vec<f64>> {
        let columns: Vec<Vec<ColumnRef<'_>>> = samples.iter().map(columns_of).collect();
        let refs: Vec<SampleRef<'_>> = samples
            .iter()
            .zip(&columns)
            .map(|(sample, columns)| SampleRef {
                prompt: RStr::from_str(&sample.prompt),
                completion: RStr::from_str(&sample.completion),
                ended: u32::from(sample.ended),
                reserved: 0,
                columns: RSlice::from_slice(columns),
            })
            .collect();
        let mut scores = RVec::new();
        check((self.table.score())(self.instance, RSlice::from_slice(&refs), &mut scores))?;
        if scores.len() != samples.len() {
            let message = format!("{} scores were returned for {} samples", scores.len(), samples.len());
            return Err(Error::new(Code::INTERNAL, message).in_plugin(&self.plugin));
        }
        Ok(scores.into_vec())
    }
}
