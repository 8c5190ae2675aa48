//! Shapes of data files that other tools write.
