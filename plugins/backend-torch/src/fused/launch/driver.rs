//! CUDA's driver: loads compiled sources into the device's primary context, which libtorch uses too, and starts kernels.

use super::{
    compile::Compiler,
    error::{KernelError, Outcome},
    library::{self, functions},
    source::{Kernel, Source},
};
use std::{
    collections::BTreeMap,
    ffi::{CStr, CString, c_char, c_int, c_uint, c_void},
    ptr::{null, null_mut},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

type Pointer = *mut c_void;

functions! {
    /// The driver's functions.
    Driver of "libcuda.so.1" {
        /// Flags.
        init(c_uint) = "cuInit";
        /// Device, number.
        device(*mut c_int, c_int) = "cuDeviceGet";
        /// Value, attribute, device.
        attribute(*mut c_int, c_int, c_int) = "cuDeviceGetAttribute";
        /// Context, device.
        retain(*mut Pointer, c_int) = "cuDevicePrimaryCtxRetain";
        /// Context.
        push(Pointer) = "cuCtxPushCurrent_v2";
        /// Context.
        pop(*mut Pointer) = "cuCtxPopCurrent_v2";
        /// Module, image.
        load(*mut Pointer, *const c_void) = "cuModuleLoadData";
        /// Function, module, name.
        function(*mut Pointer, Pointer, *const c_char) = "cuModuleGetFunction";
        /// Function, blocks, threads, bytes of dynamic shared memory, stream, parameters, unused.
        launch(
            Pointer, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, Pointer, *mut Pointer, *mut Pointer
        ) = "cuLaunchKernel";
        /// Code, text.
        text(c_int, *mut *const c_char) = "cuGetErrorString";
    }
}

/// Of `CUdevice_attribute`: the two parts of the compute capability.
const CAPABILITY: [c_int; 2] = [75, 76];

impl Driver {
    fn checked(&self, function: &'static str, code: i32) -> Outcome {
        if code == 0 {
            return Ok(());
        }
        let mut text = null();
        // SAFETY: `text` is a local variable; the driver sets it to a constant string or to null.
        let known = unsafe { (self.text)(code, &mut text) } == 0 && !text.is_null();
        let text = match known {
            // SAFETY: the driver has just set it to a C string.
            true => unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned(),
            false => "unknown error".into(),
        };
        Err(KernelError::Call { function, text: format!("CUDA error {code}: {text}") })
    }
}

/// The libraries, opened once.
struct Libraries {
    driver: Driver,
    compiler: Compiler,
}

fn libraries() -> Outcome<&'static Libraries> {
    static OPENED: OnceLock<Outcome<Libraries>> = OnceLock::new();
    let open = || {
        let driver = Driver::of(library::driver()?)?;
        // SAFETY: takes no pointer; the driver must be initialised before anything else, and may be more than once.
        driver.checked("cuInit", unsafe { (driver.init)(0) })?;
        Ok(Libraries { driver, compiler: Compiler::open()? })
    };
    OPENED.get_or_init(open).as_ref().map_err(Clone::clone)
}

/// Keeps its data when a thread that held it has panicked: every entry is complete.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Source, type of element, architecture.
type Compilation = (Source, i32, String);

/// The machine code of a source, compiled once per process.
fn image(libraries: &Libraries, (source, storage, architecture): Compilation) -> Outcome<Arc<Vec<u8>>> {
    static IMAGES: Mutex<BTreeMap<Compilation, Arc<Vec<u8>>>> = Mutex::new(BTreeMap::new());
    let mut images = locked(&IMAGES);
    let key = (source, storage, architecture);
    if let Some(image) = images.get(&key) {
        return Ok(Arc::clone(image));
    }
    let image = Arc::new(libraries.compiler.compile(source.file(), storage, &key.2)?);
    images.insert(key, Arc::clone(&image));
    Ok(image)
}

/// A device with its loaded kernels, which stay loaded for the rest of the process.
pub struct Driven {
    libraries: &'static Libraries,
    index: usize,
    /// The address of the primary context.
    context: usize,
    architecture: String,
    /// Addresses of the loaded modules.
    modules: Mutex<BTreeMap<(Source, i32), usize>>,
    /// Addresses of the kernels.
    functions: Mutex<BTreeMap<(Kernel, i32), usize>>,
}

impl Driven {
    /// The device of a number, opened once per process.
    ///
    /// # Errors
    /// Missing libraries, and errors of the driver.
    pub fn open(index: usize) -> Outcome<Arc<Driven>> {
        static DEVICES: Mutex<BTreeMap<usize, Arc<Driven>>> = Mutex::new(BTreeMap::new());
        let mut devices = locked(&DEVICES);
        if let Some(device) = devices.get(&index) {
            return Ok(Arc::clone(device));
        }
        let device = Arc::new(Driven::new(index)?);
        devices.insert(index, Arc::clone(&device));
        Ok(device)
    }

