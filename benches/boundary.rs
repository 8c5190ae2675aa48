//! The cost of crossing: an operation that does nothing, and an objective's loss, each through a loaded library.
#![allow(missing_docs, reason = "criterion's macros")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use plugin_api::{
    backend::{Op, ops::Nop},
    batch::{Batch, Scope},
    manifest::kind,
    objective::Objective,
};
use telos_benches::{backends, library, on, spec};

fn invoke(c: &mut Criterion) {
    for spec in [spec("reference")].into_iter().chain(backends()) {
        let mut session = on(&spec, 1).session(1).expect("a session");
        c.bench_function(&format!("boundary/invoke nop/{spec}"), |b| {
            b.iter(|| Nop {}.with_call(|call| session.invoke(call)).expect("nop"));
        });
    }
}

fn loss(c: &mut Criterion) {
    let ce = library(kind::OBJECTIVE, "ce").objective(&Default::default()).expect("ce");
    let mut group = c.benchmark_group("boundary/loss ce");
    for tokens in [2048_usize, 65536] {
        let sequences = tokens / 128;
        let offsets: Vec<f64> = (0..=sequences).map(|s| (s * 128) as f64).collect();
        let batch = Batch::new()
            .with("offsets", Scope::BATCH, offsets)
            .with("target", Scope::TOKEN, vec![1.0; tokens])
            .with("mask", Scope::TOKEN, vec![1.0; tokens])
            .with_statistic("logp", Scope::TOKEN, vec![-2.0; tokens]);
        group.throughput(Throughput::Elements(tokens as u64));
        group.bench_function(format!("{tokens} tokens"), |b| b.iter(|| ce.loss(&batch).expect("loss")));
    }
    group.finish();
}

criterion_group!(benches, invoke, loss);
criterion_main!(benches);
