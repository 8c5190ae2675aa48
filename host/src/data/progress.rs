//! Shows on a terminal how far reading and tokenising large files is.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Fewer rows than these are read and tokenised in a moment.
const LEAST: u64 = 50_000;

/// A bar for `total` rows (`None`: not known yet) of which `what` is done; invisible if they are few, or if standard error is
/// not a terminal.
pub fn bar(what: &'static str, total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) if total < LEAST => return ProgressBar::hidden(),
        Some(total) => (ProgressBar::new(total), "{bar:30} {human_pos} of {human_len} {msg}, {eta} left"),
        None => (ProgressBar::new_spinner(), "{spinner} {human_pos} {msg}, {elapsed}"),
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style);
    bar.set_message(what);
    if total.is_none() {
        bar.enable_steady_tick(Duration::from_millis(200));
    }
    bar
}
