//! Generated tokens per second by batch size and backend: with a prompt per sample, and with one prompt for all samples.
#![allow(missing_docs, reason = "criterion's macros")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use telos::generate::{GenerateOptions, generate};
use telos_benches::{THREADS, backends, experiment, plugin_folder, setup, threads_of};

/// Numbers of samples generated together.
const BATCHES: [usize; 4] = [1, 4, 16, 64];

/// Tokens of a prompt and of its continuation.
const LENGTHS: (usize, usize) = (16, 32);

fn generation(c: &mut Criterion) {
    for spec in backends() {
        let sets = [threads_of(THREADS)];
        let setup = setup(&experiment("bench-small"), &spec, &sets, &[plugin_folder()]).expect("an experiment");
        let (device, _) = setup.device(false).expect("a device");
        let model = setup.model(&device, None, telos::model::Outputs::TOKENS).expect("a model");
        let vocab = setup.config.vocab as usize;
        let options = GenerateOptions { max_tokens: LENGTHS.1, ..GenerateOptions::default() };
        let mut group = c.benchmark_group(format!("generation/{spec}"));
        group.sample_size(10);
        for batch in BATCHES {
            // A token that ends the sequence may be drawn now and then; it ends a sample early on every backend alike.
            group.throughput(Throughput::Elements((batch * LENGTHS.1) as u64));
            for shared in [false, true] {
                let token = |sample: usize, place: usize| (if shared { 7 } else { sample * 31 } + place * 17) % vocab;
                let prompts: Vec<Vec<i32>> =
                    (0..batch).map(|s| (0..LENGTHS.0).map(|p| token(s, p) as i32).collect()).collect();
                let name = if shared { "one prompt" } else { "own prompts" };
                group.bench_function(format!("{batch} samples, {name}"), |b| {
                    b.iter(|| generate(&model, &prompts, &options, &mut |_| {}).expect("samples"));
                });
            }
        }
        group.finish();
    }
}

criterion_group!(benches, generation);
criterion_main!(benches);
