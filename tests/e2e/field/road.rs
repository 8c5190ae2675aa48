//! The main road away from home: the reference pass, evaluation, columns that nothing reads.
