//! Linear layers, embeddings, rows by index, and elementwise addition and scaling.

use super::{
    bounded::{Bounded, exact, sum},
    operands::{Formulas, Matrix, Operands, Outputs, Sums},
};
use plugin_api::Result;

/// The operations of this file.
pub const FORMULAS: Formulas = &[
    ("axpy", axpy),
    ("scale", scale),
    ("embedding", embedding),
    ("embedding_backward", embedding_backward),
    ("scatter_add_rows", scatter_add_rows),
    ("linear", linear),
    ("linear_backward_input", linear_backward_input),
    ("linear_backward_weight", linear_backward_weight),
    ("rotary", rotary),
];

/// `y = x w^T + bias`. The product may be stored before the bias is added.
fn linear(o: &Operands<'_>) -> Result<Outputs> {
    let (x, w, bias) = (o.matrix("x")?, o.matrix("w")?, o.optional("bias"));
    let mut y = Matrix::zeros(x.rows, w.rows);
    for n in 0..x.rows {
        for (i, y) in y.row_mut(n).iter_mut().enumerate() {
            let products = x.row(n).iter().zip(w.row(i)).map(|(&x, &w)| x * w);
            *y = match &bias {
                // A kernel may also start its sum with the bias.
                Some(bias) => {
                    let whole = sum(products.chain([bias.data[i]]));
                    Bounded { stored: whole.stored + (whole.value - bias.data[i].value).abs(), ..whole }
                }
                None => sum(products),
            };
        }
    }
    Ok(vec![("y", y)])
}

/// `dx = dy w`, or `dx += dy w`, where the product may be stored before it is added.
fn linear_backward_input(o: &Operands<'_>) -> Result<Outputs> {
    let (dy, w) = (o.matrix("dy")?, o.matrix("w")?);
    let mut product = Sums::new(dy.rows, w.cols);
    for n in 0..dy.rows {
        dy.row(n).iter().enumerate().for_each(|(i, &dy)| product.add(n, 0, dy, w.row(i)));
    }
    let dx = match o.integer("accumulate")? != 0 {
        true => product.added_to(&o.matrix("dx")?),
        false => product.total(),
    };
    Ok(vec![("dx", dx)])
}

/// `dw += dy^T x`, `dbias += sum_n dy[n]`. The product may be stored in the compute dtype before it is added.
fn linear_backward_weight(o: &Operands<'_>) -> Result<Outputs> {
    let (x, dy) = (o.matrix("x")?, o.matrix("dy")?);
    let mut dw = Sums::new(dy.cols, x.cols);
    let mut dbias = o.optional("dbias").map(|dbias| Sums::from(&dbias));
    for n in 0..x.rows {
        dy.row(n).iter().enumerate().for_each(|(i, &dy)| dw.add(i, 0, dy, x.row(n)));
        if let Some(dbias) = &mut dbias {
            dbias.add(0, 0, exact(1.0), dy.row(n));
        }
    }
    let dbias = dbias.map(|dbias| ("dbias", dbias.total()));
    let dw = dw.added_to(&o.matrix("dw")?);
    Ok([("dw", dw)].into_iter().chain(dbias).collect())
}

/// `y[n] = scale table[ids[n]] + position_table[positions[n]]`.
fn embedding(o: &Operands<'_>) -> Result<Outputs> {
    let (ids, table, scale) = (o.integers("ids")?, o.matrix("table")?, o.factor("scale")?);
    let mut y = Matrix::zeros(ids.len(), table.cols);
    for (n, &id) in ids.iter().enumerate() {
        y.row_mut(n).iter_mut().zip(table.row(id)).for_each(|(y, &x)| *y = scale * x);
    }
    if let Some(table) = o.optional("position_table") {
        for (n, &position) in o.integers("positions")?.iter().enumerate() {
            // The scaled row may be stored before the other is added.
            y.row_mut(n).iter_mut().zip(table.row(position)).for_each(|(y, &x)| *y = y.stored() + x);
        }
    }
    Ok(vec![("y", y)])
}

/// `dtable[ids[n]] += scale dy[n]`.
fn embedding_backward(o: &Operands<'_>) -> Result<Outputs> {
    let dtable = scattered(o, ("ids", "dtable"), |o| o.factor("scale"))?;
    Ok(vec![("dtable", dtable)])
}

/// `dx[index[m]] += dy[m]`.
fn scatter_add_rows(o: &Operands<'_>) -> Result<Outputs> {
    let dx = scattered(o, ("index", "dx"), |_| Ok(exact(1.0)))?;
    Ok(vec![("dx", dx)])
}

fn scattered(
    o: &Operands<'_>,
    (index, table): (&str, &str),
    factor: impl Fn(&Operands<'_>) -> Result<Bounded>,
) -> Result<Matrix> {
    let (index, dy, factor) = (o.integers(index)?, o.matrix("dy")?, factor(o)?);
    let mut sums = Sums::from(&o.matrix(table)?);
    index.iter().enumerate().for_each(|(m, &n)| sums.add(n, 0, factor, dy.row(m)));
    Ok(sums.total())
}

/// `y += alpha x`, where the product may be stored.
fn axpy(o: &Operands<'_>) -> Result<Outputs> {
    let alpha = o.factor("alpha")?;
    let y = o.matrix("y")?.zip(&o.matrix("x")?, |y, x| y + (alpha * x).rounded(1.0));
    Ok(vec![("y", y)])
}

/// `x *= alpha`.
fn scale(o: &Operands<'_>) -> Result<Outputs> {
    let alpha = o.factor("alpha")?;
    Ok(vec![("x", o.matrix("x")?.map(|x| alpha * x))])
}

/// Each head's pairs rotated by the angle of the token's position.
fn rotary(o: &Operands<'_>) -> Result<Outputs> {
    let (x, cos, sin) = (o.matrix("x")?, o.matrix("cos")?, o.matrix("sin")?);
    let (head_dim, pairs) = (o.size("head_dim")?, cos.cols);
    let (interleaved, inverse) = (o.integer("interleaved")? != 0, o.integer("inverse")? != 0);
    let mut y = x.clone();
    for (n, &position) in o.integers("positions")?.iter().enumerate() {
        for head in y.row_mut(n).chunks_exact_mut(head_dim) {
            for i in 0..pairs {
                let (a, b) = if interleaved { (2 * i, 2 * i + 1) } else { (i, i + pairs) };
                let (c, s) = (cos.row(position)[i], sin.row(position)[i]);
                let s = if inverse { -s } else { s };
                (head[a], head[b]) = (sum([head[a] * c, -(head[b] * s)]), sum([head[b] * c, head[a] * s]));
            }
        }
    }
    Ok(vec![("y", y)])
}
