//! How a law of rewards is broken, and by which sample.

use crate::Agreement;
use plugin_api::{
    Error,
    reward::{Column, Sample},
};

/// What a check of a law found: a note, or how the law was broken.
pub(super) type Outcome = std::result::Result<String, Fault>;

/// How a law was broken, and by which sample.
pub(super) struct Fault {
    pub text: String,
    pub agreement: Option<Agreement>,
    pub sample: Option<Box<Sample>>,
}

impl Fault {
    pub fn of(sample: Option<&Sample>, text: String) -> Self {
        Self { text, agreement: None, sample: sample.cloned().map(Box::new) }
    }

    pub fn within(self, what: &str) -> Self {
        Self { text: format!("{what}: {}", self.text), ..self }
    }
}

impl From<Error> for Fault {
    fn from(e: Error) -> Self {
        Fault::of(None, e.to_string())
    }
}

/// Checks that scores are equal bit for bit, and reports the first sample whose score differs.
pub(super) fn same(samples: &[Sample], expected: &[f64], found: &[f64], what: &str) -> std::result::Result<(), Fault> {
    match expected.iter().zip(found).position(|(a, b)| a.to_bits() != b.to_bits()) {
        None => Ok(()),
        Some(at) => Err(Fault {
            text: format!("{what}: the score is {}, it was {}", found[at], expected[at]),
            agreement: Some(Agreement::new((expected[at] - found[at]).abs(), 0.0)),
            sample: samples.get(at).cloned().map(Box::new),
        }),
    }
}

/// A sample in one line.
pub(super) fn describe(sample: &Sample) -> String {
    let short = |text: &str| {
        let shown: String = text.chars().take(60).collect();
        if shown.len() < text.len() { format!("{shown:?}...") } else { format!("{shown:?}") }
    };
    let columns: String = sample
        .columns
        .iter()
        .map(|(name, value)| match value {
            Column::Text(text) | Column::Json(text) => format!("; {name} {}", short(text)),
            Column::Number(number) => format!("; {name} {number}"),
            _ => format!("; {name}"),
        })
        .collect();
    let ended = if sample.ended { "ended" } else { "cut off" };
    format!("prompt {}; completion {} ({ended}){columns}", short(&sample.prompt), short(&sample.completion))
}
