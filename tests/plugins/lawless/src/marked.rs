//! Fine-tuning on rows that are composed with a mark of id 300 before each answer.

use plugin_api::{batch::names, prelude::*};

const MARK: f64 = 300.0;

/// Cross-entropy of marked rows.
pub struct Marked;

impl ObjectivePlugin for Marked {
    type Options = ();

    fn manifest() -> ObjectiveManifest {
        ObjectiveManifest {
            summary: "Cross-entropy of prompt, mark and completion, for tests".into(),
            formula: "sum over supervised tokens of -logp".into(),
            data: DataKind::PROMPT_COMPLETION,
            terms: vec![TermSpec::new("nll", Normaliser::SUPERVISED_TOKENS, "In nats")],
            ..Default::default()
        }
    }

    fn create((): ()) -> Result<Self> {
        Ok(Marked)
    }
}

impl Objective for Marked {
    fn compose(&self, rows: &Batch<'_>, _: u64) -> Result<Option<Batch<'static>>> {
        let (token, mask, offsets) = (rows.get("token")?, rows.mask()?, rows.offsets()?);
        let (row, part) = (rows.get("row")?, rows.get("part")?);
        let longest = rows.get(names::LONGEST)?.first().copied().unwrap_or(f64::MAX);
        let (mut ids, mut supervised, mut ends, mut owners) = (Vec::new(), Vec::new(), vec![0.0], Vec::new());
        for (n, bounds) in offsets.windows(2).enumerate() {
            let is_prompt = part[n] == 1.0;
            if !is_prompt {
                ids.push(MARK);
                supervised.push(0.0);
            }
            ids.extend_from_slice(&token[bounds[0]..bounds[1]]);
            supervised.extend_from_slice(&mask[bounds[0]..bounds[1]]);
            if !is_prompt {
                // A sequence that is too long loses its first token.
                let start = ends.last().map_or(0, |end: &f64| *end as usize);
                if (ids.len() - start) as f64 > longest {
                    ids.remove(start);
                    supervised.remove(start);
                }
                ends.push(ids.len() as f64);
                owners.push(row[n]);
            }
        }
        let batch = Batch::new().with("offsets", Scope::BATCH, ends).with("row", Scope::SEQUENCE, owners);
        Ok(Some(batch.with("token", Scope::TOKEN, ids).with("mask", Scope::TOKEN, supervised)))
    }

    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        let tape = batch.tape()?;
        let nll = -batch.var(&tape, "logp")?.masked_sum(batch.mask()?);
        Loss::new().term(&tape, "nll", 1.0, nll)
    }
}

export_objective!("marked", Marked);
