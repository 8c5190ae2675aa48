//! Calls that are refused before anything is written, on both paths.

use crate::rig::Rig;
use plugin_api::{
    Code,
    backend::{View, ops::*},
};

#[test]
fn indices_outside_tables_are_refused_before_anything_is_written() {
    let mut r = Rig::new(4);
    let (table, y) = (r.mat(11, 8), r.mat(3, 8));
    for bad in [11, -1, i32::MIN] {
        let ids = r.ints(&[0, bad, 2]);
        let words = [bad.to_string()];
        let words = ["11", words[0].as_str(), "ids"];
        r.refused(Embedding { ids, table, y, ..Embedding::default() }, Code::INDEX, &words);
        r.refused(EmbeddingBackward { ids, dy: y, dtable: table, scale: 1.0 }, Code::INDEX, &words);
        r.refused(GatherRows { x: table, index: ids, y }, Code::INDEX, &["11", "index"]);
        r.refused(ScatterAddRows { index: ids, dy: y, dx: table }, Code::INDEX, &["11", "index"]);
        let (x, w, logp, dx) = (r.mat(3, 8), table, r.mat(1, 3), r.mat(3, 8));
        r.refused(HeadStats { x, w, targets: ids, logp, ..HeadStats::default() }, Code::INDEX, &["targets"]);
        let fused = HeadFused { x, w, targets: ids, dlogp: logp, logp: dx_row(&mut r), dx, ..HeadFused::default() };
        r.refused(fused, Code::INDEX, &["targets"]);
        let (cos, sin) = (r.mat(11, 4), r.mat(11, 4));
        r.refused(
            Rotary { x, positions: ids, cos, sin, y, head_dim: 8, ..Rotary::default() },
            Code::INDEX,
            &["positions", "11"],
        );
    }
    // Nothing was written: the buffers are still equal.
    r.check(Nop {});
}

fn dx_row(r: &mut Rig) -> View {
    r.mat(1, 3)
}

#[test]
fn offsets_that_are_not_cu_seqlens_are_refused() {
    let mut r = Rig::new(6);
    let [q, k, v, y] = [0; 4].map(|_| r.mat(6, 8));
    for bad in [&[0, 5][..], &[1, 6], &[0, 4, 3, 6], &[0, 9, 6], &[-1, 6]] {
        let offsets = r.ints(bad);
        let op = Attention { q, k, v, offsets, y, head_dim: 8, ..Attention::default() };
        r.refused(op, Code::INDEX, &["offsets"]);
    }
    let offsets = r.ints(&[0, 6]);
    let op = Attention { q, k, v, offsets, y, head_dim: 8, mask: MaskKind::PREFIX, ..Attention::default() };
    r.refused(op, Code::INVALID_ARGUMENT, &["prefix"]);
}

#[test]
fn a_slot_given_twice_is_refused() {
    let mut r = Rig::new(8);
    let [q, k, v, y] = [0; 4].map(|_| r.mat(2, 8));
    let [k_cache, v_cache] = [0; 2].map(|_| r.mat(8, 8));
    let (slots, lengths) = (r.ints(&[1, 1]), r.ints(&[0, 0]));
    let op = DecodeAttention {
        q,
        k,
        v,
        slots,
        lengths,
        y,
        k_cache,
        v_cache,
        head_dim: 8,
        capacity: 4,
        ..DecodeAttention::default()
    };
    r.refused(op, Code::INVALID_ARGUMENT, &["slot 1"]);
    let slots = r.ints(&[0, 2]);
    r.refused(DecodeAttention { slots, ..op }, Code::INDEX, &["slots"]);
    let (slots, lengths) = (r.ints(&[0, 1]), r.ints(&[0, 4]));
    r.refused(DecodeAttention { slots, lengths, ..op }, Code::INDEX, &["lengths"]);
}

#[test]
fn a_candidate_given_twice_is_refused_with_its_row() {
    let mut r = Rig::new(8);
    let (x, w, logp, lse, dx) = (r.mat(2, 3), r.mat(5, 3), r.mat(2, 3), r.mat(1, 2), r.mat(2, 3));
    let matrix = |flat: View| View { rows: 2, cols: 3, row_stride: 3, ..flat };
    let ids = matrix(r.ints(&[0, 1, 2, 4, 3, 4]));
    r.refused(HeadCandidates { x, w, ids, logp, ..Default::default() }, Code::INVALID_ARGUMENT, &["row 1", "4 twice"]);
    r.refused(HeadCandidatesBackward { x, w, ids, lse, dx, ..Default::default() }, Code::INVALID_ARGUMENT, &["row 1"]);
    let ids = matrix(r.ints(&[0, 1, 2, 4, 3, 5]));
    r.refused(HeadCandidates { x, w, ids, logp, ..Default::default() }, Code::INDEX, &["ids[1]", "5"]);
    let (ids, logp) = (matrix(r.ints(&[0; 6])), r.mat(2, 3));
    let w = r.mat(2, 3);
    r.refused(HeadTopk { x, w, ids, logp, ..Default::default() }, Code::SHAPE, &["3 ids of a vocabulary of 2"]);
    r.check(Nop {});
}
