//! Operations that select or repeat elements: by mask, by index, by pair and side, by sequence and group, by order. Apart from the
//! selection by mask and `concat`, all use the same rule: output element `i` is element `index[i]`.

use std::cmp::Ordering;

use ndarray::ArrayD;

use super::operators::{Operand, broadcast};
use super::reduce::{number, rows_and_width};
use crate::tape::error::TapeError;
use crate::tape::graph::{Rule, State, Tape, Var, array};
use crate::tape::kind::OpKind;
use crate::tape::mask::{Id, Mask, ids};

/// The `side` of a pair's preferred sequence.
pub const CHOSEN: i64 = 1;
/// The `side` of a pair's other sequence.
pub const REJECTED: i64 = 0;

impl Tape {
    /// `a` where `mask` is set, else `b` (`torch.where`). Either may be a scalar. The operand that is not selected has no effect:
    /// a NaN there reaches neither the value nor any gradient.
    pub fn select<'t>(
        &'t self,
        mask: impl Into<Mask>,
        a: impl Into<Operand<'t>>,
        b: impl Into<Operand<'t>>,
    ) -> Var<'t> {
        let (mask, a, b) = (mask.into(), a.into().on(self), b.into().on(self));
        self.record(OpKind::Select, &[a, b], |state| {
            let (left, right) = (state.value(a).shape(), state.value(b).shape());
            let shape = match broadcast(OpKind::Select, left, right)? {
                [] => vec![mask.bits().len()],
                shape => shape.to_vec(),
            };
            let bits = mask.elements(OpKind::Select, &shape)?;
            let (left, right) = (reader(state, a), reader(state, b));
            let value = bits.iter().enumerate().map(|(i, bit)| if *bit { left(i) } else { right(i) }).collect();
            Ok((array(&shape, value), Rule::Select { bits, a: a.index, b: b.index }))
        })
    }

    /// Concatenates vectors or matrices along the first axis; matrices must have equally many columns.
    pub fn concat<'t>(&'t self, parts: &[Var<'t>]) -> Var<'t> {
        self.record(OpKind::Concat, parts, |state| {
            let (mut rows, mut value, mut first) = (0, Vec::new(), None);
            for part in parts {
                let shape = state.value(*part).shape();
                rows += rows_and_width(OpKind::Concat, shape)?.0;
                let first = *first.get_or_insert(shape);
                if first.get(1) != shape.get(1) {
                    return Err(TapeError::Shape { op: OpKind::Concat, left: first.to_vec(), right: shape.to_vec() });
                }
                value.extend_from_slice(state.flat(*part));
            }
            let columns = first.unwrap_or_default().iter().skip(1).copied();
            let shape: Vec<usize> = std::iter::once(rows).chain(columns).collect();
            Ok((array(&shape, value), Rule::Concat { parts: parts.iter().map(|part| part.index).collect() }))
        })
    }
}

