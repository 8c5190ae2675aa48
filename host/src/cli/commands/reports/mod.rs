//! Commands that show what runs did: `telos report`, `telos plot`, `telos runs`, `telos export`.

pub mod export;
pub mod plot;
pub mod report;
pub mod runs;
