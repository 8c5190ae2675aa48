//! What a backend's matrix product reaches at best: the measure of every other figure.

use std::time::Instant;

use plugin_api::backend::ops::Linear;

use crate::{
    device::{Device, Tensor},
    error::Result,
};

/// The smallest and the largest product tried: `[n, n]` by `[n, n]`.
const SIZES: [u64; 2] = [256, 8192];

/// No larger product is tried once one takes so many seconds.
const ENOUGH: f64 = 5e-3;

/// Seconds spent on each size.
const BUDGET: f64 = 0.1;

/// Floating-point operations a second of the best of many products in the compute type, from small ones that stay in a
/// processor's caches to large ones that fill a device.
///
/// # Errors
/// The device has no room for them.
pub fn measure(device: &Device) -> Result<f64> {
    let (mut size, mut peak) = (SIZES[0], 0.0_f64);
    loop {
        let product = Product::new(device, size)?;
        product.seconds(device)?;
        let (start, mut best) = (Instant::now(), product.seconds(device)?);
        while start.elapsed().as_secs_f64() < BUDGET {
            best = best.min(product.seconds(device)?);
        }
        peak = peak.max(2.0 * (size as f64).powi(3) / best);
        if best >= ENOUGH || size >= SIZES[1] {
            return Ok(peak);
        }
        size *= 2;
    }
}

struct Product {
    x: Tensor,
    w: Tensor,
    y: Tensor,
}

impl Product {
    fn new(device: &Device, size: u64) -> Result<Product> {
        let operand = |seed: u64| -> Result<Tensor> {
            let tensor = device.tensor(size, size)?;
            // Values that differ: constants draw less power on some devices, and flatter them.
            let value = |n: u64| ((n + seed).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f32 / (1 << 23) as f32 - 1.0;
            tensor.buffer().upload_f32(0, &(0..size * size).map(value).collect::<Vec<_>>())?;
            Ok(tensor)
        };
        Ok(Product { x: operand(0)?, w: operand(1)?, y: device.tensor(size, size)? })
    }

    fn seconds(&self, device: &Device) -> Result<f64> {
        let start = Instant::now();
        device.call(&Linear { x: self.x.view(), w: self.w.view(), y: self.y.view(), bias: None })?;
        device.sync()?;
        Ok(start.elapsed().as_secs_f64().max(1e-9))
    }
}