    fn new(index: usize) -> Outcome<Driven> {
        let libraries = libraries()?;
        let driver = &libraries.driver;
        let (mut device, mut context, mut capability) = (0, null_mut(), [0; 2]);
        // SAFETY: only local variables are written.
        driver.checked("cuDeviceGet", unsafe { (driver.device)(&mut device, index as c_int) })?;
        for (value, attribute) in capability.iter_mut().zip(CAPABILITY) {
            // SAFETY: as above.
            driver.checked("cuDeviceGetAttribute", unsafe { (driver.attribute)(value, attribute, device) })?;
        }
        // SAFETY: as above. The context is kept for the rest of the process, as libtorch does.
        driver.checked("cuDevicePrimaryCtxRetain", unsafe { (driver.retain)(&mut context, device) })?;
        Ok(Driven {
            libraries,
            index,
            context: context as usize,
            architecture: format!("sm_{}{}", capability[0], capability[1]),
            modules: Mutex::default(),
            functions: Mutex::default(),
        })
    }

    /// The number of the device.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Starts a kernel on a stream of this device.
    ///
    /// # Safety
    /// `params` points to the parameters of the kernel, and what those point to is as the kernel's source demands, until the kernel
    /// has ended.
    ///
    /// # Errors
    /// Those of compilation and of the driver.
    pub unsafe fn launch(
        &self,
        kernel: Kernel,
        storage: i32,
        (blocks, threads): (u32, u32),
        stream: Pointer,
        params: Pointer,
    ) -> Outcome {
        let driver = &self.libraries.driver;
        let _current = self.made_current()?;
        let function = self.function(kernel, storage)?;
        let mut params = [params];
        // SAFETY: the function belongs to the current context, and so does the stream, which is libtorch's for this device. The
        // driver copies the one parameter during the call; the caller vouches for it.
        let code = unsafe {
            (driver.launch)(
                function as Pointer,
                blocks,
                1,
                1,
                threads,
                1,
                1,
                0,
                stream,
                params.as_mut_ptr(),
                null_mut(),
            )
        };
        driver.checked("cuLaunchKernel", code).map_err(|why| match why {
            KernelError::Call { text, .. } => KernelError::Launch { kernel: kernel.1, text },
            other => other,
        })
    }

    /// Makes the device's context the thread's current one until the result is dropped.
    fn made_current(&self) -> Outcome<Current<'_>> {
        let driver = &self.libraries.driver;
        // SAFETY: the context is retained, hence live.
        driver.checked("cuCtxPushCurrent", unsafe { (driver.push)(self.context as Pointer) })?;
        Ok(Current(driver))
    }

    /// The address of a kernel, whose source is compiled and loaded if it was not yet. The context is current.
    fn function(&self, kernel: Kernel, storage: i32) -> Outcome<usize> {
        let mut functions = locked(&self.functions);
        if let Some(&function) = functions.get(&(kernel, storage)) {
            return Ok(function);
        }
        let driver = &self.libraries.driver;
        let module = self.module(kernel.0, storage)?;
        let name =
            CString::new(kernel.1).map_err(|why| KernelError::Launch { kernel: kernel.1, text: why.to_string() })?;
        let mut function = null_mut();
        // SAFETY: the module is loaded for good, the name is a C string, and `function` a local variable.
        let found = unsafe { (driver.function)(&mut function, module as Pointer, name.as_ptr()) };
        driver.checked("cuModuleGetFunction", found)?;
        functions.insert((kernel, storage), function as usize);
        Ok(function as usize)
    }

    fn module(&self, source: Source, storage: i32) -> Outcome<usize> {
        let mut modules = locked(&self.modules);
        if let Some(&module) = modules.get(&(source, storage)) {
            return Ok(module);
        }
        let driver = &self.libraries.driver;
        let image = image(self.libraries, (source, storage, self.architecture.clone()))?;
        let mut module = null_mut();
        // SAFETY: the image is a complete one of NVRTC, which states its own size, and `module` a local variable.
        driver.checked("cuModuleLoadData", unsafe { (driver.load)(&mut module, image.as_ptr().cast()) })?;
        modules.insert((source, storage), module as usize);
        Ok(module as usize)
    }
}

impl std::fmt::Debug for Driven {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driven")
            .field("index", &self.index)
            .field("architecture", &self.architecture)
            .finish_non_exhaustive()
    }
}

/// The current context; the previous one becomes current again when this is dropped.
struct Current<'a>(&'a Driver);

impl Drop for Current<'_> {
    fn drop(&mut self) {
        let mut previous = null_mut();
        // SAFETY: the context on top was pushed by `made_current`; `previous` is a local variable.
        unsafe { (self.0.pop)(&mut previous) };
    }
}
