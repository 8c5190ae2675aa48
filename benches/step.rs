//! One training step through loaded libraries, by backend: of `pretrain`, and of the shapes that `peers/` compares with PyTorch.
//! Also prints the number of calls across the ABI per step; `boundary` measures the cost of one.
#![allow(missing_docs, reason = "criterion's macros")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use telos_benches::{THREADS, Training, backends, experiment, plugin_folder, setup, threads_of};

/// Experiments whose steps are timed.
const EXPERIMENTS: &[&str] = &["pretrain", "bench-small", "bench-medium"];

fn step(c: &mut Criterion) {
    let sets = [threads_of(THREADS)];
    for name in EXPERIMENTS {
        for spec in backends() {
            let setup = setup(&experiment(name), &spec, &sets, &[plugin_folder()]).expect("an experiment");
            let open = |profile| Training::open(&setup, profile).expect("a training");
            let mut counted = open(true);
            counted.step().expect("a step");
            let calls: u64 = counted.record().into_iter().flat_map(|r| r.costs().into_values()).map(|c| c.calls).sum();
            println!("{name}, {spec}: a step makes {calls} crossings into the backend");
            drop(counted);

            let mut training = open(false);
            training.step().expect("a step");
            let mut group = c.benchmark_group(format!("step/{name}"));
            group.throughput(Throughput::Elements(training.tokens() as u64));
            group.sample_size(10).bench_function(spec.to_string(), |b| {
                b.iter(|| {
                    training.step().expect("a step");
                    training.sync().expect("work that is done");
                });
            });
            group.finish();
        }
    }
}

criterion_group!(benches, step);
criterion_main!(benches);