impl<'t> Var<'t> {
    /// The rows (for a vector, the elements) at `index`, in that order; an index may repeat.
    #[must_use]
    pub fn index_select<T: Id>(self, index: &[T]) -> Var<'t> {
        const OP: OpKind = OpKind::IndexSelect;
        self.rows(OP, |_, shape| {
            let (rows, _) = rows_and_width(OP, shape)?;
            let at = |(position, index)| checked(OP, position, index, rows);
            ids(OP, "index", index)?.into_iter().enumerate().map(at).collect()
        })
    }

    /// Selects from each row of `[N, K]` the element at `index[row]`: `[N]`.
    #[must_use]
    pub fn gather<T: Id>(self, index: &[T]) -> Var<'t> {
        const OP: OpKind = OpKind::Gather;
        self.elements(OP, |shape| {
            let &[rows, width] = shape else {
                return Err(TapeError::Rank { op: OP, expected: "a matrix", found: shape.to_vec() });
            };
            if index.len() != rows {
                return Err(TapeError::Length { op: OP, array: "index", length: index.len(), shape: shape.to_vec() });
            }
            let at = |(row, index)| Ok(row * width + checked(OP, row, index, width)?);
            let index = ids(OP, "index", index)?.into_iter().enumerate().map(at).collect::<Result<_, TapeError>>()?;
            Ok((vec![rows], index))
        })
    }

    /// Gives each token its sequence's value: `[S]` to `[N]`, `[S, K]` to `[N, K]`.
    #[must_use]
    pub fn to_tokens(self) -> Var<'t> {
        const OP: OpKind = OpKind::ToTokens;
        self.rows(OP, |state, shape| {
            let offsets = state.offsets(OP)?;
            let (rows, _) = rows_and_width(OP, shape)?;
            if rows + 1 != offsets.len() {
                return Err(TapeError::Shape { op: OP, left: shape.to_vec(), right: vec![offsets.len() - 1] });
            }
            let tokens = |(sequence, bounds): (usize, &[usize])| std::iter::repeat_n(sequence, bounds[1] - bounds[0]);
            Ok(offsets.windows(2).enumerate().flat_map(tokens).collect())
        })
    }

    /// Gives each member its group's value: `[G]` to `[S]`, the opposite of [`Var::group_sum`] with the same `group`.
    #[must_use]
    pub fn group_broadcast<T: Id>(self, group: &[T]) -> Var<'t> {
        const OP: OpKind = OpKind::GroupBroadcast;
        self.rows(OP, |_, shape| {
            let (rows, _) = rows_and_width(OP, shape)?;
            let (numbers, groups) = number(OP, "group", group)?;
            if rows != groups {
                return Err(TapeError::Shape { op: OP, left: shape.to_vec(), right: vec![groups] });
            }
            Ok(numbers)
        })
    }

    /// Each pair's chosen sequence: `[S]` to `[P]`, pairs ordered by their first sequence. `pair[s]` is any integer, `side[s]`
    /// [`CHOSEN`] or [`REJECTED`]; a pair without exactly one of each is an error.
    #[must_use]
    pub fn chosen<T: Id, U: Id>(self, pair: &[T], side: &[U]) -> Var<'t> {
        self.rows(OpKind::Chosen, |_, shape| sides(OpKind::Chosen, shape, pair, side, CHOSEN))
    }

    /// Each pair's rejected sequence, in the same order as [`Var::chosen`].
    #[must_use]
    pub fn rejected<T: Id, U: Id>(self, pair: &[T], side: &[U]) -> Var<'t> {
        self.rows(OpKind::Rejected, |_, shape| sides(OpKind::Rejected, shape, pair, side, REJECTED))
    }

    /// A vector's elements in ascending order. Equal elements keep their order, NaNs come last. Gradients follow the elements.
    #[must_use]
    pub fn sort(self) -> Var<'t> {
        self.elements_of(OpKind::Sort, |state, shape| {
            let &[length] = shape else {
                return Err(TapeError::Rank { op: OpKind::Sort, expected: "a vector", found: shape.to_vec() });
            };
            Ok((vec![length], ascending(state.flat(self))))
        })
    }

    /// The order in which [`Var::sort`] puts the elements, for [`Var::index_select`] on arrays that belong to them.
    ///
    /// # Errors
    /// The first mistake made on the tape.
    pub fn argsort(self) -> Result<Vec<usize>, TapeError> {
        Ok(ascending(&self.to_vec()?))
    }

    /// Repeats each element `width` times along a new last axis: `[N]` to `[N, width]`, a scalar to `[width]`.
    #[must_use]
    pub fn repeat_last(self, width: usize) -> Var<'t> {
        const OP: OpKind = OpKind::RepeatLast;
        self.elements(OP, |shape| {
            if shape.len() > 1 {
                return Err(TapeError::Rank { op: OP, expected: "a scalar or a vector", found: shape.to_vec() });
            }
            let length = shape.iter().product::<usize>();
            let index = (0..length).flat_map(|i| std::iter::repeat_n(i, width)).collect();
            Ok(([shape, &[width]].concat(), index))
        })
    }

    /// The transposed matrix.
    #[must_use]
    pub fn transpose(self) -> Var<'t> {
        const OP: OpKind = OpKind::Transpose;
        self.elements(OP, |shape| {
            let &[rows, width] = shape else {
                return Err(TapeError::Rank { op: OP, expected: "a matrix", found: shape.to_vec() });
            };
            let index = (0..width).flat_map(|column| (0..rows).map(move |row| row * width + column)).collect();
            Ok((vec![width, rows], index))
        })
    }

    /// Selects whole rows by number; the numbers are within range.
    fn rows(self, op: OpKind, choose: impl FnOnce(&State, &[usize]) -> Result<Vec<usize>, TapeError>) -> Var<'t> {
        self.elements_of(op, |state, shape| {
            let rows = choose(state, shape)?;
            let (_, width) = rows_and_width(op, shape)?;
            let result = [&[rows.len()], shape.get(1..).unwrap_or_default()].concat();
            let elements = |row: usize| (row * width)..((row + 1) * width);
            let index = if width == 1 { rows } else { rows.into_iter().flat_map(elements).collect() };
            Ok((result, index))
        })
    }

    fn elements(
        self,
        op: OpKind,
        choose: impl FnOnce(&[usize]) -> Result<(Vec<usize>, Vec<usize>), TapeError>,
    ) -> Var<'t> {
        self.elements_of(op, |_, shape| choose(shape))
    }

    /// Selects elements by flat index; `choose` returns the result's shape and the indices, which are within range.
    fn elements_of(
        self,
        op: OpKind,
        choose: impl FnOnce(&State, &[usize]) -> Result<(Vec<usize>, Vec<usize>), TapeError>,
    ) -> Var<'t> {
        self.tape.record(op, &[self], |state| {
            let (shape, index) = choose(state, state.value(self).shape())?;
            let x = state.flat(self);
            let value: ArrayD<f64> = array(&shape, index.iter().map(|from| x[*from]).collect());
            Ok((value, Rule::Gather { x: self.index, index }))
        })
    }
}

