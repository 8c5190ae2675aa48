//! How a session behaves outside its operations: memory, versions, uploads and downloads.

use crate::Report;
use crate::backend::{
    case::Case,
    stage::{Layout, Stage, run},
    tensor::size_of,
};
use plugin_api::{
    Code, Error, Result,
    abi::{DType, Handle},
    backend::{Session, catalogue::Usage},
};

/// Memory and write versions over repeated calls of one operation.
pub fn operation(session: &mut dyn Session, dtype: DType, case: &Case, report: &mut Report) {
    let steady = steady(session, dtype, case).unwrap_or_else(|e| Err(e.to_string()));
    report.push(case.spec.name, "a repeated call allocates nothing new and leaks nothing", steady);
    let counted = versions(session, dtype, case).unwrap_or_else(|e| Err(e.to_string()));
    report.push(case.spec.name, "counts writes to its outputs only", counted);
    let scratch = workspace(session, dtype, case).unwrap_or_else(|e| Err(e.to_string()));
    report.push(case.spec.name, "its scratch size depends only on shapes", scratch);
}

/// More elements than any case needs.
const ABSURD: u64 = 1 << 40;

fn workspace(session: &mut dyn Session, dtype: DType, case: &Case) -> Result<Result<String, String>> {
    let stage = Stage::place(session, case, dtype, Layout::Dense)?;
    let draft = stage.draft();
    let first = draft.with_call(|call| session.workspace(call));
    stage.release(session)?;
    // The handles are stale now.
    let second = draft.with_call(|call| session.workspace(call));
    Ok(match same(first, second) {
        Ok(_) if first < ABSURD => Ok(format!("{first} bytes")),
        Ok(_) => Err(format!("{first} bytes")),
        Err(e) => Err(e),
    })
}

fn steady(session: &mut dyn Session, dtype: DType, case: &Case) -> Result<Result<String, String>> {
    run(session, case, dtype, Layout::Dense)?;
    run(session, case, dtype, Layout::Dense)?;
    let before = session.memory();
    run(session, case, dtype, Layout::Dense)?;
    let after = session.memory();
    let held = |m: plugin_api::abi::Memory| (m.handles, m.in_use, m.fresh_allocations);
    Ok(same(held(before), held(after)).map_err(|e| format!("handles, bytes in use, fresh allocations: {e}")))
}

fn versions(session: &mut dyn Session, dtype: DType, case: &Case) -> Result<Result<String, String>> {
    let stage = Stage::place(session, case, dtype, Layout::Dense)?;
    let before = stage.versions(session)?;
    let ran = stage.draft().invoke(session);
    let after = stage.versions(session)?;
    let written: Vec<Handle> =
        case.specs().filter(|spec| spec.usage != Usage::Input).map(|spec| stage.view(spec.name).buffer).collect();
    stage.release(session)?;
    ran?;
    for ((handle, before), (_, after)) in before.iter().zip(&after) {
        let should = written.contains(handle);
        if (after > before) != should {
            let kind = if should { "an output" } else { "an input" };
            return Ok(Err(format!("the version of {kind} went from {before} to {after}")));
        }
    }
    Ok(Ok(String::new()))
}

type Check = fn(&mut dyn Session, DType) -> Result<Result<String, String>>;

/// The lines that belong to no operation.
pub fn session(session: &mut dyn Session, dtype: DType, report: &mut Report) {
    let checks: &[(&str, Check)] = &[
        ("bytes come back as they went, in parts too", round_trip),
        ("transfers outside a buffer are refused", transfers_outside),
        ("a freed handle is stale", stale),
        ("memory that cannot be had is refused", too_much),
        ("freed memory is used again and can be given back", reuse),
    ];
    for (name, check) in checks {
        let outcome = check(session, dtype).unwrap_or_else(|e| Err(format!("{e} ({:?})", e.code)));
        report.push("session", name, outcome);
    }
}

/// Fails unless `result` is an error of `code`.
fn expect<T>(what: &str, code: Code, result: Result<T>) -> Result<()> {
    match result {
        Err(e) if e.code == code => Ok(()),
        Err(e) => Err(Error::internal(format!("{what}: {:?} instead of {code:?}: {e}", e.code))),
        Ok(_) => Err(Error::internal(format!("{what}: accepted, expected {code:?}"))),
    }
}

fn passed() -> Result<Result<String, String>> {
    Ok(Ok(String::new()))
}

/// Runs `check` with a buffer and frees it in any case.
fn with_buffer<R>(
    session: &mut dyn Session,
    dtype: DType,
    elements: u64,
    check: impl FnOnce(&mut dyn Session, Handle) -> Result<R>,
) -> Result<R> {
    let buffer = session.alloc(dtype, elements)?;
    let outcome = check(session, buffer);
    session.free(buffer)?;
    outcome
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (i * 37 + 11) as u8).collect()
}

