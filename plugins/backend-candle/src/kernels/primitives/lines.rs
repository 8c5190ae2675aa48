//! Lines of the cache, and the rows that sums are written to.

use super::{element::Element, factor::Start, operand::MatMut};

/// Brings the line of an address into the first cache; the address need not be valid.
#[inline(always)]
pub fn prefetch<T>(ptr: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, which reads nothing.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(ptr.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = ptr;
}

/// `c = start + alpha sums` for the part of row `row` that starts at column `col`.
///
/// # Safety
/// No other code accesses that part, which lies inside `c`.
#[inline(always)]
pub unsafe fn write_row<C: Element, R: Element>(
    c: MatMut<C>,
    row: usize,
    col: usize,
    sums: &[f32],
    alpha: f32,
    start: Start<R>,
) {
    // SAFETY: the caller's.
    let to = unsafe { c.span(row, col, sums.len()) };
    match start {
        Start::Zero => to.iter_mut().zip(sums).for_each(|(c, s)| *c = C::store(alpha * s)),
        Start::Accumulate => to.iter_mut().zip(sums).for_each(|(c, s)| *c = C::store(alpha * s + c.load())),
        Start::Row(bias) => {
            // SAFETY: a row as long as those of `c`, only read.
            let bias = unsafe { bias.span(0, col, sums.len()) };
            to.iter_mut().zip(sums).zip(bias).for_each(|((c, s), b)| *c = C::store(alpha * s + b.load()));
        }
    }
}
