//! Masked-token cross-entropy (Devlin et al. 2019, arXiv 1810.04805) for a bidirectional model. Of every text `compose` replaces one
//! token, at a place that the seed decides, by the blank, and appends the token that stood there:
//!
//! ```text
//! a b c d   ->   a _ c d b          only b, the last token, is supervised
//! loss = -log p(b | a _ c d)
//! ```
//!
//! The last token of a sequence is only predicted, never read, so no position sees the answer, although every position sees all
//! others. Divided by the number of blanks: the supervised tokens. `logp` and `mask` are `[N]`.

use plugin_api::{batch::names, manifest::AttentionMask, prelude::*};

/// The only term.
const INFILL: &str = "infill";

options! {
    /// Options of infilling.
    pub struct Config {
        /// The id of the token that takes the place of the missing one.
        blank: i64 = 0, from 0;
    }
}

/// Predicts the missing token of a text.
pub struct Infill(Config);

impl ObjectivePlugin for Infill {
    type Options = Config;

    fn manifest() -> ObjectiveManifest {
        ObjectiveManifest {
            summary: "Cross-entropy of one missing token per text, read in both directions".into(),
            formula: "-logp of the missing token, given all others".into(),
            paper: "Devlin et al. 2019 (BERT), arXiv 1810.04805, section 3.1".into(),
            terms: vec![TermSpec::new(
                INFILL,
                Normaliser::SUPERVISED_TOKENS,
                "Cross-entropy of the missing token, in nats",
            )],
            expectations: vec![Expectation {
                quantity: INFILL.into(),
                value: "ln_vocab".into(),
                tolerance: 0.1,
                when: "the weights are freshly initialised".into(),
            }],
            ..Default::default()
        }
    }

    fn create(options: Config) -> Result<Self> {
        Ok(Self(options))
    }
}

impl Objective for Infill {
    fn requirements(&self) -> Result<Requirements> {
        Ok(Requirements { linear: true, attention: AttentionMask::BIDIRECTIONAL, ..Requirements::reading(["logp"]) })
    }

    fn compose(&self, rows: &Batch<'_>, seed: u64) -> Result<Option<Batch<'static>>> {
        let (offsets, token, row) = (rows.offsets()?, rows.get("token")?, rows.get("row")?);
        let (mut ends, mut composed, mut mask, mut own) = (vec![0.0], Vec::new(), Vec::new(), Vec::new());
        for (bounds, row) in offsets.windows(2).zip(row) {
            // The last token makes room for the answer.
            let text = token.get(bounds[0]..bounds[1].saturating_sub(1)).unwrap_or_default();
            if text.is_empty() {
                continue;
            }
            let place = place(seed, *row as u64, text.len());
            composed.extend(text.iter().enumerate().map(|(i, id)| if i == place { self.0.blank as f64 } else { *id }));
            composed.extend(text.get(place));
            mask.extend(std::iter::repeat_n(0.0, text.len()).chain([1.0]));
            ends.push(composed.len() as f64);
            own.push(*row);
        }
        if own.is_empty() {
            return Ok(None);
        }
        let batch = Batch::new()
            .with(names::OFFSETS, Scope::BATCH, ends)
            .with("token", Scope::TOKEN, composed)
            .with(names::MASK, Scope::TOKEN, mask)
            .with("row", Scope::SEQUENCE, own);
        Ok(Some(batch))
    }

    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        let tape = batch.tape()?;
        let nll = -batch.var(&tape, "logp")?.masked_sum(batch.mask()?);
        Loss::new().term(&tape, INFILL, 1.0, nll)
    }
}

/// A place below `length` that depends only on the seed and the row (the finaliser of SplitMix64).
fn place(seed: u64, row: u64, length: usize) -> usize {
    let mut mixed = seed ^ row.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((mixed ^ (mixed >> 31)) % length.max(1) as u64) as usize
}

export_objective!("infill", Infill);
