//! The legend of a figure: rows below it, where they cover no curve.

use plotters::{prelude::*, style::IntoFont};

use super::frame::{Area, Drawn, FONT, TEXT};

/// Distances in units: between rows, from a row's start to a name, and between a name and the next entry.
const ROW: u32 = TEXT + 7;
const SAMPLE: u32 = 28;
const GAP: u32 = 20;
/// The margin on the left and on the right, and that below.
const MARGIN: u32 = 24;
const BELOW: u32 = 6;

/// A legend, laid out.
pub struct Legend {
    rows: Vec<Vec<Entry>>,
    /// Pixels of a unit.
    scale: u32,
}

/// A name and its place in its row.
struct Entry {
    name: String,
    colour: Option<RGBColor>,
    left: u32,
}

impl Legend {
    /// Lays out names with their colours in rows of `width` pixels, of which `height` pixels have room; the number of the names
    /// that have none is stated at the end. A name that is longer than a row is clipped. A unit has `scale` pixels.
    ///
    /// # Errors
    /// The font is damaged.
    pub fn new<'a>(
        names: impl Iterator<Item = (&'a str, RGBColor)>,
        width: u32,
        height: u32,
        scale: u32,
    ) -> Drawn<Legend> {
        let font = (FONT, TEXT * scale).into_font();
        let measure = |text: &str| font.box_size(text).map(|(width, _)| width);
        let room = width.saturating_sub(2 * MARGIN * scale).max(1);
        let most_rows = (height.saturating_sub(BELOW * scale) / (ROW * scale)).max(1) as usize;
        let names: Vec<(&str, RGBColor)> = names.filter(|(name, _)| !name.is_empty()).collect();
        let (mut rows, mut at): (Vec<Vec<Entry>>, u32) = (Vec::new(), 0);
        for (index, (name, colour)) in names.iter().enumerate() {
            let mut name = (*name).to_owned();
            let mut size = SAMPLE * scale + measure(&name)?;
            while size > room && name.chars().count() > 2 {
                let kept = (name.chars().count() - 1) * 9 / 10;
                name = name.chars().take(kept.max(1)).chain(['…']).collect();
                size = SAMPLE * scale + measure(&name)?;
            }
            if rows.is_empty() || at + size > room {
                if rows.len() == most_rows {
                    let more = format!("and {} more", names.len() - index);
                    rows.push(vec![Entry { name: more, colour: None, left: 0 }]);
                    break;
                }
                (rows, at) = (rows.into_iter().chain([Vec::new()]).collect(), 0);
            }
            if let Some(row) = rows.last_mut() {
                row.push(Entry { name, colour: Some(*colour), left: at });
            }
            at += size + GAP * scale;
        }
        Ok(Legend { rows, scale })
    }

    /// Its height in pixels; 0 without names.
    pub fn height(&self) -> u32 {
        match self.rows.len() as u32 {
            0 => 0,
            rows => (rows * ROW + BELOW) * self.scale,
        }
    }

    /// Draws it into the lower part of `area`, and returns the rest.
    ///
    /// # Errors
    /// Drawing failed.
    pub fn draw<B: DrawingBackend>(&self, area: &Area<B>) -> Drawn<Area<B>>
    where
        B::ErrorType: 'static,
    {
        let (_, height) = area.dim_in_pixel();
        let (rest, own) = area.split_vertically(height.saturating_sub(self.height()));
        let pixels = |units: u32| (units * self.scale).cast_signed();
        let style = TextStyle::from((FONT, TEXT * self.scale).into_font());
        for (row, top) in self.rows.iter().zip((0..).map(|row| pixels(ROW * row))) {
            for Entry { name, colour, left } in row {
                let left = pixels(MARGIN) + left.cast_signed();
                let middle = top + pixels(ROW / 2 - 2);
                if let Some(colour) = colour {
                    let sample = vec![(left, middle), (left + pixels(SAMPLE - 8), middle)];
                    own.draw(&PathElement::new(sample, colour.stroke_width(2 * self.scale)))?;
                }
                let indent = if colour.is_some() { pixels(SAMPLE) } else { 0 };
                own.draw(&Text::new(name.clone(), (left + indent, top + pixels(2)), style.clone()))?;
            }
        }
        Ok(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::frame::register;

    fn legend(names: &[&str], width: u32, height: u32) -> Vec<Vec<String>> {
        register().unwrap();
        let legend = Legend::new(names.iter().map(|name| (*name, BLACK)), width, height, 1).unwrap();
        legend.rows.iter().map(|row| row.iter().map(|entry| entry.name.clone()).collect()).collect()
    }

    /// Catches a name that is lost, one that is drawn over another or beyond the edge, and names without room that are not counted.
    #[test]
    fn names_are_laid_out_in_rows() {
        assert_eq!(legend(&["a", "", "b"], 900, 400), [["a", "b"]]);
        assert_eq!(legend(&["a name", "another name"], 170, 400), [["a name"], ["another name"]]);
        let long = legend(&["x".repeat(500).as_str()], 300, 400);
        assert!(long[0][0].ends_with('…') && long[0][0].len() < 100, "{long:?}");
        let many = legend(&["one"; 100], 100, 5 * ROW);
        assert_eq!((many.len(), many[4][0].as_str()), (5, "and 96 more"));
        assert!(legend(&[], 900, 400).is_empty());
    }
}
