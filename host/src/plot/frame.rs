//! What figures have in common: the font, numbers on an axis, and the room that they need.

use std::error::Error as StdError;
use std::sync::OnceLock;

use plotters::{
    coord::Shift,
    prelude::*,
    style::{IntoFont, register_font},
};

/// The font's name. An SVG names it, and the viewer has it; a PNG is drawn with DejaVu Sans.
pub const FONT: &str = "sans-serif";
/// Size of numbers and names, in units.
pub const TEXT: u32 = 15;

/// An area to draw on.
pub type Area<B> = DrawingArea<B, Shift>;
/// The result of drawing.
pub type Drawn<T = ()> = std::result::Result<T, Box<dyn StdError>>;

/// Makes the font known, once; both formats measure texts with it.
///
/// # Errors
/// The font is damaged.
pub fn register() -> Drawn {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    let register = || register_font(FONT, FontStyle::Normal, dejavu::sans::regular()).is_ok();
    if *REGISTERED.get_or_init(register) { Ok(()) } else { Err("the font is damaged".into()) }
}

/// Returns the text of a value on an axis over `range`: as many digits as the range needs, and an exponent where zeros would fill
/// the label.
pub fn number(range: (f64, f64)) -> impl Fn(&f64) -> String {
    let size = range.0.abs().max(range.1.abs());
    let span = (range.1 - range.0).log10().floor();
    let exponent = !(1e-4..1e6).contains(&size);
    let digits = if exponent { size.log10().floor() - span + 1.0 } else { 2.0 - span };
    let digits = digits.clamp(if exponent { 1.0 } else { 0.0 }, 9.0) as usize;
    move |value| match exponent {
        true if *value == 0.0 => "0".to_owned(),
        true => format!("{value:.digits$e}"),
        false => format!("{value:.digits$}"),
    }
}

/// Pixels beside an axis over `range` for the longest of its labels.
///
/// # Errors
/// The font is damaged.
pub fn label_width(range: (f64, f64), value: &dyn Fn(&f64) -> String, scale: u32) -> Drawn<u32> {
    let font = (FONT, TEXT * scale).into_font();
    // The labels between have as many digits as these, and no further sign.
    let ends = [range.0, f64::midpoint(range.0, range.1), range.1].map(|at| font.box_size(&value(&at)));
    let longest = ends.into_iter().collect::<std::result::Result<Vec<_>, _>>()?.into_iter().map(|size| size.0).max();
    Ok((longest.unwrap_or(0) + 20 * scale).max(64 * scale))
}
