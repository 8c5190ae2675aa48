//! Matrices for kernels: a pointer, a size and a stride. Their numbers are f32 or bf16.
//!
//! They come from views that the pool has checked, so every row lies inside a live buffer. No type ensures that two of them do not
//! overlap, or that two tasks write different rows: that is why row access is `unsafe`.

use super::element::{Element, is_f32};

/// A matrix to read.
#[derive(Clone, Copy)]
pub struct Mat<E = f32> {
    ptr: *const E,
    /// Rows.
    pub rows: usize,
    /// Columns, adjacent in memory.
    pub cols: usize,
    /// Elements from one row's start to the next.
    pub stride: usize,
}

// SAFETY: a plain address; each access through it is unsafe and justified where it happens.
unsafe impl<E> Send for Mat<E> {}
// SAFETY: as above.
unsafe impl<E> Sync for Mat<E> {}

impl<E: Element> Mat<E> {
    /// A matrix of `rows` x `cols` elements at `ptr`.
    pub fn new(ptr: *const E, rows: usize, cols: usize, stride: usize) -> Self {
        Mat { ptr, rows, cols, stride }
    }

    /// The address of its first element.
    pub fn ptr(&self) -> *const E {
        self.ptr
    }

    /// Whether its elements are adjacent.
    pub fn is_dense(&self) -> bool {
        self.rows <= 1 || self.stride == self.cols
    }

    /// The same address as a matrix of another type, for code that has compared the types.
    pub fn cast<T>(self) -> Mat<T> {
        Mat { ptr: self.ptr.cast(), rows: self.rows, cols: self.cols, stride: self.stride }
    }

    /// Row `r`.
    ///
    /// # Safety
    /// The buffer lives, and no other code writes the row meanwhile.
    #[inline(always)]
    pub unsafe fn row<'a>(self, r: usize) -> &'a [E] {
        debug_assert!(r < self.rows);
        // SAFETY: the row lies inside the checked view; the rest is guaranteed by the caller.
        unsafe { std::slice::from_raw_parts(self.ptr.add(r * self.stride), self.cols) }
    }

    /// `len` elements of row `r` that start at column `c`. For a dense matrix they may extend into the next rows.
    ///
    /// # Safety
    /// As [`Mat::row`], for those elements, which must lie inside the matrix.
    #[inline(always)]
    pub unsafe fn span<'a>(self, r: usize, c: usize, len: usize) -> &'a [E] {
        // SAFETY: guaranteed by the caller.
        unsafe { std::slice::from_raw_parts(self.ptr.add(r * self.stride + c), len) }
    }

    /// The part of `rows` x `cols` elements that starts at (`r`, `c`).
    pub fn block(self, r: usize, rows: usize, c: usize, cols: usize) -> Mat<E> {
        debug_assert!(r + rows <= self.rows && c + cols <= self.cols);
        Mat { ptr: self.ptr.wrapping_add(r * self.stride + c), rows, cols, stride: self.stride }
    }
}

/// A matrix to write (and read).
#[derive(Clone, Copy)]
pub struct MatMut<E = f32> {
    ptr: *mut E,
    /// Rows.
    pub rows: usize,
    /// Columns, adjacent in memory.
    pub cols: usize,
    /// Elements from one row's start to the next.
    pub stride: usize,
}

// SAFETY: as for `Mat`.
unsafe impl<E> Send for MatMut<E> {}
// SAFETY: as for `Mat`.
unsafe impl<E> Sync for MatMut<E> {}

impl<E: Element> MatMut<E> {
    /// A matrix of `rows` x `cols` elements at `ptr`.
    pub fn new(ptr: *mut E, rows: usize, cols: usize, stride: usize) -> Self {
        MatMut { ptr, rows, cols, stride }
    }

    /// A dense matrix over the first elements of `values`, which must not be used otherwise while the matrix is in use.
    pub fn over(values: &mut [E], rows: usize, cols: usize) -> Self {
        assert!(rows * cols <= values.len());
        MatMut { ptr: values.as_mut_ptr(), rows, cols, stride: cols }
    }

    /// The address of its first element.
    pub fn ptr(&self) -> *mut E {
        self.ptr
    }

    /// The same matrix, for reading.
    pub fn as_mat(&self) -> Mat<E> {
        Mat { ptr: self.ptr, rows: self.rows, cols: self.cols, stride: self.stride }
    }

    /// Whether its elements are adjacent.
    pub fn is_dense(&self) -> bool {
        self.as_mat().is_dense()
    }

    /// The matrix, if its numbers are f32: then sums can be added up in it.
    #[inline(always)]
    pub fn as_f32(self) -> Option<MatMut> {
        is_f32::<E>().then(|| MatMut { ptr: self.ptr.cast(), rows: self.rows, cols: self.cols, stride: self.stride })
    }

    /// Whether `other` is this same matrix (the catalogue allows no other overlap).
    pub fn is(&self, other: &Mat<E>) -> bool {
        self.ptr.cast_const() == other.ptr
    }

    /// Row `r`.
    ///
    /// # Safety
    /// The buffer lives, and no other code reads or writes the row meanwhile.
    #[inline(always)]
    #[allow(clippy::mut_from_ref, reason = "a handle to memory, like a raw pointer")]
    pub unsafe fn row<'a>(self, r: usize) -> &'a mut [E] {
        debug_assert!(r < self.rows);
        // SAFETY: the row lies inside the checked view; the rest is guaranteed by the caller.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.add(r * self.stride), self.cols) }
    }

    /// `len` elements of row `r` that start at column `c`. For a dense matrix they may extend into the next rows.
    ///
    /// # Safety
    /// As [`MatMut::row`], for those elements, which must lie inside the matrix.
    #[inline(always)]
    pub unsafe fn span<'a>(self, r: usize, c: usize, len: usize) -> &'a mut [E] {
        // SAFETY: guaranteed by the caller.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.add(r * self.stride + c), len) }
    }

    /// The part of `rows` x `cols` elements that starts at (`r`, `c`).
    pub fn block(self, r: usize, rows: usize, c: usize, cols: usize) -> MatMut<E> {
        debug_assert!(r + rows <= self.rows && c + cols <= self.cols);
        MatMut { ptr: self.ptr.wrapping_add(r * self.stride + c), rows, cols, stride: self.stride }
    }
}
