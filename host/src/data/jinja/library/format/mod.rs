//! Python's two ways to format: `'%d' % 5` and `'{:>5}'.format(x)`.
//!
//! | file | job |
//! |---|---|
//! | `percent` | `text % args` |
//! | `braces` | `text.format(...)` |
//! | `spec` | a format specification, and values written by it |

mod braces;
mod percent;
mod spec;

pub use braces::braces;
pub use percent::percent;
