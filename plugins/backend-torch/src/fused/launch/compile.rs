//! NVRTC: compiles a source for a type of element and an architecture.

use super::{
    error::{KernelError, Outcome},
    library::{self, functions},
};
use std::{
    ffi::{CStr, CString, c_char, c_int, c_void},
    ptr::null_mut,
};

/// The header that every source includes.
const HEADER: &str = include_str!("../../kernels/common.cuh");

type Program = *mut c_void;

functions! {
    /// NVRTC's functions.
    Compiler of "NVRTC" {
        /// Program, source, name, number of headers, their texts, their names.
        create(*mut Program, *const c_char, *const c_char, c_int, *const *const c_char, *const *const c_char) = "nvrtcCreateProgram";
        /// Program, number of options, options.
        compile_program(Program, c_int, *const *const c_char) = "nvrtcCompileProgram";
        /// Program, size.
        log_size(Program, *mut usize) = "nvrtcGetProgramLogSize";
        /// Program, text.
        log(Program, *mut c_char) = "nvrtcGetProgramLog";
        /// Program, size.
        image_size(Program, *mut usize) = "nvrtcGetCUBINSize";
        /// Program, bytes.
        image(Program, *mut c_char) = "nvrtcGetCUBIN";
        /// Program.
        destroy(*mut Program) = "nvrtcDestroyProgram";
    }
}

fn checked(function: &'static str, code: i32) -> Outcome {
    match code {
        0 => Ok(()),
        code => Err(KernelError::Call { function, text: format!("NVRTC's error {code}") }),
    }
}

/// A program that is destroyed when it is dropped.
struct Owned<'a> {
    compiler: &'a Compiler,
    program: Program,
}

impl Drop for Owned<'_> {
    fn drop(&mut self) {
        // SAFETY: the program was created by this library and is not used again. An error would leave it in memory.
        unsafe { (self.compiler.destroy)(&mut self.program) };
    }
}

impl Compiler {
    /// Finds and opens NVRTC.
    ///
    /// # Errors
    /// Every place that was tried, and the remedy.
    pub fn open() -> Outcome<Self> {
        Compiler::of(library::nvrtc()?)
    }

    /// The machine code of a source, for a `STORAGE` and an architecture such as `sm_90`.
    ///
    /// # Errors
    /// NVRTC's messages.
    pub fn compile(&self, (name, text): (&'static str, &str), storage: i32, architecture: &str) -> Outcome<Vec<u8>> {
        let inner =
            |_| KernelError::Compile { source: name, architecture: architecture.into(), log: "a 0 byte".into() };
        let string = |text: &str| CString::new(text).map_err(inner);
        let (source, file) = (string(text)?, string(name)?);
        let (header, header_name) = (string(HEADER)?, c"common.cuh");
        let (headers, names) = ([header.as_ptr()], [header_name.as_ptr()]);
        let mut owned = Owned { compiler: self, program: null_mut() };
        // SAFETY: C strings and one-element arrays that live during the call; NVRTC copies them.
        let created = unsafe {
            (self.create)(&mut owned.program, source.as_ptr(), file.as_ptr(), 1, headers.as_ptr(), names.as_ptr())
        };
        checked("nvrtcCreateProgram", created)?;
        let options = [
            string(&format!("--gpu-architecture={architecture}"))?,
            string(&format!("--define-macro=STORAGE={storage}"))?,
            string("--std=c++17")?,
            // Contraction is exact or better; the approximations of --use_fast_math are not used.
            string("--fmad=true")?,
        ];
        let options = options.each_ref().map(|option| option.as_ptr());
        // SAFETY: the program is live, and the options are C strings that live during the call.
        let compiled = unsafe { (self.compile_program)(owned.program, options.len() as c_int, options.as_ptr()) };
        if compiled != 0 {
            let log = self.log_of(owned.program).unwrap_or_else(|why| why.to_string());
            return Err(KernelError::Compile { source: name, architecture: architecture.into(), log });
        }
        let mut size = 0;
        // SAFETY: the program is live, and `size` is a local variable.
        checked("nvrtcGetCUBINSize", unsafe { (self.image_size)(owned.program, &mut size) })?;
        let mut image = vec![0u8; size];
        // SAFETY: the buffer has the size that NVRTC has just reported.
        checked("nvrtcGetCUBIN", unsafe { (self.image)(owned.program, image.as_mut_ptr().cast()) })?;
        Ok(image)
    }

    fn log_of(&self, program: Program) -> Outcome<String> {
        let mut size = 0;
        // SAFETY: the program is live, and `size` is a local variable.
        checked("nvrtcGetProgramLogSize", unsafe { (self.log_size)(program, &mut size) })?;
        let mut text = vec![0u8; size];
        // SAFETY: the buffer has the size that NVRTC has just reported.
        checked("nvrtcGetProgramLog", unsafe { (self.log)(program, text.as_mut_ptr().cast()) })?;
        let text = CStr::from_bytes_until_nul(&text).map(|text| text.to_string_lossy().into_owned());
        Ok(text.unwrap_or_default())
    }
}
