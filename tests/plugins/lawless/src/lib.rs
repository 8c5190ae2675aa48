//! Objectives and rewards that obey the laws, or break one of them in a known way, for the tests; never shipped.

mod answers;
mod kto;
mod marked;
mod rewards;
mod scaled;
mod teacher;
mod tokens;
mod weights;
