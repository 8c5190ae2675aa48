//! Pairs of answers with token log-probabilities that TRL's trainers read, as the host packs them; tests of objectives
//! include this module by `#[path]`.
#![allow(dead_code, reason = "each crate that includes this module uses a part of it")]

use plugin_api::prelude::*;
use serde::Deserialize;

/// The two sides of an input set.
#[derive(Deserialize)]
pub struct Input {
    pub chosen: Rows,
    pub rejected: Rows,
}

/// `[pair][token]`; entry i belongs to token i + 1 of the row.
#[derive(Deserialize)]
pub struct Rows {
    pub logps: Vec<Vec<f64>>,
    pub ref_logps: Vec<Vec<f64>>,
    pub mask: Vec<Vec<f64>>,
    pub attention_mask: Vec<Vec<f64>>,
}

impl Rows {
    /// A row without its padding, as a host packs it.
    pub fn length(&self, pair: usize) -> usize {
        self.attention_mask[pair].iter().sum::<f64>() as usize - 1
    }

    /// How many tokens of an answer are supervised.
    pub fn supervised(&self, pair: usize) -> f64 {
        self.mask[pair].iter().sum()
    }
}

impl Input {
    /// The numbers of all pairs.
    pub fn pairs(&self) -> Vec<usize> {
        (0..self.chosen.logps.len()).collect()
    }

    /// The rows of `pairs` in packed order: side and pair. Every second pair has its rejected answer first.
    pub fn rows(&self, pairs: &[usize]) -> Vec<(f64, usize)> {
        pairs.iter().flat_map(|p| if p % 2 == 0 { [(1.0, *p), (0.0, *p)] } else { [(0.0, *p), (1.0, *p)] }).collect()
    }

    /// Of 1 the chosen rows, of 0 the rejected ones.
    pub fn side(&self, side: f64) -> &Rows {
        if side == 1.0 { &self.chosen } else { &self.rejected }
    }

    /// A batch of these pairs.
    pub fn batch(&self, pairs: &[usize]) -> Batch<'static> {
        let rows = self.rows(pairs);
        let packed = |of: fn(&Rows) -> &Vec<Vec<f64>>| -> Vec<f64> {
            let row = |(side, p): &(f64, usize)| of(self.side(*side))[*p][..self.side(*side).length(*p)].to_vec();
            rows.iter().flat_map(row).collect()
        };
        let mut offsets = vec![0.0];
        for (side, pair) in &rows {
            offsets.push(offsets[offsets.len() - 1] + self.side(*side).length(*pair) as f64);
        }
        Batch::new()
            .with("offsets", Scope::BATCH, offsets)
            .with("mask", Scope::TOKEN, packed(|r| &r.mask))
            .with("group", Scope::SEQUENCE, rows.iter().map(|(_, p)| 7.0 * *p as f64 + 1.0).collect::<Vec<_>>())
            .with("side", Scope::SEQUENCE, rows.iter().map(|(side, _)| *side).collect::<Vec<_>>())
            .with_statistic("logp", Scope::TOKEN, packed(|r| &r.logps))
            .with("reference.logp", Scope::TOKEN, packed(|r| &r.ref_logps))
    }

    /// Converts the packed order back to rows, chosen and rejected.
    pub fn unpack(&self, packed: &[f64]) -> [Vec<Vec<f64>>; 2] {
        let width = self.chosen.logps[0].len();
        let mut sides = [self.pairs(), self.pairs()].map(|pairs| vec![vec![0.0; width]; pairs.len()]);
        let mut start = 0;
        for (side, pair) in self.rows(&self.pairs()) {
            let length = self.side(side).length(pair);
            sides[usize::from(side == 0.0)][pair][..length].copy_from_slice(&packed[start..start + length]);
            start += length;
        }
        sides
    }
}
