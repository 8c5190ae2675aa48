use super::*;

struct Bytes(#[allow(dead_code, reason = "held, never read")] Vec<u8>);

impl Storage for Bytes {
    type Device = ();
    fn allocate(_: &(), dtype: DType, elements: u64) -> Result<Self> {
        Ok(Bytes(vec![0; elements as usize * dtype.size().unwrap_or(1)]))
    }
}

fn pool(tag: u16) -> Pool<Bytes> {
    Pool::new((), tag)
}

#[test]
fn a_stale_handle_of_a_reused_slot_is_refused() {
    let mut p = pool(1);
    let old = p.alloc(DType::F32, 10).unwrap();
    p.free(old).unwrap();
    let new = p.alloc(DType::F32, 10).unwrap();
    assert_eq!(old.0 & FIELD, new.0 & FIELD, "the slot is reused, or this test shows nothing");
    assert_eq!(p.buffer(old).err().map(|e| e.code), Some(Code::HANDLE));
    assert_eq!(p.free(old).err().map(|e| e.code), Some(Code::HANDLE));
    assert!(p.buffer(new).is_ok());
}

/// Catches a count of reuses that restarts at 0: a handle from 2^24 buffers ago would name a new one.
#[test]
fn a_slot_whose_generations_are_used_up_is_not_reused() {
    let mut p = pool(1);
    let first = p.alloc(DType::F32, 10).unwrap();
    p.free(first).unwrap();
    p.slots[0].generation = FIELD as u32 - 1;
    let last = p.alloc(DType::F32, 10).unwrap();
    assert_eq!((last.0 & FIELD, last.0 >> 24 & FIELD), (0, FIELD));
    p.free(last).unwrap();
    for _ in 0..3 {
        let next = p.alloc(DType::F32, 10).unwrap();
        assert_eq!(next.0 & FIELD, 1, "another slot");
        for old in [first, last] {
            assert_eq!(p.buffer(old).err().map(|e| e.code), Some(Code::HANDLE));
            assert_eq!(p.free(old).err().map(|e| e.code), Some(Code::HANDLE));
        }
        p.free(next).unwrap();
    }
}

#[test]
fn a_handle_of_another_session_is_refused() {
    let foreign = pool(2).alloc(DType::F32, 10).unwrap();
    let mut p = pool(1);
    p.alloc(DType::F32, 10).unwrap();
    let error = p.buffer(foreign).err().unwrap();
    assert!(error.message.contains("not of this session"), "{error}");
}

#[test]
fn a_steady_state_allocates_nothing_and_leaks_nothing() {
    let mut p = pool(1);
    for step in 0..10 {
        let held: Vec<_> = (1..20).map(|i| p.alloc(DType::F32, i * 100).unwrap()).collect();
        let fresh = p.memory().fresh_allocations;
        held.into_iter().for_each(|h| p.free(h).unwrap());
        assert!(step == 0 || fresh == 19, "step {step}: {fresh}");
    }
    assert_eq!(p.memory().in_use, 0);
    assert_eq!(p.memory().handles, 0);
}

/// Catches spare buffers that are kept although their sizes never occur again: windows of ever new sizes would then fill the
/// memory. Catches a buffer that is reused for a far smaller request, so that the next large one finds none.
#[test]
fn spare_buffers_are_bounded_and_serve_slightly_smaller_requests() {
    let mut p = pool(1);
    let mut most = 0;
    for round in 0..40 {
        let held: Vec<_> = (0..8).map(|i| p.alloc(DType::F32, 3000 * (i + 1) + 997 * round).unwrap()).collect();
        held.into_iter().for_each(|h| p.free(h).unwrap());
        let memory = p.memory();
        most = most.max(memory.in_use + memory.cached);
        assert!(memory.in_use + memory.cached <= memory.peak + memory.peak / 8, "round {round}: {memory:?}");
    }
    assert!(most > 0);
    let mut p = pool(1);
    let large = p.alloc(DType::F32, 4096).unwrap();
    p.free(large).unwrap();
    let fresh = p.memory().fresh_allocations;
    let slightly = p.alloc(DType::F32, 3400).unwrap();
    assert_eq!(p.memory().fresh_allocations, fresh, "a buffer of 4096 serves 3400");
    assert_eq!(p.memory().in_use, 4 * 4096, "and counts whole");
    p.free(slightly).unwrap();
    p.alloc(DType::F32, 2000).unwrap();
    assert_eq!(p.memory().fresh_allocations, fresh + 1, "but not 2000");
}

/// Catches a bound that grows with the weights: spare buffers are a share of the memory that is freed and taken again, not of what
/// stays in use.
#[test]
fn spare_buffers_are_a_share_of_the_working_memory() {
    let mut p = pool(1);
    let weights = p.alloc(DType::F32, 1 << 22).unwrap();
    let mut most = 0;
    for round in 0..40 {
        let held: Vec<_> = (0..8).map(|i| p.alloc(DType::F32, 3000 * (i + 1) + 997 * round).unwrap()).collect();
        held.into_iter().for_each(|h| p.free(h).unwrap());
        let memory = p.memory();
        let working = memory.peak - (4 << 22);
        let spare = memory.in_use + memory.cached;
        // What was just freed was in use at the peak.
        assert!(spare <= memory.peak + working / 8, "round {round}: {memory:?}");
        most = most.max(spare);
    }
    assert!(most > (4 << 22) && p.memory().peak / 8 > 400_000, "weights outweigh the rest");
    p.free(weights).unwrap();
}

#[test]
fn a_view_that_leaves_its_buffer_is_refused_even_by_overflow() {
    let mut p = pool(1);
    let h = p.alloc(DType::F32, 12).unwrap();
    assert!(p.check(&View::dense(h, DType::F32, 3, 4)).is_ok());
    for bad in [
        View { offset: 1, ..View::dense(h, DType::F32, 3, 4) },
        View { row_stride: 5, ..View::dense(h, DType::F32, 3, 4) },
        View { row_stride: u64::MAX, ..View::dense(h, DType::F32, 3, 4) },
        View { offset: u64::MAX, ..View::dense(h, DType::F32, 1, 4) },
        View { dtype: DType::I32, ..View::dense(h, DType::F32, 3, 4) },
    ] {
        assert!(p.check(&bad).is_err(), "{bad:?}");
    }
    assert_eq!(p.alloc(DType::F32, u64::MAX / 2).err().map(|e| e.code), Some(Code::OUT_OF_MEMORY));
}

#[test]
fn writes_are_counted() {
    let mut p = pool(1);
    let h = p.alloc(DType::F32, 4).unwrap();
    p.buffer_mut(h).unwrap();
    p.written(h).unwrap();
    assert_eq!(p.write_version(h).unwrap(), 2);
}
