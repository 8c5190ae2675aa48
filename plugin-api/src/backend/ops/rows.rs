//! Rows of tables by their numbers: embeddings, gather and scatter.

use crate::backend::catalogue::catalogue;

catalogue! {
    /// Operations that read and add rows of tables by number.
    RowOps

    /// `y[n] = scale * table[ids[n]] + position_table[positions[n]]` (the second term only if given).
    6 Embedding embedding v 1 mandatory {
        in {
            /// Token ids in `0..V`.
            ids: I[1, N],
            /// Embedding rows.
            table: T[V, D],
        }
        opt {
            /// Positions in `0..P`; needs `position_table`.
            positions: I[1, N],
            /// Learned position rows.
            position_table: T[P, D],
        }
        out {
            /// Embedded tokens.
            y: T[N, D],
        }
        attr {
            /// Factor of the token row.
            scale: f64 = 1.0,
        }
    }

    /// `dtable[ids[n]] += scale * dy[n]`, summed in ascending n for each row.
    7 EmbeddingBackward embedding_backward v 1 mandatory {
        in {
            /// Ids (or positions) in `0..V`.
            ids: I[1, N],
            /// Cotangent of the output.
            dy: T[N, D],
        }
        update {
            /// Gradient of the table.
            dtable: A[V, D],
        }
        attr {
            /// The forward's factor.
            scale: f64 = 1.0,
        }
    }

    /// `y[m] = x[index[m]]`.
    27 GatherRows gather_rows v 1 mandatory {
        in {
            /// Rows.
            x: T[N, D],
            /// Row numbers in `0..N`.
            index: I[1, M],
        }
        out {
            /// Selected rows.
            y: T[M, D],
        }
    }

    /// `dx[index[m]] += dy[m]`, in ascending m for each row.
    28 ScatterAddRows scatter_add_rows v 1 mandatory {
        in {
            /// Row numbers in `0..N`.
            index: I[1, M],
            /// Cotangent of the selected rows.
            dy: T[M, D],
        }
        update {
            /// Cotangent of the rows.
            dx: T[N, D],
        }
    }
}
