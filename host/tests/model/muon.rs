//! Muon against its formula, computed plainly in f64, and against AdamW where parameters are AdamW's.

use telos::{
    config::experiment::{Group, Optimizer as Settings, OptimizerKind},
    model::{Model, params::Parameter},
    optimizer,
};

use crate::support::{backends, device, l2, tiny};

const MOMENTUM: f64 = 0.8;
const DECAY: f64 = 0.3;
const CLIP: f64 = 1.5;
const RATE: f64 = 0.02;

fn settings(kind: OptimizerKind) -> Settings {
    Settings { kind, lr: RATE, betas: [MOMENTUM, 0.9], eps: 1e-8, weight_decay: DECAY, clip: CLIP, groups: Vec::new() }
}

/// A gradient of the step, the same on every backend.
fn gradient(parameter: usize, len: u64, step: usize) -> Vec<f64> {
    (0..len).map(|i| f64::from(((i as f64 * 1.7 + parameter as f64 + 5.0 * step as f64).sin() * 0.2) as f32)).collect()
}

/// Dense matrices, row by row.
#[derive(Clone)]
struct Matrix {
    rows: usize,
    cols: usize,
    values: Vec<f64>,
}

impl Matrix {
    fn times(&self, other: &Matrix) -> Matrix {
        let mut values = vec![0.0; self.rows * other.cols];
        for row in 0..self.rows {
            for col in 0..other.cols {
                values[row * other.cols + col] =
                    (0..self.cols).map(|k| self.values[row * self.cols + k] * other.values[k * other.cols + col]).sum();
            }
        }
        Matrix { rows: self.rows, cols: other.cols, values }
    }

    fn transposed(&self) -> Matrix {
        let at = |i: usize| self.values[(i % self.rows) * self.cols + i / self.rows];
        Matrix { rows: self.cols, cols: self.rows, values: (0..self.values.len()).map(at).collect() }
    }

    fn plus(&self, alpha: f64, other: &Matrix, beta: f64) -> Matrix {
        let values = self.values.iter().zip(&other.values).map(|(x, y)| alpha * x + beta * y).collect();
        Matrix { values, ..self.clone() }
    }
}

/// Five steps of the iteration, always by `X X^T`.
fn orthogonalised(update: Matrix) -> Matrix {
    let norm = l2(&update.values) + 1e-7;
    let mut x = Matrix { values: update.values.iter().map(|value| value / norm).collect(), ..update };
    for _ in 0..5 {
        let gram = x.times(&x.transposed());
        let square = gram.times(&gram);
        x = x.plus(3.4445, &gram.plus(-4.7750, &square, 2.0315).times(&x), 1.0);
    }
    x
}

/// The weights of a hidden matrix after each of the steps' gradients.
fn expected(parameter: &Parameter, index: usize, start: Vec<f64>, norms: &[f64]) -> Vec<f64> {
    let (rows, cols) = (parameter.rows as usize, parameter.cols as usize);
    let (mut momentum, mut weights) = (vec![0.0; start.len()], start);
    for (step, norm) in norms.iter().enumerate() {
        let clip = (CLIP / (norm + 1e-6)).min(1.0);
        let gradient: Vec<f64> = gradient(index, parameter.len(), step).iter().map(|g| g * clip).collect();
        momentum.iter_mut().zip(&gradient).for_each(|(m, g)| *m += (1.0 - MOMENTUM) * (g - *m));
        let update = momentum.iter().zip(&gradient).map(|(m, g)| MOMENTUM * m + (1.0 - MOMENTUM) * g).collect();
        let x = orthogonalised(Matrix { rows, cols, values: update });
        let size = 0.2 * (rows.max(cols) as f64).sqrt();
        weights.iter_mut().zip(&x.values).for_each(|(w, x)| *w = *w * (1.0 - RATE * DECAY) - RATE * size * x);
    }
    weights
}