fn round_trip(session: &mut dyn Session, dtype: DType) -> Result<Result<String, String>> {
    for dtype in [dtype, dtype.accumulator(), DType::I32] {
        let size = size_of(dtype);
        for elements in [0, 1, 1000] {
            let sent = pattern(elements * size);
            let received = with_buffer(session, dtype, elements as u64, |session, buffer| {
                session.upload(buffer, 0, &vec![0; elements * size])?;
                let middle = elements / 3;
                session.upload(buffer, middle as u64, &sent[middle * size..])?;
                session.upload(buffer, 0, &sent[..middle * size])?;
                session.sync()?;
                let mut received = vec![0; sent.len()];
                session.download(buffer, 0, &mut received[..middle * size])?;
                session.download(buffer, middle as u64, &mut received[middle * size..])?;
                Ok(received)
            })?;
            if sent != received {
                return Ok(Err(format!("{elements} elements of {dtype} changed in a round trip")));
            }
        }
    }
    passed()
}

fn transfers_outside(session: &mut dyn Session, dtype: DType) -> Result<Result<String, String>> {
    let size = size_of(dtype);
    with_buffer(session, dtype, 100, |session, buffer| {
        // A buffer may hold more than was requested; only the requested part can be read.
        let mut bytes = vec![0; 101 * size];
        expect("uploading 101 of 100", Code::HANDLE, session.upload(buffer, 0, &bytes))?;
        expect("uploading past the end", Code::HANDLE, session.upload(buffer, 100, &bytes[..size]))?;
        expect("uploading far out", Code::HANDLE, session.upload(buffer, u64::MAX, &bytes[..size]))?;
        expect("downloading 101 of 100", Code::HANDLE, session.download(buffer, 0, &mut bytes))?;
        expect("downloading past the end", Code::HANDLE, session.download(buffer, 100, &mut bytes[..size]))?;
        if size > 1 && session.upload(buffer, 0, &bytes[..size + 1]).is_ok() {
            return Err(Error::internal("uploading one byte more than an element: accepted"));
        }
        let foreign = Handle(buffer.0 ^ (1 << 63));
        expect("uploading to another session's buffer", Code::HANDLE, session.upload(foreign, 0, &[]))?;
        expect("freeing another session's buffer", Code::HANDLE, session.free(foreign))
    })?;
    passed()
}

fn stale(session: &mut dyn Session, dtype: DType) -> Result<Result<String, String>> {
    let handle = session.alloc(dtype, 10)?;
    session.free(handle)?;
    expect("freeing twice", Code::HANDLE, session.free(handle))?;
    expect("uploading", Code::HANDLE, session.upload(handle, 0, &[]))?;
    expect("reading its version", Code::HANDLE, session.write_version(handle))?;
    expect("freeing nothing", Code::HANDLE, session.free(Handle::NONE))?;
    with_buffer(session, dtype, 10, |session, successor| {
        if successor == handle {
            return Err(Error::internal("a new buffer has a freed buffer's handle"));
        }
        expect("the old handle after its slot is reused", Code::HANDLE, session.free(handle))
    })?;
    passed()
}

fn too_much(session: &mut dyn Session, dtype: DType) -> Result<Result<String, String>> {
    let held = session.memory().handles;
    expect("2^62 elements", Code::OUT_OF_MEMORY, session.alloc(dtype, 1 << 62))?;
    expect("u64::MAX elements", Code::OUT_OF_MEMORY, session.alloc(dtype, u64::MAX))?;
    expect("a dtype from the future", Code::DTYPE, session.alloc(DType(4_000_000), 1))?;
    Ok(same(held, session.memory().handles))
}

fn reuse(session: &mut dyn Session, dtype: DType) -> Result<Result<String, String>> {
    let held = session.memory();
    with_buffer(session, dtype, 12_345, |_, _| Ok(()))?;
    let first = session.memory();
    with_buffer(session, dtype, 12_345, |session, _| {
        let now = session.memory();
        if now.handles != held.handles + 1 || now.in_use <= held.in_use || now.peak < now.in_use {
            return Err(Error::internal(format!("a buffer was allocated: {held:?} became {now:?}")));
        }
        Ok(())
    })?;
    let second = session.memory();
    if second.fresh_allocations != first.fresh_allocations {
        return Ok(Err("the second buffer of a size allocated device memory".into()));
    }
    session.trim();
    session.sync()?;
    Ok(same((held.in_use, 0), (session.memory().in_use, session.memory().cached)))
}

/// Agreement of two counts.
pub(in crate::backend) fn same<T: PartialEq + std::fmt::Debug>(expected: T, found: T) -> Result<String, String> {
    if expected == found { Ok(String::new()) } else { Err(format!("expected {expected:?}, found {found:?}")) }
}
