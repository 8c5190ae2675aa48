//! Mistakes that are found before the first step, and requests that come after the last one.
