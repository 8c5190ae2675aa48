//! What the host refuses in the results of an objective's or a reward's calls. The host checks every result with these functions, and the
//! laws of `plugin-api-laws` use the same ones, so that a plugin which passes one passes the other.
//!
//! | call | checked by | what is refused |
//! |---|---|---|
//! | `manifest` | [`manifest`] | no term, a name that the host owns, a name twice, an unknown normaliser or reduction, an expectation of nothing declared |
//! | every `manifest` | [`option_names`](fn@option_names) | options with the name of a key of this or a later host, twice, or that are no plain key |
//! | `manifest`, `requirements`, before they cross | [`finite_manifest`], [`finite_options`], [`finite_requirements`] | NaN and infinity, by field |
//! | `requirements` | [`requirements`] | no statistic, one twice, descriptions of what is not read, numbers out of range, terms and options that are not declared, what rollouts alone or data alone can have, a feature of a later version |
//! | `compose` | [`composed`](fn@composed) | ids outside the vocabulary, sequences that are too short or too long, flags other than 0 and 1, arrays of the host, candidates twice, numbers that are not finite where they count |
//! | `prepare` | [`prepared`] | arrays of the host, wrong lengths, `keep` other than 0 and 1, `request` other than one whole number, both of them without rollouts, numbers that are not finite where they count |
//! | `weigh` | [`weights`] | a custom normaliser that is missing, given twice, negative or not finite |
//! | `loss` | [`loss`] | no term, a term without cotangents, anything undeclared or twice, wrong lengths, NaN that the plugin made itself |
//! | `loss`, where the requirements say `linear` | [`linear`] | cotangents that depend on the statistics |
//! | `after_step` | [`verdict`] | an unknown verdict, and the end of a rollout where there are none |
//! | a reward's `manifest` | [`reward_parts`] | parts with a name that is not allowed, or declared twice; a feature of a later version |
//! | a reward's `rate` | [`ratings`](fn@ratings) | not one rating per sample, parts other than the declared ones, spans outside of the text or out of order, numbers that are not finite |

mod arrays;
mod composed;
mod description;
mod fault;
mod finite;
mod losses;
mod option_names;
mod ratings;
mod requirements;

pub use arrays::{prepared, verdict, weights};
pub use composed::{Limits, composed};
pub use description::{host_owns_array, host_owns_metric, manifest};
pub use fault::Fault;
#[doc(hidden)]
pub use fault::place;
pub use finite::{finite_manifest, finite_options, finite_requirements};
pub use losses::{linear, loss};
pub use option_names::{BACKEND_KEYS, OBJECTIVE_KEYS, RESERVED_PREFIX, REWARD_KEYS, option_names};
pub use ratings::{is_reward_name, ratings, reward_parts};
pub use requirements::requirements;
