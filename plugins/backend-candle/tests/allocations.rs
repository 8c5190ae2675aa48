//! Memory that kernels take from the system: none, once a call of the same shapes has been made before.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
};

use backend_candle::{Candle, CandleSession};
use backend_reference::ReferenceBackend;
use plugin_api::{
    Code, Result,
    abi::{Call, View},
    backend::{Backend, DType, Session, SessionOptions, ops::CATALOGUE},
};
use plugin_api_laws::backend::Suite;

/// The system's allocator, which counts.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// An operation and the shapes of its operands.
type Shape = (u32, Vec<(u64, u64, u64)>);

/// Counts the allocations of each operation, from its third call with the same shapes on.
struct Counted {
    inner: CandleSession,
    calls: BTreeMap<Shape, usize>,
    found: BTreeMap<&'static str, usize>,
    steady: usize,
}

impl Session for Counted {
    fn invoke(&mut self, call: &Call<'_>) -> Result<()> {
        let shape = |view: &View| (view.rows, view.cols, view.row_stride);
        let key = (call.op, call.inputs.iter().chain(call.outputs).map(shape).collect());
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        let result = self.inner.invoke(call);
        let count = ALLOCATIONS.load(Ordering::Relaxed) - before;
        // A refusal has a message.
        result?;
        let calls = self.calls.entry(key).or_default();
        *calls += 1;
        if *calls > 2 {
            self.steady += 1;
            if count > 0 {
                let name = CATALOGUE.iter().find(|spec| spec.id == call.op).map_or("unknown", |spec| spec.name);
                *self.found.entry(name).or_default() += count;
            }
        }
        Ok(())
    }

    fn trim(&mut self) {
        // Scratch is given back, and is taken again by the next call.
        self.calls.clear();
        self.inner.trim();
    }

    plugin_api::pass_on!(inner: alloc free upload download write_version supports workspace memory sync);
}

/// Catches a kernel that allocates in every call: a vector of its own, a job that is boxed, scratch that is not kept.
#[test]
fn a_repeated_kernel_allocates_nothing() {
    let manifest = Candle::manifest();
    let sets = &manifest.options.iter().find(|option| option.name == "isa").unwrap().choices[1..];
    let mut opened = 0;
    for dtype in [DType::F32, DType::BF16] {
        let mut reference = ReferenceBackend::open(&SessionOptions::default()).unwrap();
        let suite = Suite::prepare(&mut reference, dtype, |_| true).unwrap();
        for (isa, threads) in sets.iter().flat_map(|isa| [(isa, 1), (isa, 2)]) {
            let mut options = SessionOptions { threads, ..SessionOptions::default() };
            options.options.insert("isa".into(), isa.as_str().into());
            let inner = match Candle::open(&options) {
                Ok(inner) => inner,
                Err(e) if e.code == Code::OPTION => {
                    eprintln!("NOT RUN: {e}");
                    continue;
                }
                Err(e) => panic!("{isa}: {e}"),
            };
            opened += 1;
            let mut counted = Counted { inner, calls: BTreeMap::new(), found: BTreeMap::new(), steady: 0 };
            assert!(suite.verify(&mut counted, |_| true).is_ok());
            assert!(counted.steady > 100, "{}", counted.steady);
            assert!(counted.found.is_empty(), "{isa}, {dtype}, {threads} threads: {:?}", counted.found);
        }
    }
    assert!(opened > 0, "none of {sets:?} was there");
}
