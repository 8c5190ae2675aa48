//! Curves as SVG or PNG: panels one below the other, each with lines over the steps.

pub mod dots;
mod frame;
mod legend;

use std::{fs, path::Path};

use plotters::coord::{
    ranged1d::{Ranged, ValueFormatter},
    types::RangedCoordf64,
};
use plotters::prelude::*;

use crate::error::{Error, Result};
use frame::{Area, Drawn, FONT, TEXT, label_width, number, register};
use legend::Legend;

pub use plotters::prelude::RGBColor as Colour;

/// Width and height of an SVG, in its units.
const SIZE: (u32, u32) = (960, 720);
/// Pixels of a PNG for each unit of an SVG: enough for print at half a page's width.
const PIXELS: u32 = 3;

/// Size of titles, in units.
const TITLE: u32 = 20;

/// Distinguishable with any colour vision (Okabe and Ito 2008).
pub const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];

/// The format of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Scalable Vector Graphics.
    Svg,
    /// Portable Network Graphics.
    Png,
}

impl Format {
    /// The format that a file's ending names.
    ///
    /// # Errors
    /// A request error for another ending; `flag` gave the path.
    pub fn of(flag: &str, path: &Path) -> Result<Format> {
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
        match ending.as_deref() {
            Some("svg") => Ok(Format::Svg),
            Some("png") => Ok(Format::Png),
            _ => Err(Error::request(format!("{flag}: {} ends neither in .svg nor in .png", path.display()))
                .with_hint("the ending decides the format, for example loss.svg")),
        }
    }

    /// Whether bytes are a picture in this format.
    pub fn is_of(self, bytes: &[u8]) -> bool {
        match self {
            Format::Svg => bytes.trim_ascii_start().starts_with(b"<svg"),
            Format::Png => bytes.starts_with(b"\x89PNG\r\n\x1a\n"),
        }
    }
}

/// A line: its name in the legend, its colour, and its points (step, value).
pub type Line = (String, RGBColor, Vec<(f64, f64)>);

/// The axis of the values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    /// Linear.
    Linear,
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

/// Writes the panels that have lines; the file's ending decides the format.
///
/// # Errors
/// A failed run naming the file; see [`Format::of`].
pub fn write(panels: &[Panel], path: &Path) -> Result<()> {
    let failed = |cause: String| Error::run(format!("cannot write {}", path.display())).with_cause(cause);
    let bytes = match Format::of("picture", path)? {
        Format::Svg => draw(panels).map(String::into_bytes),
        Format::Png => draw_png(panels),
    };
    let bytes = bytes.map_err(|cause| failed(cause.to_string()))?;
    fs::write(path, bytes).map_err(|cause| failed(cause.to_string()))
}

/// The picture as SVG, of the panels that have lines.
///
/// # Errors
/// Drawing failed.
pub fn draw(panels: &[Panel]) -> Drawn<String> {
    let mut text = String::new();
    draw_on(SVGBackend::with_string(&mut text, SIZE), panels, 1)?;
    Ok(text)
}

/// The picture as PNG, of the panels that have lines.
fn draw_png(panels: &[Panel]) -> Drawn<Vec<u8>> {
    let (width, height) = (SIZE.0 * PIXELS, SIZE.1 * PIXELS);
    let mut pixels = vec![0; 3 * (width * height) as usize];
    draw_on(BitMapBackend::with_buffer(&mut pixels, (width, height)), panels, PIXELS)?;
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header()?.write_image_data(&pixels)?;
    Ok(bytes)
}

/// Draws the panels that have lines; a unit has `scale` pixels.
fn draw_on<B: DrawingBackend>(backend: B, panels: &[Panel], scale: u32) -> Drawn
where
    B::ErrorType: 'static,
{
    register()?;
    let panels: Vec<&Panel> = panels.iter().filter(|panel| !panel.lines.is_empty()).collect();
    let mut rest = backend.into_drawing_area();
    rest.fill(&WHITE)?;
    let mut left: u32 = panels.iter().map(|panel| panel.height).sum();
    for panel in panels {
        let (_, height) = rest.dim_in_pixel();
        let (own, below) = rest.split_vertically(height * panel.height / left.max(1));
        left -= panel.height;
        chart(&own, panel, scale)?;
        rest = below;
    }
    rest.present()?;
    Ok(())
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

fn chart<B: DrawingBackend>(area: &Area<B>, panel: &Panel, scale: u32) -> Drawn
where
    B::ErrorType: 'static,
{
    let Panel { title, axis, lines, bands, .. } = panel;
    let [x, y] = bounds(lines, bands);
    let (width, height) = area.dim_in_pixel();
    let names = lines.iter().map(|(name, colour, _)| (name.as_str(), *colour));
    let area = Legend::new(names, width, height / 2, scale)?.draw(area)?;
    if *axis == Axis::Logarithmic {
        let value = |value: &f64| format!("{value:.0e}");
        let mut chart = builder(&area, title, label_width(y, &value, scale)?, scale)
            .build_cartesian_2d(x.0..x.1, (y.0..y.1).log_scale())?;
        return fill(&mut chart, panel, scale, &value);
    }
    let value = number(y);
    let mut chart =
        builder(&area, title, label_width(y, &value, scale)?, scale).build_cartesian_2d(x.0..x.1, y.0..y.1)?;
    fill(&mut chart, panel, scale, &value)
}

type Chart<'a, B, Y> = ChartContext<'a, B, Cartesian2d<RangedCoordf64, Y>>;

/// Draws the grid and the lines.
fn fill<'a, B: DrawingBackend + 'a, Y: Ranged<ValueType = f64> + ValueFormatter<f64>>(
    chart: &mut Chart<'a, B, Y>,
    Panel { x, lines, bands, .. }: &Panel,
    scale: u32,
    value: &dyn Fn(&f64) -> String,
) -> Drawn
where
    B::ErrorType: 'static,
{
    let text = (FONT, TEXT * scale);
    let mut mesh = chart.configure_mesh();
    mesh.light_line_style(TRANSPARENT).label_style(text).x_desc(x);
    let place = |at: &f64| if at.abs() < 1e6 { format!("{at:.0}") } else { format!("{at:.1e}") };
    mesh.x_label_formatter(&place).y_label_formatter(value).draw()?;
    for Band { colour, points } in bands {
        let above = points.iter().map(|(x, _, high)| (*x, *high));
        let back = points.iter().rev().map(|(x, low, _)| (*x, *low));
        chart.draw_series([Polygon::new(above.chain(back).collect::<Vec<_>>(), colour.mix(0.2).filled())])?;
        // An area without width is not seen.
        if let [(x, low, high)] = points[..] {
            let bar = [(x, low), (x, high)];
            chart.draw_series(LineSeries::new(bar, colour.mix(0.4).stroke_width(2 * scale)))?;
        }
    }
    for (_, colour, points) in lines {
        chart.draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(scale)))?;
        // Nor is a line of one point.
        if let [only] = points[..] {
            chart.draw_series([Circle::new(only, 4 * scale, colour.filled())])?;
        }
    }
    Ok(())
}

