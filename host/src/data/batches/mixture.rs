//! The order of an epoch over several weighted sources: a pure function of seed and epoch, so that resuming needs only
//! counters.
//!
//! An epoch has as many sequences as all sources together, and source `i` contributes its share `w_i / sum(w)` of them. Each
//! source is an endless stream, in which every pass over its sequences is shuffled anew; an epoch continues each stream where
//! the epoch before ended. So a source with a small weight is read completely over several epochs, and one with a large weight
//! repeats its sequences, each equally often up to one. Within an epoch, the sequences of each source are spread evenly, so that
//! every part of it has about the same mixture.

use telos_random::Rng;

use super::order::DocumentSpan;

/// Separates the random streams from those of [`super::order`].
const PASS: u64 = 4;
const SPREAD: u64 = 5;

/// How many sequences an epoch draws from sources of these sizes with these weights: in proportion to the weights, rounded to
/// whole sequences, whose sum is that of the sizes.
pub fn quotas(sizes: &[usize], weights: &[f64]) -> Vec<usize> {
    let (total, sum) = (sizes.iter().sum::<usize>(), weights.iter().sum::<f64>());
    let (mut quotas, mut before, mut drawn) = (Vec::new(), 0.0, 0);
    for weight in weights {
        before += weight;
        // Rounding the running sum keeps every quota within one of its exact share, and the total exact.
        let until = ((total as f64 * before / sum).round() as usize).clamp(drawn, total);
        quotas.push(until - drawn);
        drawn = until;
    }
    quotas
}

/// The sequences of an epoch in training order. `sources`: the sequences of each source in its own order.
pub fn epoch(sources: &[Vec<DocumentSpan>], weights: &[f64], seed: u64, epoch: u64) -> Vec<DocumentSpan> {
    let sizes: Vec<usize> = sources.iter().map(Vec::len).collect();
    let mut drawn: Vec<(f64, usize, DocumentSpan)> = Vec::new();
    for (number, (source, quota)) in sources.iter().zip(quotas(&sizes, weights)).enumerate() {
        let mut spread = Rng::new(&[seed, SPREAD, epoch, number as u64]);
        let stream = stream(source, seed, number as u64, u128::from(epoch) * quota as u128).take(quota);
        for (index, span) in stream.enumerate() {
            let place = (spread.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
            drawn.push(((index as f64 + place) / quota as f64, number, span));
        }
    }
    drawn.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    drawn.into_iter().map(|(_, _, span)| span).collect()
}

/// The endless stream of a source from its sequence number `begin` on.
fn stream(source: &[DocumentSpan], seed: u64, number: u64, begin: u128) -> impl Iterator<Item = DocumentSpan> {
    let size = source.len().max(1) as u128;
    let first = (begin % size) as usize;
    let passes = ((begin / size) as u64)..;
    let pass = move |pass: u64| {
        let mut spans = source.to_vec();
        Rng::new(&[seed, PASS, number, pass]).shuffle(&mut spans);
        spans
    };
    passes.flat_map(pass).skip(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(sizes: &[usize]) -> Vec<Vec<DocumentSpan>> {
        let source = |(number, size): (usize, &usize)| {
            (0..*size as u32)
                .map(|row| DocumentSpan { document: number as u32 * 1000 + row, begin: 1, end: 2 })
                .collect()
        };
        sizes.iter().enumerate().map(source).collect()
    }

    /// Catches a share that does not follow the weights, an epoch of another length, and a part of an epoch with another
    /// mixture.
    #[test]
    fn an_epoch_follows_the_weights_throughout() {
        let (sources, weights) = (sources(&[100, 300]), [3.0, 1.0]);
        assert_eq!(quotas(&[100, 300], &weights), [300, 100]);
        assert_eq!(quotas(&[1, 1, 1], &[1.0, 1.0, 1.0]), [1, 1, 1]);
        assert_eq!(quotas(&[5, 5], &[1e-9, 1.0]), [0, 10]);
        for epoch in 0..3 {
            let order = super::epoch(&sources, &weights, 7, epoch);
            assert_eq!(order.len(), 400);
            for part in order.chunks(40) {
                let first = part.iter().filter(|span| span.document < 1000).count();
                assert!((27..=33).contains(&first), "{first} of 40");
            }
        }
    }

    /// Catches a sequence that is never read, one that is read too often, and an order that is the same in every epoch or with
    /// every seed.
    #[test]
    fn sources_are_read_evenly_over_the_epochs() {
        let (sources, weights) = (sources(&[10, 30]), [1.0, 1.0]);
        let all: Vec<DocumentSpan> = (0..3).flat_map(|epoch| super::epoch(&sources, &weights, 7, epoch)).collect();
        let count = |span: &DocumentSpan| all.iter().filter(|own| *own == span).count();
        assert!(sources[0].iter().all(|span| count(span) == 6));
        assert!(sources[1].iter().all(|span| count(span) == 2));
        assert_ne!(super::epoch(&sources, &weights, 7, 0), super::epoch(&sources, &weights, 7, 1));
        assert_ne!(super::epoch(&sources, &weights, 7, 0), super::epoch(&sources, &weights, 8, 0));
        assert_eq!(super::epoch(&sources, &weights, 7, 5), super::epoch(&sources, &weights, 7, 5));
    }
}
