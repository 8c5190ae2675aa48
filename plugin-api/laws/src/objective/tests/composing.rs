//! `prepare` and `compose`: right ones pass, and each mistake is found and named.

use crate::{
    Report,
    objective::{Generator, Laws},
};
use plugin_api::{
    Result,
    batch::{Batch, Scope},
    manifest::{DataKind, Normaliser, ObjectiveManifest, TermSpec},
    objective::{Loss, Objective},
    options::refuse_unknown,
};

/// Cross-entropy with `prepare` and `compose` given by a test.
#[derive(Clone, Copy)]
struct Rows {
    prepare: fn(&Batch<'_>) -> Result<Batch<'static>>,
    compose: fn(&Batch<'_>, u64) -> Result<Option<Batch<'static>>>,
}

impl Objective for Rows {
    fn compose(&self, rows: &Batch<'_>, seed: u64) -> Result<Option<Batch<'static>>> {
        (self.compose)(rows, seed)
    }

    fn prepare(&mut self, window: &Batch<'_>) -> Result<Batch<'static>> {
        (self.prepare)(window)
    }

    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        let tape = batch.tape()?;
        let nll = -batch.var(&tape, "logp")?.masked_sum(batch.mask()?);
        Loss::new().term(&tape, "nll", 1.0, nll)
    }
}

fn verify(data: DataKind, rows: Rows) -> Report {
    let manifest = ObjectiveManifest {
        summary: "Cross-entropy".into(),
        formula: "-logp".into(),
        data,
        terms: vec![TermSpec::new("nll", Normaliser::SUPERVISED_TOKENS, "In nats")],
        ..Default::default()
    };
    Laws::new(manifest, move |options| {
        refuse_unknown(&[], options)?;
        Ok(rows)
    })
    .with_generator(Generator::new(9))
    .verify()
}

fn prepared(data: DataKind, prepare: fn(&Batch<'_>) -> Result<Batch<'static>>) -> Report {
    verify(data, Rows { prepare, compose: |_, _| Ok(None) })
}

#[track_caller]
fn breaks(mistake: &str, report: &Report, law: &str, text: &str) {
    let line = report.failures().find(|line| line.group == law);
    let line = line.unwrap_or_else(|| panic!("{mistake}: `{law}` holds\n{report}"));
    assert!(line.detail.contains(text), "{mistake}: {}", line.detail);
}

fn per_sequence(batch: &Batch<'_>, name: &str, value: fn(usize) -> f64) -> Result<Batch<'static>> {
    let values: Vec<f64> = (0..batch.sequences()?).map(value).collect();
    Ok(Batch::new().with(name.to_owned(), Scope::SEQUENCE, values))
}

/// Catches a law that checks only rollouts, or accepts any array as the objective's own.
#[test]
fn results_of_prepare_are_checked() {
    let ended: fn(&Batch<'_>) -> Result<Batch<'static>> =
        |b| Ok(Batch::new().with("keep", Scope::SEQUENCE, b.get("ended")?.to_vec()));
    prepared(DataKind::PROMPT, ended).assert_ok();
    let lengths: fn(&Batch<'_>) -> Result<Batch<'static>> = |b| {
        let lengths: Vec<f64> = b.offsets()?.windows(2).map(|w| (w[1] - w[0]) as f64).collect();
        Ok(Batch::new().with("length", Scope::SEQUENCE, lengths).with("scale", Scope::BATCH, vec![2.0]))
    };
    prepared(DataKind::TEXT, lengths).assert_ok();
    type Mistake = (&'static str, DataKind, fn(&Batch<'_>) -> Result<Batch<'static>>, &'static str);
    let mistakes: [Mistake; 14] = [
        (
            "the mask",
            DataKind::TEXT,
            |b| Ok(Batch::new().with("mask", Scope::TOKEN, b.mask()?.to_vec())),
            "`mask`, an array of the host",
        ),
        ("the group", DataKind::PROMPT, |b| per_sequence(b, "group", |s| s as f64), "`group`, an array of the host"),
        ("the reward", DataKind::PROMPT, |b| per_sequence(b, "reward", |_| 0.0), "`reward`, an array of the host"),
        (
            "a column",
            DataKind::PREFERENCE,
            |b| per_sequence(b, "column.margin", |_| 0.0),
            "`column.margin`, an array of the host",
        ),
        (
            "a statistic",
            DataKind::TEXT,
            |b| Ok(Batch::new().with("logp", Scope::TOKEN, b.mask()?.to_vec())),
            "`logp`, an array of the host",
        ),
        (
            "keep of rows",
            DataKind::TEXT,
            |b| per_sequence(b, "keep", |_| 1.0),
            "`keep`, which only an objective that learns from rollouts may do",
        ),
        ("half a keep", DataKind::PROMPT, |b| per_sequence(b, "keep", |_| 0.5), "`keep` is 0.5 for sequence 0"),
        ("a keep of NaN", DataKind::PROMPT, |b| per_sequence(b, "keep", |_| f64::NAN), "`keep` is NaN at sequence 0"),
        (
            "a short keep",
            DataKind::PROMPT,
            |_| Ok(Batch::new().with("keep", Scope::SEQUENCE, vec![1.0])),
            "1 numbers as `keep`, expected",
        ),
        (
            "a request per answer",
            DataKind::PROMPT,
            |b| per_sequence(b, "request", |_| 4.0),
            "numbers as `request`, per sequence, expected one number per batch",
        ),
        (
            "one short",
            DataKind::TEXT,
            |b| Ok(Batch::new().with("weight", Scope::TOKEN, vec![1.0; b.tokens()?.saturating_sub(1)])),
            "numbers as `weight`, expected",
        ),
        (
            "per rollout",
            DataKind::PROMPT,
            |_| Ok(Batch::new().with("scale", Scope::BATCH, vec![1.0])),
            "`scale` per batch",
        ),
        ("NaN", DataKind::UNPAIRED, |b| per_sequence(b, "weight", |_| f64::NAN), "`weight` is NaN at sequence 0"),
        (
            "by row number",
            DataKind::UNPAIRED,
            |b| per_sequence(b, "weight", |s| s as f64),
            "sequences reversed: prepared `weight`",
        ),
    ];
    for (mistake, data, prepare, text) in mistakes {
        breaks(mistake, &prepared(data, prepare), "prepare", text);
    }
}

/// Every row with its tokens in one sequence.
pub(super) fn joined(rows: &Batch<'_>, _: u64) -> Result<Option<Batch<'static>>> {
    let (token, mask, row, offsets) = (rows.get("token")?, rows.mask()?, rows.get("row")?, rows.offsets()?);
    let (mut ends, mut owners) = (vec![0.0], Vec::new());
    for (part, bounds) in offsets.windows(2).enumerate() {
        if owners.last() == Some(&row[part]) {
            ends.pop();
        } else {
            owners.push(row[part]);
        }
        ends.push(bounds[1] as f64);
    }
    let batch = Batch::new().with("offsets", Scope::BATCH, ends).with("row", Scope::SEQUENCE, owners);
    Ok(Some(batch.with("token", Scope::TOKEN, token.to_vec()).with("mask", Scope::TOKEN, mask.to_vec())))
}

fn composed(compose: fn(&Batch<'_>, u64) -> Result<Option<Batch<'static>>>) -> Report {
    verify(DataKind::PROMPT_COMPLETION, Rows { prepare: |_| Ok(Batch::new()), compose })
}

/// Replaces one array of what [`joined`] composes.
fn with(
    rows: &Batch<'_>,
    seed: u64,
    name: &'static str,
    change: impl Fn(&mut Vec<f64>),
) -> Result<Option<Batch<'static>>> {
    let batch = joined(rows, seed)?.unwrap_or_default();
    let array = batch.array(name)?;
    let (scope, mut data) = (array.scope, array.data.to_vec());
    change(&mut data);
    Ok(Some(batch.with(name, scope, data)))
}

/// Catches a law that accepts every result of `compose`, or that refuses results that depend on the seed.
#[test]
fn results_of_compose_are_checked() {
    let report = composed(joined);
    report.assert_ok();
    assert!(report.to_string().contains("6 of 6 rows kept"), "{report}");
    let drawn = composed(|rows, seed| with(rows, seed, "mask", |mask| mask[0] = (seed % 2) as f64));
    drawn.assert_ok();
    assert!(drawn.to_string().contains("drawn by the seed"), "{drawn}");
    let mixed = composed(|rows, seed| with(rows, seed, "token", |token| token[0] = 49.0 - token[0]));
    mixed.assert_ok();
    assert!(mixed.to_string().contains("mixed by their order"), "{mixed}");
    type Mistake = (&'static str, fn(&Batch<'_>, u64) -> Result<Option<Batch<'static>>>, &'static str);
    let mistakes: [Mistake; 9] = [
        ("half a token", |r, s| with(r, s, "token", |t| t[0] = 0.5), "token 0 (token 0 of sequence 0) is 0.5"),
        ("a token below 0", |r, s| with(r, s, "token", |t| t[1] = -1.0), "is -1, expected a whole number"),
        (
            "a token beyond the vocabulary",
            |r, s| with(r, s, "token", |t| t[1] = 50.0),
            "is 50, expected a whole number from 0 to 49",
        ),
        ("half a mask", |r, s| with(r, s, "mask", |m| m[0] = 0.5), "`mask` is 0.5 at token 0"),
        ("offsets that fall", |r, s| with(r, s, "offsets", |o| o[1] = 1e3), "must ascend"),
        ("offsets between tokens", |r, s| with(r, s, "offsets", |o| o[1] += 0.5), "expected a whole number"),
        ("another row", |r, s| with(r, s, "row", |row| row[0] = 1.0), "row 1, which was not given"),
        ("one mask short", |r, s| with(r, s, "mask", |m| _ = m.pop()), "`mask` holds"),
        (
            "nothing to learn",
            |r, s| with(r, s, "mask", |m| m.fill(0.0)),
            "sequence 0 has no token behind its first one with `mask` 1",
        ),
    ];
    for (mistake, compose, text) in mistakes {
        breaks(mistake, &composed(compose), "compose", text);
    }
    let without: fn(&Batch<'_>, u64) -> Result<Option<Batch<'static>>> = |rows, seed| {
        let batch = joined(rows, seed)?.unwrap_or_default();
        let kept = batch.arrays().iter().filter(|a| a.name != "row").cloned();
        Ok(Some(kept.fold(Batch::new(), Batch::with_array)))
    };
    breaks("no rows", &composed(without), "compose", "no array `row`");
}

/// Catches rows that the host never gives `compose`: a text without a target, or whose first token is supervised.
#[test]
fn generated_texts_have_a_target_and_a_first_token_that_is_only_read() {
    for draw in 0..20 {
        let rows = Generator::new(9).rows(&ObjectiveManifest::default(), draw);
        let mask = rows.mask().expect("a mask");
        for bounds in rows.offsets().expect("offsets").windows(2) {
            assert!(bounds[1] - bounds[0] >= 2, "{rows:?}");
            assert!(mask[bounds[0]] == 0.0 && mask[bounds[0] + 1..bounds[1]].iter().all(|m| *m == 1.0), "{rows:?}");
        }
    }
}