fn builder<'a, 'b, B: DrawingBackend>(
    area: &'a Area<B>,
    title: &str,
    labels: u32,
    scale: u32,
) -> ChartBuilder<'a, 'b, B> {
    let mut builder = ChartBuilder::on(area);
    builder.caption(title, (FONT, TITLE * scale)).margin(12 * scale);
    builder.x_label_area_size(40 * scale).y_label_area_size(labels);
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a format that does not follow the ending, a picture without its lines, and text that a machine without fonts leaves out.
    #[test]
    fn the_ending_decides_the_format() {
        let line: Line = ("a".into(), COLOURS[1], vec![(0.0, 1.0), (9.0, 3.0)]);
        let panel = |title: &str, lines| Panel {
            title: title.into(),
            axis: Axis::Linear,
            x: "step".into(),
            lines,
            bands: Vec::new(),
            height: 1,
        };
        let folder = tempfile::tempdir().unwrap();
        let drawn = |name: &str, title: &str| {
            let path = folder.path().join(name);
            write(&[panel(title, vec![line.clone()])], &path).unwrap();
            fs::read(path).unwrap()
        };
        let (svg, png, titled) = (drawn("a.svg", "t"), drawn("a.PNG", ""), drawn("b.png", "a title"));
        assert!(Format::Svg.is_of(&svg) && !Format::Png.is_of(&svg) && Format::Png.is_of(&png));
        let pixels = |bytes: &[u8]| {
            let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
            let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
            reader.next_frame(&mut pixels).unwrap();
            pixels
        };
        let count = |bytes: &[u8], colour: [u8; 3]| pixels(bytes).chunks(3).filter(|pixel| *pixel == colour).count();
        assert!(count(&png, [213, 94, 0]) > 1000, "{}", count(&png, [213, 94, 0]));
        assert!(count(&titled, [0, 0, 0]) > count(&png, [0, 0, 0]));
        assert!(write(&[], Path::new("a.pdf")).unwrap_err().report().contains(".png"));
    }

    /// Catches a line of one point that is not seen, a legend over the end of a curve, and labels with exponents that are cut off at
    /// the left.
    #[test]
    fn nothing_of_a_figure_is_hidden() {
        let lines = vec![
            ("falls".to_owned(), COLOURS[0], vec![(0.0, 3e-9), (9.0, -1e-9)]),
            ("one point".to_owned(), COLOURS[1], vec![(4.0, 2e-9)]),
        ];
        let panel =
            Panel { title: "t".into(), axis: Axis::Linear, x: "step".into(), lines, bands: Vec::new(), height: 1 };
        let svg = draw(&[panel]).unwrap();
        assert_eq!(svg.matches("<circle").count(), 1, "{svg}");
        let lowest_of = |start: &str, y: &str| {
            let of = |part: &str| part.split_once(y)?.1.split('"').next()?.parse::<f64>().ok();
            svg.split(start).skip(1).filter_map(of).fold(0.0, f64::max)
        };
        // The title of the horizontal axis is above the legend.
        let place = |text: &str| {
            let before = svg.split(&format!("\n{text}\n")).next().unwrap();
            before
                .rsplit("<text x=\"")
                .next()
                .unwrap()
                .split_once("y=\"")
                .unwrap()
                .1
                .split('"')
                .next()
                .unwrap()
                .parse::<f64>()
        };
        assert!(place("falls").unwrap() > place("step").unwrap() && lowest_of("<circle", "cy=\"") > 0.0, "{svg}");
        // Labels end at the axis: the longest one fits to the left of it.
        let (value, font) = (number((-1e-9, 3e-9)), (FONT, TEXT).into_font());
        assert_eq!((value(&-1e-9).as_str(), value(&0.0).as_str()), ("-1.0e-9", "0"));
        let width = label_width((-1.25e-10, 3e-9), &number((-1.25e-10, 3e-9)), 1).unwrap();
        assert!(width >= 64 && width > font.box_size("-1.2e-10").unwrap().0 + 10, "{width}");
        let wide = label_width((1.0, 1.000_001), &number((1.0, 1.000_001)), 1).unwrap();
        assert!(wide > font.box_size("1.00000100").unwrap().0 + 10, "{wide}");
        assert_eq!((number((0.0, 5.0))(&2.5), number((0.0, 4e7))(&2e7)), ("2.50".to_owned(), "2.0e7".to_owned()));
    }

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
