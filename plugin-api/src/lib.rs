//! The stable contracts between the Telos host and its plugins, and the SDK to write plugins with.
//!
//! A plugin is a `cdylib` of one of three kinds: an [`objective`], a [`backend`] or a [`reward`].
//! The host finds it by its [header](abi::header) without running it, checks the layout of its [tables](abi::tables)
//! and calls it through them; panics stop at the border, errors carry a [code](Code) and a text.
//!
//! # A whole objective
//! Focal loss, `-(1 - p)^gamma log p` summed over supervised tokens: the maths, its options and its description. The host
//! shifts, masks, normalises, accumulates, and turns the cotangents into gradients on whatever backend runs.
//!
//! ```
//! use plugin_api::prelude::*;
//!
//! options! {
//!     /// Options of the focal loss.
//!     pub struct FocalOptions {
//!         /// How strongly easy tokens are discounted; 0 is cross-entropy.
//!         gamma: f64 = 2.0, in 0.0..=10.0;
//!     }
//! }
//!
//! /// The focal loss.
//! pub struct Focal(FocalOptions);
//!
//! impl ObjectivePlugin for Focal {
//!     type Options = FocalOptions;
//!
//!     fn manifest() -> ObjectiveManifest {
//!         ObjectiveManifest {
//!             summary: "Cross-entropy that discounts easy tokens".into(),
//!             formula: "sum over supervised tokens of -(1 - p)^gamma log p".into(),
//!             paper: "Lin et al. 2017, equation 4".into(),
//!             terms: vec![TermSpec::new("focal", Normaliser::SUPERVISED_TOKENS, "Discounted surprise, in nats")],
//!             ..Default::default()
//!         }
//!     }
//!
//!     fn create(options: FocalOptions) -> Result<Self> {
//!         Ok(Focal(options))
//!     }
//! }
//!
//! impl Objective for Focal {
//!     fn loss(&self, batch: &Batch) -> Result<Loss> {
//!         let tape = batch.tape()?;
//!         let logp = batch.var(&tape, "logp")?;
//!         let discount = (self.0.gamma * logp.log1mexp()).exp();
//!         let focal = (-(discount * logp)).masked_sum(batch.mask()?);
//!         Loss::new().term(&tape, "focal", 1.0, focal)
//!     }
//! }
//!
//! export_objective!("focal", Focal);
//!
//! // In a test, without loading anything:
//! let batch = Batch::new()
//!     .with("offsets", Scope::BATCH, vec![0.0, 2.0])
//!     .with("mask", Scope::TOKEN, vec![1.0, 0.0])
//!     .with_statistic("logp", Scope::TOKEN, vec![-0.5, -9.0]);
//! let loss = Focal::create(FocalOptions { gamma: 2.0 })?.loss(&batch)?;
//! let p = f64::exp(-0.5);
//! assert!((loss.terms[0].sum - 0.5 * (1.0 - p) * (1.0 - p)).abs() < 1e-12);
//! assert_eq!(loss.terms[0].cotangents[0].1[1], 0.0);
//! # Ok::<(), plugin_api::Error>(())
//! ```

pub mod abi;
mod author;
pub mod backend;
pub mod batch;
pub mod contract;
pub mod error;
pub mod export;
pub mod laws;
#[cfg(feature = "host")]
pub mod load;
pub mod manifest;
pub mod objective;
pub mod options;
pub mod prelude;
pub mod reward;
pub mod tape;

pub use error::{Code, Error, Result};
