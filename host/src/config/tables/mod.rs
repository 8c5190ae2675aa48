//! The tables of an experiment. The file of a table declares its keys, its resolved form and the rules between them.

pub mod roles;
