//! What runs leave for a reader: reports in a real browser, figures, the list of runs, and how runs ended.

mod browser;
mod chromium;
mod histograms;
mod records;
mod tensorboard;
