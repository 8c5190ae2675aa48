//! Options of fill-in-the-middle, as declared.

use plugin_api::prelude::*;

options! {
    /// Options of fill-in-the-middle.
    pub struct Config {
        /// Share of the sequences that are rewritten; in the paper, 0.5 to 0.9 does not
        /// make the loss of ordinary text worse.
        rate: f64 = 0.5, in 0.0..=1.0;
        /// Share of the rewritten sequences in the order SPM; the others are in the order PSM.
        spm_rate: f64 = 0.5, in 0.0..=1.0;
        /// Id of the sentinel before a prefix. The three ids must differ, be less than `model.vocab`, and not
        /// occur in texts.
        prefix_id: i64 = 257, in 0..=2147483647;
        /// Id of the sentinel before a suffix.
        suffix_id: i64 = 258, in 0..=2147483647;
        /// Id of the sentinel before a middle.
        middle_id: i64 = 259, in 0..=2147483647;
        /// Id of the end-of-text token, which stays last; -1 if sequences have none. The tokenizer `bytes` has 256.
        end_id: i64 = 256, in -1..=2147483647;
        /// Id of the token that sequences begin with, which stays first; -1 if there is none.
        begin_id: i64 = -1, in -1..=2147483647;
    }
}
