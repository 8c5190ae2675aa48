//! Each law of rewards catches the mistake it is there for, and lets right rewards pass.

use super::*;
use plugin_api::{
    Code, Error,
    manifest::RewardPart,
    options::refuse_unknown,
    reward::{Rating, Span},
};
use std::cell::Cell;

/// A reward put together for a test.
struct Sketch(fn(&Sketch, &[Sample]) -> Result<Vec<f64>>, Cell<f64>);

impl Reward for Sketch {
    fn score(&self, samples: &[Sample]) -> Result<Vec<f64>> {
        (self.0)(self, samples)
    }
}

fn verify(columns: &[&str], score: fn(&Sketch, &[Sample]) -> Result<Vec<f64>>) -> Report {
    let columns = columns.iter().map(|c| (*c).to_owned()).collect();
    let manifest = RewardManifest { summary: "For a test".into(), columns, ..Default::default() };
    Laws::new(manifest, move |options| {
        refuse_unknown(&[], options)?;
        Ok(Sketch(score, Cell::new(0.0)))
    })
    .verify()
}

fn each(samples: &[Sample], one: impl Fn(&Sample) -> f64) -> Result<Vec<f64>> {
    Ok(samples.iter().map(one).collect())
}

fn reads(sample: &Sample, name: &str) -> Result<f64> {
    let missing = || Error::new(Code::ARRAY, format!("the row has no column `{name}`"));
    sample.text(name).map(|t| t.len() as f64).or(sample.number(name)).ok_or_else(missing)
}