/// The parameters of a model after three steps.
fn trained(backend: &str, family: &str, settings: &Settings) -> (Model, Vec<Vec<f64>>, Vec<f64>) {
    let model = Model::init(&device(backend), tiny(family, false), 3).unwrap();
    let start = values(&model);
    let mut optimizer = optimizer::create(model.device(), model.layout(), settings).unwrap();
    let grads = model.flat_buffer().unwrap();
    model.zero(&grads).unwrap();
    let mut norms = Vec::new();
    for step in 0..3 {
        for (index, parameter) in model.layout().parameters().iter().enumerate() {
            grads.upload(parameter.offset, &gradient(index, parameter.len(), step)).unwrap();
        }
        norms.push(optimizer.measure(&grads).unwrap().norm);
        optimizer.update(model.params(), model.shadow(), &grads, RATE).unwrap();
    }
    assert_eq!(optimizer.updates(), 3);
    (model, start, norms)
}

fn values(model: &Model) -> Vec<Vec<f64>> {
    model.layout().parameters().iter().map(|p| model.values(model.params(), p).unwrap()).collect()
}

/// Catches a wrong coefficient, momentum that is not Nesterov's or not clipped like AdamW's, a decay or size that is left out, tall and
/// wide matrices that are mixed up, an embedding or head that is orthogonalised, and a norm that is not AdamW's.
#[test]
fn muon_follows_its_formula_and_leaves_the_rest_to_adamw() {
    for (backend, family) in backends().into_iter().flat_map(|backend| [(backend, "llama"), (backend, "gpt2")]) {
        let (model, start, norms) = trained(backend, family, &settings(OptimizerKind::Muon));
        assert!(norms.iter().all(|norm| *norm > CLIP), "clipping is part of the test: {norms:?}");
        let (adamw, _, _) = trained(backend, family, &settings(OptimizerKind::Adamw));
        let (own, others) = (values(&model), values(&adamw));
        let tolerance = if backend == "reference" { 1e-12 } else { 2e-5 };
        let hidden = model.layout().hidden_matrices();
        let shapes: Vec<_> = hidden.iter().map(|index| &model.layout().parameters()[*index]).collect();
        assert!(shapes.iter().any(|p| p.rows > p.cols) && shapes.iter().any(|p| p.rows < p.cols));
        for (index, parameter) in model.layout().parameters().iter().enumerate() {
            let name = &parameter.name;
            if !hidden.contains(&index) {
                assert!(own[index] == others[index], "{name} on {backend} is AdamW's");
                continue;
            }
            assert!(name.contains("layers.") || name.contains("h."), "{name}");
            let expected = expected(parameter, index, start[index].clone(), &norms);
            for (got, expected) in own[index].iter().zip(&expected) {
                assert!((got - expected).abs() <= tolerance, "{name} on {backend}: {got}, expected {expected}");
            }
        }
    }
}

/// Catches a group that is ignored: a matrix that is frozen by `lr_scale = 0` and moves, and one whose decay is not its own.
#[test]
fn muon_uses_parameter_groups() {
    let group = |pattern: &str, lr_scale, weight_decay| Group { pattern: pattern.to_owned(), lr_scale, weight_decay };
    let plain = settings(OptimizerKind::Muon);
    let groups = vec![group("*up_proj*", 0.0, None), group("*down_proj*", 1.0, Some(0.0))];
    let (model, start, _) = trained("reference", "llama", &Settings { groups, ..plain.clone() });
    let (other, _, _) = trained("reference", "llama", &plain);
    let (grouped, plain) = (values(&model), values(&other));
    for (index, parameter) in model.layout().parameters().iter().enumerate() {
        let name = &parameter.name;
        if name.contains("up_proj") {
            assert!(grouped[index] == start[index], "{name} is frozen");
        } else if name.contains("down_proj") {
            assert!(grouped[index] != plain[index], "{name} does not decay");
        } else {
            assert!(grouped[index] == plain[index], "{name} is in no group");
        }
    }
}
