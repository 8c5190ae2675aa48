//! The order of a parameter's values in files, which for some families is not that of the layout.

use crate::model::params::Parameter;

impl Parameter {
    /// Returns the values as the layout has them, given those of a file.
    pub fn from_stored<T: Copy>(&self, values: Vec<T>) -> Vec<T> {
        let values = self.reordered(values, self.stored_heads, 3);
        match self.stored_transposed {
            true => transposed(&values, self.cols as usize, self.rows as usize),
            false => values,
        }
    }

    /// Returns the values as files have them, given those of the layout.
    pub fn to_stored<T: Copy>(&self, values: Vec<T>) -> Vec<T> {
        let values = match self.stored_transposed {
            true => transposed(&values, self.rows as usize, self.cols as usize),
            false => values,
        };
        self.reordered(values, 3, self.stored_heads)
    }

    /// Swaps the blocks of a joint projection that is stored head by head.
    fn reordered<T: Copy>(&self, values: Vec<T>, outer: u64, inner: u64) -> Vec<T> {
        if self.stored_heads == 0 { values } else { swapped(&values, outer as usize, inner as usize) }
    }
}

/// Reads values as `outer` times `inner` blocks, and swaps the two.
pub(super) fn swapped<T: Copy>(values: &[T], outer: usize, inner: usize) -> Vec<T> {
    let block = values.len() / (outer * inner);
    let at = |i: usize, o: usize| &values[(o * inner + i) * block..][..block];
    (0..inner).flat_map(|i| (0..outer).flat_map(move |o| at(i, o))).copied().collect()
}

/// Returns the transpose of a `rows` x `cols` matrix.
pub(super) fn transposed<T: Copy>(values: &[T], rows: usize, cols: usize) -> Vec<T> {
    (0..cols).flat_map(|col| (0..rows).map(move |row| values[row * cols + col])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::params::Init;

    /// Catches rows of a joint projection in another order than queries, keys, values, and one that is not undone on saving: 2 heads of
    /// width 1, 2 columns.
    #[test]
    fn rows_that_files_store_head_by_head_are_put_in_order_and_back() {
        let parameter = Parameter {
            name: String::new(),
            offset: 0,
            rows: 6,
            cols: 2,
            matrix: true,
            stored_transposed: false,
            stored_heads: 2,
            init: Init::Zero,
        };
        let stored = vec!["q0", "q0", "k0", "k0", "v0", "v0", "q1", "q1", "k1", "k1", "v1", "v1"];
        let ordered = parameter.from_stored(stored.clone());
        assert_eq!(ordered, ["q0", "q0", "q1", "q1", "k0", "k0", "k1", "k1", "v0", "v0", "v1", "v1"]);
        assert_eq!(parameter.to_stored(ordered), stored);
    }
}
