//! Compiles the small C++ files with libtorch's headers.

use std::{env, path::PathBuf, process::exit};

fn main() {
    for source in ["src/guarded.h", "src/shim.cpp", "src/queue/queue.cpp"] {
        println!("cargo:rerun-if-changed={source}");
    }
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-env-changed=LIBTORCH_INCLUDE");
    // torch-sys reports where it found the libraries; the headers are in the same folder unless an environment variable names
    // another one.
    let from_libraries =
        || env::var_os("DEP_TCH_LIBTORCH_LIB").and_then(|lib| Some(PathBuf::from(lib).parent()?.into()));
    let root = ["LIBTORCH_INCLUDE", "LIBTORCH"].iter().find_map(env::var_os).map(PathBuf::from).or_else(from_libraries);
    let Some(include) = root.map(|root: PathBuf| root.join("include")).filter(|p| p.join("ATen").is_dir()) else {
        eprintln!("no libtorch headers: `cargo xtask torch` finds or fetches libtorch 2.11.0 and builds this plugin");
        exit(1);
    };
    if cfg!(target_os = "linux") {
        // The library searches its own folder, wherever it is moved.
        println!("cargo:rustc-cdylib-link-arg=-Wl,-rpath,$ORIGIN/libtorch/lib");
    }
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .pic(true)
        .warnings(false)
        // OpenMP is libtorch's thread pool on the processor: without it `at::parallel_for` runs on one thread.
        .flag_if_supported("-fopenmp")
        // A square root that sets errno, or an operation that may trap, keeps a loop from being vectorised.
        .flag_if_supported("-fno-math-errno")
        .flag_if_supported("-fno-trapping-math")
        .includes([include.join("torch/csrc/api/include"), include])
        .file("src/shim.cpp")
        .file("src/queue/queue.cpp")
        .compile("telos_torch_shim");
    if env::var_os("CARGO_FEATURE_EMULATED_KERNELS").is_some() {
        emulated_kernels();
    }
}

/// Compiles the CUDA sources as C++ for the processor. Only tests use it.
fn emulated_kernels() {
    println!("cargo:rerun-if-changed=src/kernels");
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .pic(true)
        .warnings(false)
        .opt_level(2)
        // Elements are read in packs, by another type.
        .flag("-fno-strict-aliasing")
        .file("src/kernels/emulated.cpp")
        .compile("telos_emulated_kernels");
}
