//! Norms. The sum of branch and residual may be stored before it is normalised.

use super::{
    bounded::{Bounded, dot, exact, sum},
    operands::{Formulas, Matrix, Operands, Outputs, Sums},
};
use plugin_api::{Result, backend::ops::NormKind};

/// The operations of this file.
pub const FORMULAS: Formulas = &[("norm", forward), ("norm_backward", backward)];

/// The factor of column `d`.
fn gain(o: &Operands<'_>) -> Result<impl Fn(usize) -> Bounded> {
    let (weight, offset) = (o.optional("weight"), o.factor("weight_offset")?);
    Ok(move |d: usize| weight.as_ref().map_or(exact(1.0), |w| offset + w.data[d]))
}

fn is_layer(o: &Operands<'_>) -> Result<bool> {
    Ok(NormKind(o.integer("kind")?) == NormKind::LAYER)
}

/// `s = x + residual; y = norm(s) gain + bias`.
fn forward(o: &Operands<'_>) -> Result<Outputs> {
    let (is_layer, gain, eps) = (is_layer(o)?, gain(o)?, o.factor("eps")?);
    let x = o.matrix("x")?;
    let s = match o.optional("residual") {
        Some(residual) => x.zip(&residual, |x, residual| (x + residual).stored()),
        None => x,
    };
    let bias = o.optional_row("bias");
    let (mut y, mut stats) = (Matrix::zeros(s.rows, s.cols), Matrix::zeros(s.rows, 2));
    let width = s.cols.max(1) as f64;
    for n in 0..s.rows {
        let row = s.row(n);
        let mean = if is_layer { sum(row.iter().copied()) / exact(width) } else { exact(0.0) };
        let centred: Vec<Bounded> = row.iter().map(|&x| x - mean).collect();
        let rstd = exact(1.0) / (dot(&centred, &centred) / exact(width) + eps).sqrt();
        for (d, (y, &x)) in y.row_mut(n).iter_mut().zip(&centred).enumerate() {
            *y = sum([x * rstd * gain(d), bias(d)]);
        }
        stats.row_mut(n).copy_from_slice(&[mean, rstd]);
    }
    // As an output the sum is rounded once, when it is written.
    let written = s.map(|s| exact(s.value).rounded(1.0));
    Ok(vec![("y", y), ("sum", written), ("stats", stats)])
}

/// With `xhat = (x - mean) rstd` and `g = dy gain`: `dx = rstd (g - [mean(g)] - xhat mean(g xhat)) + dsum`, the bracket in
/// layer norm only; `dweight += sum dy xhat`, `dbias += sum dy`.
fn backward(o: &Operands<'_>) -> Result<Outputs> {
    let (is_layer, gain) = (is_layer(o)?, gain(o)?);
    let (x, stats, dy) = (o.matrix("x")?, o.matrix("stats")?, o.matrix("dy")?);
    let dsum = o.optional("dsum");
    let grown = |name| o.optional(name).map(|start| Sums::from(&start));
    let (mut dweight, mut dbias) = (grown("dweight"), grown("dbias"));
    let mut dx = Matrix::zeros(x.rows, x.cols);
    let width = exact(x.cols.max(1) as f64);
    for n in 0..x.rows {
        let (mean, rstd) = (stats.row(n)[0], stats.row(n)[1]);
        let xhat: Vec<Bounded> = x.row(n).iter().map(|&x| (x - mean) * rstd).collect();
        let g: Vec<Bounded> = dy.row(n).iter().enumerate().map(|(d, &dy)| dy * gain(d)).collect();
        let along = dot(&g, &xhat) / width;
        let level = if is_layer { sum(g.iter().copied()) / width } else { exact(0.0) };
        for (d, dx) in dx.row_mut(n).iter_mut().enumerate() {
            // The branch's part may be stored before the residual stream's part is added.
            let own = rstd * sum([g[d], -level, -(xhat[d] * along)]);
            *dx = match &dsum {
                Some(dsum) => own.stored() + dsum.row(n)[d],
                None => own,
            };
        }
        for (d, &dy) in dy.row(n).iter().enumerate() {
            dweight.iter_mut().for_each(|dweight| dweight.add(0, d, dy, &[xhat[d]]));
        }
        dbias.iter_mut().for_each(|dbias| dbias.add(0, 0, exact(1.0), dy.row(n)));
    }
    let mut outputs = vec![("dx", dx)];
    outputs.extend(dweight.map(|dweight| ("dweight", dweight.total())));
    outputs.extend(dbias.map(|dbias| ("dbias", dbias.total())));
    Ok(outputs)
}
