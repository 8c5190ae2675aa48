//! From tokens to packed batches.
//!
//! | step | file |
//! |---|---|
//! | choose the sequences of each optimizer step | [`order`] (a pure function of seed, epoch and index), [`batcher`] (counters only) |
//! | draw them from several weighted sources | [`mixture`] |
//! | shift targets and masks, lay sequences end to end, cut micro-batches | [`pack`] |

pub mod batcher;
pub mod mixture;
pub mod order;
pub mod pack;
