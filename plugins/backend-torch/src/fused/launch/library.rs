//! Finds and opens the libraries that the kernels need.

use super::error::{KernelError, Outcome};
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use std::{
    collections::BTreeSet,
    ffi::OsStr,
    path::{Path, PathBuf},
};

/// The variable that names NVRTC's library, or the folder that contains it.
const NVRTC: &str = "TELOS_NVRTC";

/// Opens a library for the rest of the process.
fn open(path: &Path) -> Result<Library, libloading::Error> {
    // SAFETY: the paths are NVIDIA's driver and compiler (or what the user names as such), whose initialisers only set up the
    // library's own state.
    unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) }
}

/// The error with its cause: the loader's own text is only there.
pub fn explained(why: &libloading::Error) -> String {
    let cause = std::error::Error::source(why).map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{why}{cause}")
}

/// CUDA's driver.
pub fn driver() -> Outcome<Library> {
    open(Path::new("libcuda.so.1")).map_err(|why| KernelError::Library {
        name: "libcuda.so.1",
        tried: explained(&why),
        remedy: "install the NVIDIA driver, or set `fused = false`",
    })
}

/// NVRTC: from `TELOS_NVRTC`, from libtorch's folder or the folders of Python's CUDA packages beside it, or by name.
pub fn nvrtc() -> Outcome<Library> {
    nvrtc_of(std::env::var_os(NVRTC).map(PathBuf::from))
}

/// NVRTC from the named file or folder alone, if one is named.
fn nvrtc_of(named: Option<PathBuf>) -> Outcome<Library> {
    let places = match &named {
        Some(place) if place.is_dir() => in_folder(place),
        Some(file) => vec![file.clone()],
        None => {
            let by_name = ["libnvrtc.so.13", "libnvrtc.so.12"].map(PathBuf::from);
            folders().iter().flat_map(|folder| in_folder(folder)).chain(by_name).collect()
        }
    };
    let mut tried = Vec::new();
    for place in &places {
        open_builtins(place);
        match open(place) {
            Ok(library) => return Ok(library),
            Err(why) => tried.push(explained(&why)),
        }
    }
    if let Some(place) = named.filter(|_| tried.is_empty()) {
        tried.push(format!("{NVRTC}: {} contains none", place.display()));
    }
    Err(KernelError::Library {
        name: "NVRTC (libnvrtc.so.13 or .12)",
        tried: tried.join("; "),
        remedy: "install it next to PyTorch (`pip install nvidia-cuda-nvrtc`), name its folder in TELOS_NVRTC, or set `fused = false`",
    })
}

/// NVRTC opens this library by its name alone, which fails outside the system's folders unless it is open already.
fn open_builtins(nvrtc: &Path) {
    let Some(folder) = nvrtc.parent().filter(|folder| !folder.as_os_str().is_empty()) else { return };
    for file in files(folder, "libnvrtc-builtins") {
        if let Ok(library) = open(&file) {
            std::mem::forget(library);
        }
    }
}

/// NVRTC's libraries in a folder, the newest version first.
fn in_folder(folder: &Path) -> Vec<PathBuf> {
    let mut found = files(folder, "libnvrtc");
    found.retain(|path| !name(path).contains("builtins"));
    found.reverse();
    found
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(OsStr::to_str).unwrap_or_default()
}

/// The shared libraries in a folder whose names begin so, in the order of their names. Those with `.alt.` are for other drivers.
fn files(folder: &Path, begin: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_one = |path: &PathBuf| {
        let name = name(path);
        name.starts_with(begin) && name.contains(".so") && !name.contains(".alt.")
    };
    let mut found: Vec<_> = entries.filter(is_one).collect();
    found.sort();
    found
}

/// The folders of the loaded libtorch, and `nvidia/*/lib` of the Python packages beside it.
fn folders() -> Vec<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let mapped = maps.lines().filter_map(|line| line.find('/').map(|at| Path::new(&line[at..])));
    let own: BTreeSet<PathBuf> = mapped
        .filter(|path| name(path).starts_with("libtorch_c"))
        .filter_map(|path| Some(path.parent()?.into()))
        .collect();
    let mut all: Vec<PathBuf> = Vec::new();
    for folder in own {
        // site-packages/torch/lib and site-packages/nvidia.
        let packages = folder.ancestors().nth(2).map(|site| site.join("nvidia"));
        let entries = packages.and_then(|packages| std::fs::read_dir(packages).ok()).into_iter().flatten().flatten();
        let mut beside: Vec<_> = entries.map(|entry| entry.path().join("lib")).collect();
        beside.sort();
        all.push(folder);
        // Of cu12 and cu13 the newer one first.
        all.extend(beside.into_iter().rev());
    }
    all
}

/// Declares a struct of functions that are looked up in a library once.
macro_rules! functions {
    ($(#[$doc:meta])* $name:ident of $library:literal { $($(#[$field_doc:meta])* $field:ident($($type:ty),*) = $symbol:literal;)* }) => {
        $(#[$doc])*
        pub struct $name {
            $($(#[$field_doc])* pub $field: unsafe extern "C" fn($($type),*) -> i32,)*
        }

        impl $name {
            /// Looks up every function; the library stays open for the rest of the process.
            fn of(library: libloading::os::unix::Library) -> $crate::fused::launch::error::Outcome<Self> {
                let missing = |why: libloading::Error| $crate::fused::launch::error::KernelError::Library {
                    name: $library,
                    tried: $crate::fused::launch::library::explained(&why),
                    remedy: "install a newer one, or set `fused = false`",
                };
                // SAFETY: the signatures are those of the library's headers; the pointers stay valid, because the library is
                // never closed.
                let found = unsafe { $name { $($field: *library.get(concat!($symbol, "\0").as_bytes()).map_err(missing)?,)* } };
                std::mem::forget(library);
                Ok(found)
            }
        }
    };
}
pub(super) use functions;

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches NVRTC's second library, or one for other drivers, taken for NVRTC itself.
    #[test]
    fn the_newest_nvrtc_of_a_folder_comes_first() {
        let folder = std::env::temp_dir().join(format!("telos-nvrtc-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        for file in
            ["libnvrtc.so.12", "libnvrtc.so.13", "libnvrtc.alt.so.13", "libnvrtc-builtins.so.13.0", "libcudart.so.13"]
        {
            std::fs::write(folder.join(file), "").unwrap();
        }
        let names = |paths: Vec<PathBuf>| paths.iter().map(|path| name(path).to_owned()).collect::<Vec<_>>();
        assert_eq!(names(in_folder(&folder)), ["libnvrtc.so.13", "libnvrtc.so.12"]);
        assert_eq!(names(files(&folder, "libnvrtc-builtins")), ["libnvrtc-builtins.so.13.0"]);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    /// Catches a named place that is silently replaced by another one, and a refusal without the place or the remedy.
    #[test]
    fn a_missing_nvrtc_is_refused_with_the_places_and_the_remedy() {
        let missing = PathBuf::from("/no/such/libnvrtc.so.13");
        for (named, word) in [(std::env::temp_dir(), "contains none"), (missing, "/no/such/libnvrtc.so.13")] {
            let text = nvrtc_of(Some(named.clone())).err().map(|why| why.to_string()).unwrap_or_default();
            assert!(
                text.starts_with("the fused kernels need NVRTC (libnvrtc.so.13 or .12), which cannot be"),
                "{text}"
            );
            assert!(text.contains(word) && text.contains("pip install nvidia-cuda-nvrtc"), "{named:?}: {text}");
        }
    }
}
