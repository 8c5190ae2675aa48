//! The tables of an experiment. The file of a table declares its keys, its resolved form, its defaults and the rules between its
//! keys.

pub mod alert;
pub mod backend;
pub mod checkpoint;
pub mod eval;
pub mod lora;
pub mod metric;
pub mod model;
pub mod objective;
pub mod roles;
pub mod sample;
pub mod tokenizer;
pub mod track;
pub mod train;
