//! Sums and means: over everything, over a mask, per sequence, per group, over the last axis. All use the same rule: each element
//! belongs to one segment or to none, and a mean divides by the segment's count.

use std::collections::BTreeMap;

use crate::tape::error::TapeError;
use crate::tape::graph::{NO_SEGMENT, Rule, State, Var, array};
use crate::tape::kind::OpKind;
use crate::tape::mask::{Id, Mask, ids};

/// The segment of each element, and the shape of the result.
struct Segments {
    /// Per element of the variable.
    segment: Vec<usize>,
    shape: Vec<usize>,
}

impl<'t> Var<'t> {
    /// The sum of all elements, a scalar.
    #[must_use]
    pub fn sum(self) -> Var<'t> {
        self.reduce(OpKind::Sum, false, |_, shape| Ok(everything(shape)))
    }

    /// The mean of all elements, a scalar; 0 if there are none. For quantities inside the maths: a term returns a sum.
    #[must_use]
    pub fn mean(self) -> Var<'t> {
        self.reduce(OpKind::Mean, true, |_, shape| Ok(everything(shape)))
    }

    /// The sum of the elements in `mask`, a scalar.
    #[must_use]
    pub fn masked_sum(self, mask: impl Into<Mask>) -> Var<'t> {
        let mask = mask.into();
        self.reduce(OpKind::MaskedSum, false, |_, shape| everything_in(OpKind::MaskedSum, mask, shape))
    }

    /// The mean of the elements in `mask`, a scalar; 0 if there are none.
    #[must_use]
    pub fn masked_mean(self, mask: impl Into<Mask>) -> Var<'t> {
        let mask = mask.into();
        self.reduce(OpKind::MaskedMean, true, |_, shape| everything_in(OpKind::MaskedMean, mask, shape))
    }

    /// Per sequence, the sum of its tokens in `mask`: `[N]` to `[S]`, `[N, K]` to `[S, K]`.
    #[must_use]
    pub fn seq_sum(self, mask: impl Into<Mask>) -> Var<'t> {
        let mask = mask.into();
        self.reduce(OpKind::SeqSum, false, |state, shape| per_sequence(OpKind::SeqSum, state, mask, shape))
    }

    /// Per sequence, the mean of its tokens in `mask`: `[N]` to `[S]`, `[N, K]` to `[S, K]`; 0 for a sequence without any.
    #[must_use]
    pub fn seq_mean(self, mask: impl Into<Mask>) -> Var<'t> {
        let mask = mask.into();
        self.reduce(OpKind::SeqMean, true, |state, shape| per_sequence(OpKind::SeqMean, state, mask, shape))
    }

    /// Per group, the sum of its members: `[S]` to `[G]`, `[S, K]` to `[G, K]`. `group[s]` is any integer; groups are
    /// ordered by their first member.
    #[must_use]
    pub fn group_sum<T: Id>(self, group: &[T]) -> Var<'t> {
        self.reduce(OpKind::GroupSum, false, |_, shape| per_group(OpKind::GroupSum, group, shape))
    }

    /// Per group, the mean of its members; otherwise as [`Var::group_sum`].
    #[must_use]
    pub fn group_mean<T: Id>(self, group: &[T]) -> Var<'t> {
        self.reduce(OpKind::GroupMean, true, |_, shape| per_group(OpKind::GroupMean, group, shape))
    }

    /// The sum over the last axis: `[N, K]` to `[N]`, `[N]` to a scalar.
    #[must_use]
    pub fn sum_last(self) -> Var<'t> {
        self.reduce(OpKind::SumLast, false, |_, shape| {
            let (outer, width) = last_axis(OpKind::SumLast, shape)?;
            let rows: usize = outer.iter().product();
            let segment = (0..rows).flat_map(|row| std::iter::repeat_n(row, width)).collect();
            Ok(Segments { segment, shape: outer.to_vec() })
        })
    }

    fn reduce(
        self,
        op: OpKind,
        mean: bool,
        segments: impl FnOnce(&State, &[usize]) -> Result<Segments, TapeError>,
    ) -> Var<'t> {
        self.tape.record(op, &[self], |state| {
            let Segments { segment, shape } = segments(state, state.value(self).shape())?;
            let length = shape.iter().product();
            let (mut total, mut count) = (vec![0.0; length], vec![0.0_f64; length]);
            for (x, to) in state.flat(self).iter().zip(&segment) {
                if *to != NO_SEGMENT {
                    total[*to] += x;
                    count[*to] += 1.0;
                }
            }
            // An empty mean divides its zero by one.
            let divisor = if mean { count.into_iter().map(|n| n.max(1.0)).collect() } else { vec![1.0; length] };
            total.iter_mut().zip(&divisor).for_each(|(total, divisor)| *total /= divisor);
            Ok((array(&shape, total), Rule::Scatter { x: self.index, segment, divisor }))
        })
    }
}