type Mistake =
    (&'static str, &'static [&'static str], fn(&Sketch, &[Sample]) -> Result<Vec<f64>>, &'static [&'static str]);

const MISTAKES: &[Mistake] = &[
    ("none", &[], |_, s| each(s, |s| s.completion.len() as f64), &[]),
    ("none, with a column", &["answer"], |_, s| s.iter().map(|s| reads(s, "answer")).collect(), &[]),
    (
        "none, with a number",
        &["target"],
        |_, s| {
            let missing = || Error::new(Code::ARRAY, "no column `target` with a number");
            s.iter().map(|s| s.number("target").ok_or_else(missing)).collect()
        },
        &[],
    ),
    (
        "none, and refuses what it does not know",
        &[],
        |_, s| {
            let known = |s: &Sample| s.prompt.starts_with("What");
            if s.iter().all(known) { each(s, |_| 1.0) } else { Err(Error::invalid("an unknown prompt")) }
        },
        &[],
    ),
    (
        "a mean over no words",
        &[],
        |_, s| {
            each(s, |s| {
                let words: Vec<&str> = s.completion.split(' ').filter(|w| !w.is_empty()).collect();
                words.iter().map(|w| w.len() as f64).sum::<f64>() / words.len() as f64
            })
        },
        &["empty"],
    ),
    (
        "a counter",
        &[],
        |own, s| {
            own.1.set(own.1.get() + 1.0);
            each(s, |_| own.1.get())
        },
        &["repeatable", "independent"],
    ),
    (
        "a rank",
        &[],
        |_, s| each(s, |one| s.iter().filter(|o| o.completion < one.completion).count() as f64),
        &["independent"],
    ),
    ("by place", &[], |_, s| Ok((0..s.len()).map(|i| i as f64).collect()), &["independent"]),
    (
        "an undeclared column",
        &[],
        |_, s| s.iter().map(|s| reads(s, "answer")).collect(),
        &["finite", "repeatable", "independent", "columns", "empty"],
    ),
    (
        "a panic without its column",
        &["answer"],
        |_, s| each(s, |s| s.text("answer").unwrap().len() as f64),
        &["columns"],
    ),
    (
        "one score short",
        &[],
        |_, s| each(s.get(1..).unwrap_or_default(), |_| 0.0),
        &["finite", "repeatable", "independent", "columns", "empty", "unusual"],
    ),
    (
        "a first byte taken for a character",
        &[],
        |_, s| {
            each(s, |s| {
                s.completion.get(..1).map_or_else(
                    || if s.completion.is_empty() { 0.0 } else { s.completion[..1].len() as f64 },
                    |c| c.len() as f64,
                )
            })
        },
        &["unusual"],
    ),
    (
        "a first character that is not there",
        &[],
        |_, s| each(s, |s| f64::from(u32::from(s.completion.chars().next().unwrap()))),
        &["empty"],
    ),
    (
        "minus infinity for a wrong answer",
        &[],
        |_, s| each(s, |s| if s.completion == "42" { 1.0 } else { f64::NEG_INFINITY }),
        &["finite", "repeatable", "independent", "columns", "empty", "unusual"],
    ),
];

/// A reward with parts and spans: the length, whether there is a digit, and a number for each word.
struct Rated(Wrong);

/// The mistake of such a reward.
#[derive(Clone, Copy, PartialEq)]
enum Wrong {
    Nothing,
    OtherScore,
    PartIsARank,
    PartMissing,
    SpansInBytes,
    SpansOverlap,
    Undeclared,
}

impl Reward for Rated {
    fn score(&self, samples: &[Sample]) -> Result<Vec<f64>> {
        each(samples, |s| s.completion.len() as f64)
    }

    fn rate(&self, samples: &[Sample]) -> Result<Vec<Rating>> {
        let rank = |s: &Sample| samples.iter().filter(|other| other.completion < s.completion).count() as f64;
        let rating = |(s, score): (&Sample, f64)| {
            let digit = f64::from(s.completion.contains(|c: char| c.is_ascii_digit()));
            let digit = if self.0 == Wrong::PartIsARank { rank(s) } else { digit };
            let parts =
                if self.0 == Wrong::PartMissing && digit == 0.0 { vec![] } else { vec![("digit".to_owned(), digit)] };
            let place = |byte: usize| match self.0 == Wrong::SpansInBytes {
                true => byte,
                false => s.completion[..byte].chars().count(),
            };
            let more = 2 * usize::from(self.0 == Wrong::SpansOverlap);
            let words = s.completion.split(' ').scan(0, |at, word| {
                let start = *at;
                *at += word.len() + 1;
                Some((start, start + word.len()))
            });
            let spans = words
                .filter(|(start, end)| start < end)
                .map(|(start, end)| Span { start: place(start).saturating_sub(more), end: place(end), value: 0.5 })
                .collect();
            Rating { score: if self.0 == Wrong::OtherScore { score + 1.0 } else { score }, parts, spans }
        };
        Ok(samples.iter().zip(self.score(samples)?).map(rating).collect())
    }
}

/// Catches ratings whose score is another one than the one that is reported, parts that depend on the other samples or are
/// missing for some, characters that are counted in bytes, and parts that the host would never ask for.
#[test]
fn mistakes_of_ratings_break_their_law_and_no_other() {
    for (wrong, broken) in [
        (Wrong::Nothing, false),
        (Wrong::OtherScore, true),
        (Wrong::PartIsARank, true),
        (Wrong::PartMissing, true),
        (Wrong::SpansInBytes, true),
        (Wrong::SpansOverlap, true),
        (Wrong::Undeclared, true),
    ] {
        let declared = wrong != Wrong::Undeclared;
        let parts = if declared { vec![RewardPart::new("digit", "Whether there is a digit")] } else { Vec::new() };
        let manifest = RewardManifest { summary: "For a test".into(), parts, spans: declared, ..Default::default() };
        let report = Laws::new(manifest, move |options| {
            refuse_unknown(&[], options)?;
            Ok(Rated(wrong))
        })
        .verify();
        let found: Vec<&str> = report.failures().map(|line| line.group.as_str()).collect();
        assert_eq!(found, if broken { &["ratings"][..] } else { &[] }, "{report}");
    }
}

#[test]
fn each_mistake_breaks_its_laws_and_no_other() {
    for (mistake, columns, score, expected) in MISTAKES {
        let report = verify(columns, *score);
        let found: Vec<&str> = report.failures().map(|line| line.group.as_str()).collect();
        assert_eq!(found, *expected, "{mistake}\n{report}");
    }
}

/// Catches a report that does not say which sample: an author cannot repeat what broke the law.
#[test]
fn the_failing_sample_is_shown() {
    let report = verify(&[], |_, s| Ok((0..s.len()).map(|i| i as f64).collect()));
    let line = report.failures().next().expect("a broken law");
    assert_eq!(line.detail, "scored alone: the score is 0, it was 1");
    let sample = "prompt \"What is 12 + 30?\"; completion \"The answer is 42.\" (cut off)";
    assert_eq!(line.counterexample.as_deref(), Some(sample));
}
