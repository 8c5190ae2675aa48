//! The comparison as a plot: the losses of all backends over the steps, and below them each one's difference from
//! the first.

use std::path::Path;

use super::Comparison;
use crate::compare::noise_floor::NoiseFloor;
use crate::error::{Error, Result};
use crate::plot::{self, Axis, COLOURS, Colour, Line, Panel};

/// Writes the picture.
///
/// # Errors
/// A failed run naming the file.
pub fn write(comparison: &Comparison, path: &Path) -> Result<()> {
    plot::write(&panels(comparison), path)
}

/// Returns the picture as SVG.
///
/// # Errors
/// A failed run.
pub fn draw(comparison: &Comparison) -> Result<String> {
    plot::draw(&panels(comparison)).map_err(|cause| Error::run("cannot draw the losses").with_cause(cause.to_string()))
}

fn panels(comparison: &Comparison) -> [Panel; 2] {
    let panel = |title: &str, axis, lines, height| Panel {
        title: title.to_owned(),
        axis,
        x: "step".into(),
        lines,
        bands: Vec::new(),
        height,
    };
    let losses = panel(&format!("{}: loss by step", comparison.name), Axis::Linear, losses(comparison), 3);
    let differences = panel("relative difference of the loss", Axis::Logarithmic, differences(comparison), 2);
    [losses, differences]
}

fn losses(comparison: &Comparison) -> Vec<Line> {
    let backends = comparison.backends.iter().zip(COLOURS.into_iter().cycle());
    backends.map(|(backend, colour)| (backend.backend.clone(), colour, points(&backend.curve.loss, 0.0))).collect()
}

/// The differences between losses. Zeros are left out, because a logarithmic axis cannot show them.
fn differences(comparison: &Comparison) -> Vec<Line> {
    let backends = comparison.backends.iter().zip(COLOURS.into_iter().cycle());
    let mut lines: Vec<Line> = backends
        .filter_map(|(backend, colour)| {
            let own = backend.agreement.as_ref()?;
            Some((format!("{} from {}", backend.backend, own.with), colour, points(&own.losses, f64::MIN_POSITIVE)))
        })
        .collect();
    if let Some(NoiseFloor { backend, losses, .. }) = &comparison.noise_floor {
        let grey = Colour(128, 128, 128);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches points at step 0, and values that an axis cannot hold.
    #[test]
    fn points_are_numbers_at_steps_from_1() {
        assert_eq!(points(&[2.0, f64::NAN, 0.0], 0.0), [(1.0, 2.0), (3.0, 0.0)]);
        assert_eq!(points(&[0.0, 1e-7], f64::MIN_POSITIVE), [(2.0, 1e-7)]);
    }
}
