//! Tests of the call `compose`.

use plugin_api::{
    batch::{Batch, Scope, names},
    manifest::{ObjectiveManifest, Requirements},
    objective::{Loss, Objective},
};

use super::{Objectives, active::Active};
use crate::{
    data::{Sequence, Window},
    runs::breadcrumb::CrashMarker,
};

/// Composes the reverse of every row.
struct Backwards;

impl Objective for Backwards {
    fn compose(&self, rows: &Batch<'_>, _: u64) -> plugin_api::Result<Option<Batch<'static>>> {
        let (tokens, offsets) = (rows.get("token")?, rows.offsets()?);
        let turned: Vec<f64> =
            offsets.windows(2).flat_map(|w| tokens[w[0]..w[1]].iter().rev().copied().collect::<Vec<_>>()).collect();
        let mask = vec![1.0; turned.len()];
        let same = |name: &str| rows.get(name).map(<[f64]>::to_vec);
        let batch = Batch::new()
            .with(names::OFFSETS, Scope::BATCH, same(names::OFFSETS)?)
            .with("row", Scope::SEQUENCE, same("row")?)
            .with("token", Scope::TOKEN, turned)
            .with(names::MASK, Scope::TOKEN, mask);
        Ok(Some(batch))
    }

    fn loss(&self, _: &Batch<'_>) -> plugin_api::Result<Loss> {
        Ok(Loss::new())
    }
}

fn objectives(count: usize) -> Objectives {
    let active = || {
        let manifest = ObjectiveManifest::default();
        Active::new("backwards", 1.0, String::new(), manifest, Box::new(Backwards), "text").unwrap()
    };
    Objectives::new((0..count).map(|_| active()).collect()).unwrap()
}

fn window() -> Window {
    let ids = [vec![1, 2, 3], vec![4, 5]];
    let sequence = |(row, ids): (usize, &Vec<u32>)| Sequence {
        ids: ids.clone(),
        supervised: vec![true; ids.len()],
        row: row as u64,
        ..Default::default()
    };
    Window::new(ids.iter().enumerate().map(sequence).collect()).unwrap()
}

/// Catches a host that ignores the sequences that an objective composes.
#[test]
fn an_objective_that_composes_receives_its_own_sequences() {
    let marker = CrashMarker::default();
    let composed = objectives(1).compose(window(), 7, &marker).unwrap();
    let ids: Vec<_> = composed.sequences().iter().map(|s| s.ids.clone()).collect();
    assert_eq!(ids, [vec![3, 2, 1], vec![5, 4]]);
}

/// Catches composed sequences whose last token is not read, so that a score is computed one token too early.
#[test]
fn composed_sequences_are_read_to_their_end_if_an_objective_reads_scores() {
    let mut objectives = objectives(1);
    let read = |objectives: &Objectives| {
        let composed = objectives.compose(window(), 7, &CrashMarker::default()).unwrap();
        composed.sequences().iter().map(|sequence| sequence.reads_last).collect::<Vec<_>>()
    };
    assert_eq!(read(&objectives), [false, false]);
    objectives.0[0].requirements = Requirements::reading(["score"]);
    assert_eq!(read(&objectives), [true, true]);
}

#[test]
fn two_objectives_cannot_compose_the_same_rows() {
    let error = objectives(2).compose(window(), 7, &CrashMarker::default()).unwrap_err();
    assert!(error.message().contains("the only objective"), "{}", error.report());
}
