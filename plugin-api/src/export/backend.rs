//! Exports a backend.

use super::guard;
use super::instance::{Identity, drop_instance, from_instance, from_json, json, status, to_instance};
use crate::{
    Result,
    abi::{
        RSlice, RVec, Status,
        tables::{BackendTable, Instance, PluginRoot, PluginRootRef},
    },
    backend::{Backend, Call, DType, Handle, Memory, Session},
    contract,
};
use guard::Guarded;
use std::marker::PhantomData;

/// The root table of backend `T` under identity `I`.
pub fn backend_root<I: Identity, T: Backend>() -> PluginRootRef {
    let table = BackendTable {
        manifest: Slots::<I, T>::manifest,
        open: Slots::<I, T>::open,
        close: Slots::<I, T>::close,
        invoke: Slots::<I, T>::invoke,
        alloc: Slots::<I, T>::alloc,
        free: Slots::<I, T>::free,
        upload: Slots::<I, T>::upload,
        download: Slots::<I, T>::download,
        write_version: Slots::<I, T>::write_version,
        supports: Slots::<I, T>::supports,
        workspace: Slots::<I, T>::workspace,
        memory: Slots::<I, T>::memory,
        trim: Slots::<I, T>::trim,
        sync: Slots::<I, T>::sync,
        #[cfg(feature = "next-minor")]
        appended: Slots::<I, T>::appended,
    };
    PluginRoot::of_backend(table)
}

struct Slots<I, T>(PhantomData<(I, T)>);

/// The caller's memory as a slice.
///
/// # Safety
/// `bytes` points to `length` writable bytes that no other code accesses during the call.
unsafe fn slice_mut<'a>(bytes: *mut u8, length: u64) -> &'a mut [u8] {
    if bytes.is_null() || length == 0 {
        return &mut [];
    }
    // SAFETY: guaranteed by the caller; null is handled above.
    unsafe { std::slice::from_raw_parts_mut(bytes, length as usize) }
}

impl<I: Identity, T: Backend> Slots<I, T> {
    extern "C" fn manifest(out: &mut RVec<u8>) -> Status {
        let bytes = guard::catch(I::ID, "manifest", || {
            let mut manifest = T::manifest();
            manifest.id = I::ID.into();
            manifest.version = I::VERSION.into();
            contract::finite_options(&manifest.options)?;
            json(&manifest)
        });
        status(bytes, |b| *out = b.into())
    }

    extern "C" fn open(options: RSlice<'_, u8>, out: &mut Instance) -> Status {
        let session = guard::catch(I::ID, "open", || T::open(&from_json(options.as_slice())?));
        status(session, |value| *out = to_instance(Guarded::new(I::ID, value)))
    }

    extern "C" fn close(session: Instance) {
        // SAFETY: the host passes a session of this table, once.
        unsafe { drop_instance::<T::Session>(session) }
    }

    fn call<R>(session: Instance, what: &str, call: impl FnOnce(&mut T::Session) -> Result<R>) -> Result<R> {
        // SAFETY: the host passes a live session of this table, from one thread at a time.
        unsafe { from_instance::<T::Session>(session) }?.call(what, call)
    }

    extern "C" fn invoke(session: Instance, call: &Call<'_>) -> Status {
        status(Self::call(session, "invoke", |s| s.invoke(call)), |()| ())
    }

    extern "C" fn alloc(session: Instance, dtype: DType, elements: u64, out: &mut Handle) -> Status {
        status(Self::call(session, "alloc", |s| s.alloc(dtype, elements)), |h| *out = h)
    }

    extern "C" fn free(session: Instance, buffer: Handle) -> Status {
        status(Self::call(session, "free", |s| s.free(buffer)), |()| ())
    }

    extern "C" fn upload(session: Instance, buffer: Handle, offset: u64, bytes: RSlice<'_, u8>) -> Status {
        status(Self::call(session, "upload", |s| s.upload(buffer, offset, bytes.as_slice())), |()| ())
    }

    extern "C" fn download(session: Instance, buffer: Handle, offset: u64, bytes: *mut u8, length: u64) -> Status {
        // SAFETY: the host passes its own buffer of `length` bytes, borrowed only for this call.
        let bytes = unsafe { slice_mut(bytes, length) };
        status(Self::call(session, "download", |s| s.download(buffer, offset, bytes)), |()| ())
    }

    extern "C" fn write_version(session: Instance, buffer: Handle, out: &mut u64) -> Status {
        status(Self::call(session, "write_version", |s| s.write_version(buffer)), |v| *out = v)
    }

    extern "C" fn supports(session: Instance, op: u32, dtype: DType) -> u32 {
        u32::from(Self::call(session, "supports", |s| Ok(s.supports(op, dtype))).unwrap_or(false))
    }

    extern "C" fn workspace(session: Instance, call: &Call<'_>) -> u64 {
        Self::call(session, "workspace", |s| Ok(s.workspace(call))).unwrap_or(0)
    }

    extern "C" fn memory(session: Instance) -> Memory {
        Self::call(session, "memory", |s| Ok(s.memory())).unwrap_or_default()
    }

    extern "C" fn trim(session: Instance) {
        let _ = Self::call(session, "trim", |s| {
            s.trim();
            Ok(())
        });
    }

    extern "C" fn sync(session: Instance) -> Status {
        status(Self::call(session, "sync", |s| s.sync()), |()| ())
    }

    #[cfg(feature = "next-minor")]
    extern "C" fn appended(_: Instance) -> u64 {
        11
    }
}
