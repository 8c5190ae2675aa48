//! Curves as SVG: panels one below the other, each with lines over the steps.

pub mod dots;

use std::{error::Error as StdError, fs, path::Path};

use plotters::coord::{
    Shift,
    ranged1d::{Ranged, ValueFormatter},
    types::RangedCoordf64,
};
use plotters::prelude::*;

use crate::error::{Error, Result};

pub use plotters::prelude::RGBColor as Colour;

const SIZE: (u32, u32) = (960, 720);

/// The fonts are the viewer's.
const TEXT: (&str, i32) = ("sans-serif", 15);

/// Distinguishable with any colour vision (Okabe and Ito 2008).
pub const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn<T = ()> = std::result::Result<T, Box<dyn StdError>>;

/// A line: its name in the legend, its colour, and its points (step, value).
pub type Line = (String, RGBColor, Vec<(f64, f64)>);

/// The axis of the values, and the corner of the legend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    /// Linear; the legend is above, for values that fall.
    Falling,
    /// Linear; the legend is below, for values that rise.
    Rising,
    /// Logarithmic; no value may be 0.
    Logarithmic,
}

/// The area between two curves.
#[derive(Debug, Clone, PartialEq)]
pub struct Band {
    /// Its colour; it is drawn faintly.
    pub colour: RGBColor,
    /// Its points: place, lower and upper value.
    pub points: Vec<(f64, f64, f64)>,
}

/// One chart.
#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    /// Its title.
    pub title: String,
    /// Its axis of values.
    pub axis: Axis,
    /// Title of the horizontal axis.
    pub x: String,
    /// Its lines.
    pub lines: Vec<Line>,
    /// Its bands, below the lines.
    pub bands: Vec<Band>,
    /// Its share of the height.
    pub height: u32,
}

/// Writes the panels that have lines.
///
/// # Errors
/// A failed run naming the file.
pub fn write(panels: &[Panel], path: &Path) -> Result<()> {
    let failed = |cause: String| Error::run(format!("cannot write {}", path.display())).with_cause(cause);
    let text = draw(panels).map_err(|cause| failed(cause.to_string()))?;
    fs::write(path, text).map_err(|cause| failed(cause.to_string()))
}

/// The picture as SVG, of the panels that have lines.
///
/// # Errors
/// Drawing failed.
pub fn draw(panels: &[Panel]) -> Drawn<String> {
    let panels: Vec<&Panel> = panels.iter().filter(|panel| !panel.lines.is_empty()).collect();
    let mut text = String::new();
    {
        let mut rest = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        rest.fill(&WHITE)?;
        let mut left: u32 = panels.iter().map(|panel| panel.height).sum();
        for panel in panels {
            let (_, height) = rest.dim_in_pixel();
            let (own, below) = rest.split_vertically(height * panel.height / left.max(1));
            left -= panel.height;
            chart(&own, panel)?;
            rest = below;
        }
        rest.present()?;
    }
    Ok(text)
}

/// The ranges of steps and values over all lines; a range is never empty.
fn bounds(lines: &[Line], bands: &[Band]) -> [(f64, f64); 2] {
    let of_band = |(x, low, high): &(f64, f64, f64)| [(*x, *low), (*x, *high)];
    let of_bands = || bands.iter().flat_map(|band| band.points.iter().flat_map(of_band));
    let all = || lines.iter().flat_map(|(_, _, points)| points.iter().copied()).chain(of_bands());
    let span = |values: &mut dyn Iterator<Item = f64>| {
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
        if low < high {
            (low, high)
        } else if low == high {
            let room = 0.1 * low.abs() + 1e-9;
            (low - room, high + room)
        } else {
            (0.0, 1.0)
        }
    };
    [span(&mut all().map(|p| p.0)), span(&mut all().map(|p| p.1))]
}

fn chart(area: &Area<'_>, panel: &Panel) -> Drawn {
    let Panel { title, axis, lines, bands, .. } = panel;
    let [x, y] = bounds(lines, bands);
    let names = match axis {
        Axis::Falling => SeriesLabelPosition::UpperRight,
        Axis::Rising | Axis::Logarithmic => SeriesLabelPosition::LowerRight,
    };
    if *axis == Axis::Logarithmic {
        let mut chart = builder(area, title).build_cartesian_2d(x.0..x.1, (y.0..y.1).log_scale())?;
        return fill(&mut chart, panel, names, &|value| format!("{value:.0e}"));
    }
    let mut chart = builder(area, title).build_cartesian_2d(x.0..x.1, y.0..y.1)?;
    // As many digits as the range needs.
    let digits = (2.0 - (y.1 - y.0).log10().floor()).clamp(0.0, 9.0) as usize;
    fill(&mut chart, panel, names, &|value| format!("{value:.digits$}"))
}

type Chart<'a, 'b, Y> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, Y>>;

/// Draws the grid, the lines and the legend.
fn fill<'a, 'b: 'a, Y: Ranged<ValueType = f64> + ValueFormatter<f64>>(
    chart: &mut Chart<'a, 'b, Y>,
    Panel { x, lines, bands, .. }: &Panel,
    names: SeriesLabelPosition,
    value: &dyn Fn(&f64) -> String,
) -> Drawn {
    let mut mesh = chart.configure_mesh();
    mesh.light_line_style(TRANSPARENT).label_style(TEXT).x_desc(x);
    let place = |at: &f64| if at.abs() < 1e6 { format!("{at:.0}") } else { format!("{at:.1e}") };
    mesh.x_label_formatter(&place).y_label_formatter(value).draw()?;
    for Band { colour, points } in bands {
        let above = points.iter().map(|(x, _, high)| (*x, *high));
        let back = points.iter().rev().map(|(x, low, _)| (*x, *low));
        chart.draw_series([Polygon::new(above.chain(back).collect::<Vec<_>>(), colour.mix(0.2).filled())])?;
    }
    for (name, colour, points) in lines {
        let series = LineSeries::new(points.iter().copied(), colour.stroke_width(1));
        let colour = *colour;
        chart.draw_series(series)?.label(name).legend(move |at| legend(at, colour));
    }
    let mut labels = chart.configure_series_labels();
    labels.position(names).label_font(TEXT);
    labels.background_style(WHITE.mix(0.8)).border_style(BLACK.mix(0.3)).draw()?;
    Ok(())
}

fn builder<'a, 'b>(area: &'a Area<'b>, title: &str) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
    let mut builder = ChartBuilder::on(area);
    builder.caption(title, ("sans-serif", 20)).margin(12).x_label_area_size(40).y_label_area_size(64);
    builder
}

fn legend((x, y): (i32, i32), colour: RGBColor) -> PathElement<(i32, i32)> {
    PathElement::new(vec![(x, y), (x + 18, y)], colour.stroke_width(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches an axis of length 0, which leads to a division by zero when the plot is drawn.
    #[test]
    fn an_axis_is_never_empty() {
        for values in
            [vec![], vec![(1.0, 3.0)], vec![(1.0, -3.0)], vec![(1.0, 3.0), (2.0, 3.0)], vec![(1.0, 1.0), (2.0, 3.0)]]
        {
            for (low, high) in bounds(&[("a".into(), BLACK, values)], &[]) {
                assert!(low < high && low.is_finite() && high.is_finite(), "{low} {high}");
            }
        }
    }
}
