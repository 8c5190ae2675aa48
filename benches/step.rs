//! One training step of the quickstart through loaded libraries: window, objective, backward, norm, AdamW. Also prints
//! how many crossings a step makes and what share of its time they cost at the price `boundary` measures.
#![allow(missing_docs, reason = "criterion's macros")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::path::Path;
use telos::{
    config::Override,
    model::Recompute,
    train::{arrays::cut, optim::Adam, setup::prepare, trail::Trail, window::accumulate},
};
use telos_benches::plugin_folder;

fn step(c: &mut Criterion) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../experiments/quickstart.toml");
    let runs = std::env::temp_dir().join("telos-bench-runs");
    let over = Override::text("bench", "runs_dir", &runs.to_string_lossy());
    let prepared = prepare(&file, &[over], &[plugin_folder()], true).expect("the quickstart experiment");
    let mut objectives = prepared.objectives().expect("objectives");
    let (device, record) = prepared.device(true).expect("a device");
    let data = prepared.data(false).expect("data");
    let (mut batcher, _) = prepared.batcher(&data).expect("batches");
    let model = prepared.model(&device, None).expect("a model");
    let mut adam = Adam::new(&device, model.layout(), &prepared.experiment().train.optimizer).expect("an optimizer");
    let grads = model.flat_buffer().expect("memory");
    let context = prepared.config.context as usize;
    let window = batcher.next_window(context).expect("data").expect("a window");
    let micro_batches = cut(&window, prepared.experiment().train.micro_batch_tokens).expect("micro-batches");
    let trail = Trail::default();
    let mut one = || {
        model.zero(&grads).expect("zero");
        accumulate(&model, &mut objectives, &micro_batches, Recompute::Auto, &grads, &trail).expect("gradient");
        adam.measure(&grads).expect("norm");
        adam.update(model.params(), model.shadow(), &grads, 1e-4).expect("update");
    };
    one();
    if let Some(record) = &record {
        record.clear();
        one();
        let calls: u64 = record.costs().values().map(|cost| cost.calls).sum();
        println!("a step makes {calls} crossings into the backend");
    }
    let mut group = c.benchmark_group("step");
    group.throughput(Throughput::Elements(window.positions() as u64));
    group.sample_size(20).bench_function("quickstart/candle", |b| b.iter(&mut one));
    group.finish();
}

criterion_group!(benches, step);
criterion_main!(benches);
