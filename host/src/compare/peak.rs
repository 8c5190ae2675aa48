//! The highest speed that a backend's matrix product reaches, with which all its other speeds are compared.

use std::time::Instant;

use plugin_api::backend::{
    Op,
    ops::{Fill, Linear, LinearBackwardInput, LinearBackwardWeight},
};
use telos_random::GOLDEN_GAMMA;

use crate::{
    device::{Device, Tensor},
    error::Result,
};

/// The smallest and the largest product measured: `[n, n]` by `[n, n]`.
const SIZES: [u64; 2] = [256, 8192];

/// No larger product is measured once one takes this many seconds.
const ENOUGH: f64 = 5e-3;

/// Seconds spent on each size.
const BUDGET: f64 = 0.1;

/// The fastest product.
#[derive(Debug, Clone, PartialEq)]
pub struct Peak {
    /// Its floating-point operations per second.
    pub flops: f64,
    /// Its operation, its size and the compute type, or what else reached that speed.
    pub product: String,
}

impl Peak {
    /// The faster of two.
    pub fn faster(self, other: Peak) -> Peak {
        if other.flops > self.flops { other } else { self }
    }
}

/// Returns the fastest of many products in the compute type, from small ones that fit in a processor's caches to large ones that
/// fill a device.
///
/// # Errors
/// The device does not have enough memory for the smallest of them. Where larger ones do not fit, those that did are the result.
pub fn measure(device: &Device) -> Result<Peak> {
    let (mut size, (mut peak, mut seconds)) = (SIZES[0], measure_size(device, SIZES[0])?);
    while seconds < ENOUGH && size < SIZES[1] {
        size *= 2;
        let Ok((larger, longer)) = measure_size(device, size) else { break };
        (peak, seconds) = (peak.faster(larger), longer);
    }
    Ok(peak)
}

/// Returns the fastest product of one size, and its seconds.
fn measure_size(device: &Device, size: u64) -> Result<(Peak, f64)> {
    let products = Products::new(device, size)?;
    products.fastest(device)?;
    let (start, mut best, mut name) = (Instant::now(), f64::INFINITY, "");
    while best == f64::INFINITY || start.elapsed().as_secs_f64() < BUDGET {
        let (seconds, operation) = products.fastest(device)?;
        if seconds < best {
            (best, name) = (seconds, operation);
        }
    }
    let product = format!("{name}, {size} x {size} x {size}, {}", device.compute());
    Ok((Peak { flops: 2.0 * (size as f64).powi(3) / best, product }, best))
}

/// Two square operands, and room for their product in the compute type and in the accumulator's type.
struct Products {
    a: Tensor,
    b: Tensor,
    y: Tensor,
    sum: Tensor,
}

impl Products {
    fn new(device: &Device, size: u64) -> Result<Products> {
        let operand = |seed: u64| -> Result<Tensor> {
            let tensor = device.tensor(size, size)?;
            // Values that differ: constants draw less power on some devices, which then run faster.
            let value = |n: u64| ((n + seed).wrapping_mul(GOLDEN_GAMMA) >> 40) as f32 / (1 << 23) as f32 - 1.0;
            tensor.buffer().upload_f32(0, &(0..size * size).map(value).collect::<Vec<_>>())?;
            Ok(tensor)
        };
        let sum = device.tensor_of(device.accumulator(), size, size)?;
        device.call(&Fill { x: sum.view(), value: 0.0 })?;
        Ok(Products { a: operand(0)?, b: operand(1)?, y: device.tensor(size, size)?, sum })
    }

    /// Returns the seconds and the name of the fastest of the three kinds of product that training consists of: on most
    /// backends the speed depends on which of a linear layer's operands is transposed.
    fn fastest(&self, device: &Device) -> Result<(f64, &'static str)> {
        let [a, b, y] = [&self.a, &self.b, &self.y].map(Tensor::view);
        let forward = seconds(device, &Linear { x: a, w: b, y, bias: None })?;
        let input = seconds(device, &LinearBackwardInput { dy: a, w: b, dx: y, accumulate: false })?;
        let weight = seconds(device, &LinearBackwardWeight { x: a, dy: b, dw: self.sum.view(), dbias: None })?;
        let all = [
            (forward, Linear::SPEC.name),
            (input, LinearBackwardInput::SPEC.name),
            (weight, LinearBackwardWeight::SPEC.name),
        ];
        Ok(all.into_iter().fold((f64::INFINITY, ""), |a, b| if b.0 < a.0 { b } else { a }))
    }
}

fn seconds<O: Op>(device: &Device, op: &O) -> Result<f64> {
    let start = Instant::now();
    device.call(op)?;
    device.sync()?;
    Ok(start.elapsed().as_secs_f64().max(1e-9))
}