/// The shape without its last axis, and that axis' length.
pub(in crate::tape) fn last_axis(op: OpKind, shape: &[usize]) -> Result<(&[usize], usize), TapeError> {
    match shape {
        [outer @ .., width] => Ok((outer, *width)),
        [] => Err(TapeError::Rank { op, expected: "a vector or a matrix", found: Vec::new() }),
    }
}

/// A vector's or matrix' number of rows, and how many elements each has.
pub(in crate::tape) fn rows_and_width(op: OpKind, shape: &[usize]) -> Result<(usize, usize), TapeError> {
    match *shape {
        [rows] => Ok((rows, 1)),
        [rows, width] => Ok((rows, width)),
        _ => Err(TapeError::Rank { op, expected: "a vector or a matrix", found: shape.to_vec() }),
    }
}

/// Numbers ids by first appearance: returns each entry's group, and the number of groups.
pub(in crate::tape) fn number<T: Id>(
    op: OpKind,
    array: &'static str,
    values: &[T],
) -> Result<(Vec<usize>, usize), TapeError> {
    let mut known = BTreeMap::new();
    let mut numbers = Vec::with_capacity(values.len());
    for id in ids(op, array, values)? {
        let next = known.len();
        numbers.push(*known.entry(id).or_insert(next));
    }
    Ok((numbers, known.len()))
}

fn everything(shape: &[usize]) -> Segments {
    Segments { segment: vec![0; shape.iter().product()], shape: Vec::new() }
}

fn everything_in(op: OpKind, mask: Mask, shape: &[usize]) -> Result<Segments, TapeError> {
    let bits = mask.elements(op, shape)?;
    Ok(Segments { segment: bits.into_iter().map(|bit| if bit { 0 } else { NO_SEGMENT }).collect(), shape: Vec::new() })
}

fn per_sequence(op: OpKind, state: &State, mask: Mask, shape: &[usize]) -> Result<Segments, TapeError> {
    let offsets = state.offsets(op)?;
    let (rows, width) = rows_and_width(op, shape)?;
    let tokens = offsets.last().copied().unwrap_or_default();
    if rows != tokens {
        return Err(TapeError::Shape { op, left: shape.to_vec(), right: vec![tokens] });
    }
    let bits = mask.rows(op, shape)?;
    let mut segment = Vec::with_capacity(rows);
    for (sequence, bounds) in offsets.windows(2).enumerate() {
        let tokens = &bits[bounds[0]..bounds[1]];
        segment.extend(tokens.iter().map(|bit| if *bit { sequence } else { NO_SEGMENT }));
    }
    Ok(of_rows(segment, offsets.len() - 1, width, shape))
}

fn per_group<T: Id>(op: OpKind, group: &[T], shape: &[usize]) -> Result<Segments, TapeError> {
    let (rows, width) = rows_and_width(op, shape)?;
    if group.len() != rows {
        return Err(TapeError::Length { op, array: "group", length: group.len(), shape: shape.to_vec() });
    }
    let (segment, groups) = number(op, "group", group)?;
    Ok(of_rows(segment, groups, width, shape))
}

/// Converts segments of rows to segments of the elements in them; the result has `count` rows.
fn of_rows(rows: Vec<usize>, count: usize, width: usize, shape: &[usize]) -> Segments {
    let result = std::iter::once(count).chain(shape.iter().skip(1).copied()).collect();
    if width == 1 {
        return Segments { segment: rows, shape: result };
    }
    let element = |row: usize, column: usize| if row == NO_SEGMENT { row } else { row * width + column };
    let segment = rows.into_iter().flat_map(|row| (0..width).map(move |column| element(row, column))).collect();
    Segments { segment, shape: result }
}
