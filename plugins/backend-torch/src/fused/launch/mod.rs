//! Starting kernels: on a CUDA device, or emulated on the processor.

mod compile;
mod driver;
#[cfg(feature = "emulated-kernels")]
mod emulated;
mod error;
mod library;
mod source;

pub use error::KernelError;
pub use source::{Kernel, Source};

use super::params::Params;
use crate::{fault::Attempt, shim};
use driver::Driven;
use error::Outcome;
use plugin_api::backend::DType;
use std::{ffi::c_void, sync::Arc};
use tch::Device;

/// How many blocks of how many threads.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    /// Blocks; with none nothing is started.
    pub blocks: u64,
    /// Threads of a block, a multiple of 32.
    pub threads: u32,
}

/// The type of element that a source is compiled for: `STORAGE` of `common.cuh`.
fn storage(dtype: DType) -> i32 {
    match dtype {
        DType::BF16 => 1,
        DType::F64 => 2,
        _ => 0,
    }
}

/// What runs the kernels of a session.
#[derive(Clone, Debug)]
pub enum Kernels {
    /// A CUDA device.
    Cuda(Arc<Driven>),
    /// The processor, in tests.
    #[cfg(feature = "emulated-kernels")]
    Emulated,
}

impl Kernels {
    /// Those of a device. On CUDA this opens the driver and NVRTC; nothing is compiled before it is used.
    ///
    /// # Errors
    /// A library that is missing, with the remedy; on the processor a refusal.
    pub fn open(device: Device) -> Outcome<Kernels> {
        match device {
            Device::Cuda(index) => Ok(Kernels::Cuda(Driven::open(index)?)),
            #[cfg(feature = "emulated-kernels")]
            _ => Ok(Kernels::Emulated),
            #[cfg(not(feature = "emulated-kernels"))]
            _ => Err(KernelError::Launch {
                kernel: "fused",
                text: "the fused kernels run on CUDA alone; set `fused = false` or use `device = \"cuda:0\"`".into(),
            }),
        }
    }

    /// Starts a kernel for elements of `dtype` behind the work that libtorch has started on the device.
    ///
    /// # Safety
    /// The addresses in `params`, and the shapes and strides there, describe live memory of the kernels' device that the kernel may
    /// read or write as its source states, until the work that is started now has ended: memory of libtorch's allocator, which is
    /// reused only for work behind it.
    ///
    /// # Errors
    /// Those of compilation and of the driver.
    pub unsafe fn launch<P: Params>(&self, kernel: Kernel, dtype: DType, grid: Grid, params: &P) -> Attempt {
        if grid.blocks == 0 {
            return Ok(());
        }
        let refused =
            |_| KernelError::Launch { kernel: kernel.1, text: format!("{} blocks are too many", grid.blocks) };
        let blocks = i32::try_from(grid.blocks).map_err(refused)?.unsigned_abs();
        let pointer = std::ptr::from_ref(params).cast::<c_void>().cast_mut();
        match self {
            Kernels::Cuda(device) => {
                let stream = shim::current_stream(device.index())?;
                // SAFETY: the parameters have the layout of the kernel's (`Params`), and the caller vouches for what they point to.
                unsafe { device.launch(kernel, storage(dtype), (blocks, grid.threads), stream, pointer)? };
            }
            #[cfg(feature = "emulated-kernels")]
            // SAFETY: as above.
            Kernels::Emulated => unsafe {
                emulated::launch(kernel.1, storage(dtype), (blocks, grid.threads), pointer)?
            },
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fused::params;

    /// Catches a source that NVRTC refuses on one of the architectures, and a kernel that is missing in it. `TELOS_NVRTC` names
    /// NVRTC's library or folder.
    #[test]
    #[ignore = "needs NVRTC: `cargo xtask test` fetches it"]
    fn nvrtc_compiles_every_source_for_every_architecture() {
        let compiler = compile::Compiler::open().unwrap();
        for architecture in ["sm_80", "sm_90", "sm_100"] {
            for source in Source::ALL {
                for storage in 0..3 {
                    let image = compiler.compile(source.file(), storage, architecture).unwrap();
                    for kernel in KERNELS.iter().filter(|kernel| kernel.0.0 == source) {
                        // An entry's name is in the image as a string.
                        let name = kernel.0.1.as_bytes();
                        assert!(image.windows(name.len()).any(|window| window == name), "{kernel:?} {architecture}");
                    }
                }
            }
        }
        let wrong = compiler.compile(("wrong.cu", "this is not CUDA"), 0, "sm_90").unwrap_err();
        assert!(wrong.to_string().starts_with("NVRTC cannot compile wrong.cu for sm_90: "), "{wrong}");
    }

    /// Every kernel with the size of its parameters.
    const KERNELS: [(Kernel, usize); 19] = {
        use params::*;
        use std::mem::size_of;
        [
            (Kernel(Source::Norm, "norm_narrow"), size_of::<NormForward>()),
            (Kernel(Source::Norm, "norm_wide"), size_of::<NormForward>()),
            (Kernel(Source::Norm, "norm_narrow_single"), size_of::<NormForward>()),
            (Kernel(Source::Norm, "norm_wide_single"), size_of::<NormForward>()),
            (Kernel(Source::Norm, "norm_backward_narrow"), size_of::<NormBackward>()),
            (Kernel(Source::Norm, "norm_backward_wide"), size_of::<NormBackward>()),
            (Kernel(Source::Norm, "norm_backward_narrow_single"), size_of::<NormBackward>()),
            (Kernel(Source::Norm, "norm_backward_wide_single"), size_of::<NormBackward>()),
            (Kernel(Source::Norm, "column_sums"), size_of::<ColumnSums>()),
            (Kernel(Source::Activation, "activation"), size_of::<Pointwise>()),
            (Kernel(Source::Activation, "activation_backward"), size_of::<Pointwise>()),
            (Kernel(Source::Activation, "glu"), size_of::<Pointwise>()),
            (Kernel(Source::Activation, "glu_backward"), size_of::<Pointwise>()),
            (Kernel(Source::Rotary, "rotary"), size_of::<Rotary>()),
            (Kernel(Source::Head, "head_stats"), size_of::<HeadStats>()),
            (Kernel(Source::Head, "head_cotangent"), size_of::<HeadCotangent>()),
            (Kernel(Source::Optimizer, "norm_parts"), size_of::<NormParts>()),
            (Kernel(Source::Optimizer, "norm_total"), size_of::<NormTotal>()),
            (Kernel(Source::Optimizer, "adamw"), size_of::<AdamW>()),
        ]
    };

    /// Catches parameters whose struct has another size in Rust than in the source.
    #[cfg(feature = "emulated-kernels")]
    #[test]
    fn parameters_have_the_sizes_of_their_structs_in_the_sources() {
        for (kernel, size) in KERNELS {
            assert_eq!(emulated::size(kernel.1), size as u64, "{kernel:?}");
        }
    }
}
