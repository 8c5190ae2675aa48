//! Commands that show what runs did: `telos report`, `telos plot`, `telos runs`.

pub mod plot;
pub mod report;
pub mod runs;
