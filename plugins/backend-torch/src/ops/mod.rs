//! The operations, a file per family.

mod activation;
mod attention;
mod data;
mod embed;
mod head;
mod linear;
mod norm;
mod optim;
mod rotary;
mod sample;
#[cfg(test)]
mod tests;
pub mod workspace;
