//! Shared by all tests: [`rig`] has the programs and their output, [`lab`] runs, [`kills`] runs that are ended early,
//! [`experiments`] texts of experiments.

pub mod experiments;
pub mod kills;
pub mod lab;
pub mod rig;
