//! The number of threads is the session's. Tested in a process of its own, because libtorch keeps the workers that it has started.

use backend_torch::Torch;
use plugin_api::backend::{
    Backend, DType, Op, Session, SessionOptions, View,
    ops::{ActivationKind, Glu, Linear},
};

/// Threads of this process, if the system reports them.
fn running() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, |tasks| tasks.count())
}

/// A product and a pointwise operation, both large enough to be split.
fn work(threads: usize) {
    const SIDE: u64 = 512;
    let mut session = Torch::open(&SessionOptions { threads, ..SessionOptions::default() }).unwrap();
    let [x, w, y] =
        [(); 3].map(|()| View::dense(session.alloc(DType::F32, SIDE * SIDE).unwrap(), DType::F32, SIDE, SIDE));
    for view in [&x, &w] {
        session.upload(view.buffer, 0, &vec![0; (SIDE * SIDE * 4) as usize]).unwrap();
    }
    Linear { x, w, bias: None, y }.with_call(|call| session.invoke(call)).unwrap();
    Glu { gate: x, up: w, y, kind: ActivationKind::SILU }.with_call(|call| session.invoke(call)).unwrap();
}

/// Catches a thread count that never reaches libtorch, and one that remains from another session.
#[cfg(target_os = "linux")]
#[test]
fn the_number_of_threads_is_exact() {
    let before = running();
    work(1);
    assert_eq!(running(), before, "a session of one thread started workers");
    work(3);
    assert_eq!(running(), before + 2, "a session of three threads has two workers");
    work(1);
}
