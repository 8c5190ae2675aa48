//! What a backend's matrix product reaches at best: the measure of every other figure.

use std::time::Instant;

use plugin_api::backend::ops::Linear;

use crate::{
    device::{Device, Tensor},
    error::Result,
};

/// The smallest and the largest product tried: `[n, n]` by `[n, n]`.
const SIZES: [u64; 2] = [256, 8192];

/// A product is large enough once it takes so many seconds.
const ENOUGH: f64 = 5e-3;

/// Seconds spent on the product that is large enough, and the most repetitions.
const BUDGET: (f64, u32) = (0.3, 10);

/// Floating-point operations a second of the best of several large products in the compute type.
///
/// # Errors
/// The device has no room for them.
pub fn measure(device: &Device) -> Result<f64> {
    let mut size = SIZES[0];
    loop {
        let product = Product::new(device, size)?;
        product.seconds(device)?;
        let mut best = product.seconds(device)?;
        if best < ENOUGH && size < SIZES[1] {
            size *= 2;
            continue;
        }
        let start = Instant::now();
        for _ in 0..BUDGET.1 {
            if start.elapsed().as_secs_f64() > BUDGET.0 {
                break;
            }
            best = best.min(product.seconds(device)?);
        }
        return Ok(2.0 * (size as f64).powi(3) / best);
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
