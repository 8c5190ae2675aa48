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
//!             // A loss with the wrong sign gives -ln V here, so laws and host find the mistake.
//!             expectations: vec![Expectation {
//!                 quantity: "loss".into(),
//!                 value: "ln_vocab".into(),
//!                 tolerance: 0.1,
//!                 when: "the logits are uniform, so that p is 1 / V and the discount nearly 1".into(),
//!             }],
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
//!
//! // Every law that an objective must satisfy; `telos plugins verify focal` checks them on the built library.
//! plugin_api_laws::objective::verify::<Focal>(&[], &plugin_api_laws::objective::Generator::new(7)).assert_ok();
//! # Ok::<(), plugin_api::Error>(())
//! ```
//!
//! # A crate of its own
//! `telos plugins new objective NAME` makes such a crate, with a test of the laws and an experiment.
//! ```toml
//! [package]
//! name = "objective-focal"
//! version = "0.1.0"
//! edition = "2024"
//!
//! [lib]
//! crate-type = ["cdylib", "rlib"]      # the library that telos loads, and the one that tests link
//!
//! [dependencies]
//! plugin-api = { path = "../telos/plugin-api" }      # or { git = "URL of the repository", rev = "a commit" }
//!
//! [dev-dependencies]
//! plugin-api-laws = { path = "../telos/plugin-api/laws" }      # or the same repository and commit: the laws, for a test
//! ```
//! No feature is needed. Programs that load plugins use the crate `plugin-api-load`. The profile must not set `panic = "abort"`
//! (the build fails then).
//! `cargo build --release`, then `telos run FILE --plugins target/release`. The library works with every host of the same major
//! version of the contract, whatever compiler built that.
//!
//! A library may hold several plugins, of any kinds: one `export_objective!`, `export_reward!` or `export_backend!` for each, with
//! ids that differ. `telos plugins list --plugins DIR` shows them all.
//!
//! # Which arrays there are
//! N tokens of S sequences, packed without padding. An array has one row per token (*scope* `token`, N rows), per sequence
//! (`sequence`, S rows), any number of rows per sequence (`list`), or any number in all (`batch`). All hold `f64`, ids and flags
//! too.
//!
//! *compose*: `in` is given, `out` may be returned; its sequences are parts of rows. *prepare* gets the whole window or rollout,
//! *loss* a micro-batch. *weigh* gets what *loss* gets, without the statistics. An entry per token belongs to the token that it
//! stands beside in `compose`, and to the target everywhere else; the host shifts. `compose` is not called for prompts. *Rows* are all data kinds but prompts.
//!
//! | array | scope | unit | data kinds | compose | prepare | loss | meaning |
//! |---|---|---|---|---|---|---|---|
//! | `offsets` | batch | tokens | all | in, out | yes | yes | first token of each sequence (given to `compose`: of each part), and N |
//! | `longest` | batch | tokens | rows | in | | | the greatest number of tokens of a sequence that `compose` may return; one number; ignored where `compose` returns it |
//! | `step` | batch | steps | all | | yes | yes | the optimizer step that is being computed, from 1; one number |
//! | `steps` | batch | steps | all | | yes | yes | the optimizer steps of the whole run; one number |
//! | `token` | token | id | rows | in, out | | | the token's id |
//! | `target` | token | id | all | | yes | yes | id of the token to predict |
//! | `mask` | token | 0, 1 | all | in, out | yes | yes | 1 where the token is supervised as a target |
//! | `position` | token | tokens | all | | yes | yes | position in the sequence, from 0 |
//! | `row` | sequence | number | rows | in, out | | | number of the row that a part or sequence belongs to |
//! | `part` | sequence | number | rows | in | | | 0 running text, 1 prompt, 2 completion, 3 chosen, 4 rejected; in a pair the prompt comes before each answer; ignored where `compose` returns it |
//! | `column.NAME` | sequence | the data's | all | in, out | yes | yes | a numeric column that every row has |
//! | `column.NAME` | list | the data's | all | in, out | yes | yes | a column whose rows are lists |
//! | `NAME.length` | sequence | rows | all | in, out | yes | yes | the number of rows that a sequence has in the list `NAME` |
//! | `segment_end` | token | 0, 1 | rows with a list of texts as answer | in, out | yes | yes | 1 at the last token of each segment of an answer |
//! | `group` | sequence | number | preference, prompt | out | yes | yes | the same number for the two answers of a pair, or for all answers to one prompt |
//! | `side` | sequence | 0, 1 | preference, unpaired | out | yes | yes | 1 chosen or desirable, 0 rejected or undesirable |
//! | `column.label` | sequence | 0, 1 | unpaired | in, out | yes | yes | the row's label, the same number as `side` |
//! | `counted` | sequence | 0, 1 | rows | out | if returned | if returned | 0: the sequence is in no normaliser and in none of the host's token statistics |
//! | `candidate_ids` | token, K columns | id | rows | out | if returned | if returned | the ids that `candidates` and `tail` are about |
//! | other names | token or sequence | its own | rows | out | yes | yes | what `compose` attaches to its sequences |
//! | other names | token, sequence or batch | its own | all | | out | yes | what `prepare` returned, cut like the window |
//! | `keep` | sequence | 0, 1 | prompt | | out | | 0 drops an answer |
//! | `request` | batch | prompts | prompt | | out | | how many more prompts to draw; one number |
//! | `reward` | sequence | reward | prompt | | yes | yes | the answer's reward: the weighted sum of the experiment's rewards, clipped |
//! | `reward.NAME` | sequence | reward | prompt | | yes | yes | the reward of this name in the experiment, neither weighted nor clipped |
//! | `reward.NAME.PART` | sequence | reward | prompt | | yes | yes | a part that the reward declares |
//! | `reward.NAME.token` | token | reward | prompt | | yes | yes | the numbers of a reward that declares spans, each at the token with the span's last character; 0 elsewhere |
//! | `ended` | sequence | 0, 1 | prompt | | yes | yes | 1 if the model ended the answer, by an end token for example, 0 if it was cut off at the length limit |
//! | `sampler.logp` | token | nats | prompt | | if required | if required | log-probability of the token under the distribution that it was drawn from: at the rollout's temperature, truncated by `top_k` and `top_p`, renormalised, as the decoder computed it |
//! | `sampler.entropy` | token | nats | prompt | | if required | if required | entropy of that distribution |
//! | `sampler.step` | sequence | steps | prompt | | yes | yes | the optimizer steps that were done when the answer was drawn: 0 before the first one |
//! | `logp`, `lse`, `entropy`, `mean_logit`, `top1` | token | nats; `top1` 0, 1 | all | | statistics | yes | the policy's statistics |
//! | `candidates`, `tail` | token, `candidates` K columns | nats | all | | statistics | yes | log-probabilities of the candidates and of the rest |
//! | `score` | sequence | reward | all | | statistics | yes | the policy's scalar head after the last token |
//! | `token_score` | token | reward | all | | statistics | yes | the scalar head after the target |
//! | `reference.logp`, `teacher.logp`, `context.logp` and others | as the policy's | as the policy's | all | | statistics | yes | statistics of another role |
//! | `teacher.kl` and others | token | nats | all | | statistics | yes | divergence of the policy from another role |
//! | `critic.value` | token | reward | all | | statistics | yes | the critic's value of the state before the target |
//! | `critic.value_end` | sequence | reward | all | | statistics | yes | the critic's value after the last token |
//!
//! `batch.get(NAME)` reads numbers; `batch.mask()`, `batch.offsets()` and `batch.column(NAME)` are short forms; `batch.var(&tape,
//! NAME)` reads a statistic with its gradient.
//!
//! ## In `compose`
//! It returns `offsets`, `token` (whole numbers from 0), `mask` and `row` (a row that was given), and for data kinds that have
//! them `group`, `side` and `column.NAME`. The host shifts, packs and splits. The same rows and seed must give the same result.
//! `None` selects the host's default for the data kind.
//!
//! It may leave rows out, use a row several times, and put parts of several rows into one sequence: `row` then names the row that
//! the sequence counts for. At least one sequence is returned. Neighbours with the same `group` stay in one micro-batch; only
//! arrays that are returned reach `loss`. `telos plugins verify` notes how many rows are kept.
//!
//! It may attach arrays of its own names: one number per sequence, or one or several columns per token. Row i of an array per
//! token belongs to token i: the author does not shift. The host moves it to the position that predicts token i, so that in
//! `loss` row n belongs to `target[n]`. Numbers are finite, per token where the mask is 1. `counted` 0 takes a sequence (a
//! mismatched pair that only estimates a constant, say) out of all normalisers: its tokens, itself, and its pair or group unless
//! another member counts; `loss` still gets it, and its sum should not include it. `candidate_ids`, for
//! [`manifest::Candidates::COMPOSED`], has K columns with different ids of the vocabulary wherever the mask is 1.
//!
//! ## In `prepare`, `weigh` and `loss`
//! The two answers of a pair are neighbours, the chosen one first. Neighbours of one `group` are always in one micro-batch,
//! unless the requirements allow to cut groups of answers. A sequence may have no supervised token: it adds 0 to sums over
//! tokens, and its cotangents are 0.
//!
//! `step` and `steps` are the same in every micro-batch of a window. A rollout is prepared at the step that follows. In an
//! evaluation `step` is the last step that was computed, and at least 1.
//!
//! `prepare` gets the whole window or rollout. Its arrays have names of their own and N or S rows, and only this objective reads
//! them; with rollouts, `keep` (per sequence, 0 or 1) drops answers, and `request` (one number) asks for more prompts
//! ([`prepare`](objective::Objective::prepare)). They are constants of the gradient. [`groups`] has the usual
//! statistics of groups and tokens.
//!
//! The statistics listed in [`manifest::Requirements`] are in `loss`. `prepare` gets them for prompts, computed when the answers
//! were sampled, and where [`manifest::Requirements::window_statistics`] is set. [`manifest::Statistic`] lists them with scope,
//! gradient and meaning. A name is the role's, a dot and the statistic's, and for the policy the statistic's alone. An objective
//! describes the models that it reads only by these names: `Requirements::reading(["logp", "reference.logp"])`. The host computes
//! these and no others:
//!
//! | role | statistics | which model |
//! |---|---|---|
//! | the policy | `logp`, `lse`, `entropy`, `mean_logit`, `top1`, `candidates`, `tail`, `score` | the model that learns |
//! | `reference` | `logp`, `lse`, `entropy`, `mean_logit`, `kl`, `candidates`, `tail` | `[reference]`: frozen, or tracking the policy |
//! | `teacher` | the same | `[teacher]`: a frozen model of any shape with the policy's tokenizer |
//! | `context` | the same | `[context]`: the policy with its current weights, or a frozen model, which reads the same answers behind other prompts |
//! | `critic` | `value`, `value_end` | `[critic]`: a value model |
//!
//! `ROLE.kl` is the divergence that [`manifest::Requirements::divergence`] describes, from the policy's whole distribution. `candidates`
//! `[N, K]` and `tail` `[N]` are about the ids that [`manifest::Requirements::candidates`] describes, which the batch then has as
//! `candidate_ids` `[N, K]`; at one token the probabilities of the ids and of the tail add up to 1. A loss may return cotangents for the
//! policy's and the critic's statistics that have a gradient, and for `ROLE.kl`, whose gradient is the policy's; all other numbers of
//! the frozen roles are constants. Statistics of several models belong to the same target: behind another prompt a target has another
//! position, and the arrays do not show it.
//!
//! Where the mask is 0 statistics are arbitrary, and cotangents must be exactly 0.
//!
//! ## Lists and segments
//! A column is a list where every row has a list of numbers, or of true and false (1 and 0); a list may be empty. If a row has none,
//! or a list with something else, the column is left out, and the notes before step 1 name the row's file and line. Rewards get lists
//! of every kind as their JSON.
//!
//! An answer of the data kind prompt-completion may be a list of texts, its segments: `{"prompt": "..", "completions": ["x = 2",
//! "y = 5"], "labels": [true, false]}`. The host puts the separator of `[data]` after every segment, the last one too, and tokenises
//! the whole as one text. `segment_end` is 1 at the token that holds the last character of a segment's separator. A row that is
//! truncated has fewer segment ends; its lists stay whole. [`Batch::at_segment_ends`](batch::Batch::at_segment_ends) lays a list on the
//! ends that are left. `token_score` there is the score of a segment.
//!
//! # What the host checks before a run
//! What an objective needs of data and settings belongs into its [`Requirements`](manifest::Requirements): the host then refuses an
//! experiment by key, or by the row's file and line, also in `telos check`, and not in the middle of a run. `columns` name the columns of
//! every row with their range, one number or one for each segment; `reserved_ids` are ids such as sentinels, which the model must have
//! and no text may contain; `least_context` and `max_new_tokens` are sizes that its options assume.

pub mod abi;
mod author;
pub mod backend;
pub mod batch;
pub mod contract;
pub mod error;
pub mod export;
pub mod groups;
pub mod manifest;
pub mod objective;
pub mod options;
pub mod prelude;
pub mod reward;
pub mod tape;

pub use error::{Code, Error, Result};