/// The elements' order by value: a total order in which NaNs are equal to each other and greater than all numbers.
fn ascending(values: &[f64]) -> Vec<usize> {
    let compare = |a: f64, b: f64| a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()));
    let mut order: Vec<usize> = (0..values.len()).collect();
    // Stable, so that equal elements, 0 and -0 among them, keep their order.
    order.sort_by(|a, b| -> Ordering { compare(values[*a], values[*b]) });
    order
}

fn checked(op: OpKind, position: usize, index: i64, length: usize) -> Result<usize, TapeError> {
    let within = usize::try_from(index).ok().filter(|index| *index < length);
    within.ok_or(TapeError::Index { op, position, index, length })
}

/// Per pair, in order of first appearance, the row of its sequence on `wanted`.
fn sides<T: Id, U: Id>(
    op: OpKind,
    shape: &[usize],
    pair: &[T],
    side: &[U],
    wanted: i64,
) -> Result<Vec<usize>, TapeError> {
    let (rows, _) = rows_and_width(op, shape)?;
    for (array, length) in [("pair", pair.len()), ("side", side.len())] {
        if length != rows {
            return Err(TapeError::Length { op, array, length, shape: shape.to_vec() });
        }
    }
    let (numbers, pairs) = number(op, "pair", pair)?;
    let sides = ids(op, "side", side)?;
    // Per pair: how many are chosen, how many are rejected, the row of the wanted one, any row.
    let mut found = vec![(0, 0, 0, 0); pairs];
    for (row, (number, side)) in numbers.iter().zip(&sides).enumerate() {
        let entry = &mut found[*number];
        match *side {
            CHOSEN => entry.0 += 1,
            REJECTED => entry.1 += 1,
            side => return Err(TapeError::Side { op, position: row, side }),
        }
        if *side == wanted {
            entry.2 = row;
        }
        entry.3 = row;
    }
    if let Some((chosen, rejected, _, row)) = found.iter().find(|entry| (entry.0, entry.1) != (1, 1)) {
        let pair = pair[*row].to_id().unwrap_or_default();
        return Err(TapeError::Pair { op, pair, chosen: *chosen, rejected: *rejected });
    }
    Ok(found.into_iter().map(|entry| entry.2).collect())
}

/// Reads a variable's elements; for a scalar, its one element at every index.
fn reader(state: &State, var: Var<'_>) -> impl Fn(usize) -> f64 {
    let (values, step) = (state.flat(var), usize::from(state.value(var).ndim() > 0));
    move |i| values[i * step]
}
