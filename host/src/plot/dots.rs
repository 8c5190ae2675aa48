//! Values with intervals over named places, as SVG: a metric over the values of a key.

use plotters::prelude::*;

use super::{
    COLOURS,
    frame::{Drawn, FONT, TEXT, label_width, number, register},
    legend::Legend,
};

/// The size of the figure without its legend.
const SIZE: (u32, u32) = (720, 380);
/// The part of the distance between two places over which the series at a place are spread.
const SPREAD: f64 = 0.5;

/// A figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Dots {
    /// Its title.
    pub title: String,
    /// Title of the horizontal axis.
    pub x: String,
    /// Names of the places, from left to right; at least one.
    pub labels: Vec<String>,
    /// Names of the series; an empty one has no entry in the legend.
    pub series: Vec<String>,
    /// Whether the values of a series are joined by lines.
    pub joined: bool,
    /// The values.
    pub dots: Vec<Dot>,
}

/// A value with its interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dot {
    /// Its series.
    pub series: usize,
    /// Its place.
    pub at: usize,
    /// The value.
    pub value: f64,
    /// The interval's least value.
    pub low: f64,
    /// The interval's greatest value.
    pub high: f64,
}

/// The figure as SVG.
///
/// # Errors
/// Drawing failed.
pub fn draw(figure: &Dots) -> Drawn<String> {
    let Dots { title, x, labels, series, joined, dots } = figure;
    let lowest = dots.iter().map(|dot| dot.low).fold(f64::INFINITY, f64::min);
    let highest = dots.iter().map(|dot| dot.high).fold(f64::NEG_INFINITY, f64::max);
    let room = (0.06 * (highest - lowest)).max(1e-9 + 1e-3 * highest.abs());
    let (lowest, highest) = (lowest - room, highest + room);
    if !(lowest.is_finite() && highest.is_finite()) {
        return Err("there is nothing to draw".into());
    }
    register()?;
    let names = series.iter().map(String::as_str).zip(COLOURS.into_iter().cycle());
    let legend = Legend::new(names, SIZE.0, SIZE.1, 1)?;
    let value = number((lowest, highest));
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, (SIZE.0, SIZE.1 + legend.height())).into_drawing_area();
        area.fill(&WHITE)?;
        let area = legend.draw(&area)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(title, (FONT, 18))
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(label_width((lowest, highest), &value, 1)?)
            .build_cartesian_2d(-0.5..labels.len() as f64 - 0.5, lowest..highest)?;
        // The axis is divided in halves at most: only whole numbers are places.
        let place_of =
            |at: f64| labels.get(at.round() as usize).filter(|_| at > -0.25 && (at - at.round()).abs() < 1e-6);
        let name = |at: &f64| place_of(*at).cloned().unwrap_or_default();
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .disable_x_mesh()
            .x_labels(2 * labels.len() + 1)
            .label_style((FONT, TEXT))
            .x_desc(x)
            .x_label_formatter(&name)
            .y_label_formatter(&value)
            .draw()?;
        let step = SPREAD / series.len().max(1) as f64;
        let place = |dot: &Dot| dot.at as f64 + step * (dot.series as f64 - (series.len() as f64 - 1.0) / 2.0);
        for index in 0..series.len() {
            let colour = COLOURS[index % COLOURS.len()];
            let mut own: Vec<&Dot> = dots.iter().filter(|dot| dot.series == index).collect();
            own.sort_by_key(|dot| dot.at);
            for dot in &own {
                let bar = [(place(dot), dot.low), (place(dot), dot.high)];
                chart.draw_series(LineSeries::new(bar, colour.stroke_width(2)))?;
            }
            chart.draw_series(own.iter().map(|dot| Circle::new((place(dot), dot.value), 4, colour.filled())))?;
            let line = if *joined { own.iter().map(|dot| (place(dot), dot.value)).collect() } else { Vec::new() };
            chart.draw_series(LineSeries::new(line, colour.mix(0.5).stroke_width(1)))?;
        }
        drop(chart);
        area.present()?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches places without their names, a missing legend, and values that are all equal, whose axis would have no length.
    #[test]
    fn places_and_series_are_named() {
        let dot = |series, at| Dot { series, at, value: 1.0, low: 1.0, high: 1.0 };
        let figure = Dots {
            title: "eval/loss".into(),
            x: "objective.loss".into(),
            labels: ["sigmoid", "ipo", "hinge"].map(str::to_owned).to_vec(),
            series: ["beta=0.1", "beta=0.3"].map(str::to_owned).to_vec(),
            joined: true,
            dots: vec![dot(0, 0), dot(0, 1), dot(1, 0), dot(1, 2)],
        };
        let text = draw(&figure).unwrap();
        for name in ["eval/loss", "objective.loss", "sigmoid", "ipo", "hinge", "beta=0.1", "beta=0.3"] {
            assert_eq!(text.matches(&format!("\n{name}\n")).count(), 1, "{name}: {text}");
        }
        assert_eq!(text.matches("<circle").count(), 4, "{text}");
        // Values are joined from left to right in whatever order they come; those of two series at a place are next to each other.
        let backwards = Dots { dots: figure.dots.iter().rev().copied().collect(), ..figure.clone() };
        assert_eq!(draw(&backwards).unwrap(), text);
        let places: Vec<&str> = text.split("<circle").skip(1).filter_map(|rest| rest.split('"').nth(1)).collect();
        assert_ne!(places[0], places[2], "{places:?}");
        assert!(draw(&Dots { dots: Vec::new(), ..figure }).is_err());
    }
}
