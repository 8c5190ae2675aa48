//! The laws of objectives: properties of every loss for which the host sums, splits, masks and normalises.
//!
//! An author calls [`verify`] (or [`Laws`], with options) from one test; a loaded plugin goes through [`Laws::new`].
//!
//! | law | what must hold | what breaks it |
//! |---|---|---|
//! | `manifest` | it is complete: summary, formula, meanings, defaults within range, names that differ | an option without help |
//! | `options` | defaults make an instance; a value of another type or out of range is refused, naming the key | a check forgotten |
//! | `declared` | what is returned is declared in the manifest, with the right lengths; what is read in the requirements | an undeclared metric |
//! | `used` | every declared term and metric is returned by at least one of the cases | a leftover |
//! | `cotangents` | they are the derivatives of the sums, by central differences; what the loss detaches is held constant | a sign, a coefficient twice |
//! | `stop-gradients` | what the manifest declares as detached is detached; of labelled answers, no gradient flows from one row into another | a lost `detach` |
//! | `additivity` | a window cut anywhere gives the same sums, cotangents and metrics (not if `coupled`) | a mean for a sum |
//! | `order` | the order of sequences does not matter | a loss by row number |
//! | `masked` | values where the mask is 0 (NaN and infinity too) change nothing; cotangents there are 0 | `mask * x` |
//! | `empty` | no sequence, or no supervised token: sums 0, nothing NaN, the same terms | 0 / 0 |
//! | `linear` | if the requirements claim it, cotangents do not depend on statistics | a wrong flag |
//! | `normalisers` | custom ones exist, depend on data only, and add up | a weight by log-probability |
//! | `repeatable` | the same call twice, and on two instances, gives the same bits; `loss` changes no state | a counter in `loss` |
//! | `state` | a restored instance continues like the saved one; invalid bytes are refused, every verdict is a known one | a forgotten field |
//! | `prepare` | its arrays fit the window, do not replace the host's and follow their sequences; `keep` is 0 or 1 | an array named `mask` |
//! | `compose` | its sequences are valid, come from the rows given, and are the same for the same seed | a row number that was never given |
//! | `expectations` | equal models with uniform logits give the manifest's expected numbers (default options) | `log2` for `ln` |
//!
//! A broken law is checked again with fewer sequences and fewer tokens, as long as it fails in the same way: the smallest window
//! is in [`Line::counterexample`](super::Line::counterexample).
//!
//! Terms and metrics that exist only under some options are declared too, and their meaning states it; the given cases must return
//! each of them at least once.

mod case;
mod checks;
mod compare;
mod laws;
mod outcome;
mod quick;
mod run;
mod shrink;
#[cfg(test)]
mod tests;
mod windows;

pub use laws::Laws;
pub use quick::{NOTHING_LEARNED, QUICK, Quick};
pub use run::{LAWS, verify};
pub use windows::{Generator, Values};
