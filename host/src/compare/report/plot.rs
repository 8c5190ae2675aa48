//! The comparison as a plot: the losses of all backends over the steps, and below them each one's difference from
//! the first.

use std::{error::Error as StdError, fs, path::Path};

use plotters::coord::{
    Shift,
    ranged1d::{Ranged, ValueFormatter},
    types::RangedCoordf64,
};
use plotters::prelude::*;

use super::Comparison;
use crate::compare::noise_floor::NoiseFloor;
use crate::error::{Error, Result};

const SIZE: (u32, u32) = (960, 720);

/// The fonts are the viewer's.
const TEXT: (&str, i32) = ("sans-serif", 15);

/// Distinguishable with any colour vision (Okabe and Ito 2008).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn<T = ()> = std::result::Result<T, Box<dyn StdError>>;
type Line<'a> = (String, RGBColor, Vec<(f64, f64)>);

/// Writes the picture.
///
/// # Errors
/// A failed run naming the file.
pub fn write(comparison: &Comparison, path: &Path) -> Result<()> {
    let failed = |cause: String| Error::run(format!("cannot write {}", path.display())).with_cause(cause);
    let text = draw(comparison).map_err(|cause| failed(cause.to_string()))?;
    fs::write(path, text).map_err(|cause| failed(cause.to_string()))
}

/// The picture as SVG.
fn draw(comparison: &Comparison) -> Drawn<String> {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let (losses, differences) = (losses(comparison), differences(comparison));
        let (above, below) = area.split_vertically(if differences.is_empty() { SIZE.1 } else { SIZE.1 * 3 / 5 });
        linear(&above, &format!("{}: loss by step", comparison.name), &losses)?;
        if !differences.is_empty() {
            logarithmic(&below, "relative difference of the loss", &differences)?;
        }
        area.present()?;
    }
    Ok(text)
}

fn losses(comparison: &Comparison) -> Vec<Line<'static>> {
    let backends = comparison.backends.iter().zip(COLOURS.into_iter().cycle());
    backends.map(|(backend, colour)| (backend.backend.clone(), colour, points(&backend.curve.loss, 0.0))).collect()
}

/// The differences between losses. Zeros are left out, because a logarithmic axis cannot show them.
fn differences(comparison: &Comparison) -> Vec<Line<'static>> {
    let backends = comparison.backends.iter().zip(COLOURS.into_iter().cycle());
    let mut lines: Vec<Line<'_>> = backends
        .filter_map(|(backend, colour)| {
            let own = backend.agreement.as_ref()?;
            Some((format!("{} from {}", backend.backend, own.with), colour, points(&own.losses, f64::MIN_POSITIVE)))
        })
        .collect();
    if let Some(NoiseFloor { backend, losses, .. }) = &comparison.noise_floor {
        let grey = RGBColor(128, 128, 128);
        lines.push((format!("{backend}, one weight moved"), grey, points(losses, f64::MIN_POSITIVE)));
    }
    lines.retain(|(_, _, points)| !points.is_empty());
    lines
}

/// The points (step, value), with steps counted from 1, of the values that are finite and at least `least`.
fn points(values: &[f64], least: f64) -> Vec<(f64, f64)> {
    let finite = values.iter().enumerate().filter(|(_, value)| value.is_finite() && **value >= least);
    finite.map(|(step, value)| (step as f64 + 1.0, *value)).collect()
}

/// The ranges of steps and values over all lines; a range is never empty.
fn bounds(lines: &[Line<'_>]) -> [(f64, f64); 2] {
    let all = || lines.iter().flat_map(|(_, _, points)| points);
    let span = |values: &mut dyn Iterator<Item = f64>| {
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
        if low < high {
            (low, high)
        } else if low == high {
            (low * 0.9, high * 1.1 + 1e-9)
        } else {
            (0.0, 1.0)
        }
    };
    [span(&mut all().map(|p| p.0)), span(&mut all().map(|p| p.1))]
}

fn linear(area: &Area<'_>, title: &str, lines: &[Line<'_>]) -> Drawn {
    let [x, y] = bounds(lines);
    let mut chart = builder(area, title).build_cartesian_2d(x.0..x.1, y.0..y.1)?;
    fill(&mut chart, lines, SeriesLabelPosition::UpperRight, &|value| format!("{value:.2}"))
}

fn logarithmic(area: &Area<'_>, title: &str, lines: &[Line<'_>]) -> Drawn {
    let [x, y] = bounds(lines);
    let mut chart = builder(area, title).build_cartesian_2d(x.0..x.1, (y.0..y.1).log_scale())?;
    fill(&mut chart, lines, SeriesLabelPosition::LowerRight, &|value| format!("{value:.0e}"))
}

type Chart<'a, 'b, Y> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, Y>>;

/// Draws the grid, the lines and the legend.
fn fill<'a, 'b: 'a, Y: Ranged<ValueType = f64> + ValueFormatter<f64>>(
    chart: &mut Chart<'a, 'b, Y>,
    lines: &[Line<'_>],
    names: SeriesLabelPosition,
    value: &dyn Fn(&f64) -> String,
) -> Drawn {
    let mut mesh = chart.configure_mesh();
    mesh.light_line_style(TRANSPARENT).label_style(TEXT).x_desc("step");
    mesh.x_label_formatter(&|step| format!("{step:.0}")).y_label_formatter(value).draw()?;
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

    /// Catches points at step 0, and values that an axis cannot hold.
    #[test]
    fn points_are_numbers_at_steps_from_1() {
        assert_eq!(points(&[2.0, f64::NAN, 0.0], 0.0), [(1.0, 2.0), (3.0, 0.0)]);
        assert_eq!(points(&[0.0, 1e-7], f64::MIN_POSITIVE), [(2.0, 1e-7)]);
    }

    /// Catches an axis of length 0, which leads to a division by zero when the plot is drawn.
    #[test]
    fn an_axis_is_never_empty() {
        for values in [vec![], vec![(1.0, 3.0)], vec![(1.0, 3.0), (2.0, 3.0)], vec![(1.0, 1.0), (2.0, 3.0)]] {
            for (low, high) in bounds(&[("a".into(), BLACK, values)]) {
                assert!(low < high && low.is_finite() && high.is_finite(), "{low} {high}");
            }
        }
    }
}
