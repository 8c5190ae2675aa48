//! Rotary position embedding.

use crate::check;
use crate::kernels::{
    context::Kernels,
    primitives::{
        element::Element,
        operand::{Mat, MatMut},
    },
};
use plugin_api::{Code, Error, Result, backend::ops::Rotary};

/// Rotates each head's pairs by the angle of the token's position.
pub fn rotate<E: Element>(s: &mut Kernels<'_>, op: &Rotary) -> Result<()> {
    let (x, positions): (Mat<E>, _) = (s.input(&op.x)?, s.ints(&op.positions)?);
    let (cos, sin) = (s.input(&op.cos)?, s.input(&op.sin)?);
    let head_dim = head_dim(op)?;
    check::indices("rotary", "positions", positions, cos.rows)?;
    let y: MatMut<E> = s.output(&op.y)?;
    let in_place = y.is(&x);
    let par = &s.cx.par;
    par.rows(x.rows, x.cols, 400, |n| {
        par.wide(
            #[inline(always)]
            || {
                // SAFETY: checked views; rows are disjoint; `x` is either this same matrix, and is not read, or does not overlap
                // it.
                let y = unsafe { y.row(n) };
                if !in_place {
                    // SAFETY: as above.
                    y.copy_from_slice(unsafe { x.row(n) });
                }
                let position = positions[n] as usize;
                y.chunks_exact_mut(head_dim).for_each(|head| turn(head, cos, sin, position, op));
            },
        );
    });
    Ok(())
}

/// The width of a head, checked against the operands.
///
/// # Errors
/// [`Code::INVALID_ARGUMENT`], [`Code::SHAPE`].
pub fn head_dim(op: &Rotary) -> Result<usize> {
    if op.head_dim < 1 {
        return Err(Error::invalid(format!("rotary: head_dim {} is not positive", op.head_dim)));
    }
    let (head_dim, pairs) = (op.head_dim as u64, op.cos.cols);
    if !op.x.cols.is_multiple_of(head_dim) || pairs.saturating_mul(2) > head_dim {
        return Err(Error::new(
            Code::SHAPE,
            format!("rotary: head_dim {head_dim} must divide {} columns and hold {pairs} pairs", op.x.cols),
        ));
    }
    Ok(head_dim as usize)
}

#[inline(always)]
fn turn<E: Element>(head: &mut [E], cos: Mat, sin: Mat, position: usize, op: &Rotary) {
    // SAFETY: positions are checked; the tables are only read.
    let (cos, sin) = unsafe { (cos.row(position), sin.row(position)) };
    let sign = if op.inverse { -1.0 } else { 1.0 };
    let pairs = cos.len();
    if op.interleaved {
        for ((pair, c), s) in head.chunks_exact_mut(2).zip(cos).zip(sin) {
            let (a, b, s) = (pair[0].load(), pair[1].load(), sign * s);
            pair[0] = E::store(a * c - b * s);
            pair[1] = E::store(b * c + a * s);
        }
        return;
    }
    let (first, second) = head.split_at_mut(pairs);
    for (((a, b), c), s) in first.iter_mut().zip(second).zip(cos).zip(sin) {
        let (x, y, s) = (a.load(), b.load(), sign * s);
        (*a, *b) = (E::store(x * c - y * s), E::store(y * c + x * s));
    }
}
